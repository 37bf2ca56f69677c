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

Float32: TypeAlias = NDArray[np.float32]
State: TypeAlias = Mapping[str, Any]

_FLOATS = ("float16", "float32", "float64")
# A counter of training that torch's BatchNorm saves: kept if it is there, never needed.
_COUNTER = "num_batches_tracked"


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
    _packed: tuple[tuple[Any, ...], Any] | None

    def __init__(self) -> None:
        for name, value in (("_parameters", {}), ("_children", {}), ("_packed", None)):
            object.__setattr__(self, name, value)

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
        elif isinstance(value, Module):
            self._children[name] = value
            object.__setattr__(self, name, value)
        else:
            object.__setattr__(self, name, value)

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
        self._parameters[name] = value

    def children(self) -> Iterator[Module]:
        """The modules that this one is made of, in the order of their names' creation."""
        return iter(self._children.values())

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

    def _native(self) -> Any:
        """The packed form for the kernels, made when it is first needed and kept until a parameter
        of this module or one below it changes."""
        parts = tuple(self._native_inputs())
        kept = self.__dict__["_packed"]
        if (
            kept is None
            or len(kept[0]) != len(parts)
            or any(a is not b for a, b in zip(kept[0], parts, strict=True))
        ):
            kept = (parts, self._pack())
            object.__setattr__(self, "_packed", kept)
        return kept[1]

    def _native_inputs(self) -> Iterator[Any]:
        yield from self._parameters.values()
        for child in self._children.values():
            yield from child._native_inputs()

    def _pack(self) -> Any:
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __deepcopy__(self, memo: dict[int, Any]) -> Module:
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        for name, value in self.__getstate__().items():
            # Parameters are read-only and so may be shared until one of the two loads others.
            copied = dict(value) if name == "_parameters" else copy.deepcopy(value, memo)
            object.__setattr__(other, name, copied)
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
