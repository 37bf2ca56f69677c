# SPDX-License-Identifier: Apache-2.0
"""What a snapshot in the Hugging Face cache lacks of a model.

The cache fills file by file: what transformers' AutoModel left there is no whole model of
sentence-transformers, and is loaded as another one. That a file does not exist is known where the hub
has said so: huggingface_hub keeps an empty file of its name below .no_exist.
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
    """The files that are neither there nor known not to exist."""
    marks = _marks(snapshot)
    wanted = dict.fromkeys(_wanted(snapshot))
    return [n for n in wanted if not ((snapshot / n).is_file() or (marks / n).is_file())]


def mark_missing(snapshot: Path, names: Iterable[str]) -> None:
    """Keep that the hub has no such files, as huggingface_hub does. A cache that cannot be written is
    left as it is."""
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
    """Whether it names a head: what needs no modules.json to be whole."""
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
    """Class and path of each module; what cannot be is reported when the model is loaded."""
    try:
        entries = read_any_json(path)
    except (ValueError, OSError):
        return
    for entry in entries if isinstance(entries, list) else []:
        folder = entry.get("path", "") if isinstance(entry, dict) else None
        if isinstance(folder, str) and ".." not in folder and not folder.startswith("/"):
            yield str(entry.get("type")).rpartition(".")[2], folder.rstrip("/")
