"""Pipelines beside transformers' own, on random models that transformers saves. Needs the group parity."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import pipeline
from simdformer.models.classification import TOKEN_HEADS
from simdformer.models.masked_language_model import HEADS
from tests.support.parity_models import KINDS, randomize, tokenizer_of
from tests.support.parity_texts import parity_texts

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

BOUND = 1e-5
STRATEGIES = ["none", "simple", "first", "average", "max"]
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC"]
# ernie is bert's code; what else transformers has no class for.
TOKEN_KINDS = [
    name for name, kind in KINDS.items() if f"{kind.stem}ForTokenClassification" in TOKEN_HEADS
]
MASKED_KINDS = sorted(set(HEADS) & set(KINDS) - {"qwen3"})  # transformers has none of Qwen3


@pytest.fixture(scope="module")
def transformers():
    pytest.importorskip("torch")
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def texts():
    ordered = sorted((text for text in parity_texts() if len(text) < 240), key=len)
    return ["", *ordered[:: len(ordered) // 10], "New York and Ann-Marie's 3 dogs, 2 cats!"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory, transformers, texts):
    """A function from a kind and a task to the folder of its model."""
    made = {}

    def save(name, task, **fields):
        key = (name, task, repr(fields))
        if key not in made:
            kind = KINDS[name]
            config = getattr(transformers, f"{kind.stem}Config")(**{**kind.fields, **fields})
            model = getattr(transformers, f"{kind.stem}For{task}")(config)
            randomize(model)
            made[key] = tmp_path_factory.mktemp("model")
            model.save_pretrained(made[key])
            tokenizer = tokenizer_of(transformers, kind, texts)
            tokenizer.model_max_length = kind.longest
            tokenizer.save_pretrained(made[key])
        return str(made[key])

    return save


def labels(names):
    return {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}


def both(transformers, task, folder, **arguments):
    theirs = transformers.pipeline(task, folder, device="cpu", **arguments)
    return pipeline(task, folder, **arguments), theirs


def assert_same(ours, theirs):
    """Numbers within the bound, all else equal, and of the same type where they are no numbers."""
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            assert_same(ours[key], value)
    elif isinstance(theirs, list):
        assert isinstance(ours, list)
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b)
    elif isinstance(theirs, (float, np.floating)):
        assert type(ours) is float
        assert abs(ours - theirs) <= BOUND
    else:
        assert type(ours) is type(theirs)
        assert ours == theirs


# --- text-classification ---


@pytest.mark.parametrize("problem", [None, "regression", "multi_label_classification"])
def test_scores_of_texts_and_pairs_are_the_same(saved, transformers, texts, problem):
    folder = saved(
        "bert", "SequenceClassification", problem_type=problem, **labels(["a", "b", "c", "d"])
    )
    ours, theirs = both(transformers, "text-classification", folder)
    pairs = [{"text": text, "text_pair": texts[-1]} for text in texts[:5]]
    inputs = [*texts, *pairs, {"text": texts[3]}, [[texts[1], texts[2]]]]
    for arguments in (
        {},
        {"top_k": None},
        {"top_k": 2},
        {"top_k": 1},
        {"top_k": None, "function_to_apply": "sigmoid"},
        {"function_to_apply": "softmax"},
        {"function_to_apply": "none", "top_k": 9},
    ):
        assert_same(ours(inputs, **arguments), theirs(inputs, **arguments))
        for single in (texts[2], pairs[1], [texts[3]]):
            assert_same(ours(single, **arguments), theirs(single, **arguments))


def test_arguments_of_the_constructor_are_defaults_of_calls(saved, transformers, texts):
    folder = saved("bert", "SequenceClassification", **labels("abc"))
    ours, theirs = both(transformers, "sentiment-analysis", folder, top_k=2)
    for inputs in (texts, texts[2]):
        assert_same(ours(inputs), theirs(inputs))
        assert_same(ours(inputs, top_k=1), theirs(inputs, top_k=1))


def test_one_label_gets_a_sigmoid(saved, transformers, texts):
    folder = saved("roberta", "SequenceClassification", num_labels=1)
    ours, theirs = both(transformers, "text-classification", folder)
    assert_same(ours(texts), theirs(texts))


@pytest.mark.parametrize("truncation", [True, "longest_first", "only_first", "only_second"])
def test_truncation_is_the_same(saved, transformers, truncation):
    folder = saved("bert", "SequenceClassification", **labels("abc"))
    ours, theirs = both(transformers, "text-classification", folder, top_k=None)
    long = "one two three " * 300
    single = [{"text": long}] if truncation in (True, "longest_first", "only_first") else []
    pairs = {
        "only_second": [{"text": "four five", "text_pair": long}],
        "only_first": [{"text": long, "text_pair": "four five"}],
    }.get(truncation, [{"text": long, "text_pair": long}, {"text": "six", "text_pair": long}])
    for arguments in ({"truncation": truncation}, {"truncation": truncation, "max_length": 30}):
        assert_same(ours([*single, *pairs], **arguments), theirs([*single, *pairs], **arguments))
    assert_same(ours([long], max_length=20), theirs([long], max_length=20))


def test_a_causal_model_classifies_the_same(saved, transformers, texts):
    folder = saved("qwen3", "SequenceClassification", num_labels=3)
    ours, theirs = both(transformers, "text-classification", folder)
    assert_same(ours(texts[1:]), theirs(texts[1:]))


# --- zero-shot-classification ---


@pytest.mark.parametrize("names", [["contradiction", "neutral", "entailment"], ["ENTAIL", "not"]])
def test_candidate_labels_get_the_same_scores(saved, transformers, texts, names):
    folder = saved("deberta-v2", "SequenceClassification", **labels(names))
    ours, theirs = both(transformers, "zero-shot-classification", folder)
    long = "one two three " * 200
    for arguments in (
        {"candidate_labels": "cats, dogs ,, birds"},
        {"candidate_labels": ["cats", "dogs"], "multi_label": True},
        {"candidate_labels": ["cats"], "hypothesis_template": "It is about {}."},
    ):
        assert_same(ours(texts[2], **arguments), theirs(texts[2], **arguments))
        inputs = [*texts[2:], long]
        assert_same(ours(inputs, **arguments), theirs(inputs, **arguments))
    assert_same(ours(texts[3], ["a", "b"]), theirs(texts[3], ["a", "b"]))


def test_without_an_entailment_the_last_label_counts(saved, transformers, texts):
    folder = saved("bert", "SequenceClassification", **labels("abc"))
    ours, theirs = both(transformers, "zero-shot-classification", folder)
    for multi_label in (False, True):
        arguments = {"candidate_labels": ["x", "y"], "multi_label": multi_label}
        assert_same(ours(texts[2:5], **arguments), theirs(texts[2:5], **arguments))


# --- token-classification ---


@pytest.mark.parametrize("name", TOKEN_KINDS)
def test_labels_of_tokens_are_the_same(saved, transformers, texts, name):
    folder = saved(name, "TokenClassification", **labels(LABELS))
    ours, theirs = both(transformers, "token-classification", folder)
    for strategy in STRATEGIES:
        arguments = {"aggregation_strategy": strategy}
        assert_same(ours(texts, **arguments), theirs(texts, **arguments))


@pytest.mark.parametrize("name", ["bert", "roberta", "xlm-roberta"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_long_texts_in_pieces_give_the_same(saved, transformers, texts, name, side, tmp_path):
    folder = saved(name, "TokenClassification", **labels(LABELS))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length, tokenizer.truncation_side = 30, side
    transformers.AutoModelForTokenClassification.from_pretrained(folder).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ours, theirs = both(transformers, "ner", str(tmp_path))
    long = [" ".join(texts[2:7]), texts[2], "", "one two, three. " * 30]
    for strategy in STRATEGIES:
        arguments = {"aggregation_strategy": strategy, "ignore_labels": ["B-LOC"]}
        assert_same(ours(long, **arguments), theirs(long, **arguments))
        if strategy != "none":
            for stride in (0, 7):
                arguments["stride"] = stride
                assert_same(ours(long, **arguments), theirs(long, **arguments))


def test_a_single_text_and_no_ignored_labels_give_the_same(saved, transformers, texts):
    folder = saved("bert", "TokenClassification", **labels(LABELS))
    ours, theirs = both(transformers, "ner", folder, aggregation_strategy="simple")
    assert_same(ours(texts[-1], ignore_labels=[]), theirs(texts[-1], ignore_labels=[]))


# RoBERTa's tokenizer of transformers refuses words without add_prefix_space.
@pytest.mark.parametrize("name", ["bert", "xlm-roberta"])
def test_texts_that_are_split_into_words_give_the_same(saved, transformers, texts, name):
    folder = saved(name, "TokenClassification", **labels(LABELS))
    ours, theirs = both(transformers, "ner", folder, aggregation_strategy="simple")
    split = [text.split() for text in texts if len(text.split()) > 1]
    for options in ({}, {"delimiter": "--"}):
        arguments = {"is_split_into_words": True, "ignore_labels": [], **options}
        assert_same(ours(split, **arguments), theirs(split, **arguments))
        assert_same(ours(split[0], **arguments), theirs(split[0], **arguments))


# --- fill-mask ---


@pytest.mark.parametrize("name", MASKED_KINDS)
def test_tokens_for_masks_are_the_same(saved, transformers, name):
    folder = saved(name, "MaskedLM")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if tokenizer.mask_token is None:
        tokenizer.mask_token = "[MASK]" if "[MASK]" in tokenizer.get_vocab() else "<mask>"
        tokenizer.save_pretrained(folder)
    ours, theirs = both(transformers, "fill-mask", folder)
    mask = tokenizer.mask_token
    inputs = [f"The {mask} sat.", f"{mask} is 3 {mask} away, isn't it?"]
    for arguments in ({}, {"top_k": 2}, {"top_k": 9, "targets": ["a", "the", "zzzz", mask]}):
        assert_same(ours(inputs, **arguments), theirs(inputs, **arguments))
        for single in (inputs[0], inputs[1], inputs[:1]):
            assert_same(ours(single, **arguments), theirs(single, **arguments))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("deberta-v2", {"legacy": False}),
        ("bert", {"tie_word_embeddings": False}),
        ("eurobert", {"mlp_bias": True}),
    ],
    ids=["not legacy", "not tied", "a bias"],
)
def test_other_heads_of_masked_models_are_the_same(saved, transformers, name, fields):
    folder = saved(name, "MaskedLM", **fields)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if tokenizer.mask_token is None:
        tokenizer.mask_token = "<mask>"
        tokenizer.save_pretrained(folder)
    ours, theirs = both(transformers, "fill-mask", folder)
    text = f"The {tokenizer.mask_token} sat."
    assert_same(ours(text, top_k=20), theirs(text, top_k=20))


def test_a_long_text_with_a_mask_is_cut_the_same(saved, transformers):
    folder = saved("bert", "MaskedLM")
    arguments = {"tokenizer_kwargs": {"truncation": True}}
    ours, theirs = both(transformers, "fill-mask", folder, **arguments)
    text = "The [MASK] sat. " + "one two " * 400
    assert_same(ours(text), theirs(text))


# --- feature-extraction ---


@pytest.mark.parametrize("name", ["bert", "xlm-roberta", "modernbert"])
def test_features_are_the_same(saved, transformers, texts, name):
    folder = saved(name, "MaskedLM")
    ours, theirs = both(transformers, "feature-extraction", folder)
    assert_same(ours(texts[2:6]), theirs(texts[2:6]))
    assert_same(ours(texts[2]), theirs(texts[2]))
    long = "one two three " * 300
    for arguments in ({"truncation": True}, {"tokenize_kwargs": {"truncation": True}}):
        a, b = (np.array(model(long, **arguments)) for model in (ours, theirs))
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= BOUND
    a, b = (model(texts[3], return_tensors=True) for model in (ours, theirs))
    assert a.shape == b.shape
    assert np.abs(a.numpy() - b.numpy()).max() <= BOUND


# --- forms of inputs ---


def test_a_generator_gives_an_iterator(saved, transformers, texts):
    folder = saved("bert", "SequenceClassification", **labels("abc"))
    ours, theirs = both(transformers, "text-classification", folder)
    a, b = (model(text for text in texts) for model in (ours, theirs))
    assert iter(a) is a
    assert_same(list(a), list(b))


@pytest.mark.parametrize("compute_type", ["int8", "bfloat16"])
def test_compute_types_are_near(saved, compute_type):
    for task, kind in (("fill-mask", "MaskedLM"), ("token-classification", "TokenClassification")):
        folder = saved("bert", kind, **(labels(LABELS) if kind != "MaskedLM" else {}))
        near = pipeline(task, folder, compute_type=compute_type)
        exact = pipeline(task, folder)
        assert near.compute_type == compute_type
        arguments = {"targets": "the"} if task == "fill-mask" else {"ignore_labels": []}
        found = [model("The [MASK] sat.", **arguments) for model in (near, exact)]
        differences = [abs(a["score"] - b["score"]) for a, b in zip(*found, strict=True)]
        assert 0 < max(differences) < 0.1
