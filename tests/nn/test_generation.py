"""Generation, compared with a pass over the whole sequence per token, exhaustive search, and transformers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from simdformer import nn
from simdformer.generation import GenerationConfig, distribution, generate, stream
from tests.support import assert_same_bits

PROMPTS = [[3, 1, 4, 1, 5], [2], [6, 5, 3]]
VOCAB = 11


@pytest.fixture(scope="module")
def model():
    return language_model()


def language_model(vocab=VOCAB, **options):
    nn.manual_seed(7)
    layer = nn.TransformerEncoderLayer(24, 4, 48, norm_first=True, batch_first=True, **options)
    return nn.LanguageModel(
        nn.Embedding(vocab, 24),
        nn.TransformerEncoder(layer, 2, nn.LayerNorm(24)),
        position=nn.SinusoidalPositionalEncoding(24),
        lm_head=nn.Linear(24, vocab, bias=False),
    )


def next_logits(model, ids):
    """The logits after these ids, without a cache."""
    return model(np.array(ids), [0, len(ids)], num_threads=1)[-1]


def log_probability(model, prompt, new):
    """The sum of the new tokens' log-probabilities, without a cache."""
    ids = [*prompt, *new[:-1]]
    x = model(np.array(ids), [0, len(ids)], num_threads=1)[len(prompt) - 1 :].astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    said = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    return said[np.arange(len(new)), list(new)].sum()


def test_greedy_is_argmax_after_argmax(model):
    for prompt, got in zip(PROMPTS, generate(model, PROMPTS, max_new_tokens=12), strict=True):
        expected = []
        for _ in range(12):
            expected.append(int(next_logits(model, prompt + expected).argmax()))
        assert got == expected


def test_logits_of_the_cache_are_those_of_the_whole(model):
    ids = np.array([3, 1, 4, 1, 5, 9, 2, 6])
    whole = model(ids, [0, 8])
    cache = nn.DecoderCache(1)
    parts = [model(ids[a:b], [0, b - a], cache=cache) for a, b in [(0, 5), (5, 6), (6, 8)]]
    assert_same_bits(np.concatenate(parts), whole)


@pytest.mark.parametrize(
    "options",
    [{}, {"do_sample": True, "seed": 5}, {"num_beams": 3}, {"repetition_penalty": 1.5}],
    ids=str,
)
def test_other_prompts_change_nothing(model, options):
    together = generate(model, PROMPTS, max_new_tokens=9, eos_token_id=4, **options)
    assert (
        together[0] == generate(model, PROMPTS[:1], max_new_tokens=9, eos_token_id=4, **options)[0]
    )
    if not options.get("do_sample"):
        alone = [
            generate(model, [p], max_new_tokens=9, eos_token_id=4, **options)[0] for p in PROMPTS
        ]
        assert together == alone


def test_a_seed_repeats_and_another_differs(model):
    def run(seed):
        return generate(model, PROMPTS, max_new_tokens=15, do_sample=True, seed=seed)

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_sampling_follows_the_distribution(model):
    options = {"do_sample": True, "temperature": 0.7, "top_k": 6}
    draws = [t for [t] in generate(model, [[3, 1]] * 3000, max_new_tokens=1, seed=0, **options)]
    p = distribution(next_logits(model, [3, 1]).astype(np.float64), GenerationConfig(**options))
    counts = np.bincount(draws, minlength=VOCAB)
    # Five standard deviations of a binomial distribution: a correct sampler fails once in a million; the seed
    # is fixed.
    assert (np.abs(counts - 3000 * p) <= 5 * np.sqrt(3000 * p * (1 - p)) + 1e-9).all()


