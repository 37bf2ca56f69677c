# SPDX-License-Identifier: Apache-2.0
"""Reads SentencePiece models: their contents as the tokenizer classes of transformers 5 use them.

Source: transformers 5.24, convert_slow_tokenizer.SentencePieceExtractor.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tokenizers import AddedToken

from simdformer.checkpoint import read_regular
from simdformer.text.declared_tokens import Token
from simdformer.text.tokenizer_parts import Piece, Source

_CONTROL, _USER_DEFINED = 3, 4  # the kinds of pieces in sentencepiece_model.proto


class PieceModel(NamedTuple):
    """pieces: in the order of their ids. added: pieces that are found in a text before it is tokenized."""

    pieces: list[Piece]
    added: list[Token]
    charsmap: bytes | None
    unknown_id: int


def read_pieces(path: Path) -> PieceModel:
    """Read a SentencePiece model. ImportError if the package for it is missing, ValueError if it is
    invalid."""
    try:
        from google.protobuf.message import DecodeError
        from sentencepiece import sentencepiece_model_pb2
    except ImportError as error:
        raise ImportError(
            f"{path}: SentencePiece models need the extra: pip install simdformer[sentencepiece]"
        ) from error
    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(read_regular(path))
    except DecodeError as error:
        raise ValueError(f"{path}: not a SentencePiece model: {error}") from error
    return PieceModel(
        [(piece.piece, piece.score) for piece in proto.pieces],
        [
            AddedToken(piece.piece, normalized=False, special=piece.type == _CONTROL)
            for piece in proto.pieces
            if piece.type in (_CONTROL, _USER_DEFINED)
        ],
        proto.normalizer_spec.precompiled_charsmap or None,
        proto.trainer_spec.unk_id,
    )


def merges_of(ids: Mapping[str, int]) -> list[tuple[str, str]]:
    """The merges of a BPE model. SentencePiece stores only their results, so these are all ways to merge two
    tokens to a token, in the order of its id."""
    found = [
        (number, cut, token)
        for token, number in ids.items()
        for cut in range(1, len(token))
        if token[:cut] in ids and token[cut:] in ids
    ]
    found.sort()
    return [(token[:cut], token[cut:]) for _, cut, token in found]


# --- the pieces of a SentencePiece model, with those that the class adds before and after them ---


def xlm_roberta_pieces(source: Source) -> list[Piece]:
    first = [(source.role(f"{role}_token"), 0.0) for role in ("bos", "pad", "eos", "unk")]
    return [*first, *source.pieces[3:], (source.role("mask_token"), 0.0)]


def camembert_pieces(source: Source) -> list[Piece]:
    first = ("<s>NOTUSED", source.role("pad_token"), "</s>NOTUSED", source.role("unk_token"))
    head = [*((token, 0.0) for token in first), ("<unk>NOTUSED", -100.0)]
    return [*head, *source.pieces[1:], (source.role("mask_token"), 0.0)]


def t5_pieces(source: Source) -> list[Piece]:
    return [*source.pieces, *((token, 0.0) for token in reversed(_sentinels(source)))]


# --- special tokens without a role. given: those in the older files and in the SentencePiece model ---


def given_extra(_: Source, given: list[Token] | None) -> list[Token]:
    return given or []


def camembert_extra(_: Source, given: list[Token] | None) -> list[Token]:
    return ["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"] if given is None else given


def t5_extra(source: Source, given: list[Token] | None) -> list[Token]:
    own, given = _sentinels(source), given or []
    found = sum("<extra_id_" in str(token) for token in given)
    if found == 0:
        return [*given, *own]
    if own and len(own) != found:
        raise ValueError(f"{source.path}: extra_ids is {len(own)}, but {found} tokens are declared")
    return given


def _sentinels(source: Source) -> list[str]:
    return [f"<extra_id_{i}>" for i in range(source.number("extra_ids", 100))]
