# SPDX-License-Identifier: Apache-2.0
"""`simdformer search`: the texts of a file that are most similar to a query."""

from __future__ import annotations

import argparse
from itertools import islice
from typing import TYPE_CHECKING

from simdformer.cli.corpus import Corpus
from simdformer.cli.errors import CliError
from simdformer.cli.matches import TopMatches, as_json, as_text
from simdformer.cli.options import (
    add_input_arguments,
    add_model_arguments,
    add_query_arguments,
)
from simdformer.cli.records import Fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from simdformer import SentenceTransformer
    from simdformer.cli.embedding import Chunk
    from simdformer.cli.options import SubParsers
    from simdformer.cli.records import Record

_EPILOG = """\
The formats of the corpus are those of `simdformer embed`. Without --embeddings the corpus is embedded in
every call. With --embeddings the vectors of an earlier `simdformer embed CORPUS -o FILE.npy` with the
same model are used (made with --prompt-name document if the model has a prompt for documents).

examples:
  simdformer search "open a file for reading" --in docs.txt --top 3
  simdformer search "late delivery" "rude staff" --in reviews.csv --field body --json
  simdformer embed docs.txt -o docs.npy
  simdformer search "parse a date" --in docs.txt --embeddings docs.npy
"""

# The number of rows of an .npy file that are compared at a time.
_ROWS = 8192


def add_parser(commands: SubParsers) -> None:
    """Add the subcommand and its arguments."""
    parser = commands.add_parser(
        "search",
        help="find the texts of a file that are most similar to a query",
        description="Find the texts of a file that are most similar to a query.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_query_arguments(parser)
    parser.add_argument(
        "--embeddings", metavar="FILE.npy", help="vectors of the corpus, made by simdformer embed"
    )
    add_input_arguments(parser)
    add_model_arguments(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> None:
    """Embed the queries, compare them with the corpus in one pass, and print."""
    from simdformer.cli.embedding import embed_records, load_model, warn_of_truncation
    from simdformer.cli.output import write_text
    from simdformer.cli.progress import Progress
    from simdformer.text.inputs import document_prompt

    with Corpus([args.corpus], args.format, Fields(args.field)) as source:
        model = load_model(args)
        if args.embeddings is None:
            prompt_name = document_prompt(model.prompts)
            chunks = embed_records(model, source, prompt_name=prompt_name, normalize=False)
        else:
            chunks = stored_chunks(args.embeddings, source, model.get_embedding_dimension())
        queries = _encode_queries(model, args.queries)
        tops = [TopMatches(args.top) for _ in args.queries]
        with Progress(source, shown=args.progress) as progress:
            for chunk in chunks:
                _rank(model, queries, chunk, tops)
                progress.update(chunk.records, chunk.num_tokens)
    warn_of_truncation(model, len(args.queries) + progress.num_texts)
    for query, top in zip(args.queries, tops, strict=True):
        write_text(as_json(query, top.best) if args.json else as_text(query, top.best))


def stored_chunks(path: str, records: Iterable[Record], dim: int) -> Iterator[Chunk]:
    """The records with their vectors from an .npy file, float32 (number of records, dim)."""
    import numpy as np

    from simdformer.cli.embedding import Chunk

    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CliError(f"cannot read {path}: {error}") from error
    if stored.ndim != 2 or stored.shape[1] != dim or stored.dtype != np.float32:
        raise CliError(
            f"{path}: expected float32 (texts, {dim}) as the model makes it, "
            f"got {stored.dtype} {stored.shape}"
        )
    waiting = iter(records)
    for start in range(0, len(stored), _ROWS):
        rows = np.array(stored[start : start + _ROWS])
        batch = list(islice(waiting, len(rows)))
        if len(batch) < len(rows):
            raise CliError(f"{path}: {len(stored):,} rows, but {start + len(batch):,} texts")
        yield Chunk(batch, rows, 0)
    if next(waiting, None) is not None:
        raise CliError(f"{path}: {len(stored):,} rows, but more texts than that")


def _encode_queries(model: SentenceTransformer, queries: list[str]) -> NDArray[np.float32]:
    try:
        vectors: NDArray[np.float32] = model.encode_query(queries)
    except ValueError as error:  # the argument is not UTF-8
        raise CliError(f"QUERY: {error}") from error
    return vectors


def _rank(
    model: SentenceTransformer,
    queries: NDArray[np.float32],
    chunk: Chunk,
    tops: list[TopMatches],
) -> None:
    scores = model.similarity(queries, chunk.embeddings)  # (queries, chunk)
    for top, row in zip(tops, scores, strict=True):
        top.add(row, chunk.records)
