"""Libraries that rerank: their scores have the bits of `predict`."""

from __future__ import annotations

import numpy as np
import pytest

QUERY, DOCUMENTS = "abc", ["zz", "abd", "a b c", "q"]


@pytest.fixture(scope="module")
def scores(scorer_folder):
    from simdformer import CrossEncoder

    return CrossEncoder(scorer_folder).predict([(QUERY, document) for document in DOCUMENTS])


def test_llama_index(scorer_folder, scores):
    rerank = pytest.importorskip("llama_index.postprocessor.sbert_rerank").SentenceTransformerRerank
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=text), score=0.0) for text in DOCUMENTS]
    options = {"max_length": 100, "trust_remote_code": False}
    reranker = rerank(model=scorer_folder, top_n=3, device="cpu", cross_encoder_kwargs=options)
    found = reranker.postprocess_nodes(nodes, query_str=QUERY)
    best = np.argsort(-scores, kind="stable")[:3]
    assert [node.text for node in found] == [DOCUMENTS[i] for i in best]
    assert [np.float32(node.score) for node in found] == scores[best].tolist()


@pytest.mark.filterwarnings("ignore")
def test_langchain(scorer_folder, scores):
    encoders = pytest.importorskip("langchain_community.cross_encoders")
    encoder = encoders.HuggingFaceCrossEncoder(
        model_name=scorer_folder, model_kwargs={"device": "cpu"}
    )
    found = encoder.score([(QUERY, document) for document in DOCUMENTS])
    assert np.asarray(found, dtype=np.float32).tobytes() == scores.tobytes()


def test_haystack(scorer_folder, scores):
    pytest.importorskip("haystack")
    rankers = pytest.importorskip("haystack_integrations.components.rankers.sentence_transformers")
    from haystack import Document
    from haystack.utils import ComponentDevice

    ranker = rankers.SentenceTransformersSimilarityRanker(
        model=scorer_folder, device=ComponentDevice.from_str("cpu"), top_k=4
    )
    ranker.warm_up()
    documents = [Document(content=text) for text in DOCUMENTS]
    found = ranker.run(query=QUERY, documents=documents)["documents"]
    best = np.argsort(-scores, kind="stable")
    assert [document.content for document in found] == [DOCUMENTS[i] for i in best]
    assert [np.float32(document.score) for document in found] == scores[best].tolist()
