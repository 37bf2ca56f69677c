# SPDX-License-Identifier: Apache-2.0
"""`import sentence_transformers` gives simdformer's classes, if a program asks for it.

Libraries recognize a sentence-transformers model by importing that package, or by the name of its type.
The module that replaces the package has simdformer's four classes under their names there. Other names
come from sentence-transformers if it is installed (it is imported, with PyTorch, when such a name is
first used), else from simdformer.util.
"""

from __future__ import annotations

import copyreg
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

import numpy as np

from simdformer import util
from simdformer.cross_encoder import CrossEncoder as _CrossEncoder
from simdformer.drop_in.torch_module import Device
from simdformer.multi_vector_encoder import MultiVectorEncoder as _MultiVectorEncoder
from simdformer.sentence_transformer import SentenceTransformer as _SentenceTransformer
from simdformer.sparse_embeddings import SparseEmbeddings
from simdformer.sparse_encoder import SparseEncoder as _SparseEncoder

_NAME = "sentence_transformers"
# The subpackages of sentence_transformers that contain one of our classes.
_PARTS = {
    "sentence_transformer": "SentenceTransformer",
    "cross_encoder": "CrossEncoder",
    "sparse_encoder": "SparseEncoder",
    "multi_vector_encoder": "MultiVectorEncoder",
}
# The release whose interface this module has, reported if sentence-transformers is not installed.
_VERSION = "6.2.0"


class _StandIn:
    """Results and the device with torch's types where sentence-transformers has them, if PyTorch is
    installed."""

    @property
    def device(self) -> Any:
        """The CPU: the only device here."""
        torch = sys.modules.get("torch")
        return Device("cpu") if torch is None else torch.device("cpu")

    def _given(self, value: Any) -> Any:
        return _as_tensors(value)


class _StandInType(type):
    """The type of the classes below. pickle treats them specially, because their module may be
    sentence-transformers' own in another process."""


class SentenceTransformer(_StandIn, _SentenceTransformer, metaclass=_StandInType):
    """simdformer.SentenceTransformer with tensors as results where sentence-transformers returns them, if
    PyTorch is installed."""


class CrossEncoder(_StandIn, _CrossEncoder, metaclass=_StandInType):
    """simdformer.CrossEncoder, with the same difference."""


class SparseEncoder(_StandIn, _SparseEncoder, metaclass=_StandInType):
    """simdformer.SparseEncoder, with the same difference: SparseEmbeddings are sparse tensors."""


class MultiVectorEncoder(_StandIn, _MultiVectorEncoder, metaclass=_StandInType):
    """simdformer.MultiVectorEncoder, with the same difference."""


_CLASSES: dict[str, type] = {
    kind.__name__: kind
    for kind in (SentenceTransformer, CrossEncoder, SparseEncoder, MultiVectorEncoder)
}
for _class in _CLASSES.values():
    _class.__module__ = _NAME


def _class_of(name: str) -> type:
    return _CLASSES[name]


def _reduce_class(kind: type) -> Any:
    """How a class is pickled: the classes above by simdformer's name, subclasses by their own name."""
    name = kind.__name__
    return (_class_of, (name,)) if _CLASSES.get(name) is kind else kind.__qualname__


copyreg.pickle(_StandInType, _reduce_class)


class _Installed:
    """The installed module with this name. It is run when an attribute is first needed."""

    def __init__(self, name: str, spec: ModuleSpec | None) -> None:
        self._name, self._spec = name, spec
        self._module: ModuleType | None = None

    def __call__(self, name: str) -> Any:
        """Return an attribute that the replacing module does not have."""
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {self._name!r} has no attribute {name!r}")
        module = self.run()
        if module is None:
            raise AttributeError(
                f"simdformer, which replaces {self._name}, has no {name}; install sentence-transformers"
                " with PyTorch to use it"
            )
        return getattr(module, name)

    def run(self) -> ModuleType | None:
        """Run the module outside sys.modules. The submodules that it imports are those of the replacing
        module."""
        if self._module is None and self._spec is not None and self._spec.loader is not None:
            self._module = importlib.util.module_from_spec(self._spec)
            self._spec.loader.exec_module(self._module)
        return self._module


