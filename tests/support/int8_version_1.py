"""Folders of the int8 format's version 1, whose codes are those of a folder of today."""

from __future__ import annotations

import json
import shutil

from safetensors.numpy import load_file, save_file

from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.int8_matrix import Int8Matrix
from simdformer.models import build_encoder
from simdformer.models.assign import assign

WEIGHTS, DECLARATION = "model-int8.safetensors", "quantization_config.json"
KINDS = ("weight", "weight_scale", "outliers", "outlier_weight")
GATE_UP = "gate_up_proj.weight"


def write_version_1(folder, saved, source):
    """`saved`, which was made from `source`, in version 1: the checkpoint's names, and each projection by
    itself unless it was joined then, too."""
    shutil.copytree(saved, folder)
    new, declared = load_file(saved / WEIGHTS), json.loads((saved / DECLARATION).read_text())
    encoder, names = build_encoder(json.loads((source / "config.json").read_text()))
    parts = {}
    with Checkpoint(source) as checkpoint:
        matrices = assign(encoder, names, checkpoint).matrices
        tensors = {name: checkpoint.read(name) for name in checkpoint.names()}
    for own, held in matrices.items():
        name, begin = own, 0
        if hasattr(encoder.layers[0], "linear_gate") and own.endswith(
            ("linear_gate.weight", "linear1.weight")
        ):
            name = own.replace("linear_gate.weight", GATE_UP).replace("linear1.weight", GATE_UP)
            begin = encoder.layers[0].linear1.out_features if "linear1" in own else 0
        for matrix in held:
            parts[matrix.name] = declared["parts"][name]
            rows = slice(begin, begin + matrix.shape[0])
            begin = rows.stop
            if parts[matrix.name]["compute_type"] == "int8":
                for tensor in matrix.tensors:
                    tensors.pop(tensor, None)
                suffixes = ("", "_scale", "_outliers", "_outlier_weight")
                whole = Int8Matrix(*(new[name + suffix] for suffix in suffixes))
                found = whole.rows(rows)
                tensors |= {f"{matrix.name}.{k}": t for k, t in zip(KINDS, found[:4], strict=True)}
    save_file({name: tensor.copy() for name, tensor in tensors.items()}, folder / WEIGHTS)
    (folder / DECLARATION).write_text(json.dumps(declared | {"version": 1, "parts": parts}))
    return folder
