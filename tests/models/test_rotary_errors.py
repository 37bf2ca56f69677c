"""Errors for config.json and tensors of encoders with rotary positions, and the names in them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from simdformer import SentenceTransformer
from simdformer.folder.loading import load_model
from tests.support.tiny_models import ROTARY
from tests.support.tiny_rotary import (
    ALL,
    BY_LAYER_TYPE,
    EUROBERT,
    GEMMA3,
    GTE,
    LOCAL,
    MODERNBERT,
    NEW,
    NOMIC_BERT,
    QWEN3,
    without,
)

each = pytest.mark.parametrize("architecture", ROTARY, ids=lambda a: a.model_type)


def refused(folder, architecture, config, match):
    files = {"config.json": config}
    with pytest.raises(ValueError, match=match):
        SentenceTransformer(architecture.write(folder, files=files))


# config.json


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"num_key_value_heads": 4, "num_attention_heads": 6, "head_dim": 4}, "num_attention_heads=6 is not a multiple of num_key_value_heads=4"),
        ({"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": None}, "hidden_size=20 is not a multiple of num_attention_heads=3"),
        ({"head_dim": 5}, "head_dim must be even to be rotated, got 5"),
        ({"hidden_size": 0}, "hidden_size must be an int in 1"),
        ({"max_position_embeddings": 2**31 - 1}, "max_position_embeddings=2147483647 with head_dim="),
        ({"rope_parameters": "x", "rope_scaling": None}, "rope_parameters must be an object, got 'x'"),
        ({"rope_scaling": "linear"}, "rope_scaling must be an object, got 'linear'"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
@each
def test_invalid_values_of_a_field_are_refused_by_name(tmp_path, architecture, changes, match):
    # null means the value of num_attention_heads, even if the default is another number.
    config = without(architecture.fields(), "head_dim") | {"num_key_value_heads": None} | changes
    refused(tmp_path / "m", architecture, config, f"config.json: {match}")


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"rope_type": "dynamic", "factor": 2.0}, "rope_type 'dynamic' is not supported: a text's"),
        ({"type": "dynamic", "factor": 2.0}, "rope_type 'dynamic' is not supported: a text's"),
        ({"rope_type": "ntk"}, "rotary positions: scaling of rope_type 'ntk' lacks factor"),
        ({"rope_type": "log"}, "rotary positions: unknown rope_type 'log'; known: default, linear"),
        ({"rope_type": "linear"}, "rotary positions: scaling of rope_type 'linear' lacks factor"),
        ({"rope_type": "linear", "factor": "2"}, "rotary positions: "),
        ({"rope_type": "linear", "factor": 0.5}, "rotary positions: .*factor must be >= 1, got 0.5"),
        ({"rope_type": "default", "rope_theta": 0}, "rotary positions: base must be positive, got 0"),
        ({"rope_type": "default", "rope_theta": "x"}, "rotary positions: "),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is not supported"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
@each
def test_invalid_rotations_are_refused_by_name(tmp_path, architecture, parameters, match):
    given = {"rope_theta": 1000.0} | parameters
    if architecture in BY_LAYER_TYPE:
        given = {ALL: given}
    config = architecture.fields(rope_parameters=given)
    refused(tmp_path / "m", architecture, config, f"config.json: {match}")


@pytest.mark.parametrize(
    ("architecture", "changes", "match"),
    [
        (MODERNBERT, {"layer_types": [ALL, LOCAL]}, "layer_types must be a list of 4 names, got "),
        (MODERNBERT, {"layer_types": ALL}, "layer_types must be a list of 4 names, got 'full_att"),
        (MODERNBERT, {"layer_types": [ALL, LOCAL, LOCAL, "linear"]}, "unknown layer_types 'linear'; known: 'full_attention', 'sliding_attention'"),
        (MODERNBERT, {"local_attention": 0}, "local_attention must be an int in 1"),
        (MODERNBERT, {"layer_types": None, "global_attn_every_n_layers": 0}, "global_attn_every_n_layers must be an int in 1"),
        (MODERNBERT, {"rope_parameters": None, "global_rope_theta": -1}, "global_rope_theta must be a finite number above 0, got -1"),
        (MODERNBERT, {"rope_parameters": {LOCAL: 3}}, "rope_parameters must be an object, got 3"),
        (MODERNBERT, {"rope_parameters": {"rope_theta": 1e4}}, "unknown members of rope_parameters: 'rope_theta'; known: 'full_attention', 'sliding_attention'"),
        (GEMMA3, {"rope_parameters": {"rope_theta": 1e4}}, "unknown members of rope_parameters: 'rope_theta'"),
        (MODERNBERT, {"hidden_activation": "mish"}, "unknown hidden_activation 'mish'; known"),
        (MODERNBERT, {"norm_eps": 0}, "norm_eps must be a finite number above 0, got 0"),
        (MODERNBERT, {"norm_bias": "yes"}, "norm_bias must be true or false, got 'yes'"),
        (MODERNBERT, {"attention_bias": 1}, "attention_bias must be true or false, got 1"),
        (MODERNBERT, {"mlp_bias": "false"}, "mlp_bias must be true or false, got 'false'"),
        (NOMIC_BERT, {"activation_function": "relu"}, "unknown activation_function 'relu'; known: 'swiglu', 'gelu'"),
        (NOMIC_BERT, {"causal": True}, "unknown causal True; known: False"),
        (NOMIC_BERT, {"mlp_fc1_bias": True}, "unknown mlp_fc1_bias True; known: False"),
        (NOMIC_BERT, {"mlp_fc2_bias": True}, "unknown mlp_fc2_bias True; known: False"),
        (NOMIC_BERT, {"num_experts": 8}, "unknown num_experts 8; known: 0"),
        (NOMIC_BERT, {"parallel_block": True}, "unknown parallel_block True; known: False"),
        (NOMIC_BERT, {"prenorm": True}, "unknown prenorm True; known: False"),
        (NOMIC_BERT, {"qkv_proj_bias": True}, "unknown qkv_proj_bias True; known: False"),
        (NOMIC_BERT, {"rotary_emb_fraction": 0.5}, "unknown rotary_emb_fraction 0.5; known: 1.0"),
        (NOMIC_BERT, {"rotary_emb_interleaved": True}, "unknown rotary_emb_interleaved True; known: False"),
        (NOMIC_BERT, {"rotary_emb_scale_base": 512}, "unknown rotary_emb_scale_base 512; known: None"),
        (NOMIC_BERT, {"rotary_scaling_factor": 2}, "unknown rotary_scaling_factor 2; known: None"),
        (NOMIC_BERT, {"use_rms_norm": True}, "unknown use_rms_norm True; known: False"),
        (NOMIC_BERT, {"type_vocab_size": 0}, "type_vocab_size must be an int in 1"),
        (NEW, {"layer_norm_type": "rms_norm"}, "unknown layer_norm_type 'rms_norm'; known: 'layer_norm'"),
        (NEW, {"logn_attention_scale": True}, "unknown logn_attention_scale True; known: False"),
        (GTE, {"type_vocab_size": 2}, r"\(type_vocab_size=2, hidden_size=20\) needs \(2, 20\)"),
        (QWEN3, {"partial_rotary_factor": 0.5}, "partial_rotary_factor is not supported"),
        (QWEN3, {"is_causal": 0}, "is_causal must be true or false, got 0"),
        (QWEN3, {"attention_bias": "no"}, "attention_bias must be true or false, got 'no'"),
        (QWEN3, {"use_sliding_window": 1}, "use_sliding_window must be true or false, got 1"),
        (QWEN3, {"use_sliding_window": True, "max_window_layers": -1}, "max_window_layers must be an int in 0"),
        (QWEN3, {"use_sliding_window": True, "max_window_layers": 0, "sliding_window": 0}, "sliding_window must be an int in 1"),
        (QWEN3, {"layer_types": [LOCAL, ALL], "sliding_window": None}, "sliding_window is missing"),
        (QWEN3, {"layer_types": [ALL]}, "layer_types must be a list of 2 names, got "),
        (QWEN3, {"head_dim": 16}, r"'layers.0.self_attn.\w+.weight' .* \(.*head_dim=(16|96)"),
        (EUROBERT, {"num_key_value_heads": 2}, r"k_proj.weight' .* \(num_key_value_heads \* head_dim=20, hidden_size=20\) needs \(20, 20\)"),
        (EUROBERT, {"attention_bias": 0}, "attention_bias must be true or false, got 0"),
    ],
    ids=lambda value: getattr(value, "model_type", None) or str(value)[:40],
)  # fmt: skip
def test_an_invalid_field_is_refused_by_name(tmp_path, architecture, changes, match):
    refused(tmp_path / "m", architecture, architecture.fields(**changes), match)


# Tensors


@each
def test_each_tensor_that_is_missing_is_named(tmp_path, architecture):
    weights = architecture.renamed(architecture.weights())
    for name in weights:
        rest = {other: tensor for other, tensor in weights.items() if other != name}
        match = f"tensor '{re.escape(name)}' is missing from the checkpoint .* needs it with shape"
        with pytest.raises(ValueError, match=match):
            load_model(architecture.write(tmp_path, weights=rest))


@each
def test_each_tensor_of_another_shape_is_named_with_both(tmp_path, architecture):
    weights = architecture.renamed(architecture.weights())
    for name, tensor in weights.items():
        found, needed = (re.escape(str(x.shape)) for x in (tensor[1:], tensor))
        match = f"'{re.escape(name)}' in model.safetensors has shape {found}; .* needs {needed}"
        with pytest.raises(ValueError, match=match):
            load_model(architecture.write(tmp_path, weights=weights | {name: tensor[1:]}))


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        (MODERNBERT, "layers.1.attn.Wqkv.bias"),
        (MODERNBERT, "layers.0.attn_norm.weight"),
        (MODERNBERT, "final_norm.bias"),
        (NOMIC_BERT, "encoder.layers.0.mlp.fc11.bias"),
        (NOMIC_BERT, "encoder.layers.2.norm1.bias"),
        (GTE, "encoder.layer.0.mlp.up_gate_proj.bias"),
        (QWEN3, "layers.0.self_attn.q_proj.bias"),
        (EUROBERT, "layers.0.self_attn.q_norm.weight"),
    ],
    ids=lambda value: getattr(value, "model_type", value),
)
def test_a_tensor_that_contradicts_config_json_is_named(tmp_path, architecture, name):
    weights = architecture.renamed(architecture.weights())
    extra = {name: np.ones(20, np.float32)}
    match = f"1 tensors do not belong .* are ignored: '{re.escape(name)}'"
    with pytest.warns(UserWarning, match=match):
        load_model(architecture.write(tmp_path, weights=weights | extra))


# Positions


@each
def test_a_sequence_longer_than_max_position_embeddings_is_refused(tmp_path, architecture):
    encoder = load_model(architecture.write(tmp_path / "m")).encoder.native()
    ids = np.zeros(131, np.int32)
    assert encoder.max_positions == 130
    assert encoder.encode(ids[:130], [0, 130]).shape == (130, 20)
    with pytest.raises(ValueError, match="has 131 tokens, the model serves 130 positions"):
        encoder.encode(ids, [0, 131])


@each
def test_a_limit_beyond_max_position_embeddings_is_refused(tmp_path, architecture):
    model = SentenceTransformer(architecture.write(tmp_path / "m"))
    with pytest.raises(ValueError, match="must be at most 130, the model's positions, got 131"):
        model.max_seq_length = 131
