"""Pipelines without torch: results beside the oracle, forms of inputs, what is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from simdformer import SentenceTransformer, pipeline, quantize_model
from tests import oracle
from tests.support import assert_same_bits
from tests.support.bert_weights import random_weights
from tests.support.model_fixtures import (
    LETTERS,
    TINY,
    VOCABULARY,
    expected_logits,
    expected_states,
    letter_ids,
    tokenizer_json,
    write_cross_encoder,
    write_model,
)
from tests.support.task_models import (
    TAGS,
    masked_weights,
    tagger_weights,
    write_masked_model,
    write_tagger,
)

CLOSE = {"rtol": 0, "atol": 5e-6}


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipelines")
    return {
        "text-classification": write_cross_encoder(root / "text", 3),
        "zero-shot-classification": write_cross_encoder(
            root / "zero", 3, label2id={"entailment": 2, "neutral": 1, "contradiction": 0}
        ),
        "token-classification": write_tagger(root / "token"),
        "fill-mask": write_masked_model(root / "mask"),
        "feature-extraction": write_model(root / "features"),
    }


@pytest.fixture(scope="module")
def models(folders):
    made = {}

    def model(task):
        if task not in made:
            made[task] = pipeline(task, folders[task])
        return made[task]

    return model


# --- results ---


def test_labels_of_a_pair_are_those_of_the_definition(models):
    pair = ("deed", "the quick brown fox")
    found = models("text-classification")({"text": pair[0], "text_pair": pair[1]}, top_k=None)
    expected = softmax(expected_logits([pair], 3)[0])
    assert [entry["label"] for entry in found] == [f"LABEL_{i}" for i in np.argsort(-expected)]
    np.testing.assert_allclose(
        [entry["score"] for entry in found], np.sort(expected)[::-1], **CLOSE
    )


def test_labels_of_tokens_are_those_of_the_definition(models):
    text = "the quick cab"
    found = models("token-classification")(text, ignore_labels=[])
    head = tagger_weights()
    states = expected_states(text)[1:-1]
    scores = softmax(oracle.linear(states, head["classifier.weight"], head["classifier.bias"]))
    assert [entry["entity"] for entry in found] == [TAGS[i] for i in scores.argmax(axis=-1)]
    np.testing.assert_allclose([entry["score"] for entry in found], scores.max(axis=-1), **CLOSE)
    assert [entry["word"] for entry in found] == [VOCABULARY[i] for i in letter_ids(text)[1:-1]]
    assert [entry["index"] for entry in found] == list(range(1, len(found) + 1))
    assert "".join(text[entry["start"] : entry["end"]] for entry in found) == "thequickcab"


@pytest.mark.parametrize("strategy", ["simple", "first", "average", "max"])
def test_entities_cover_the_text_and_join_tokens(models, strategy):
    text = "the quick brown fox jumps over"
    found = models("token-classification")(text, aggregation_strategy=strategy, ignore_labels=[])
    assert all(entry["entity_group"] in ("O", "X", "Y") for entry in found)
    covered = "".join(text[entry["start"] : entry["end"]].replace(" ", "") for entry in found)
    assert covered == text.replace(" ", "")
    if strategy != "simple":
        starts = {entry["start"] for entry in found}
        assert starts <= {i for i in range(len(text)) if i == 0 or text[i - 1] == " "}


def test_tokens_for_a_mask_are_those_of_the_definition(models):
    w, stem = masked_weights(), "cls.predictions.transform"
    found = models("fill-mask")("[MASK]", top_k=3)
    table = random_weights()["embeddings.word_embeddings.weight"]
    state = oracle.bert(
        np.array([2, 4, 3]),
        random_weights(),
        np.array([0, 3]),
        TINY.num_layers,
        TINY.num_heads,
        activation=TINY.activation,
    )[1:2]
    hidden = oracle.linear(state, w[f"{stem}.dense.weight"], w[f"{stem}.dense.bias"])
    hidden = oracle.layer_norm(
        oracle.gelu(hidden), w[f"{stem}.LayerNorm.weight"], w[f"{stem}.LayerNorm.bias"], TINY.eps
    )
    scores = softmax(oracle.linear(hidden, table, w["cls.predictions.bias"]))[0]
    order = np.argsort(-scores)[:3]
    assert [entry["token"] for entry in found] == order.tolist()
    np.testing.assert_allclose([entry["score"] for entry in found], scores[order], **CLOSE)
    assert found[0]["token_str"] == VOCABULARY[order[0]]


def test_targets_limit_the_tokens(models):
    model = models("fill-mask")
    everything = {entry["token_str"]: entry for entry in model("a [MASK] b", top_k=len(VOCABULARY))}
    found = model("a [MASK] b", targets=["c", "d"], top_k=5)
    assert [entry["token_str"] for entry in found] == sorted(
        "cd", key=lambda letter: -everything[letter]["score"]
    )
    assert all(entry == everything[entry["token_str"]] for entry in found)


def test_several_masks_of_a_text_have_a_list_each(models):
    found = models("fill-mask")("[MASK] a [MASK]", top_k=2)
    assert [len(row) for row in found] == [2, 2]
    assert all("[MASK]" in entry["sequence"] for row in found for entry in row)


def test_candidate_labels_are_ordered_by_the_entailment(models):
    labels = ["cab", "deed", "fox"]
    found = models("zero-shot-classification")(
        "the quick brown", labels, hypothesis_template="a {}"
    )
    logits = expected_logits([("the quick brown", f"a {label}") for label in labels], 3)[:, 2]
    order = np.argsort(-logits)
    assert found["labels"] == [labels[i] for i in order]
    np.testing.assert_allclose(found["scores"], softmax(logits)[order], **CLOSE)


def test_labels_of_which_several_may_fit_are_scored_one_by_one(models):
    found = models("zero-shot-classification")("deed", "cab", hypothesis_template="a {}")
    logits = expected_logits([("deed", "a cab")], 3)[0]
    assert found["scores"] == pytest.approx([softmax(logits[[0, 2]])[1]], abs=5e-6)


def test_features_are_the_hidden_states(models):
    found = models("feature-extraction")("a cab")
    np.testing.assert_allclose(found[0], expected_states("a cab"), **CLOSE)
    as_array = models("feature-extraction")("a cab", return_tensors="np")
    assert as_array.dtype == np.float32
    assert as_array.tolist() == found


# --- long texts ---


def test_a_long_text_is_cut_and_counted_or_read_in_pieces(folders):
    model = pipeline("ner", folders["token-classification"], aggregation_strategy="simple")
    text = "a b c d e " * 20
    with pytest.warns(UserWarning, match="longer than max_seq_length=40"):
        cut = model(text, ignore_labels=[])
    assert cut[-1]["end"] == 2 * 38 - 1
    assert model.truncated_texts == 1
    pieces = model([text, "a"], ignore_labels=[], stride=5)[0]
    assert pieces[-1]["end"] == len(text) - 1
    assert model.truncated_texts == 1


def test_pieces_have_the_stride_in_common():
    from simdformer.pipelines.token_classification import _spans

    assert _spans(10, 4, 1, from_left=False) == [(0, 4), (3, 7), (6, 10)]
    assert _spans(5, 4, 1, from_left=False) == [(0, 4), (3, 5)]
    assert _spans(5, 4, 1, from_left=True) == [(1, 5), (0, 2)]
    assert _spans(9, 4, None, from_left=True) == [(5, 9)]
    assert _spans(0, 4, 2, from_left=False) == [(0, 0)]


def test_a_text_beyond_the_positions_is_refused_unless_it_is_cut(models):
    model = models("text-classification")
    long = "a " * 200
    with pytest.raises(
        ValueError, match=r"inputs\[1\] has 202 tokens, and the model has 130 positions"
    ):
        model(["a", long])
    assert model([long], truncation=True) == model(["a " * 98])
    assert model([long], max_length=12) == model(["a " * 10])


def test_only_the_first_of_two_texts_is_cut(models):
    model = models("text-classification")
    long, short = "a " * 200, "b c"
    cut = model([{"text": long, "text_pair": short}], truncation="only_first", max_length=20)
    assert cut == model([{"text": "a " * 15, "text_pair": short}])
    with pytest.raises(ValueError, match="has 205 tokens"):
        model([{"text": short, "text_pair": long}], truncation="only_first")


# --- forms of inputs ---

INPUTS = {
    "text-classification": (["deed", {"text": "a", "text_pair": "b"}, ""], {}),
    "token-classification": (["a cab", "", "fox"], {}),
    "fill-mask": (["[MASK] a", "b [MASK]", "c [MASK] d"], {}),
    "zero-shot-classification": (["deed", "fox", "a"], {"candidate_labels": "a,b"}),
    "feature-extraction": (["deed", "fox", ""], {}),
}


@pytest.mark.parametrize("task", INPUTS)
def test_inputs_give_the_same_alone_in_lists_tuples_and_iterators(models, task):
    model = models(task)
    inputs, arguments = INPUTS[task]
    expected = [model(text, **arguments) for text in inputs]
    if task == "text-classification":  # a str gives a list of one
        expected = [found[0] if isinstance(found, list) else found for found in expected]
    assert model(inputs, **arguments) == expected
    assert model(tuple(inputs), **arguments) == expected
    for size in (None, 1, 2):
        found = model((text for text in inputs), batch_size=size, **arguments)
        assert iter(found) is found
        assert list(found) == expected
    assert model([], **arguments) == []


def test_an_iterator_is_read_as_results_are_taken(models):
    read = []

    def texts():
        for letter in LETTERS:
            read.append(letter)
            yield letter

    found = models("text-classification")(texts(), batch_size=3)
    assert read == []
    next(found)
    assert read == list("abc")


def test_a_list_of_one_mask_gives_its_result(models):
    model = models("fill-mask")
    assert model(["a [MASK]"]) == model("a [MASK]")


@pytest.mark.parametrize("task", INPUTS)
def test_a_pickled_pipeline_gives_the_same(models, task):
    inputs, arguments = INPUTS[task]
    copy = pickle.loads(pickle.dumps(models(task)))
    assert copy(inputs, **arguments) == models(task)(inputs, **arguments)


def test_the_task_may_come_from_the_architecture(folders):
    for task in ("text-classification", "token-classification", "fill-mask"):
        assert pipeline(model=folders[task]).task == task
    with pytest.raises(ValueError, match="names no task; give one of"):
        pipeline(model=folders["feature-extraction"])


def test_arguments_of_transformers_that_change_nothing_are_taken(folders):
    folder = str(folders["text-classification"])
    options = {"tokenizer": folder, "device": -1, "dtype": "auto", "trust_remote_code": False}
    model = pipeline("sentiment-analysis", folder, num_workers=0, **options)
    assert model.task == "text-classification"


# --- what is refused ---


def test_unknown_tasks_and_arguments_are_named(folders, models):
    folder = folders["text-classification"]
    with pytest.raises(ValueError, match="unknown task 'translation'; known: text-class"):
        pipeline("translation", folder)
    with pytest.raises(TypeError, match="model is required"):
        pipeline("ner")
    for name in ("tokenizer", "config", "feature_extractor", "pipeline_class"):
        with pytest.raises(ValueError, match=f"{name} must be None"):
            pipeline("ner", folder, **{name: object()})
    with pytest.raises(TypeError, match="unknown arguments: framework"):
        pipeline("text-classification", folder, framework="pt")
    with pytest.raises(TypeError, match=r"got unknown arguments: return_all_scores; known: "):
        models("text-classification")("a", return_all_scores=True)
    with pytest.raises(ValueError, match="device must be None or 'cpu'"):
        pipeline("text-classification", folder, device=0)


@pytest.mark.parametrize(
    ("task", "arguments", "error", "message"),
    [
        ("text-classification", {"top_k": 0}, ValueError, "top_k"),
        ("text-classification", {"function_to_apply": "relu"}, ValueError, "function_to_apply"),
        ("text-classification", {"truncation": "all"}, ValueError, "truncation"),
        ("text-classification", {"batch_size": 0}, ValueError, "batch_size"),
        ("token-classification", {"aggregation_strategy": "x"}, ValueError, "aggregation_strategy"),
        ("token-classification", {"ignore_labels": "O"}, TypeError, "ignore_labels"),
        ("token-classification", {"stride": 3}, ValueError, "aggregation_strategy"),
        (
            "token-classification",
            {"stride": 38, "aggregation_strategy": "max"},
            ValueError,
            "stride must be less than 38",
        ),
        ("token-classification", {"offset_mapping": []}, TypeError, "offset_mapping"),
        ("fill-mask", {"top_k": 1000}, ValueError, "top_k"),
        ("fill-mask", {"targets": [""]}, ValueError, "targets"),
        ("fill-mask", {"tokenizer_kwargs": {"stride": 1}}, ValueError, "stride"),
        ("zero-shot-classification", {}, ValueError, "candidate_labels is required"),
        ("zero-shot-classification", {"candidate_labels": []}, ValueError, "candidate_labels"),
        (
            "zero-shot-classification",
            {"candidate_labels": "a", "hypothesis_template": "x"},
            ValueError,
            "hypothesis_template",
        ),
        (
            "zero-shot-classification",
            {"candidate_labels": "a", "hypothesis_template": "{} {}"},
            ValueError,
            "hypothesis_template",
        ),
        ("feature-extraction", {"return_tensors": "tf"}, ValueError, "return_tensors"),
    ],
)
@pytest.mark.filterwarnings("ignore:targets")
def test_wrong_arguments_are_named(models, task, arguments, error, message):
    with pytest.raises(error, match=message):
        models(task)("a [MASK]", **arguments)


@pytest.mark.parametrize(
    ("task", "inputs", "error", "message"),
    [
        ("text-classification", ["a", 3], TypeError, r"inputs\[1\]"),
        ("text-classification", [{"text": "a", "pair": "b"}], ValueError, "pair"),
        ("text-classification", [["a", "b"]], TypeError, "text_pair"),
        ("token-classification", {"text": "a"}, TypeError, "inputs must be a str or several"),
        ("token-classification", ["a", "\udcff"], ValueError, r"inputs\[1\] holds the lone"),
        ("fill-mask", ["[MASK]", "a"], ValueError, r"inputs\[1\] has no \[MASK\]"),
        ("feature-extraction", 3, TypeError, "inputs must be a str or several of them, got int"),
        ("feature-extraction", b"a", TypeError, "got bytes"),
    ],
)
def test_wrong_inputs_are_named(models, task, inputs, error, message):
    with pytest.raises(error, match=message):
        models(task)(inputs)


def test_a_folder_without_the_head_names_what_is_known(folders):
    folder = folders["feature-extraction"]
    with pytest.raises(ValueError, match="BertForTokenClassification"):
        pipeline("ner", folder)
    with pytest.raises(ValueError, match="BertForSequenceClassification"):
        pipeline("text-classification", folder)
    with pytest.raises(ValueError, match=r"tensor 'cls\.predictions\.transform\.dense\.weight'"):
        pipeline("fill-mask", folder)


def test_a_tokenizer_without_a_mask_is_named(tmp_path):
    config = {"tokenizer_config.json": {"mask_token": None}}
    definition = tokenizer_json()
    definition["added_tokens"] = [t for t in definition["added_tokens"] if t["content"] != "[MASK]"]
    folder = write_masked_model(tmp_path, files=config | {"tokenizer.json": definition})
    with pytest.raises(ValueError, match="has no mask_token"):
        pipeline("fill-mask", folder)


def test_names_of_labels_must_be_complete(tmp_path):
    folder = write_cross_encoder(tmp_path, 3, id2label={"0": "a", "1": "b", "3": "c"})
    with pytest.raises(ValueError, match=r"id2label must have the indices 0\.\.2, 2 is missing"):
        pipeline("text-classification", folder)


def test_a_model_without_an_entailment_is_warned_of(folders):
    with pytest.warns(UserWarning, match="no label in config.json begins with 'entail'"):
        pipeline("zero-shot-classification", folders["text-classification"])


def test_a_result_that_is_not_finite_names_the_input(tmp_path):
    head = tagger_weights()
    head["classifier.weight"] = head["classifier.weight"] * np.float32(3e38)
    folder = write_tagger(tmp_path, head=head)
    with pytest.raises(ValueError, match=r"texts\[0\] is NaN or infinite"):
        pipeline("ner", folder)(["a", "b"])


@pytest.mark.parametrize(
    ("task", "text"), [("token-classification", "a cab"), ("fill-mask", "a [MASK] cab")]
)
def test_a_quantized_folder_gives_what_int8_gives(folders, tmp_path, task, text):
    quantize_model(folders[task], tmp_path / "saved")
    found = pipeline(task, tmp_path / "saved")(text)
    assert found == pipeline(task, folders[task], compute_type="int8")(text)
    assert found != pipeline(task, folders[task])(text)


def test_a_quantized_masked_language_model_also_embeds(folders, tmp_path):
    quantize_model(folders["fill-mask"], tmp_path / "saved")
    expected = SentenceTransformer(folders["fill-mask"], compute_type="int8").encode(["a cab"])
    assert_same_bits(SentenceTransformer(tmp_path / "saved").encode(["a cab"]), expected)


def test_a_decoder_of_its_own_is_saved(tmp_path):
    folder = write_masked_model(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    words = weights["bert.embeddings.word_embeddings.weight"]
    save_file(
        weights | {"cls.predictions.decoder.weight": words[::-1].copy()},
        folder / "model.safetensors",
    )
    quantize_model(folder, tmp_path / "saved")
    found = pipeline("fill-mask", tmp_path / "saved")("a [MASK] cab")
    assert found == pipeline("fill-mask", folder, compute_type="int8")("a [MASK] cab")


@pytest.mark.parametrize("delimiter", [None, "", "_"])
def test_offsets_of_words_are_those_in_the_joined_text(models, delimiter):
    words, model = ["a", "cab", "fed"], models("token-classification")
    options = {} if delimiter is None else {"delimiter": delimiter}
    (found,) = model(words, is_split_into_words=True, ignore_labels=[], **options)
    joined = (" " if delimiter is None else delimiter).join(words)
    assert [joined[e["start"] : e["end"]] for e in found] == ["a", "c", "a", "b", "f", "e", "d"]
    alone = model("a cab fed", ignore_labels=[])
    assert [(e["entity"], e["score"]) for e in found] == [(e["entity"], e["score"]) for e in alone]


def test_several_texts_may_be_split_into_words(models):
    model, texts = models("token-classification"), [["a", "cab"], ["fed"]]
    found = model(texts, is_split_into_words=True)
    assert found == [model(words, is_split_into_words=True)[0] for words in texts]


@pytest.mark.parametrize("words", ["a cab", [["a", 1]], [["a"], "b"]])
def test_what_is_not_a_list_of_words_is_refused(models, words):
    with pytest.raises(TypeError, match=r"inputs\[[01]\] must be a list of words"):
        models("token-classification")(words, is_split_into_words=True)
