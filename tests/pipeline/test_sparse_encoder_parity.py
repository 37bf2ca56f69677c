"""SparseEncoder compared with sentence-transformers' class, on masked language models with random weights.
Needs the extra [parity]."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import SparseEncoder
from simdformer.models.masked_language_model import HEADS
from tests.support.parity_models import KINDS, randomize, tokenizer_of
from tests.support.parity_texts import parity_texts

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

BOUND = 1e-5
# ernie has the code of bert.
# transformers has no masked language model of Qwen3; tests/folder/test_catalogue.py has a definition.
COMPARED = sorted(set(HEADS) & set(KINDS) - {"qwen3"})


@pytest.fixture(scope="module")
def texts():
    ordered = sorted(parity_texts(), key=len)
    return [*ordered[:: len(ordered) // 14], *ordered[-1:]]


@pytest.fixture(scope="module")
def st():
    pytest.importorskip("torch")
    return pytest.importorskip("sentence_transformers")


@pytest.fixture(scope="module")
def masked_model(tmp_path_factory, st, texts):  # noqa: ARG001
    """A function from a kind to the folder of its masked language model, as saved by transformers."""
    transformers = pytest.importorskip("transformers")
    made = {}

    def make(name, **fields):
        key = (name, *fields.items())
        if key not in made:
            kind = KINDS[name]
            config = getattr(transformers, f"{kind.stem}Config")(**{**kind.fields, **fields})
            model = getattr(transformers, f"{kind.stem}ForMaskedLM")(config)
            randomize(model)
            made[key] = tmp_path_factory.mktemp("masked")
            model.save_pretrained(made[key])
            tokenizer_of(transformers, kind, texts).save_pretrained(made[key])
        return made[key]

    return make


def assert_same(ours, theirs, texts, **arguments):
    a = ours.encode(texts, **arguments)
    b = theirs.encode(texts, **arguments).to_dense().numpy()
    assert a.shape == b.shape
    assert np.abs(a.toarray() - b).max() <= BOUND * max(1, b.max())
    assert b.any(axis=1).all()


def test_every_head_is_compared():
    assert set(HEADS) == {*COMPARED, "ernie", "new", "qwen3"}


@pytest.mark.parametrize("name", COMPARED)
def test_a_masked_language_model_gives_the_same_weights(masked_model, st, texts, name):
    folder = masked_model(name)
    theirs = st.SparseEncoder(str(folder), device="cpu")
    theirs.max_seq_length = KINDS[name].longest
    assert_same(SparseEncoder(folder), theirs, texts)


@pytest.mark.parametrize("name", ["bert", "distilbert", "modernbert"])
def test_a_decoder_with_its_own_weight_is_used(masked_model, st, texts, name):
    folder = masked_model(name, tie_word_embeddings=False)
    theirs = st.SparseEncoder(str(folder), device="cpu")
    assert_same(SparseEncoder(folder), theirs, texts)


@pytest.fixture(scope="module")
def saved(masked_model, st, tmp_path_factory):
    """A function from SpladePooling's arguments to a saved folder."""
    from sentence_transformers.sparse_encoder.modules import SpladePooling, Transformer

    def save(**arguments):
        transformer = Transformer(str(masked_model("bert")), transformer_task="fill-mask")
        transformer.max_seq_length = 100
        modules = [transformer, SpladePooling(**arguments)]
        model = st.SparseEncoder(modules=modules, device="cpu", prompts={"query": "find: "})
        folder = tmp_path_factory.mktemp("saved")
        model.save_pretrained(str(folder))
        return folder

    return save


