# SPDX-License-Identifier: Apache-2.0
"""The tensors of a safetensors file."""

from __future__ import annotations

import json

from safetensors import SafetensorError, safe_open

from simdformer.checkpoint.tensor_file import Entry, TensorFile


def safetensors_entries(file: TensorFile) -> dict[str, Entry]:
    """The offset of each tensor. ValueError with the file's name if it is damaged."""
    try:
        # The library's parser rejects truncated files, overlapping or missing ranges, sizes that overflow and
        # wrong headers. It reads only the header here.
        with safe_open(file.path, framework="numpy"):
            pass
    except SafetensorError as error:
        raise ValueError(f"{file.path}: not a valid safetensors file: {error}") from error
    length = int.from_bytes(file.read(8, 0), "little")
    header = json.loads(file.read(length, 8))
    header.pop("__metadata__", None)
    start = 8 + length
    return {
        name: Entry(file, info["dtype"], tuple(info["shape"]), start + info["data_offsets"][0])
        for name, info in header.items()
    }
