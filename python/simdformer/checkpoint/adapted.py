# SPDX-License-Identifier: Apache-2.0
"""Reads a checkpoint that has low-rank adapters beside its matrices (LoRA, Hu et al. 2021, arXiv:2106.09685),
with the tensor names of torch.nn.utils.parametrize. One adapter, or none, is added to a matrix when it is
read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from simdformer.checkpoint.folder import Checkpoint, Float32

_ORIGINAL = ".parametrizations.weight.original"
_A, _B = ".parametrizations.weight.0.lora_A", ".parametrizations.weight.0.lora_B"


class Adapter(NamedTuple):
    """number: the index of the adapter to add; None for no adapter. scale: its factor."""

    number: int | None
    scale: float


class AdaptedCheckpoint(Checkpoint):
    """The tensors of an open checkpoint under the names that they have without adapters.

    A linear layer's weight is W + scale B A, with W (out, in), A (adapters, rank, in), B (adapters, out,
    rank). A table is W + scale A B, with W (rows, columns), A (adapters, rows, rank), B (adapters, rank,
    columns). The caller closes the underlying checkpoint.
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
        """As Checkpoint.read, with the adapter added. ValueError if the adapter has another shape."""
        weight = super().read(name)
        index, stem = self._adapter.number, name.removesuffix(".weight")
        if index is None or not self._is_adapted(name):
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

    def read_rows(self, name: str, rows: Sequence[int]) -> Float32:
        """As Checkpoint.read_rows, with the adapter added."""
        if self._is_adapted(name):
            return self.read(name)[list(rows)]
        return super().read_rows(name, rows)

    def _is_adapted(self, name: str) -> bool:
        """Whether an adapter is added to a tensor."""
        return self._adapter.number is not None and name.removesuffix(".weight") + _A in self._whole

    def _misshapen(self, stem: str, first: Float32, second: Float32) -> ValueError:
        return ValueError(
            f"tensors {stem + _A!r} and {stem + _B!r} in {self.path(stem + '.weight')} have shapes"
            f" {first.shape} and {second.shape}, which do not fit an adapter of shape"
            f" {self.shape(stem + '.weight')}"
        )
