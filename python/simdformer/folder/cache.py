# SPDX-License-Identifier: Apache-2.0
"""Finds the files that a snapshot in the Hugging Face cache still lacks.

The cache is filled file by file. The files that transformers' AutoModel downloads are not a complete
sentence-transformers model, and would load as a different one. Some files do not exist on the hub: then
huggingface_hub keeps an empty file with the same name in .no_exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from simdformer.checkpoint import has_weights, read_any_json
from simdformer.folder.transformer_settings import transformer_config_name
from simdformer.models.classification import named_head

_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
_WITH_WEIGHTS = ("Dense", "LayerNorm", "WeightedLayerPooling")
_WITH_CONFIG = ("Pooling", *_WITH_WEIGHTS)


def missing_files(snapshot: Path) -> list[str]:
    """The wanted files that are neither in the snapshot nor marked as nonexistent."""
    marks = _marks(snapshot)
    wanted = dict.fromkeys(_wanted(snapshot))
    return [n for n in wanted if not ((snapshot / n).is_file() or (marks / n).is_file())]


def mark_missing(snapshot: Path, names: Iterable[str]) -> None:
    """Mark files as nonexistent on the hub, as huggingface_hub does. A read-only cache is left as it is."""
    for name in names:
        mark = _marks(snapshot) / name
        try:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        except OSError:
            return


def _marks(snapshot: Path) -> Path:
    return snapshot.parent.parent / ".no_exist" / snapshot.name


def _wanted(snapshot: Path) -> Iterator[str]:
    if not _is_cross_encoder(snapshot / "config.json"):
        yield "modules.json"
    if not (snapshot / "modules.json").is_file():
        yield from _of_transformer(snapshot, "")
        return
    yield "config_sentence_transformers.json"
    for kind, path in _modules(snapshot / "modules.json"):
        prefix = f"{path}/" if path else ""
        if kind == "Transformer":
            yield prefix + transformer_config_name(snapshot / path)
            yield from _of_transformer(snapshot / path, prefix)
        if kind in _WITH_CONFIG:
            yield prefix + "config.json"
        if kind in _WITH_WEIGHTS and not has_weights(snapshot / path):
            yield prefix + "model.safetensors"


def _is_cross_encoder(config: Path) -> bool:
    """Whether config.json names a classification head. Such a model needs no modules.json."""
    try:
        fields = read_any_json(config)
    except (ValueError, OSError):
        return False
    return isinstance(fields, dict) and named_head(fields) is not None


def _of_transformer(folder: Path, prefix: str) -> Iterator[str]:
    yield prefix + "config.json"
    yield prefix + "tokenizer_config.json"
    if not any(path for pattern in _TOKENIZERS for path in folder.glob(pattern)):
        yield prefix + "tokenizer.json"


def _modules(path: Path) -> Iterator[tuple[str, str]]:
    """Class and path of each module. Invalid entries are reported later, when the model is loaded."""
    try:
        entries = read_any_json(path)
    except (ValueError, OSError):
        return
    for entry in entries if isinstance(entries, list) else []:
        folder = entry.get("path", "") if isinstance(entry, dict) else None
        if isinstance(folder, str) and ".." not in folder and not folder.startswith("/"):
            yield str(entry.get("type")).rpartition(".")[2], folder.rstrip("/")
