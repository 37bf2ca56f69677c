"""Search in embeddings, compared with exhaustive search."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from simdformer.util import (
    SimilarityFunction,
    community_detection,
    cos_sim,
    dot_score,
    paraphrase_mining,
    paraphrase_mining_embeddings,
    pytorch_cos_sim,
    quantize_embeddings,
    semantic_search,
    truncate_embeddings,
)
from tests.support.model_fixtures import TEXTS

rng = np.random.default_rng(7)
QUERIES = rng.standard_normal((5, 12)).astype(np.float32)
CORPUS = rng.standard_normal((40, 12)).astype(np.float32)


@pytest.mark.parametrize("score_function", [cos_sim, dot_score, lambda a, b: -(a @ b.T)])
@pytest.mark.parametrize("chunks", [(100, 500000), (2, 7), (1, 1), (5, 40)])
@pytest.mark.parametrize("top_k", [1, 6, 40, 100])
def test_a_search_finds_the_best_of_all_in_order(score_function, chunks, top_k):
    found = semantic_search(QUERIES, CORPUS, *chunks, top_k, score_function)
    scores = np.asarray(score_function(QUERIES, CORPUS))
    for row, hits in zip(scores, found, strict=True):
        best = np.argsort(-row, kind="stable")[:top_k]
        assert [hit["corpus_id"] for hit in hits] == best.tolist()
        np.testing.assert_allclose([hit["score"] for hit in hits], row[best], rtol=1e-5, atol=1e-6)
        assert all(type(v) in (int, float) for hit in hits for v in hit.values())


def test_one_query_lists_and_integers_are_accepted():
    (hits,) = semantic_search([1, 0], [[0, 3], [2, 0], [2, 0]], top_k=2)
    assert hits == [{"corpus_id": 1, "score": 1.0}, {"corpus_id": 2, "score": 1.0}]


def test_an_empty_corpus_gives_empty_rows():
    assert semantic_search(QUERIES[:2], []) == [[], []]
    assert semantic_search([], CORPUS) == []


@pytest.mark.parametrize("max_pairs", [3, 20, 5000])
@pytest.mark.parametrize("chunks", [(5000, 100000), (7, 11)])
def test_mining_finds_each_pair_once_by_descending_score(max_pairs, chunks):
    found = paraphrase_mining_embeddings(CORPUS, *chunks, max_pairs=max_pairs)
    scores = cos_sim(CORPUS, CORPUS)
    pairs = sorted(combinations(range(len(CORPUS)), 2), key=lambda pair: -scores[pair])
    assert [(i, j) for _, i, j in found] == pairs[:max_pairs]
    np.testing.assert_allclose(
        [score for score, _, _ in found],
        [scores[p] for p in pairs[:max_pairs]],
        rtol=1e-5,
        atol=1e-6,
    )


def test_mining_considers_top_k_others_of_each():
    found = paraphrase_mining_embeddings(CORPUS, top_k=1)
    scores = cos_sim(CORPUS, CORPUS)
    np.fill_diagonal(scores, -2)
    nearest = {tuple(sorted((i, int(row.argmax())))) for i, row in enumerate(scores)}
    assert {(i, j) for _, i, j in found} == nearest


def test_mining_among_equal_embeddings_excludes_itself():
    found = paraphrase_mining_embeddings(np.ones((4, 3)), top_k=5)
    assert [(i, j) for _, i, j in found] == list(combinations(range(4), 2))


def test_mining_of_texts_encodes_them(model):
    expected = paraphrase_mining_embeddings(model.encode(TEXTS, prompt="ab "))
    assert paraphrase_mining(model, TEXTS, prompt="ab ") == expected


def test_communities_contain_close_embeddings_and_the_largest_comes_first():
    centres = np.eye(3, 8)
    noise = 0.01 * rng.standard_normal((30, 8))
    rows = np.repeat(centres, [15, 5, 10], axis=0) + noise
    rows *= rng.uniform(0.1, 10, (30, 1))  # the cosine does not depend on lengths
    groups = community_detection(rows, threshold=0.9, min_community_size=5, batch_size=4)
    assert [sorted(group) for group in groups] == [
        list(range(15)),
        list(range(20, 30)),
        list(range(15, 20)),
    ]
    scores = cos_sim(rows, rows)
    for group in groups:
        assert (scores[group[0], group] >= 0.9).all()


def test_small_communities_are_not_returned():
    rows = np.eye(4)
    assert community_detection(rows, min_community_size=2) == []
    assert sorted(map(tuple, community_detection(rows, min_community_size=1))) == [
        (0,),
        (1,),
        (2,),
        (3,),
    ]
    assert community_detection([], min_community_size=1) == []
    assert community_detection(rows, min_community_size=10) == []


def test_a_member_is_in_one_community():
    angles = np.linspace(0, 1.5, 40)
    rows = np.stack((np.cos(angles), np.sin(angles)), axis=1)
    groups = community_detection(rows, threshold=0.95, min_community_size=2)
    members = [i for group in groups for i in group]
    assert len(members) == len(set(members))
    assert [len(group) for group in groups] == sorted(map(len, groups), reverse=True)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: semantic_search(QUERIES, CORPUS, top_k=0), "top_k must be a positive integer"),
        (lambda: semantic_search(QUERIES, CORPUS, 0), "query_chunk_size must be a positive"),
        (lambda: semantic_search(QUERIES, CORPUS[:, :3]), "one width, got shapes"),
        (lambda: semantic_search(["a"], CORPUS), "embeddings must be a matrix of real numbers"),
        (lambda: semantic_search(CORPUS[None], CORPUS), "embeddings must be a matrix"),
        (lambda: paraphrase_mining_embeddings(CORPUS, max_pairs=0), "max_pairs must be a positive"),
        (lambda: community_detection(CORPUS, batch_size=0), "batch_size must be a positive"),
    ],
)
def test_invalid_arguments_are_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_names_of_sentence_transformers():
    assert SimilarityFunction.DOT is SimilarityFunction.DOT_PRODUCT
    assert SimilarityFunction.possible_values() == ["cosine", "dot", "euclidean", "manhattan"]
    assert SimilarityFunction.to_similarity_fn("cosine") is cos_sim is pytorch_cos_sim
    assert (
        SimilarityFunction.to_similarity_pairwise_fn(SimilarityFunction.DOT)([1, 2], [3, 4]) == 11
    )
    assert truncate_embeddings(CORPUS, 3).shape == (40, 3)
    assert truncate_embeddings(CORPUS, None).shape == CORPUS.shape


def test_matrices_are_quantized_with_the_same_ranges():
    matrices = [CORPUS[:3], CORPUS[3:3], CORPUS[3:40]]
    with pytest.warns(UserWarning, match="ranges are computed from 40"):
        codes = quantize_embeddings(matrices, "int8")
    assert [len(part) for part in codes] == [3, 0, 37]
    with pytest.warns(UserWarning, match="ranges are computed from 40"):
        np.testing.assert_array_equal(np.concatenate(codes), quantize_embeddings(CORPUS, "int8"))


@pytest.mark.parametrize(("precision", "width"), [("int8", 12), ("uint8", 12), ("binary", 2)])
def test_an_empty_matrix_of_embeddings_keeps_its_width(precision, width):
    assert quantize_embeddings(CORPUS[:0], precision).shape == (0, width)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("at", [0, 1])
def test_a_search_among_numbers_that_are_not_finite_is_refused(bad, at):
    arrays = [QUERIES.copy(), CORPUS.copy()]
    arrays[at][1, 2] = bad
    with pytest.raises(ValueError, match="embeddings must be finite"):
        semantic_search(*arrays)


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_embeddings_that_are_not_finite_are_not_quantized(precision):
    embeddings = np.repeat(CORPUS, 3, axis=0)
    embeddings[3, 2] = np.nan
    with pytest.raises(ValueError, match="needs finite embeddings"):
        quantize_embeddings(embeddings, precision)
