# SPDX-License-Identifier: Apache-2.0
"""The weights of a quantized model in its folder: a safetensors file, and JSON that describes it.

The file is not called model.safetensors: a program that does not know the scheme then finds no weights,
instead of wrong ones. docs/quantization.md describes both files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from simdformer import nn
from simdformer._core import s8_group
from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.int8_matrix import Float32, Int8Matrix
from simdformer.checkpoint.weights import Weights
from simdformer.int8.calibration import QuantizedEncoder
from simdformer.int8.config import CONFIG_FILE, SCHEME, VERSION, QuantizationConfig
from simdformer.int8.parts import EncoderPart, encoder_parts
from simdformer.models.assign import WORDS
from simdformer.models.names import Names
from simdformer.nn.parameters import Stored, shape_of, value_of

WEIGHTS_FILE = "model-int8.safetensors"

# The tensors of a part in int8. Their names begin with the part's name.
_SUFFIXES = ("", "_scale", "_outliers", "_outlier_weight")


def saved_places(
    encoder: nn.TextEncoder, names: Names, checkpoint: Checkpoint, config: QuantizationConfig
) -> Mapping[str, Stored]:
    """Find each parameter's numbers in a folder of version 2 or later.

    Errors: ValueError naming a part that is not declared, a tensor that is missing or has another shape, or a
    tensor that belongs to no parameter.
    """
    weights, owners = Weights(checkpoint, {}), encoder.places()
    places: dict[str, Stored] = {}
    parts = encoder_parts(encoder)
    config.refuse_others(part.name for part in parts)
    for part in parts:
        compute_type = config.compute_type(part.name)
        rotated = config.rotated and part.name != WORDS
        read = _reader(weights, part, _shape(encoder, part), compute_type, rotated)
        places |= part.places(owners, compute_type, read)
    for name in [name for name in owners if name not in places]:
        owner, own = owners[name]
        shape = shape_of(owner.place(own))
        places[name] = Stored(shape, partial(checkpoint.read, weights.checked(name, (), shape)))
    heads = [prefix + name for prefix in ("", *names.prefixes) for name in names.ignored]
    weights.refuse_unread(heads)
    return places


def _shape(encoder: nn.TextEncoder, part: EncoderPart) -> tuple[int, int]:
    """The shape of a part: the rows of its parameters stacked."""
    owners = encoder.places()
    places = [owners[name] for name in part.parameters]
    shapes = [shape_of(owner.place(own)) for owner, own in places]
    return sum(rows for rows, _ in shapes), shapes[0][1]


def _reader(
    weights: Weights, part: EncoderPart, shape: tuple[int, int], compute_type: str, rotated: bool
) -> Callable[[], Float32 | Int8Matrix]:
    if compute_type == "float32":
        return partial(weights.checkpoint.read, weights.checked(part.name, (), shape))
    names = _names(part.name)
    weights.expect(names)
    return partial(weights.int8, names, shape, rotated=rotated)


def _names(part: str) -> list[str]:
    return [part + suffix for suffix in _SUFFIXES]


def saved_tensors(
    encoder: nn.TextEncoder, quantized: QuantizedEncoder
) -> Iterator[tuple[str, NDArray[Any]]]:
    """The tensors of the float32 encoder by name; parts in int8 have several tensors each."""
    owners = encoder.places()
    for part in encoder_parts(encoder):
        slots = [owner.place(own) for owner, own in map(owners.pop, part.parameters)]
        if quantized.part_types[part.name] == "int8":
            *tensors, _ = quantized.matrix(part.name)
            yield from zip(_names(part.name), tensors, strict=True)
        else:
            yield part.name, np.concatenate([value_of(slot) for slot in slots])
    for name, (owner, own) in owners.items():
        yield name, value_of(owner.place(own))


def write_quantized(
    folder: Path, tensors: Mapping[str, NDArray[Any]], config: Mapping[str, Any]
) -> None:
    """Write both files. config: further fields beside scheme, version and group_size."""
    declared = {"scheme": SCHEME, "version": VERSION, "group_size": s8_group(), **config}
    (folder / CONFIG_FILE).write_text(json.dumps(declared, indent=2) + "\n", encoding="utf-8")
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    (folder / WEIGHTS_FILE).write_bytes(save(contiguous))
