"""Encoders with rotary positions compared with transformers: their options, old names in config.json, and
decoders. Other tests are in test_architectures_parity.py. Needs the group parity."""

from __future__ import annotations

import json

import numpy as np
import pytest

from simdformer import CrossEncoder, SentenceTransformer, nn
from simdformer.generation import generate
from tests.support import assert_same_bits
from tests.support.parity_models import KINDS, randomize, save_plain, tokenizer_of
from tests.support.parity_texts import LARGEST_DIFFERENCE, parity_texts

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

MODERNBERT, NOMIC_BERT, GTE, QWEN3, EUROBERT = (
    KINDS[name] for name in ("modernbert", "nomic_bert", "gte", "qwen3", "eurobert")
)
BIASES = {"attention_bias": True, "mlp_bias": True}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SCALINGS = {
    "linear": {"rope_type": "linear", "factor": 3.0},
    "yarn": YARN,
    "yarn, of all positions": {"rope_type": "yarn", "factor": 4.0},
    "llama3": LLAMA3,
}


@pytest.fixture(scope="module")
def transformers():
    pytest.importorskip("torch")
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def texts():
    return parity_texts()


def angles_in_float64(rotary):
    """A forward method of rotary positions in float64. transformers' own multiplies positions and frequencies
    in float32; for large angles, that rounding error changes token vectors by as much as the bound."""
    import torch

    def forward(_x, position_ids, layer_type=None):
        kind = f"{layer_type}_" if layer_type else ""
        angles = position_ids[..., None].double() * getattr(rotary, f"{kind}inv_freq").double()
        angles = torch.cat([angles, angles], dim=-1)
        scaling = getattr(rotary, f"{kind}attention_scaling")
        return angles.cos() * scaling, angles.sin() * scaling

    return forward


def token_vectors(transformers, folder, texts):
    """The token vectors of transformers in float64, one text at a time."""
    import torch

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).double().eval()
    for module in model.modules():
        if type(module).__name__.endswith("RotaryEmbedding"):
            module.forward = angles_in_float64(module)
    vectors = []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=302, return_tensors="pt")
        with torch.no_grad():
            vectors.append(model(**ids).last_hidden_state[0].numpy())
    return vectors


def assert_near_transformers(transformers, folder, texts):
    found = SentenceTransformer(folder).encode(texts, output_value="token_embeddings")
    expected = token_vectors(transformers, folder, texts)
    for a, b in zip(found, expected, strict=True):
        # Token vectors have a length of about 10, not 1.
        assert np.abs(a - b).max() <= 10 * LARGEST_DIFFERENCE


# Options

