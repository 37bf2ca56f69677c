"""Real texts for comparisons with other libraries, and their common error bound."""

from __future__ import annotations

import ast
import sysconfig
from pathlib import Path

# The promised bound for unit vectors.
LARGEST_DIFFERENCE = 2e-6


def docstrings():
    """The docstrings of the standard library in a fixed order. Sources are parsed and never run."""
    root = Path(sysconfig.get_path("stdlib"))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for path in sorted(root.rglob("*.py")):
        if {"site-packages", "test", "tests"} & set(path.relative_to(root).parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, kinds) and (text := ast.get_docstring(node)):
                yield text


def parity_texts():
    """Docstrings, single words, several docstrings joined, and texts that contain special tokens."""
    whole = [text for _, text in zip(range(600), docstrings(), strict=False)]
    words = [text.split()[0] for text in whole[:60]]
    rows = [" ".join(whole[i : i + 8]) for i in range(0, 160, 8)]
    odd = ["", " ", "a", "  two  blanks ", "É ﬁ 漢字 \N{GRINNING FACE}\n\ttab", "A<mask>B"]
    odd += ["a <pad> b <pad><pad> c", "[PAD] a [SEP] b", "<s>x</s>"]
    return [*whole[:300], *words, *rows, *odd]
