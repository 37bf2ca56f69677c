"""Libraries that embed: their vectors have the bits of `encode`."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ecosystem.conftest import TEXTS


def same(vectors, expected):
    """float32 numbers are unchanged as a list of Python floats."""
    assert (
        np.asarray(vectors, dtype=np.float32).tobytes() == np.ascontiguousarray(expected).tobytes()
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"model_kwargs": {"device": "cpu", "trust_remote_code": True, "backend": "torch"}},
        {"model_kwargs": {"model_kwargs": {"torch_dtype": "float32"}}},
        {"multi_process": True},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_langchain(folder, ours, arguments):
    langchain = pytest.importorskip("langchain_huggingface")
    embeddings = langchain.HuggingFaceEmbeddings(model_name=folder, **arguments)
    same(embeddings.embed_documents(TEXTS), ours.encode(TEXTS))
    same(embeddings.embed_query(TEXTS[0]), ours.encode(TEXTS[0]))


def test_langchain_normalizes(folder, ours):
    langchain = pytest.importorskip("langchain_huggingface")
    options = {"normalize_embeddings": True, "batch_size": 2}
    embeddings = langchain.HuggingFaceEmbeddings(model_name=folder, encode_kwargs=options)
    same(embeddings.embed_documents(TEXTS), ours.encode(TEXTS, normalize_embeddings=True))


def test_langchain_splits_by_tokens(folder, ours):
    splitters = pytest.importorskip("langchain_text_splitters")
    splitter = splitters.SentenceTransformersTokenTextSplitter(
        chunk_overlap=2, model_name=folder, tokens_per_chunk=12
    )
    text = " ".join(TEXTS)
    ids = ours.pipeline.tokenizer([text]).input_ids[0]
    assert splitter.count_tokens(text=text) == len(ids)
    chunks = splitter.split_text(text)
    assert chunks[0] == ours.tokenizer.decode(ids[1:13]) == text[: len(chunks[0])].lower()
    assert chunks[1] == ours.tokenizer.decode(ids[11:23])


@pytest.mark.parametrize(
    "arguments", [{}, {"trust_remote_code": True}, {"parallel_process": True}], ids=str
)
def test_llama_index(folder, ours, arguments):
    embedding = pytest.importorskip("llama_index.embeddings.huggingface").HuggingFaceEmbedding
    embedder = embedding(model_name=folder, device="cpu", **arguments)
    expected = ours.encode(TEXTS, normalize_embeddings=True)
    same(embedder.get_text_embedding_batch(TEXTS), expected)
    if not arguments:
        same(embedder.get_query_embedding(TEXTS[0]), expected[0])


def test_haystack(folder, ours):
    pytest.importorskip("haystack")
    embedders = pytest.importorskip(
        "haystack_integrations.components.embedders.sentence_transformers"
    )
    from haystack import Document
    from haystack.utils import ComponentDevice

    cpu = ComponentDevice.from_str("cpu")
    embedder = embedders.SentenceTransformersDocumentEmbedder(
        model=folder, device=cpu, progress_bar=False
    )
    embedder.warm_up()
    found = embedder.run([Document(content=text) for text in TEXTS])["documents"]
    same([document.embedding for document in found], ours.encode(TEXTS))
    query = embedders.SentenceTransformersTextEmbedder(model=folder, device=cpu, progress_bar=False)
    query.warm_up()
    same(query.run(TEXTS[0])["embedding"], ours.encode(TEXTS[0]))


@pytest.mark.parametrize("arguments", [{}, {"trust_remote_code": True}], ids=str)
@pytest.mark.filterwarnings("ignore")
def test_chroma(folder, ours, arguments):
    functions = pytest.importorskip("chromadb.utils.embedding_functions")
    function = functions.SentenceTransformerEmbeddingFunction(model_name=folder, **arguments)
    same(np.stack(function(TEXTS)), ours.encode(TEXTS))


def test_keybert_takes_our_model(model, ours):
    keybert = pytest.importorskip("keybert")
    backend = keybert.KeyBERT(model=model).model
    assert backend.embedding_model is model
    same(backend.embed(TEXTS), ours.encode(TEXTS))
    words = keybert.KeyBERT(model=model).extract_keywords(TEXTS[0], top_n=2)
    assert "cat" in [word for word, _ in words]


@pytest.mark.filterwarnings("ignore")
def test_bertopic_takes_our_model(model, ours):
    bertopic = pytest.importorskip("bertopic")
    from bertopic.backend._utils import select_backend

    backend = select_backend(model)
    assert backend.embedding_model is model
    same(backend.embed(TEXTS), ours.encode(TEXTS))
    assert bertopic.BERTopic(embedding_model=model).embedding_model is model


@pytest.mark.filterwarnings("ignore")
def test_setfit_infers(model, ours, tmp_path):
    setfit = pytest.importorskip("setfit")
    from sklearn.linear_model import LogisticRegression

    labels = [0, 1, 0, 1]
    head = LogisticRegression().fit(ours.encode(TEXTS), labels)
    classifier = setfit.SetFitModel(model_body=model, model_head=head)
    assert np.asarray(classifier.predict(TEXTS)).tolist() == labels
    expected = head.predict_proba(ours.encode(TEXTS))
    np.testing.assert_array_equal(classifier.predict_proba(TEXTS, as_numpy=True), expected)
    classifier.save_pretrained(tmp_path / "saved")
    again = setfit.SetFitModel.from_pretrained(str(tmp_path / "saved"), device="cpu")
    assert again.model_body.encode("a").tobytes() == ours.encode("a").tobytes()


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_scikit_learn_validates(model, ours, n_jobs):
    pytest.importorskip("sklearn")
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    texts, labels = TEXTS * 3, [0, 1, 0, 1] * 3
    pipeline = make_pipeline(FunctionTransformer(model.encode), LogisticRegression())
    scores = cross_val_score(pipeline, np.array(texts), labels, cv=3, n_jobs=n_jobs)
    vectors = ours.encode(texts)
    np.testing.assert_array_equal(
        scores, cross_val_score(LogisticRegression(), vectors, labels, cv=3)
    )


def test_pandas_and_pyarrow(model, ours):
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    expected = ours.encode(TEXTS)
    same(model.encode(pandas.Series(TEXTS)), expected)
    same(model.encode(pyarrow.array(TEXTS)), expected)
    for table in (pandas.DataFrame({"text": TEXTS}), pyarrow.table({"text": TEXTS})):
        with pytest.raises(TypeError, match="pass one of its columns: 'text'"):
            model.encode(table)
