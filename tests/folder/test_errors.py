"""Bad input raises the right type of exception. Its message says what was given and what was expected."""

from __future__ import annotations

import re

import numpy as np
import pytest

from simdformer import SentenceTransformer
from tests.support.model_fixtures import (
    TINY,
    config_json,
    modules_json,
    tokenizer_json,
    write_dense,
    write_files,
    write_model,
)
from tests.support.tiny_bert import random_weights


def refused(tmp_path, match, error=ValueError, **options):
    folder = write_model(tmp_path / "m", **options)
    with pytest.raises(error, match=match):
        SentenceTransformer(folder)


# Texts


@pytest.mark.parametrize("bad", [3, None, b"x", ["a", "b"], ("a", "b"), {"text": "a"}])
def test_an_input_that_is_not_a_str_is_named_by_its_index(model, bad):
    with pytest.raises(TypeError, match=rf"texts\[1\] must be a str, got {type(bad).__name__}"):
        model.encode(["a", bad, "c"])


def test_the_index_counts_over_the_whole_call(model):
    texts = ["a"] * 5000
    texts[4321] = None
    with pytest.raises(TypeError, match=r"texts\[4321\] must be a str"):
        model.encode(texts)


@pytest.mark.parametrize("inputs", [3, None, b"x", {"a", "b"}, {"a": "b"}, np.array("a")])
def test_inputs_that_are_not_a_sequence_are_refused(model, inputs):
    with pytest.raises(TypeError, match="inputs must be a str or a sequence of str, got"):
        model.encode(inputs)


def test_the_error_for_a_generator_suggests_encode_stream(model):
    with pytest.raises(TypeError, match="encode_stream takes any iterable"):
        model.encode(text for text in "ab")


@pytest.mark.parametrize("texts", ["a str", 3, None])
def test_a_stream_needs_an_iterable_of_texts(model, texts):
    with pytest.raises(TypeError, match="texts must be an iterable of str"):
        model.encode_stream(texts)


@pytest.mark.parametrize("inputs", ["x\ud800y", ["x\ud800y"]])
def test_a_lone_surrogate_is_named_by_its_index_and_place(model, inputs):
    with pytest.raises(
        ValueError, match=r"texts\[0\] holds the lone surrogate U\+D800 at position 1"
    ):
        model.encode(inputs)


def test_the_text_itself_is_not_in_the_message(model):
    with pytest.raises(ValueError) as error:  # noqa: PT011  (what is not in it is the point)
        model.encode("password\udfff")
    assert "password" not in str(error.value)


