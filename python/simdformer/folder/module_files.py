# SPDX-License-Identifier: Apache-2.0
"""Makes a step from the files of a module.

Both versions of Pooling's keys are read: `pooling_mode`, and the booleans of sentence-transformers before
5.4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from simdformer._core import Linear
from simdformer.checkpoint import Checkpoint, naming, read_json, read_optional_json
from simdformer.checkpoint.weights import Weights
from simdformer.folder.activation import (
    MIXING,
    Function,
    class_name,
    kernel_or_function,
    leaky_relu,
)
from simdformer.folder.fields import refuse_keys, string, warn_keys
from simdformer.folder.modules import Module
from simdformer.folder.steps import (
    POOLING_MODES,
    SENTENCE,
    TOKENS,
    Dense,
    Dropout,
    LayerNorm,
    Normalize,
    Pooling,
    Step,
    WeightedLayerPooling,
)
from simdformer.models.config_fields import non_negative_int, positive_float, positive_int
from simdformer.text.warning import warn_caller

# The booleans of the older version. Several may be set; their results are concatenated in this order.
_POOLING_BOOLEANS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_DIMENSIONS = ("embedding_dimension", "word_embedding_dimension")
_DENSE = (
    "in_features",
    "out_features",
    "bias",
    "activation_function",
    "module_input_name",
    "module_output_name",
    "use_residual",
)


def read_step(module: Module) -> Step:
    """Read the step of a module. Modules that read texts are not steps.

    Errors: FileNotFoundError or ValueError naming the file, and the field or tensor.
    """
    assert module.folder is not None
    path = module.folder / "config.json"
    if module.kind not in _READERS:
        raise ValueError(f"{path}: {module.kind} is supported in other classes of models only")
    with naming(path):
        return _READERS[module.kind](path)


def read_pooling(path: Path) -> Pooling:
    """Read a Pooling module's config.json, of either version."""
    config = read_json(path)
    refuse_keys(path, config, ("pooling_mode", *_POOLING_BOOLEANS, *_DIMENSIONS, "include_prompt"))
    mode = config.get("pooling_mode")
    if mode is None:
        modes = [mode for key, mode in _POOLING_BOOLEANS.items() if config.get(key)] or ["mean"]
    else:
        modes = [mode] if isinstance(mode, str) else mode
    if not isinstance(modes, list) or not modes or not all(m in POOLING_MODES for m in modes):
        raise ValueError(f"unknown pooling_mode {mode!r}; known: {', '.join(POOLING_MODES)}")
    size = next((name for name in _DIMENSIONS if config.get(name) is not None), None)
    dimension = None if size is None else positive_int(config, size)
    include_prompt = bool(config.get("include_prompt", True))
    return Pooling(str(path), tuple(modes), include_prompt, dimension)


def _read_dense(path: Path) -> Dense:
    config = read_json(path)
    warn_keys(path, config, _DENSE)
    sizes = {name: positive_int(config, name) for name in ("in_features", "out_features")}
    reads, writes = _feature_names(config)
    name = _activation_class(path, config)
    if name in MIXING and TOKENS in (reads, writes):
        raise ValueError(f"{name} of token vectors mixes the texts of a batch and is not supported")
    square = sizes["in_features"] == sizes["out_features"]
    residual: bool | Linear = bool(config.get("use_residual", False))
    with Checkpoint(path.parent) as checkpoint:
        weights = Weights(checkpoint, sizes)
        linear = _linear(weights, "linear", bias=bool(config.get("bias", True)))
        if residual and not square:
            residual = _linear(weights, "residual", bias=False)
        activation = _with_parameters(name, checkpoint, weights)
        weights.refuse_unread(())
    return Dense(str(path), linear, activation, residual, reads, writes)


def _linear(weights: Weights, name: str, *, bias: bool) -> Linear:
    weight = weights(f"{name}.weight", "out_features", "in_features")
    return Linear(weight, weights(f"{name}.bias", "out_features") if bias else None)


def _activation_class(path: Path, config: Mapping[str, Any]) -> str:
    """The activation's class. Tanh is sentence-transformers' default; it also replaces a model's own code."""
    if "activation_function" not in config:
        return "Tanh"
    name = class_name(config["activation_function"], "activation_function")
    if name is None:
        warn_caller(
            f"{path}: activation_function={config['activation_function']!r} is not torch's and not"
            " run; as in sentence-transformers it is Tanh instead"
        )
    return name or "Tanh"


def _with_parameters(name: str, checkpoint: Checkpoint, weights: Weights) -> str | Function:
    """The activation. The slope of PReLU is a tensor."""
    if name != "PReLU":
        return kernel_or_function(name)
    tensor = weights.free("activation_function.weight", (1,))
    return leaky_relu(float(checkpoint.read(tensor)[0]))


def _feature_names(config: Mapping[str, Any]) -> tuple[str, str]:
    reads = string(config, "module_input_name", SENTENCE) or SENTENCE
    return reads, string(config, "module_output_name", reads) or reads


def _read_normalize(path: Path) -> Normalize:
    config = read_optional_json(path)
    warn_keys(path, config, ("module_input_name", "module_output_name"))
    return Normalize(str(path), *_feature_names(config))


def _read_layer_norm(path: Path) -> LayerNorm:
    config = read_json(path)
    refuse_keys(path, config, ("dimension",))
    with Checkpoint(path.parent) as checkpoint:
        weights = Weights(checkpoint, {"dimension": positive_int(config, "dimension")})
        weight, bias = (weights(f"norm.{v}", "dimension") for v in ("weight", "bias"))
        weights.refuse_unread(())
    return LayerNorm(str(path), weight, bias)


def _read_dropout(path: Path) -> Dropout:
    config = read_optional_json(path)
    refuse_keys(path, config, ("dropout",))
    if config.get("dropout", 0.0) != 0:
        positive_float(config, "dropout")
    return Dropout(str(path))


def _read_weighted_layer_pooling(path: Path) -> WeightedLayerPooling:
    config = read_json(path)
    refuse_keys(path, config, (*_DIMENSIONS, "layer_start", "num_hidden_layers"))
    start = non_negative_int(config, "layer_start", 4)
    layers = positive_int(config, "num_hidden_layers", 12)
    if start > layers:
        raise ValueError(f"layer_start={start} is beyond num_hidden_layers={layers}")
    with Checkpoint(path.parent) as checkpoint:
        weights = Weights(checkpoint, {})
        layer_weights = checkpoint.read(weights.free("layer_weights", (layers + 1 - start,)))
        weights.refuse_unread(())
    return WeightedLayerPooling(str(path), layer_weights, start)


_READERS: Mapping[str, Callable[[Path], Step]] = {
    "Dense": _read_dense,
    "Dropout": _read_dropout,
    "LayerNorm": _read_layer_norm,
    "Normalize": _read_normalize,
    "Pooling": read_pooling,
    "WeightedLayerPooling": _read_weighted_layer_pooling,
}
