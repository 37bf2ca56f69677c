"""simdformer.util compared with sentence_transformers.util, and its evaluators with our model."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import util

pytestmark = pytest.mark.parity

rng = np.random.default_rng(8)
QUERIES = rng.standard_normal((5, 12)).astype(np.float32)
CORPUS = rng.standard_normal((60, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def theirs():
    return pytest.importorskip("sentence_transformers").util


def same_hits(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        assert [hit["corpus_id"] for hit in mine] == [hit["corpus_id"] for hit in other]
        np.testing.assert_allclose(
            [hit["score"] for hit in mine], [hit["score"] for hit in other], rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("name", ["cos_sim", "dot_score", "euclidean_sim"])
@pytest.mark.parametrize("top_k", [1, 7, 99])
def test_searches_agree(theirs, name, top_k):
    same_hits(
        util.semantic_search(QUERIES, CORPUS, 2, 9, top_k, getattr(util, name)),
        theirs.semantic_search(QUERIES, CORPUS, 2, 9, top_k, getattr(theirs, name)),
    )


def test_mining_agrees(theirs):
    torch = pytest.importorskip("torch")
    for options in ({}, {"max_pairs": 9}, {"top_k": 2, "max_pairs": 30}):
        ours = util.paraphrase_mining_embeddings(CORPUS, **options)
        other = theirs.paraphrase_mining_embeddings(torch.from_numpy(CORPUS), **options)
        assert [pair[1:] for pair in ours] == [pair[1:] for pair in other]


@pytest.mark.parametrize(("threshold", "least"), [(0.2, 5), (0.4, 2), (0.7, 1), (0.99, 3)])
def test_communities_agree(theirs, threshold, least):
    ours = util.community_detection(CORPUS, threshold, least, 7)
    assert ours == theirs.community_detection(CORPUS, threshold, least, 7)


def test_tensors_give_tensors(theirs):
    torch = pytest.importorskip("torch")
    a, b = torch.from_numpy(QUERIES), torch.from_numpy(CORPUS)
    for name in ("cos_sim", "dot_score", "euclidean_sim", "manhattan_sim"):
        ours = getattr(util, name)(a, b)
        assert isinstance(ours, torch.Tensor)
        torch.testing.assert_close(ours, getattr(theirs, name)(a, b))
        assert isinstance(getattr(util, f"pairwise_{name}")(a, a), torch.Tensor)


def test_evaluators_run(model):
    evaluation = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")
    search = evaluation.InformationRetrievalEvaluator(
        {"1": "cab"}, {"a": "cab", "b": "zzz"}, {"1": {"a"}}, show_progress_bar=False
    )
    assert search(model)["cosine_accuracy@1"] == 1.0
    alike = evaluation.EmbeddingSimilarityEvaluator(["ab", "cd", "a"], ["ab", "x", "z"], [1, 0, 0])
    assert alike(model)["spearman_cosine"] > 0
    triplets = evaluation.TripletEvaluator(["cab"], ["cab"], ["zz"])
    assert triplets(model)["cosine_accuracy"] == 1.0
    mining = evaluation.ParaphraseMiningEvaluator({"1": "ab", "2": "ab", "3": "z"}, [("1", "2")])
    assert mining(model)["average_precision"] > 0.5
    assert len(model.model_card_data.eval_results_dict) == 4
