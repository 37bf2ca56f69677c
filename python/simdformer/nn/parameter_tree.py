# SPDX-License-Identifier: Apache-2.0
"""Parameters and children by name: setting them, loading and saving a state_dict, copies."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from inspect import signature
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from simdformer.nn import packing
from simdformer.nn.parameters import (
    Deferred,
    Empty,
    Stored,
    as_slot,
    compute_type_of,
    read_only,
    shape_of,
    value_of,
)
from simdformer.nn.state import IncompatibleKeys, State, Wanted, match_state, opened_state

# Attributes that do not affect a module's result: see ParameterTree.shaping.
_BOOKKEEPING = frozenset({"_parameters", "_children", "_kept", "_checked"})


class ParameterTree:
    """A module's parameters and children, each an attribute with its name."""

    # The names of the parameters that are matrices with a compute type.
    matrix_names: ClassVar[tuple[str, ...]] = ()

    _parameters: dict[str, Any]
    _children: dict[str, Any]
    _kept: packing.Kept
    _checked: dict[str, Any]  # objects compared at the last check, and the counter then

    def __init__(self) -> None:
        self.__dict__.update(_parameters={}, _children={}, _kept=packing.Kept(), _checked={})

    def __getattr__(self, name: str) -> Any:
        parameters = self.__dict__.get("_parameters", {})
        if name in parameters:
            return self._value(name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if "_parameters" not in self.__dict__:
            raise AttributeError(
                f"call super().__init__() before {type(self).__name__}.{name} is set"
            )
        if name in self._parameters:
            old = self._parameters[name]
            if old is None:
                raise ValueError(f"{type(self).__name__} was built without {name}")
            self._place(name, as_slot(name, value, old, is_matrix=name in self.matrix_names))
            return
        if isinstance(value, ParameterTree):
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
            raise AttributeError(f"{name} of {type(self).__name__} cannot be deleted")
        object.__delattr__(self, name)
        packing.mark_change()

    def _value(self, name: str) -> Any:
        """The value of a parameter. Vectors and unpacked matrices are kept after the first access."""
        slot = self._parameters[name]
        if isinstance(slot, Empty):
            raise ValueError(  # noqa: TRY004
                f"{name} of {type(self).__name__} was built without values; load a state_dict first"
            )
        if isinstance(slot, Stored) and not (slot.is_packed or name in self.matrix_names):
            return slot.keep()
        return value_of(slot)

    def has(self, name: str) -> bool:
        """Whether there is a parameter of this name. Its value is not read."""
        return self._parameters.get(name) is not None

    def _register(self, name: str, value: NDArray[Any] | Deferred | None) -> None:
        """Add a parameter; None if the layer was built without it."""
        self._place(name, read_only(value) if isinstance(value, np.ndarray) else value)

    def place(self, name: str) -> Any:
        """The value in the place of a parameter: see parameters.py."""
        return self._parameters[name]

    def put(self, name: str, slot: Any) -> None:
        """Put a value of the right shape, or a reference to one, in the place of a parameter."""
        self._place(name, slot)

    def places(self) -> dict[str, tuple[Any, str]]:
        """Return, by dotted name, the module of each parameter and the parameter's name there.

        A shared parameter has the first of its names.
        """
        first: dict[tuple[int, str], tuple[str, Any]] = {}
        for dotted, owner, name in self._owners():
            first.setdefault((id(owner), name), (dotted, owner))
        return {dotted: (owner, name) for (_, name), (dotted, owner) in first.items()}

    def _place(self, name: str, slot: Any) -> None:
        with packing.lock():
            self._parameters[name] = slot
            packing.mark_change()

    def _options(self, *, all_required: bool) -> Iterator[str]:
        """The constructor's arguments that differ from their defaults."""
        for name, parameter in signature(type(self).__init__).parameters.items():
            required = parameter.default is parameter.empty
            if name in self._parameters or (required and not all_required):
                continue
            value = getattr(self, name, parameter.default)
            plain = isinstance(value, (bool, int, float, str, tuple, type(None)))
            if plain and value is not parameter.default and value != parameter.default:
                yield f"{name}={value!r}"

    def __repr__(self) -> str:
        shapes = [
            f"{name}={shape_of(slot)}{'' if kind == 'float32' else ' ' + kind}"
            for name, slot in self._parameters.items()
            if slot is not None
            for kind in [compute_type_of(slot)]
        ]
        own = ", ".join([*shapes, *self._options(all_required=not shapes)])
        lines = [f"  {line}" for line in self._lines_of_children()]
        if not lines:
            return f"{type(self).__name__}({own})"
        return "\n".join([f"{type(self).__name__}({own}", *lines, ")"])

    def _lines_of_children(self) -> Iterator[str]:
        """The children's lines. Consecutive children with the same text are written once, as in torch."""
        alike = groupby(self._children.items(), lambda item: repr(item[1]))
        for text, items in alike:
            names = [name for name, _ in items]
            count = f"({names[0]}-{names[-1]}): {len(names)} x " if names[1:] else f"({names[0]}): "
            yield from (count + text).splitlines()

    def children(self) -> Iterator[Any]:
        """Yield the direct submodules, in the order in which their names were created."""
        return iter(self._children.values())

    def named_children(self) -> Iterator[tuple[str, Any]]:
        """Yield (name, submodule) of the direct submodules."""
        return iter(self._children.items())

    def modules(self) -> Iterator[Any]:
        """Yield this module and all its submodules."""
        yield self
        for child in self._children.values():
            yield from child.modules()

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Yield (dotted name, module) of this module and all its submodules. This module's name is prefix."""
        yield prefix, self
        for name, child in self._children.items():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def _owners(self, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
        """Dotted name, module and own name of each parameter, in torch's order. Values are not read."""
        for name, slot in self._parameters.items():
            if slot is not None:
                yield prefix + name, self, name
        for name, child in self._children.items():
            yield from child._owners(f"{prefix}{name}.")

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Yield (dotted name, float32 array) of all parameters, in torch's order."""
        for dotted, owner, name in self._owners(prefix):
            yield dotted, owner._value(name)

    def parameters(self) -> Iterator[Any]:
        """Yield the parameters of this module and its submodules, float32 arrays."""
        for _, value in self.named_parameters():
            yield value

    def state_dict(self) -> dict[str, Any]:
        """Return all parameters by name. The arrays are read-only; copy them to change them."""
        return dict(self.named_parameters())

    def load_state_dict(
        self, state_dict: State | str | Path, strict: bool = True
    ) -> IncompatibleKeys:
        """Load parameters.

        Parameters
        ----------
        state_dict
            A mapping of names to arrays, a safetensors or PyTorch file, or a folder with one. Arrays are
            float16, float32 or float64 and are copied; CPU tensors are accepted. A matrix may be an
            Int8Matrix, and must be one for a module in int8.
        strict
            Refuse missing and unexpected keys.

        Returns
        -------
        IncompatibleKeys
            The missing and unexpected keys.

        Raises
        ------
        ValueError
            With all missing, unexpected and misshapen keys. Nothing is changed in this case.
        """
        owners = {dotted: (owner, name) for dotted, owner, name in self._owners()}
        firsts = self.places()
        with opened_state(state_dict) as state:
            wanted = {
                dotted: Wanted(owner._parameters[name], name in owner.matrix_names)
                for dotted, (owner, name) in owners.items()
                if dotted in firsts or dotted in state
            }
            slots, keys = match_state(wanted, state, strict=strict, kind=type(self).__name__)
        for dotted, slot in slots.items():
            owner, name = owners[dotted]
            owner._place(name, slot)
        return keys

    def shaping(self) -> Iterator[object]:
        """All objects that the result of this module and its descendants depends on."""
        yield type(self)
        for name, value in list(vars(self).items()):
            if name not in _BOOKKEEPING and not isinstance(value, ParameterTree):
                yield name
                yield value
        yield from list(self._parameters.values())
        for name, child in list(self._children.items()):
            yield name
            yield from child.shaping()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": packing.Kept(), "_checked": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        for name, value in self.__getstate__().items():
            # Parameters are read-only, and packed forms never change, so both copies share them until one of
            # them loads other parameters.
            if name == "_parameters":
                other.__dict__[name] = dict(value)
            elif name == "_kept":
                other.__dict__[name] = self._kept.copy()
            else:
                other.__dict__[name] = copy.deepcopy(value, memo)
        return other
