# SPDX-License-Identifier: Apache-2.0
"""quantization_config.json, which describes a folder in int8."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from simdformer._core import s8_group
from simdformer.checkpoint import read_json

CONFIG_FILE = "quantization_config.json"
SCHEME = "simdformer-int8"
VERSION = 3

_PART_TYPES = ("int8", "float32")


@dataclass(frozen=True)
class QuantizationConfig:
    """quantization_config.json. version: of the format. parts: the compute type of each part, by name.
    rotated: whether the matrices of int8 parts are rotated."""

    path: Path
    version: int
    parts: Mapping[str, str]
    rotated: bool

    def refuse_others(self, names: Iterable[str]) -> None:
        """ValueError if the file declares a part that is not in `names`."""
        if others := sorted(self.parts.keys() - set(names)):
            raise ValueError(
                f"{self.path}: 'parts' has {others[0]!r}, which the model does not have"
            )

    def compute_type(self, name: str) -> str:
        """The compute type of a part. ValueError if the file does not declare it."""
        if name not in self.parts:
            raise ValueError(f"{self.path}: 'parts' has no entry for {name!r}, which the model has")
        return self.parts[name]


def read_quantization_config(folder: Path) -> QuantizationConfig | None:
    """Read quantization_config.json of `folder`; None if its weights are not quantized by simdformer.

    Errors: ValueError naming the file and the field, for an unknown scheme, a version or group size that this
    release cannot read, or an invalid declaration of a part.
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
            f" versions up to {VERSION}; upgrade simdformer"
        )
    if config.get("group_size") != s8_group():
        raise ValueError(
            f"{path}: group_size is {config.get('group_size')!r}, this release of simdformer"
            f" computes in groups of {s8_group()}; quantize the model again"
        )
    rotated = config.get("rotated") if version > 2 else False
    if rotated is not True and rotated is not False:
        raise ValueError(f"{path}: rotated must be true or false, got {rotated!r}")
    return QuantizationConfig(path, version, _part_types(path, config.get("parts")), rotated)


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
