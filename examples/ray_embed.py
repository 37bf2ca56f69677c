# SPDX-License-Identifier: Apache-2.0
"""Embed parquet files on a Ray cluster, and continue an interrupted run.

    python examples/ray_embed.py texts/ vectors/ --id key --checkpoints checkpoints/
    python examples/ray_embed.py s3://bucket/texts s3://bucket/vectors --id key \\
        --checkpoints s3://bucket/checkpoints --address auto

The files have a column of texts and one of ids without duplicates. The output is parquet files with one more column,
"embedding".
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ray
import ray.data
from ray.data.checkpoint import CheckpointConfig

import simdformer.ray


def main() -> None:
    """Read, embed, write."""
    parser = argparse.ArgumentParser(description="Embed parquet files on a Ray cluster.")
    parser.add_argument("input", help="parquet files: a file, a folder or a URI")
    parser.add_argument("output", help="a folder or URI for the parquet files with vectors")
    parser.add_argument("--id", required=True, help="column that tells rows apart")
    parser.add_argument("--checkpoints", required=True, help="a folder or URI for what is done")
    parser.add_argument("--model", default="all-MiniLM-L6-v2", help="name or folder of the model")
    parser.add_argument("--column", default="text", help="column with the texts")
    parser.add_argument("--actors", type=int, help="number of actors (default: one per node)")
    parser.add_argument(
        "--block-bytes", type=int, help="size of a block of rows (default: Ray's, 128 MiB)"
    )
    parser.add_argument(
        "--batch-size", type=int, default=1024, help="rows that an actor gets at least"
    )
    parser.add_argument("--cpus", type=int, help="of this machine for Ray (default: all)")
    parser.add_argument(
        "--address",
        default="local",
        help='of the cluster, "auto" on its nodes (default: this machine)',
    )
    args = parser.parse_args()

    if "://" not in args.checkpoints:
        args.checkpoints = str(Path(args.checkpoints).resolve())
    ray.init(args.address, num_cpus=args.cpus)
    context = ray.data.DataContext.get_current()
    context.checkpoint_config = CheckpointConfig(args.id, args.checkpoints)
    if args.block_bytes is not None:
        context.target_max_block_size = args.block_bytes
    texts = ray.data.read_parquet(args.input)
    vectors = simdformer.ray.embed(
        texts,
        args.model,
        column=args.column,
        num_actors=args.actors,
        batch_size=args.batch_size,
    )
    vectors.write_parquet(args.output)


if __name__ == "__main__":
    main()
