# SPDX-License-Identifier: Apache-2.0
"""Folders saved in version 1 of the format: tensors have the checkpoint's names, and each projection is a
part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simdformer import nn
from simdformer.checkpoint.weights import CheckpointMatrix
from simdformer.int8.config import QuantizationConfig
from simdformer.models.assign import WORDS, Assigned
from simdformer.nn.parameters import Stored, StoredTable
from simdformer.nn.projections import APART, JOINED


def saved_places(
    encoder: nn.TextEncoder, assigned: Assigned, config: QuantizationConfig
) -> Mapping[str, Stored]:
    """Find each parameter's numbers. Projections with separate names become separate parameters of the
    encoder, because each may have another type."""
    places = dict(assigned.places)
    owners = encoder.places()
    for name, matrices in assigned.matrices.items():
        own: Sequence[str] = (name,)
        if len(matrices) > 1:
            owners[name][0].set_apart()
            own = [name.replace(JOINED, apart) for apart in APART]
            del places[name]
        for each, matrix in zip(own, matrices, strict=True):
            places[each] = _place(matrix, config.compute_type(matrix.name), name == WORDS)
    return places


def _place(matrix: CheckpointMatrix, compute_type: str, is_table: bool) -> Stored:
    if compute_type == "float32":
        return Stored(matrix.shape, matrix.float32)
    if is_table:
        return StoredTable(matrix.shape, matrix.int8)
    return Stored(matrix.shape, matrix.int8, "int8")
