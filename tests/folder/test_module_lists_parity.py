"""Lists of modules and settings of folders give the vectors of sentence-transformers."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from simdformer import CrossEncoder, SentenceTransformer
from simdformer.folder.activation import NAMES
from tests.folder.test_module_lists import (
    ROUTES,
    TABLE,
    TYPES,
    dense,
    model_of,
    write_layer_norm,
    write_router,
    write_static,
)
from tests.support.model_fixtures import (
    PAIRS,
    TEXTS,
    config_json,
    tokenizer_json,
    write_cross_encoder,
    write_files,
    write_model,
)

pytestmark = [
    pytest.mark.parity,
    # Deprecations inside torch and transformers cannot be fixed here.
    pytest.mark.filterwarnings("ignore"),
]

CLOSE = {"rtol": 0, "atol": 5e-6}
# transformers reads the settings of the class in addition to the fixture's tokenizer.
TOKENIZER = {
    "tokenizer_config.json": {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "model_max_length": 100,
    }
}
FLAT = "{% for m in messages %}[SEP]{{ m['role'][0] }} {{ m['content'] }}{% endfor %}[MASK]"


@pytest.fixture(scope="module")
def reference():
    return pytest.importorskip("sentence_transformers")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "m"


def compare(reference, folder, **call):
    theirs = reference.SentenceTransformer(str(folder), device="cpu")
    np.testing.assert_allclose(
        SentenceTransformer(folder).encode(TEXTS, **call), theirs.encode(TEXTS, **call), **CLOSE
    )


# Softmax2d, and GLU with a width that the reference does not support, are not compared.
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"GLU", "PReLU"}))
def test_each_activation_of_a_dense_module_is_torchs(reference, folder, name):
    torch_nn = pytest.importorskip("torch.nn")
    assert hasattr(torch_nn, name)
    model_of(folder, "Pooling", "Dense", files=TOKENIZER)
    dense(folder / "2_Dense", 20, 8, f"torch.nn.{name}")
    compare(reference, folder)


def test_a_learned_slope_is_that_of_torch(reference, folder):
    model_of(folder, "Pooling", "Dense", files=TOKENIZER)
    tensors = {
        "linear.weight": np.eye(8, 20, dtype=np.float32),
        "linear.bias": np.zeros(8, np.float32),
        "activation_function.weight": np.array([0.7], np.float32),
    }
    dense(folder / "2_Dense", 20, 8, "torch.nn.PReLU")
    save_file(tensors, folder / "2_Dense" / "model.safetensors")
    compare(reference, folder)


def test_modules_in_an_unusual_order_are_the_references(reference, folder):
    files = TOKENIZER | {
        "1_Normalize/config.json": {"module_input_name": "token_embeddings"},
        "3_Pooling/config.json": {"embedding_dimension": 8, "pooling_mode": ["max", "mean"]},
        "4_Dropout/config.json": {"dropout": 0.3},
    }
    model_of(folder, "Normalize", "Dense", "Pooling", "Dropout", "LayerNorm", files=files)
    dense(folder / "2_Dense", 20, 8, module_input_name="token_embeddings")
    write_layer_norm(folder / "5_LayerNorm", 16)
    compare(reference, folder)
    ours = SentenceTransformer(folder).encode(TEXTS, output_value="token_embeddings")
    theirs = reference.SentenceTransformer(str(folder), device="cpu")
    for a, b in zip(ours, theirs.encode(TEXTS, output_value="token_embeddings"), strict=True):
        np.testing.assert_allclose(a, b.numpy(), **CLOSE)


@pytest.mark.parametrize("states", [True, False])
def test_weighted_layers_are_the_references(reference, folder, states):
    files = TOKENIZER | {
        "config.json": config_json(output_hidden_states=states),
        "1_WeightedLayerPooling/config.json": {
            "embedding_dimension": 20,
            "layer_start": 1,
            "num_hidden_layers": 2,
        },
        "2_Pooling/config.json": {"embedding_dimension": 20},
    }
    model_of(folder, "WeightedLayerPooling", "Pooling", files=files)
    weights = {"layer_weights": np.array([1, 3], np.float32)}
    save_file(weights, folder / "1_WeightedLayerPooling" / "model.safetensors")
    compare(reference, folder)


@pytest.mark.parametrize("task", [None, "query", "document"])
def test_a_router_chooses_as_the_reference(reference, folder, task):
    write_router(folder, ROUTES, {"default_route": "document"})
    write_files(folder / "t", TOKENIZER)
    compare(reference, folder, task=task)


def test_a_static_embedding_is_the_references(reference, folder):
    write_static(folder, {"embedding.weight": TABLE})
    compare(reference, folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_seq_length": 6},
        {"query_length": 4, "document_length": 5},
        {"processing_kwargs": {"text": {"max_length": 5}}},
        {"processing_kwargs": {"text": {"add_special_tokens": False}}},
        {"config_args": {"num_hidden_layers": 1}},
        {"tokenizer_args": {"truncation_side": "left"}, "max_seq_length": 6},
    ],
    ids=str,
)
def test_settings_of_the_transformer_are_applied_as_there(reference, folder, settings):
    write_model(folder, files=TOKENIZER | {"sentence_bert_config.json": settings})
    texts = ["the quick brown fox", "a"]
    ours, theirs = (
        SentenceTransformer(folder),
        reference.SentenceTransformer(str(folder), device="cpu"),
    )
    for method in ("encode", "encode_query", "encode_document"):
        got, expected = getattr(ours, method)(texts), getattr(theirs, method)(texts)
        np.testing.assert_allclose(got, expected, **CLOSE)


@pytest.mark.parametrize("state", [-1, 0, 1, 2, -2])
def test_a_hidden_state_is_the_references(reference, folder, state):
    entry = {"method": "forward", "method_output_name": ["hidden_states", state]}
    config = {"modality_config": {"text": entry}, "module_output_name": "token_embeddings"}
    write_model(folder, files=TOKENIZER | {"sentence_bert_config.json": config})
    compare(reference, folder)


@pytest.mark.parametrize("prompt", [None, "zz"])
def test_a_chat_template_is_rendered_as_there(reference, folder, prompt):
    definition = tokenizer_json()
    definition["truncation"] = definition["padding"] = None
    files = TOKENIZER | {"modules.json": None, "chat_template.jinja": FLAT}
    write_model(folder, files=files | {"tokenizer.json": definition})
    compare(reference, folder, prompt=prompt)


def test_a_pair_is_rendered_as_there(reference, folder):
    write_cross_encoder(folder, files=TOKENIZER | {"chat_template.jinja": FLAT})
    theirs = reference.CrossEncoder(str(folder), device="cpu").predict(PAIRS)
    np.testing.assert_allclose(CrossEncoder(folder).predict(PAIRS), theirs, **CLOSE)


def test_the_types_of_the_fixtures_are_known_to_the_reference(reference):
    assert reference.__version__ >= "6"
    assert {"Router", "StaticEmbedding"} <= TYPES.keys()
