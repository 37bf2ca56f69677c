# SPDX-License-Identifier: Apache-2.0
"""modules.json: the modules of a model in order, and the modules that a Router selects for a task.

A module is recognized by the name of its class and never imported. The path of a class has changed between
releases of sentence-transformers; its last part has not.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from simdformer.checkpoint import read_any_json, read_json, read_optional_json
from simdformer.folder.fields import refuse_keys, warn_keys
from simdformer.models import published
from simdformer.models.config_fields import flag

# Modules that read texts. One of these is the first of a list.
INPUT_MODULES = ("Transformer", "StaticEmbedding", "SparseStaticEmbedding")
KNOWN_MODULES = (
    "Transformer",
    "Pooling",
    "Dense",
    "Normalize",
    "LayerNorm",
    "Dropout",
    "WeightedLayerPooling",
    "StaticEmbedding",
    "Router",
    # of CrossEncoder
    "LogitScore",
    # of SparseEncoder
    "SpladePooling",
    "SparseStaticEmbedding",
    # of MultiVectorEncoder
    "MultiVectorMask",
    "HierarchicalTokenPooling",
)
# The same class under the names of other packages.
_OTHERS = {"pylate.models.Dense.Dense": "sentence_transformers.models.Dense"}
_OLD_NAMES = {"Asym": "Router", "MLMTransformer": "Transformer"}
# The published code of jina-embeddings-v3: a Transformer that selects an adapter by task.
_JINA_TRANSFORMER = "custom_st.Transformer"


class Module(NamedTuple):
    """kind: the name of the class. folder: where its files are; None if no file describes the module. router:
    the lists that a Router selects from."""

    kind: str
    folder: Path | None
    router: Router | None = None


@dataclass(frozen=True)
class Router:
    """Named lists of modules. A task selects one of them.

    mappings: the name of the list for each task, for texts; the key None matches every task. default: the
    list for texts without a task.
    """

    path: Path
    routes: Mapping[str, tuple[Module, ...]]
    mappings: Mapping[str | None, str]
    default: str | None

    def choose(self, task: str | None) -> tuple[Module, ...]:
        """The modules for a task. ValueError lists the tasks if it is not one of them."""
        name = self.mappings.get(task, self.mappings.get(None))
        if name is None:
            name = task if task in self.routes else "text" if "text" in self.routes else None
        if name is None and task is None:
            name = self.default
        if name is None:
            known = ", ".join(map(repr, self.tasks()))
            raise ValueError(f"{self.path}: no route for task={task!r}; known: {known}")
        return self.routes[name]

    def tasks(self) -> list[str]:
        """The tasks with a list of their own."""
        return list(dict.fromkeys([*self.routes, *(task for task in self.mappings if task)]))


class ModuleList:
    """The modules of a folder. source: the file that lists them. is_saved: whether sentence-transformers
    wrote the folder."""

    def __init__(self, source: Path, modules: Sequence[Module], *, is_saved: bool = True) -> None:
        self.source = source
        self.is_saved = is_saved
        self.modules = tuple(modules)

    @property
    def tasks(self) -> list[str]:
        """The tasks that a Router distinguishes."""
        routers = [module.router for module in self.modules if module.router]
        return list(dict.fromkeys(task for router in routers for task in router.tasks()))

    def of(self, task: str | None) -> tuple[Module, ...]:
        """The modules for a task, with Routers replaced by the selected lists. ValueError if a task has
        none."""
        return tuple(_resolved(self.modules, task))

    def serves(self, task: str | None) -> bool:
        """Whether a task has a list."""
        try:
            self.of(task)
        except ValueError:
            return False
        return True

    def kinds(self) -> list[str]:
        """The names of the classes."""
        return [module.kind for module in self.modules]


def read_modules(folder: Path) -> ModuleList | None:
    """Read modules.json; None if there is none.

    Errors: ValueError for an unknown module (the message lists the known ones), or a path outside the folder.
    """
    path = folder / "modules.json"
    if not os.path.lexists(path):
        return None
    entries = read_any_json(path)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path}: expected a list of objects with name, path and type")
    names = [str(entry.get("name", index)) for index, entry in enumerate(entries)]
    if len(set(names)) < len(names):  # a later module would replace an earlier one
        raise ValueError(f"{path}: two modules have one name: {', '.join(names)}")
    for entry in entries:
        warn_keys(path, entry, ("idx", "name", "path", "type", "kwargs"))
    modules = [_module(path, entry.get("type"), _inside(folder, path, entry)) for entry in entries]
    return ModuleList(path, modules)


def _inside(folder: Path, path: Path, entry: Mapping[str, Any]) -> Path:
    return inside(folder, path, entry.get("path"))


def inside(folder: Path, source: Path, path: object) -> Path:
    """A folder inside `folder`. ValueError names the file with a path that leads outside."""
    parts = PurePosixPath(path).parts if isinstance(path, str) else ("..",)
    if ".." in parts or parts[:1] == ("/",) or _is_odd(str(path)):
        raise ValueError(f"{source}: module paths must stay in the model folder, got {path!r}")
    return folder.joinpath(*parts)


def _is_odd(path: str) -> bool:
    """Whether a path has another meaning, or none, on other systems."""
    return "\\" in path or "\0" in path or bool(PureWindowsPath(path).drive)


def _module(source: Path, kind: object, folder: Path, depth: int = 0) -> Module:
    package, _, name = _OTHERS.get(str(kind), str(kind)).rpartition(".")
    name = _OLD_NAMES.get(name, name)
    if kind == _JINA_TRANSFORMER and published(read_optional_json(folder / "config.json")):
        return Module("Transformer", folder)
    # a class from elsewhere is code in the model's own repository, whatever its name
    if name not in KNOWN_MODULES or package.partition(".")[0] != "sentence_transformers":
        raise ValueError(
            f"{source}: unknown module type {kind!r};"
            f" known: {', '.join(KNOWN_MODULES)} of sentence_transformers"
        )
    return Module(name, folder, _router(folder, depth + 1) if name == "Router" else None)


def _router(folder: Path, depth: int) -> Router:
    path = folder / "router_config.json"
    config = read_optional_json(path)
    if not config:  # before 5.0
        path = folder / "config.json"
        config = read_json(path)
    if depth > 4:
        raise ValueError(f"{path}: routers within routers within routers are not supported")
    warn_keys(path, config, ("types", "structure", "parameters"))
    types, structure, parameters = (
        _object(path, config, name) for name in ("types", "structure", "parameters")
    )
    modules = {
        name: _module(path, kind, inside(folder, path, name), depth) for name, kind in types.items()
    }
    routes = {}
    for route, names in structure.items():
        if not isinstance(names, list) or not all(name in modules for name in names):
            raise ValueError(f"{path}: structure[{route!r}] must list some of types, got {names!r}")
        routes[route] = tuple(modules[name] for name in names)
    return _with_parameters(path, routes, parameters)


def _with_parameters(
    path: Path, routes: Mapping[str, tuple[Module, ...]], parameters: Mapping[str, Any]
) -> Router:
    refuse_keys(path, parameters, ("default_route", "allow_empty_key", "route_mappings"))
    default = parameters.get("default_route")
    if not routes or (default is not None and default not in routes):
        raise ValueError(
            f"{path}: default_route must be one of {', '.join(routes)}, got {default!r}"
        )
    if default is None and flag(parameters, "allow_empty_key", True):
        default = next(iter(routes))
    given = _object(path, parameters, "route_mappings")
    # An entry for texts has precedence over an entry for all modalities.
    ranked: dict[str | None, str] = {}
    for modality in (None, "text"):
        for key, route in given.items():
            task, of = _route_key(path, key)
            if route not in routes:
                raise ValueError(
                    f"{path}: route_mappings[{key!r}] must be one of {', '.join(routes)},"
                    f" got {route!r}"
                )
            if of == modality:
                ranked[task] = route
    return Router(path, routes, ranked, default)


def _route_key(path: Path, key: str) -> tuple[str | None, object]:
    """(task, modality) from the Python literal in a key."""
    try:
        value = ast.literal_eval(key)
        task, modality = value
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        task, modality = 0, None
    if task is not None and not isinstance(task, str):
        raise ValueError(
            f"{path}: route_mappings must have keys such as \"('query', 'text')\", got {key!r}"
        )
    return task, modality


def _object(path: Path, config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = config.get(name)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{path}: {name} must be an object, got {value!r}")
    return value or {}


def _resolved(modules: Sequence[Module], task: str | None) -> Iterator[Module]:
    for module in modules:
        if module.router is None:
            yield module
        else:
            yield from _resolved(module.router.choose(task), task)


def is_causal_language_model(config: Mapping[str, Any]) -> bool:
    """Whether config.json's first architecture is a causal language model and is_causal is not false."""
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    return str(first).endswith("ForCausalLM") and config.get("is_causal") is not False
