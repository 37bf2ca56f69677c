# SPDX-License-Identifier: Apache-2.0
"""Opens a MultiVectorEncoder's folder, as saved by sentence-transformers, PyLate or ColBERT's authors."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken

from simdformer import nn
from simdformer._core import Linear, PooledStack
from simdformer.checkpoint import Checkpoint, naming, read_json, read_optional_json
from simdformer.folder.fields import refuse_keys, strings, token_ids
from simdformer.folder.model_folder import ModelFolder
from simdformer.folder.module_files import read_step
from simdformer.folder.modules import Module, ModuleList, read_modules
from simdformer.folder.multi_vector_steps import (
    MultiVector,
    QueryExpansion,
    Scored,
    read_expansion,
    read_pooling,
)
from simdformer.folder.overrides import NO_OVERRIDES, Overrides
from simdformer.folder.settings import Defaults, read_defaults, read_model_type
from simdformer.folder.steps import SENTENCE, TOKENS, Dense, Normalize, Step
from simdformer.folder.transformer_settings import get_length
from simdformer.int8.reference import Pool
from simdformer.models.config_fields import flag
from simdformer.text.tokenizer import Tokenizer
from simdformer.text.warning import warn_caller

_SETTINGS = "config_sentence_transformers.json"
_COLBERT = "HF_ColBERT"
# Keys that PyLate wrote in addition to sentence-transformers' settings.
PYLATE_KEYS = (
    "query_prefix",
    "document_prefix",
    "query_length",
    "document_length",
    "query_expansion",
    "do_query_expansion",
    "attend_to_expansion_tokens",
    "attend_to_mask_tokens",
    "skiplist_words",
)
_MARKERS = ("query", "document")


class Legacy(NamedTuple):
    """Settings that older folders store elsewhere.

    expansion, lengths: used unless the Transformer's own file has them.
    markers: by task, prefixes that become one token each.
    skipped: words without vectors; None for what the modules say.
    """

    expansion: QueryExpansion | None = None
    lengths: Mapping[str, int] = {}
    markers: Mapping[str, str] = {}
    skipped: Sequence[str] | None = None


class MultiVectorFolder(ModelFolder):
    """A MultiVectorEncoder's folder, opened for the texts of a task."""

    expands_queries = True
    other_tensors = ("linear.",)
    pooling: Any

    def __init__(
        self,
        folder: Path,
        overrides: Overrides = NO_OVERRIDES,
        task: str | None = None,
        output: str = SENTENCE,
    ) -> None:
        self._legacy = _read_legacy(folder)
        self._words: tuple[str, ...] = ()
        super().__init__(folder, overrides, task, output)
        if self.is_static:
            raise ValueError(f"{self.listed.source}: StaticEmbedding has no vectors of tokens")
        lengths = {**self._legacy.lengths, **self.settings.task_lengths}
        expansion = read_expansion(self.settings.query_expansion) or self._legacy.expansion
        if expansion is not None:
            if expansion.is_fixed and self.settings.max_length not in (None, expansion.length):
                raise ValueError(
                    f"{self.listed.source}: processing_kwargs' max_length={self.settings.max_length} and"
                    f" query_expansion's length={expansion.length} contradict each other"
                )
            longest = (
                0 if expansion.is_fixed else lengths.get("query", self.settings.length(None) or 0)
            )
            if expansion.is_fixed or longest:
                lengths["query"] = max(expansion.length, longest)
            self.pooling.expansion = expansion
        self.settings = replace(self.settings, task_lengths=lengths)
        prompts = {
            **self.defaults.prompts,
            **{
                task: marker + (self.defaults.prompts.get(task) or "").removeprefix(marker)
                for task, marker in self._legacy.markers.items()
            },
        }
        self.defaults = replace(self.defaults, prompts=prompts)

    @classmethod
    def read_list(cls, folder: Path, output: str = SENTENCE) -> tuple[ModuleList, Defaults]:  # noqa: ARG003
        """The modules of a folder, and its defaults. ValueError if the model does not give several vectors
        per text."""
        listed = read_modules(folder)
        saved = read_model_type(folder)
        if listed is not None and saved in ("MultiVectorEncoder", "ColBERT"):
            return listed, read_defaults(folder, PYLATE_KEYS)
        config = read_optional_json(folder / "config.json")
        if listed is None and _COLBERT in (config.get("architectures") or []):
            return ModuleList(
                folder / "config.json", [Module("Transformer", folder)], is_saved=False
            ), Defaults()
        raise ValueError(
            f"{folder} is not a MultiVectorEncoder: it has neither a MultiVectorEncoder's modules.json nor a"
            f" config.json with the architecture {_COLBERT}; an untrained projection is never created"
        )

    def _chain(self, modules: Sequence[Module], output: str) -> Any:  # noqa: ARG002
        if self.quantization is not None:
            raise ValueError(
                f"{self.folder} is quantized: MultiVectorEncoder runs the model that it was made from,"
                " also with compute_type='int8'"
            )
        source, steps, pooling = self.listed.source, list[Step](), None
        self._tasks: Sequence[str] = ("document",)
        self._kept: Sequence[int] | None = None
        has_mask = False
        for module in modules:
            assert module.folder is not None
            if module.kind == "MultiVectorMask":
                has_mask = True
                self._read_mask(module.folder / "config.json")
            elif module.kind == "HierarchicalTokenPooling":
                pooling = read_pooling(module.folder / "config.json")
            elif pooling is not None:
                raise ValueError(
                    f"{source}: {module.kind} behind HierarchicalTokenPooling cannot be run"
                )
            else:
                steps.append(_on_tokens(read_step(module)))
        if not has_mask:  # modules that PyLate and ColBERT apply without listing them
            punctuation = tuple(string.punctuation)
            given = self._legacy.skipped
            self._words = punctuation if given is None else tuple(given)
            if not modules:
                steps.append(_projection(self.transformer))
            steps.append(Normalize("Normalize", TOKENS, TOKENS))
        chain = MultiVector(str(source), tuple(steps))
        chain.pooling = pooling
        return chain

    def _read_mask(self, path: Path) -> None:
        config = read_json(path)
        refuse_keys(path, config, ("skiplist_words", "skiplist_tasks", "keep_only_token_ids"))
        with naming(path):
            self._words = tuple(strings(config, "skiplist_words", ()))
            self._tasks = strings(config, "skiplist_tasks", ()) or ("document",)
            self._kept = token_ids(config, "keep_only_token_ids")

    def measure(self, checkpoint: Checkpoint) -> Pool:  # noqa: ARG002
        """The mean of the token vectors."""
        return partial(PooledStack, pooling=["mean"])

    def tokenizer(self, encoder: nn.TextEncoder, *, pairs: bool = False) -> Tokenizer:
        """As ModelFolder.tokenizer, with each marker as one token. Also looks up the ids of skipped words."""
        tokenizer = super().tokenizer(encoder, pairs=pairs)
        backend = tokenizer.backend
        marked = [
            m for value in self._legacy.markers.values() if (m := _split_marker(backend, value))
        ]
        if marked:
            backend.add_special_tokens(
                [AddedToken(m, normalized=False, special=True) for m in marked]
            )
        files, chain = tokenizer.files, self.pooling
        unknown = backend.token_to_id(files.special_tokens.get("unk_token", ""))
        numbers = {word: backend.token_to_id(word) for word in self._words}
        missing = [word for word, number in numbers.items() if number is None]
        if missing:
            warn_caller(
                f"{self.listed.source}: skiplist words {missing} are not tokens and are ignored"
            )
        skipped = {n for word, n in numbers.items() if n is not None and n != unknown}
        chain.scored = Scored(skipped, self._tasks, self._kept)
        if chain.expansion is not None:
            chain.token = self._expansion_token(tokenizer, chain.expansion)
        return tokenizer

    def _expansion_token(self, tokenizer: Tokenizer, expansion: QueryExpansion) -> int:
        text = expansion.token or tokenizer.files.special_tokens.get("mask_token")
        number = None if text is None else tokenizer.backend.token_to_id(text)
        if number is None:
            raise ValueError(
                f"{self.listed.source}: query_expansion needs a token of the vocabulary, got {text!r}"
            )
        if tokenizer.files.padding_side != "right":
            raise ValueError(f"{self.listed.source}: query_expansion with padding_side='left'")
        return int(number)


