# SPDX-License-Identifier: Apache-2.0
"""A quantised model's weights in its folder: one safetensors file, and JSON that declares it.

The file is not called model.safetensors, so that a reader that knows nothing of the scheme finds no
weights instead of wrong ones. docs/quantization.md describes both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from simdformer import nn
from simdformer._core import s8_group
from simdformer.checkpoint import read_json
from simdformer.checkpoint.precision import Int8Matrix
from simdformer.checkpoint.weights import CheckpointMatrix
from simdformer.models.assign import WORDS, Assigned
from simdformer.nn.parameters import Stored
from simdformer.nn.projections import APART, JOINED

WEIGHTS_FILE = "model-int8.safetensors"
CONFIG_FILE = "quantization_config.json"
SCHEME = "simdformer-int8"
VERSION = 1

_PART_TYPES = ("int8", "float32")


@dataclass(frozen=True)
class QuantizationConfig:
    """quantization_config.json. parts: each linear layer's and table's compute type, by name."""

    path: Path
    parts: Mapping[str, str]

    def compute_type(self, name: str) -> str:
        """That of one part. ValueError if the file does not declare it."""
        if name not in self.parts:
            raise ValueError(f"{self.path}: 'parts' says nothing of {name!r}, which the model has")
        return self.parts[name]


def read_quantization_config(folder: Path) -> QuantizationConfig | None:
    """What `folder` declares, or None if its weights are not quantised in our way.

    ValueError names the file and the field: an unknown scheme, a version or a group size that this
    release cannot read, a part that is declared wrongly.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        return None
    config = read_json(path)
    if config.get("scheme") != SCHEME:
        raise ValueError(f"{path}: unknown scheme {config.get('scheme')!r}; known: {SCHEME!r}")
    version = config.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ValueError(f"{path}: version must be an int above 0, got {version!r}")
    if version > VERSION:
        raise ValueError(
            f"{path}: version {version} is newer than this release of simdformer, which reads"
            f" version {VERSION}; upgrade simdformer"
        )
    if config.get("group_size") != s8_group():
        raise ValueError(
            f"{path}: group_size is {config.get('group_size')!r}, this release of simdformer"
            f" computes in groups of {s8_group()}; quantise the model again"
        )
    return QuantizationConfig(path, _part_types(path, config.get("parts")))


def _part_types(path: Path, parts: object) -> dict[str, str]:
    if not isinstance(parts, dict) or not all(isinstance(part, dict) for part in parts.values()):
        raise ValueError(f"{path}: parts must map names to objects with a compute_type")
    types = {name: part.get("compute_type") for name, part in parts.items()}
    for name, compute_type in types.items():
        if compute_type not in _PART_TYPES:
            raise ValueError(
                f"{path}: unknown compute_type {compute_type!r} of {name!r};"
                f" known: {', '.join(map(repr, _PART_TYPES))}"
            )
    return types


def saved_places(
    encoder: nn.TextEncoder, assigned: Assigned, config: QuantizationConfig
) -> dict[str, Stored]:
    """Where each parameter's numbers are in a folder of this scheme: as Assigned.places, which it
    replaces. Projections that have a name each are set apart in the encoder, for each may be of
    another type."""
    places = dict(assigned.places)
    owners = encoder.places()
    for name, matrices in assigned.matrices.items():
        names: Sequence[str] = (name,)
        if len(matrices) > 1:
            attention = owners[name][0]
            attention.set_apart()
            names = [name.replace(JOINED, apart) for apart in APART]
            del places[name]
        for each, matrix in zip(names, matrices, strict=True):
            places[each] = _saved_place(matrix, config.compute_type(matrix.name), name == WORDS)
    return places


def _saved_place(matrix: CheckpointMatrix, compute_type: str, is_table: bool) -> Stored:
    if compute_type == "float32":
        return Stored(matrix.shape, matrix.float32)
    if is_table:
        return Stored(matrix.shape, lambda: matrix.int8().widened())
    return Stored(matrix.shape, matrix.int8, "int8")


def saved_parts(
    assigned: Assigned, parameters: Mapping[str, Int8Matrix]
) -> dict[str, dict[str, NDArray[Any]]]:
    """The tensors of each part, by its name, of parameters in int8."""
    parts = {}
    for name, whole in parameters.items():
        begin = 0
        for matrix in assigned.matrices[name]:
            rows = slice(begin, begin + matrix.shape[0])
            parts[matrix.name] = checkpoint_tensors(matrix.name, whole.rows(rows))
            begin = rows.stop
    return parts


def checkpoint_tensors(name: str, matrix: Int8Matrix) -> dict[str, NDArray[Any]]:
    """A part's tensors, as CheckpointMatrix.int8 reads them."""
    return {
        f"{name}.weight": matrix.values,
        f"{name}.weight_scale": matrix.scale,
        f"{name}.outliers": matrix.outliers,
        f"{name}.outlier_weight": matrix.outlier_weight,
    }


def write_quantized(
    folder: Path, tensors: Mapping[str, NDArray[Any]], config: Mapping[str, Any]
) -> None:
    """Write both files. config: what is to stand beside scheme, version and group_size."""
    declared = {"scheme": SCHEME, "version": VERSION, "group_size": s8_group(), **config}
    (folder / CONFIG_FILE).write_text(json.dumps(declared, indent=2) + "\n", encoding="utf-8")
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    (folder / WEIGHTS_FILE).write_bytes(save(contiguous))
