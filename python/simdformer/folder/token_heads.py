# SPDX-License-Identifier: Apache-2.0
"""bge-m3's heads on token vectors: a weight per token, and a vector per token (Chen et al. 2024,
arXiv:2402.03216). The names of files, arguments and results are those of FlagEmbedding's BGEM3FlagModel."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdformer import _core
from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.weights import Float32
from simdformer.text.batching import TokenBatch
from simdformer.text.finite import check_finite
from simdformer.text.tokenizer import Tokenizer

DENSE, SPARSE, COLBERT = "return_dense", "return_sparse", "return_colbert_vecs"
FILES = {SPARSE: "sparse_linear.pt", COLBERT: "colbert_linear.pt"}
RESULTS = {DENSE: "dense_vecs", SPARSE: "lexical_weights", COLBERT: "colbert_vecs"}
# The tokens without a weight.
_UNUSED = ("cls_token", "eos_token", "pad_token", "unk_token")

# The results for one text, by name.
Outputs = dict[str, Any]


class TokenHeads:
    """The heads of a folder, read when they are first used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._linears: dict[str, _core.Linear] = {}

    def bound(
        self, returns: Mapping[str, bool], hidden_size: int, tokenizer: Tokenizer
    ) -> BoundHeads:
        """The heads for a call.

        returns: the requested outputs. ValueError if the folder does not have a head, or if its width is wrong.
        """
        linears = {name: self._linear(name, hidden_size) for name in FILES if returns[name]}
        special = tokenizer.files.special_tokens
        ids = (tokenizer.backend.token_to_id(special[n]) for n in _UNUSED if n in special)
        return BoundHeads(linears, [token for token in ids if token is not None])

    def _linear(self, name: str, hidden_size: int) -> _core.Linear:
        if name not in self._linears:
            path = self._folder / FILES[name]
            if not path.is_file():
                raise ValueError(
                    f"{name}=True needs {FILES[name]}, as of BAAI/bge-m3, which {self._folder} does not have"
                )
            self._linears[name] = _read_linear(path, hidden_size, name)
        return self._linears[name]


def _read_linear(path: Path, hidden_size: int, name: str) -> _core.Linear:
    with Checkpoint(path) as checkpoint:
        if sorted(checkpoint.names()) != ["bias", "weight"]:
            names = ", ".join(map(repr, checkpoint.names()))
            raise ValueError(f"{path}: expected the tensors 'weight' and 'bias', got {names}")
        weight, bias = checkpoint.read("weight"), checkpoint.read("bias")
    rows = 1 if name == SPARSE else len(weight)
    if weight.shape != (rows, hidden_size) or bias.shape != (rows,):
        raise ValueError(
            f"{path}: weight and bias have shapes {weight.shape} and {bias.shape}, expected"
            f" ({'1' if name == SPARSE else 'dim'}, {hidden_size}) and as many elements as rows"
        )
    return _core.Linear(weight, bias)


class BoundHeads:
    """The heads of one call. It counts texts for error messages."""

    def __init__(self, linears: Mapping[str, _core.Linear], unused: Collection[int]) -> None:
        self._linears = linears
        self._unused = list(unused)
        self._begin = 0

    def __call__(
        self, rows: Float32, states: Float32, batch: TokenBatch, num_threads: int
    ) -> list[Outputs]:
        """The outputs for each text. rows: of texts. states: of tokens. ValueError if some are not finite."""
        outputs: list[Outputs] = [{RESULTS[DENSE]: row} for row in rows]
        check_finite(rows, self._begin)
        ends = batch.cu_seqlens[1:-1]
        for name, linear in self._linears.items():
            found = _core.linear_forward(linear, states, num_threads=num_threads)
            parts = np.split(found, ends)
            check_finite(parts, self._begin)
            if name == COLBERT:
                each = np.arange(len(found) + 1, dtype=np.int32)  # a sequence per token
                found = _core.pool_rows(found, each, ["cls"], normalize=True)
                values: list[Any] = [own[1:] for own in np.split(found, ends)]  # without [CLS]
            else:
                ids = np.split(batch.input_ids, ends)
                values = [self._largest(*own) for own in zip(ids, parts, strict=True)]
            for output, value in zip(outputs, values, strict=True):
                output[RESULTS[name]] = value
        self._begin += len(rows)
        return outputs

    def _largest(self, ids: NDArray[np.int32], weights: Float32) -> dict[str, float]:
        """The largest weight of each token, if it is above 0, in the order of the text."""
        found: dict[str, float] = {}
        used = ~np.isin(ids, self._unused)
        names, values = map(str, ids[used].tolist()), weights[used, 0].tolist()
        for token, weight in zip(names, values, strict=True):
            if weight > found.get(token, 0.0):
                found[token] = weight
        return found


def collected(
    found: list[Outputs], returns: Mapping[str, bool], dim: int, *, single: bool
) -> Outputs:
    """The outputs for all texts by name, None for outputs that were not requested; for a single text its outputs."""
    lists = {
        name: [output[name] for output in found] if returns[argument] else None
        for argument, name in RESULTS.items()
    }
    if single:
        return {name: values and values[0] for name, values in lists.items()}
    if returns[DENSE]:
        rows = lists[RESULTS[DENSE]]
        return {**lists, RESULTS[DENSE]: np.stack(rows) if rows else np.empty((0, dim), np.float32)}
    return dict(lists)
