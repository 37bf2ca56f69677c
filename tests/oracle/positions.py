"""The reference of positions: counting, sinusoids, rotary embeddings, biases by distance; float64 NumPy."""

from __future__ import annotations

import math

import numpy as np

from tests.oracle import f64, sequences


def sinusoidal(positions, dim, base=10000.0, freq="paper", layout="interleaved"):
    """Vaswani et al. 2017, section 3.5. "t2t" is the form in the first implementation."""
    positions = f64(positions)[..., None]
    rate = {
        "paper": lambda i: base ** (-2 * i / dim),
        "t2t": lambda i: base ** (-i / max(dim // 2 - 1, 1)),
    }[freq]
    table = np.zeros((*positions.shape[:-1], dim))
    if layout == "interleaved":
        for column in range(dim):
            turn = np.sin if column % 2 == 0 else np.cos
            table[..., column] = turn(positions[..., 0] * rate(column // 2))
    else:
        for i in range(dim // 2):
            table[..., i] = np.sin(positions[..., 0] * rate(i))
            table[..., dim // 2 + i] = np.cos(positions[..., 0] * rate(i))
    return table


def roberta_position_ids(input_ids, cu_seqlens, padding_idx):
    """padding_idx + 1, + 2, ...; a padding token has position padding_idx and does not count."""
    positions = np.full(len(input_ids), padding_idx)
    for tokens in sequences(cu_seqlens):
        counted = tokens[input_ids[tokens] != padding_idx]
        positions[counted] = padding_idx + 1 + np.arange(len(counted))
    return positions


def rotary(x, positions, inv_freq, interleaved=False):
    """Su et al. 2021, equation 15: each pair as a complex number times e^(i p w)."""
    x, pairs = f64(x), len(inv_freq)  # (.., L, E)
    at = np.arange(pairs)
    first, second = (2 * at, 2 * at + 1) if interleaved else (at, at + pairs)
    turned = (x[..., first] + 1j * x[..., second]) * np.exp(
        1j * f64(positions)[..., None] * inv_freq
    )
    out = x.copy()
    out[..., first], out[..., second] = turned.real, turned.imag
    return out


def rotary_inv_freq(dim, base=10000.0):
    return base ** (-np.arange(0, dim, 2) / dim)


def t5_bucket(relative, bidirectional=True, num_buckets=32, max_distance=128):
    """Raffel et al. 2020, one relative position at a time."""
    start = 0
    if bidirectional:
        num_buckets //= 2
        start = num_buckets if relative > 0 else 0
        n = abs(relative)
    else:
        n = max(-relative, 0)
    exact = num_buckets // 2
    if n < exact:
        return start + n
    step = math.log(n / exact) / math.log(max_distance / exact) * (num_buckets - exact)
    return start + min(exact + int(step), num_buckets - 1)


def t5_bias(table, length):
    """The bias of each head, query and key of a sequence: (num_buckets, h) -> (h, n, n)."""
    at = [[t5_bucket(j - i) for j in range(length)] for i in range(length)]
    return f64(table)[np.array(at, int).reshape(length, length)].transpose(2, 0, 1)


def deberta_bucket(distance, buckets, reach):
    """The published code of He et al. 2021, one distance at a time: single distances up to half the buckets,
    then logarithmic steps up to reach."""
    middle = buckets // 2
    if abs(distance) <= middle:
        return distance
    steps = math.log(abs(distance) / middle) / math.log((reach - 1) / middle) * (middle - 1)
    return int(math.copysign(math.ceil(steps) + middle, distance))


def alibi_bias(num_heads, length):
    """Press et al. 2022 in both directions, (h, n, n). For h a power of two the slopes are 2^(-8 i / h);
    otherwise those of the largest power of two below h, then every other slope of twice that number."""

    def slopes(h):
        power = 2 ** int(math.log2(h))
        own = [2.0 ** (-8 * (i + 1) / power) for i in range(power)]
        return own if h == power else own + slopes(2 * power)[0::2][: h - power]

    distance = np.abs(np.arange(length)[:, None] - np.arange(length))
    return -f64(slopes(num_heads))[:, None, None] * distance
