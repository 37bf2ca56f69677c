# SPDX-License-Identifier: Apache-2.0
"""Copies of a model: deepcopy, pickle, other processes, folders.

A pickle does not contain the weights. It contains the name or folder of the model, how it runs, and the
settings changed since loading. A model whose encoder was changed after loading cannot be loaded again, so it
can be copied in memory only.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from operator import is_
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simdformer import nn
from simdformer.checkpoint import read_json
from simdformer.drop_in.arguments import FoundRequest, LoadRequest
from simdformer.drop_in.pool import start_pool, stop_pool
from simdformer.folder.overrides import Overrides
from simdformer.folder.resolve import wanted_files
from simdformer.text.pipeline import TextPipeline

if TYPE_CHECKING:
    from typing_extensions import Self

# Attributes that loading creates.
_LOADED = (
    "_request",
    "_limit",
    "_stacks",
    "_token_heads",
    "_tokenizer",
    "compute_type",
    "encoder",
    "module_names",
    "part_types",
    "pipeline",
)


@dataclass(frozen=True)
class Snapshot:
    """The source of a model, and the settings changed since loading."""

    kind: type[Saved]
    request: FoundRequest
    settings: Mapping[str, Any]
    max_seq_length: int
    include_prompt: bool

    def restore(self) -> Any:
        """Load the model again."""
        model = self.kind.__new__(self.kind)
        model._load(self.request)
        model.__dict__.update(self.settings)
        if model.pipeline.tokenizer.max_seq_length != self.max_seq_length:
            model.pipeline.limit_length("max_seq_length", self.max_seq_length)
        if model.pipeline.include_prompt != self.include_prompt:
            for pipeline in model.pipeline.all():
                pipeline.include_prompt = self.include_prompt
        return model


class Saved:
    """A model that can be copied.

    _request: the request that loaded it. _stacks: the packed forms of its encoders after loading. _limit: its
    max_seq_length after loading.
    """

    encoder: nn.TextEncoder
    pipeline: TextPipeline
    _request: FoundRequest
    _stacks: list[object]
    _limit: int

    @property
    def folder(self) -> Path:
        """The folder from which the model was loaded."""
        return self._request.folder

    @property
    def limit_changed(self) -> bool:
        """Whether max_seq_length was changed since loading."""
        return self.pipeline.tokenizer.max_seq_length != self._limit

    @property
    def overrides(self) -> Overrides:
        """The fields of the folder's files that config_kwargs and processor_kwargs replace."""
        return self._request.overrides

    @abstractmethod
    def _load(self, request: LoadRequest) -> Any:
        """Load the model."""

    @abstractmethod
    def _settings_files(self) -> dict[str, Any]:
        """The settings changed since loading, as fields of the folder's files."""

    def snapshot(self, num_threads: int | None = None) -> Snapshot:
        """The data that another process needs to load the same model.

        num_threads: the number of threads per call there, unless the constructor got one.
        Errors: pickle.PicklingError if the encoder was changed after loading.
        """
        stacks = [pipeline.encoder for pipeline in self.pipeline.all()]
        if self.encoder.native() is not stacks[0] or not all(map(is_, stacks, self._stacks)):
            raise pickle.PicklingError(
                "the encoder was changed after loading; pickles, pools and saved folders hold what was"
                " loaded (copy.deepcopy copies the changes)"
            )
        request, settings = self._request, dict(vars(self))
        if num_threads is not None and request.budget.num_threads == 0:
            budget = request.budget._replace(num_threads=num_threads)
            request = replace(request, budget=budget)
        for name in _LOADED:
            settings.pop(name, None)
        pipeline = self.pipeline
        limit = pipeline.tokenizer.max_seq_length
        return Snapshot(type(self), request, settings, limit, pipeline.include_prompt)

    def __reduce__(self) -> tuple[Any, ...]:
        return Snapshot.restore, (self.snapshot(),)

    def __copy__(self) -> Self:
        other = type(self).__new__(type(self))
        other.__dict__.update(vars(self))
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        for name, value in vars(self).items():
            shared = name in ("_request", "_stacks", "_token_heads", "pipeline")
            other.__dict__[name] = value if shared else copy.deepcopy(value, memo)
        other.pipeline = self.pipeline.with_encoder(other.encoder)
        return other

    # --- processes ---

    def start_multi_process_pool(self, target_devices: list[str] | None = None) -> dict[str, Any]:
        """Start processes that load this model's weights once each; pass the result as `pool` of a call.

        The processes share the CPUs. One process uses all CPUs too, with one copy of the weights.

        Parameters
        ----------
        target_devices
            "cpu" once per process; None for one process per CPU, up to 4.
        """
        return start_pool(self, target_devices)

    @staticmethod
    def stop_multi_process_pool(pool: dict[str, Any]) -> None:
        """End the processes of a pool."""
        stop_pool(pool)

    # --- folders ---

    def save_pretrained(
        self,
        path: str | os.PathLike[str] | None,
        model_name: str | None = None,  # noqa: ARG002  (sentence-transformers': of its model card)
        create_model_card: bool = True,
        train_datasets: list[str] | None = None,  # noqa: ARG002
        safe_serialization: bool = True,
    ) -> None:
        """Write a folder that loads as this model: its files, and the settings changed since loading.

        Weights are copied as they are stored.

        Parameters
        ----------
        path
            The folder; it is created if it does not exist. None writes nothing, as in sentence-transformers.
        model_name, train_datasets
            Without effect.
        create_model_card
            Also copy README.md.
        safe_serialization
            Must be True.

        Raises
        ------
        pickle.PicklingError, ValueError
            If the encoder was changed after loading, or safe_serialization is False.
        """
        if path is None:
            return
        if not safe_serialization:
            raise ValueError(
                "safe_serialization must be True: weights are copied as they are stored"
            )
        source, target = self.snapshot().request.folder, Path(path)
        wanted = wanted_files(
            [file.relative_to(source).as_posix() for file in source.rglob("*") if file.is_file()]
        )
        for name in [*wanted, *(["README.md"] if create_model_card else [])]:
            if (source / name).is_file():
                _replace(target / name, source / name)
        for name, fields in self._settings_files().items():
            old = read_json(target / name) if name in wanted else {}
            if fields:
                _replace(target / name, {**old, **fields} if isinstance(fields, dict) else fields)

    save = save_pretrained


def _replace(target: Path, content: Any) -> None:
    """Write a file under a temporary name, and rename it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        if isinstance(content, Path):
            shutil.copyfile(content, temporary)
        else:
            temporary.write_text(json.dumps(content, indent=2), encoding="utf-8")
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
