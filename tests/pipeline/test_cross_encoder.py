"""CrossEncoder on tiny models: scores are those of the oracle, and arguments have sentence-transformers'
meanings."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from simdformer import CrossEncoder, SentenceTransformer, _core
from simdformer.checkpoint import Checkpoint
from simdformer.models.classification import build_head
from tests import oracle
from tests.support import assert_same_bits
from tests.support.model_fixtures import (
    CLOSE,
    PAIRS,
    classifier_weights,
    expected_logits,
    letter_ids,
    write_cross_encoder,
)
from tests.support.tiny_bert import native_encoder, random_weights
from tests.support.torch_files import write_torch

QUERY = "a cab"
DOCUMENTS = ["deed", "", "the quick brown fox", "z", "deed", "a cab"]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Models with one and with three labels."""
    root = tmp_path_factory.mktemp("cross-encoders")
    return {n: write_cross_encoder(root / str(n), n) for n in (1, 3)}


@pytest.fixture(scope="module")
def single(folders):
    return CrossEncoder(folders[1])


@pytest.fixture(scope="module")
def several(folders):
    return CrossEncoder(folders[3])


# Inputs and results of predict


def test_one_label_gives_one_sigmoid_per_pair(single):
    scores = single.predict(PAIRS)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, sigmoid(expected_logits(PAIRS)[:, 0]), **CLOSE)


def test_several_labels_give_their_logits(several):
    scores = several.predict(PAIRS)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected_logits(PAIRS, 3), **CLOSE)


@pytest.mark.parametrize("kind", [tuple, list, np.array])
def test_a_single_pair_is_a_scalar_or_a_row(single, several, kind):
    pair = kind(PAIRS[0])
    score = single.predict(pair)
    assert isinstance(score, np.float32)
    assert score == single.predict(PAIRS)[0]
    assert_same_bits(several.predict(pair), several.predict(PAIRS)[0])


@pytest.mark.parametrize(
    "kind",
    [
        tuple,
        np.array,
        lambda pairs: np.array(pairs, dtype=object),
        lambda pairs: [list(pair) for pair in pairs],
        lambda pairs: [np.array(pair) for pair in pairs],
    ],
)
def test_other_sequences_of_pairs_are_accepted(single, kind):
    assert_same_bits(single.predict(kind(PAIRS)), single.predict(PAIRS))


def test_no_pairs_give_an_empty_array(single, several):
    assert single.predict([]).shape == several.predict([]).shape == (0,)
    assert single.predict([]).dtype == np.float32


def test_the_old_names_of_arguments_still_work(single):
    expected = single.predict(PAIRS, activation_fn="torch.nn.Tanh")
    scores = single.predict(sentences=PAIRS, activation_fct="torch.nn.Tanh", num_workers=0)
    assert_same_bits(scores, expected)


def test_without_convert_to_numpy_the_scores_are_a_list(several):
    rows = several.predict(PAIRS, convert_to_numpy=False)
    assert isinstance(rows, list)
    assert_same_bits(np.stack(rows), several.predict(PAIRS))


