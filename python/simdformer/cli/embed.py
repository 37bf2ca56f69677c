# SPDX-License-Identifier: Apache-2.0
"""`simdformer embed`: read texts and write vectors. The memory does not grow with the input."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

from simdformer.cli.bad_records import BadRecords
from simdformer.cli.corpus import Corpus, check_inputs, refuse_same_file, say_left_out
from simdformer.cli.errors import UsageError, reported
from simdformer.cli.options import (
    add_input_arguments,
    add_model_arguments,
    add_record_arguments,
    not_negative_int,
    positive_int,
)
from simdformer.cli.records import Columns, Fields, Format

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simdformer import SentenceTransformer
    from simdformer.cli.embedding import Chunk
    from simdformer.cli.journal import Journal
    from simdformer.cli.options import SubParsers
    from simdformer.cli.output import AtomicFile
    from simdformer.cli.records import Record
    from simdformer.cli.writers import VectorWriter

_EPILOG = """\
INPUT   .txt: one text per line. .jsonl: one object per line. .csv, .tsv: a header and rows. .md: one text.
        .parquet, .arrow: one text per row (pip install "simdformer[arrow]"). Files of text, .txt to .md, also
        compressed, .gz or .zst. A folder: the files below it. A pattern: "pages/*.txt". A URI that pyarrow
        knows: s3://bucket/pages. -: standard input.
OUTPUT  .npy: (texts, dim). .jsonl: {"line", "text", "embedding"} per line. .parquet: the same as columns.
        -: .jsonl on standard output. With --part-rows: a folder of such files. With several input files "source"
        is added, with --id "id", with --chunk "start" and "end", the characters of the chunk in its text.

Row i of the output is the i-th text of the input. OUTPUT is replaced only when the output is complete.

examples:
  simdformer embed docs.txt -o docs.npy
  simdformer embed reviews.csv --field body --id key --normalize -o reviews.parquet
  simdformer embed handbook/ --chunk 128 --overlap 16 --resume -o handbook.jsonl
  simdformer embed s3://bucket/pages --dtype int8 --part-rows 100000 --resume -o vectors.parquet
  simdformer embed papers.jsonl.gz --template "{title}. {abstract}" --on-error skip -o papers.npy
