"""Planted heads are found, and the effect of switching heads off."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import CrossEncoder, SentenceTransformer
from simdformer.explain import (
    attention_entropy,
    attention_patterns,
    head_ablation,
    head_importance,
)
from simdformer.explain.embedded import EmbeddedText
from simdformer.explain.heads import embed_without_heads
from simdformer.functional import relative_position_matrix, sinusoidal_position_encoding
from tests.support import assert_same_bits
from tests.support.bert_weights import random_weights
from tests.support.model_fixtures import TINY, write_cross_encoder, write_model
from tests.support.tiny_models import ARCHITECTURES

LAYERS, HEADS = TINY.num_layers, TINY.num_heads
WIDTH = TINY.hidden_size // HEADS
TEXT, OTHER = "the quick brown fox", "a lazy dog"

# Cosines of float32 embeddings, which are of order one.
CLOSE = {"rtol": 0, "atol": 1e-6}


def head_rows(head):
    return slice(head * WIDTH, (head + 1) * WIDTH)


def planted_weights(previous, uniform):
    """Weights of a model that uses positions only: sinusoids and their negatives, which LayerNorm only
    scales. One head of layer 0 rotates its queries back by one position, another one has zero queries."""
    weights = {name: array.copy() for name, array in random_weights().items()}
    half = sinusoidal_position_encoding(TINY.max_positions, TINY.hidden_size // 2, base=50.0)
    for name in ("word", "token_type"):
        weights[f"embeddings.{name}_embeddings.weight"][:] = 0
    weights["embeddings.position_embeddings.weight"] = np.hstack([half, -half])
    weights["embeddings.LayerNorm.weight"][:] = 1
    weights["embeddings.LayerNorm.bias"][:] = 0
    stem = "encoder.layer.0.attention.self"
    back = relative_position_matrix(-1, TINY.hidden_size // 2, base=50.0)[:WIDTH]
    for name, rows in (("query", 100 * back), ("key", np.eye(WIDTH, TINY.hidden_size // 2))):
        weights[f"{stem}.{name}.weight"][head_rows(previous)] = np.hstack([rows, 0 * rows])
        weights[f"{stem}.{name}.bias"][head_rows(previous)] = 0
    weights[f"{stem}.query.weight"][head_rows(uniform)] = 0
    weights[f"{stem}.query.bias"][head_rows(uniform)] = 0
    return weights


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted") / "m"
    return SentenceTransformer(write_model(folder, weights=planted_weights(2, 3)))


def test_a_planted_previous_token_head_is_found(planted):
    output = planted.outputs(TEXT, output_attentions=True)
    previous = attention_patterns(output.attentions, output.input_ids)["previous"]
    assert previous[0, 2] > 0.99
    assert np.delete(previous.reshape(-1), 2).max() < 0.6


def test_a_uniform_head_is_not_a_previous_token_head(planted):
    output = planted.outputs(TEXT, output_attentions=True)
    n = len(output.tokens)
    previous = attention_patterns(output.attentions)["previous"][0, 3]
    entropy = attention_entropy(output.attentions, normalize=True)
    np.testing.assert_allclose(previous, 1 / n, rtol=1e-5)
    np.testing.assert_allclose(entropy[0, 3], 1, rtol=1e-5)
    assert entropy[0, 2] < 0.05


def cosine(a, b):
    a, b = a.astype(float), b.astype(float)
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def head_off(layer, head):
    mask = np.ones((LAYERS, HEADS), np.float32)
    mask[layer, head] = 0
    return mask


def test_importance_is_the_change_of_embeddings_without_the_head(model):
    texts = [TEXT, OTHER, ""]
    found = head_importance(model, texts)
    full = model.encode(texts)
    for layer, head in np.ndindex(LAYERS, HEADS):
        outputs = model.outputs(texts, head_mask=head_off(layer, head))
        off = np.array([output.sentence_embedding for output in outputs])
        np.testing.assert_allclose(found[layer, head], (1 - cosine(off, full)).mean(), **CLOSE)
    assert found.min() > 1e-4


def test_a_head_that_nothing_reads_has_no_importance(tmp_path):
    weights = random_weights()
    name = "encoder.layer.1.attention.output.dense.weight"
    weights[name] = weights[name].copy()
    weights[name][:, head_rows(3)] = 0
    model = SentenceTransformer(write_model(tmp_path / "m", weights=weights))
    for ablation in ("zero", "mean"):
        importance = head_importance(model, TEXT, ablation=ablation)
        assert importance[1, 3] < 1e-7
        assert np.delete(importance.reshape(-1), HEADS + 3).min() > 1e-6


def test_mean_ablation_puts_the_heads_mean_in_its_place(model, tmp_path):
    """The result is that of a model whose projection does not read the head, with the contribution of the
    mean in its bias."""
    found = head_importance(model, [TEXT, OTHER], ablation="mean")
    full = model.encode([TEXT, OTHER])
    outputs = model.outputs([TEXT, OTHER], output_head_outputs=True)
    for layer, head in np.ndindex(LAYERS, HEADS):
        mean = np.concatenate([output.head_outputs[layer][:, head] for output in outputs]).mean(0)
        weights = random_weights()
        stem = f"encoder.layer.{layer}.attention.output.dense"
        weight = weights[f"{stem}.weight"].copy()
        weights[f"{stem}.bias"] = weights[f"{stem}.bias"] + weight[:, head_rows(head)] @ mean
        weight[:, head_rows(head)] = 0
        weights[f"{stem}.weight"] = weight
        folder = write_model(tmp_path / f"{layer}{head}", weights=weights)
        expected = (1 - cosine(SentenceTransformer(folder).encode([TEXT, OTHER]), full)).mean()
        np.testing.assert_allclose(found[layer, head], expected, **CLOSE)


@pytest.mark.parametrize("ablation", ["zero", "mean"])
@pytest.mark.parametrize("compute_type", ["bfloat16", "int8"])
def test_importance_in_other_compute_types_is_close(model, ablation, compute_type):
    narrow = SentenceTransformer(model.name_or_path, compute_type=compute_type)
    found = head_importance(narrow, TEXT, ablation=ablation)
    np.testing.assert_allclose(found, head_importance(model, TEXT, ablation=ablation), atol=0.02)


def test_heads_switched_off_in_one_batch_have_the_bits_of_one_by_one(model):
    text = EmbeddedText.of(model, TEXT)
    together = embed_without_heads(text)
    for layer, head in np.ndindex(LAYERS, HEADS):
        alone = model.outputs(TEXT, head_mask=head_off(layer, head)).sentence_embedding
        assert_same_bits(together[layer, head].astype(np.float32), alone)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.model_type)
@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_importance_does_not_change_the_model(tmp_path, architecture, ablation):
    model = SentenceTransformer(architecture.write(tmp_path / "m"))
    before = model.encode(TEXT)
    importance = head_importance(model, TEXT, ablation=ablation)
    assert np.isfinite(importance).all()
    assert importance.max() > 0
    assert_same_bits(model.encode(TEXT), before)


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_ablation_is_the_change_of_the_models_similarity(tmp_path, similarity):
    model = SentenceTransformer(write_model(tmp_path / "m"), similarity_fn_name=similarity)
    found = head_ablation(model, TEXT, OTHER)
    before = model.similarity(*model.encode([TEXT, OTHER])).item()
    for layer, head in np.ndindex(LAYERS, HEADS):
        a, b = model.outputs([TEXT, OTHER], head_mask=head_off(layer, head))
        after = model.similarity(a.sentence_embedding, b.sentence_embedding).item()
        np.testing.assert_allclose(found[layer, head], after - before, rtol=0, atol=2e-5)


def test_prompts_are_put_before_their_texts(tmp_path):
    folder = write_model(tmp_path / "m")
    prompts = {"q": "quick ", "d": "lazy "}
    model = SentenceTransformer(folder, prompts=prompts)
    found = head_ablation(model, "fox", "dog", prompt_name="q", prompt_name2="d")
    np.testing.assert_array_equal(found, head_ablation(model, "quick fox", "lazy dog"))
    turns = head_importance(model, "fox", prompt_name="q")
    np.testing.assert_array_equal(turns, head_importance(model, "quick fox"))


def test_an_unknown_ablation_is_refused(model):
    with pytest.raises(ValueError, match="unknown ablation 'median'; known: zero, mean"):
        head_importance(model, TEXT, ablation="median")


def test_no_texts_are_refused(model):
    with pytest.raises(ValueError, match="texts must hold at least one text"):
        head_importance(model, [])


def test_another_kind_of_model_is_refused(tmp_path):
    model = CrossEncoder(write_cross_encoder(tmp_path / "m"))
    with pytest.raises(TypeError, match="model must be a SentenceTransformer, got CrossEncoder"):
        head_importance(model, TEXT)


def test_an_input_that_is_not_a_text_is_refused_by_its_argument(model):
    with pytest.raises(TypeError, match=r"texts\[1\] must be a str, got int"):
        head_importance(model, [TEXT, 3])
    with pytest.raises(TypeError, match="text2 must be a str, got list"):
        head_ablation(model, TEXT, [OTHER])