def test_convert_to_tensor_needs_torch(single, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(ImportError, match="convert_to_tensor=True needs torch"):
        single.predict(PAIRS, convert_to_tensor=True)


def test_softmax_makes_the_scores_of_a_pair_sum_to_one(single, several):
    scores = several.predict(PAIRS, apply_softmax=True)
    np.testing.assert_allclose(scores, oracle.softmax(expected_logits(PAIRS, 3)), **CLOSE)
    assert_same_bits(single.predict(PAIRS, apply_softmax=True), single.predict(PAIRS))


def test_the_texts_of_a_pair_are_distinguished(single):
    assert single.predict(("abc", "de")) != single.predict(("de", "abc"))


def test_a_prompt_is_put_before_the_first_text(single):
    assert single.predict(("a", "b"), prompt="x ") == single.predict(("x a", "b"))
    ranked = single.rank("a", DOCUMENTS, prompt="x ")
    assert ranked == single.rank("x a", DOCUMENTS)


def test_tokenize_pads_and_types_as_transformers_does(single):
    tokens = single.tokenize([("ab", "c"), ("d", "")])
    pair = [*letter_ids("ab"), *letter_ids("c")[1:]]
    assert tokens["input_ids"].tolist() == [pair, [*letter_ids("d"), 3, 0, 0]]
    assert tokens["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 0, 0]]
    assert tokens["attention_mask"].tolist() == [[1] * 6, [1] * 4 + [0, 0]]


# Batches and threads


def many_pairs(count=200):
    rng = np.random.default_rng(5)
    letters = np.array(list("abcdefghij    "))
    texts = ["".join(rng.choice(letters, n)) for n in rng.integers(0, 60, 2 * count)]
    return list(zip(texts[::2], texts[1::2], strict=True))


@pytest.mark.parametrize("labels", [1, 3])
def test_batch_order_and_threads_do_not_change_a_bit(folders, labels):
    pairs = many_pairs()
    expected = CrossEncoder(folders[labels], num_threads=1).predict(pairs)
    for options in ({"num_threads": 2}, {"num_threads": 3, "max_batch_tokens": 50}):
        model = CrossEncoder(folders[labels], **options)
        assert_same_bits(model.predict(pairs), expected)
        assert_same_bits(model.predict(pairs[::-1])[::-1], expected)
        alone = np.stack([model.predict(pair) for pair in pairs[:50]])
        assert_same_bits(alone, expected[:50])


def test_many_python_threads_share_one_model(single):
    pairs = many_pairs(100)
    before = set(threading.enumerate())
    expected = single.predict(pairs)
    with ThreadPoolExecutor(8) as pool:
        for scores in pool.map(lambda _: single.predict(pairs), range(16)):
            assert_same_bits(scores, expected)
    names = [thread.name for thread in set(threading.enumerate()) - before]
    assert not any(name.startswith("simdformer") for name in names)


# Activations


@pytest.mark.parametrize(
    ("config", "activation"),
    [
        ({}, sigmoid),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, np.array),
        ({"sbert_ce_default_activation_function": None}, sigmoid),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}}, np.tanh),
        ({"sentence_transformers": {"version": "5.0"}}, sigmoid),
        (
            {
                "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"},
                "sbert_ce_default_activation_function": "torch.nn.modules.activation.Tanh",
            },
            np.array,
        ),
    ],
)
def test_the_activation_is_that_of_the_config(tmp_path, config, activation):
    model = CrossEncoder(write_cross_encoder(tmp_path / "m", **config))
    expected = activation(expected_logits(PAIRS)[:, 0])
    np.testing.assert_allclose(model.predict(PAIRS), expected, **CLOSE)


class Tanh:
    """Replaces torch.nn.Tanh(), because this suite does not install torch."""

    def __repr__(self):
        return "Tanh()"


Tanh.__module__ = "torch.nn.modules.activation"


@pytest.mark.parametrize("given", ["torch.nn.Tanh", Tanh(), np.tanh])
def test_an_activation_may_be_given_as_a_name_a_module_or_a_function(folders, single, given):
    expected = np.tanh(expected_logits(PAIRS)[:, 0])
    np.testing.assert_allclose(single.predict(PAIRS, activation_fn=given), expected, **CLOSE)
    model = CrossEncoder(folders[1], activation_fn=given)
    np.testing.assert_allclose(model.predict(PAIRS), expected, **CLOSE)


def test_the_attribute_is_used(folders):
    model = CrossEncoder(folders[1])
    model.activation_fn = "torch.nn.Identity"
    np.testing.assert_allclose(model.predict(PAIRS), expected_logits(PAIRS)[:, 0], **CLOSE)


def test_a_given_activation_overrides_an_unknown_saved_one(tmp_path):
    config = {"sentence_transformers": {"activation_fn": "torch.nn.Mush"}}
    folder = write_cross_encoder(tmp_path / "m", **config)
    model = CrossEncoder(folder, activation_fn="torch.nn.Identity")
    np.testing.assert_allclose(model.predict(PAIRS), expected_logits(PAIRS)[:, 0], **CLOSE)


# Ranking


