"""Encoders with rotary positions, in addition to the tests of all architectures: their options compared with
the oracle, and other names of their fields. Errors are tested in test_rotary_errors.py."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from simdformer import SentenceTransformer
from simdformer.cli import main
from simdformer.folder.loading import load_model
from tests.oracle.positions import rotary_inv_freq
from tests.support import assert_same_bits
from tests.support.model_fixtures import CLOSE
from tests.support.tiny_models import BY_NAME, ROTARY, TEXTS
from tests.support.tiny_rotary import (
    ALL,
    BY_LAYER_TYPE,
    EUROBERT,
    GEMMA3,
    GTE,
    LLAMA,
    LOCAL,
    MATRICES,
    MISTRAL,
    MODERNBERT,
    NEW,
    NOMIC_BERT,
    QWEN3,
    without,
)

pytestmark = pytest.mark.filterwarnings("ignore:texts longer than max_seq_length")

each = pytest.mark.parametrize("architecture", ROTARY, ids=lambda a: a.model_type)


def loaded(folder, architecture, config=None):
    files = {} if config is None else {"config.json": config}
    return SentenceTransformer(architecture.write(folder, files=files))


@each
def test_hidden_states_follow_the_oracle_at_every_level(tmp_path, architecture, active_isa):  # noqa: ARG001
    encoder = load_model(architecture.write(tmp_path / "m")).encoder.native()
    ids = [architecture.ids(text) for text in TEXTS]
    cu_seqlens = np.cumsum([0, *map(len, ids)])
    expected = np.concatenate([architecture.states(text) for text in TEXTS])
    np.testing.assert_allclose(encoder.encode(np.concatenate(ids), cu_seqlens), expected, **CLOSE)


# Options

BIASES = {"attention_bias": True, "mlp_bias": True}
OPTIONS = {
    "modernbert: biases": replace(
        MODERNBERT,
        norm_bias=True,
        biased=MATRICES,
        config={**MODERNBERT.config, **BIASES, "norm_bias": True},
    ),
    "modernbert: layers in another order": replace(
        MODERNBERT,
        layer_types=(LOCAL, ALL, ALL, LOCAL),
        config=MODERNBERT.config | {"layer_types": [LOCAL, ALL, ALL, LOCAL]},
    ),
    "modernbert: an odd window": replace(
        MODERNBERT, window=(2, 2), config=MODERNBERT.config | {"local_attention": 5}
    ),
    "nomic_bert: GeGLU": replace(
        NOMIC_BERT, activation="gelu", config=NOMIC_BERT.config | {"hidden_act": "gelu"}
    ),
    "gte: no token types": replace(
        GTE, num_token_types=0, config=GTE.config | {"type_vocab_size": 0}
    ),
    "qwen3: biases": replace(
        QWEN3, biased=MATRICES[:4], config=QWEN3.config | {"attention_bias": True}
    ),
    "llama: both ways": replace(
        LLAMA, everywhere=(-1, -1), config=LLAMA.config | {"is_causal": False}
    ),
    "llama: biases": replace(LLAMA, biased=MATRICES, config=LLAMA.config | BIASES),
    "mistral: both ways": replace(
        MISTRAL, everywhere=(5, 5), config=MISTRAL.config | {"is_causal": False}
    ),
    "mistral: no window": replace(
        MISTRAL, everywhere=(-1, 0), config=MISTRAL.config | {"sliding_window": None}
    ),
    "qwen3: the last layers see a window": replace(
        QWEN3,
        layer_types=(ALL, LOCAL),
        thetas=dict.fromkeys((ALL, LOCAL), 1e6),
        window=(2, 0),
        config={
            **QWEN3.config,
            "use_sliding_window": True,
            "sliding_window": 3,
            "max_window_layers": 1,
        },
    ),
    "qwen3: all layers see a window": replace(
        QWEN3,
        layer_types=(LOCAL, LOCAL),
        thetas={LOCAL: 1e6},
        window=(2, 0),
        config={
            **QWEN3.config,
            "use_sliding_window": True,
            "sliding_window": 3,
            "max_window_layers": 0,
        },
    ),
    "qwen3: layer_types say which layers see a window": replace(
        QWEN3,
        layer_types=(LOCAL, ALL),
        thetas=dict.fromkeys((ALL, LOCAL), 1e6),
        window=(2, 0),
        config=QWEN3.config | {"sliding_window": 3, "layer_types": [LOCAL, ALL]},
    ),
    "eurobert: biases, a key for each query": replace(
        EUROBERT,
        num_kv_heads=None,
        biased=MATRICES,
        config={**EUROBERT.config, **BIASES, "num_key_value_heads": None},
    ),
}


@pytest.mark.parametrize("architecture", OPTIONS.values(), ids=OPTIONS)
def test_an_option_follows_the_oracle(tmp_path, architecture):
    found = loaded(tmp_path / "m", architecture).encode(TEXTS)
    np.testing.assert_allclose(found, architecture.pooled(TEXTS), **CLOSE)
    plain = BY_NAME[architecture.model_type].pooled(TEXTS)
    assert np.abs(found - plain).max() > 1e-3  # the option changes the result


def test_a_text_within_the_window_is_unaffected_by_it(tmp_path):
    narrow = loaded(tmp_path / "narrow", MODERNBERT)
    wide = loaded(tmp_path / "wide", MODERNBERT, MODERNBERT.fields(local_attention=260))
    assert len(MODERNBERT.ids("abc")) == 1 + MODERNBERT.window[0]
    assert_same_bits(narrow.encode(["abc"]), wide.encode(["abc"]))
    assert np.abs(narrow.encode(TEXTS[0]) - wide.encode(TEXTS[0])).max() > 0.01


def scaled(definition, divisor, factor=1.0):
    layers = tuple(replace(layer, inv_freq=layer.inv_freq / divisor) for layer in definition.layers)
    return replace(definition, layers=layers, factor=factor)


# A factor of 1 does not change yarn's frequencies.
YARN = {
    "rope_type": "yarn",
    "factor": 1.0,
    "attention_factor": 1.5,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("scaling", "divisor", "factor"),
    [({"rope_type": "linear", "factor": 4.0}, 4.0, 1.0), (YARN, 1.0, 1.5)],
    ids=["linear", "yarn"],
)
@each
def test_scaled_positions_follow_the_oracle(tmp_path, architecture, scaling, divisor, factor):
    config = without(architecture.fields(), "rope_parameters")
    if architecture in BY_LAYER_TYPE:
        config["rope_parameters"] = dict.fromkeys((ALL, LOCAL), scaling)
    else:
        config["rope_parameters"] = {**scaling, "rope_theta": architecture.thetas[ALL]}
    unscaled = replace(architecture, inv_freq=rotary_inv_freq)
    expected = unscaled.pooled(TEXTS, definition=scaled(unscaled.definition(), divisor, factor))
    found = loaded(tmp_path / "m", architecture, config).encode(TEXTS)
    np.testing.assert_allclose(found, expected, **CLOSE)
    assert np.abs(expected - architecture.pooled(TEXTS)).max() > 1e-3


def test_a_plain_folder_of_a_causal_model_gives_the_last_tokens_vector(tmp_path):
    config = QWEN3.fields(architectures=["Qwen3ForCausalLM"])
    bare = {"modules.json": None, "1_Pooling/config.json": None, "sentence_bert_config.json": None}
    model = SentenceTransformer(QWEN3.write(tmp_path / "m", files={"config.json": config} | bare))
    expected = [QWEN3.states(text)[-1] for text in TEXTS[:2]]
    np.testing.assert_allclose(model.encode(TEXTS[:2]), expected, **CLOSE)


def test_a_bidirectional_model_derived_from_a_causal_one_averages_its_tokens(tmp_path):
    config = EUROBERT.fields(architectures=["EuroBertForCausalLM"], is_causal=False)
    bare = {"modules.json": None, "1_Pooling/config.json": None, "sentence_bert_config.json": None}
    model = SentenceTransformer(
        EUROBERT.write(tmp_path / "m", files={"config.json": config} | bare)
    )
    np.testing.assert_allclose(model.encode(TEXTS[:2]), EUROBERT.pooled(TEXTS[:2]), **CLOSE)


# Spellings

GPT2 = {
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
}
HALF = {"rope_type": "linear", "factor": 2.0}
OLD_THETA = {"rope_theta": 250000.0}
# The architecture, the other names in its config.json, and these.
SPELLINGS = {
    "modernbert": (
        MODERNBERT,
        ("rope_parameters", "layer_types"),
        {
            "global_rope_theta": 160000.0,
            "local_rope_theta": 10000.0,
            "global_attn_every_n_layers": 3,
        },
    ),
    "modernbert: nothing": (MODERNBERT, ("rope_parameters", "layer_types", "norm_eps"), {}),
    "nomic_bert": (
        NOMIC_BERT,
        (*GPT2.values(), "rope_parameters"),
        {old: NOMIC_BERT.fields()[new] for old, new in GPT2.items()}
        | {"rotary_emb_base": 1000, "activation_function": "swiglu", "prenorm": False},
    ),
    "new": (
        NEW,
        ("rope_parameters",),
        {
            "layer_norm_type": "layer_norm",
            "pack_qkv": True,
            "position_embedding_type": "rope",
            "rope_scaling": {"type": "ntk", "factor": 2.0},
            "rope_theta": 20000.0,
        },
    ),
    "nomic_bert: both": (
        NOMIC_BERT,
        (),
        {old: NOMIC_BERT.fields()[new] for old, new in GPT2.items()},
    ),
    "nomic_bert: nothing": (
        NOMIC_BERT,
        ("rope_parameters", "layer_norm_eps", "type_vocab_size"),
        {},
    ),
    "gte": (GTE, ("rope_parameters",), {"rope_theta": 160000, "rope_scaling": None}),
    "gte: nothing": (GTE, ("rope_parameters", "layer_norm_eps", "type_vocab_size"), {}),
    "qwen3": (
        QWEN3,
        ("rope_parameters",),
        {
            "rope_theta": 1000000,
            "rope_scaling": None,
            "sliding_window": None,
            "use_sliding_window": False,
            "max_window_layers": 28,
        },
    ),
    "qwen3: a type without its theta": (
        QWEN3,
        (),
        {"rope_parameters": {"rope_type": "default"}, "rope_theta": 1000000.0},
    ),
    "eurobert": (EUROBERT, ("rope_parameters", "rms_norm_eps"), OLD_THETA),
}


@pytest.mark.parametrize(("architecture", "left_out", "said"), SPELLINGS.values(), ids=SPELLINGS)
def test_another_spelling_has_the_same_meaning(tmp_path, architecture, left_out, said):
    config = without(architecture.fields(), *left_out) | said
    expected = loaded(tmp_path / "new", architecture).encode(TEXTS)
    assert_same_bits(loaded(tmp_path / "old", architecture, config).encode(TEXTS), expected)


def test_info_shows_sizes_by_nomic_embed_texts_names(tmp_path, capsys):
    _, left_out, said = SPELLINGS["nomic_bert"]
    files = {"config.json": without(NOMIC_BERT.fields(), *left_out) | said}
    assert main(["info", str(NOMIC_BERT.write(tmp_path / "m", files=files)), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["model"]
    assert shown | {old: said[old] for old in GPT2 if old != "layer_norm_epsilon"} == shown


@each
def test_rope_scaling_has_the_same_meaning_as_rope_parameters(tmp_path, architecture):
    config = without(architecture.fields(), "rope_parameters")
    thetas = {kind: {**HALF, "rope_theta": theta} for kind, theta in architecture.thetas.items()}
    if architecture is GEMMA3:  # the old form applies to the layers that see all tokens
        del thetas[LOCAL]["rope_type"], thetas[LOCAL]["factor"]
    new = {"rope_parameters": thetas if architecture in BY_LAYER_TYPE else thetas[ALL]}
    # ModernBERT was released after "type" was renamed to "rope_type".
    kind = "rope_type" if architecture is MODERNBERT else "type"
    old = {
        "rope_scaling": {kind: "linear", "factor": 2.0},
        "rope_theta": architecture.thetas[ALL],
    }
    expected = loaded(tmp_path / "new", architecture, config | new).encode(TEXTS)
    assert_same_bits(loaded(tmp_path / "old", architecture, config | old).encode(TEXTS), expected)
    assert np.abs(expected - loaded(tmp_path / "m", architecture).encode(TEXTS)).max() > 1e-3
