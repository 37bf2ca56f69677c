# SPDX-License-Identifier: Apache-2.0
"""What all modules share: parameters by name, children, loading and saving of a state_dict."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from simdformer.checkpoint import Checkpoint
from simdformer.nn import packing

Float32: TypeAlias = NDArray[np.float32]
State: TypeAlias = Mapping[str, Any]

_FLOATS = ("float16", "float32", "float64")
# A counter of training that torch's BatchNorm saves: kept if it is there, never needed.
_COUNTER = "num_batches_tracked"
# What is no part of what a module is: see Module.shaping.
_BOOKKEEPING = frozenset({"_parameters", "_children", "_kept", "_checked"})


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` could not match."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """A layer with parameters, for inference: there are no gradients and no training mode.

    Parameters are read-only float32 arrays. They change by `load_state_dict`, or by assigning a
    whole array (`layer.weight = array`) of the same shape. A parameter that a layer was built
    without is None and has no key.
    """

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
            return parameters[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._parameters:
            self._set(name, name, value)
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

    def _register(self, name: str, value: NDArray[Any] | None) -> None:
        """A parameter: None if the layer was built without it."""
        self._parameters[name] = None if value is None else _read_only(value)

    def _set(self, name: str, key: str, value: Any) -> None:
        old = self._parameters[name]
        if old is None:
            raise ValueError(f"{type(self).__name__} was built without {key}")
        array = _as_parameter(key, value, old.dtype)
        if array.shape != old.shape:
            raise ValueError(f"{key} must have shape {old.shape}, got {array.shape}")
        self._set_parameter(name, array)

    def _set_parameter(self, name: str, value: Any) -> None:
        with packing.lock():
            self._parameters[name] = value
            packing.mark_change()

    def children(self) -> Iterator[Module]:
        """The modules that this one is made of, in the order of their names' creation."""
        return iter(self._children.values())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Their names too."""
        return iter(self._children.items())

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, NDArray[Any]]]:
        """Dotted names and arrays of this module and those below it, in torch's order."""
        for name, value in self._parameters.items():
            if value is not None:
                yield prefix + name, value
        for name, child in self._children.items():
            yield from child.named_parameters(f"{prefix}{name}.")

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """All parameters by name. The arrays are read-only; copy them to change them."""
        return dict(self.named_parameters())

    def load_state_dict(
        self, state_dict: State | str | Path, strict: bool = True
    ) -> IncompatibleKeys:
        """Take parameters from `{name: array}`, a safetensors or PyTorch file, or a folder with one.

        Arrays are float16, float32 or float64 and are copied; CPU tensors count as arrays.
        Errors: ValueError names all missing, unexpected and misshapen keys, and nothing has been
        changed then. With strict=False the missing and unexpected ones are returned instead.
        """
        state = read_state(state_dict)
        wanted = self.state_dict()
        missing = [n for n in wanted if n not in state and not n.endswith(_COUNTER)]
        unexpected = [name for name in state if name not in wanted]
        problems = []
        if strict and missing:
            problems.append(f"missing keys: {', '.join(missing)}")
        if strict and unexpected:
            problems.append(f"unexpected keys: {', '.join(unexpected)}")
        loaded = {}
        for name, old in wanted.items():
            if name not in state:
                continue
            loaded[name] = _as_parameter(name, state[name], old.dtype)
            if loaded[name].shape != old.shape:
                problems.append(
                    f"{name} has shape {loaded[name].shape}, the module needs {old.shape}"
                )
        if problems:
            raise ValueError(
                f"state_dict does not fit {type(self).__name__}: {'; '.join(problems)}"
            )
        for name, array in loaded.items():
            self._owner(name)._set_parameter(name.rpartition(".")[2], array)
        return IncompatibleKeys(missing, unexpected)

    def _owner(self, name: str) -> Module:
        module = self
        for part in name.split(".")[:-1]:
            module = module._children[part]
        return module

    def native(self) -> Any:
        """The packed form for the kernels, made when it is first needed and kept until something
        that shapes it changes: a parameter or an attribute of this module or of one below it."""
        checked, mark = self._checked.get("native"), packing.mark()
        if checked is not None and checked[0] is mark:
            return checked[1]
        with packing.lock():
            packed = self._kept.get("native", tuple(self.shaping()), self._pack)
            self._checked["native"] = (mark, packed)
        return packed

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


def read_state(source: State | str | Path) -> State:
    """`{name: array}` as it is given, or read from a checkpoint."""
    if isinstance(source, Mapping):
        return source
    if not isinstance(source, (str, Path)):
        raise TypeError(
            f"state_dict must map names to arrays or be a path, got {type(source).__name__}"
        )
    with Checkpoint(Path(source)) as checkpoint:
        names = [name for name in checkpoint.names() if not name.endswith(_COUNTER)]
        return {name: checkpoint.read(name) for name in names}


def _as_parameter(name: str, value: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    array = np.asarray(value)
    if dtype == np.float32 and array.dtype.name not in _FLOATS:
        raise TypeError(f"{name} must be an array of floats, got {array.dtype}")
    return _read_only(np.array(array, dtype=dtype, order="C"))


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array


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