def _on_tokens(step: Step) -> Step:
    """A Dense that names no features works on token vectors here."""
    if isinstance(step, Dense) and step.reads == step.writes == SENTENCE:
        return replace(step, reads=TOKENS, writes=TOKENS)
    if step.reads != TOKENS or step.writes != TOKENS:
        raise ValueError(
            f"{step.name}: it works on {step.reads!r}; here tokens have vectors, texts none"
        )
    return step


def _projection(folder: Path) -> Dense:
    """ColBERT's projection, which is stored with the encoder's weights."""
    with Checkpoint(folder) as checkpoint:
        if "linear.weight" not in checkpoint:
            raise ValueError(f"{checkpoint.location}: no tensor 'linear.weight'")
        weight = checkpoint.read("linear.weight")
    return Dense("linear", Linear(weight), "identity", reads=TOKENS, writes=TOKENS)


def _split_marker(backend: Any, prefix: str) -> str | None:
    """The token in a prefix that the tokenizer splits; None if it does not split one or the prefix has
    none."""
    for token in (prefix, *prefix.split(None, 1)[:1]):
        if token and backend.token_to_id(token) is not None:
            whole = backend.encode(token, add_special_tokens=False).tokens == [token]
            return None if whole else token
    return None


def _read_legacy(folder: Path) -> Legacy:
    config = read_optional_json(folder / "config.json")
    if _COLBERT in (config.get("architectures") or []) and not (folder / "modules.json").exists():
        return _read_artifact(folder / "artifact.metadata")
    path = folder / _SETTINGS
    settings = read_optional_json(path)
    if not any(key in settings for key in PYLATE_KEYS):
        return Legacy()
    with naming(path):
        markers = {
            task: settings[f"{task}_prefix"] or ""
            for task in _MARKERS
            if f"{task}_prefix" in settings
        }
        lengths = {
            task: length
            for task in _MARKERS
            if (length := get_length(settings, f"{task}_length")) is not None
        }
        expansion = None
        if "query_expansion" in settings:
            expansion = read_expansion(settings["query_expansion"])
        elif settings.get("do_query_expansion") is not False:
            attends = settings.get(
                "attend_to_expansion_tokens", settings.get("attend_to_mask_tokens")
            )
            expansion = QueryExpansion(lengths.pop("query", 32) or 32, attends=bool(attends))
        return Legacy(expansion, lengths, markers, strings(settings, "skiplist_words", None))


def _read_artifact(path: Path) -> Legacy:
    """Read ColBERT's own settings."""
    settings = read_optional_json(path)
    with naming(path):
        markers = {
            "query": (settings.get("query_token_id") or "[unused0]") + " ",
            "document": (settings.get("doc_token_id") or "[unused1]") + " ",
        }
        length = get_length(settings, "doc_maxlen")
        expansion = QueryExpansion(
            get_length(settings, "query_maxlen") or 32,
            attends=flag(settings, "attend_to_mask_tokens", False),
        )
        skips = settings.get("mask_punctuation", True)
    skipped = tuple(string.punctuation) if skips else ()
    return Legacy(expansion, {} if length is None else {"document": length}, markers, skipped)
