"""Mutations of the files of a model folder that follow the structure of the files."""

from __future__ import annotations

import json
import struct

# JSON values of unexpected types.
VALUES = [
    *(None, True, False, 0, -1, 1, 2, 3, 7, 64, 2**31 - 1, 2**31, 2**63, -(2**63), 10**30),
    *(0.0, -0.5, 1.5, 1e-30, 1e308, -1e308, float("nan"), float("inf")),
    *("", "a", "bert", "gelu", "../x", "/dev/zero", "\ud800", "x" * 5000, "\0"),
    *([], [1], [[]], ["a", None], [1e9] * 3, {}, {"a": 1}, {"": {}}, [[[[[[]]]]]]),
]


def mutated(rng, name, data):
    """The bytes of a file with damage in one to three places."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = _once(rng, name, data)
    return data


def _once(rng, name, data):
    if rng.random() < 0.2:
        return _bytes(rng, data)
    if name.endswith(".json"):
        return _json(rng, data)
    if name.endswith(".safetensors"):
        return _safetensors(rng, data)
    if name.endswith(".txt"):
        return _lines(rng, data)
    return _bytes(rng, data)


def _bytes(rng, data):
    kind = rng.randrange(7)
    place = rng.randrange(len(data) + 1)
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data + bytes(rng.randrange(256) for _ in range(rng.randrange(1, 50)))
    if kind == 2:
        return data[:place] + rng.choice((b"\0", b"\xff", b"{", b"]", b"\n")) + data[place:]
    if kind == 3:
        end = min(len(data), place + rng.randrange(1, 200))
        return data[:place] + data[end:]
    if kind == 4:
        end = min(len(data), place + rng.randrange(1, 200))
        return data[:end] + data[place:end] + data[end:]
    # Flipped bits, more often at the beginning, where headers are.
    limit = len(data) if kind == 5 else min(len(data), 200)
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 9) if limit else 0):
        changed[rng.randrange(limit)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _json(rng, data):
    try:
        value = json.loads(data)
    except ValueError:
        return _bytes(rng, data)
    value = _changed(rng, value)
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _changed(rng, value):
    """The same value with something else in one place."""
    places = list(_places(value))
    if not places or rng.random() < 0.03:
        return rng.choice(VALUES)
    # Few of the thousands of entries of a vocabulary, and all settings.
    shallow = [place for place in places if len(place[2]) < 4] or places
    holder, key, _ = rng.choice(shallow if rng.random() < 0.8 else places)
    kind = rng.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif kind == 1:
        holder[rng.choice(("x", "type", "hidden_size", "model_type", ""))] = holder[key]
    elif kind == 2:
        other, other_key, _ = rng.choice(places)
        holder[key] = json.loads(json.dumps(other[other_key]))
    elif kind == 3 and isinstance(holder[key], (int, float)):
        holder[key] = rng.choice((holder[key] + 1, holder[key] - 1, holder[key] * 2, -holder[key]))
    elif kind == 3 and isinstance(holder[key], str):
        holder[key] = _text(rng, holder[key])
    else:
        holder[key] = rng.choice(VALUES)
    return value


def _text(rng, text):
    place = rng.randrange(len(text) + 1)
    return rng.choice((text[:place], text[place:], text + text, text.upper(), text[:place] + "\0é"))


def _places(value, path=()):
    """(holder, key, path) for every place in a JSON value."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return
    for key, inner in items:
        yield value, key, (*path, key)
        yield from _places(inner, (*path, key))


def _safetensors(rng, data):
    """Changes the JSON in the header, or the length of the header."""
    if len(data) < 8:
        return _bytes(rng, data)
    (length,) = struct.unpack("<Q", data[:8])
    header, tensors = data[8 : 8 + length], data[8 + length :]
    kind = rng.randrange(8)
    if kind == 0:
        lie = rng.choice((0, 1, length - 1, length + 1, length * 2, 2**31, 2**40, 2**63, 2**64 - 1))
        return struct.pack("<Q", min(max(0, lie), 2**64 - 1)) + header + tensors
    if kind == 1:
        return data[: 8 + length] + _bytes(rng, tensors)
    if kind == 2:  # not a number, or infinite
        changed = bytearray(tensors)
        for _ in range(rng.randrange(1, 5)):
            if len(changed) >= 4:
                place = rng.randrange(len(changed) // 4) * 4
                changed[place : place + 4] = struct.pack(
                    "<f", rng.choice((float("nan"), float("inf"), -float("inf"), 1e38, 1e-42))
                )
        return data[: 8 + length] + bytes(changed)
    header = _json(rng, header)
    return struct.pack("<Q", len(header)) + header + tensors


def _lines(rng, data):
    lines = data.split(b"\n")
    place = rng.randrange(len(lines))
    kind = rng.randrange(5)
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(place, lines[rng.randrange(len(lines))])
    elif kind == 2:
        lines[place] = rng.choice((b"", b" ", b"\xff\xfe", b"[PAD]", b"x" * 3000))
    elif kind == 3:
        rng.shuffle(lines)
    else:
        lines = lines[:place]
    return b"\n".join(lines)
