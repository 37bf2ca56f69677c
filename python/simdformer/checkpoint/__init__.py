# SPDX-License-Identifier: Apache-2.0
"""The weights of a model: the files of a folder (folder.py), the offsets of tensors in each format
(safetensors_file.py, torch_file.py), and the tensors that an architecture needs (weights.py)."""

from __future__ import annotations

from simdformer.checkpoint.folder import (
    Checkpoint,
    find_weights,
    has_weights,
    naming,
    read_any_json,
    read_json,
    read_optional_json,
)
from simdformer.checkpoint.regular_file import check_regular, read_regular

__all__ = [
    "Checkpoint",
    "check_regular",
    "find_weights",
    "has_weights",
    "naming",
    "read_any_json",
    "read_json",
    "read_optional_json",
    "read_regular",
]
