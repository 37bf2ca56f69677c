# SPDX-License-Identifier: Apache-2.0
"""The work of a job's actors, and the properties that two equal jobs share."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from simdformer.ray.cluster import active_level, describe_machine

# Fields of a job that do not change vectors. The digest identifies the model.
_WITHOUT_EFFECT = ("model", "max_batch_tokens", "num_threads")


@dataclass(frozen=True)
class Job:
    """The arguments of an actor. `options` are arguments of encode."""

    model: str
    digest: str
    version: str
    level: str
    compute_type: str
    max_batch_tokens: int
    num_threads: int
    column: str
    output_column: str
    options: dict[str, Any] = field(default_factory=dict)


class EmbeddingActor:
    """Embeds batches, in an actor."""

    def __init__(self, job: Job) -> None:
        from simdformer import SentenceTransformer

        machine = describe_machine(job.model)
        own = (machine.version, machine.model, active_level())
        if own != (job.version, job.digest, job.level):
            raise RuntimeError(
                f"{machine.address} has version, model and level {own}, and the job"
                f" {(job.version, job.digest, job.level)}"
            )
        self._job = job
        self._model = SentenceTransformer(
            job.model,
            compute_type=job.compute_type,
            num_threads=job.num_threads,
            max_batch_tokens=job.max_batch_tokens,
        )
        self._dim = self._model.encode("", **job.options).shape[-1]  # also for batches without rows

    def __call__(self, table: Any) -> Any:
        """A pyarrow.Table with the vectors as one more column."""
        import pyarrow as pa

        texts = table.column(self._job.column).to_pylist()
        for text in texts:
            if not isinstance(text, str):
                kind = type(text).__name__
                raise TypeError(f'column "{self._job.column}" must hold strings, got {kind}')
        vectors = self._model.encode(texts, show_progress_bar=False, **self._job.options)
        values = pa.array(vectors.reshape(-1), pa.float32())
        column = pa.FixedSizeListArray.from_arrays(values, self._dim)
        return table.append_column(self._job.output_column, column)


def check_checkpoint(ray: Any, job: Job) -> None:
    """ValueError if Ray's checkpoints have rows of another job. Otherwise this job is stored beside them."""
    config = getattr(ray.data.DataContext.get_current(), "checkpoint_config", None)
    if config is None:
        return
    from pyarrow import fs

    system: Any = config.filesystem
    folder = config.checkpoint_path.rstrip("/")
    if "://" in folder:
        _, folder = fs.FileSystem.from_uri(folder)
    place = f"{folder}.simdformer.json"
    own = {key: value for key, value in asdict(job).items() if key not in _WITHOUT_EFFECT}
    used = any(
        each.is_file
        for each in system.get_file_info(
            fs.FileSelector(folder, recursive=True, allow_not_found=True)
        )
    )
    if used:
        if not system.get_file_info(place).is_file:
            raise ValueError(
                f"the checkpoints in {folder} do not say of which job: {place} is missing"
            )
        with system.open_input_stream(place) as file:
            stored = json.loads(file.read())
        for key, value in own.items():
            if stored.get(key) != value:
                raise ValueError(
                    f"the checkpoints in {folder} are of another job: {key} was"
                    f" {stored.get(key)!r}, is {value!r}; remove them and the output to begin anew"
                )
        return
    if isinstance(system, fs.LocalFileSystem):
        Path(folder).parent.mkdir(parents=True, exist_ok=True)
    with system.open_output_stream(place) as file:
        file.write(json.dumps(own, indent=1).encode())