SCORES = np.log([0.4, 0.3, 0.15, 0.1, 0.05])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.4, 0.3, 0.15, 0.1, 0.05]),
        ({"top_k": 2}, [4 / 7, 3 / 7, 0, 0, 0]),
        ({"top_p": 0.6}, [4 / 7, 3 / 7, 0, 0, 0]),
        ({"top_p": 0.75}, [0.4 / 0.85, 0.3 / 0.85, 0.15 / 0.85, 0, 0]),
        ({"top_p": 0.01}, [1, 0, 0, 0, 0]),
        ({"min_p": 0.3}, [0.4 / 0.85, 0.3 / 0.85, 0.15 / 0.85, 0, 0]),
        ({"temperature": 0.5}, np.array([16, 9, 2.25, 1, 0.25]) / 28.5),
        ({"top_k": 3, "top_p": 0.8}, [4 / 7, 3 / 7, 0, 0, 0]),
    ],
    ids=str,
)
def test_what_sampling_draws_from(options, expected):
    got = distribution(SCORES, GenerationConfig(do_sample=True, **options))
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_beam_search_finds_the_best_of_all():
    model = language_model(vocab=5)
    for prompt in PROMPTS[1:2]:
        best = max(
            itertools.product(range(5), repeat=3),
            key=lambda new: log_probability(model, prompt, new),
        )
        assert generate(model, [prompt], num_beams=125, max_new_tokens=3) == [list(best)]


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 3.0])
def test_beam_search_applies_the_length_penalty(length_penalty):
    model = language_model(vocab=4)
    eos = 2
    ended = [
        new
        for n in (1, 2, 3, 4)
        for new in itertools.product(range(4), repeat=n)
        if eos not in new[:-1] and (new[-1] == eos or n == 4)
    ]
    best = max(ended, key=lambda new: log_probability(model, [1], new) / len(new) ** length_penalty)
    got = generate(
        model,
        [[1]],
        num_beams=256,
        max_new_tokens=4,
        eos_token_id=eos,
        length_penalty=length_penalty,
        early_stopping="never",
    )
    assert got == [list(best)]


def test_a_wide_beam_is_no_worse_than_greedy(model):
    for prompt in PROMPTS:
        greedy, beam = (generate(model, [prompt], max_new_tokens=8, num_beams=n)[0] for n in (1, 8))
        assert log_probability(model, prompt, beam) >= log_probability(model, prompt, greedy) - 1e-6


def test_sequences_end_with_eos_or_a_stop_sequence(model):
    free = generate(model, PROMPTS, max_new_tokens=12)
    eos = free[0][3]
    ended = generate(model, PROMPTS, max_new_tokens=12, eos_token_id=[eos, VOCAB])
    for whole, cut in zip(free, ended, strict=True):
        end = whole.index(eos) + 1 if eos in whole else 12
        assert cut == whole[:end]
    stop = free[0][4:6]
    [cut, *_] = generate(model, PROMPTS, max_new_tokens=12, stop_sequences=[stop, [VOCAB]])
    assert cut[-2:] == stop
    assert cut == free[0][: len(cut)]


def test_min_new_tokens_delay_the_end(model):
    eos = generate(model, PROMPTS[:1], max_new_tokens=1)[0][0]
    [new] = generate(model, PROMPTS[:1], max_new_tokens=9, eos_token_id=eos, min_new_tokens=5)
    assert eos not in new[:5]


def test_a_huge_repetition_penalty_repeats_nothing(model):
    logits = next_logits(model, PROMPTS[0])
    assert logits.min() < 0 < logits.max()
    [new] = generate(model, PROMPTS[:1], max_new_tokens=5, repetition_penalty=1e9)
    assert len({*new, *PROMPTS[0]}) == len(set(PROMPTS[0])) + 5


def test_stream_is_generate_one_token_at_a_time(model):
    results = [[] for _ in PROMPTS]
    for index, token in stream(model, PROMPTS, max_new_tokens=6, eos_token_id=4):
        results[index].append(token)
    assert results == generate(model, PROMPTS, max_new_tokens=6, eos_token_id=4)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_encoder_decoder(num_beams):
    nn.manual_seed(1)
    layer = nn.TransformerDecoderLayer(24, 4, 48)
    model = nn.LanguageModel(
        nn.Embedding(VOCAB, 24), nn.TransformerDecoder(layer, 2), scale=24**0.5
    )
    memory = np.random.default_rng(0).standard_normal((9, 24)).astype(np.float32)
    cu = [0, 2, 6, 9]
    together = generate(
        model, PROMPTS, memory=memory, memory_cu_seqlens=cu, max_new_tokens=7, num_beams=num_beams
    )
    for i, prompt in enumerate(PROMPTS):
        own = memory[cu[i] : cu[i + 1]]
        alone = {"memory": own, "memory_cu_seqlens": [0, len(own)]}
        assert (
            together[i]
            == generate(model, [prompt], **alone, max_new_tokens=7, num_beams=num_beams)[0]
        )
        if num_beams == 1:
            ids = [*prompt, *together[i]]
            said = model(np.array(ids), [0, len(ids)], **alone)[len(prompt) - 1 : -1]
            assert said.argmax(axis=1).tolist() == together[i]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"min_new_tokens": 30}, r"min_new_tokens must be in \[0, max_new_tokens=20\], got 30"),
        ({"temperature": 0.0}, "temperature must be > 0"),
        ({"top_k": -1}, "top_k must be at least 0"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\]"),
        ({"min_p": 2.0}, r"min_p must be in \[0, 1\]"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be > 0"),
        ({"num_beams": 0}, "num_beams must be at least 1"),
        ({"early_stopping": "soon"}, "early_stopping must be True, False or 'never'"),
        ({"stop_sequences": [[]]}, "stop_sequences must be non-empty lists"),
        ({"num_beams": 2, "do_sample": True}, "mutually exclusive"),
    ],
    ids=str,
)
def test_option_errors(model, options, message):
    with pytest.raises(ValueError, match=message):
        generate(model, PROMPTS, **options)