OPTIONS = {
    "modernbert: biases": (MODERNBERT, {**BIASES, "norm_bias": True}),
    "modernbert: another activation": (MODERNBERT, {"hidden_activation": "gelu_pytorch_tanh"}),
    "modernbert: an odd window": (MODERNBERT, {"local_attention": 7}),
    "modernbert: all layers see all": (MODERNBERT, {"layer_types": ["full_attention"] * 4}),
    "nomic_bert: another activation": (NOMIC_BERT, {"hidden_act": "gelu"}),
    "gte: no token types": (GTE, {"type_vocab_size": 0}),
    "qwen3: biases": (QWEN3, {"attention_bias": True}),
    "qwen3: the last layers see a window": (
        QWEN3,
        {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
    ),
    "qwen3: layer_types": (
        QWEN3,
        {
            "use_sliding_window": True,
            "sliding_window": 9,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "eurobert: biases": (EUROBERT, BIASES),
}


@pytest.mark.parametrize(("kind", "fields"), OPTIONS.values(), ids=OPTIONS)
def test_an_option_has_the_same_meaning(transformers, texts, tmp_path, kind, fields):
    changed = kind._replace(fields=kind.fields | fields)
    assert_near_transformers(
        transformers, save_plain(transformers, changed, texts, tmp_path), texts[::19]
    )


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize(
    "kind", [MODERNBERT, NOMIC_BERT, GTE, QWEN3, EUROBERT], ids=lambda kind: kind.stem
)
def test_scaled_positions_have_the_same_meaning(transformers, texts, tmp_path, kind, scaling):
    parameters = {**SCALINGS[scaling], "rope_theta": 5000.0}
    if kind is MODERNBERT:
        kinds = ("full_attention", "sliding_attention")
        parameters = {name: dict(parameters) for name in kinds}
    folder = save_plain(transformers, kind, texts, tmp_path, rope_parameters=parameters)
    assert_near_transformers(transformers, folder, texts[::19])


# Spellings before transformers 5

HALF = {"rope_scaling": {"type": "linear", "factor": 2.0}}
# ModernBERT was released after this field was renamed.
RENAMED = {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}
SPELLINGS = {
    "modernbert": (
        MODERNBERT,
        {"global_rope_theta": 7000.0, "local_rope_theta": 300.0, "global_attn_every_n_layers": 2},
    ),
    "modernbert, scaled": (MODERNBERT, {"global_rope_theta": 7000.0, **RENAMED}),
    "nomic_bert": (NOMIC_BERT, {"rope_theta": 300.0}),
    "gte": (GTE, {"rope_theta": 20000, "rope_scaling": None}),
    "gte, scaled": (GTE, {"rope_theta": 20000, **HALF}),
    "qwen3": (QWEN3, {"rope_theta": 1000000, "rope_scaling": None, "sliding_window": None}),
    "qwen3, scaled": (QWEN3, {"rope_theta": 1000000, "rope_scaling": YARN}),
    "eurobert": (EUROBERT, {"rope_theta": 250000.0}),
}


@pytest.mark.parametrize(("kind", "said"), SPELLINGS.values(), ids=SPELLINGS)
def test_an_old_spelling_has_the_same_meaning(transformers, texts, tmp_path, kind, said):
    old, new = tmp_path / "old", tmp_path / "new"
    save_plain(transformers, kind, texts, old)
    config = json.loads((old / "config.json").read_text())
    for field in ("rope_parameters", "layer_types"):
        config.pop(field, None)
    (old / "config.json").write_text(json.dumps(config | said))
    assert_near_transformers(transformers, old, texts[::29])
    transformers.AutoModel.from_pretrained(old).save_pretrained(new)
    transformers.AutoTokenizer.from_pretrained(old).save_pretrained(new)
    assert "rope_parameters" in json.loads((new / "config.json").read_text())
    found, expected = (SentenceTransformer(folder).encode(texts[::7]) for folder in (old, new))
    assert_same_bits(found, expected)


# Heads


@pytest.mark.parametrize(
    "fields",
    [
        {"classifier_pooling": "mean"},
        {"classifier_pooling": "cls", "classifier_bias": True, "norm_bias": True},
        {"classifier_pooling": "mean", "classifier_activation": "silu"},
    ],
    ids=str,
)
def test_modernberts_head_has_the_same_meaning(transformers, texts, tmp_path, fields):
    kind = MODERNBERT._replace(fields=MODERNBERT.fields | fields)
    difference, size = classified(transformers, kind, texts, tmp_path)
    assert difference <= 2 * LARGEST_DIFFERENCE * max(size, 1)


def test_a_decoders_head_reads_the_last_token_that_is_no_padding(transformers, texts, tmp_path):
    """If a text ends with the padding token, as in Qwen3-Embedding, the token before it counts."""
    padded = {"pad_token_id": QWEN3.special.index("<|endoftext|>")}
    kind = QWEN3._replace(fields=QWEN3.fields | padded, named={"pad_token": "<|endoftext|>"})
    difference, size = classified(transformers, kind, texts, tmp_path)
    assert difference <= 2 * LARGEST_DIFFERENCE * max(size, 1)


def classified(transformers, kind, texts, folder):
    """The largest difference between logits of pairs, and the largest logit."""
    import torch
    from sentence_transformers import CrossEncoder as Theirs

    save_plain(transformers, kind, texts, folder)
    classes = getattr(transformers, f"{kind.stem}ForSequenceClassification")
    model = classes.from_pretrained(folder, num_labels=3)
    randomize(model)
    model.save_pretrained(folder)
    pairs = list(zip(texts[:80], reversed(texts), strict=False))
    ours = CrossEncoder(folder, max_length=128)
    expected = Theirs(str(folder), max_length=128, device="cpu").predict(
        pairs, activation_fn=torch.nn.Identity()
    )
    assert np.ptp(expected, axis=0).min() > 0.01
    return np.abs(ours.predict(pairs) - expected).max(), np.abs(expected).max()


# Decoders' embeddings


def test_a_folder_of_a_causal_model_gives_the_last_tokens_vector(transformers, texts, tmp_path):
    """Without modules.json, and with that of Qwen3-Embedding, whose tokenizer pads on the left."""
    import sentence_transformers

    kind = QWEN3._replace(named={**QWEN3.named, "padding_side": "left"})
    plain, folder = tmp_path / "plain", tmp_path / "saved"
    save_plain(transformers, kind, texts, plain)
    task = transformers.Qwen3ForCausalLM.from_pretrained(plain)
    task.save_pretrained(plain)
    modules = sentence_transformers.sentence_transformer.modules
    parts = [modules.Transformer(str(plain)), modules.Pooling(96, "lasttoken"), modules.Normalize()]
    sentence_transformers.SentenceTransformer(modules=parts, device="cpu").save(str(folder))
    few = texts[::7]
    for path in (plain, folder):
        theirs = sentence_transformers.SentenceTransformer(str(path), device="cpu")
        expected, found = theirs.encode(few), SentenceTransformer(path).encode(few)
        sizes = np.linalg.norm(expected, axis=1, keepdims=True)
        assert (np.abs(found - expected) / sizes).max() <= LARGEST_DIFFERENCE


@pytest.mark.parametrize("tied", [True, False])
def test_a_qwen3_folder_generates_transformers_tokens(transformers, texts, tmp_path, tied):
    """Greedy generation gives the same tokens, for prompts of different lengths in one call."""
    import torch

    fields = QWEN3.fields | {"tie_word_embeddings": tied}
    theirs = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**fields)).eval()
    randomize(theirs)
    theirs.save_pretrained(tmp_path)
    tokenizer = tokenizer_of(transformers, QWEN3, texts)
    tokenizer.save_pretrained(tmp_path)
    encoder = SentenceTransformer(tmp_path).encoder
    head = None
    if not tied:
        head = nn.Linear(encoder.hidden_size, encoder.vocab_size, bias=False)
        head.weight = theirs.lm_head.weight.detach().numpy()
    ours = nn.LanguageModel(encoder, lm_head=head)
    prompts = [tokenizer(text)["input_ids"][:30] for text in texts[:6]]
    found = generate(ours, prompts, max_new_tokens=25)
    for prompt, tokens in zip(prompts, found, strict=True):
        ids = torch.tensor([prompt])
        with torch.no_grad():
            expected = theirs.generate(
                ids, max_new_tokens=25, do_sample=False, eos_token_id=None, pad_token_id=0
            )
        assert list(tokens)[-25:] == expected[0, len(prompt) :].tolist()
