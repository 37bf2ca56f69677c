# SPDX-License-Identifier: Apache-2.0
"""Datasets of Ray Data, embedded on the machines of a cluster (`pip install "simdformer[ray]"`).

The vectors have the same bits as those of `SentenceTransformer.encode`, for any number of actors, machines and
blocks.
"""

from __future__ import annotations

import os
from typing import Any

from simdformer.ray.cluster import (
    common_level,
    cpus_and_threads,
    describe_machines,
    nodes_with_cpus,
)
from simdformer.ray.job import EmbeddingActor, Job, check_checkpoint

__all__ = ["embed"]


def embed(
    dataset: Any,
    model: str | os.PathLike[str],
    *,
    column: str = "text",
    output_column: str = "embedding",
    num_actors: int | None = None,
    num_cpus: float | None = None,
    level: str | None = None,
    batch_size: int = 1024,
    compute_type: str = "default",
    max_batch_tokens: int = 16384,
    prompt_name: str | None = None,
    prompt: str | None = None,
    normalize_embeddings: bool = False,
    truncate_dim: int | None = None,
) -> Any:
    """Add a column of vectors to a Ray dataset.

    The dataset is embedded when it is consumed, as by `write_parquet`. Each actor loads the model from its
    machine's disk and embeds with several threads. An actor that dies is started again by Ray, and the blocks
    that it had are computed again. All actors run at one instruction set level. If Ray's checkpoints are
    used, the stored rows must come from the same model, version, level and settings.

    Parameters
    ----------
    dataset
        A ray.data.Dataset with a column of str.
    model
        Name or folder of the model, as in `SentenceTransformer`; the same files on each node.
    column
        Name of the column with the texts.
    output_column
        Name of the new column: lists of fixed size of float32.
    num_actors
        Number of actors; default: one per node that has CPUs.
    num_cpus
        CPUs that an actor reserves in Ray, and its number of threads. By default, the threads of a node's actors
        use all its CPUs, and three CPUs per node are left unreserved for reading and writing.
    level
        Instruction set level of all actors; default: the widest that all nodes have.
    batch_size
        Rows per call of an actor.
    compute_type, max_batch_tokens
        See `SentenceTransformer`.
    prompt_name, prompt, normalize_embeddings, truncate_dim
        See `SentenceTransformer.encode`.

    Returns
    -------
    ray.data.Dataset
        The dataset with the column `output_column`.

    Raises
    ------
    ImportError
        If Ray Data is not installed.
    FileNotFoundError
        If a node does not have the model.
    TypeError
        If dataset or model has another type.
    ValueError
        If the nodes have different versions, models or architectures of CPUs, or no level in common; if
        the column does not exist; if checkpoints of another job are found.

    Examples
    --------
    >>> import ray, simdformer.ray
    >>> texts = ray.data.from_items([{"text": "A cat."}, {"text": "A kitten."}])
    >>> vectors = simdformer.ray.embed(texts, "all-MiniLM-L6-v2")
    >>> vectors.write_parquet("vectors")
    """
    ray = _ray()
    if not isinstance(dataset, ray.data.Dataset):
        raise TypeError(f"dataset must be a ray.data.Dataset, got {type(dataset).__name__}")
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(f"model must be a name or a folder, got {type(model).__name__}")
    _check_columns(dataset, column, output_column)
    nodes = nodes_with_cpus(ray)
    machines = describe_machines(ray, nodes, os.fspath(model))
    count = len(nodes) if num_actors is None else num_actors
    reserved, num_threads = cpus_and_threads(nodes, count, num_cpus)
    job = Job(
        model=os.fspath(model),
        digest=machines[0].model,
        version=machines[0].version,
        level=common_level(machines, level),
        compute_type=compute_type,
        max_batch_tokens=max_batch_tokens,
        num_threads=num_threads,
        column=column,
        output_column=output_column,
        options={
            "prompt_name": prompt_name,
            "prompt": prompt,
            "normalize_embeddings": normalize_embeddings,
            "truncate_dim": truncate_dim,
        },
    )
    check_checkpoint(ray, job)
    return dataset.map_batches(
        EmbeddingActor,
        fn_constructor_args=(job,),
        batch_format="pyarrow",
        batch_size=batch_size,
        compute=ray.data.ActorPoolStrategy(size=count),
        num_cpus=reserved,
        runtime_env={"env_vars": {"SIMDFORMER_ISA": job.level}},
    )


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError('this needs Ray Data: pip install "simdformer[ray]"') from error
    return ray


def _check_columns(dataset: Any, column: str, output_column: str) -> None:
    names = dataset.columns()
    if names is None:
        raise ValueError(f'the dataset has no rows and no schema, so no column "{column}"')
    if column not in names:
        raise ValueError(f'the dataset has no column "{column}" (there: {", ".join(names)})')
    if output_column in names:
        raise ValueError(f'the dataset has a column "{output_column}" already')
