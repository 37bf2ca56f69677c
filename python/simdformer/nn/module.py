# SPDX-License-Identifier: Apache-2.0
"""What all modules share: parameters by name, children, loading and saving of a state_dict."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from simdformer import _core
from simdformer.nn import packing
from simdformer.nn.compute_types import Recorder, Sample, check_compute_type, quantized_place
from simdformer.nn.parameters import (
    Deferred,
    Empty,
    Stored,
    as_slot,
    compute_type_of,
    in_type,
    read_only,
    shape_of,
    value_of,
)
from simdformer.nn.state import IncompatibleKeys, State, Wanted, match_state, opened_state

if TYPE_CHECKING:
    from typing_extensions import Self

Float32: TypeAlias = NDArray[np.float32]

# What is no part of what a module is: see Module.shaping.
_BOOKKEEPING = frozenset({"_parameters", "_children", "_kept", "_checked"})


class PackedMatrix(NamedTuple):
    """A matrix of a module, and the layers that it is packed in."""

    owner: Module
    name: str
    linears: tuple[_core.Linear, ...]


class Module:
    """A layer with parameters, for inference: there are no gradients and no training mode.

    Parameters are read-only float32 arrays. They change by `load_state_dict`, or by assigning a
    whole array (`layer.weight = array`) of the same shape. A parameter that a layer was built
    without is None and has no key. A matrix in int8 is an Int8Matrix.
    """

    # The parameters that layers multiply with: what compute types are about.
    matrix_names: ClassVar[tuple[str, ...]] = ()

    _parameters: dict[str, Any]
    _children: dict[str, Module]
    _kept: packing.Kept
    _checked: dict[str, Any]  # what was compared, and the mark under which it was

    def __init__(self) -> None:
        self.__dict__.update(_parameters={}, _children={}, _kept=packing.Kept(), _checked={})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; calling the module calls this."""
        raise NotImplementedError(f"{type(self).__name__} is used by other modules, not called")

    def __getattr__(self, name: str) -> Any:
        parameters = self.__dict__.get("_parameters", {})
        if name in parameters:
            return self._value(name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._parameters:
            old = self._parameters[name]
            if old is None:
                raise ValueError(f"{type(self).__name__} was built without {name}")
            self._place(name, as_slot(name, value, old, is_matrix=name in self.matrix_names))
            return
        if isinstance(value, Module):
            self._children[name] = value
        elif name in self._children:
            if value is not None:
                raise TypeError(
                    f"{name} of {type(self).__name__} must be a Module or None, got"
                    f" {type(value).__name__}"
                )
            del self._children[name]
        object.__setattr__(self, name, value)
        packing.mark_change()

    def __delattr__(self, name: str) -> None:
        if name in self._parameters or name in self._children:
            raise AttributeError(f"{name} of {type(self).__name__} can't be deleted")
        object.__delattr__(self, name)
        packing.mark_change()

    def _value(self, name: str) -> Any:
        """A parameter as it is read. What is no matrix is at hand from then on."""
        slot = self._parameters[name]
        if isinstance(slot, Empty):
            raise ValueError(  # noqa: TRY004
                f"{name} of {type(self).__name__} was built without numbers; load a state_dict first"
            )
        if isinstance(slot, Stored) and name not in self.matrix_names:
            return slot.keep()
        return value_of(slot)

    def has(self, name: str) -> bool:
        """Whether there is a parameter of this name; it is not read."""
        return self._parameters.get(name) is not None

    def _register(self, name: str, value: NDArray[Any] | Deferred | None) -> None:
        """A parameter: None if the layer was built without it."""
        self._place(name, read_only(value) if isinstance(value, np.ndarray) else value)

    def place(self, name: str) -> Any:
        """What the place of a parameter holds: see parameters.py."""
        return self._parameters[name]

    def put(self, name: str, slot: Any) -> None:
        """Put an array of its shape, or what stands for it, in the place of a parameter."""
        self._place(name, slot)

    def places(self) -> dict[str, tuple[Module, str]]:
        """Of each parameter, by its dotted name, the module that has it and its name there."""
        return {dotted: (owner, name) for dotted, owner, name in self._owners()}

    def _place(self, name: str, slot: Any) -> None:
        with packing.lock():
            self._parameters[name] = slot
            packing.mark_change()

    def __repr__(self) -> str:
        own = ", ".join(
            f"{name}={shape_of(slot)}{'' if kind == 'float32' else ' ' + kind}"
            for name, slot in self._parameters.items()
            if slot is not None
            for kind in [compute_type_of(slot)]
        )
        lines = [f"  {line}" for line in self._lines_of_children()]
        if not lines:
            return f"{type(self).__name__}({own})"
        return "\n".join([f"{type(self).__name__}({own}", *lines, ")"])

    def _lines_of_children(self) -> Iterator[str]:
        """Children that are written alike, one behind another, are written once, as torch does."""
        alike = groupby(self._children.items(), lambda item: repr(item[1]))
        for text, items in alike:
            names = [name for name, _ in items]
            count = f"({names[0]}-{names[-1]}): {len(names)} x " if names[1:] else f"({names[0]}): "
            yield from (count + text).splitlines()

    def children(self) -> Iterator[Module]:
        """The modules that this one is made of, in the order of their names' creation."""
        return iter(self._children.values())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Their names too."""
        return iter(self._children.items())

    def modules(self) -> Iterator[Module]:
        """This module and all those below it."""
        yield self
        for child in self._children.values():
            yield from child.modules()

    def _owners(self, prefix: str = "") -> Iterator[tuple[str, Module, str]]:
        """Dotted name, module and name in it of each parameter, in torch's order. None is read."""
        for name, slot in self._parameters.items():
            if slot is not None:
                yield prefix + name, self, name
        for name, child in self._children.items():
            yield from child._owners(f"{prefix}{name}.")

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Dotted names and arrays of this module and those below it, in torch's order."""
        for dotted, owner, name in self._owners(prefix):
            yield dotted, owner._value(name)

    def state_dict(self) -> dict[str, Any]:
        """All parameters by name. The arrays are read-only; copy them to change them."""
        return dict(self.named_parameters())

    def load_state_dict(
        self, state_dict: State | str | Path, strict: bool = True
    ) -> IncompatibleKeys:
        """Take parameters from `{name: array}`, a safetensors or PyTorch file, or a folder with one.

        Arrays are float16, float32 or float64 and are copied; CPU tensors count as arrays. A matrix
        may be an Int8Matrix, and is one for a module in int8.
        Errors: ValueError names all missing, unexpected and misshapen keys, and nothing has been
        changed then. With strict=False the missing and unexpected ones are returned instead.
        """
        owners = {dotted: (owner, name) for dotted, owner, name in self._owners()}
        wanted = {
            dotted: Wanted(owner._parameters[name], name in owner.matrix_names)
            for dotted, (owner, name) in owners.items()
        }
        with opened_state(state_dict) as state:
            slots, keys = match_state(wanted, state, strict=strict, kind=type(self).__name__)
        for dotted, slot in slots.items():
            owner, name = owners[dotted]
            owner._place(name, slot)
        return keys

    def native(self) -> Any:
        """The packed form for the kernels, made when it is first needed and kept until something
        that shapes it changes: a parameter or an attribute of this module or of one below it."""
        return self._packed("native", self._pack)

    def _packed(self, form: str, pack: Callable[[], Any]) -> Any:
        checked, mark = self._checked.get(form), packing.mark()
        if checked is not None and checked[0] is mark:
            return checked[1]
        with packing.lock():
            packed = self._kept.get(form, tuple(self.shaping()), pack)
            self._checked[form] = (mark, packed)
        return packed

    def pack(self) -> None:
        """Do now what the first call does, and read every parameter that is stored elsewhere: what
        it was stored in may be closed. One tensor after another: each is let go once it is packed.
        """
        self._pack_all()
        for module in self.modules():
            for slot in module._parameters.values():
                if isinstance(slot, Stored) and not slot.is_packed:
                    slot.keep()

    def _pack_all(self) -> None:
        """The packed forms that a call needs: its own, or if it has none those of its parts."""
        if type(self)._pack is not Module._pack:
            self.native()
            return
        for child in self.children():
            child._pack_all()

    @property
    def compute_type(self) -> str:
        """What matrices are multiplied with in: "float32", "bfloat16" or "int8"; "mixed" if not all
        are in one type."""
        types = self._types() or {"float32"}
        return types.pop() if len(types) == 1 else "mixed"

    def _types(self) -> set[str]:
        return {owner.type_of(name) for owner in self._multiplying() for name in owner.matrices()}

    def to_compute_type(self, compute_type: str, sample: Any = None) -> Self:
        """Multiply with all matrices in float32, bfloat16 or int8 from now on. Returns the module.

        bfloat16 rounds them; int8 quantises them and leaves the columns in float32 that have far
        larger inputs than the others on `sample`: what the module is called with, as one argument, a
        tuple of them or a mapping of names to them. None for standard normal rows, or ids from all
        over the vocabulary, the same each time. The float32 numbers are let go.
        No other thread may use the module meanwhile.
        Errors: ValueError for an unknown type, for weights that are not finite, and out of int8.
        """
        present = self._types()
        check_compute_type(compute_type, present)
        if present <= {compute_type}:
            return self
        owners = [(owner, name) for owner in self._multiplying() for name in owner.matrices()]
        outliers: dict[tuple[int, str], Any] = {}
        if compute_type == "int8":
            outliers = self._outliers(Sample.of(sample) if sample is not None else self.sample())
        before = [(owner, dict(owner._parameters)) for owner, _ in owners]
        try:
            for owner, name in owners:
                owner.set_type(name, compute_type, outliers.get((id(owner), name)))
        except ValueError:
            for owner, places in before:
                owner._parameters.update(places)
            raise
        for module in self.modules():  # what is packed otherwise now
            module.__dict__.update(_kept=packing.Kept(), _checked={})
        return self

    def _outliers(self, sample: Sample) -> dict[tuple[int, str], Any]:
        """The outlier columns of each matrix, by its module's id and name."""
        self._pack_all()
        packed = list(self.packed_matrices())
        with packing.lock(), Recorder(x for _, _, linears in packed for x in linears) as inputs:
            self._call_with(sample)
        return {(id(owner), name): inputs.outliers(linears) for owner, name, linears in packed}

    def sample(self) -> Sample:
        """What it is quantised with if no sample is given."""
        raise ValueError(f"{type(self).__name__} needs a sample to be quantised")

    def _call_with(self, sample: Sample) -> None:
        self(*sample.args, **{**sample.options, "num_threads": 1})

    def _multiplying(self) -> Iterator[Module]:
        """This module and those below it whose matrices compute types are about."""
        yield self
        for child in self._children.values():
            yield from child._multiplying()

    def matrices(self) -> list[str]:
        """The names of its own matrices that are multiplied with."""
        return [name for name in self.matrix_names if self._parameters.get(name) is not None]

    def type_of(self, name: str) -> str:
        """The compute type of one of them."""
        return compute_type_of(self._parameters[name])

    def set_type(self, name: str, compute_type: str, outliers: Any = None) -> None:
        """Give one of them another compute type. outliers: columns, for int8."""
        place = self._parameters[name]
        if compute_type == "int8":
            if self.type_of(name) != "int8":
                self._place(name, quantized_place(name, self._value(name), outliers))
            return
        self._place(name, in_type(place, compute_type))

    def packed_matrices(self) -> Iterator[PackedMatrix]:
        """What its matrices and those below it are packed in for a call."""
        for child in self._children.values():
            yield from child.packed_matrices()

    def shaping(self) -> Iterator[object]:
        """All objects that make this module and those below it what they are."""
        yield type(self)
        for name, value in list(vars(self).items()):
            if name not in _BOOKKEEPING and not isinstance(value, Module):
                yield name
                yield value
        yield from list(self._parameters.values())
        for name, child in list(self._children.items()):
            yield name
            yield from child.shaping()

    def _pack(self) -> Any:
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": packing.Kept(), "_checked": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __deepcopy__(self, memo: dict[int, Any]) -> Module:
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        for name, value in self.__getstate__().items():
            # Parameters are read-only, and what was packed of them does not change: both copies use
            # them until one of the two loads others.
            if name == "_parameters":
                other.__dict__[name] = dict(value)
            elif name == "_kept":
                other.__dict__[name] = self._kept.copy()
            else:
                other.__dict__[name] = copy.deepcopy(value, memo)
        return other


class ModuleList(Module):
    """Modules under the names "0", "1", ..."""

    def __init__(self, modules: list[Any]) -> None:
        super().__init__()
        for i, module in enumerate(modules):
            self._children[str(i)] = module

    def __iter__(self) -> Iterator[Any]:
        return iter(self._children.values())

    def __len__(self) -> int:
        return len(self._children)

    def __getitem__(self, index: int) -> Any:
        return list(self._children.values())[index]

    def __setitem__(self, index: int, module: Module) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"a ModuleList holds Modules, got {type(module).__name__}")
        self._children[list(self._children)[index]] = module
        packing.mark_change()


def float_input(name: str, value: Any, features: int | None = None) -> Float32:
    """An input as a float32 array whose rows are contiguous. TypeError for any other dtype."""
    array = np.asarray(value)
    if array.dtype != np.float32:
        raise TypeError(f"{name} must be float32, got {array.dtype}")
    if features is not None and (array.ndim == 0 or array.shape[-1] != features):
        raise ValueError(f"{name} must have {features} features, got shape {array.shape}")
    if array.ndim and array.shape[-1] > 1 and array.strides[-1] != array.itemsize:
        array = np.ascontiguousarray(array)
    return array
