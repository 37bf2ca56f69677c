"""simdformer.generation compared with transformers: logits processors, and an encoder-decoder."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from simdformer import nn
from simdformer.generation import GenerationConfig, distribution, generate, penalized, stream

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

EOS, START, VOCAB = 9, 1, 50


# Logits processors


def random_logits(rng, rows=50):
    return rng.standard_normal((rows, VOCAB)) * 3


PROCESSORS = [
    ({"top_k": 5}, [("TopKLogitsWarper", {"top_k": 5})]),
    ({"top_k": 500}, [("TopKLogitsWarper", {"top_k": 500})]),
    ({"top_p": 0.8}, [("TopPLogitsWarper", {"top_p": 0.8})]),
    ({"top_p": 0.05}, [("TopPLogitsWarper", {"top_p": 0.05})]),
    ({"min_p": 0.2}, [("MinPLogitsWarper", {"min_p": 0.2})]),
    (
        {"temperature": 1.7, "top_k": 20, "top_p": 0.9, "min_p": 0.05},
        [
            ("TemperatureLogitsWarper", {"temperature": 1.7}),
            ("TopKLogitsWarper", {"top_k": 20}),
            ("TopPLogitsWarper", {"top_p": 0.9}),
            ("MinPLogitsWarper", {"min_p": 0.05}),
        ],
    ),
]


@pytest.mark.parametrize(("options", "processors"), PROCESSORS, ids=lambda x: str(x)[:60])
def test_the_same_tokens_remain_with_the_same_probabilities(rng, options, processors):
    logits = random_logits(rng)
    theirs = torch.tensor(logits)
    for name, arguments in processors:
        theirs = getattr(transformers, name)(**arguments)(None, theirs)
    expected = theirs.softmax(dim=-1).numpy()
    for row, p in zip(logits, expected, strict=True):
        got = distribution(row, GenerationConfig(do_sample=True, **options))
        np.testing.assert_array_equal(got > 0, p > 0)
        np.testing.assert_allclose(got, p, rtol=1e-10)


@pytest.mark.parametrize("penalty", [0.5, 1.3])
def test_a_repetition_penalty_gives_the_same_scores(rng, penalty):
    logits = random_logits(rng)
    prompt, new = [3, 1, 4, 1], [5, 9, 2]
    processor = transformers.RepetitionPenaltyLogitsProcessor(penalty)
    ids = torch.tensor([prompt + new]).expand(len(logits), -1)
    expected = processor(ids, torch.tensor(logits)).numpy()
    config = GenerationConfig(repetition_penalty=penalty)
    got = [penalized(row, prompt, new, config) for row in logits]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("count", [0, 2, 3])
def test_scores_before_the_minimum_length_are_the_same(rng, count):
    logits = random_logits(rng)
    prompt, new = [3, 1, 4], [5] * count
    processor = transformers.MinNewTokensLengthLogitsProcessor(len(prompt), 3, EOS)
    ids = torch.tensor([prompt + new]).expand(len(logits), -1)
    expected = processor(ids, torch.tensor(logits)).numpy()
    config = GenerationConfig(min_new_tokens=3, eos_token_id=EOS)
    np.testing.assert_array_equal([penalized(row, prompt, new, config) for row in logits], expected)


# An encoder-decoder


@pytest.fixture(scope="module")
def marian():
    """transformers' Marian with random weights, and its encoder and decoder from our modules."""
    torch.manual_seed(3)
    config = transformers.MarianConfig(
        vocab_size=VOCAB, d_model=24, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=40,
        decoder_ffn_dim=40, encoder_attention_heads=4, decoder_attention_heads=4,
        activation_function="relu", scale_embedding=True, max_position_embeddings=64,
        pad_token_id=0, eos_token_id=EOS, decoder_start_token_id=START, forced_eos_token_id=None,
        init_std=0.4,
    )  # fmt: skip
    theirs = transformers.MarianMTModel(config).eval()
    w = {k.removeprefix("model."): v.numpy() for k, v in theirs.state_dict().items()}
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(24, 4, 40, batch_first=True), 2)
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(24, 4, 40, batch_first=True), 2)
    encoder.load_state_dict(stack_state(w, "encoder", {"self_attn_layer_norm": "norm1"}, "norm2"))
    norms = {"self_attn_layer_norm": "norm1", "encoder_attn_layer_norm": "norm2"}
    decoder.load_state_dict(stack_state(w, "decoder", norms, "norm3"))
    embedding = nn.Embedding(VOCAB, 24)
    embedding.weight = w["shared.weight"]
    positions = nn.SinusoidalPositionalEncoding(24, layout="concat")
    model = nn.LanguageModel(embedding, decoder, position=positions, scale=24**0.5)

    def encode(prompts):
        x = [positions(embedding(np.array(p)) * np.float32(24**0.5)) for p in prompts]
        cu = np.concatenate([[0], np.cumsum([len(p) for p in prompts])])
        return {
            "memory": encoder(np.concatenate(x), cu_seqlens=cu),
            "memory_cu_seqlens": cu,
        }

    return theirs, model, encode


def stack_state(w, name, norms, last_norm):
    """A stack's parameters with Marian's names, renamed to ours."""
    norms = {**norms, "final_layer_norm": last_norm, "fc1": "linear1", "fc2": "linear2"}
    attentions = {"self_attn": "self_attn", "encoder_attn": "multihead_attn"}
    state = {}
    for i, part in itertools.product(range(2), ("weight", "bias")):
        at, ours = f"{name}.layers.{i}", f"layers.{i}"
        for old, new in norms.items():
            state[f"{ours}.{new}.{part}"] = w[f"{at}.{old}.{part}"]
        for old, new in attentions.items():
            if f"{at}.{old}.q_proj.weight" in w:
                parts = [w[f"{at}.{old}.{p}_proj.{part}"] for p in "qkv"]
                state[f"{ours}.{new}.in_proj_{part}"] = np.concatenate(parts)
                state[f"{ours}.{new}.out_proj.{part}"] = w[f"{at}.{old}.out_proj.{part}"]
    return state


SOURCES = [[3, 14, 15, 9, 2, 6], [27], [18, 28, 18, 28, 45, 9]]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"repetition_penalty": 1.4},
        {"min_new_tokens": 7},
        {"num_beams": 4},
        {"num_beams": 4, "length_penalty": 2.0},
        {"num_beams": 4, "length_penalty": 0.0, "early_stopping": True},
        {"num_beams": 3, "length_penalty": 0.5, "early_stopping": "never"},
        {"num_beams": 3, "repetition_penalty": 1.2, "min_new_tokens": 4},
    ],
    ids=str,
)
def test_an_encoder_decoder_generates_what_transformers_does(marian, options):
    theirs, model, encode = marian
    together = generate(
        model, [[START]] * 3, max_new_tokens=12, eos_token_id=EOS, **encode(SOURCES), **options
    )
    for source, got in zip(SOURCES, together, strict=True):
        ids = torch.tensor([source])
        expected = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, **options
        )[0, 1:].tolist()
        assert got == expected[: len(got)]
        assert not any(expected[len(got) :])  # padding


def test_a_stream_is_what_transformers_generates(marian):
    theirs, model, encode = marian
    tokens = [[] for _ in SOURCES]
    options = {"max_new_tokens": 12, "eos_token_id": EOS}
    for i, token in stream(model, [[START]] * 3, **encode(SOURCES), **options):
        tokens[i].append(token)
    for source, got in zip(SOURCES, tokens, strict=True):
        ids = torch.tensor([source])
        expected = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12)
        assert got == expected[0, 1 : 1 + len(got)].tolist()
