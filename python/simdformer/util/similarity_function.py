# SPDX-License-Identifier: Apache-2.0
"""The similarity functions by name."""

from __future__ import annotations

from enum import Enum

from simdformer.util.similarity import SIMILARITIES, Similarity


class SimilarityFunction(Enum):
    """The similarity functions by their names in sentence-transformers.

    Examples
    --------
    >>> from simdformer.util import SimilarityFunction
    >>> SimilarityFunction.possible_values()
    ['cosine', 'dot', 'euclidean', 'manhattan']
    """

    COSINE = "cosine"
    DOT_PRODUCT = "dot"
    DOT = "dot"  # noqa: PIE796  (an alias, as there)
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"

    @staticmethod
    def to_similarity_fn(similarity_function: str | SimilarityFunction) -> Similarity:
        """Return the function that compares all rows with all rows. ValueError for an unknown name."""
        return SIMILARITIES[SimilarityFunction(similarity_function).value][0]

    @staticmethod
    def to_similarity_pairwise_fn(similarity_function: str | SimilarityFunction) -> Similarity:
        """Return the function that compares row with row. ValueError for an unknown name."""
        return SIMILARITIES[SimilarityFunction(similarity_function).value][1]

    @staticmethod
    def possible_values() -> list[str]:
        """Return all names."""
        return [member.value for member in SimilarityFunction]
