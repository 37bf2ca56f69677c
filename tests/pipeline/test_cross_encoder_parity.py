"""CrossEncoder compared with sentence-transformers' class, on random models saved by transformers. Needs the
group parity."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import CrossEncoder
from tests.support.model_fixtures import LETTERS, TINY, tokenizer_json, write_files

pytestmark = [
    pytest.mark.parity,
    # Deprecations inside torch and transformers cannot be fixed here.
    pytest.mark.filterwarnings("ignore"),
]
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
theirs = pytest.importorskip("sentence_transformers")

# Logits are a few units, in float32 on both sides.
CLOSE = {"rtol": 0, "atol": 1e-5}
MAX_LENGTH = 40


def save_model(folder, num_labels):
    """A model with random weights large enough to give different logits, and its tokenizer, as saved by
    transformers."""
    torch.manual_seed(num_labels)
    config = transformers.BertConfig(
        vocab_size=TINY.vocab_size,
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=100,
        max_position_embeddings=TINY.max_positions,
        initializer_range=0.2,
        num_labels=num_labels,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    settings = {"tokenizer_class": "BertTokenizer", "model_max_length": MAX_LENGTH}
    write_files(folder, {"tokenizer.json": tokenizer_json(), "tokenizer_config.json": settings})
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=[1, 3])
def folder(request, tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("cross-encoder") / "m", request.param)


@pytest.fixture(scope="module")
def both(folder):
    return CrossEncoder(folder), theirs.CrossEncoder(str(folder), device="cpu")


@pytest.fixture(scope="module")
def pairs():
    """Short and empty pairs, and pairs in which the first, the second or both texts are too long."""
    rng = np.random.default_rng(1)

    def text(length):
        return "".join(rng.choice([*LETTERS, " ", " "], length))

    lengths = [(0, 0), (0, 9), (9, 0), (1, 1), (0, 90), (90, 0), (90, 5), (5, 90), (90, 91)]
    lengths += [tuple(rng.integers(0, 70, 2)) for _ in range(60)]
    found = [(text(a), text(b)) for a, b in lengths]
    return [*found, ("[SEP] a [MASK]", "É 12 ?"), ("a\tb\n", "ünknown")]


def assert_same(ours, expected):
    ours, expected = np.asarray(ours), np.asarray(expected)
    assert ours.dtype == expected.dtype
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, **CLOSE)


def test_tokens_are_the_same(both, pairs):
    ours, reference = both
    expected = reference.preprocess(pairs)
    for name, tokens in ours.tokenize(pairs).items():
        np.testing.assert_array_equal(tokens, expected[name].numpy())
    assert ours.max_seq_length == reference.max_seq_length == MAX_LENGTH


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"apply_softmax": True},
        {"activation_fn": torch.nn.Identity()},
        {"activation_fn": torch.nn.Tanh()},
        {"activation_fn": torch.nn.GELU(), "apply_softmax": True},
        {"prompt": "abc "},
        {"convert_to_tensor": True},
        {"convert_to_numpy": False},
        {"batch_size": 50},
    ],
    ids=str,
)
def test_scores_are_the_same(both, pairs, arguments):
    results = [model.predict(pairs, **arguments) for model in both]
    assert isinstance(results[0], (np.ndarray, torch.Tensor, list))
    assert isinstance(results[0], torch.Tensor) == isinstance(results[1], torch.Tensor)
    assert_same(*(list(map(np.asarray, result)) for result in results))


@pytest.mark.parametrize("pair", [("abc", "de"), ["abc", "de"], ("", "")])
@pytest.mark.parametrize("arguments", [{}, {"convert_to_tensor": True}])
def test_a_single_pair_has_the_same_form(both, pair, arguments):
    assert_same(*(model.predict(pair, **arguments) for model in both))


def test_no_pairs_have_the_same_form(both):
    ours, reference = (model.predict([]) for model in both)
    assert ours.shape == reference.shape


def test_ranking_is_the_same(both, pairs):
    if both[0].num_labels != 1:
        for model in both:
            with pytest.raises(ValueError, match=r"predict"):
                model.rank("a", ["b"])
        return
    documents = [second for _, second in pairs]
    for arguments in ({}, {"top_k": 5}, {"return_documents": True, "prompt": "x "}):
        ours, reference = (model.rank("the query", documents, **arguments) for model in both)
        assert [hit.keys() for hit in ours] == [hit.keys() for hit in reference]
        assert all(type(hit["score"]) is float for hit in ours)
        a, b = ({hit["corpus_id"]: hit["score"] for hit in hits} for hits in (ours, reference))
        # Scores that differ by less than the bound may be in either order.
        np.testing.assert_allclose([*a.values()], [*b.values()], **CLOSE)
        for hit in ours:
            assert hit.get("text", documents[hit["corpus_id"]]) == documents[hit["corpus_id"]]
        if len(a) == len(documents):
            np.testing.assert_allclose([a[i] for i in b], [*b.values()], **CLOSE)


def test_a_shorter_length_is_the_same(folder, pairs):
    ours = CrossEncoder(folder, max_length=11)
    reference = theirs.CrossEncoder(str(folder), max_length=11, device="cpu")
    assert_same(ours.predict(pairs), reference.predict(pairs))
    assert ours.truncated_texts > 0


def test_a_folder_saved_by_sentence_transformers_is_the_same(folder, pairs, tmp_path):
    saved = theirs.CrossEncoder(
        str(folder),
        device="cpu",
        activation_fn=torch.nn.Tanh(),
        prompts={"web": "x "},
        default_prompt_name="web",
    )
    saved.save_pretrained(str(tmp_path))
    ours = CrossEncoder(tmp_path)
    reference = theirs.CrossEncoder(str(tmp_path), device="cpu")
    assert_same(ours.predict(pairs), reference.predict(pairs))
    assert ours.prompts == reference.prompts
    assert ours.default_prompt_name == reference.default_prompt_name


@pytest.mark.parametrize(
    "config",
    [
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
        {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Tanh"},
    ],
    ids=str,
)
def test_activations_in_the_config_have_the_same_meaning(folder, pairs, tmp_path, config):
    model = transformers.BertForSequenceClassification.from_pretrained(folder)
    model.config.update(config)
    model.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    reference = theirs.CrossEncoder(str(tmp_path), device="cpu")
    assert_same(CrossEncoder(tmp_path).predict(pairs), reference.predict(pairs))
