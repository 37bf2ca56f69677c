# SPDX-License-Identifier: Apache-2.0
"""Points 6 and 7: residual connections, and LayerNorm compared with BatchNorm."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from simdformer import ModelOutput
from simdformer import functional as F
from simdformer.explain.embedded import cosine
from simdformer.explain.figures import Lines
from simdformer.explain.points.study import Array, Study, mean_over
from simdformer.explain.report import Section
from simdformer.nn import Module, TransformerEncoderLayer

# a function of rows (tokens of all texts, features) and the norm whose weight and bias it uses
Normalize = Callable[[Array, Module], Array]

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "tanh": F.tanh,
}
_BATCH_SIZES = (2, 4, 8, 16, 32)
_PADDING = (8, 16, 32, 64, 128)


def residual_connections(study: Study) -> Section:
    """Measure how similar tokens become in each layer, with and without residual connections."""

    def cut(layer: TransformerEncoderLayer) -> None:
        layer.residual = False

    without = study.run(study.changed(cut), study.texts)
    spread = {"with": _spread(study.outputs), "without": _spread(without)}
    return Section(
        "6. Residual connections",
        [
            "The article: residual connections solve the degradation of deep networks.",
            (
                f"Measured on {len(study.texts)} texts: without them, the vectors of all tokens become equal."
                " The share of the hidden states that differs from their mean over tokens falls from"
                f" {spread['without'][0]:.2f} to {spread['without'][-1]:.1e} after {study.num_layers}"
                f" layers; with residual connections it falls to {spread['with'][-1]:.2f}. This shows their"
                " effect in a trained model, not how well a model without them could be trained."
            ),
        ],
        [
            Lines(
                "Spread of the tokens",
                "layer",
                "|X - mean row| / |X|",
                list(range(study.num_layers + 1)),
                spread,
                note="Dong, Cordonnier and Loukas 2021, Attention is Not All You Need.",
            )
        ],
    )


def _spread(outputs: Sequence[ModelOutput]) -> Array:
    return mean_over(
        [
            [
                np.linalg.norm(x - x.mean(axis=0)) / np.linalg.norm(x)
                for x in output.hidden_states or ()
            ]
            for output in outputs
        ]
    )


def layer_and_batch_norm(study: Study) -> Section:
    """Measure whether a text's vector depends on other texts: with the model's norms, and with batch
    statistics."""
    norms: dict[str, Normalize] = {"LayerNorm": _own, "BatchNorm": _batch_norm}
    by_batch, padding = (
        {name: np.array([change(study, norm, n) for n in numbers]) for name, norm in norms.items()}
        for change, numbers in ((_change_by_batch, _BATCH_SIZES), (_change_by_padding, _PADDING))
    )
    article = (
        "The article: BatchNorm depends on the batch, LayerNorm does not. BatchNorm is unsuitable for"
        " texts, which have different lengths."
    )
    measured = (
        f"Measured with the model's layers and exchanged norms, for the vector of “{study.text}” in two"
        f" batches with {_BATCH_SIZES[-1] - 1} different other texts: the vectors differ by 1 - cosine ="
        f" {by_batch['LayerNorm'][-1]:.1g} with the model's norms, and by"
        f" {by_batch['BatchNorm'][-1]:.2f} with statistics of the batch"
        f" ({by_batch['BatchNorm'][0]:.2f} with only one other text). {_PADDING[-1]} positions of padding"
        f" change the vector by {padding['LayerNorm'][-1]:.1g} and {padding['BatchNorm'][-1]:.2f}. The"
        " model was trained with LayerNorm. In inference, BatchNorm uses running statistics, which"
        " depend on the training data and not on the batch."
    )
    unit = "1 - cosine"
    figures = [
        Lines(
            "One text in two batches",
            "texts in the batch",
            unit,
            _BATCH_SIZES,
            by_batch,
            log_x=True,
        ),
        Lines(
            "One batch with padding", "positions of padding", unit, _PADDING, padding, log_x=True
        ),
    ]
    return Section("7. LayerNorm and BatchNorm", [article, measured], figures)


def _change_by_batch(study: Study, normalize: Normalize, size: int) -> float:
    others = study.outputs[:-1]
    batches = (others[: size - 1], others[-(size - 1) :])
    a, b = (_text(study, [study.output, *texts], normalize) for texts in batches)
    return 1 - float(cosine(a, b))


def _change_by_padding(study: Study, normalize: Normalize, count: int) -> float:
    batch = [study.output, *study.outputs[1:8]]
    a, b = (_text(study, batch, each) for each in (normalize, _with_padding(normalize, count)))
    return 1 - float(cosine(a, b))


def _text(study: Study, outputs: Sequence[ModelOutput], normalize: Normalize) -> Array:
    """The mean of the first text's last hidden states when the batch is computed with this norm."""
    encoder = study.model.encoder
    states = [np.asarray((output.hidden_states or ())[0]) for output in outputs]
    cu_seqlens = np.cumsum([0, *map(len, states)])
    x = np.concatenate(states)
    for layer in encoder.layers:
        x = _run_layer(layer, x, cu_seqlens, normalize)
    if encoder.norm is not None:
        x = normalize(x, encoder.norm)
    return np.asarray(x[: len(states[0])].astype(np.float64).mean(axis=0))


def _run_layer(
    layer: TransformerEncoderLayer, x: Array, cu_seqlens: Array, normalize: Normalize
) -> Array:
    if layer.activation not in _ACTIVATIONS:
        raise ValueError(f"the model's feed-forward has activation {layer.activation!r}")
    activate = _ACTIVATIONS[layer.activation]

    def attend(rows: Array) -> Array:
        found = layer.self_attn(rows, rows, rows, need_weights=False, cu_seqlens=cu_seqlens)
        return np.asarray(found[0])

    def feed(rows: Array) -> Array:
        return np.asarray(layer.linear2(activate(layer.linear1(rows))))

    for block, norm in ((attend, layer.norm1), (feed, layer.norm2)):
        if layer.norm_first:
            x = layer.alpha * x + block(normalize(x, norm))
        else:
            x = normalize(layer.alpha * x + block(x), norm)
    return x


def _own(rows: Array, norm: Module) -> Array:
    return np.asarray(norm(np.ascontiguousarray(rows, np.float32)))


def _batch_norm(rows: Array, norm: Module) -> Array:
    """Normalize with the mean and variance of each feature over all tokens."""
    scaled = (rows - rows.mean(axis=0)) / np.sqrt(rows.var(axis=0) + 1e-5)
    bias = norm.bias if norm.has("bias") else 0
    return np.asarray(scaled * norm.weight + bias, np.float32)


def _with_padding(normalize: Normalize, count: int) -> Normalize:
    """The same function with this number of rows of zeros appended."""

    def padded(rows: Array, norm: Module) -> Array:
        zeros = np.zeros((count, rows.shape[1]), rows.dtype)
        return normalize(np.concatenate([rows, zeros]), norm)[: len(rows)]

    return padded
