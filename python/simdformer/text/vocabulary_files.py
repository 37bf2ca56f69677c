# SPDX-License-Identifier: Apache-2.0
"""Reads the file with a tokenizer's vocabulary: tokenizer.json, or older files."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, models

from simdformer.checkpoint import check_regular, read_json
from simdformer.text.declared_tokens import Token, added_token
from simdformer.text.sentencepiece_model import merges_of, read_pieces
from simdformer.text.tokenizer_classes import TokenizerClass
from simdformer.text.tokenizer_panic import as_value_error
from simdformer.text.tokenizer_parts import Piece


class Content(NamedTuple):
    """The content of the vocabulary file, and its path.

    rest: tokenizer.json, whole for the generic class, without its vocabulary for others. added: its added
    tokens by id. extra: special tokens without a role in a SentencePiece model.
    """

    path: Path
    tokens: dict[str, int] | list[Piece]
    merges: list[tuple[str, str]]
    charsmap: bytes | None = None
    unknown_id: int | None = None
    extra: list[Token] | None = None
    added: Mapping[int, AddedToken] | None = None
    rest: tokenizers.Tokenizer | None = None


def read_definition(path: Path) -> tokenizers.Tokenizer:
    """Read tokenizer.json as it is, without the folder's other files."""
    try:
        check_regular(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no {path.name} in {path.parent}") from error
    with reading(path):
        return tokenizers.Tokenizer.from_file(str(path))


def reading(path: Path, **options: Any) -> AbstractContextManager[None]:
    """Convert exceptions inside to a ValueError naming the file."""
    return as_value_error(f"{path}: not a tokenizer definition", **options)


def definition_name(config: Mapping[str, Any]) -> str:
    """tokenizer.json, or the newest of the files for particular versions of transformers."""
    names = config.get("fast_tokenizer_files", [])
    versions = sorted(str(name).removeprefix("tokenizer.") for name in names)
    known = re.compile(r"[0-5][\w.]*\.json")
    newest = [version for version in versions if known.fullmatch(version)]
    return f"tokenizer.{newest[-1]}" if newest else "tokenizer.json"


def read_content(path: Path, kind: TokenizerClass | None) -> Content:
    """The content of tokenizer.json for a class. ValueError names the file."""
    if kind is None:
        whole = read_definition(path)
        return Content(path, {}, [], added=whole.get_added_tokens_decoder(), rest=whole)
    parsed = read_json(path)
    with reading(path):
        model = parsed["model"]
        return Content(
            path,
            _tokens(model["vocab"], kind),
            [_merge(merge) for merge in model.get("merges", [])] if kind.model == "BPE" else [],
            _charsmap(parsed.get("normalizer")),
            added={token["id"]: added_token(path, token) for token in parsed["added_tokens"]},
            rest=_without_vocabulary(parsed),
        )


def _without_vocabulary(parsed: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """The definition without its vocabulary, in the library's form."""
    kept = {
        name: parsed.get(name) for name in ("version", "post_processor", "padding", "truncation")
    }
    empty = json.loads(tokenizers.Tokenizer(models.BPE()).to_str())
    return tokenizers.Tokenizer.from_str(json.dumps({**empty, **kept}))


def _tokens(vocabulary: Any, kind: TokenizerClass) -> dict[str, int] | list[Piece]:
    if isinstance(vocabulary, dict):
        return vocabulary
    if kind.model == "Unigram":
        return [(piece, score) for piece, score in vocabulary]
    return {token if isinstance(token, str) else token[0]: i for i, token in enumerate(vocabulary)}


def _merge(merge: Any) -> tuple[str, str]:
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second


def _charsmap(normalizer: Any) -> bytes | None:
    """SentencePiece's table of characters in a definition's normalizer."""
    steps = (normalizer or {}).get("normalizers", [normalizer]) if normalizer else []
    tables = [s["precompiled_charsmap"] for s in steps if s.get("type") == "Precompiled"]
    return base64.b64decode(tables[0]) if tables else None


def vocabulary_file(folder: Path, kind: TokenizerClass | None) -> Path:
    """The first vocabulary file. FileNotFoundError if one is missing."""
    files = () if kind is None else kind.files
    if files and files[0].endswith(".model") and (folder / "tokenizer.model").is_file():
        return folder / "tokenizer.model"  # the newer name of this file
    if files and all((folder / file).is_file() for file in files):
        return folder / files[0]
    pieces = sorted(path.name for path in folder.glob("*.model"))
    raise FileNotFoundError(
        f"no tokenizer.json in {folder}"
        + (f", nor {' and '.join(files)}" if files else "; a tokenizer of the generic class needs this file")
        + (f"; {pieces[0]} cannot be used instead" if pieces else "")
        + "; write it with transformers: AutoTokenizer.from_pretrained, then save_pretrained"
    )  # fmt: skip


def read_vocabulary(path: Path, kind: TokenizerClass | None) -> Content:
    """The content of older files; `path` is the first of them."""
    if path.suffix == ".model":
        model = read_pieces(path)
        if kind is None or kind.model != "BPE":
            return Content(path, model.pieces, [], model.charsmap, model.unknown_id, model.added)
        ids = {piece: i for i, (piece, _) in enumerate(model.pieces)}
        return Content(path, ids, merges_of(ids), model.charsmap, extra=model.added)
    check_regular(path)
    with reading(path):
        if path.suffix == ".json":
            merges = path.with_name("merges.txt")
            check_regular(merges)
            return Content(path, *models.BPE.read_file(str(path), str(merges)))
        return Content(path, models.WordPiece.read_file(str(path)), [])
