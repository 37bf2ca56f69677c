# SPDX-License-Identifier: Apache-2.0
"""What attention weights look like: entropy, patterns, rollout. Arrays in, arrays out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]


def attention_entropy(attentions: ArrayLike, *, normalize: bool = False) -> Float64:
    """How evenly each head spreads its weights: the entropy of a query's weights, averaged over queries.

    Parameters
    ----------
    attentions
        Weights (..., n, n), such as a ModelOutput's attentions: (layers, heads, n, n).
    normalize
        Divide by ln n, so that 1 is uniform and 0 is one key. For n = 1 the result is 0.

    Returns
    -------
    float64 (...), in nats: (layers, heads).

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
    """How much weight each head gives to keys at fixed places, averaged over the queries that have one.

    Parameters
    ----------
    attentions
        Weights (..., n, n), such as a ModelOutput's attentions: (layers, heads, n, n).
    input_ids
        Integers (n,), the token ids; None leaves "same_token" out.

    Returns
    -------
    dict from the pattern's name to float64 (...). "previous", "next", "self": the key before, after
    and at the query. "first", "last": the text's first and last key. "same_token": all other keys
    with the query's token id together. NaN where no query has such a key.

    Raises
    ------
    TypeError, ValueError
        As `attention_entropy`, and for input_ids of another length.

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
    """How much of each token is in each of the last layer's, if heads only mixed and layers only added.

    Each layer is taken for the mean of its heads' maps and the identity, half each; the product of
    all layers is the result. On all-MiniLM-L6-v2 it hardly agrees with what leaving tokens out does
    (see `faithfulness`), the last layer's attention alone agrees well: do not rely on it unmeasured.

    Parameters
    ----------
    attentions
        Weights (layers, heads, n, n), such as a ModelOutput's attentions.

    Returns
    -------
    float64 (n, n): row i is token i of the last layer, its entries sum to 1.

    Raises
    ------
    TypeError, ValueError
        As `attention_entropy`, and for other than four dimensions.

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
    except ValueError as error:  # layers of several shapes
        raise ValueError("attentions must have as many heads in every layer") from error
    if maps.dtype.kind != "f":
        raise TypeError(f"attentions must be floating point, got {maps.dtype}")
    if maps.ndim < 2 or maps.shape[-1] != maps.shape[-2]:
        raise ValueError(f"attentions must have shape (..., n, n), got {maps.shape}")
    return maps


def _entropy(weights: NDArray[Any]) -> float:
    if not weights.size:
        return float("nan")
    w = weights.astype(np.float64)
    # 0 ln 0 = 0: what is not positive adds nothing.
    terms = w * np.log(w, out=np.zeros_like(w), where=w > 0)
    return float(-terms.sum(axis=-1).mean())


def _mean(weights: NDArray[Any], maps: NDArray[Any]) -> Float64:
    """Over the last axis, NaN if it is empty."""
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
