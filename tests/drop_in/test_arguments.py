"""The constructor arguments of sentence-transformers 6 have no effect, are applied, or are refused by
name."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import CrossEncoder, SentenceTransformer
from tests.support import assert_same_bits
from tests.support.model_fixtures import TEXTS, write_cross_encoder, write_model

# Some tests set a low limit.
pytestmark = [
    pytest.mark.filterwarnings("ignore:texts longer than"),
    pytest.mark.filterwarnings("ignore:use_auth_token"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    return write_cross_encoder(tmp_path_factory.mktemp("models") / "tiny")


WITHOUT_EFFECT = [
    {"trust_remote_code": True},
    {"trust_remote_code": False},
    {"model_kwargs": None},
    {"model_kwargs": {}},
    {"model_kwargs": {"attn_implementation": "eager", "low_cpu_mem_usage": False}},
    {"model_kwargs": {"device_map": "auto", "torch_dtype": "auto", "use_safetensors": True}},
    {"model_kwargs": {"device_map": {"": "cpu"}, "add_pooling_layer": False}},
    {"model_kwargs": {"trust_remote_code": True, "token": None, "revision": None}},
    {"processor_kwargs": None},
    {"processor_kwargs": {"use_fast": True, "trust_remote_code": True}},
    {"tokenizer_kwargs": None},
    {"tokenizer_kwargs": {"model_max_length": 100}},
    {"config_kwargs": {}},
    {"config_kwargs": {"unpad_inputs": False, "use_memory_efficient_attention": False}},
    {"backend": "torch"},
    {"model_card_data": None},
    {"use_auth_token": None},
    {"modules": None},
    {"classifier_dropout": 0.1},
    {"keep_in_fp32_modules": []},
]


@pytest.mark.parametrize("arguments", WITHOUT_EFFECT, ids=str)
def test_arguments_without_effect_are_accepted(folder, model, arguments):
    assert_same_bits(SentenceTransformer(folder, **arguments).encode(TEXTS), model.encode(TEXTS))


def test_the_older_name_of_the_token_causes_a_warning(folder):
    with pytest.warns(FutureWarning, match="use_auth_token is the older name of token"):
        SentenceTransformer(folder, use_auth_token="x")


def test_a_file_instead_of_a_folder_is_refused(folder):
    with pytest.raises(NotADirectoryError, match=r"config\.json is a file; a model is a folder"):
        SentenceTransformer(folder / "config.json")


def test_a_missing_model_name_is_refused():
    with pytest.raises(TypeError, match="model_name_or_path must be a path or a name, got None"):
        SentenceTransformer()
    with pytest.raises(ValueError, match="modules must be None: torch modules cannot be run"):
        SentenceTransformer(modules=[object()])


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "torch.bfloat16", np.float32])
def test_a_dtype_chooses_the_compute_type(folder, name, dtype):
    wanted = "float32" if dtype is np.float32 else dtype.removeprefix("torch.")
    model = SentenceTransformer(folder, model_kwargs={name: dtype})
    assert model.compute_type == wanted
    expected = SentenceTransformer(folder, compute_type=wanted)
    assert_same_bits(model.encode(TEXTS), expected.encode(TEXTS))


@pytest.mark.parametrize("argument", ["processor_kwargs", "tokenizer_kwargs"])
def test_fields_of_the_tokenizer_are_replaced(folder, argument):
    model = SentenceTransformer(folder, **{argument: {"model_max_length": 7}})
    assert model.max_seq_length == 7


def test_a_replaced_truncation_side_is_used(folder):
    options = {"truncation_side": "left", "model_max_length": 4}
    ids = SentenceTransformer(folder, processor_kwargs=options).tokenize(["abcd"])["input_ids"]
    right = {"model_max_length": 4}
    other = SentenceTransformer(folder, processor_kwargs=right).tokenize(["abcd"])["input_ids"]
    assert ids.shape == other.shape == (1, 4)
    assert (ids != other).any()


def test_fields_of_the_config_are_replaced(folder, model, tmp_path):
    changed = SentenceTransformer(folder, config_kwargs={"layer_norm_eps": 0.5}).encode(TEXTS)
    assert (changed != model.encode(TEXTS)).any()
    changed_file = write_model(tmp_path / "m")
    config = (changed_file / "config.json").read_text()
    (changed_file / "config.json").write_text(config.replace("1e-12", "0.5"))
    assert "0.5" in (changed_file / "config.json").read_text()
    assert_same_bits(changed, SentenceTransformer(changed_file).encode(TEXTS))


def test_a_cross_encoder_takes_them_too(scorer):
    pairs = [("abc", "de")]
    expected = CrossEncoder(scorer, max_length=5, activation_fn="torch.nn.Tanh").predict(pairs)
    model = CrossEncoder(
        scorer,
        tokenizer_args={"model_max_length": 5},
        automodel_args={"torch_dtype": "float32"},
        config_args=None,
        default_activation_function="torch.nn.Tanh",
        trust_remote_code=True,
        backend="torch",
    )
    assert_same_bits(model.predict(pairs), expected)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"backend": "onnx"}, ValueError, "backend must be 'torch'.*got 'onnx'"),
        ({"modules": [None]}, ValueError, "modules must be None"),
        ({"keep_in_fp32_modules": ["x"]}, ValueError, "keep_in_fp32_modules must be None"),
        ({"model_kwargs": ["x"]}, TypeError, "model_kwargs must be a dict"),
        (
            {"model_kwargs": {"torch_dtype": "float16"}},
            ValueError,
            r"model_kwargs\['torch_dtype'\] must be one of float32, bfloat16, auto, got 'float16'",
        ),
        ({"model_kwargs": {"device_map": "cuda"}}, ValueError, "device must be None or 'cpu'"),
        ({"model_kwargs": {"load_in_8bit": True}}, ValueError, "load_in_8bit"),
        ({"model_kwargs": {"use_safetensors": False}}, ValueError, "use_safetensors"),
        ({"model_kwargs": {"revision": "x"}}, ValueError, r"model_kwargs\['revision'\]"),
        ({"processor_kwargs": {"use_fast": False}}, ValueError, "use_fast"),
        (
            {"compute_type": "int8", "model_kwargs": {"dtype": "bfloat16"}},
            ValueError,
            "compute_type='int8', but model_kwargs request 'bfloat16'",
        ),
        ({"token": "a", "use_auth_token": "b"}, ValueError, "token and use_auth_token are two"),
        (
            {"tokenizer_kwargs": {"a": 1}, "processor_kwargs": {"a": 1}},
            TypeError,
            "processor_kwargs and tokenizer_kwargs are two names",
        ),
        ({"typo": None}, TypeError, "the constructor got unknown arguments: typo"),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("kind", [SentenceTransformer, CrossEncoder])
def test_unsupported_arguments_are_refused_by_name(folder, scorer, kind, arguments, error, match):
    with pytest.raises(error, match=match):
        kind(folder if kind is SentenceTransformer else scorer, **arguments)
