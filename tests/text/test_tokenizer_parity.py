"""Token ids, types and settings are those of AutoTokenizer, for all combinations of files. Needs the group
parity."""

from __future__ import annotations

import pytest

from simdformer.models import REGISTRY
from simdformer.text import tokenizer_classes
from simdformer.text.tokenizer import load_tokenizer
from tests.support.tokenizer_grid import (
    CASES,
    KINDS,
    OLD_CASES,
    PAIRS,
    TEXTS,
    VARIANTS,
    write_folder,
)

pytestmark = [
    pytest.mark.parity,
    # Deprecations inside transformers cannot be fixed here.
    pytest.mark.filterwarnings("ignore"),
]
GRID = {(kind, old) for cases, old in ((CASES, False), (OLD_CASES, True)) for kind, _ in cases}


@pytest.fixture(scope="module")
def transformers():
    module = pytest.importorskip("transformers")
    module.logging.set_verbosity_error()
    return module


def reference(transformers, folder):
    """transformers' tokenizer and its ids; None if it refuses the files or a text."""
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        return tokenizer, tokenizer(TEXTS)["input_ids"]
    except Exception:  # noqa: BLE001
        return None


def ours(folder, limit=None, pairs=False):
    options = {"max_seq_length": limit, "max_positions": 10**6, "do_lower_case": False}
    return load_tokenizer(folder, pairs=pairs, **options)


def differences(folder, tokenizer, ids):
    """The differences between a folder's tokenizer and transformers'."""
    mine, cut = ours(folder), {"truncation": "longest_first", "max_length": 6}
    if mine(TEXTS).input_ids != ids:
        yield "ids"
    if ours(folder, 6)(TEXTS).input_ids != tokenizer(TEXTS, **cut)["input_ids"]:
        yield "cut ids"
    for limit, options in ((None, {}), (6, cut)):
        found, expected = ours(folder, limit, pairs=True)(PAIRS), tokenizer(PAIRS, **options)
        zeros = [[0] * len(row) for row in found.input_ids]
        if found.input_ids != expected["input_ids"]:
            yield f"ids of pairs of {limit}"
        if (found.type_ids or zeros) != expected.get("token_type_ids", zeros):
            yield f"types of pairs of {limit}"
    if [mine.backend.decode(row) for row in ids] != [
        tokenizer.backend_tokenizer.decode(row) for row in ids
    ]:
        yield "texts of ids"
    files = mine.files
    if (files.pad_id, files.padding_side) != (tokenizer.pad_token_id or 0, tokenizer.padding_side):
        yield "padding"
    if files.special_ids != set(tokenizer.all_special_ids):
        yield "special ids"
    if files.special_tokens != tokenizer.special_tokens_map:
        yield "special tokens"
    if files.has_types != ("token_type_ids" in tokenizer.model_input_names):
        yield "token types"


@pytest.mark.parametrize(("kind", "old"), sorted(GRID), ids=str)
def test_tokenizers_are_transformers(transformers, kind, old, tmp_path):
    if old and KINDS[kind].old.endswith(".model"):
        pytest.importorskip("sentencepiece")
    compared, found = 0, []
    for name, variant in OLD_CASES if old else CASES:
        if name == kind:
            folder = write_folder(tmp_path / variant, kind, variant, old=old)
            if (theirs := reference(transformers, folder)) is not None:
                compared += 1
                found += [(variant, what) for what in differences(folder, *theirs)]
    assert found == []
    assert compared > 3


def test_every_variant_is_compared(transformers, tmp_path):
    accepted = {
        v for v in VARIANTS if reference(transformers, write_folder(tmp_path / v, "XLM-R", v))
    }
    assert accepted == set(VARIANTS)


# The choice of the class


@pytest.mark.parametrize("model_type", sorted({*REGISTRY, *tokenizer_classes.BY_MODEL_TYPE}))
def test_a_model_types_class_is_transformers(transformers, model_type):
    auto = transformers.models.auto.tokenization_auto
    expected = auto.TOKENIZER_MAPPING_NAMES.get(model_type)
    found = tokenizer_classes.BY_MODEL_TYPE.get(model_type)
    generic = {None: None, "": "TokenizersBackend"}
    assert generic.get(found, f"{found}Tokenizer") == expected
    wrong = model_type in auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS
    assert (model_type in tokenizer_classes.OVERRULED) == wrong


def test_every_class_of_transformers_is_known_or_refused_by_name(transformers):
    auto = transformers.models.auto.tokenization_auto
    named = {name for name in [*dir(transformers), *auto.TOKENIZER_MAPPING_NAMES.values()] if name}
    stems = {tokenizer_classes._stem(name) for name in named}
    known = {*tokenizer_classes._CLASSES, *tokenizer_classes._ALIASES, *tokenizer_classes._OTHERS}
    # These are not tokenizers of folders: parts of others, and the generic class.
    assert stems - known == {"", "Auto", "Basic", "Character", "Mecab", "PreTrained", "Wordpiece"}


def test_aliases_are_transformers(transformers):
    find = transformers.models.auto.tokenization_auto.tokenizer_class_from_name
    for alias, name in tokenizer_classes._ALIASES.items():
        assert find(f"{alias}Tokenizer") is find(f"{name}Tokenizer")
