# SPDX-License-Identifier: Apache-2.0
"""Scaling of rotary frequencies, with the names of Hugging Face configurations."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Float64: TypeAlias = NDArray[np.float64]

LENGTH = "original_max_position_embeddings"
REQUIRED = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor", LENGTH),
    "ntk": ("factor",),
    "yarn": ("factor", LENGTH),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", LENGTH),
    "longrope": ("short_factor", "long_factor", LENGTH),
}
OPTIONAL = {
    "longrope": ("factor", "attention_factor"),
    "yarn": ("beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate"),
}


def scaled_frequencies(
    dim: int, base: float, scaling: Mapping[str, Any] | None, seq_len: int
) -> tuple[Float64, float]:
    """The frequencies (dim / 2,) and the factor of cos and sin."""
    if scaling is not None and not isinstance(scaling, Mapping):
        raise TypeError(f"scaling must be a mapping or None, got {type(scaling).__name__}")
    options = {name: value for name, value in (scaling or {}).items() if value is not None}
    kind = options.pop("rope_type", options.pop("type", "default"))
    base = options.pop("rope_theta", base)
    check(kind, options)
    dim = partial_dim(dim, options.pop("partial_rotary_factor", None))
    if not base > 0:
        raise ValueError(f"base must be positive, got {base}")
    for name, value in {"base": base, **options}.items():
        if isinstance(value, int) and value > sys.float_info.max:
            raise ValueError(
                f"{name} must be a finite number, got an integer beyond float64's range"
            )
    if kind in ("yarn", "longrope"):
        return yarn(dim, base, options) if kind == "yarn" else longrope(dim, base, seq_len, options)
    inv_freq: dict[str, Callable[[], Float64]] = {
        "default": lambda: plain(dim, base),
        "linear": lambda: plain(dim, base) / options["factor"],
        "dynamic": lambda: dynamic(dim, base, seq_len, **options),
        "ntk": lambda: ntk(dim, base, options["factor"]),
        "llama3": lambda: llama3(dim, base, options),
    }
    return inv_freq[kind](), 1.0


def check(kind: Any, options: Mapping[str, Any]) -> None:
    if kind not in REQUIRED:
        raise ValueError(f"unknown rope_type {kind!r}; known: {', '.join(REQUIRED)}")
    if missing := [name for name in REQUIRED[kind] if name not in options]:
        raise ValueError(f"scaling of rope_type {kind!r} lacks {', '.join(missing)}")
    known = {*REQUIRED[kind], *OPTIONAL.get(kind, ()), "partial_rotary_factor"}
    if unknown := sorted(options.keys() - known):
        raise ValueError(f"scaling of rope_type {kind!r} has unknown {', '.join(unknown)}")
    if "factor" in options and not options["factor"] >= 1:
        raise ValueError(f"scaling's factor must be >= 1, got {options['factor']}")


def partial_dim(dim: int, factor: Any) -> int:
    """The number of features that are rotated."""
    if factor is None:
        return dim
    part = int(dim * factor)
    if not 0 < factor <= 1 or part % 2:
        raise ValueError(
            f"scaling's partial_rotary_factor must be in (0, 1] and give an even part of {dim}"
            f" features, got {factor}"
        )
    return part


def plain(dim: int, base: float) -> Float64:
    j = np.arange(dim // 2, dtype=np.float64)
    return np.asarray(base ** (-2 * j / max(dim, 1)), np.float64)


def dynamic(
    dim: int, base: float, seq_len: int, factor: float, original_max_position_embeddings: int
) -> Float64:
    """base (f L / L_max - (f - 1))^(d / (d - 2)) for lengths L beyond L_max."""
    longer = max(seq_len, original_max_position_embeddings) / original_max_position_embeddings
    stretch = factor * longer - (factor - 1)
    return plain(dim, base * stretch ** (dim / (dim - 2)) if dim > 2 else base)


def ntk(dim: int, base: float, factor: float) -> Float64:
    """Fixed scaling as in GTE's published code: base f, and all frequencies divided by f^(2 / d)."""
    return np.asarray(plain(dim, base * factor) / factor ** (2 / max(dim, 1)), np.float64)


def yarn(dim: int, base: float, options: Mapping[str, Any]) -> tuple[Float64, float]:
    """Peng et al. 2023: high frequencies are kept and low ones interpolated, with a linear ramp
    between them. cos and sin are multiplied by 0.1 ln(factor) + 1."""
    factor, length = options["factor"], options[LENGTH]

    def turning(rotations: float) -> float:
        """The pair of features that makes this many turns within the original length."""
        return dim * math.log(length / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low, high = turning(options.get("beta_fast", 32)), turning(options.get("beta_slow", 1))
    if options.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = (np.arange(dim // 2) - low) / (high - low if high > low else 0.001)
    ramp = np.clip(ramp, 0, 1)
    inv_freq = plain(dim, base)
    return inv_freq / factor * ramp + inv_freq * (1 - ramp), yarn_attention_factor(options)


def yarn_attention_factor(options: Mapping[str, Any]) -> float:
    if options.get("attention_factor") is not None:
        return float(options["attention_factor"])

    def growth(mscale: float) -> float:
        factor = options["factor"]
        return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0

    if options.get("mscale") and options.get("mscale_all_dim"):
        return growth(options["mscale"]) / growth(options["mscale_all_dim"])
    return growth(1)


def longrope(
    dim: int, base: float, seq_len: int, options: Mapping[str, Any]
) -> tuple[Float64, float]:
    """Ding et al. 2024: each frequency is divided by its own factor, from short_factor up to the
    original length and from long_factor beyond it. cos and sin are multiplied by
    sqrt(1 + ln(factor) / ln(length))."""
    length, name = options[LENGTH], "short_factor"
    if seq_len > length:
        name = "long_factor"
    factors = np.asarray(options[name], np.float64)
    if factors.shape != (dim // 2,):
        raise ValueError(f"scaling's {name} must hold {dim // 2} numbers, got {factors.shape}")
    scale, factor = options.get("attention_factor"), options.get("factor")
    if scale is None:
        if factor is None:
            raise ValueError("scaling of rope_type 'longrope' lacks factor or attention_factor")
        scale = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(length))
    return plain(dim, base) / factors, float(scale)


def llama3(dim: int, base: float, options: Mapping[str, Any]) -> Float64:
    """Dubey et al. 2024: wavelengths longer than L / low are divided by factor, those shorter than
    L / high are kept, with a linear blend between them."""
    inv_freq = plain(dim, base)
    turns = options[LENGTH] * inv_freq / (2 * math.pi)
    low, high = options["low_freq_factor"], options["high_freq_factor"]
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return np.asarray((1 - smooth) * inv_freq / options["factor"] + smooth * inv_freq, np.float64)
