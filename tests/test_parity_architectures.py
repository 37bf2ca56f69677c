"""Every architecture beside transformers and sentence-transformers: small models of random weights and
trained tokenizers, as these libraries save them. Needs the extra [parity]."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
import tokenizers
from safetensors.numpy import load_file, save_file
from tokenizers import models, pre_tokenizers, trainers

from simdformer import CrossEncoder, SentenceTransformer, quantize_model
from simdformer.models import REGISTRY
from support import assert_same_bits
from test_parity import LARGEST_DIFFERENCE, docstrings

pytestmark = [
    pytest.mark.parity,
    # Deprecations inside torch and transformers are not ours to fix, and truncation is meant.
    pytest.mark.filterwarnings("ignore"),
]

SIZES = {
    "vocab_size": 700,
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 192,
    "max_position_embeddings": 302,
}
ROBERTA = {**SIZES, "layer_norm_eps": 1e-5, "type_vocab_size": 1}
DISTILBERT = {
    "vocab_size": 700,
    "dim": 96,
    "n_layers": 3,
    "n_heads": 4,
    "hidden_dim": 192,
    "max_position_embeddings": 302,
}
# model_type: the stem of transformers' classes, config.json's fields, the kind of tokenizer.
KINDS = {
    "bert": ("Bert", SIZES, "wordpiece"),
    "roberta": ("Roberta", ROBERTA, "byte level"),
    "xlm-roberta": ("XLMRoberta", {**SIZES, "layer_norm_eps": 1e-5}, "unigram"),
    "camembert": ("Camembert", {**ROBERTA, "pad_token_id": 1}, "unigram"),
    "distilbert": ("DistilBert", DISTILBERT, "wordpiece"),
    "distilbert, sinusoidal": (
        "DistilBert",
        {**DISTILBERT, "sinusoidal_pos_embds": True},
        "wordpiece",
    ),
    "mpnet": ("MPNet", SIZES, "wordpiece"),
}


def test_every_architecture_is_compared():
    assert set(REGISTRY) <= set(KINDS)


@pytest.fixture(scope="module")
def theirs():
    pytest.importorskip("torch")
    return pytest.importorskip("sentence_transformers")


@pytest.fixture(scope="module")
def texts():
    """Docstrings, single words, many docstrings in a row, and texts that spell special tokens."""
    whole = [text for _, text in zip(range(600), docstrings(), strict=False)]
    words = [text.split()[0] for text in whole[:60]]
    rows = [" ".join(whole[i : i + 8]) for i in range(0, 160, 8)]
    odd = ["", " ", "a", "  two  blanks ", "É ﬁ 漢字 \N{GRINNING FACE}\n\ttab", "A<mask>B"]
    odd += ["a <pad> b <pad><pad> c", "[PAD] a [SEP] b", "<s>x</s>"]
    return [*whole[:300], *words, *rows, *odd]


def trained(kind, special, texts):
    """A vocabulary of one kind: what transformers' tokenizer classes are made of."""
    if kind == "byte level":
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=650, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    elif kind == "unigram":
        tokenizer = tokenizers.Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=650, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    else:
        tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(
            vocab_size=650, special_tokens=special, show_progress=False
        )
    tokenizer.train_from_iterator([text.lower() for text in texts], trainer)
    return tokenizer


def tokenizer_of(transformers, stem, kind, texts):
    """A tokenizer of the architecture's class."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    if stem in ("Bert", "DistilBert"):
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    if stem == "MPNet":
        special = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
    tokenizer = trained(kind, special, texts)
    make = getattr(transformers, f"{stem}Tokenizer")
    if kind == "unigram":
        pieces = json.loads(tokenizer.to_str())["model"]["vocab"]
        return make(vocab=[tuple(piece) for piece in pieces])
    if kind == "byte level":
        merges = json.loads(tokenizer.to_str())["model"]["merges"]
        return make(vocab=tokenizer.get_vocab(), merges=[tuple(merge) for merge in merges])
    return make(vocab=tokenizer.get_vocab())


def randomize(model):
    """Weights with which every part matters: transformers' own begin near 0."""
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                is_table = "embeddings" in name or "relative" in name
                parameter.normal_(0, 0.5 if is_table else parameter.shape[1] ** -0.5)
            else:
                parameter.normal_(0, 0.1).add_(float("norm.weight" in name.lower()))


