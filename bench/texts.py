"""The benchmark's texts: docstrings of Python's standard library, the same for a given Python version.

Sources are parsed, not imported, so that nothing runs and no optional module is missing.

| set    | texts | what                                                                     |
|--------|-------|--------------------------------------------------------------------------|
| short  | 512   | at most 16 tokens, special tokens included                               |
| mixed  | 512   | more than one paragraph, in any length, cut at the model's limit         |
| long   | 64    | exactly `max_length` tokens after the cut                                |
| one    | 1     | a short text, for latency                                                |
| stream | 512   | `mixed` in another random order; 32 texts a call, as a server sees them  |
"""

from __future__ import annotations

import ast
import random
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

SET_NAMES = ("short", "mixed", "long", "one", "stream")
SHORT_TOKENS = 16
STREAM_CALL_SIZE = 32
SEED = 20240229
_SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "test", "tests", "lib2to3"})
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class TextSet:
    """Texts and their token counts (including special tokens, after truncation at the model's limit)."""

    name: str
    texts: tuple[str, ...]
    token_counts: tuple[int, ...]
    call_size: int | None = None  # texts per call of encode; None: all in one call

    @property
    def total_tokens(self) -> int:
        return sum(self.token_counts)

    def first(self, count: int) -> TextSet:
        """The set's first texts, which are a random selection too."""
        return replace(self, texts=self.texts[:count], token_counts=self.token_counts[:count])


def iter_docstrings(root: Path) -> Iterator[str]:
    """Yield every docstring of the .py files under `root`, files in sorted order."""
    for path in sorted(root.rglob("*.py")):
        if _SKIPPED_FOLDERS.intersection(path.relative_to(root).parts):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes in old sources
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, _DOCUMENTED) and (docstring := ast.get_docstring(node)):
                yield docstring


def standard_library_docstrings() -> list[str]:
    """All distinct docstrings of the running Python's standard library."""
    return list(dict.fromkeys(iter_docstrings(Path(sysconfig.get_paths()["stdlib"]))))


def calibration_texts(count: int = 300) -> list[str]:
    """Texts for peers that need calibration: docstrings of all lengths, drawn separately from the sets."""
    return random.Random(SEED + 2).sample(standard_library_docstrings(), count)


def make_sets(
    docstrings: list[str], tokenizer: Any, max_length: int, names: tuple[str, ...] = SET_NAMES
) -> dict[str, TextSet]:
    """Draw the named sets from `docstrings` with a fixed seed.

    tokenizer: a `tokenizers.Tokenizer` without padding or truncation.
    """
    lengths = [len(e.ids) for e in tokenizer.encode_batch(docstrings)]
    documents = list(zip(docstrings, lengths, strict=True))
    short = [d for d in documents if d[1] <= SHORT_TOKENS]
    mixed = _draw([d for d in documents if "\n\n" in d[0]], 512, seed=SEED)
    long = [d for d in documents if d[1] >= max_length]
    # 14 tokens, like a search query
    query = [d for d in short if d[1] == 14]
    drawn = {
        "short": _draw(short, 512, seed=SEED),
        "mixed": mixed,
        "long": _draw(long, 64, seed=SEED),
        "one": _draw(query or short, 1, seed=SEED),
        "stream": _draw(mixed, len(mixed), seed=SEED + 1),
    }
    return {name: _text_set(name, drawn[name], max_length) for name in names}


def _draw(documents: list[tuple[str, int]], count: int, *, seed: int) -> list[tuple[str, int]]:
    if len(documents) < count:
        raise ValueError(f"expected at least {count} texts to draw from, got {len(documents)}")
    return random.Random(seed).sample(documents, count)


def _text_set(name: str, documents: list[tuple[str, int]], max_length: int) -> TextSet:
    return TextSet(
        name=name,
        texts=tuple(text for text, _ in documents),
        token_counts=tuple(min(length, max_length) for _, length in documents),
        call_size=STREAM_CALL_SIZE if name == "stream" else None,
    )
