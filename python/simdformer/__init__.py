# SPDX-License-Identifier: Apache-2.0
"""Transformer inference on CPUs: SIMD kernels, layers and sentence embeddings without PyTorch."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

# imported first, so that an unsupported SIMDFORMER_ISA fails here
from simdformer import _core as _core

if TYPE_CHECKING:
    from simdformer.build_info import show_config
    from simdformer.cross_encoder import CrossEncoder
    from simdformer.drop_in.stand_in import as_sentence_transformers
    from simdformer.int8.quantize_model import quantize_model
    from simdformer.multi_vector_encoder import MultiVectorEncoder
    from simdformer.pipelines import pipeline
    from simdformer.pipelines.base import Pipeline
    from simdformer.sentence_transformer import SentenceTransformer
    from simdformer.sparse_embeddings import SparseEmbeddings
    from simdformer.sparse_encoder import SparseEncoder
    from simdformer.text.model_output import ModelOutput
    from simdformer.thread_limits import register_threadpoolctl
    from simdformer.util import quantize_embeddings

    __version__: str

__all__ = [
    "CrossEncoder",
    "ModelOutput",
    "MultiVectorEncoder",
    "Pipeline",
    "SentenceTransformer",
    "SparseEmbeddings",
    "SparseEncoder",
    "__version__",
    "as_sentence_transformers",
    "pipeline",
    "quantize_embeddings",
    "quantize_model",
    "register_threadpoolctl",
    "show_config",
]

# Everything else is imported on first use, because NumPy and tokenizers take 0.1 s and start threads.
_HOMES = {
    "CrossEncoder": "simdformer.cross_encoder",
    "ModelOutput": "simdformer.text.model_output",
    "MultiVectorEncoder": "simdformer.multi_vector_encoder",
    "Pipeline": "simdformer.pipelines.base",
    "SentenceTransformer": "simdformer.sentence_transformer",
    "SparseEmbeddings": "simdformer.sparse_embeddings",
    "SparseEncoder": "simdformer.sparse_encoder",
    "as_sentence_transformers": "simdformer.drop_in.stand_in",
    "pipeline": "simdformer.pipelines",
    "quantize_embeddings": "simdformer.util",
    "quantize_model": "simdformer.int8.quantize_model",
    "register_threadpoolctl": "simdformer.thread_limits",
    "show_config": "simdformer.build_info",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    """The version of the installed distribution, which comes from pyproject.toml."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("simdformer")
    except PackageNotFoundError:  # running from a source tree
        return "0+unknown"


# Do not import threadpoolctl here: importing it changes the environment (KMP_DUPLICATE_LIB_OK).
if hasattr(sys.modules.get("threadpoolctl"), "register"):
    __getattr__("register_threadpoolctl")()