@pytest.fixture(scope="module")
def saved(theirs, texts, tmp_path_factory):
    """A function from a kind to its folders: transformers' own, and sentence-transformers'."""
    import transformers

    @cache
    def save(name):
        stem, fields, kind = KINDS[name]
        plain = tmp_path_factory.mktemp("plain") / "m"
        model = getattr(transformers, f"{stem}Model")(
            getattr(transformers, f"{stem}Config")(**fields)
        )
        if not fields.get("sinusoidal_pos_embds"):
            randomize(model)
        model.save_pretrained(plain)
        tokenizer_of(transformers, stem, kind, texts).save_pretrained(plain)
        modules = theirs.sentence_transformer.modules
        transformer = modules.Transformer(str(plain), max_seq_length=128)
        width = transformer.get_embedding_dimension()
        folder = tmp_path_factory.mktemp("saved") / "m"
        theirs.SentenceTransformer(
            modules=[transformer, modules.Pooling(width, "mean"), modules.Normalize()], device="cpu"
        ).save(str(folder))
        return plain, folder

    return save


@pytest.fixture(scope="module")
def expected(theirs, saved, texts):
    """A function from a kind to sentence-transformers' vectors of all texts."""

    @cache
    def encode(kind):
        return theirs.SentenceTransformer(str(saved(kind)[1]), device="cpu").encode(texts)

    return encode


each = pytest.mark.parametrize("kind", KINDS)


@each
def test_unit_vectors_are_the_same(saved, expected, texts, kind):
    ours = SentenceTransformer(saved(kind)[1])
    assert ours.max_seq_length == 128
    difference = np.abs(ours.encode(texts) - expected(kind)).max()
    print(f"{kind}: {difference:.2g}, {ours.truncated_texts} truncated")
    assert difference <= LARGEST_DIFFERENCE
    assert ours.truncated_texts > 10


@each
def test_unit_vectors_are_the_same_at_the_full_length(theirs, saved, texts, kind):
    """As many tokens as there are positions: more would be an error of transformers."""
    ours = SentenceTransformer(saved(kind)[1])
    ours.max_seq_length = None
    counted = kind.partition(",")[0] not in ("bert", "distilbert")
    assert ours.max_seq_length == (300 if counted else 302)
    reference = theirs.SentenceTransformer(str(saved(kind)[1]), device="cpu")
    reference.max_seq_length = ours.max_seq_length
    longest = sorted(texts, key=len)[-20:]
    difference = np.abs(ours.encode(longest) - reference.encode(longest)).max()
    print(f"{kind}: {difference:.2g}")
    assert ours.truncated_texts > 5
    assert difference <= LARGEST_DIFFERENCE


@each
def test_a_plain_folder_gives_the_same_token_vectors(saved, texts, kind):
    import torch
    import transformers

    plain = saved(kind)[0]
    ours = SentenceTransformer(plain)
    tokenizer = transformers.AutoTokenizer.from_pretrained(plain)
    model = transformers.AutoModel.from_pretrained(plain).eval()
    for text in texts[::9]:
        ids = tokenizer(text, truncation=True, max_length=ours.max_seq_length, return_tensors="pt")
        with torch.no_grad():
            expected = model(**ids).last_hidden_state[0].numpy()
        found = ours.encode(text, output_value="token_embeddings")
        assert found.shape == expected.shape
        # Token vectors are of length 10, not 1.
        assert np.abs(found - expected).max() <= 10 * LARGEST_DIFFERENCE


@each
def test_token_ids_are_the_same(theirs, saved, texts, kind):
    ours = SentenceTransformer(saved(kind)[1])
    reference = theirs.SentenceTransformer(str(saved(kind)[1]), device="cpu")
    for start in range(0, len(texts), 100):
        a, b = (model.tokenize(texts[start : start + 100]) for model in (ours, reference))
        for name in ("input_ids", "attention_mask"):
            np.testing.assert_array_equal(a[name], b[name].numpy())


@each
def test_a_prompt_means_the_same(theirs, saved, texts, kind):
    ours = SentenceTransformer(saved(kind)[1])
    reference = theirs.SentenceTransformer(str(saved(kind)[1]), device="cpu")
    for include in (True, False):
        for model in (ours, reference):
            model.set_pooling_include_prompt(include)
        a, b = (model.encode(texts[::7], prompt="query: ") for model in (ours, reference))
        assert np.abs(a - b).max() <= LARGEST_DIFFERENCE