def test_an_empty_text_is_its_special_tokens(model):
    states = model.encode("", output_value="token_embeddings")
    assert states.shape == (2, TINY.hidden_size)
    np.testing.assert_allclose(model.encode(""), states.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("text", ["\0", "\0a\0", " \t\n", "\N{GRINNING FACE}", "e\u0301", "\ufffd"])
def test_odd_but_valid_texts_are_embedded(model, text):
    assert np.isfinite(model.encode(text)).all()


@pytest.mark.parametrize("text", ["ab " * 350_000, "a" * 1_000_000], ids=["words", "one word"])
def test_a_megabyte_of_text_is_truncated(tmp_path, text):
    model = SentenceTransformer(write_model(tmp_path / "m"))
    if " " in text:
        with pytest.warns(UserWarning, match="truncated"):
            vector = model.encode(text)
        assert model.truncated_texts == 1
    else:
        vector = model.encode(text)  # WordPiece replaces such a long word by [UNK]
    assert np.isfinite(vector).all()


def test_a_token_id_beyond_the_embeddings_is_an_index_error(tmp_path):
    definition = tokenizer_json()
    definition["model"]["vocab"]["q"] = TINY.vocab_size + 3
    model = SentenceTransformer(write_model(tmp_path / "m", files={"tokenizer.json": definition}))
    model.encode("abc")
    with pytest.raises(IndexError, match=r"64, expected an id in \[0, 61\)"):
        model.encode("q")


def test_after_an_error_the_model_still_works(model):
    before = model.encode("abc")
    with pytest.raises(TypeError):
        model.encode(["a"] * 3000 + [None])
    np.testing.assert_array_equal(model.encode("abc"), before)


# Arguments


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"batch_size": 0}, "batch_size must be a positive integer, got 0"),
        ({"batch_size": "8"}, "batch_size must be a positive integer, got '8'"),
        ({"output_value": "x"}, "unknown output_value 'x'; known: sentence_embedding, token_embed"),
        (
            {"precision": "int4"},
            "unknown precision 'int4'; known: float32, int8, uint8, binary, ub",
        ),
        ({"precision": "int8"}, "precision='int8' needs the range of each dimension"),
        ({"prompt_name": "x"}, r"unknown prompt name 'x'; known: \['query', 'document'\]"),
        ({"truncate_dim": 0}, "truncate_dim must be a positive integer, got 0"),
        ({"truncate_dim": -1}, "truncate_dim must be a positive integer, got -1"),
        ({"device": "cuda"}, "device must be None or 'cpu', got 'cuda'"),
        ({"device": ["cpu", "cuda"]}, "device must be None or 'cpu'"),
        ({"pool": {}}, "pool must be a result of start_multi_process_pool, got {}"),
        ({"chunk_size": 0}, "chunk_size must be a positive integer, got 0"),
        ({"foo": 1, "bar": 2}, "encode got unknown arguments: bar, foo"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_bad_argument_of_encode_is_named(model, arguments, match):
    with pytest.raises(ValueError, match=match):
        model.encode("a", **arguments)


def test_the_arguments_of_a_drop_in_are_accepted(model):
    expected = model.encode("a")
    vector = model.encode("a", device="cpu", batch_size=np.int64(8), task="query", pool=None)
    np.testing.assert_array_equal(vector, expected)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"compute_type": "int3"}, ValueError, "unknown compute_type 'int3'; known: default, "),
        ({"num_threads": 0}, ValueError, "num_threads must be a positive integer, got 0"),
        ({"num_threads": 1.5}, ValueError, "num_threads must be a positive integer, got 1.5"),
        ({"max_batch_tokens": -1}, ValueError, "max_batch_tokens must be a positive integer"),
        ({"truncate_dim": 0}, ValueError, "truncate_dim must be a positive integer, got 0"),
        ({"device": "cuda:0"}, ValueError, "device must be None or 'cpu', got 'cuda:0'"),
        ({"prompts": ["a"]}, TypeError, "prompts must map names to str"),
        ({"prompts": {"a": 3}}, TypeError, "prompts must map names to str"),
        (
            {"similarity_fn_name": "maxsim"},
            ValueError,
            "unknown similarity_fn_name 'maxsim'; known: cosine, dot, euclidean, manhattan",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_bad_argument_of_the_constructor_is_named(tmp_path, arguments, error, match):
    folder = write_model(tmp_path / "m")
    with pytest.raises(error, match=match):
        SentenceTransformer(folder, **arguments)


# config.json


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        (
            "model_type",
            "quantum",
            "unknown architecture: .* model_type='quantum'; known: albert, bert, ",
        ),
        ("model_type", None, "unknown architecture: config.json has model_type=None"),
        ("model_type", ["bert"], "unknown architecture"),
        ("hidden_act", "mish", "unknown hidden_act 'mish'; known: gelu, gelu_accurate"),
        ("hidden_act", {}, "unknown hidden_act {}; known"),
        (
            "position_embedding_type",
            "relative_key",
            "unknown position_embedding_type 'relative_key'",
        ),
        ("is_decoder", True, "unknown is_decoder True; known: False"),
        ("quantization_config", {"bits": 4}, "m/config.json: quantization_config"),
        ("per_layer_config", {"0": {}, "1": {"hidden_act": "relu"}}, "per_layer_config"),
        ("layer_norm_eps", 10**400, "layer_norm_eps must be a finite number above 0, got 1000"),
        ("num_attention_heads", 3, "hidden_size=20 is not a multiple of num_attention_heads=3"),
        ("num_attention_heads", 0, "num_attention_heads must be an int in 1"),
        ("hidden_size", -20, "hidden_size must be an int in 1"),
        ("hidden_size", "20", "hidden_size must be an int in 1.*, got '20'"),
        ("hidden_size", 20.0, "hidden_size must be an int in 1"),
        ("hidden_size", 2**62, "hidden_size must be an int in 1"),
        ("vocab_size", True, "vocab_size must be an int in 1"),
        ("num_hidden_layers", None, "num_hidden_layers is missing"),
        ("layer_norm_eps", 0, "layer_norm_eps must be a finite number above 0, got 0"),
        ("layer_norm_eps", float("nan"), "layer_norm_eps must be a finite number above 0"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_invalid_config_is_refused_by_field(tmp_path, field, value, match):
    refused(tmp_path, match, files={"config.json": config_json(**{field: value})})


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        (
            "intermediate_size",
            38,
            (
                "tensor 'encoder.layer.0.intermediate.dense.weight' in model.safetensors has shape"
                " (37, 20); config.json (intermediate_size=38, hidden_size=20) needs (38, 20)"
            ),
        ),
        (
            "vocab_size",
            60,
            (
                "tensor 'embeddings.word_embeddings.weight' in model.safetensors has shape (61, 20);"
                " config.json (vocab_size=60, hidden_size=20) needs (60, 20)"
            ),
        ),
        (
            "max_position_embeddings",
            512,
            "config.json (max_position_embeddings=512, hidden_size=20)",
        ),
        ("hidden_size", 40, "config.json (vocab_size=61, hidden_size=40) needs (61, 40)"),
        ("type_vocab_size", 1, "config.json (type_vocab_size=1, hidden_size=20) needs (1, 20)"),
        ("num_hidden_layers", 3, "'encoder.layer.2.attention.self.query.weight' is missing"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_error_names_the_size_that_differs_from_the_tensors(tmp_path, field, value, match):
    refused(tmp_path, re.escape(match), files={"config.json": config_json(**{field: value})})


def test_a_nan_among_the_weights_is_named(tmp_path):
    weights = random_weights()
    weights["encoder.layer.1.output.dense.bias"][3] = np.nan
    refused(tmp_path, "tensor 'encoder.layer.1.output.dense.bias' in .* NaN", weights=weights)


@pytest.mark.parametrize("content", ["{", "[]", "7", "\ufeff{}", b"\xff", "[" * 100_000])
@pytest.mark.parametrize(
    "name", ["config.json", "sentence_bert_config.json", "1_Pooling/config.json"]
)
def test_a_file_that_is_not_a_json_object_is_named(tmp_path, name, content):
    refused(tmp_path, f"{name}: (not valid JSON|expected a JSON object)", files={name: content})


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "1_Pooling/config.json", "model.safetensors"]
)
def test_a_missing_file_is_named(tmp_path, name):
    refused(tmp_path, name.rpartition("/")[2], FileNotFoundError, files={name: None})


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"model": {"type": "Quantum"}}'])
def test_a_broken_tokenizer_is_named(tmp_path, content):
    match = r"tokenizer\.json: (not a tokenizer definition|not valid JSON|expected a JSON object)"
    refused(tmp_path, match, files={"tokenizer.json": content})