def test_ranking_is_by_descending_score_and_equal_scores_keep_their_order(single):
    ranked = single.rank(QUERY, DOCUMENTS)
    scores = single.predict([(QUERY, document) for document in DOCUMENTS])
    expected = np.argsort(-scores, kind="stable")
    assert [hit["corpus_id"] for hit in ranked] == expected.tolist()
    assert [hit["score"] for hit in ranked] == scores[expected].tolist()
    assert all(set(hit) == {"corpus_id", "score"} for hit in ranked)
    places = [hit["corpus_id"] for hit in ranked]
    assert places.index(0) + 1 == places.index(4), "the same text twice"


def test_ranking_returns_the_requested_number_of_documents_and_texts(single):
    whole = single.rank(QUERY, DOCUMENTS)
    best = single.rank(QUERY, np.array(DOCUMENTS), top_k=2, return_documents=True)
    assert best == [hit | {"text": DOCUMENTS[hit["corpus_id"]]} for hit in whole[:2]]
    assert single.rank(QUERY, DOCUMENTS, top_k=100) == whole
    assert single.rank(QUERY, []) == []


def test_ranking_accepts_arguments_of_older_releases(single):
    old = {"apply_softmax": False, "convert_to_numpy": True, "convert_to_tensor": False}
    assert single.rank(QUERY, DOCUMENTS, num_workers=0, **old) == single.rank(QUERY, DOCUMENTS)


# Length


def test_a_longer_pair_is_truncated_and_counted_with_one_warning(folders):
    model = CrossEncoder(folders[1], max_length=9)
    assert model.max_seq_length == model.max_length == 9
    with pytest.warns(UserWarning, match="max_seq_length=9 tokens are truncated") as seen:
        score = model.predict(("abcd", "efghijkl"))
    assert seen[0].filename == __file__
    assert score == model.predict(("abc", "efg"))
    model.rank("abcd", ["a", "bcdef", "b"])  # no second warning, which would be an error
    assert model.truncated_texts == 2


def test_the_warning_points_at_the_caller_of_rank(folders):
    with pytest.warns(UserWarning, match="truncated") as seen:
        CrossEncoder(folders[1], max_length=5).rank("abcd", ["a"])
    assert seen[0].filename == __file__


def test_tokens_are_counted(folders):
    model = CrossEncoder(folders[1])
    model.predict(PAIRS)
    assert model.num_tokens == sum(len(letter_ids(a)) + len(letter_ids(b)) - 1 for a, b in PAIRS)


# Folders


def saved_by_sentence_transformers(folder, **config):
    """The files that sentence-transformers 6 adds to a cross-encoder."""
    kind = "sentence_transformers.base.modules.transformer.Transformer"
    modules = [{"idx": 0, "name": "0", "path": "", "type": kind}]
    settings = {"transformer_task": "sequence-classification", "module_output_name": "scores"}
    defaults = {"model_type": "CrossEncoder", "prompts": {}, "default_prompt_name": None} | config
    files = {
        "modules.json": modules,
        "sentence_bert_config.json": settings,
        "config_sentence_transformers.json": defaults,
    }
    return write_cross_encoder(folder, files=files)


def test_a_folder_of_sentence_transformers_6_gives_the_same_scores(tmp_path, single):
    model = CrossEncoder(saved_by_sentence_transformers(tmp_path / "m"))
    assert_same_bits(model.predict(PAIRS), single.predict(PAIRS))
    assert model.prompts == {}


def test_its_prompts_and_its_activation_apply(tmp_path, single):
    folder = saved_by_sentence_transformers(
        tmp_path / "m",
        activation_fn="torch.nn.modules.activation.Tanh",
        prompts={"web": "x "},
        default_prompt_name="web",
    )
    expected = single.predict(PAIRS, prompt="x ", activation_fn="torch.nn.Tanh")
    assert_same_bits(CrossEncoder(folder).predict(PAIRS), expected)
    overridden = CrossEncoder(folder, prompts={"web": "y "})
    expected = single.predict(PAIRS, prompt="y ", activation_fn="torch.nn.Tanh")
    assert_same_bits(overridden.predict(PAIRS), expected)


