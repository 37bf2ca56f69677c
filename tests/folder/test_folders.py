"""The possible contents of a model's folder, on tiny models: modules, checkpoints and tokenizers, each
compared with the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from simdformer import SentenceTransformer
from tests import oracle
from tests.support import assert_same_bits
from tests.support.model_fixtures import (
    CLOSE,
    NEW_TYPES,
    OLD_TYPES,
    TEXTS,
    TINY,
    config_json,
    letter_ids,
    pooled,
    write_dense,
    write_files,
    write_model,
)
from tests.support.tiny_bert import random_weights
from tests.support.torch_files import write_torch

# Pooling and the modules after it


@pytest.mark.parametrize(
    ("old", "mode"),
    [
        ("pooling_mode_cls_token", "cls"),
        ("pooling_mode_max_tokens", "max"),
        ("pooling_mode_mean_tokens", "mean"),
        ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
        ("pooling_mode_weightedmean_tokens", "weightedmean"),
        ("pooling_mode_lasttoken", "lasttoken"),
    ],
)
def test_each_pooling_mode_in_both_formats(tmp_path, old, mode):
    for types, config in (
        (OLD_TYPES, {"word_embedding_dimension": 20, "pooling_mode_mean_tokens": False, old: True}),
        (NEW_TYPES, {"embedding_dimension": 20, "pooling_mode": mode}),
    ):
        folder = write_model(
            tmp_path / types["Pooling"], types=types, files={"1_Pooling/config.json": config}
        )
        embeddings = SentenceTransformer(folder).encode(TEXTS)
        np.testing.assert_allclose(embeddings, pooled(TEXTS, [mode]), **CLOSE)


def test_several_pooling_modes_are_concatenated_in_the_given_order(tmp_path):
    config = {"embedding_dimension": 20, "pooling_mode": ["max", "cls"]}
    model = SentenceTransformer(
        write_model(tmp_path / "m", files={"1_Pooling/config.json": config})
    )
    np.testing.assert_allclose(model.encode(TEXTS), pooled(TEXTS, ["max", "cls"]), **CLOSE)
    assert model.get_embedding_dimension() == 40


def test_several_pooling_booleans_are_concatenated_in_the_fixed_order(tmp_path):
    config = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}
    model = SentenceTransformer(
        write_model(tmp_path / "m", files={"1_Pooling/config.json": config})
    )
    np.testing.assert_allclose(model.encode(TEXTS), pooled(TEXTS, ["cls", "mean"]), **CLOSE)


def test_normalize_gives_unit_vectors(tmp_path):
    folder = write_model(tmp_path / "m", kinds=("Transformer", "Pooling", "Normalize"))
    expected = oracle.l2_normalize(pooled(TEXTS))
    np.testing.assert_allclose(SentenceTransformer(folder).encode(TEXTS), expected, **CLOSE)


@pytest.mark.parametrize("types", [OLD_TYPES, NEW_TYPES], ids=["old", "new"])
def test_dense_layers_follow_pooling(tmp_path, types):
    kinds = ("Transformer", "Pooling", "Dense", "Dense", "Normalize")
    folder = write_model(tmp_path / "m", kinds=kinds, types=types)
    w1, b1 = write_dense(folder / "2_Dense", 20, 12)
    w2, _ = write_dense(
        folder / "3_Dense",
        12,
        8,
        bias=False,
        activation_function="torch.nn.modules.linear.Identity",
    )
    hidden = np.tanh(oracle.linear(pooled(TEXTS), w1, b1))
    expected = oracle.l2_normalize(oracle.linear(hidden, w2))
    model = SentenceTransformer(folder)
    np.testing.assert_allclose(model.encode(TEXTS), expected, **CLOSE)
    assert model.get_embedding_dimension() == 8


def test_a_dense_layer_may_be_residual(tmp_path):
    folder = write_model(tmp_path / "m", kinds=("Transformer", "Pooling", "Dense"))
    w, b = write_dense(folder / "2_Dense", 20, 20, use_residual=True)
    x = pooled(TEXTS)
    expected = x + np.tanh(oracle.linear(x, w, b))
    np.testing.assert_allclose(SentenceTransformer(folder).encode(TEXTS), expected, **CLOSE)


def test_without_modules_json_the_tokens_are_averaged(tmp_path):
    files = {
        "modules.json": None,
        "1_Pooling/config.json": None,
        # Not read in this case, as in sentence-transformers:
        "sentence_bert_config.json": {"max_seq_length": 3},
        "config_sentence_transformers.json": {"truncate_dim": 4},
    }
    model = SentenceTransformer(write_model(tmp_path / "m", files=files))
    np.testing.assert_allclose(model.encode(TEXTS), pooled(TEXTS), **CLOSE)


def test_modules_run_in_the_order_of_the_list_whatever_idx_is(tmp_path):
    modules = [
        {"idx": 2, "path": "", "type": OLD_TYPES["Transformer"]},
        {"path": "1_Pooling", "type": OLD_TYPES["Pooling"]},
        {"idx": 0, "path": "2_Normalize", "type": OLD_TYPES["Normalize"]},
    ]
    model = SentenceTransformer(write_model(tmp_path / "m", files={"modules.json": modules}))
    expected = oracle.l2_normalize(pooled(TEXTS))
    np.testing.assert_allclose(model.encode(TEXTS), expected, **CLOSE)


def test_the_transformer_may_have_a_folder_of_its_own(tmp_path, model):
    folder = write_model(tmp_path / "m" / "0_Transformer").parent
    modules = [
        {"idx": 0, "path": "0_Transformer", "type": OLD_TYPES["Transformer"]},
        {"idx": 1, "path": "0_Transformer/1_Pooling", "type": OLD_TYPES["Pooling"]},
    ]
    write_files(folder, {"modules.json": modules})
    assert_same_bits(SentenceTransformer(folder).encode(TEXTS), model.encode(TEXTS))


# Checkpoints


def test_the_base_prefix_and_the_heads_of_a_task_model_are_ignored(tmp_path, model):
    weights = {f"bert.{name}": tensor for name, tensor in random_weights().items()}
    weights["bert.embeddings.position_ids"] = np.arange(130)
    weights["bert.pooler.dense.weight"] = np.ones((20, 20), np.float32)
    weights["cls.predictions.bias"] = np.ones(61, np.float32)
    folder = write_model(tmp_path / "m", weights=weights)
    assert_same_bits(SentenceTransformer(folder).encode(TEXTS), model.encode(TEXTS))


def test_a_sharded_checkpoint_gives_the_same_vectors(tmp_path, model):
    folder = write_model(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    weights = random_weights()
    shards = {name: f"model-{i % 3}-of-3.safetensors" for i, name in enumerate(weights)}
    for shard in set(shards.values()):
        part = {name: tensor for name, tensor in weights.items() if shards[name] == shard}
        save_file(part, folder / shard)
    write_files(folder, {"model.safetensors.index.json": {"weight_map": shards}})
    assert_same_bits(SentenceTransformer(folder).encode(TEXTS), model.encode(TEXTS))


def test_a_checkpoint_of_pytorchs_gives_the_same_vectors(tmp_path, model):
    folder = write_model(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    positions = {"embeddings.position_ids": np.arange(130)[None]}
    write_torch(folder / "pytorch_model.bin", random_weights() | positions)
    assert_same_bits(SentenceTransformer(folder).encode(TEXTS), model.encode(TEXTS))


def test_a_dense_module_may_be_in_pytorchs_format(tmp_path):
    folder = write_model(tmp_path / "m", kinds=("Transformer", "Pooling", "Dense"))
    weight, bias = write_dense(folder / "2_Dense", 20, 12)
    expected = SentenceTransformer(folder).encode(TEXTS)
    (folder / "2_Dense" / "model.safetensors").unlink()
    tensors = {"linear.weight": weight, "linear.bias": bias}
    write_torch(folder / "2_Dense" / "pytorch_model.bin", tensors)
    assert_same_bits(SentenceTransformer(folder).encode(TEXTS), expected)


def test_a_float16_checkpoint_is_computed_in_float32(tmp_path):
    half = {name: tensor.astype(np.float16) for name, tensor in random_weights().items()}
    folder = write_model(tmp_path / "m", weights=half)
    wide = {name: tensor.astype(np.float32) for name, tensor in half.items()}
    expected = pooled(TEXTS, weights=wide)
    np.testing.assert_allclose(SentenceTransformer(folder).encode(TEXTS), expected, **CLOSE)


@pytest.mark.parametrize(
    ("hidden_act", "activation"),
    [
        ("gelu_new", "gelu_tanh"),
        ("gelu_pytorch_tanh", "gelu_tanh"),
        ("relu", "relu"),
        ("swish", "silu"),
        ("quick_gelu", "quick_gelu"),
        ("gelu_python", "gelu"),
        ("gelu_fast", "gelu_tanh"),
        ("gelu_accurate", "gelu_tanh"),
        ("gelu_python_tanh", "gelu_tanh"),
        ("sigmoid", "sigmoid"),
        ("tanh", "tanh"),
    ],
)
def test_each_hidden_act_selects_its_activation(tmp_path, hidden_act, activation):
    config = type(TINY)(activation=activation)
    folder = write_model(tmp_path / "m", files={"config.json": config_json(hidden_act=hidden_act)})
    expected = pooled(TEXTS, config=config)
    np.testing.assert_allclose(SentenceTransformer(folder).encode(TEXTS), expected, **CLOSE)


# The tokenizer


def test_the_truncation_and_padding_of_tokenizer_json_are_dropped(model):
    tokens = model.tokenize(["abcdefghijkl"])
    assert tokens["input_ids"].tolist() == [letter_ids("abcdefghijkl")]


def test_tokenize_pads_as_transformers_does(model):
    tokens = model.tokenize(["ab c", "d"])
    long, one = letter_ids("ab c"), letter_ids("d")
    assert tokens["input_ids"].tolist() == [long, [*one, 0, 0]]
    assert tokens["attention_mask"].tolist() == [[1] * 5, [1] * 3 + [0, 0]]
    assert tokens["token_type_ids"].tolist() == [[0] * 5] * 2
    assert tokens["input_ids"].dtype == np.int64


def cased(tmp_path, name, **files):
    """A model whose tokenizer keeps the case unless `files` change that, so that "A" is unknown."""
    given = {"tokenizer_config.json": {"do_lower_case": False}} | files
    folder = write_model(tmp_path / name, files=given)
    definition = (folder / "tokenizer.json").read_text()
    assert '"lowercase": true' in definition
    (folder / "tokenizer.json").write_text(
        definition.replace('"lowercase": true', '"lowercase": false')
    )
    return SentenceTransformer(folder)


def test_do_lower_case_of_either_config_is_honored(tmp_path, model):
    assert not np.array_equal(cased(tmp_path, "c").encode("AB"), model.encode("ab"))
    for i, files in enumerate(
        [
            {"sentence_bert_config.json": {"max_seq_length": 100, "do_lower_case": True}},
            {"tokenizer_config.json": {"do_lower_case": True}},
        ]
    ):
        assert_same_bits(cased(tmp_path, str(i), **files).encode("AB"), model.encode("ab"))