"""


def add_parser(commands: SubParsers) -> None:
    """Add the subcommand and its arguments."""
    parser = commands.add_parser(
        "embed",
        help="turn the texts of files into vectors",
        description="Turn the texts of files into vectors.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", nargs="+", metavar="INPUT", help="files with texts; - for stdin")
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUTPUT", help="file for the vectors; - for stdout"
    )
    parser.add_argument("--normalize", action="store_true", help="scale every vector to length 1")
    parser.add_argument(
        "--prompt-name",
        metavar="P",
        help="name of the prompt to put before every text (default: the model's default)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16", "int8"),
        default="float32",
        help="dtype of the stored vectors (default: %(default)s); int8: as quantize_embeddings, with the ranges"
        " of the first 10,000 texts, which are written to OUTPUT.ranges.npy",
    )
    add_input_arguments(parser)
    _add_bulk_arguments(parser)
    add_model_arguments(parser)
    parser.set_defaults(run=run, parser=parser)


def _add_bulk_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("many and long texts")
    add = group.add_argument
    add_record_arguments(group)
    add(
        "--chunk",
        type=positive_int,
        nargs="?",
        const=0,
        metavar="N",
        help="split texts into chunks of at most N tokens (default N: the model's limit)",
    )
    add(
        "--overlap",
        type=not_negative_int,
        default=0,
        metavar="N",
        help="tokens that consecutive chunks share (default: 0)",
    )
    add(
        "--part-rows",
        type=positive_int,
        metavar="N",
        help="make OUTPUT a folder of files of N texts each: part-00000, part-00001 and so on",
    )
    add(
        "--resume",
        action="store_true",
        help="save progress beside OUTPUT, and continue an interrupted run",
    )


class _Outputs(NamedTuple):
    """OUTPUT, the progress of --resume, and the ranges of int8 codes."""

    file: Any
    journal: Journal | None
    ranges: AtomicFile | None


def run(args: argparse.Namespace) -> None:
    """Read, embed and write. The output is opened before the model is loaded, so a wrong path fails at
    once."""
    from simdformer.cli.embedding import load_model, warn_of_truncation

    _check(args)
    fields = Fields(args.field, id=args.id, template=args.template)
    with ExitStack() as stack:
        bad = BadRecords(args.errors) if args.on_error == "skip" else None
        corpus = Corpus(args.input, args.format, fields, None if bad is None else bad.note)
        refuse_same_file(corpus.files, args.output, args.errors)
        if bad is not None:
            stack.enter_context(bad)
        source = stack.enter_context(corpus)
        outputs = _open_outputs(args, stack)
        model = load_model(args)
        with reported():  # an unknown name of a prompt
            model.resolve_prompt(None, args.prompt_name)
        num_texts = _embed(args, model, source, outputs)
    warn_of_truncation(model, num_texts)
    say_left_out(corpus, bad, f"{num_texts:,} texts embedded")


def _open_outputs(args: argparse.Namespace, stack: ExitStack) -> _Outputs:
    """They are left in reverse order: OUTPUT is complete before the ranges appear and the progress is removed."""
    from simdformer.cli.journal import Journal
    from simdformer.cli.output import AtomicFile, open_output
    from simdformer.cli.parts import PartsFolder

    journal = stack.enter_context(Journal(args.output)) if args.resume else None
    name = f"{args.output}.ranges.npy" if args.dtype == "int8" else None
    ranges = None if name is None else stack.enter_context(AtomicFile(name))
    # The old ranges are removed with the old codes: no codes are ever beside the ranges of others.
    file: Any = open_output(args.output, companion=name)
    if args.part_rows:
        file = PartsFolder(args.output, companion=name)
    return _Outputs(stack.enter_context(file), journal, ranges)


def _embed(
    args: argparse.Namespace, model: SentenceTransformer, source: Corpus, outputs: _Outputs
) -> int:
    """Write the vectors. Returns the number of texts."""
    from simdformer.cli.int8_codes import Int8Codes
    from simdformer.cli.progress import Progress

    columns = Columns(
        id=args.id is not None,
        source=len(source.files) > 1,
        span=args.chunk is not None,
        dtype=args.dtype,
    )
    # Reading the model's folder for it takes some time.
    kept = args.resume or args.output.lower().endswith(".parquet")
    manifest = _manifest(args, model) if kept else {}
    dim = model.get_embedding_dimension()
    writer = _writer(args, outputs.file, Format(dim, columns, manifest))
    chunks = _chunks(args, model, source, outputs.journal, manifest)
    codes = Int8Codes(dim)
    if outputs.ranges is not None:
        chunks = codes(chunks)
    with Progress(source, shown=args.progress) as progress:
        for chunk in chunks:
            writer.write(chunk.records, chunk.embeddings)
            progress.update(chunk.records, chunk.num_tokens)
    writer.finish()
    if outputs.ranges is not None:
        codes.save(outputs.ranges)
    return progress.num_texts


def _writer(args: argparse.Namespace, file: Any, output: Format) -> VectorWriter:
    from simdformer.cli.parts import PartsFolder, PartsWriter
    from simdformer.cli.writers import vector_writer

    if isinstance(file, PartsFolder):
        return PartsWriter(file, args.part_rows, output)
    return vector_writer(args.output, file, output)


def _chunks(
    args: argparse.Namespace,
    model: SentenceTransformer,
    source: Corpus,
    journal: Journal | None,
    manifest: dict[str, Any],
) -> Iterator[Chunk]:
    from simdformer.cli.embedding import embed_records

    records: Iterator[Record] = iter(source)
    if args.chunk is not None:
        from simdformer.cli.chunking import Chunker

        records = Chunker(model, args.chunk, args.overlap, args.prompt_name)(records)

    def compute(records: Iterator[Record]) -> Iterator[Chunk]:
        return embed_records(model, records, prompt_name=args.prompt_name, normalize=args.normalize)

    if journal is None:
        return compute(records)
    from simdformer.cli.journal import resumed

    journal.begin(manifest)
    return resumed(journal, records, model.get_embedding_dimension(), compute)


def _manifest(args: argparse.Namespace, model: SentenceTransformer) -> dict[str, Any]:
    """Everything that the vectors depend on, except the texts."""
    from simdformer import __version__, show_config
    from simdformer.cli.identity import identity

    return {
        "version": __version__,
        "level": show_config("dicts")["isa"]["active"],
        **identity(args.model, model),
        "max_seq_length": model.max_seq_length,
        "prompt": model.resolve_prompt(None, args.prompt_name),
        "normalize": args.normalize,
        "chunk": args.chunk,
        "overlap": args.overlap,
    }


def _check(args: argparse.Namespace) -> None:
    """UsageError for arguments that exclude each other."""
    if args.resume and (args.output == "-" or "-" in args.input):
        raise UsageError("--resume needs files: the input is read again, and the output kept")
    if args.output == "-" and (args.part_rows or args.dtype == "int8"):
        option = "--part-rows" if args.part_rows else "--dtype int8"
        raise UsageError(f"{option} writes several files; OUTPUT must not be -")
    if args.overlap and args.chunk is None:
        raise UsageError("--overlap needs --chunk")
    check_inputs(args)
