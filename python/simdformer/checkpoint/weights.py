# SPDX-License-Identifier: Apache-2.0
"""The tensors of a checkpoint, requested by name and checked against the shapes that config.json implies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdformer.checkpoint.folder import Checkpoint
from simdformer.checkpoint.int8_matrix import Int8Matrix, num_groups, unmixed

Float32 = NDArray[np.float32]

# Tensors of an int8 matrix in folders of version 1, appended to its name.
_INT8_PARTS = ("weight", "weight_scale", "outliers", "outlier_weight")


class Weights:
    """The tensors of one architecture, each checked against the sizes in config.json.

    `sizes` maps config fields to their values. `prefixes` are names that a task model puts before
    the encoder's ("bert." in BertForMaskedLM); the first one in the checkpoint is used.
    """

    def __init__(
        self, checkpoint: Checkpoint, sizes: Mapping[str, Any], prefixes: Sequence[str] = ()
    ) -> None:
        names = checkpoint.names()
        self._checkpoint = checkpoint
        self._sizes = sizes
        self._unread = set(names)
        self._prefix = next((p for p in prefixes if any(n.startswith(p) for n in names)), "")

    def __call__(self, name: str, *fields: str) -> Float32:
        """The tensor `name`, whose dimensions must equal the named config fields, in order."""
        return self._checkpoint.read(self.checked(name, fields, self.shape(fields)))

    def matrix(
        self,
        name: str,
        rows: str,
        cols: str,
        *,
        parts: Sequence[str] = (),
        share: tuple[int, int] = (0, 1),
    ) -> CheckpointMatrix:
        """The matrix `name`.weight, or the stacked matrices of `parts`; checked now, read later.

        rows and cols name the fields that give each part's shape. share: (index, count) if each part
        holds `count` stacked matrices of that shape, of which this is one.
        """
        found = CheckpointMatrix(self, name, tuple(parts) or (name,), (rows, cols), share)
        int8 = {f"{found.name}.{part}" for part in _INT8_PARTS}
        self.expect(int8.union(found.tensors))
        if not (int8 - set(found.tensors)).intersection(self._checkpoint.names()):
            for part in parts or (name,):
                found.check_part(part)
        return found

    def expect(self, names: Iterable[str]) -> None:
        """Mark tensors, by full name, as used if they exist."""
        self._unread.difference_update(names)

    def int8(
        self,
        names: Sequence[str],
        shape: tuple[int, int],
        fields: Sequence[str] = (),
        *,
        rotated: bool = False,
    ) -> Int8Matrix:
        """A matrix in int8, read from the tensors of its values, scales, outliers and their weights.

        shape: of the matrix; it follows from `fields`. ValueError names the file and the tensor that
        is missing or invalid.
        """
        (rows, cols), checkpoint = shape, self._checkpoint
        values, scale, outliers, outlier_weight = names
        codes = checkpoint.read_integers(self.checked(values, fields, shape), "I8")
        scales = checkpoint.read(self.checked(scale, fields, (rows, num_groups(cols))))
        self._require(scale, bool((scales > 0).all()), "scales must be above 0")
        name = self._prefix + outliers
        count = math.prod(checkpoint.shape(name)) if name in checkpoint else 0
        shape_found = (min(cols, count),)
        columns = checkpoint.read_integers(self.checked(outliers, fields, shape_found), "I32")
        ascending = bool((np.diff(columns, prepend=-1, append=cols) > 0).all())
        self._require(outliers, ascending, f"columns must ascend within [0, {cols})")
        own = codes[:, unmixed(columns, cols, rotated)]
        self._require(values, not own.any(), "codes of outlier columns must be 0")
        kept = checkpoint.read(self.checked(outlier_weight, fields, (rows, len(columns))))
        return Int8Matrix(codes, scales, columns, kept, rotated)

    def _require(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            name = self._prefix + name
            path = self._checkpoint.path(name)
            raise ValueError(f"tensor {name!r} in {path}: {what}; the file is damaged")

    def share(self, name: str, field: str, share: tuple[int, int]) -> Float32:
        """One of several vectors of one length in the tensor `name`; see matrix."""
        index, count = share
        (size,) = self.shape((field,))
        whole = self._checkpoint.read(self.checked(name, (field,), (count * size,)))
        return whole[index * size :][:size]

    def shape(self, fields: Sequence[str]) -> tuple[int, ...]:
        """The sizes in the named fields of config.json."""
        return tuple(self._sizes[field] for field in fields)

    def checked(self, name: str, fields: Sequence[str], shape: tuple[int, ...]) -> str:
        """The full name of a tensor whose shape follows from the fields."""
        name = self._prefix + name
        given = ", ".join(f"{field}={self._sizes[field]}" for field in dict.fromkeys(fields))
        config = f"config.json ({given})" if given else "config.json"
        if name not in self._checkpoint:
            raise ValueError(
                f"tensor {name!r} is missing from the checkpoint {self._checkpoint.location};"
                f" {config} needs it with shape {shape}"
            )
        found = self._checkpoint.shape(name)
        if found != shape:
            raise ValueError(
                f"tensor {name!r} in {self._checkpoint.path(name).name} has shape {found};"
                f" {config} needs {shape}"
            )
        self._unread.discard(name)
        return name

    @property
    def prefix(self) -> str:
        """The prefix of the encoder's names in the checkpoint."""
        return self._prefix

    @property
    def checkpoint(self) -> Checkpoint:
        """The folder of the tensors."""
        return self._checkpoint

    def free(self, name: str, shape: tuple[int, ...]) -> str:
        """The full name of a tensor whose shape does not follow from a field. Errors: see checked."""
        return self.checked(name, (), shape)

    def unread(self, ignored: Sequence[str] = ()) -> list[str]:
        """The tensors that the architecture did not request.

        `ignored`: prefixes of names of parts that embeddings do not use (a pooler, a classifier).
        """
        beginnings = tuple(ignored) + tuple(self._prefix + name for name in ignored)
        return sorted(name for name in self._unread if not name.startswith(beginnings))

    def refuse_unread(self, ignored: Sequence[str]) -> None:
        """ValueError if tensors are left that were not requested."""
        if left := self.unread(ignored):
            shown = ", ".join(repr(name) for name in left[:5]) + (", ..." if left[5:] else "")
            raise ValueError(
                f"{self._checkpoint.location} has {len(left)} tensors that do not belong to the model in"
                f" config.json: {shown}"
            )


