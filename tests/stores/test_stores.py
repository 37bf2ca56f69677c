"""Vector stores, as installed: their results are those of exact search (`make stores`)."""

from __future__ import annotations

import json

import numpy as np
import pytest

from examples import docstrings
from simdformer import SentenceTransformer, util
from tests.support.sqlite import sqlite_with_extensions

pytestmark = pytest.mark.stores

MODULES = {"threading", "calendar", "glob", "fnmatch", "pathlib", "random", "shutil", "queue"}
QUERIES = [
    "wait until several threads have arrived",
    "how many days has this month",
    "find files that match a pattern",
    "a number picked by chance",
]
TOP = 5


@pytest.fixture(scope="module")
def model():
    return SentenceTransformer("all-MiniLM-L6-v2")


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """Docstrings of Python's standard library, with the names of the objects."""
    path = tmp_path_factory.mktemp("corpus") / "docstrings.jsonl"
    docstrings.main(str(path))
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["name"].partition(".")[0] in MODULES]


@pytest.fixture(scope="module")
def vectors(model, documents):
    return model.encode_document([document["text"] for document in documents])


@pytest.fixture(scope="module")
def queries(model):
    return model.encode_query(QUERIES)


@pytest.fixture(scope="module")
def exact(queries, vectors):
    """The ids and scores of the best documents for each query, (queries, TOP)."""
    found = util.semantic_search(queries, vectors, top_k=TOP, score_function=util.dot_score)
    ids = [[hit["corpus_id"] for hit in hits] for hits in found]
    return np.array(ids), np.array([[hit["score"] for hit in hits] for hits in found])


def assert_found(ids, scores, exact):
    """The same documents in the same order, except for scores that are equal up to rounding."""
    expected_ids, expected_scores = exact
    np.testing.assert_allclose(scores, expected_scores, rtol=0, atol=1e-5)
    for row, expected, score in zip(ids, expected_ids, expected_scores, strict=True):
        for rank in np.flatnonzero(np.asarray(row) != expected):
            ties = np.abs(score - score[rank]) < 1e-5
            assert row[rank] in expected[ties], (row, expected)


def test_exact_search_finds_what_the_queries_ask_for(documents, exact):
    best = [documents[i]["name"] for i in exact[0][:, 0]]
    assert best[1:3] == ["calendar.monthrange", "fnmatch.fnmatch"]
    assert best[0].startswith("threading.")
    assert best[3].startswith("random.")


@pytest.mark.parametrize("kind", ["Flat", "HNSW32,Flat"])
def test_faiss(queries, vectors, exact, kind):
    faiss = pytest.importorskip("faiss")
    index = faiss.index_factory(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    index.add(vectors)
    if kind != "Flat":
        index.hnsw.efSearch = len(vectors)  # with this width the search is exact
    scores, ids = index.search(queries, TOP)
    assert_found(ids, scores, exact)


def test_faiss_reads_binary_vectors(queries, vectors):
    faiss = pytest.importorskip("faiss")
    stored, asked = (util.quantize_embeddings(each, "ubinary") for each in (vectors, queries))
    index = faiss.IndexBinaryFlat(vectors.shape[1])
    index.add(stored)
    distances, ids = index.search(asked, TOP)
    bits = np.unpackbits(stored[None] ^ asked[:, None], axis=2).sum(2)
    np.testing.assert_array_equal(distances, np.sort(bits, axis=1)[:, :TOP])
    np.testing.assert_array_equal(np.take_along_axis(bits, ids, 1), distances)


@pytest.fixture
def qdrant(tmp_path, vectors, documents):
    """A collection on disk with vectors and their documents."""
    client_module = pytest.importorskip("qdrant_client")
    models = client_module.models
    client = client_module.QdrantClient(path=str(tmp_path / "qdrant"))
    params = models.VectorParams(size=vectors.shape[1], distance=models.Distance.COSINE)
    client.create_collection("docstrings", vectors_config=params)
    client.upload_collection("docstrings", vectors=vectors, payload=documents, ids=None)
    yield client
    client.close()


def test_qdrant(qdrant, queries, documents, exact):
    found = [qdrant.query_points("docstrings", query=q, limit=TOP).points for q in queries]
    texts = [document["text"] for document in documents]
    ids = [[texts.index(point.payload["text"]) for point in points] for points in found]
    scores = np.array([[point.score for point in points] for points in found])
    assert_found(ids, scores, exact)


def test_qdrant_is_given_single_queries_as_lists(qdrant, model, documents, exact):
    vector = model.encode_query(QUERIES[1]).tolist()
    (point,) = qdrant.query_points("docstrings", query=vector, limit=1).points
    assert point.payload == documents[exact[0][1, 0]]


@pytest.fixture
def database():
    sqlite_vec = pytest.importorskip("sqlite_vec")
    connection = sqlite_with_extensions().connect(":memory:")
    connection.enable_load_extension(True)
    sqlite_vec.load(connection)
    yield connection
    connection.close()


def test_sqlite_vec(database, queries, vectors, exact):
    dim = vectors.shape[1]
    database.execute(
        f"create virtual table docs using vec0(embedding float[{dim}] distance_metric=cosine)"
    )
    rows = ((i, vector.tobytes()) for i, vector in enumerate(vectors))
    database.executemany("insert into docs(rowid, embedding) values (?, ?)", rows)
    ask = "select rowid, distance from docs where embedding match ? and k = ? order by distance"
    found = [database.execute(ask, (query.tobytes(), TOP)).fetchall() for query in queries]
    ids = [[row for row, _ in rows] for rows in found]
    scores = 1 - np.array([[distance for _, distance in rows] for rows in found])
    assert_found(ids, scores, exact)


def test_sqlite_vec_reads_int8_vectors(database, queries, vectors):
    ranges = np.array([vectors.min(0), vectors.max(0)])
    stored, asked = (
        util.quantize_embeddings(each, "int8", ranges=ranges) for each in (vectors, queries)
    )
    dim = vectors.shape[1]
    database.execute(f"create virtual table docs using vec0(embedding int8[{dim}])")
    rows = ((i, vector.tobytes()) for i, vector in enumerate(stored))
    database.executemany("insert into docs(rowid, embedding) values (?, vec_int8(?))", rows)
    ask = "select distance from docs where embedding match vec_int8(?) and k = ? order by distance"
    for query in asked:
        found = [row for (row,) in database.execute(ask, (query.tobytes(), TOP))]
        difference = stored.astype(np.float64) - query
        expected = np.sort(np.sqrt((difference**2).sum(1)))[:TOP]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