@pytest.mark.parametrize("prompts", [[], [[1], []]])
def test_empty_prompts_are_refused(model, prompts):
    with pytest.raises(ValueError, match="input_ids must be a non-empty list of non-empty prompts"):
        generate(model, prompts)


def test_ids_beyond_the_vocabulary_are_refused(model):
    with pytest.raises(
        IndexError, match=r"input_ids must be in \[0, 11\), got values from 1 to 11"
    ):
        generate(model, [[1, 11]])


def test_beams_are_not_streamed(model):
    with pytest.raises(ValueError, match="stream needs num_beams=1, got 2"):
        stream(model, PROMPTS, num_beams=2)


# Comparison with transformers


@pytest.fixture(scope="module")
def gpt2():
    """transformers' GPT-2 with random weights, and the same model built from our modules."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=50, n_positions=64, n_embd=24, n_layer=2, n_head=4, initializer_range=0.5,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    theirs = transformers.GPT2LMHeadModel(config).eval()
    w = {k.removeprefix("transformer."): v.numpy() for k, v in theirs.state_dict().items()}
    layer = nn.TransformerEncoderLayer(24, 4, 96, activation="gelu_tanh", norm_first=True)
    ours = nn.LanguageModel(
        nn.Embedding(50, 24),
        nn.TransformerEncoder(layer, 2, nn.LayerNorm(24)),
        position=nn.LearnedPositionalEmbedding(64, 24),
    )
    names = {
        "ln_1": "norm1", "ln_2": "norm2", "attn.c_attn": "self_attn.in_proj_",
        "attn.c_proj": "self_attn.out_proj", "mlp.c_fc": "linear1", "mlp.c_proj": "linear2",
    }  # fmt: skip
    state = {
        "embedding.weight": w["wte.weight"],
        "position.weight": w["wpe.weight"],
        "stack.norm.weight": w["ln_f.weight"],
        "stack.norm.bias": w["ln_f.bias"],
    }
    for i, (old, new), part in itertools.product(range(2), names.items(), ("weight", "bias")):
        value = w[f"h.{i}.{old}.{part}"]
        name = f"{new}{part}" if new.endswith("_") else f"{new}.{part}"
        state[f"stack.layers.{i}.{name}"] = value.T if value.ndim == 2 else value
    ours.load_state_dict(state)
    return ours, theirs, torch


@pytest.mark.parity
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"repetition_penalty": 1.3},
        {"min_new_tokens": 6},
        {"num_beams": 4},
        {"num_beams": 4, "length_penalty": 2.0},
        {"num_beams": 3, "length_penalty": 0.5, "early_stopping": True},
        {"num_beams": 3, "repetition_penalty": 1.2, "early_stopping": "never"},
    ],
    ids=str,
)
def test_generates_what_transformers_generates(gpt2, options):
    ours, theirs, torch = gpt2
    for prompt in ([3, 1, 4, 1, 5], [7], [20, 21, 22]):
        ids = torch.tensor([prompt])
        expected = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False,
            pad_token_id=0, eos_token_id=9, **options,
        )[0, len(prompt) :].tolist()  # fmt: skip
        [got] = generate(ours, [prompt], max_new_tokens=12, eos_token_id=9, **options)
        assert got == expected[: len(got)]
        assert not any(expected[len(got) :])  # padding
