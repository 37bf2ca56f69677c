"""bge-m3's outputs: a vector per text, a weight per token and a vector per token, from one pass."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
from tokenizers import Tokenizer

from simdformer import SentenceTransformer, quantize_model
from tests import oracle
from tests.support import assert_same_bits, normal
from tests.support.model_fixtures import CLOSE
from tests.support.tiny_models import BY_NAME, TEXTS, TINY
from tests.support.torch_files import write_torch

pytestmark = pytest.mark.filterwarnings("ignore:texts longer than max_seq_length")

ARCHITECTURE = BY_NAME["xlm-roberta"]
DIM = 12
KINDS = ("Transformer", "Pooling", "Normalize")
ALL = {"return_dense": True, "return_sparse": True, "return_colbert_vecs": True}
NAMES = ["dense_vecs", "lexical_weights", "colbert_vecs"]
SPECIAL = {
    "tokenizer_config.json": {
        "model_max_length": 512,
        "pad_token": "<pad>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "tokenizer_class": "XLMRobertaTokenizer",
    }
}


def heads():
    rng = np.random.default_rng(7)
    width = TINY.hidden_size
    return {
        "sparse_linear.pt": {"weight": normal(rng, 1, width, scale=0.5), "bias": normal(rng, 1)},
        "colbert_linear.pt": {
            "weight": normal(rng, DIM, width, scale=0.5),
            "bias": normal(rng, DIM),
        },
    }


def write(folder, given=None):
    pooling = {"word_embedding_dimension": TINY.hidden_size, "pooling_mode_cls_token": True}
    ARCHITECTURE.write(folder, kinds=KINDS, files={"1_Pooling/config.json": pooling, **SPECIAL})
    for name, tensors in (heads() if given is None else given).items():
        write_torch(folder / name, tensors)
    return folder


def normalized(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def expected_of(text):
    """The definition in the paper and in FlagEmbedding's code, in float64."""
    ids, states, linears = ARCHITECTURE.ids(text), ARCHITECTURE.states(text), heads()
    weights = oracle.linear(states, *linears["sparse_linear.pt"].values())[:, 0]
    tokenizer = Tokenizer.from_str(json.dumps(ARCHITECTURE.tokenizer()))
    unused = [tokenizer.token_to_id(token) for token in ("<s>", "</s>", "<pad>", "<unk>")]
    largest = {}
    for token, weight in zip(ids.tolist(), weights, strict=True):
        if token not in unused and weight > largest.get(str(token), 0):
            largest[str(token)] = weight
    vectors = oracle.linear(states[1:], *linears["colbert_linear.pt"].values())
    return normalized(states[0]), largest, normalized(vectors)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return SentenceTransformer(write(tmp_path_factory.mktemp("models") / "m3"))


def test_all_outputs_are_those_of_the_definition(model):
    found = model.encode(TEXTS, **ALL)
    assert list(found) == NAMES
    for text, dense, weights, vectors in zip(TEXTS, *found.values(), strict=True):
        expected = expected_of(text)
        np.testing.assert_allclose(dense, expected[0], **CLOSE)
        assert list(weights) == list(expected[1])
        np.testing.assert_allclose(list(weights.values()), list(expected[1].values()), **CLOSE)
        np.testing.assert_allclose(vectors, expected[2], **CLOSE)
        assert vectors.dtype == np.float32
        assert all(type(weight) is float for weight in weights.values())


def test_special_tokens_have_no_weight(model):
    (weights,) = model.encode(["fed <pad> bed"], return_sparse=True)["lexical_weights"]
    names = model.pipeline.tokenizer.spell(map(int, weights))
    assert names
    assert not {"<s>", "</s>", "<pad>", "<unk>"} & set(names)


def test_dense_vectors_have_the_bits_of_encode(model):
    expected = model.encode(TEXTS)
    assert_same_bits(model.encode(TEXTS, **ALL)["dense_vecs"], expected)
    cut = model.encode(TEXTS, truncate_dim=7, normalize_embeddings=True)
    found = model.encode(TEXTS, truncate_dim=7, normalize_embeddings=True, return_sparse=True)
    assert_same_bits(found["dense_vecs"], cut)


def test_a_text_has_the_same_outputs_alone_and_in_any_batch(model):
    found = model.encode(TEXTS, **ALL)
    small = SentenceTransformer(model.folder, num_threads=1, max_batch_tokens=30)
    for other in (small.encode(TEXTS, **ALL), model.encode(TEXTS[::-1], **ALL)):
        order = (
            slice(None)
            if other["lexical_weights"][0] == found["lexical_weights"][0]
            else slice(None, None, -1)
        )
        assert other["lexical_weights"][order] == found["lexical_weights"]
        for a, b in zip(other["colbert_vecs"][order], found["colbert_vecs"], strict=True):
            assert_same_bits(a, b)
    alone = model.encode(TEXTS[0], **ALL)
    assert alone["lexical_weights"] == found["lexical_weights"][0]
    assert_same_bits(alone["dense_vecs"], found["dense_vecs"][0])
    assert_same_bits(alone["colbert_vecs"], found["colbert_vecs"][0])


