# SPDX-License-Identifier: Apache-2.0
"""The loss of each part of an encoder in int8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from simdformer import nn
from simdformer._core import Linear, linear_forward
from simdformer.checkpoint.int8_matrix import Float32, Int8Matrix
from simdformer.int8.parts import first_names, own_parts, stages
from simdformer.int8.reference import (
    Packed,
    Reference,
    copy_of,
    packed_parts,
    run,
    run_recorded,
)
from simdformer.int8.sample import Sample


class Loss(NamedTuple):
    """The loss of one part, a linear layer or a table, in int8.

    error: |int8 - float32| / |float32| of its output. cosine_loss: 1 - the mean cosine of the sample's
    vectors with only this part in int8.
    """

    error: float
    cosine_loss: float


def part_losses(
    reference: Reference,
    matrix_of: Callable[[str], Int8Matrix],
    tokens: Sample,
    exact: Float32,
) -> dict[str, Loss]:
    """The loss of each part.

    matrix_of: returns a part in int8. exact: the float32 vectors; the first ones belong to these tokens.
    """
    states: Any = None
    # For each part: the rows when only that part is in int8, and its stages that contain it in int8.
    others: dict[str, Float32] = {}
    rounded: dict[str, dict[str, nn.Module]] = {}
    errors: dict[str, float] = {}
    named_stages = stages(reference.encoder)
    firsts = first_names(named_stages)
    for stem, module in named_stages.items():
        stage, again = reference.stage(stem), rounded.get(firsts[id(module)], {})
        others = {n: run(again.get(n, stage), rows, tokens) for n, rows in others.items()}
        if again:
            states = run(stage, states, tokens)
            continue
        out, packed = run_recorded(stage, states, tokens)
        own: dict[str, nn.Module] = {}
        for part in own_parts(stage):
            name = part.below(stem).name
            matrix, own[name] = matrix_of(name), copy_of(stage)
            part.put_int8(own[name].places(), matrix)
            others[name] = run(own[name], states, tokens)
            if part.name in packed:
                error = _error(packed_parts(own[name])[part.name], packed[part.name])
            else:
                error = _distance(matrix.widened(), reference.read(name))
            errors[name] = error
        if list(named_stages.values()).count(module) > 1:
            rounded[stem] = own
        states = out
    vectors = {name: reference.vectors(rows, tokens) for name, rows in others.items()}
    near = {name: cosines_of(v, exact[: len(v)]).mean() for name, v in vectors.items()}
    return {name: Loss(errors[name], 1 - float(near[name])) for name in errors}


def _error(rounded: Sequence[Linear], exact: Packed) -> float:
    """|int8 - float32| / |float32| of a part's output for its recorded inputs."""
    found, wanted = (_outputs(linears, exact.inputs) for linears in (rounded, exact.linears))
    return _distance(found, wanted)


def _outputs(linears: Sequence[Linear], x: Float32) -> Float32:
    return np.concatenate([linear_forward(linear, x) for linear in linears], axis=1)


def _distance(found: Float32, exact: Float32) -> float:
    size = float(np.linalg.norm(exact))
    return float(np.linalg.norm(found - exact)) / size if size > 0 else 0.0


def cosines_of(a: Float32, b: Float32) -> Float32:
    """The cosine of each row: 1 for two rows of zeros, as of a text without tokens, and 0 for one."""
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    sizes = np.linalg.norm(wide_a, axis=1) * np.linalg.norm(wide_b, axis=1)
    cosines = np.where(a.any(axis=1) | b.any(axis=1), 0.0, 1.0)
    np.divide((wide_a * wide_b).sum(axis=1), sizes, out=cosines, where=sizes > 0)
    return cosines.astype(np.float32)