class CheckpointMatrix:
    """A matrix stored as one tensor, as part of one, or as several stacked ones. It is checked now and read
    on demand."""

    def __init__(
        self,
        weights: Weights,
        name: str,
        parts: tuple[str, ...],
        fields: tuple[str, str],
        share: tuple[int, int],
    ) -> None:
        self._weights = weights
        self._name = name
        self._parts = parts
        self._fields = fields
        self._share = share

    @property
    def name(self) -> str:
        """The full name, without ".weight"."""
        return self._weights.prefix + self._name

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols) of all parts."""
        rows, cols = self._weights.shape(self._fields)
        return len(self._parts) * rows, cols

    @property
    def tensors(self) -> list[str]:
        """The names of its tensors in float32."""
        return [f"{self._weights.prefix}{part}.weight" for part in self._parts]

    def float32(self) -> Float32:
        """Its numbers: (rows, cols)."""
        index, _ = self._share
        rows, _ = self._weights.shape(self._fields)
        wholes = [self._weights.checkpoint.read(self.check_part(part)) for part in self._parts]
        parts = [whole[index * rows :][:rows] for whole in wholes]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def check_part(self, part: str) -> str:
        """The full name of a part's tensor. ValueError if it is missing or has another shape."""
        _, count = self._share
        rows, cols = self._weights.shape(self._fields)
        return self._weights.checked(f"{part}.weight", self._fields, (count * rows, cols))

    def int8(self) -> Int8Matrix:
        """As float32, for a folder of version 1, which stores the matrix in int8 as one piece. Errors: see
        Weights.int8."""
        names = [f"{self._name}.{part}" for part in _INT8_PARTS]
        return self._weights.int8(names, self.shape, self._fields)