@pytest.mark.parametrize("wanted", NAMES)
def test_outputs_that_are_not_requested_are_none(model, wanted):
    arguments = dict(zip(ALL, [name == wanted for name in NAMES], strict=True))
    found = model.encode(TEXTS, **arguments)
    assert {name for name, value in found.items() if value is not None} == {wanted}


def test_dense_vectors_are_returned_by_default(model):
    assert model.encode(TEXTS, return_sparse=True)["dense_vecs"] is not None
    assert model.encode(TEXTS, return_dense=True).keys() == set(NAMES)


def test_no_texts_give_empty_outputs(model):
    found = model.encode([], **ALL)
    assert found["dense_vecs"].shape == (0, TINY.hidden_size)
    assert found["lexical_weights"] == found["colbert_vecs"] == []


def test_a_prompt_stands_before_each_text(model):
    found = model.encode(["cab"], prompt="a ", **ALL)
    expected = model.encode(["a cab"], **ALL)
    assert found["lexical_weights"] == expected["lexical_weights"]


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"return_sparse": 1}, TypeError, "return_sparse must be True or False, got 1"),
        ({"output_value": None}, ValueError, "cannot be combined with output_value=None"),
        ({"precision": "int8"}, ValueError, "precision='int8'"),
        ({"convert_to_tensor": True}, ValueError, "convert_to_tensor=True"),
        ({"max_length": 5}, ValueError, "encode got unknown arguments: max_length"),
    ],
    ids=str,
)
def test_contradictory_arguments_are_refused(model, arguments, error, match):
    with pytest.raises(error, match=match):
        model.encode(TEXTS, **{"return_colbert_vecs": True, **arguments})


@pytest.mark.parametrize("name", ["sparse_linear.pt", "colbert_linear.pt"])
def test_the_error_names_a_head_that_the_folder_does_not_have(tmp_path, name):
    given = heads()
    del given[name]
    model = SentenceTransformer(write(tmp_path / "m", given))
    assert model.encode(TEXTS).shape == (len(TEXTS), TINY.hidden_size)
    with pytest.raises(ValueError, match=rf"=True needs {name}, as of BAAI/bge-m3, which .*m does"):
        model.encode(TEXTS, **ALL)


@pytest.mark.parametrize(
    ("name", "tensors", "match"),
    [
        ("sparse_linear.pt", {"weight": (2, 20), "bias": (2,)}, r"expected \(1, 20\)"),
        ("sparse_linear.pt", {"weight": (1, 19), "bias": (1,)}, r"expected \(1, 20\)"),
        ("colbert_linear.pt", {"weight": (4, 19), "bias": (4,)}, r"expected \(dim, 20\)"),
        ("colbert_linear.pt", {"weight": (4, 20), "bias": (3,)}, r"expected \(dim, 20\)"),
        ("colbert_linear.pt", {"weight": (4, 20)}, "expected the tensors 'weight' and 'bias', got"),
    ],
    ids=str,
)
def test_a_head_of_another_shape_is_refused(tmp_path, name, tensors, match):
    damaged = {key: np.zeros(shape, np.float32) for key, shape in tensors.items()}
    model = SentenceTransformer(write(tmp_path / "m", heads() | {name: damaged}))
    with pytest.raises(ValueError, match=rf"{name}: .*{match}"):
        model.encode(TEXTS, **ALL)


def test_an_output_that_overflows_names_the_text(tmp_path):
    given = heads()
    given["sparse_linear.pt"]["weight"][:] = 3e38
    model = SentenceTransformer(write(tmp_path / "m", given))
    with pytest.raises(ValueError, match=r"the result for texts\[0\] is NaN or infinite"):
        model.encode(TEXTS, **ALL)


def test_copies_pickles_and_saved_folders_have_the_heads(model, tmp_path):
    expected = model.encode(TEXTS, **ALL)["lexical_weights"]
    model.save_pretrained(tmp_path / "saved")
    others = (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        SentenceTransformer(tmp_path / "saved"),
    )
    for other in others:
        assert other.encode(TEXTS, **ALL)["lexical_weights"] == expected


def test_a_quantized_folder_keeps_the_heads(model, tmp_path):
    quantize_model(model.folder, tmp_path / "int8")
    found = SentenceTransformer(tmp_path / "int8").encode(TEXTS, **ALL)
    expected = SentenceTransformer(model.folder, compute_type="int8").encode(TEXTS, **ALL)
    assert found["lexical_weights"] == expected["lexical_weights"]


def test_each_process_of_a_pool_computes_the_outputs(model):
    expected = model.encode(TEXTS, **ALL)
    found = model.encode(TEXTS, device=["cpu"], chunk_size=2, **ALL)
    assert found["lexical_weights"] == expected["lexical_weights"]
    assert_same_bits(found["dense_vecs"], expected["dense_vecs"])
