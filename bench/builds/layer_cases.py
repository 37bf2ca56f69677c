"""Cases of simdformer.nn: encoders, decoders with memory and cache, attention, generation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from builds.case import Arrays, Case, filled, normal
from simdformer import nn
from simdformer.generation import generate

LENGTHS = (1, 33, 7, 70)
CU = np.cumsum([0, *LENGTHS])
MEMORY_CU = np.cumsum([0, 5, 1, 40, 17])
# Heads with 12 features, no multiple of a vector, and with 32.
SIZES = ((48, 4, 100), (128, 4, 256))

POSITIONS: dict[str, Callable[[int, int], Any]] = {
    "none": lambda _d, _h: None,
    "rotary": lambda d, h: nn.RotaryEmbedding(d // h),
    "rotary interleaved": lambda d, h: nn.RotaryEmbedding(d // h // 2, interleaved=True),
    "alibi": lambda _, h: nn.ALiBi(h),
    "t5": lambda _, h: nn.RelativePositionBias(h),
    "shaw": lambda d, h: nn.ShawRelativePosition(d // h, 9),
    "xl": nn.TransformerXLRelativePosition,
    "deberta": lambda d, h: nn.DisentangledRelativePosition(d, h, max_relative_positions=64),
    "deberta buckets": lambda d, h: nn.DisentangledRelativePosition(
        d, h, position_buckets=16, max_relative_positions=64, share_att_key=False
    ),
}
PRODUCTS = ("scaled_dot", "dot")
SCORES = (*PRODUCTS, "bilinear", "euclidean", "cosine", "additive")
GATED = ("glu", "bilinear", "reglu", "geglu", "geglu_tanh", "swiglu")
ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu", "quick_gelu", "tanh", "sigmoid", "identity")

LAYERS: dict[str, dict[str, Any]] = {
    **{f"activation {name}": {"activation": name} for name in (*ACTIVATIONS, *GATED)},
    "norm first": {"norm_first": True, "activation": "gelu"},
    "norm rms": {"norm": "rms", "norm_first": True, "activation": "swiglu"},
    "norm batch": {"norm": "batch"},
    "no bias": {"bias": False},
    "alpha": {"alpha": 1.7},
    "no residual": {"residual": False},
    "grouped queries": {"num_kv_heads": 2},
    "one key head": {"num_kv_heads": 1, "norm_first": True},
    "tied": {"tie_qk": True},
    "window": {"window_size": (4, 6)},
    "softcap": {"softcap": 5.0, "scale": 0.3},
    "logit scale": {"logit_scale": True, "score": "cosine"},
    "nan": {"masked_row": "nan"},
}


def cases() -> Iterator[Case]:
    for d, heads, inner in SIZES:
        size = f"{d} features"
        for name, options in LAYERS.items():
            yield Case(f"nn/encoder/{size}/{name}", _encoder(d, heads, inner, options))
            yield Case(f"nn/decoder/{size}/{name}", _decoder(d, heads, inner, options))
        for name, make in POSITIONS.items():
            options = {"position": make(d, heads), "norm_first": True}
            yield Case(f"nn/encoder/{size}/position {name}", _encoder(d, heads, inner, options))
            yield Case(f"nn/decoder/{size}/position {name}", _decoder(d, heads, inner, options))
        norm = {"qk_norm": nn.RMSNorm(d // heads), "position": nn.RotaryEmbedding(d // heads)}
        yield Case(f"nn/encoder/{size}/head norms", _encoder(d, heads, inner, norm))
        yield Case(f"nn/decoder/{size}/head norms", _decoder(d, heads, inner, norm))
        yield from _attentions(d, heads, size)
        yield Case(f"nn/transformer/{size}", _transformer(d, heads, inner))
    yield from _language_models()


def _key_mask(length: int) -> np.ndarray:
    """Masks for three sequences: without padding, padded after, and padded before."""
    places = np.arange(length)
    return np.stack([places < 0, places >= length - 5, places < 3])


def _encoder(d: int, heads: int, inner: int, options: dict[str, Any]) -> Callable[[int], Arrays]:
    def run(threads: int) -> Arrays:
        # A third layer, so that the first two are not the only ones run in blocks.
        layer = nn.TransformerEncoderLayer(d, heads, inner, batch_first=True, **options)
        stack = filled(nn.TransformerEncoder(layer, 3, nn.LayerNorm(d)))
        x, padded = normal("src", CU[-1], d), normal("padded", 3, 21, d)
        causal = np.triu(np.ones((21, 21), np.bool_), 1)
        call: dict[str, Any] = {"num_threads": threads}
        masked = stack(padded, src_key_padding_mask=_key_mask(21), need_weights=True, **call)
        factors = [normal("factors", heads), None, normal("factors of all", 3, heads)]
        arrays = {
            "packed": stack(x, cu_seqlens=CU, **call),
            "padded": masked[0],
            "weights": np.stack(masked[1]),
            "causal": stack(padded, causal, **call),
            "added": stack(padded, normal("mask", 21, 21), head_mask=factors, **call),
            "one layer": stack.layers[1](x, cu_seqlens=CU, **call),
        }
        if _can_cache(options):
            cache = nn.DecoderCache(len(LENGTHS))
            arrays |= _steps(lambda x, cu: stack(x, cu_seqlens=cu, cache=cache, **call), d)
        return arrays

    return run


def _can_cache(options: dict[str, Any]) -> bool:
    position = options.get("position")
    return not isinstance(position, nn.DisentangledRelativePosition)


def _steps(step: Callable[[np.ndarray, np.ndarray], Any], d: int) -> Arrays:
    """First calls of different lengths, then single tokens."""
    arrays = {"cached 0": step(normal("start", CU[-1], d), CU)}
    for i in range(1, 4):
        x = normal(f"step {i}", len(LENGTHS), d)
        arrays[f"cached {i}"] = step(x, np.arange(len(LENGTHS) + 1))
    return arrays


def _decoder(d: int, heads: int, inner: int, options: dict[str, Any]) -> Callable[[int], Arrays]:
    def run(threads: int) -> Arrays:
        layer = nn.TransformerDecoderLayer(d, heads, inner, batch_first=True, **options)
        stack = filled(nn.TransformerDecoder(layer, 2))
        x, memory = normal("tgt", CU[-1], d), normal("memory", MEMORY_CU[-1], d)
        call: dict[str, Any] = {"num_threads": threads}
        masked = stack(
            normal("padded", 3, 21, d),
            normal("padded memory", 3, 17, d),
            np.triu(np.ones((21, 21), np.bool_), 1),
            memory_key_padding_mask=_key_mask(17),
            need_weights=True,
            **call,
        )
        arrays = {
            "packed": stack(x, memory, cu_seqlens=CU, memory_cu_seqlens=MEMORY_CU, **call),
            "padded": masked[0],
            "self weights": np.stack(masked[1]),
            "cross weights": np.stack(masked[2]),
        }
        if _can_cache(options):
            cache = nn.DecoderCache(len(LENGTHS))

            def step(x: np.ndarray, cu: np.ndarray) -> Any:
                first = cache.max_length == 0
                given = {"memory_cu_seqlens": MEMORY_CU} if first else {}
                seen = memory if first else None
                return stack(x, seen, cu_seqlens=cu, cache=cache, **given, **call)

            arrays |= _steps(step, d)
        return arrays

    return run


def _attentions(d: int, heads: int, size: str) -> Iterator[Case]:
    for score in SCORES:
        for name, make in POSITIONS.items():
            if name in ("shaw", "xl", "deberta", "deberta buckets") and score not in PRODUCTS:
                continue
            options = {"score": score, "position": make(d, heads)}
            yield Case(f"nn/attention/{size}/{score}, position {name}", _self(d, heads, options))
        grouped = {"score": score, "num_kv_heads": 2}
        yield Case(f"nn/attention/{size}/{score}, grouped queries", _self(d, heads, grouped))
        yield Case(f"nn/attention/{size}/{score}, other keys", _cross(d, heads, {"score": score}))
    for name, options in {
        "appended keys": {"add_bias_kv": True, "add_zero_attn": True},
        "head norms": {"qk_norm": nn.LayerNorm(d // heads)},
        "window": {"window_size": (3, 0)},
        "tied": {"tie_qk": True, "score": "cosine"},
    }.items():
        yield Case(f"nn/attention/{size}/{name}", _self(d, heads, options))


def _self(d: int, heads: int, options: dict[str, Any]) -> Callable[[int], Arrays]:
    def run(threads: int) -> Arrays:
        attention = filled(nn.MultiheadAttention(d, heads, batch_first=True, **options))
        x, padded = normal("x", CU[-1], d), normal("padded", 3, 21, d)
        call: dict[str, Any] = {"num_threads": threads}
        packed = {"need_weights": False, "cu_seqlens": CU, **call}
        masks = {"key_padding_mask": _key_mask(21), "attn_mask": normal("mask", 21, 21)}
        masked = attention(padded, padded, padded, average_attn_weights=False, **masks, **call)
        factors = normal("factors", heads)
        arrays = {
            "packed": attention(x, x, x, **packed)[0],
            "masked": masked[0],
            "weights": masked[1],
            "mean weights": attention(padded, padded, padded, **call)[1],
            "heads": attention.head_outputs(x, x, x, cu_seqlens=CU, **call),
            "factors": attention(x, x, x, head_mask=factors, **packed)[0],
        }
        if "num_kv_heads" not in options:
            attention.prune_heads([1])
            arrays["pruned"] = attention(x, x, x, **packed)[0]
        return arrays

    return run


def _cross(d: int, heads: int, options: dict[str, Any]) -> Callable[[int], Arrays]:
    def run(threads: int) -> Arrays:
        sizes = {"kdim": d + 8, "vdim": d - 8}
        attention = filled(nn.MultiheadAttention(d, heads, **sizes, **options))
        x = normal("query", CU[-1], d)
        key, value = normal("key", MEMORY_CU[-1], d + 8), normal("value", MEMORY_CU[-1], d - 8)
        offsets = {"cu_seqlens": CU, "cu_seqlens_k": MEMORY_CU}
        out, weights = attention(x, key, value, **offsets, num_threads=threads)
        return {"packed": out, "weights": weights}

    return run


def _transformer(d: int, heads: int, inner: int) -> Callable[[int], Arrays]:
    def run(threads: int) -> Arrays:
        model = filled(nn.Transformer(d, heads, 2, 2, inner, batch_first=True))
        src, tgt = normal("src", 2, 19, d), normal("tgt", 2, 11, d)
        mask = nn.Transformer.generate_square_subsequent_mask(11)
        return {"out": model(src, tgt, tgt_mask=mask, num_threads=threads)}

    return run


PROMPTS = [[3, 1, 4, 1, 5], [2], [6, 5, 3, 5, 8, 9, 7, 9], [10, 11]]
CHOICES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beams": {"num_beams": 4, "length_penalty": 0.8, "eos_token_id": 4},
    "sample": {"do_sample": True, "seed": 5, "top_k": 20, "temperature": 0.9},
    "penalty": {"repetition_penalty": 1.4, "eos_token_id": 4},
}
GENERATORS: dict[str, dict[str, Any]] = {
    "gpt": {"norm_first": True, "activation": "gelu"},
    "llama": {"norm_first": True, "activation": "swiglu", "norm": "rms", "num_kv_heads": 2},
    "bloom": {"norm_first": True, "activation": "gelu_tanh"},
}


def _language_models() -> Iterator[Case]:
    d, heads, vocabulary = 64, 4, 83
    for name, options in GENERATORS.items():
        position = {"llama": nn.RotaryEmbedding(d // heads), "bloom": nn.ALiBi(heads)}.get(name)
        layer = nn.TransformerEncoderLayer(d, heads, 128, position=position, **options)
        stack = nn.TransformerEncoder(layer, 2, nn.LayerNorm(d))
        learned = nn.LearnedPositionalEmbedding(64, d) if name == "gpt" else None
        model = nn.LanguageModel(nn.Embedding(vocabulary, d), stack, position=learned)
        yield Case(f"nn/generate/{name}", _generate(filled(model), {}))
    layer = nn.TransformerDecoderLayer(d, heads, 128, norm_first=True)
    model = nn.LanguageModel(
        nn.Embedding(vocabulary, d),
        nn.TransformerDecoder(layer, 2),
        position=nn.SinusoidalPositionalEncoding(d),
        lm_head=nn.Linear(d, vocabulary),
        scale=8.0,
    )
    memory = {"memory": normal("memory", MEMORY_CU[-1], d), "memory_cu_seqlens": MEMORY_CU}
    yield Case("nn/generate/with a memory", _generate(filled(model), memory))


def _generate(model: Any, memory: dict[str, Any]) -> Callable[[int], Arrays]:
    def run(threads: int) -> Arrays:
        call = {"num_threads": threads, **memory}
        ids = np.concatenate(PROMPTS)
        cu = np.cumsum([0, *map(len, PROMPTS)])
        arrays = {"logits": model(ids, cu, **call)}
        for name, options in CHOICES.items():
            tokens = generate(model, PROMPTS, max_new_tokens=12, **options, **call)
            arrays[name] = np.array([one + [-1] * (12 - len(one)) for one in tokens])
        return arrays

    return run
