"""`outputs` and `encode(output_value=None)`: intermediate results compared with the oracle; they do not
change other results. test_outputs_parity.py compares every architecture with transformers."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import CrossEncoder, ModelOutput, SentenceTransformer
from tests import oracle
from tests.support import assert_same_bits
from tests.support.bert_weights import random_weights
from tests.support.model_fixtures import (
    CLOSE,
    PAIRS,
    TINY,
    expected_states,
    letter_ids,
    write_cross_encoder,
    write_model,
)
from tests.support.tiny_models import ARCHITECTURES, BY_NAME, TEXTS

pytestmark = pytest.mark.filterwarnings("ignore:texts longer than max_seq_length")

EVERYTHING = {
    "output_attentions": True,
    "output_hidden_states": True,
    "output_head_outputs": True,
}
TEXT = "the quick brown fox"
each = pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.model_type)
each_type = pytest.mark.parametrize("compute_type", ["float32", "bfloat16", "int8"])
HEAD_DIM = TINY.hidden_size // TINY.num_heads


def expected_layers(text):
    """The oracle's hidden states, attentions and heads' outputs, layer by layer."""
    w, ids = random_weights(), np.array(letter_ids(text))
    cu = np.array([0, len(ids)])
    states = [oracle.bert_embeddings(ids, w, cu)]
    attentions, outputs = [], []
    for i in range(TINY.num_layers):
        stem = f"encoder.layer.{i}.attention.self"
        q, k, v = (
            oracle.linear(states[-1], w[f"{stem}.{name}.weight"], w[f"{stem}.{name}.bias"])
            .reshape(len(ids), TINY.num_heads, HEAD_DIM)
            .transpose(1, 0, 2)
            for name in ("query", "key", "value")
        )
        attentions.append(oracle.softmax(q @ k.transpose(0, 2, 1) / np.sqrt(HEAD_DIM)))
        outputs.append((attentions[-1] @ v).transpose(1, 0, 2))
        states.append(
            oracle.bert_layer(
                states[-1],
                w,
                f"encoder.layer.{i}",
                cu,
                TINY.num_heads,
                activation=TINY.activation,
            )
        )
    return states, attentions, outputs


# Against the oracle


@pytest.mark.parametrize("text", ["", "a cab", TEXT * 5])
def test_all_layers_follow_the_oracle(model, text):
    output = model.outputs(text, **EVERYTHING)
    found = output.hidden_states, output.attentions, output.head_outputs
    for ours, theirs in zip(found, expected_layers(text), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == np.float32
            np.testing.assert_allclose(a, b, **CLOSE)


def test_a_head_with_factor_zero_adds_nothing(model, tmp_path):
    """The result is that of a model whose output projection does not read that head."""
    weights = random_weights()
    name = "encoder.layer.1.attention.output.dense.weight"
    weights[name] = weights[name].copy()
    weights[name][:, HEAD_DIM : 2 * HEAD_DIM] = 0
    mask = np.ones((TINY.num_layers, TINY.num_heads))
    mask[1, 1] = 0
    output = model.outputs(TEXT, **EVERYTHING, head_mask=mask)
    np.testing.assert_allclose(output.last_hidden_state, expected_states(TEXT, weights), **CLOSE)
    assert not output.head_outputs[1][:, 1].any()
    assert not output.attentions[1][1].any()
    pruned = SentenceTransformer(write_model(tmp_path / "m", weights=weights))
    np.testing.assert_allclose(output.sentence_embedding, pruned.encode(TEXT), **CLOSE)


def test_one_row_of_factors_applies_to_all_layers(model):
    row = np.linspace(0.5, 2, TINY.num_heads)
    rows = np.broadcast_to(row, (TINY.num_layers, TINY.num_heads))
    found, expected = (model.outputs(TEXT, head_mask=mask) for mask in (row, rows))
    assert_same_bits(found.last_hidden_state, expected.last_hidden_state)
    assert np.abs(found.last_hidden_state - expected_states(TEXT)).max() > 1e-3


def test_tokens_and_ids_are_the_texts(model):
    output = model.outputs("a cab")
    assert isinstance(output, ModelOutput)
    assert output.tokens == ("[CLS]", "a", "c", "##a", "##b", "[SEP]")
    assert output.input_ids.tolist() == letter_ids("a cab")
    assert output.input_ids.dtype == output.token_type_ids.dtype == np.int64
    assert not output.token_type_ids.any()


# Other results do not change


@each_type
@each
def test_requested_outputs_change_no_bit(tmp_path, architecture, compute_type):
    folder = architecture.write(tmp_path / "m")
    model = SentenceTransformer(folder, compute_type=compute_type, num_threads=2)
    vectors = model.encode(TEXTS)
    tokens = model.encode(TEXTS, output_value="token_embeddings")
    layers, heads = len(model.outputs("a", output_attentions=True).attentions), 0
    heads = len(model.outputs("a", output_attentions=True).attentions[0])
    plain = model.outputs(TEXTS, **EVERYTHING)
    masked = model.outputs(TEXTS, **EVERYTHING, head_mask=np.ones((layers, heads)))
    for outputs in (plain, masked):
        for output, vector, states in zip(outputs, vectors, tokens, strict=True):
            assert_same_bits(output.sentence_embedding, vector)
            assert_same_bits(output.last_hidden_state, states)
            assert_same_bits(output.hidden_states[-1], states)
    for a, b in zip(plain, masked, strict=True):
        for layer in range(layers):
            assert_same_bits(a.attentions[layer], b.attentions[layer])
            assert_same_bits(a.head_outputs[layer], b.head_outputs[layer])


@each_type
@each
def test_weights_of_a_query_add_up_to_one(tmp_path, architecture, compute_type):
    model = SentenceTransformer(architecture.write(tmp_path / "m"), compute_type=compute_type)
    for output in model.outputs(TEXTS, output_attentions=True):
        for weights in output.attentions:
            assert weights.shape[1:] == (len(output.tokens),) * 2
            assert (weights >= 0).all()
            np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=0, atol=2e-6)


@each_type
def test_a_causal_models_weights_are_zero_behind_the_query(tmp_path, compute_type):
    folder = BY_NAME["qwen3"].write(tmp_path / "m")
    model = SentenceTransformer(folder, compute_type=compute_type)
    for weights in model.outputs(TEXT, output_attentions=True).attentions:
        assert not np.triu(weights, 1).any()
        assert np.tril(weights).any()


@each_type
def test_threads_and_batches_change_no_bit(tmp_path, compute_type):
    folder = write_model(tmp_path / "m")
    one = SentenceTransformer(folder, compute_type=compute_type, num_threads=1)
    two = SentenceTransformer(folder, compute_type=compute_type, num_threads=2)
    for text, among in zip(TEXTS, two.outputs(TEXTS, **EVERYTHING), strict=True):
        alone = one.outputs(text, **EVERYTHING)
        for name in ("hidden_states", "attentions", "head_outputs"):
            for a, b in zip(getattr(alone, name), getattr(among, name), strict=True):
                assert_same_bits(a, b)


# Requested and other outputs


def test_only_requested_outputs_are_returned(model):
    output = model.outputs("a")
    assert output.attentions is output.hidden_states is output.head_outputs is None
    assert output.logits is None


def test_layers_and_heads_are_selected_by_number(model):
    everything = model.outputs(TEXT, **EVERYTHING)
    chosen = model.outputs(TEXT, output_attentions={-1: [1, 0]}, output_head_outputs=[0])
    assert chosen.attentions[0] is chosen.head_outputs[1] is None
    assert_same_bits(chosen.attentions[1], everything.attentions[1][[1, 0]])
    assert_same_bits(chosen.head_outputs[0], everything.head_outputs[0])
    layer = model.outputs(TEXT, output_attentions=[0]).attentions
    assert layer[1] is None
    assert_same_bits(layer[0], everything.attentions[0])
    mixed = model.outputs(TEXT, output_attentions={0: True, 1: [1]}).attentions
    assert_same_bits(mixed[0], everything.attentions[0])
    assert_same_bits(mixed[1], everything.attentions[1][[1]])


def test_no_texts_give_no_outputs(model):
    assert model.outputs([], **EVERYTHING) == []
    assert model.encode([], output_value=None) == []


def test_prompts_and_truncation_are_those_of_encode(tmp_path):
    model = SentenceTransformer(
        write_model(tmp_path / "m"), prompts={"q": "quick "}, truncate_dim=7
    )
    for include in (True, False):
        model.set_pooling_include_prompt(include)
        found = model.outputs(TEXT, prompt_name="q").sentence_embedding
        assert_same_bits(found, model.encode(TEXT, prompt_name="q"))
        assert found.shape == (7,)


def test_tokens_are_counted_as_in_encode(tmp_path):
    model = SentenceTransformer(write_model(tmp_path / "m"))
    model.outputs(["a cab", "z"], output_attentions=True)
    assert model.num_tokens == len(letter_ids("a cab")) + len(letter_ids("z"))


# encode(output_value=None)


@each_type
def test_the_dict_of_each_text_contains_the_results_of_encode(tmp_path, compute_type):
    model = SentenceTransformer(write_model(tmp_path / "m"), compute_type=compute_type)
    found = model.encode(TEXTS, output_value=None, output_hidden_states=True)
    vectors = model.encode(TEXTS)
    tokens = model.encode(TEXTS, output_value="token_embeddings")
    for text, features, vector, states in zip(TEXTS, found, vectors, tokens, strict=True):
        assert features["modality"] == "text"
        ids = letter_ids(text, 100) if "<" not in text else features["input_ids"].tolist()
        assert features["input_ids"].tolist() == ids
        assert features["attention_mask"].tolist() == [1] * len(ids)
        assert_same_bits(features["sentence_embedding"], vector)
        assert_same_bits(features["token_embeddings"], states)
        layers = model.outputs(text, output_hidden_states=True).hidden_states
        for a, b in zip(features["all_layer_embeddings"], layers, strict=True):
            assert_same_bits(a, b)


def test_a_str_gives_one_dict_and_a_prompt_its_length(model):
    features = model.encode("a cab", output_value=None, prompt="deed ", truncate_dim=3)
    assert features["prompt_length"] == len(letter_ids("deed")) - 1
    assert features["sentence_embedding"].shape == (3,)
    assert "all_layer_embeddings" not in features


# Pairs


@each_type
def test_a_pairs_logits_are_those_of_predict(tmp_path, compute_type):
    model = CrossEncoder(write_cross_encoder(tmp_path / "m", 3), compute_type=compute_type)
    logits = model.predict(PAIRS, activation_fn="torch.nn.Identity")
    for outputs in (
        model.outputs(PAIRS, **EVERYTHING),
        model.outputs(PAIRS, head_mask=np.ones(TINY.num_heads)),
    ):
        for output, expected in zip(outputs, logits, strict=True):
            assert_same_bits(output.logits, expected)
            assert output.sentence_embedding is None


def test_a_pair_shows_its_tokens_and_their_types(tmp_path):
    model = CrossEncoder(write_cross_encoder(tmp_path / "m"))
    output = model.outputs(("ab", "c"), **EVERYTHING)
    assert output.tokens == ("[CLS]", "a", "##b", "[SEP]", "c", "[SEP]")
    assert output.token_type_ids.tolist() == [0, 0, 0, 0, 1, 1]
    assert output.attentions[0].shape == (TINY.num_heads, 6, 6)
