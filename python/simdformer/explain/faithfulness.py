# SPDX-License-Identifier: Apache-2.0
"""How faithful an attribution is, compared with leaving tokens out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simdformer import SentenceTransformer
from simdformer.explain.attribution import agreement, losses, whole_agreement
from simdformer.explain.embedded import EmbeddedText
from simdformer.functional.arrays import positive_int

Float64 = NDArray[np.float64]

# The fractions of tokens that are removed or kept, as in ERASER, section 4.2.
FRACTIONS = (0.01, 0.05, 0.1, 0.2, 0.5)
_RANDOM_ORDERS = 10


@dataclass(frozen=True)
class Faithfulness:
    """Agreement of an attribution with leaving tokens out.

    Attributes
    ----------
    num_tokens
        Number of measured tokens; special tokens are excluded.
    spearman
        Rank correlation with `leave_one_out`; NaN for fewer than three tokens or a constant one.
    interval
        The 95% interval of spearman by resampling tokens with replacement.
    random_interval
        The 95% interval of spearman for a random order.
    comprehensiveness
        Loss without the highest-ranked tokens, averaged over FRACTIONS. High is good.
    sufficiency
        Loss with only these tokens. Low is good.
    random_comprehensiveness, random_sufficiency
        The same for random orders, averaged over ten.
    """

    num_tokens: int
    spearman: float
    interval: tuple[float, float]
    random_interval: tuple[float, float]
    comprehensiveness: float
    sufficiency: float
    random_comprehensiveness: float
    random_sufficiency: float


def faithfulness(
    model: SentenceTransformer,
    text: str,
    attribution: ArrayLike,
    text2: str | None = None,
    *,
    prompt_name: str | None = None,
    prompt_name2: str | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Faithfulness:
    """Measure the faithfulness of an attribution of a text's embedding or of its similarity with text2.

    Parameters
    ----------
    model
        A SentenceTransformer.
    text
        A text of n tokens.
    attribution
        Numbers (n,), one per token. Larger means more important.
    text2
        None, or a text to compare with.
    prompt_name, prompt_name2
        The prompts before text and text2; see `encode`.
    num_resamples, seed
        Number of draws for both intervals, and their seed.

    Returns
    -------
    Faithfulness
        NaN where the text has too few tokens.

    Raises
    ------
    TypeError, ValueError
        If model is not a SentenceTransformer, a text is not a str, or attribution has another length or is
        not finite.

    References
    ----------
    DeYoung et al. 2020, ERASER (comprehensiveness, sufficiency); Jain and Wallace 2019, Attention is
    not Explanation (rank correlation with leave-one-out); Efron 1979 (bootstrap).

    Examples
    --------
    >>> model = SentenceTransformer("all-MiniLM-L6-v2")
    >>> text = "The cat sat on the mat because it was tired."
    >>> norms = np.linalg.norm(model.outputs(text).last_hidden_state, axis=1)
    >>> round(faithfulness(model, text, norms).spearman, 2)
    0.84
    """
    embedded = EmbeddedText.of(model, text, prompt_name)
    other = None
    if text2 is not None:
        other = EmbeddedText.of(model, text2, prompt_name2, "text2").embedding
    return Erasure(embedded, other, positive_int("num_resamples", num_resamples), seed).test(
        attribution
    )


class Erasure:
    """The effect of leaving out tokens of one text, for any number of attributions."""

    def __init__(
        self, text: EmbeddedText, other: Float64 | None, num_resamples: int = 1000, seed: int = 0
    ) -> None:
        """other: the embedding with which the text is compared, or None."""
        self._text = text
        self._other = other
        self._places = np.flatnonzero(~text.is_special)
        self._whole = whole_agreement(text, other)
        self.leave_one_out = losses(text, other)
        rng = np.random.default_rng(seed)
        n = len(self._places)
        self._once = np.arange(n)[None]
        self._draws = rng.integers(0, max(n, 1), (num_resamples, n))
        orders = rng.permuted(np.tile(np.arange(float(n)), (num_resamples, 1)), axis=1)
        ranks = _ranks(self.leave_one_out[self._places], self._once)
        self._random_interval = _central(_correlations(orders, np.tile(ranks, (len(orders), 1))))
        self._agreements: dict[bytes, float] = {}
        erased = self._erase(list(orders[:_RANDOM_ORDERS]))
        self._random = np.mean(erased, axis=0)

    def test(self, attribution: ArrayLike) -> Faithfulness:
        """Measure the faithfulness of one attribution."""
        given = np.asarray(attribution, np.float64)
        if given.shape != (len(self._text),):
            raise ValueError(
                f"attribution must have shape ({len(self._text)},), one number per token,"
                f" got {given.shape}"
            )
        if not np.isfinite(given).all():
            raise ValueError("attribution contains a number that is not finite")
        scores = given[self._places]
        losses = self.leave_one_out[self._places]
        spearman, drawn = (
            _correlations(_ranks(scores, draws), _ranks(losses, draws))
            for draws in (self._once, self._draws)
        )
        (lost,) = self._erase([scores])
        return Faithfulness(
            len(self._places),
            float(spearman[0]),
            _central(drawn),
            self._random_interval,
            *map(float, (*lost, *self._random)),
        )

    def _erase(self, attributions: Sequence[Float64]) -> Float64:
        """Comprehensiveness and sufficiency of each ranking: float64 (k, 2)."""
        n = len(self._places)
        if not n:
            return np.full((len(attributions), 2), np.nan)
        kept = []
        for scores in attributions:
            order = self._places[np.argsort(-scores, kind="stable")]
            for fraction in FRACTIONS:
                top = order[: int(np.ceil(fraction * n))]
                without = np.ones(len(self._text), bool)
                without[top] = False
                kept += [without, without ^ ~self._text.is_special]
        lost = self._whole - self._agreement(kept)
        return np.asarray(lost.reshape(len(attributions), len(FRACTIONS), 2).mean(axis=1))

    def _agreement(self, kept: Sequence[NDArray[np.bool_]]) -> Float64:
        """The similarity of the text with only these tokens. Each set is computed once."""
        new = {mask.tobytes(): mask for mask in kept if mask.tobytes() not in self._agreements}
        if new:
            embeddings = self._text.embed_kept(list(new.values()))
            found = agreement(self._text, embeddings, self._other)
            self._agreements.update(zip(new, found.tolist(), strict=True))
        return np.array([self._agreements[mask.tobytes()] for mask in kept])


def _ranks(values: Float64, draws: NDArray[np.int64]) -> Float64:
    """Ranks of each row of draws (k, n), from 1. Equal values get the mean of their ranks."""
    distinct, groups = np.unique(values, return_inverse=True)
    drawn = groups[draws]
    rows = np.arange(len(draws))[:, None] * len(distinct)
    counts = np.bincount((drawn + rows).reshape(-1), minlength=len(draws) * len(distinct))
    counts = counts.reshape(len(draws), len(distinct))
    shared = np.cumsum(counts, axis=1) - (counts - 1) / 2
    return np.asarray(np.take_along_axis(shared, drawn, axis=1), np.float64)


def _correlations(a: Float64, b: Float64) -> Float64:
    """The correlation of each pair of rows; NaN if a row is constant or has fewer than three numbers."""
    x, y = (z - z.mean(axis=1, keepdims=True) if z.shape[1] else z for z in (a, b))
    norms = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    defined = (norms > 0) & (a.shape[1] >= 3)
    result: Float64 = np.divide(
        (x * y).sum(axis=1), norms, out=np.full(len(norms), np.nan), where=defined
    )
    return result


def _central(values: Float64) -> tuple[float, float]:
    """The interval with 95% of the values, without NaN."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return (float("nan"), float("nan"))
    low, high = np.quantile(finite, (0.025, 0.975))
    return (float(low), float(high))