class _OlderPaths(MetaPathFinder):
    """Finds modules under the paths of older releases. These are defined when the installed package runs."""

    def __init__(self, installed: _Installed) -> None:
        self._installed = installed
        self._asked = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if self._asked or not fullname.startswith(f"{_NAME}."):
            return None
        self._asked = True
        self._installed.run()
        found = (f.find_spec(fullname, path, target) for f in sys.meta_path if f is not self)
        return next(filter(None, found), None)


def _stand_in(name: str, spec: ModuleSpec | None, own: dict[str, Any]) -> _Installed:
    """Replace the installed module by one with other contents."""
    module = ModuleType(name, f"{name}, with simdformer's classes.")
    installed = _Installed(name, spec)
    module.__dict__.update(own, __getattr__=installed)
    module.__path__ = list(spec.submodule_search_locations or []) if spec else []
    module.__spec__ = ModuleSpec(name, None, is_package=True)
    module.__spec__.submodule_search_locations = module.__path__
    sys.modules[name] = module
    return installed


def as_sentence_transformers() -> ModuleType:
    """Make `import sentence_transformers` give simdformer's classes in this process.

    Call it before importing the libraries that use them. sentence_transformers.SentenceTransformer,
    CrossEncoder, SparseEncoder and MultiVectorEncoder are then subclasses of simdformer's classes with the
    same results, which libraries recognize as sentence-transformers models. Other names come from
    sentence-transformers if it is installed, else from simdformer.util.

    Returns
    -------
    module
        The module that replaces sentence_transformers.

    Warns
    -----
    UserWarning
        If sentence_transformers was imported before. Classes taken from it then are not replaced.

    Examples
    --------
    >>> import simdformer
    >>> _ = simdformer.as_sentence_transformers()
    >>> from sentence_transformers import SentenceTransformer
    >>> issubclass(SentenceTransformer, simdformer.SentenceTransformer)
    True
    """
    present = sys.modules.get(_NAME)
    if present is not None and vars(present).get("CrossEncoder") is CrossEncoder:
        return present
    if present is not None:
        warnings.warn(
            "sentence_transformers was imported before as_sentence_transformers was called: classes"
            " imported from it before are not replaced",
            stacklevel=2,
        )
        del sys.modules[_NAME]
    spec = importlib.util.find_spec(_NAME) if importlib.util.find_spec("torch") else None
    own: dict[str, Any] = {**_CLASSES, "__version__": _version()}
    if spec is None:
        own |= {
            "SimilarityFunction": util.SimilarityFunction,
            "quantize_embeddings": util.quantize_embeddings,
            "util": util,
        }
        sys.modules[f"{_NAME}.util"] = util
    sys.meta_path.append(_OlderPaths(_stand_in(_NAME, spec, own)))
    root = sys.modules[_NAME]
    for part, name in _PARTS.items():
        full = f"{_NAME}.{part}"
        below = PathFinder.find_spec(full, root.__path__) if spec else None
        _stand_in(full, below, {name: _CLASSES[name]})
        setattr(root, part, sys.modules[full])
    return root


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("sentence-transformers")
    except PackageNotFoundError:
        return _VERSION


def _as_tensors(value: Any) -> Any:
    """The value with torch tensors instead of arrays, if PyTorch is installed."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(_as_tensors, value))
    if isinstance(value, dict):
        return {name: _as_tensors(item) for name, item in value.items()}
    if not importlib.util.find_spec("torch"):
        return value
    if isinstance(value, SparseEmbeddings):
        return value.to_torch()
    if isinstance(value, (np.ndarray, np.generic)):
        return import_module("torch").from_numpy(np.asarray(value))
    return value
