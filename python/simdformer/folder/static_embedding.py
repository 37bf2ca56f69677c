# SPDX-License-Identifier: Apache-2.0
"""StaticEmbedding: a text's vector is the mean of its tokens' rows in a table, without special tokens.

The tensors are those of sentence-transformers or model2vec. In model2vec's, several tokens may share a row
("mapping"), and tokens may have weights ("weights").
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simdformer import nn
from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.weights import Float32
from simdformer.models.assign import WORDS
from simdformer.nn import initialization
from simdformer.nn.parameters import Stored
from simdformer.text.tokenizer import Tokenizer
from simdformer.text.tokenizer_files import TokenizerFiles
from simdformer.text.vocabulary_files import read_definition

# The maximum length of a text.
_NO_LIMIT = 2**31 - 1


def static_encoder(checkpoint: Checkpoint) -> nn.TextEncoder:
    """The table as an encoder without layers. ValueError names invalid tensors."""
    table = _table(checkpoint)
    with initialization.deferred():
        encoder = nn.TextEncoder(nn.TextEmbeddings(*table.shape), [])
    encoder.load_state_dict({WORDS: Stored(table.shape, lambda: table)})
    return encoder


def static_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in tokenizer.json, with only the truncation stored in that file."""
    tokenizer = read_definition(folder / "tokenizer.json")
    stored = tokenizer.truncation or {}
    return Tokenizer(
        TokenizerFiles(tokenizer, truncation_side=str(stored.get("direction", "right"))),
        max_seq_length=int(stored.get("max_length", _NO_LIMIT)),
        with_type_ids=False,
        add_special_tokens=False,
    )


def _table(checkpoint: Checkpoint) -> Float32:
    """The table with one row per token."""
    name = "embedding.weight" if "embedding.weight" in checkpoint else "embeddings"
    if name not in checkpoint:
        raise ValueError(f"{checkpoint.location}: no tensor 'embedding.weight' or 'embeddings'")
    table = checkpoint.read(name)
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(
            f"tensor {name!r} in {checkpoint.path(name)} must be a table, its shape is {table.shape}"
        )
    if name == "embedding.weight":
        return table
    if "mapping" in checkpoint:
        rows = checkpoint.read_ids("mapping")
        if rows.ndim != 1 or not ((rows >= 0) & (rows < len(table))).all():
            raise ValueError(
                f"tensor 'mapping' in {checkpoint.path('mapping')} must hold rows of {name!r}, 0 to"
                f" {len(table) - 1}"
            )
        table = table[rows]
    if "weights" in checkpoint:
        weights = checkpoint.read("weights")
        if weights.shape != (len(table),):
            raise ValueError(
                f"tensor 'weights' in {checkpoint.path('weights')} has shape {weights.shape}, expected"
                f" ({len(table)},)"
            )
        table = table * weights[:, None]
    return np.ascontiguousarray(table, np.float32)
