"""Every architecture compared with transformers and sentence-transformers: small models with random weights
and trained tokenizers, as saved by these libraries. Needs the group parity."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from simdformer import CrossEncoder, SentenceTransformer, quantize_model
from simdformer.models import REGISTRY
from tests.support import assert_same_bits
from tests.support.parity_models import COMPARED, KINDS, reference_model, save_plain
from tests.support.parity_texts import LARGEST_DIFFERENCE, parity_texts

pytestmark = [
    pytest.mark.parity,
    # Deprecations inside torch and transformers cannot be fixed here, and truncation is intended.
    pytest.mark.filterwarnings("ignore"),
]

# Fields that config.json may omit for every architecture, or does not have.
OPTIONAL = (
    "activation",
    "hidden_act",
    "hidden_activation",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "layer_types",
    "norm_eps",
    "rms_norm_eps",
    "rope_parameters",
)


def is_table(name):
    return "_embeddings" in name or "embed_tokens" in name or name == "shared.weight"


def test_every_architecture_is_compared():
    assert set(REGISTRY) == COMPARED


@pytest.fixture(scope="module")
def theirs():
    pytest.importorskip("torch")
    return pytest.importorskip("sentence_transformers")


@pytest.fixture(scope="module")
def texts():
    return parity_texts()


@pytest.fixture(scope="module")
def saved(theirs, texts, tmp_path_factory):
    """A function from a kind to its folders, as saved by transformers and by sentence-transformers."""
    import transformers

    @cache
    def save(name):
        plain = save_plain(transformers, KINDS[name], texts, tmp_path_factory.mktemp("plain") / "m")
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
each_with_a_head = pytest.mark.parametrize("kind", [k for k in KINDS if KINDS[k].has_head])


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
    """As many tokens as there are positions; more would be an error in transformers."""
    ours = SentenceTransformer(saved(kind)[1])
    ours.max_seq_length = None
    if kind == "t5":  # its positions have no end
        ours.max_seq_length = KINDS[kind].longest
    assert ours.max_seq_length == KINDS[kind].longest
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
    model = reference_model(transformers, plain)
    for text in texts[::9]:
        ids = tokenizer(text, truncation=True, max_length=ours.max_seq_length, return_tensors="pt")
        with torch.no_grad():
            expected = model(**ids).last_hidden_state[0].numpy()
        found = ours.encode(text, output_value="token_embeddings")
        assert found.shape == expected.shape
        # Token vectors have a length of about 10, not 1.
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
def test_a_prompt_has_the_same_meaning(theirs, saved, texts, kind):
    ours = SentenceTransformer(saved(kind)[1])
    reference = theirs.SentenceTransformer(str(saved(kind)[1]), device="cpu")
    for include in (True, False):
        for model in (ours, reference):
            model.set_pooling_include_prompt(include)
        a, b = (model.encode(texts[::7], prompt="query: ") for model in (ours, reference))
        assert np.abs(a - b).max() <= LARGEST_DIFFERENCE


@pytest.mark.parametrize("compute_type", ["float32", "bfloat16", "int8"])
@each
def test_a_vector_has_the_same_bits_in_any_batch(saved, texts, kind, compute_type):
    model = SentenceTransformer(saved(kind)[1], compute_type=compute_type, num_threads=2)
    alone = SentenceTransformer(saved(kind)[1], compute_type=compute_type, num_threads=1)
    whole = model.encode(texts)
    assert_same_bits(alone.encode(texts[::-1])[::-1], whole)
    for i in range(0, len(texts), 31):
        assert_same_bits(alone.encode(texts[i]), whole[i])


@pytest.mark.parametrize(("compute_type", "least"), [("bfloat16", 0.999), ("int8", 0.998)])
@each
def test_rounded_weights_stay_close(saved, expected, texts, kind, compute_type, least):
    model = SentenceTransformer(saved(kind)[1], compute_type=compute_type)
    cosines = (model.encode(texts) * expected(kind)).sum(axis=1)
    print(f"{kind}, {compute_type}: mean {cosines.mean():.6f}, least {cosines.min():.6f}")
    assert cosines.min() >= least


@each
def test_a_quantized_folder_can_be_saved_and_loaded(saved, texts, tmp_path, kind):
    quantize_model(saved(kind)[1], tmp_path / "saved")
    expected = SentenceTransformer(saved(kind)[1], compute_type="int8").encode(texts[:50])
    assert_same_bits(SentenceTransformer(tmp_path / "saved").encode(texts[:50]), expected)


@each
def test_a_task_models_checkpoint_is_read(saved, texts, tmp_path, kind):
    """The names of its encoder have a prefix, and its head is ignored."""
    import transformers

    name, plain = KINDS[kind].task, saved(kind)[0]
    name = KINDS[kind].stem + name if name.startswith("For") else name
    task = getattr(transformers, name).from_pretrained(plain)
    task.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((plain / name).read_bytes())
    found, expected = (
        SentenceTransformer(folder).encode(texts[:20], output_value="token_embeddings")
        for folder in (tmp_path, plain)
    )
    for a, b in zip(found, expected, strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("num_labels", [1, 3])
@each_with_a_head
def test_a_classification_head_gives_the_same_logits(
    theirs, saved, texts, tmp_path, kind, num_labels
):
    import torch
    import transformers

    stem, plain = KINDS[kind].stem, saved(kind)[0]
    classes = f"{stem}ForSequenceClassification"
    model = getattr(transformers, classes).from_pretrained(plain, num_labels=num_labels)
    torch.manual_seed(num_labels)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("classifier", "pooler", "score", "head.")):
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
    assert np.ptp(expected) > 0.01  # the texts have different scores
    assert ours.truncated_texts > 10


@each
def test_missing_fields_have_the_same_meaning(saved, texts, tmp_path, kind):
    """Fields that neither library needs have transformers' defaults. The embeddings are small enough for the
    epsilon of norms to matter."""
    import transformers

    plain = saved(kind)[0]
    for path in plain.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    small = {name: tensor * 1e-3 for name, tensor in weights.items() if is_table(name)}
    save_file(weights | small, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((plain / "config.json").read_text())
    for field in OPTIONAL:
        config.pop(field, None)
    if config.get("pad_token_id") != 0:  # its default would be outside this small vocabulary
        config.pop("pad_token_id", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = reference_model(transformers, tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    expected = model(**tokenizer(texts[5], return_tensors="pt")).last_hidden_state[0].detach()
    found = SentenceTransformer(tmp_path).encode(texts[5], output_value="token_embeddings")
    assert np.abs(found - expected.numpy()).max() <= 10 * LARGEST_DIFFERENCE