@pytest.mark.parametrize("compute_type", ["float32", "bfloat16", "int8"])
@each
def test_a_vector_has_the_same_bits_in_any_company(saved, texts, kind, compute_type):
    model = SentenceTransformer(saved(kind)[1], compute_type=compute_type, num_threads=2)
    alone = SentenceTransformer(saved(kind)[1], compute_type=compute_type, num_threads=1)
    whole = model.encode(texts)
    assert_same_bits(alone.encode(texts[::-1])[::-1], whole)
    for i in range(0, len(texts), 31):
        assert_same_bits(alone.encode(texts[i]), whole[i])


@pytest.mark.parametrize(("compute_type", "least"), [("bfloat16", 0.999), ("int8", 0.998)])
@each
def test_rounded_weights_stay_near(saved, expected, texts, kind, compute_type, least):
    model = SentenceTransformer(saved(kind)[1], compute_type=compute_type)
    cosines = (model.encode(texts) * expected(kind)).sum(axis=1)
    print(f"{kind}, {compute_type}: mean {cosines.mean():.6f}, least {cosines.min():.6f}")
    assert cosines.min() >= least


@each
def test_a_quantised_folder_goes_round(saved, texts, tmp_path, kind):
    quantize_model(saved(kind)[1], tmp_path / "saved")
    expected = SentenceTransformer(saved(kind)[1], compute_type="int8").encode(texts[:50])
    assert_same_bits(SentenceTransformer(tmp_path / "saved").encode(texts[:50]), expected)


@each
def test_a_task_models_checkpoint_is_read(saved, texts, tmp_path, kind):
    """Its encoder's names have a prefix, and its head is passed over."""
    import transformers

    stem, plain = KINDS[kind][0], saved(kind)[0]
    task = getattr(transformers, f"{stem}ForMaskedLM").from_pretrained(plain)
    task.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((plain / name).read_bytes())
    expected = SentenceTransformer(plain).encode(texts[:20])
    assert_same_bits(SentenceTransformer(tmp_path).encode(texts[:20]), expected)


@pytest.mark.parametrize("num_labels", [1, 3])
@each
def test_a_classification_head_gives_the_same_logits(
    theirs, saved, texts, tmp_path, kind, num_labels
):
    import torch
    import transformers

    stem, plain = KINDS[kind][0], saved(kind)[0]
    classes = f"{stem}ForSequenceClassification"
    model = getattr(transformers, classes).from_pretrained(plain, num_labels=num_labels)
    torch.manual_seed(num_labels)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "classifier" in name or "pooler" in name:
                parameter.normal_(0, 0.1)
    model.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(plain).save_pretrained(tmp_path)
    pairs = list(zip(texts[:150], reversed(texts), strict=False))
    ours = CrossEncoder(tmp_path, max_length=128, activation_fn="torch.nn.Identity")
    reference = theirs.CrossEncoder(str(tmp_path), max_length=128, device="cpu")
    expected = reference.predict(pairs, activation_fn=torch.nn.Identity())
    difference = np.abs(ours.predict(pairs) - expected).max()
    print(f"{kind}, {num_labels}: {difference:.2g} of {np.abs(expected).max():.2g}")
    assert difference <= 2 * LARGEST_DIFFERENCE
    assert np.ptp(expected) > 0.01  # texts do differ
    assert ours.truncated_texts > 10


@each
def test_fields_that_are_missing_mean_the_same(saved, texts, tmp_path, kind):
    """Those that neither library needs: the defaults are transformers'. Embeddings are so small here
    that the norms' epsilon shows."""
    import transformers

    plain = saved(kind)[0]
    for path in plain.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    small = {name: tensor * 1e-3 for name, tensor in weights.items() if "_embeddings" in name}
    save_file(weights | small, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((plain / "config.json").read_text())
    for field in ("layer_norm_eps", "hidden_act", "activation", "pad_token_id"):
        config.pop(field, None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = transformers.AutoModel.from_pretrained(tmp_path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    expected = model(**tokenizer(texts[5], return_tensors="pt")).last_hidden_state[0].detach()
    found = SentenceTransformer(tmp_path).encode(texts[5], output_value="token_embeddings")
    assert np.abs(found - expected.numpy()).max() <= 10 * LARGEST_DIFFERENCE