# Modules


@pytest.mark.parametrize(
    "kind",
    [
        "sentence_transformers.models.LSTM",
        "sentence_transformers.sentence_transformer.modules.bow.BoW",
        "custom_code.Transformer",  # code in the model's folder with a known name
        "Transformer",
        None,
        7,
    ],
)
def test_an_unknown_module_is_refused_with_the_known_ones(tmp_path, kind):
    modules = modules_json(["Transformer", "Pooling"])
    modules[0]["type"] = kind
    match = f"unknown module type {re.escape(repr(kind))}; known: Transformer, Pooling, Dense, Norm"
    refused(tmp_path, match, files={"modules.json": modules})


@pytest.mark.parametrize("kinds", [["Pooling", "Transformer"], ["Transformer"] * 2, []])
def test_the_first_module_must_read_texts(tmp_path, kinds):
    refused(tmp_path, "the first one, and no other, must be one of Transformer", kinds=kinds)


def test_modules_without_an_embedding_are_refused(tmp_path):
    match = "modules.json: no module outputs 'sentence_embedding'"
    refused(tmp_path, match, kinds=["Transformer"])


def test_a_module_whose_input_does_not_exist_is_refused(tmp_path):
    folder = write_model(tmp_path / "m", kinds=("Transformer", "Dense", "Pooling"))
    write_dense(folder / "1_Dense", 20, 20)
    write_files(folder, {"2_Pooling/config.json": {"embedding_dimension": 20}})
    match = "1_Dense/config.json: it reads 'sentence_embedding', which no module before it"
    with pytest.raises(ValueError, match=match):
        SentenceTransformer(folder)


@pytest.mark.parametrize("path", ["../x", "/etc", "a/../../b", "..\\x", "C:x", "c:/x", None, 7])
def test_a_module_path_that_leaves_the_folder_is_refused(tmp_path, path):
    modules = modules_json(["Transformer", "Pooling"])
    modules[1]["path"] = path
    match = "module paths must stay in the model folder"
    refused(tmp_path, match, files={"modules.json": modules})


@pytest.mark.parametrize("content", [{}, [1], "null"])
def test_a_modules_file_of_another_format_is_refused(tmp_path, content):
    match = "modules.json: expected a list of objects"
    refused(tmp_path, match, files={"modules.json": content})


