"""A process that encodes texts by a static model: python -m static_worker LIBRARY FD, see worker_process.py."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from worker_process import serve


def _simdformer(folder: str) -> Callable[[list[str]], Any]:
    from simdformer import SentenceTransformer

    return SentenceTransformer(folder).encode


def _model2vec(folder: str) -> Callable[[list[str]], Any]:
    from model2vec import StaticModel

    return StaticModel.from_pretrained(folder).encode


def _tokenizers(folder: str) -> Callable[[list[str]], Any]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.no_padding()

    def encode(texts: list[str]) -> None:
        for begin in range(0, len(texts), 1024):
            batch = texts[begin : begin + 1024]
            for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                _ = encoding.ids

    return encode


LIBRARIES = {"simdformer": _simdformer, "model2vec": _model2vec, "tokenizers alone": _tokenizers}


class Worker:
    """One library with one model and its texts."""

    def __init__(self, library: str) -> None:
        self._open = LIBRARIES[library]

    def load(self, folder: str, texts: list[str]) -> None:
        self._encode, self._texts = self._open(folder), texts

    def seconds(self) -> float:
        start = time.perf_counter()
        self._encode(self._texts)
        return time.perf_counter() - start

    def vectors(self, count: int) -> np.ndarray:
        return np.asarray(self._encode(self._texts[:count]))


if __name__ == "__main__":
    serve(Worker(sys.argv[1]), Connection(int(sys.argv[2])))
