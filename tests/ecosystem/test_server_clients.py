"""Clients of other servers, with `simdformer serve` instead of their server."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ecosystem.conftest import TEXTS
from tests.soak.client import Served

NAME = "all-MiniLM-L6-v2"
QUERY = "Which animals are there?"


@pytest.fixture(scope="module")
def url(scorer_folder):
    with Served(NAME, "--reranker", scorer_folder) as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def vectors(ours):
    return ours.encode(TEXTS)


@pytest.fixture(scope="module")
def unit(ours):
    """Normalized once more, as TEI and Ollama do."""
    return ours.encode(TEXTS, normalize_embeddings=True)


@pytest.fixture(scope="module")
def hits(scorer_folder):
    """(index, score), the best first."""
    from simdformer import CrossEncoder

    found = CrossEncoder(scorer_folder).rank(QUERY, TEXTS)
    return [(hit["corpus_id"], pytest.approx(hit["score"])) for hit in found]


def same(found, expected):
    np.testing.assert_array_equal(np.asarray(found, np.float32), expected)


# --- Cohere ---


def test_cohere_v2(url, vectors, hits):
    cohere = pytest.importorskip("cohere")
    client = cohere.ClientV2(api_key="none", base_url=url)
    kinds = ["float", "ubinary"]
    answer = client.embed(
        texts=TEXTS, model=NAME, input_type="search_document", embedding_types=kinds
    )
    same(answer.embeddings.float_, vectors)
    same(answer.embeddings.ubinary, np.packbits(vectors > 0, axis=1))
    ranked = client.rerank(model="scorer", query=QUERY, documents=TEXTS)
    assert [(each.index, each.relevance_score) for each in ranked.results] == hits


def test_cohere_v1(url, vectors):
    cohere = pytest.importorskip("cohere")
    client = cohere.Client(api_key="none", base_url=url)
    answer = client.embed(texts=TEXTS, model=NAME, input_type="search_document", truncate="END")
    same(answer.embeddings, vectors)
    with pytest.raises(cohere.errors.NotFoundError, match="unknown model"):
        client.embed(texts=TEXTS, model="embed-v4", input_type="search_document")


# --- Ollama ---


def test_ollama(url, vectors, unit):
    ollama = pytest.importorskip("ollama")
    client = ollama.Client(host=url)
    assert [model.model for model in client.list().models] == [NAME, "scorer"]
    same(client.embed(model=NAME, input=TEXTS, options={"seed": 1}).embeddings, unit)
    same(client.embeddings(model=f"{NAME}:latest", prompt=TEXTS[0]).embedding, vectors[0])
    with pytest.raises(ollama.ResponseError, match="unknown model"):
        client.embed(model="none", input=TEXTS)


# --- Hugging Face ---


def test_hugging_face_inference_client(monkeypatch, url, ours, vectors, unit):
    hub = pytest.importorskip("huggingface_hub")
    # Offline mode forbids local servers too.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    client = hub.InferenceClient(model=url)
    same(client.feature_extraction(TEXTS, truncate=True), unit)
    same(client.feature_extraction(TEXTS, dimensions=8, normalize=False), vectors[:, :8])
    similar = client.sentence_similarity(TEXTS[0], other_sentences=TEXTS[1:])
    np.testing.assert_allclose(similar, ours.similarity(vectors[0], vectors[1:])[0], atol=1e-6)


def test_llama_index_tei(url, unit):
    tei = pytest.importorskip("llama_index.embeddings.text_embeddings_inference")
    client = tei.TextEmbeddingsInference(model_name=NAME, base_url=url, truncate_text=True)
    same(client.get_text_embedding_batch(TEXTS), unit)
    same(client.get_query_embedding(TEXTS[0]), unit[0])


# --- OpenAI ---


def test_langchain_openai(url, vectors):
    langchain = pytest.importorskip("langchain_openai")
    client = langchain.OpenAIEmbeddings(
        model=NAME, base_url=f"{url}/v1", api_key="none", check_embedding_ctx_length=False
    )
    same(client.embed_documents(TEXTS), vectors)
    same(client.embed_query(TEXTS[0]), vectors[0])


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm", "ollama"])
def test_litellm_embeddings(url, vectors, unit, provider):
    litellm = pytest.importorskip("litellm")
    base = url if provider == "ollama" else f"{url}/v1"
    answer = litellm.embedding(
        model=f"{provider}/{NAME}", input=TEXTS, api_base=base, api_key="none"
    )
    same([row["embedding"] for row in answer.data], unit if provider == "ollama" else vectors)


@pytest.mark.parametrize("provider", ["cohere", "jina_ai", "hosted_vllm"])
def test_litellm_rankings(url, hits, provider):
    litellm = pytest.importorskip("litellm")
    base = f"{url}/v1/rerank" if provider == "cohere" else url
    answer = litellm.rerank(
        model=f"{provider}/scorer", query=QUERY, documents=TEXTS, api_base=base, api_key="none"
    )
    assert [(each["index"], each["relevance_score"]) for each in answer.results] == hits
