# SPDX-License-Identifier: Apache-2.0
"""Measures of attention weights: entropy, patterns, rollout. Arrays in, arrays out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]


def attention_entropy(attentions: ArrayLike, *, normalize: bool = False) -> Float64:
    """Compute the entropy of the weights of a query, averaged over queries.

    Parameters
    ----------
    attentions
        Weights (..., n, n), such as a ModelOutput's attentions: (layers, heads, n, n).
    normalize
        Divide by ln n, so that 1 is uniform and 0 is one key. For n = 1 the result is 0.

    Returns
    -------
    float64 (...)
        In nats, such as (layers, heads).

    Raises
    ------
    TypeError, ValueError
        If attentions are not square maps of numbers, or a layer is None.

    References
    ----------
    Clark et al. 2019, What Does BERT Look At?, section 3.2.

    Examples
    --------
    >>> float(attention_entropy(np.full((4, 4), 0.25), normalize=True))
    1.0
    """
    maps = checked_maps(attentions)
    flat = maps.reshape(-1, *maps.shape[-2:])
    entropies = np.array([_entropy(each) for each in flat])
    n = maps.shape[-1]
    if normalize and n > 1:
        entropies = entropies / np.log(n)
    return entropies.reshape(maps.shape[:-2])


def attention_patterns(
    attentions: ArrayLike, input_ids: ArrayLike | None = None
) -> dict[str, Float64]:
    """Compute the weight that heads give to keys at fixed places, averaged over queries with such a key.

    Parameters
    ----------
    attentions
        Weights (..., n, n), such as a ModelOutput's attentions: (layers, heads, n, n).
    input_ids
        Integers (n,), the token ids; None omits "same_token".

    Returns
    -------
    dict of str to float64 (...)
        "previous", "next", "self": the key before, after and at the query. "first", "last": the first
        and last key of the text. "same_token": the sum over all other keys with the query's token id.
        NaN if no query has such a key.

    Raises
    ------
    TypeError, ValueError
        See `attention_entropy`; also if input_ids has another length.

    References
    ----------
    Clark et al. 2019, What Does BERT Look At?, section 3; Voita et al. 2019, Analyzing Multi-Head
    Self-Attention.

    Examples
    --------
    >>> {name: float(weight) for name, weight in attention_patterns(np.eye(3)).items()}
    {'previous': 0.0, 'next': 0.0, 'self': 1.0, 'first': 0.3333333333333333, 'last': 0.3333333333333333}
    """
    maps = checked_maps(attentions)
    n = maps.shape[-1]
    rows = np.arange(n)
    keys = {
        "previous": (rows[1:], rows[1:] - 1),
        "next": (rows[:-1], rows[:-1] + 1),
        "self": (rows, rows),
        "first": (rows, np.zeros_like(rows)),
        "last": (rows, np.full_like(rows, n - 1)),
    }
    patterns = {name: _mean(maps[..., i, j], maps) for name, (i, j) in keys.items()}
    if input_ids is not None:
        patterns["same_token"] = _same_token(maps, np.asarray(input_ids))
    return patterns


def attention_rollout(attentions: ArrayLike) -> Float64:
    """Estimate how much of each token is in each token of the last layer.

    A layer is modeled as half the identity plus half the mean of its heads' maps. The result is the
    product over all layers. On all-MiniLM-L6-v2 it agrees poorly with leaving tokens out (see
    `faithfulness`), while the attention of the last layer agrees well: measure it before relying on it.

    Parameters
    ----------
    attentions
        Weights (layers, heads, n, n), such as a ModelOutput's attentions.

    Returns
    -------
    float64 (n, n)
        Row i is token i of the last layer; its entries sum to 1.

    Raises
    ------
    TypeError, ValueError
        See `attention_entropy`; also if there are not four dimensions.

    References
    ----------
    Abnar and Zuidema 2020, Quantifying Attention Flow in Transformers.

    Examples
    --------
    >>> attention_rollout(np.full((1, 1, 2, 2), 0.5)).tolist()
    [[0.75, 0.25], [0.25, 0.75]]
    """
    maps = checked_maps(attentions)
    if maps.ndim != 4:
        raise ValueError(f"attentions must be (layers, heads, n, n), got shape {maps.shape}")
    identity = np.eye(maps.shape[-1])
    rollout = identity
    for layer in maps:
        rollout = (0.5 * layer.mean(axis=0, dtype=np.float64) + 0.5 * identity) @ rollout
    return rollout


def checked_maps(attentions: Any) -> NDArray[Any]:
    """Weights as one array (..., n, n) of floating-point numbers."""
    if isinstance(attentions, (tuple, list)) and any(layer is None for layer in attentions):
        raise TypeError("attentions must hold every layer's weights, but some layers are None")
    try:
        maps = np.asarray(attentions)
    except ValueError as error:  # layers have different shapes
        raise ValueError("attentions must have the same number of heads in every layer") from error
    if maps.dtype.kind != "f":
        raise TypeError(f"attentions must be floating point, got {maps.dtype}")
    if maps.ndim < 2 or maps.shape[-1] != maps.shape[-2]:
        raise ValueError(f"attentions must have shape (..., n, n), got {maps.shape}")
    return maps


def _entropy(weights: NDArray[Any]) -> float:
    if not weights.size:
        return float("nan")
    w = weights.astype(np.float64)
    # 0 ln 0 = 0, so weights that are not positive are left out.
    terms = w * np.log(w, out=np.zeros_like(w), where=w > 0)
    return float(-terms.sum(axis=-1).mean())


def _mean(weights: NDArray[Any], maps: NDArray[Any]) -> Float64:
    """The mean over the last axis; NaN if it is empty."""
    if not weights.shape[-1]:
        return np.full(maps.shape[:-2], np.nan)
    return np.asarray(weights.mean(axis=-1, dtype=np.float64), np.float64)


def _same_token(maps: NDArray[Any], ids: NDArray[Any]) -> Float64:
    n = maps.shape[-1]
    if ids.shape != (n,):
        raise ValueError(f"input_ids must have shape ({n},), got {ids.shape}")
    same = (ids[:, None] == ids) & ~np.eye(n, dtype=bool)
    queries = same.any(axis=-1)
    return _mean(np.where(same[queries], maps[..., queries, :], 0).sum(axis=-1), maps)