def test_a_config_without_labels_means_two_labels(tmp_path):
    folder = write_cross_encoder(tmp_path / "m", 2, id2label=None)
    assert CrossEncoder(folder).num_labels == 2


def test_sentence_transformer_still_averages_the_tokens_of_such_a_folder(folders, model):
    assert_same_bits(SentenceTransformer(folders[1]).encode("a cab"), model.encode("a cab"))


def test_a_hub_name_without_an_organization_is_cross_encoders(tmp_path):
    with pytest.raises(FileNotFoundError, match="models--cross-encoder--ms-marco-tiny"):
        CrossEncoder("ms-marco-tiny", cache_folder=tmp_path, local_files_only=True)


@pytest.mark.parametrize(
    ("architecture", "names", "activation"),
    [
        ("RobertaForSequenceClassification", ("classifier.dense", "classifier.out_proj"), np.tanh),
        (
            "DistilBertForSequenceClassification",
            ("pre_classifier", "classifier"),
            lambda x: np.maximum(x, 0),
        ),
    ],
)
def test_heads_of_other_architectures(tmp_path, architecture, names, activation):
    w = classifier_weights(3)
    first, last = (
        (w[f"{name}.weight"], w[f"{name}.bias"]) for name in ("bert.pooler.dense", "classifier")
    )
    tensors = {
        f"{name}.{kind}": tensor
        for name, layer in zip(names, (first, last), strict=True)
        for kind, tensor in zip(("weight", "bias"), layer, strict=True)
    }
    write_cross_encoder(tmp_path, weights=tensors)
    labels = {"0": "a", "1": "b", "2": "c"}
    config = {"architectures": [architecture], "id2label": labels, "hidden_size": 20, "dim": 20}
    with Checkpoint(tmp_path) as checkpoint:
        head = build_head(config, checkpoint)
    encoder = native_encoder(w=random_weights())
    ids, cu_seqlens = np.array([2, 7, 8, 3], np.int32), np.array([0, 4], np.int32)
    states = encoder.encode(ids, cu_seqlens)[:1].astype(np.float64)
    expected = oracle.linear(activation(oracle.linear(states, *first)), *last)
    dense = [layer.native() for layer in head.layers]
    logits = _core.PooledStack(encoder, [head.pooling], dense).encode(ids, cu_seqlens)
    np.testing.assert_allclose(logits, expected, **CLOSE)


def test_a_checkpoint_of_pytorchs_gives_the_same_scores(tmp_path):
    write_cross_encoder(tmp_path, 3)
    expected = CrossEncoder(tmp_path).predict(PAIRS)
    (tmp_path / "model.safetensors").unlink()
    write_torch(tmp_path / "pytorch_model.bin", classifier_weights(3))
    assert_same_bits(CrossEncoder(tmp_path).predict(PAIRS), expected)


# Precision


def test_bfloat16_and_int8_scores_are_close_to_float32(folders):
    pairs = many_pairs(100)
    exact = CrossEncoder(folders[3]).predict(pairs)
    for compute_type, bound in (("bfloat16", 0.05), ("int8", 0.2)):
        model = CrossEncoder(folders[3], compute_type=compute_type)
        assert model.compute_type == compute_type
        scores = model.predict(pairs)
        # Logits are a few units; rounding to bfloat16 changes weights by 2^-9, in two layers.
        assert 0 < np.abs(scores - exact).max() < bound
        alone = np.stack([model.predict(pair) for pair in pairs[:20]])
        assert_same_bits(alone, scores[:20])
    assert "int8" in CrossEncoder(folders[3], compute_type="int8").part_types.values()


# Progress


def test_a_bar_counts_pairs_if_asked_or_if_the_logger_is_at_info(single, capfd, monkeypatch):
    single.predict(PAIRS)
    assert capfd.readouterr() == ("", "")
    single.predict(PAIRS, show_progress_bar=True)
    assert "5/5" in capfd.readouterr().err
    monkeypatch.setattr(logging.getLogger("simdformer"), "level", logging.INFO)
    single.rank(QUERY, DOCUMENTS)
    assert "6/6" in capfd.readouterr().err