@pytest.mark.parametrize("strategy", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_every_pooling_is_the_same(saved, st, texts, strategy, activation):
    folder = saved(pooling_strategy=strategy, activation_function=activation)
    ours, theirs = SparseEncoder(folder), st.SparseEncoder(str(folder), device="cpu")
    a, b = ours.encode(texts).toarray(), theirs.encode(texts).to_dense().numpy()
    assert np.abs(a - b).max() <= BOUND * max(1, np.abs(b).max())


def test_arguments_have_the_same_meaning(saved, st, texts):
    folder = saved()
    ours, theirs = SparseEncoder(folder), st.SparseEncoder(str(folder), device="cpu")
    for arguments in ({"max_active_dims": 17}, {"prompt": "a: "}, {"prompt_name": "query"}):
        assert_same(ours, theirs, texts, **arguments)
    assert ours.max_seq_length == theirs.max_seq_length == 100
    a, b = ours.encode_query(texts[-1]), theirs.encode_query(texts[-1])
    b = b.to_dense().numpy()
    assert np.abs(a.toarray() - b).max() <= BOUND * max(1, b.max())
    rows = ours.encode(texts[:3], convert_to_tensor=False, convert_to_sparse_tensor=False)
    wanted = theirs.encode(texts[:3], convert_to_tensor=False, convert_to_sparse_tensor=False)
    for a, b in zip(rows, wanted, strict=True):
        assert np.abs(a - b.numpy()).max() <= BOUND


@pytest.mark.parametrize("name", ["dot", "cosine", "euclidean", "manhattan"])
def test_functions_of_embeddings_are_the_same(saved, st, texts, name):
    folder = saved()
    ours = SparseEncoder(folder, similarity_fn_name=name)
    theirs = st.SparseEncoder(str(folder), device="cpu", similarity_fn_name=name)
    a, b = ours.encode(texts, max_active_dims=40), theirs.encode(texts, max_active_dims=40)
    for ours_of, theirs_of in (
        (ours.similarity(a, a[:5]), theirs.similarity(b, b.to_dense()[:5].to_sparse())),
        (ours.similarity_pairwise(a, a), theirs.similarity_pairwise(b, b)),
    ):
        wanted = np.asarray(theirs_of.to_dense() if theirs_of.is_sparse else theirs_of)
        bound = 2e-2 if name == "euclidean" else 1e-5 * max(1, np.abs(wanted).max())
        assert np.abs(ours_of - wanted).max() <= bound
    assert ours.sparsity(a) == pytest.approx(theirs.sparsity(b))
    shared = theirs.intersection(b[0], b).to_dense().numpy()
    assert np.abs(ours.intersection(a[0], a).toarray() - shared).max() <= 1e-4
    for row, wanted in zip(ours.decode(a, top_k=5), theirs.decode(b, top_k=5), strict=True):
        assert [token for token, _ in row] == [token for token, _ in wanted]
        np.testing.assert_allclose([x for _, x in row], [x for _, x in wanted], atol=BOUND)


def test_a_router_selects_the_static_embedding_for_queries(masked_model, st, texts, tmp_path):
    import torch
    from sentence_transformers.sparse_encoder.modules import (
        Router,
        SparseStaticEmbedding,
        SpladePooling,
        Transformer,
    )

    folder = str(masked_model("bert", vocab_size=650))
    transformer = Transformer(folder, transformer_task="fill-mask")
    weight = torch.rand(len(transformer.tokenizer.get_vocab()))
    assert len(weight) == 650
    router = Router.for_query_document(
        query_modules=[SparseStaticEmbedding(tokenizer=transformer.tokenizer, weight=weight)],
        document_modules=[transformer, SpladePooling("max", "log1p_relu")],
    )
    theirs = st.SparseEncoder(modules=[router], device="cpu")
    theirs.save_pretrained(str(tmp_path))
    ours = SparseEncoder(tmp_path)
    theirs = st.SparseEncoder(str(tmp_path), device="cpu")
    for method in ("encode_query", "encode_document"):
        a = getattr(ours, method)(texts).toarray()
        b = getattr(theirs, method)(texts).to_dense().numpy()
        assert np.abs(a - b).max() <= BOUND
