"""Similarity of token pairs, leave-one-out, and norm-weighted attention."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import SentenceTransformer
from simdformer.explain import leave_one_out, norm_weighted_attention, token_similarity
from simdformer.explain.attribution import projected_values
from simdformer.nn.parameters import float32_of
from tests.support.model_fixtures import TEXTS, TINY, write_dense, write_model
from tests.support.tiny_models import ARCHITECTURES

TEXT, OTHER = "the quick brown fox", "a lazy dog"
each = pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.model_type)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("compute_type", ["float32", "bfloat16", "int8"])
def test_pairs_sum_to_the_cosine(tmp_path, text, compute_type):
    model = SentenceTransformer(write_model(tmp_path / "m"), compute_type=compute_type)
    pairs = token_similarity(model, text, OTHER)
    expected = model.similarity(model.encode(text), model.encode(OTHER)).item()
    assert pairs.shape == tuple(len(model.outputs(t).tokens) for t in (text, OTHER))
    np.testing.assert_allclose(pairs.sum(), expected, rtol=0, atol=1e-6)


def test_pairs_sum_to_the_cosine_of_normalized_and_truncated_embeddings(tmp_path):
    folder = write_model(tmp_path / "m", kinds=("Transformer", "Pooling", "Normalize"))
    model = SentenceTransformer(folder, truncate_dim=7)
    expected = model.similarity(model.encode(TEXT), model.encode(OTHER)).item()
    found = token_similarity(model, TEXT, OTHER).sum()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_prompt_excluded_from_pooling_has_no_contribution(tmp_path):
    model = SentenceTransformer(write_model(tmp_path / "m"), prompts={"q": "quick "})
    model.set_pooling_include_prompt(False)
    pairs = token_similarity(model, TEXT, OTHER, prompt_name="q")
    vectors = model.encode(TEXT, prompt_name="q"), model.encode(OTHER)
    np.testing.assert_allclose(pairs.sum(), model.similarity(*vectors).item(), rtol=0, atol=1e-6)
    assert not pairs[:6].any()  # [CLS] q ##u ##i ##c ##k
    assert pairs[6:].any(axis=1).all()


@pytest.mark.parametrize(
    "mode", ["cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
)
def test_other_poolings_are_refused_by_name(tmp_path, mode):
    pooling = {"word_embedding_dimension": TINY.hidden_size, "pooling_mode": mode}
    model = SentenceTransformer(
        write_model(tmp_path / "m", files={"1_Pooling/config.json": pooling})
    )
    with pytest.raises(ValueError, match=f"needs mean pooling, the model has {mode}$"):
        token_similarity(model, TEXT, OTHER)


def test_dense_layers_are_refused(tmp_path):
    folder = write_model(tmp_path / "m", kinds=("Transformer", "Pooling", "Dense"))
    write_dense(folder / "2_Dense", TINY.hidden_size, 7)
    with pytest.raises(ValueError, match="without dense layers after it, the model has 1"):
        token_similarity(SentenceTransformer(folder), TEXT, OTHER)


def test_another_similarity_is_refused(tmp_path):
    model = SentenceTransformer(write_model(tmp_path / "m"), similarity_fn_name="dot")
    with pytest.raises(ValueError, match="needs similarity 'cosine', the model's is 'dot'"):
        token_similarity(model, TEXT, OTHER)


def cosine(a, b):
    a, b = a.astype(float), b.astype(float)
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_leaving_a_word_out_is_the_text_without_it(model):
    found = leave_one_out(model, "a b c")
    assert found.shape == (5,)
    full = model.encode("a b c")
    for i, shorter in ((1, "b c"), (2, "a c"), (3, "a b")):
        expected = 1 - cosine(full, model.encode(shorter))
        np.testing.assert_allclose(found[i], expected, rtol=0, atol=1e-6)


def test_leaving_a_word_out_changes_the_similarity_with_another_text(model):
    found = leave_one_out(model, "a b c", OTHER)
    other = model.encode(OTHER)
    full = cosine(model.encode("a b c"), other)
    for i, shorter in ((1, "b c"), (2, "a c"), (3, "a b")):
        expected = full - cosine(model.encode(shorter), other)
        np.testing.assert_allclose(found[i], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("include", [True, False])
def test_leave_one_out_includes_tokens_of_a_prompt(tmp_path, include):
    model = SentenceTransformer(write_model(tmp_path / "m"), prompts={"q": "a b ", "p": "b "})
    model.set_pooling_include_prompt(include)
    found = leave_one_out(model, "c d", prompt_name="q")
    assert found.shape == (6,)  # [CLS] a b c d [SEP]
    full = model.encode("c d", prompt_name="q")
    for i, shorter in ((1, model.encode("c d", prompt_name="p")), (3, model.encode("d", "q"))):
        np.testing.assert_allclose(found[i], 1 - cosine(full, shorter), rtol=0, atol=1e-6)


@each
@pytest.mark.parametrize(("compute_type", "error"), [("float32", 2e-5), ("int8", 0.1)])
def test_the_weighted_vectors_sum_to_the_heads_outputs(tmp_path, architecture, compute_type, error):
    """For every architecture: norms before or after, shared keys and values, with or without biases."""
    model = SentenceTransformer(architecture.write(tmp_path / "m"), compute_type=compute_type)
    output = model.outputs(
        TEXT, output_attentions=True, output_hidden_states=True, output_head_outputs=True
    )
    weighted = norm_weighted_attention(model, TEXT)
    assert len(weighted) == len(model.encoder.layers)
    for i, layer in enumerate(model.encoder.layers):
        values = projected_values(layer, output.hidden_states[i])
        terms = output.attentions[i][..., None] * values[:, None]
        heads = np.moveaxis(output.head_outputs[i], 1, 0)
        weight = float32_of(layer.self_attn.out_proj.weight)
        projection = np.split(weight, len(heads), axis=1)
        expected = np.stack([head @ w.T for head, w in zip(heads, projection, strict=True)])
        # Sums of about 20 products of order one.
        np.testing.assert_allclose(terms.sum(axis=2), expected, rtol=0, atol=error)
        np.testing.assert_allclose(
            weighted[i], np.linalg.norm(terms, axis=-1), rtol=1e-5, atol=1e-6
        )
        assert weighted[i].dtype == np.float32
