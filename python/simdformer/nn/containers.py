# SPDX-License-Identifier: Apache-2.0
"""Modules that contain other modules, in order."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from simdformer.nn import packing
from simdformer.nn.compute_types import Sample
from simdformer.nn.module import Module
from simdformer.nn.parameter_tree import ParameterTree


class _Ordered(Module):
    """Named children in order."""

    def _add(self, name: str, module: Any) -> None:
        if not isinstance(module, ParameterTree):
            raise TypeError(
                f"a {type(self).__name__} holds Modules, got {type(module).__name__} for {name}"
            )
        self._children[name] = module
        packing.mark_change()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._children.values())

    def __len__(self) -> int:
        return len(self._children)

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]

    def __setitem__(self, index: int, module: Module) -> None:
        self._add(list(self._children)[index], module)


class ModuleList(_Ordered):
    """Modules named "0", "1", ..., as torch.nn.ModuleList.

    Parameters
    ----------
    modules
        The modules.

    Examples
    --------
    >>> from simdformer import nn
    >>> len(nn.ModuleList([nn.Linear(8, 4), nn.ReLU()]))
    2
    """

    def __init__(self, modules: Iterable[Any] | None = None) -> None:
        super().__init__()
        self.extend(modules or ())

    def append(self, module: Any) -> ModuleList:
        """Add a module at the end and return this list."""
        self._add(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Any]) -> ModuleList:
        """Add modules at the end and return this list."""
        for module in modules:
            self.append(module)
        return self

    def insert(self, index: int, module: Any) -> None:
        """Insert a module before an index."""
        modules = list(self)
        modules.insert(index, module)
        for i, each in enumerate(modules):
            self._add(str(i), each)


class Sequential(_Ordered):
    """Modules applied one after another, as torch.nn.Sequential.

    Parameters
    ----------
    *modules
        The modules, or one dictionary of them.

    Examples
    --------
    >>> from simdformer import nn
    >>> nn.Sequential(nn.Linear(8, 4), nn.ReLU())(np.ones((3, 8), dtype=np.float32)).shape
    (3, 4)
    """

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        named = len(modules) == 1 and isinstance(modules[0], Mapping)
        items = modules[0].items() if named else enumerate(modules)
        for name, module in items:
            self._add(str(name), module)

    def append(self, module: Any) -> Sequential:
        """Add a module at the end and return this module."""
        self._add(str(len(self)), module)
        return self

    def sample(self) -> Sample:
        """The default sample for quantization: that of the first module."""
        first: Module = self[0]
        return first.sample()

    def forward(self, input: Any, *, num_threads: int = 0) -> Any:
        """Apply the modules, each to the output of the one before."""
        for module in self:
            threads = "num_threads" in inspect.signature(module.forward).parameters
            input = module(input, num_threads=num_threads) if threads else module(input)
        return input
