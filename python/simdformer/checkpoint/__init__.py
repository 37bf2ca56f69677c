# SPDX-License-Identifier: Apache-2.0
"""The weights of a model: a folder's files (folder.py), where tensors lie in each format
(safetensors_file.py, torch_file.py), and what an architecture asks for (weights.py)."""

from __future__ import annotations

from simdformer.checkpoint.folder import Checkpoint, find_weights, read_any_json, read_json

__all__ = ["Checkpoint", "find_weights", "read_any_json", "read_json"]
