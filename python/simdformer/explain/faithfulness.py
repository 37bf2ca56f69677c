# SPDX-License-Identifier: Apache-2.0
"""How far an attribution can be trusted: held against what leaving tokens out does."""

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

# Shares of the tokens that are removed or kept: ERASER's, section 4.2.
FRACTIONS = (0.01, 0.05, 0.1, 0.2, 0.5)
_RANDOM_ORDERS = 10


@dataclass(frozen=True)
class Faithfulness:
    """How far an attribution agrees with what leaving tokens out does.

    Attributes
    ----------
    num_tokens
        The tokens that it is measured on; special ones are not.
    spearman
        Rank correlation with `leave_one_out`, NaN below three tokens or if either is constant.
    interval
        The 95% interval of spearman when tokens are drawn anew with replacement.
    random_interval
        Where spearman of a random order lies in 95% of cases.
    comprehensiveness
        What is lost without the tokens that it ranks highest, averaged over FRACTIONS: high is good.
    sufficiency
        What is lost with those tokens alone: low is good.
    random_comprehensiveness, random_sufficiency
        The same of random orders, averaged over ten.
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
    """Measure an attribution of a text's embedding, or of its similarity with text2.

    Parameters
    ----------
    model
        A SentenceTransformer.
    text
        A text of n tokens.
    attribution
        Numbers (n,), one per token, larger for what matters more.
    text2
        None, or a text to compare with.
    prompt_name, prompt_name2
        The prompts before text and text2, as of `encode`.
    num_resamples, seed
        Draws of both intervals, and what they begin from.

    Returns
    -------
    A Faithfulness. NaN where the text has too few tokens.

    Raises
    ------
    TypeError, ValueError
        For another kind of model, what is not a str, and attributions of another length or not finite.

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
    """What leaving tokens of one text out does, for any number of attributions of it."""

    def __init__(
        self, text: EmbeddedText, other: Float64 | None, num_resamples: int = 1000, seed: int = 0
    ) -> None:
        """other: the embedding that the text is compared with, or None."""
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
        """Measure one of them."""
        given = np.asarray(attribution, np.float64)
        if given.shape != (len(self._text),):
            raise ValueError(
                f"attribution must have shape ({len(self._text)},), one number per token,"
                f" got {given.shape}"
            )
        if not np.isfinite(given).all():
            raise ValueError("attribution holds a number that is not finite")
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
        """Comprehensiveness and sufficiency of each: float64 (k, 2)."""
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
        """What is left of the text with these tokens only; computed once for each choice."""
        new = {mask.tobytes(): mask for mask in kept if mask.tobytes() not in self._agreements}
        if new:
            embeddings = self._text.embed_kept(list(new.values()))
            found = agreement(self._text, embeddings, self._other)
            self._agreements.update(zip(new, found.tolist(), strict=True))
        return np.array([self._agreements[mask.tobytes()] for mask in kept])


def _ranks(values: Float64, draws: NDArray[np.int64]) -> Float64:
    """Of each row of draws (k, n) of the values, from 1 on; equal values share the mean of theirs."""
    distinct, groups = np.unique(values, return_inverse=True)
    drawn = groups[draws]
    rows = np.arange(len(draws))[:, None] * len(distinct)
    counts = np.bincount((drawn + rows).reshape(-1), minlength=len(draws) * len(distinct))
    counts = counts.reshape(len(draws), len(distinct))
    shared = np.cumsum(counts, axis=1) - (counts - 1) / 2
    return np.asarray(np.take_along_axis(shared, drawn, axis=1), np.float64)


def _correlations(a: Float64, b: Float64) -> Float64:
    """Row by row, NaN where one is constant or there are fewer than three numbers."""
    x, y = (z - z.mean(axis=1, keepdims=True) if z.shape[1] else z for z in (a, b))
    norms = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    defined = (norms > 0) & (a.shape[1] >= 3)
    result: Float64 = np.divide(
        (x * y).sum(axis=1), norms, out=np.full(len(norms), np.nan), where=defined
    )
    return result


def _central(values: Float64) -> tuple[float, float]:
    """The interval that 95% of the values lie in, those that are NaN aside."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return (float("nan"), float("nan"))
    low, high = np.quantile(finite, (0.025, 0.975))
    return (float(low), float(high))
