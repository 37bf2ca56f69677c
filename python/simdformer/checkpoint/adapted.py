# SPDX-License-Identifier: Apache-2.0
"""A checkpoint that holds low-rank adapters beside its matrices (LoRA, Hu et al. 2021, arXiv:2106.09685),
as torch.nn.utils.parametrize names them: one of them is added when a matrix is read, or none."""

from __future__ import annotations

from typing import NamedTuple

from simdformer.checkpoint.folder import Checkpoint, Float32

_ORIGINAL = ".parametrizations.weight.original"
_A, _B = ".parametrizations.weight.0.lora_A", ".parametrizations.weight.0.lora_B"


class Adapter(NamedTuple):
    """number: which of a checkpoint's adapters; None for none. scale: what it is multiplied by."""

    number: int | None
    scale: float


class AdaptedCheckpoint(Checkpoint):
    """The tensors of an open checkpoint, which stays the one to close, under their names without adapters.

    W + scale B A for a linear layer's W (out, in), with A (adapters, rank, in), B (adapters, out, rank); for
    a table (rows, columns) A (adapters, rows, rank), B (adapters, rank, columns), W + scale A B.
    """

    def __init__(self, checkpoint: Checkpoint, adapter: Adapter) -> None:
        self.location = checkpoint.location
        self.names_read = checkpoint.names_read
        self._files = []
        self._adapter = adapter
        self._whole = checkpoint
        self._entries = {
            name.replace(_ORIGINAL, ".weight"): entry
            for name, entry in checkpoint._entries.items()
            if not name.endswith((_A, _B))
        }

    def read(self, name: str) -> Float32:
        """As Checkpoint's, with the adapter. ValueError for one of another shape."""
        weight = super().read(name)
        index, stem = self._adapter.number, name.removesuffix(".weight")
        if index is None or stem + _A not in self._whole:
            return weight
        first, second = (self._whole.read(stem + part) for part in (_A, _B))
        if first.ndim != 3 or second.ndim != 3 or min(len(first), len(second)) <= index:
            raise self._misshapen(stem, first, second)
        for a, b in ((second[index], first[index]), (first[index], second[index])):
            if a.shape[1] == len(b) and (len(a), b.shape[1]) == weight.shape:
                break
        else:
            raise self._misshapen(stem, first, second)
        adapted: Float32 = a @ b
        adapted *= self._adapter.scale
        adapted += weight
        return adapted

    def _misshapen(self, stem: str, first: Float32, second: Float32) -> ValueError:
        return ValueError(
            f"tensors {stem + _A!r} and {stem + _B!r} in {self.path(stem + '.weight')} have shapes"
            f" {first.shape} and {second.shape}, which are no adapters of one"
            f" {self.shape(stem + '.weight')}"
        )
