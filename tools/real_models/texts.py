# SPDX-License-Identifier: Apache-2.0
"""The texts of the comparison: docstrings of Python's standard library, and translated messages of Django."""

from __future__ import annotations

import ast
import gettext
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path

COUNT = 128
LANGUAGES = ("ar", "de", "el", "es", "fa", "fr", "hi", "ja", "ko", "pl", "ru", "th", "tr", "uk", "vi", "zh_Hans")  # fmt: skip
_SEED = 20240229
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_ODD = ["", " ", "a", "  two  blanks ", "\u00c9 \ufb01 \u6f22\u5b57 \N{GRINNING FACE}\n\ttab", "x = [i**2 for i in range(9)]"]  # fmt: skip


def english() -> list[str]:
    """Docstrings of all lengths, drawn with a fixed seed, and odd texts."""
    distinct = sorted(set(_docstrings(Path(sysconfig.get_path("stdlib")))))
    return [*_ODD, *random.Random(_SEED).sample(distinct, COUNT - len(_ODD))]


def translated(django: Path) -> list[str]:
    """The longest messages in each of several languages, and odd texts. django: its unpacked package."""
    texts = list(_ODD)
    for language in LANGUAGES:
        with (django / f"django/conf/locale/{language}/LC_MESSAGES/django.mo").open("rb") as file:
            catalog = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        messages = {str(text) for key, text in catalog.items() if key and isinstance(key, str)}
        texts += sorted(messages, key=lambda text: (-len(text), text))[: COUNT // len(LANGUAGES)]
    return texts


def _docstrings(root: Path) -> Iterator[str]:
    for path in sorted(root.rglob("*.py")):
        if {"site-packages", "dist-packages", "test", "tests"} & set(path.parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node)):
                yield text