@pytest.mark.parametrize("mode", ["median", 7, [], ["mean", "median"], [[]], {}])
def test_an_unknown_pooling_mode_is_refused_with_the_known_ones(tmp_path, mode):
    config = {"embedding_dimension": 20, "pooling_mode": mode}
    match = "unknown pooling_mode .*; known: cls, max, mean, mean_sqrt_len_tokens, weightedmean"
    refused(tmp_path, match, files={"1_Pooling/config.json": config})


def test_a_pooling_of_another_width_is_refused(tmp_path):
    config = {"word_embedding_dimension": 768, "pooling_mode_mean_tokens": True}
    match = "1_Pooling/config.json: embedding_dimension=768, but token vectors have 20 features"
    refused(tmp_path, match, files={"1_Pooling/config.json": config})


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"in_features": 21}, "in_features=21.* needs"),
        ({"out_features": 7}, "tensor 'linear.weight' in model.safetensors has shape"),
        ({"out_features": 0}, "out_features must be an int in 1"),
        ({"bias": False}, "do not belong to the model in config.json: 'linear.bias'"),
        (
            {"activation_function": "torch.load"},
            "unknown activation_function 'torch.load'; known of torch.nn: AlphaDropout, CELU",
        ),
        ({"activation_function": "torch.nn.Threshold"}, "unknown activation_function"),
        ({"activation_function": None}, "activation_function must be the path of a class"),
        ({"activation_function": "torch.nn.PReLU"}, "'activation_function.weight' is missing"),
        ({"use_residual": True}, "'residual.weight' is missing"),
        ({"module_input_name": 5}, "2_Dense/config.json: module_input_name must be a string"),
        ({"module_input_name": "logits"}, "it reads 'logits', which no module before it outputs"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_invalid_dense_module_is_refused(tmp_path, changes, match):
    folder = write_model(tmp_path / "m", kinds=("Transformer", "Pooling", "Dense"))
    write_dense(folder / "2_Dense", 20, 8)
    config = {"in_features": 20, "out_features": 8, "bias": True, **changes}
    write_files(folder, {"2_Dense/config.json": config})
    with pytest.raises(ValueError, match=match):
        SentenceTransformer(folder)


def test_a_dense_module_that_does_not_fit_is_refused(tmp_path):
    folder = write_model(tmp_path / "m", kinds=("Transformer", "Pooling", "Dense"))
    write_dense(folder / "2_Dense", 30, 8)
    with pytest.raises(ValueError, match="in_features=30, but the module before it outputs 20"):
        SentenceTransformer(folder)


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"transformer_task": "fill-mask"}, "unknown transformer_task 'fill-mask'"),
        ({"module_output_name": "x"}, "unknown module_output_name 'x'"),
        ({"max_seq_length": "12"}, "max_seq_length must be an int or null, got '12'"),
        ({"max_seq_length": 1}, "max_seq_length must be at least 2"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_invalid_transformer_settings_are_refused(tmp_path, config, match):
    refused(tmp_path, match, files={"sentence_bert_config.json": config})


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"prompts": ["a"]}, "prompts must be an object"),
        ({"prompts": {"a": 3}}, "prompts must map names to strings"),
        ({"default_prompt_name": "x"}, "unknown prompt name 'x'"),
        ({"truncate_dim": "x"}, "truncate_dim must be an int in 1.*, got 'x'"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_invalid_defaults_are_refused(tmp_path, config, match):
    refused(tmp_path, match, files={"config_sentence_transformers.json": config})


def test_a_folder_with_an_adapter_is_refused(tmp_path):
    match = "adapter_config.json: adapters are not supported; merge it into the model"
    refused(tmp_path, match, files={"adapter_config.json": {"peft_type": "LORA"}})


def test_nothing_in_a_model_folder_is_executed(tmp_path):
    trap = f"open({str(tmp_path / 'executed')!r}, 'w')"
    files = {
        "config.json": config_json(auto_map={"AutoModel": "modeling.Model"}),
        "modeling.py": trap,
        "__init__.py": trap,
        "pytorch_model.bin": b"cbuiltins\neval\n(S'" + trap.encode() + b"'\ntR.",
    }
    SentenceTransformer(write_model(tmp_path / "m", files=files)).encode("a")
    assert not (tmp_path / "executed").exists()


def test_a_key_of_config_json_that_nothing_reads_is_named_in_a_warning(tmp_path):
    files = {"config.json": config_json(my_lr=0.1, attention_probs_dropout_prob=0.2)}
    with pytest.warns(UserWarning, match="config.json: 'my_lr': unknown, ignored") as warned:
        SentenceTransformer(write_model(tmp_path / "m", files=files))
    assert len(warned) == 1
