"""Every architecture on tiny models: compared with the oracle, in every compute type, and which config.json
and tensors are refused. test_architectures_parity.py compares them with transformers."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from simdformer import SentenceTransformer, quantize_model
from simdformer.cli import main
from simdformer.models import REGISTRY
from tests import oracle
from tests.support import assert_same_bits
from tests.support.model_fixtures import CLOSE
from tests.support.tiny_models import (
    ARCHITECTURES,
    BY_NAME,
    RELATIVE_BIAS,
    RELATIVES,
    TEXTS,
    TINY,
    WIDE,
)

pytestmark = pytest.mark.filterwarnings("ignore:texts longer than max_seq_length")

each = pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.model_type)
beside_bert = pytest.mark.parametrize("architecture", ARCHITECTURES[1:], ids=lambda a: a.model_type)
each_relative = pytest.mark.parametrize("architecture", RELATIVES, ids=lambda a: a.model_type)
MPNET = BY_NAME["mpnet"]


def test_every_known_architecture_is_tested():
    assert sorted(BY_NAME) == sorted(REGISTRY)


def cosines(a, b):
    a, b = (oracle.l2_normalize(np.asarray(x, np.float64)) for x in (a, b))
    return (a * b).sum(-1)


# Against the oracle


@each
def test_vectors_follow_the_oracle(tmp_path, architecture):
    model = SentenceTransformer(architecture.write(tmp_path / "m"))
    np.testing.assert_allclose(model.encode(TEXTS), architecture.pooled(TEXTS), **CLOSE)
    assert model.truncated_texts == 1


@each
def test_token_vectors_follow_the_oracle(tmp_path, architecture):
    model = SentenceTransformer(architecture.write(tmp_path / "m"))
    for text, states in zip(
        TEXTS, model.encode(TEXTS, output_value="token_embeddings"), strict=True
    ):
        np.testing.assert_allclose(states, architecture.states(text), **CLOSE)


@each
def test_all_positions_are_used_and_no_more(tmp_path, architecture):
    model = SentenceTransformer(architecture.write(tmp_path / "m"))
    model.max_seq_length = None
    limit = architecture.max_positions
    assert model.max_seq_length == limit
    expected = architecture.pooled(TEXTS[2:3], limit=limit)
    np.testing.assert_allclose(model.encode(TEXTS[2:3]), expected, **CLOSE)


@each
def test_without_modules_json_it_is_the_same(tmp_path, architecture):
    model = SentenceTransformer(architecture.write(tmp_path / "m"))
    bare = {"modules.json": None, "1_Pooling/config.json": None, "sentence_bert_config.json": None}
    plain = SentenceTransformer(architecture.write(tmp_path / "plain", files=bare))
    # The tokenizer's limit, if that is lower.
    assert plain.max_seq_length == min(architecture.max_positions, 512)
    assert_same_bits(plain.encode(TEXTS[:2]), model.encode(TEXTS[:2]))


@each
def test_a_task_models_prefix_and_heads_are_ignored(tmp_path, architecture):
    weights = architecture.renamed(architecture.weights())
    task = {architecture.prefix + name: tensor for name, tensor in weights.items()}
    task |= {name: np.ones((3, 20), np.float32) for name in architecture.heads}
    task |= {architecture.prefix + name: np.arange(130) for name in architecture.buffers}
    expected = SentenceTransformer(architecture.write(tmp_path / "m")).encode(TEXTS)
    found = SentenceTransformer(architecture.write(tmp_path / "task", weights=task)).encode(TEXTS)
    assert_same_bits(found, expected)


@pytest.mark.parametrize("inner", [False, True])
@each
def test_a_model_that_is_a_part_of_another_is_read(tmp_path, architecture, inner):
    """As saved by lightning and others: all names start with "model."."""
    weights = architecture.renamed(architecture.weights())
    prefix = "model." + (architecture.prefix if inner else "")
    whole = {prefix + name: tensor for name, tensor in weights.items()}
    expected = SentenceTransformer(architecture.write(tmp_path / "m")).encode(TEXTS[:2])
    found = SentenceTransformer(architecture.write(tmp_path / "w", weights=whole)).encode(TEXTS[:2])
    assert_same_bits(found, expected)


@beside_bert
def test_eps_is_that_of_the_config_if_it_has_one(tmp_path, architecture):
    field = architecture.eps_field
    vectors = []
    for eps in (architecture.eps, 0.1):
        files = {"config.json": architecture.fields(**{field or "layer_norm_eps": eps})}
        folder = architecture.write(tmp_path / str(eps), files=files)
        vectors.append(SentenceTransformer(folder).encode(TEXTS))
    # DistilBERT's epsilon is not a field of its config.
    assert (np.abs(vectors[0] - vectors[1]).max() < 1e-6) == (field is None)


def test_a_padding_token_in_a_text_is_not_counted(tmp_path):
    model = SentenceTransformer(BY_NAME["roberta"].write(tmp_path / "m"))
    assert model.tokenize(["a<pad>b"])["input_ids"].tolist() == [[0, 69, 1, 70, 2]]
    states = model.encode("a<pad>b", output_value="token_embeddings")
    np.testing.assert_allclose(states, BY_NAME["roberta"].states("a<pad>b"), **CLOSE)


def test_changing_mpnets_bias_changes_the_result(tmp_path):
    weights = MPNET.weights()
    weights[RELATIVE_BIAS][:] = 0
    without = SentenceTransformer(MPNET.write(tmp_path / "without", weights=MPNET.renamed(weights)))
    model = SentenceTransformer(MPNET.write(tmp_path / "m"))
    assert np.abs(model.encode(TEXTS[:3]) - without.encode(TEXTS[:3])).max() > 0.05


# Tokenizers


@each
def test_tokenize_gives_its_tokenizers_ids(tmp_path, architecture):
    model = SentenceTransformer(architecture.write(tmp_path / "m"))
    tokens = model.tokenize(TEXTS)
    for text, ids, mask in zip(TEXTS, tokens["input_ids"], tokens["attention_mask"], strict=True):
        expected = architecture.ids(text)
        np.testing.assert_array_equal(ids[: len(expected)], expected)
        assert (ids[len(expected) :] == architecture.pad_id).all()
        assert mask.sum() == len(expected)
    assert not tokens["token_type_ids"].any()
    assert model.pipeline.tokenizer(TEXTS).type_ids is None


@each
def test_a_prompt_can_be_excluded_from_pooling(tmp_path, architecture):
    model = SentenceTransformer(architecture.write(tmp_path / "m"))
    model.set_pooling_include_prompt(False)
    prompt_tokens = len(architecture.ids("query: ")) - 1  # the last token is a special one
    states = architecture.states("query: a cab")
    expected = states[prompt_tokens:].mean(axis=0)
    np.testing.assert_allclose(model.encode("a cab", prompt="query: "), expected, **CLOSE)


@pytest.mark.parametrize("add", [True, False])
def test_a_byte_level_tokenizers_first_space_follows_the_tokenizer_config(tmp_path, add):
    files = {"tokenizer_config.json": {"add_prefix_space": add, "pad_token": "<pad>"}}
    model = SentenceTransformer(BY_NAME["roberta"].write(tmp_path / "m", files=files))
    spaced = model.tokenize([" the cab"])["input_ids"]
    assert np.array_equal(model.tokenize(["the cab"])["input_ids"], spaced) == add


def test_the_padding_token_comes_from_tokenizer_json_if_no_config_names_one(tmp_path):
    files = {"tokenizer_config.json": {}}
    model = SentenceTransformer(BY_NAME["roberta"].write(tmp_path / "m", files=files))
    assert model.pipeline.tokenizer.files.pad_id == 1


# Compute types


@pytest.mark.parametrize("compute_type", ["float32", "bfloat16", "int8"])
@each
def test_a_vector_has_the_same_bits_in_any_batch(tmp_path, architecture, compute_type):
    folder = architecture.write(tmp_path / "m", WIDE)
    alone = SentenceTransformer(folder, compute_type=compute_type, num_threads=1)
    model = SentenceTransformer(folder, compute_type=compute_type, num_threads=2)
    whole = model.encode(TEXTS * 7)
    for i, text in enumerate(TEXTS):
        assert_same_bits(alone.encode(text), whole[i])
        assert_same_bits(model.encode(text), whole[i + 3 * len(TEXTS)])


@pytest.mark.parametrize(("compute_type", "least"), [("bfloat16", 0.9995), ("int8", 0.999)])
@each
def test_rounded_weights_are_as_close_as_berts(tmp_path, architecture, compute_type, least):
    folder = architecture.write(tmp_path / "m", WIDE)
    exact = SentenceTransformer(folder).encode(TEXTS)
    model = SentenceTransformer(folder, compute_type=compute_type)
    found = cosines(model.encode(TEXTS), exact)
    assert least <= found.min() < 1 - 1e-9


@pytest.mark.parametrize("texts", [None, TEXTS])
@each
def test_a_saved_int8_model_is_that_of_loading_as_int8(tmp_path, architecture, texts):
    weights = architecture.renamed(architecture.weights(WIDE))
    prefixed = {architecture.prefix + name: tensor for name, tensor in weights.items()}
    folder = architecture.write(tmp_path / "m", WIDE, weights=prefixed)
    quantize_model(folder, tmp_path / "saved", texts=texts)
    saved = SentenceTransformer(tmp_path / "saved")
    assert saved.compute_type == "int8"
    assert len(saved.part_types) == architecture.num_parts(WIDE)
    assert cosines(saved.encode(TEXTS), SentenceTransformer(folder).encode(TEXTS)).min() > 0.998
    if texts is None:
        at_load = SentenceTransformer(folder, compute_type="int8")
        assert_same_bits(saved.encode(TEXTS), at_load.encode(TEXTS))


@each
def test_min_cosine_1_keeps_every_part_of_it(tmp_path, architecture):
    folder = architecture.write(tmp_path / "m")
    quantize_model(folder, tmp_path / "kept", min_cosine=1)
    kept = SentenceTransformer(tmp_path / "kept")
    assert set(kept.part_types.values()) == {"float32"}
    assert_same_bits(kept.encode(TEXTS), SentenceTransformer(folder).encode(TEXTS))


@each
def test_info_shows_its_architecture(tmp_path, architecture, capsys):
    folder = architecture.write(tmp_path / "m")
    assert main(["info", str(folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["model"]
    assert shown["architecture"] == architecture.model_type
    sizes = [shown[name] for name in architecture.size_fields]
    config = architecture.sized(TINY)
    assert sizes == [config.num_layers, config.num_heads, config.hidden_size]
    assert shown["parameters"] == sum(t.size for t in architecture.weights().values())


# What is refused


def refused(folder, match):
    with pytest.raises(ValueError, match=match):
        SentenceTransformer(folder)


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("position_embedding_type", "relative_key", "unknown position_embedding_type 'relative_k"),
        ("is_decoder", True, "unknown is_decoder True; known: False"),
        ("add_cross_attention", True, "unknown add_cross_attention True; known: False"),
        ("adapters", {"adapters": {"x": "y"}}, "config.json: adapters is not supported, got"),
        ("pruned_heads", {"0": [1]}, "config.json: pruned_heads is not supported, got"),
        (
            "max_position_embeddings",
            131,
            r"'embeddings.position_embeddings.weight' in .* has shape",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
@each_relative
def test_a_config_for_another_computation_is_refused(tmp_path, architecture, field, value, match):
    files = {"config.json": architecture.fields(**{field: value})}
    refused(architecture.write(tmp_path / "m", files=files), match)


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("vocab_size", 7, r"'\S*\.weight' .* \(vocab_size=7, "),
        ("vocab_size", None, "vocab_size is missing"),
        ("max_position_embeddings", 0, "max_position_embeddings must be an int in 1"),
        ("max_position_embeddings", None, "max_position_embeddings is missing"),
    ],
    ids=lambda value: str(value)[:30],
)
@each
def test_a_size_that_differs_from_the_tensors_is_refused(
    tmp_path, architecture, field, value, match
):
    if field not in architecture.fields():
        pytest.skip("T5 has no end of positions")
    files = {"config.json": architecture.fields(**{field: value})}
    refused(architecture.write(tmp_path / "m", files=files), match)


@each
def test_empty_fields_are_ignored(tmp_path, architecture):
    nothing = {
        "adapters": {"adapters": {}, "config_map": {}},
        "pruned_heads": {},
        "is_decoder": False,
    }
    files = {"config.json": architecture.fields(**nothing)}
    SentenceTransformer(architecture.write(tmp_path / "m", files=files)).encode("a")


@pytest.mark.parametrize(
    ("model_type", "field", "value", "match"),
    [
        ("roberta", "pad_token_id", -1, "pad_token_id must be an int in 0.*, got -1"),
        ("roberta", "pad_token_id", "1", "pad_token_id must be an int in 0.*, got '1'"),
        ("roberta", "pad_token_id", None, "pad_token_id is missing"),
        (
            "roberta",
            "pad_token_id",
            129,
            "max_position_embeddings=130 leaves no position after that of the padding token, 129",
        ),
        ("roberta", "type_vocab_size", 2, r"\(type_vocab_size=2, hidden_size=20\) needs \(2, 20\)"),
        ("roberta", "hidden_act", "mish", "unknown hidden_act 'mish'; known: gelu"),
        ("camembert", "type_vocab_size", 1, r"\(type_vocab_size=1, hidden_size=20\) needs \(1, 20\)"),
        ("xlm-roberta", "layer_norm_eps", 0, "layer_norm_eps must be a finite number above 0"),
        ("mpnet", "relative_attention_num_buckets", 31, "attention_num_buckets 31; known: 32"),
        ("mpnet", "relative_attention_num_buckets", 64, "attention_num_buckets 64; known: 32"),
        ("mpnet", "num_attention_heads", 4, r"'encoder.relative_attention_bias.weight' .* \(32, 4\)"),
        ("electra", "embedding_size", 20, r"word_embeddings.weight' .*embedding_size=20\) needs"),
        ("electra", "embedding_size", 0, "embedding_size must be an int in 1"),
        ("ernie", "use_task_id", True, "unknown use_task_id True; known: False"),
        ("distilbert", "dim", None, "dim is missing"),
        ("distilbert", "n_heads", 3, "dim=20 is not a multiple of n_heads=3"),
        ("distilbert", "hidden_dim", 38, r"\(hidden_dim=38, dim=20\) needs \(38, 20\)"),
        ("distilbert", "activation", "mish", "unknown activation 'mish'; known: gelu"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_an_invalid_field_is_refused_by_name(tmp_path, model_type, field, value, match):
    architecture = BY_NAME[model_type]
    files = {"config.json": architecture.fields(**{field: value})}
    refused(architecture.write(tmp_path / "m", files=files), match)


@each
def test_a_missing_tensor_and_one_too_many_are_named(tmp_path, architecture):
    folder = architecture.write(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    name = max(name for name in weights if ".1." in name or ".0." in name)
    tensor = weights.pop(name)
    save_file(weights, folder / "model.safetensors")
    refused(folder, f"tensor '{re.escape(name)}' is missing from the checkpoint")
    extra = {"encoder.layer.0.adapter.weight": tensor}
    save_file(weights | {name: tensor} | extra, folder / "model.safetensors")
    with pytest.warns(UserWarning, match=r"ignored: 'encoder\.layer\.0\.adapter\.weight'"):
        SentenceTransformer(folder)


def test_a_model_of_another_architecture_lists_the_known_ones(tmp_path):
    folder = MPNET.write(tmp_path / "m", files={"config.json": MPNET.fields(model_type="xlnet")})
    refused(folder, f"model_type='xlnet'; known: {', '.join(sorted(BY_NAME))}$")
