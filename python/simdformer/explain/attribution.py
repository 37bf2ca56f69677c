# SPDX-License-Identifier: Apache-2.0
"""How much each token contributes to a vector, or to the similarity of two vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simdformer import SentenceTransformer
from simdformer.explain.embedded import EmbeddedText, cosine
from simdformer.explain.heads import similarity
from simdformer.nn import MultiheadAttention, TransformerEncoderLayer
from simdformer.nn.parameters import float32_of

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def token_similarity(
    model: SentenceTransformer,
    text1: str,
    text2: str,
    *,
    prompt_name: str | None = None,
    prompt_name2: str | None = None,
) -> Float64:
    """Split the cosine of two texts into a sum over pairs of their tokens, exact for mean pooling.

    The mean is linear: u.v = sum over i and j of h_i.g_j / (n m), where h and g are the last hidden
    states. Each pair's product is divided by the norms of u and v.

    Parameters
    ----------
    model
        A SentenceTransformer with mean pooling, no dense layer behind it, and similarity "cosine".
    text1, text2
        The texts, of n and m tokens.
    prompt_name, prompt_name2
        The prompts before text1 and text2; see `encode`.

    Returns
    -------
    float64 (n, m)
        The terms; their sum is the cosine. Zero for prompt tokens that pooling excludes.

    Raises
    ------
    ValueError
        If the model has another pooling or similarity, or dense layers: the cosine is no such sum.
    TypeError
        If model is not a SentenceTransformer, or a text is not a str.

    References
    ----------
    Moeller, Nikolaev and Pado 2023, An Attribution Method for Siamese Encoders (the general case).

    Examples
    --------
    >>> model = SentenceTransformer("all-MiniLM-L6-v2")
    >>> pairs = token_similarity(model, "A cat sleeps.", "A kitten naps.")
    >>> pairs.shape, round(float(pairs.sum()), 3)
    ((6, 7), 0.714)
    """
    first = EmbeddedText.of(model, text1, prompt_name, "text1")
    second = EmbeddedText.of(model, text2, prompt_name2, "text2")
    return pair_similarity(first, second)


def pair_similarity(first: EmbeddedText, second: EmbeddedText) -> Float64:
    """As `token_similarity`, for embedded texts."""
    model = first.model
    if model.pooling_modes != ("mean",):
        raise ValueError(
            f"token_similarity needs mean pooling, the model has {', '.join(model.pooling_modes)}"
        )
    if model.num_dense_layers:
        raise ValueError(
            f"token_similarity needs pooling without dense layers after it, the model has"
            f" {model.num_dense_layers}"
        )
    if model.similarity_fn_name != "cosine":
        raise ValueError(
            f"token_similarity needs similarity 'cosine', the model's is {model.similarity_fn_name!r}"
        )
    a, b = (_unit_sum(text) for text in (first, second))
    return np.asarray(a @ b.T, np.float64)


def leave_one_out(
    model: SentenceTransformer,
    text: str,
    text2: str | None = None,
    *,
    prompt_name: str | None = None,
    prompt_name2: str | None = None,
) -> Float64:
    """Measure what each token contributes: the loss when the model reads the text without it.

    The token is removed from the sequence, and the following tokens move up. Special tokens are included.

    Parameters
    ----------
    model
        A SentenceTransformer.
    text
        A text of n tokens.
    text2
        None, or a text to compare with.
    prompt_name, prompt_name2
        The prompts before text and text2; see `encode`.

    Returns
    -------
    float64 (n,)
        With text2 the similarity minus the similarity without token i, negative if the token makes
        the texts less similar. Otherwise 1 - cosine of the embeddings with and without it.

    Raises
    ------
    TypeError
        If model is not a SentenceTransformer, or a text is not a str.

    References
    ----------
    Li, Monroe and Jurafsky 2016, Understanding Neural Networks through Representation Erasure.

    Examples
    --------
    >>> model = SentenceTransformer("all-MiniLM-L6-v2")
    >>> leave_one_out(model, "a cat").round(3)  # [CLS], a, cat, [SEP]
    array([0.107, 0.094, 0.634, 0.039])
    """
    embedded = EmbeddedText.of(model, text, prompt_name)
    other = None
    if text2 is not None:
        other = EmbeddedText.of(model, text2, prompt_name2, "text2").embedding
    return losses(embedded, other)


def norm_weighted_attention(
    model: SentenceTransformer, text: str, *, prompt_name: str | None = None
) -> tuple[Float32, ...]:
    """Multiply attention weights by the norms of the vectors that they weight.

    The output of a head for query i is the sum over keys j of a_ij f(x_j), where f(x_j) is the value of
    j times the output projection's columns of that head. Element (i, j) is the norm of that term.

    Parameters
    ----------
    model
        A SentenceTransformer.
    text
        A text of n tokens.
    prompt_name
        The prompt before it; see `encode`.

    Returns
    -------
    tuple of float32 (num_heads, n, n)
        One array per layer.

    Raises
    ------
    TypeError
        If model is not a SentenceTransformer, or a text is not a str.

    References
    ----------
    Kobayashi et al. 2020, Attention is Not Only a Weight: Analyzing Transformers with Vector Norms.

    Examples
    --------
    >>> model = SentenceTransformer("all-MiniLM-L6-v2")
    >>> norms = norm_weighted_attention(model, "A cat sleeps.")
    >>> len(norms), norms[0].shape
    (6, (12, 6, 6))
    """
    embedded = EmbeddedText.of(
        model, text, prompt_name, output_attentions=True, output_hidden_states=True
    )
    return tuple(weigh_by_norm(embedded, i) for i in range(len(embedded.output.attentions or ())))


def weigh_by_norm(embedded: EmbeddedText, index: int) -> Float32:
    """One layer of `norm_weighted_attention` for a text with its attentions and hidden states."""
    output, layer = embedded.output, embedded.model.encoder.layers[index]
    # the last hidden state is not the input of a layer
    values = projected_values(layer, (output.hidden_states or ())[:-1][index])
    weights = np.asarray((output.attentions or ())[index])
    return np.asarray(weights * np.linalg.norm(values, axis=-1)[:, None, :])


def projected_values(layer: TransformerEncoderLayer, states: Float32) -> Float32:
    """f(x_j) of each head: float32 (num_heads, n, d_model)."""
    attention = layer.self_attn
    rows = layer.norm1(states) if layer.norm_first else states
    values = _values(attention, rows)
    shared = attention.num_heads // attention.num_kv_heads
    by_head = np.repeat(values, shared, axis=1)  # heads in a row share keys and values
    output = float32_of(attention.out_proj.weight).reshape(
        -1, attention.num_heads, attention.head_dim
    )
    result: Float32 = np.einsum("nhe,dhe->hnd", by_head, output, optimize=True)
    return result


def _values(attention: MultiheadAttention, rows: Float32) -> Float32:
    """float32 (n, num_kv_heads, head_dim)."""
    width = attention.num_kv_heads * attention.head_dim
    values = rows @ float32_of(attention.in_proj_weight)[-width:].T
    if attention.has("in_proj_bias"):
        values = values + attention.in_proj_bias[-width:]
    return np.asarray(values, np.float32).reshape(
        len(rows), attention.num_kv_heads, attention.head_dim
    )


def agreement(text: EmbeddedText, embeddings: Float64, other: Float64 | None) -> Float64:
    """Compare a text with embeddings (k, dim) of parts of it: float64 (k,).

    The similarity with the embedding `other`, or, if it is None, the cosine with the embedding of the
    whole text.
    """
    if other is None:
        return np.asarray(cosine(embeddings, text.embedding), np.float64)
    return np.asarray(similarity(text.model, embeddings, other), np.float64)


def whole_agreement(text: EmbeddedText, other: Float64 | None) -> float:
    """The same value for the whole text."""
    return float(agreement(text, text.embedding[None], other)[0])


def losses(text: EmbeddedText, other: Float64 | None) -> Float64:
    """As `leave_one_out`, for an embedded text."""
    return whole_agreement(text, other) - agreement(text, text.embed_without_each(), other)


def _unit_sum(text: EmbeddedText) -> Float64:
    """Rows (n, dim) whose sum is the text's embedding, scaled to length one."""
    rows = text.output.last_hidden_state.astype(np.float64)[:, : len(text.embedding)]
    rows[: text.pooling_start] = 0
    norm = np.linalg.norm(rows.sum(axis=0))
    return rows / norm if norm else rows
