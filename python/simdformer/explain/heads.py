# SPDX-License-Identifier: Apache-2.0
"""The effect of switching a head off."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from simdformer import SentenceTransformer, nn
from simdformer.explain.embedded import EmbeddedText, check_model, cosine, with_encoder
from simdformer.nn.parameters import float32_of

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
ABLATIONS = ("zero", "mean")


def head_importance(
    model: SentenceTransformer,
    texts: str | Sequence[str],
    *,
    ablation: str = "zero",
    prompt_name: str | None = None,
) -> Float64:
    """Measure how much a text's embedding changes when a head is switched off.

    The result is 1 - cosine, averaged over texts.

    Parameters
    ----------
    model
        A SentenceTransformer.
    texts
        One text or several.
    ablation
        What replaces the head's output before the output projection: "zero", or "mean", its mean
        over all tokens of the texts. The projection's bias is kept.
    prompt_name
        The prompt before each text; see `encode`.

    Returns
    -------
    float64 (num_layers, num_heads)
        0 for a head without effect.

    Raises
    ------
    TypeError, ValueError
        If model is not a SentenceTransformer, there are no texts, or ablation is unknown.

    References
    ----------
    Michel, Levy and Neubig 2019, Are Sixteen Heads Really Better than One? (zero); Wang et al. 2022,
    Interpretability in the Wild, section 2.1 (mean).

    Examples
    --------
    >>> model = SentenceTransformer("all-MiniLM-L6-v2")
    >>> importance = head_importance(model, "The cat sat on the mat because it was tired.")
    >>> np.unravel_index(importance.argmax(), importance.shape)
    (np.int64(5), np.int64(11))
    """
    check_model(model)
    if ablation not in ABLATIONS:
        raise ValueError(f"unknown ablation {ablation!r}; known: {', '.join(ABLATIONS)}")
    given = [texts] if isinstance(texts, str) else list(texts)
    if not given:
        raise ValueError("texts must hold at least one text")
    means = None
    if ablation == "mean":
        means = _mean_outputs(model, given, prompt_name)
    turns = [
        head_turns(EmbeddedText.of(model, text, prompt_name, f"texts[{i}]"), means)
        for i, text in enumerate(given)
    ]
    return np.asarray(np.mean(turns, axis=0), np.float64)


def head_ablation(
    model: SentenceTransformer,
    text1: str,
    text2: str,
    *,
    prompt_name: str | None = None,
    prompt_name2: str | None = None,
) -> Float64:
    """Measure how the similarity of two texts changes when a head is switched off for both.

    Parameters
    ----------
    model
        A SentenceTransformer. Its `similarity_fn_name` defines the similarity.
    text1, text2
        The texts.
    prompt_name, prompt_name2
        The prompts before text1 and text2; see `encode`.

    Returns
    -------
    float64 (num_layers, num_heads)
        The similarity without the head minus the similarity with it. Negative where the head makes the
        texts more similar.

    Raises
    ------
    TypeError
        If model is not a SentenceTransformer, or a text is not a str.

    References
    ----------
    Michel, Levy and Neubig 2019, Are Sixteen Heads Really Better than One?

    Examples
    --------
    >>> model = SentenceTransformer("all-MiniLM-L6-v2")
    >>> head_ablation(model, "A cat sleeps.", "A kitten naps.").shape
    (6, 12)
    """
    texts = (
        EmbeddedText.of(model, text1, prompt_name, "text1"),
        EmbeddedText.of(model, text2, prompt_name2, "text2"),
    )
    return similarity_changes(*texts)


def head_turns(text: EmbeddedText, means: Sequence[Float32] | None = None) -> Float64:
    """As `head_importance`, for one text. means: outputs that replace zeros, (heads, head_dim) per layer."""
    off = embed_without_heads(text) if means is None else _embed_with_means(text, means)
    return np.asarray(1 - cosine(off, text.embedding), np.float64)


def similarity_changes(first: EmbeddedText, second: EmbeddedText) -> Float64:
    """As `head_ablation`, for embedded texts."""
    before = similarity(first.model, first.embedding, second.embedding)
    off = similarity(first.model, embed_without_heads(first), embed_without_heads(second))
    return np.asarray(off - before, np.float64)


def embed_without_heads(text: EmbeddedText) -> Float64:
    """A text's embedding with each head switched off in turn: float64 (num_layers, num_heads, dim)."""
    shape = head_shape(text.model)
    count = shape[0] * shape[1]
    masks = 1 - np.eye(count, dtype=np.float32).reshape(count, *shape)
    return text.embed_masked(masks).reshape(*shape, -1)


def similarity(model: SentenceTransformer, a: Float64, b: Float64) -> Float64:
    """The model's similarity of vectors (..., dim), which are broadcast, in float64: (...)."""
    pairs = np.broadcast_arrays(a, b)
    rows = (pair.reshape(-1, pair.shape[-1]) for pair in pairs)
    return np.asarray(model.similarity_pairwise(*rows), np.float64).reshape(pairs[0].shape[:-1])


def head_shape(model: SentenceTransformer) -> tuple[int, int]:
    """(num_layers, num_heads). ValueError if layers have different numbers of heads."""
    heads = [layer.self_attn.num_heads for layer in model.encoder.layers]
    if len(set(heads)) != 1:
        raise ValueError(f"layers must have the same number of heads, got {heads}")
    return len(heads), heads[0]


def _mean_outputs(
    model: SentenceTransformer, texts: Sequence[str], prompt_name: str | None
) -> list[Float32]:
    """The mean outputs of the heads of each layer over all tokens: float32 (heads, head_dim) each."""
    outputs = model.outputs(texts, prompt_name=prompt_name, output_head_outputs=True)
    layers = zip(*(output.head_outputs for output in outputs), strict=True)
    return [np.concatenate(layer).mean(axis=0) for layer in layers]


def _embed_with_means(text: EmbeddedText, means: Sequence[Float32]) -> Float64:
    shape = head_shape(text.model)
    rows = []
    for layer, head in np.ndindex(*shape):
        changed = _with_constant_head(text.model, layer, head, means[layer][head])
        mask = np.ones((1, *shape), np.float32)
        mask[0, layer, head] = 0
        rows.append(replace(text, model=changed).embed_masked(mask)[0])
    return np.reshape(rows, (*shape, -1))


def _with_constant_head(
    model: SentenceTransformer, layer: int, head: int, output: Float32
) -> SentenceTransformer:
    """A copy of the model whose output projection adds the contribution of this constant output of the head.

    Other heads do not change. The head itself changes only if it is masked.
    """
    encoder = copy.deepcopy(model.encoder)
    attention = encoder.layers[layer].self_attn
    projection = attention.out_proj
    weight = float32_of(projection.weight)
    width = attention.head_dim
    bias = weight[:, head * width : (head + 1) * width] @ output
    if projection.has("bias"):
        bias = bias + projection.bias
    biased = nn.Linear(projection.in_features, projection.out_features)
    biased.put("weight", projection.place("weight"))
    biased.bias = bias.astype(np.float32)
    attention.out_proj = biased
    return with_encoder(model, encoder)
