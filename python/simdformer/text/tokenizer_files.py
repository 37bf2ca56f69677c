# SPDX-License-Identifier: Apache-2.0
"""A folder's tokenizer: tokenizer.json, or what transformers makes of the files that models had before it.

Those hold a vocabulary; the rest is in the tokenizer's class, of which three are written down here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, processors

from simdformer.checkpoint import check_regular, read_json

# The texts of special tokens by their role.
Named = Mapping[str, str]

# In transformers' order, in which those that the vocabulary lacks get their ids.
_ROLES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def _wordpiece(folder: Path, named: Named) -> tokenizers.Tokenizer:
    unknown = named["unk_token"]
    vocabulary = models.WordPiece.read_file(str(folder / "vocab.txt"))
    if unknown not in vocabulary:
        raise ValueError(f"the token for unknown words, {unknown!r}, is not in it")
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _byte_level(folder: Path, named: Named) -> tokenizers.Tokenizer:  # noqa: ARG001
    files = (str(folder / "vocab.json"), str(folder / "merges.txt"))
    vocabulary, merges = models.BPE.read_file(*files)
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def _bert_template(cls: tuple[str, int], sep: tuple[str, int]) -> processors.PostProcessor:
    return processors.TemplateProcessing(
        single=f"{cls[0]}:0 $A:0 {sep[0]}:0",
        pair=f"{cls[0]}:0 $A:0 {sep[0]}:0 $B:1 {sep[0]}:1",
        special_tokens=[cls, sep],
    )


def _roberta_template(cls: tuple[str, int], sep: tuple[str, int]) -> processors.PostProcessor:
    return processors.RobertaProcessing(sep, cls)


class _Class(NamedTuple):
    """One of transformers' classes. special: its special tokens if no file says so. flags: the settings
    of those that are given as strings."""

    files: tuple[str, ...]
    special: Mapping[str, str]
    flags: Mapping[str, Mapping[str, bool]]
    build: Callable[[Path, Named], tokenizers.Tokenizer]
    template: Callable[[tuple[str, int], tuple[str, int]], processors.PostProcessor]


_BRACKETS = {f"{role}_token": f"[{role.upper()}]" for role in ("unk", "sep", "pad", "cls", "mask")}
_ANGLES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
_MASK_WITH_BLANK = {"mask_token": {"lstrip": True}}  # it takes the blank before it along
_BERT = _Class(("vocab.txt",), _BRACKETS, {}, _wordpiece, _bert_template)
_MPNET = _Class(
    ("vocab.txt",),
    {**_ANGLES, "unk_token": "[UNK]"},
    _MASK_WITH_BLANK,
    _wordpiece,
    _roberta_template,
)
_ROBERTA = _Class(("vocab.json", "merges.txt"), _ANGLES, {}, _byte_level, _roberta_template)
_CLASSES = {
    "BertTokenizer": _BERT,
    "DistilBertTokenizer": _BERT,
    "MPNetTokenizer": _MPNET,
    "RobertaTokenizer": _ROBERTA,
}
_BY_MODEL_TYPE = {"bert": _BERT, "distilbert": _BERT, "mpnet": _MPNET, "roberta": _ROBERTA}


def read_tokenizer(folder: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """The library's tokenizer of a folder. config: its tokenizer_config.json, of which settings of the
    normalizer and the pre-tokenizer are left to the caller.

    Errors: FileNotFoundError if no files are there that a tokenizer can be made of, ValueError naming
    the file that is damaged.
    """
    path = folder / "tokenizer.json"
    if path.is_file():
        return _from(path, lambda: tokenizers.Tokenizer.from_file(str(path)))
    kind = _class(folder, config)
    for file in kind.files:
        check_regular(folder / file)
    added, named = _tokens(folder, config, kind)
    return _from(folder / kind.files[0], lambda: _made(folder, kind, added, named))


def _from(path: Path, make: Callable[[], tokenizers.Tokenizer]) -> tokenizers.Tokenizer:
    check_regular(path)
    try:
        return make()
    except Exception as error:  # the library raises Exception itself
        raise ValueError(f"{path}: not a tokenizer definition: {error}") from error


def _made(
    folder: Path, kind: _Class, added: list[AddedToken], named: Named
) -> tokenizers.Tokenizer:
    tokenizer = kind.build(folder, named)
    tokenizer.add_tokens(added)

    def numbered(role: str) -> tuple[str, int]:
        content = named[role]
        number = tokenizer.token_to_id(content)
        if number is None:
            raise ValueError(f"its {role}, {content!r}, has no number")
        return content, number

    tokenizer.post_processor = kind.template(numbered("cls_token"), numbered("sep_token"))
    pad_token, pad_id = numbered("pad_token")
    tokenizer.enable_padding(pad_token=pad_token, pad_id=pad_id)
    return tokenizer


def _class(folder: Path, config: Mapping[str, Any]) -> _Class:
    """The class that transformers would take. FileNotFoundError if it is not known, or lacks a file."""
    model = read_json(folder / "config.json")
    name = config.get("tokenizer_class") or model.get("tokenizer_class")
    if name is None:
        kind = _BY_MODEL_TYPE.get(str(model.get("model_type")))
    else:
        kind = _CLASSES.get(str(name).removesuffix("Fast"))
    if kind is not None and all((folder / file).is_file() for file in kind.files):
        return kind
    if kind is not None:
        message = f"no tokenizer.json in {folder}, nor {' and '.join(kind.files)}"
    else:
        owner = f"a {name}" if name else f"a model of type {model.get('model_type')!r}"
        message = f"no tokenizer.json in {folder}; of {owner} no other file is read"
    pieces = sorted(path.name for path in folder.glob("*.model"))
    raise FileNotFoundError(
        f"{message}{f', {pieces[0]} neither' if pieces else ''}; transformers writes it:"
        " AutoTokenizer.from_pretrained, then save_pretrained"
    )


def _tokens(
    folder: Path, config: Mapping[str, Any], kind: _Class
) -> tuple[list[AddedToken], dict[str, str]]:
    """The tokens that are found in a text as they stand there, and the texts of the special ones by role."""
    path, settings = folder / "tokenizer_config.json", dict(config)
    if "added_tokens_decoder" not in config:  # else it says all
        settings |= _object(folder / "special_tokens_map.json")
    named = _named_tokens(path, settings, kind)
    special = [*named.values(), *_extra_tokens(path, settings)]
    if "added_tokens_decoder" in config:
        added = _added_tokens(path, config["added_tokens_decoder"])
    else:
        added = _old_added_tokens(folder / "added_tokens.json", {t.content for t in special})
    roles = {role: token.content for role, token in named.items()}
    for token in added:
        token.special |= token.content in roles.values()
    there = {token.content for token in added}
    return [*added, *(token for token in special if token.content not in there)], roles


def _named_tokens(path: Path, settings: Mapping[str, Any], kind: _Class) -> dict[str, AddedToken]:
    values = {role: settings.get(role) or kind.special.get(role) for role in _ROLES}
    return {
        role: _token(path, value, special=True, **kind.flags.get(role, {}))
        for role, value in values.items()
        if value is not None
    }


def _extra_tokens(path: Path, settings: Mapping[str, Any]) -> list[AddedToken]:
    """Special tokens without a role: a list, or an object by names of their own."""
    values = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    if isinstance(values, dict):
        values = list(values.values())
    if not isinstance(values, list):
        raise ValueError(f"{path}: additional_special_tokens must be a list, got {values!r}")  # noqa: TRY004  (the file is wrong, not the call)
    return [_token(path, value, special=True) for value in values]


def _added_tokens(path: Path, values: object) -> list[AddedToken]:
    """Tokens by their ids, which are the order in which the library numbers them."""
    if not isinstance(values, dict) or not all(_is_number(key) for key in values):
        raise ValueError(f"{path}: added tokens must be an object with ids, got {values!r}")
    return [_token(path, values[key]) for key in sorted(values, key=int)]


def _old_added_tokens(path: Path, special: set[str]) -> list[AddedToken]:
    """The same in the files of before 2023: ids by texts."""
    values = {
        str(number): {
            "content": text,
            "special": text in special,
            "normalized": text not in special,
        }
        for text, number in _object(path).items()
    }
    return _added_tokens(path, values)


def _is_number(key: str) -> bool:
    return key.isdecimal() and len(key) < 10


def _object(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _token(path: Path, value: object, **flags: bool) -> AddedToken:
    """A token as JSON has it: its text, or an object. flags: of the text alone, but for "special"."""
    fields = {"content": value, **flags} if isinstance(value, str) else value
    if not isinstance(fields, dict) or not isinstance(fields.get("content"), str):
        raise ValueError(f"{path}: a token must be a string or an object with one, got {value!r}")  # noqa: TRY004  (the file is wrong, not the call)
    given = {name: fields[name] for name in _FLAGS if name in fields}
    if not all(isinstance(flag, bool) for flag in given.values()):
        raise ValueError(f"{path}: the settings of a token must be true or false, got {value!r}")
    if flags.get("special"):
        given["special"] = True
    return AddedToken(fields["content"], **given)
