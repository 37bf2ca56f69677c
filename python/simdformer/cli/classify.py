# SPDX-License-Identifier: Apache-2.0
"""`simdformer classify`: texts in, labels out, in memory that does not grow with the input."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING, Any

from simdformer.cli.bad_records import BadRecords
from simdformer.cli.corpus import Corpus, check_inputs, refuse_same_file, say_left_out
from simdformer.cli.errors import CliError, UsageError, reported
from simdformer.cli.options import (
    add_input_arguments,
    add_model_arguments,
    add_record_arguments,
    not_negative_int,
    positive_int,
)
from simdformer.cli.records import Columns, Fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from simdformer import Pipeline
    from simdformer.cli.options import SubParsers
    from simdformer.cli.records import Record

_EPILOG = """\
The model decides what is found: labels of texts (a ...ForSequenceClassification), or entities in them
(...ForTokenClassification). With --labels, a model of entailment (NLI) tells how well each of these labels fits.

INPUT   as for `simdformer embed`.
OUTPUT  .jsonl: {"line", "text", "label", "score"} per text; with --top-k {"line", "text", "labels": [{"label",
        "score"}]}; with entities {"line", "text", "entities": [{"entity_group", "score", "word", "start", "end"}]}.
        -: standard output. With several files "source" is added, with --id "id".

examples:
  simdformer classify reviews.csv --field body --model distilbert-base-uncased-finetuned-sst-2-english
  simdformer classify mails.txt --labels "invoice,complaint,question" --model ./my-nli-model --top-k 2
  simdformer classify news.jsonl --model ./my-ner-model -o entities.jsonl
"""

# Texts between two updates of the progress bar.
_TEXTS = 256


def add_parser(commands: SubParsers) -> None:
    """Add the subcommand and its arguments."""
    parser = commands.add_parser(
        "classify",
        help="find the labels of texts, or the entities in them",
        description="Find the labels of texts, or the entities in them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", nargs="+", metavar="INPUT", help="the texts, or - for stdin")
    parser.add_argument(
        "-o",
        "--output",
        default="-",
        metavar="OUTPUT",
        help="the labels (default: standard output)",
    )
    _add_task_arguments(parser)
    add_input_arguments(parser)
    add_record_arguments(parser.add_argument_group("records"))
    add_model_arguments(parser, default=None)
    parser.set_defaults(run=run, parser=parser)


def _add_task_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("labels").add_argument
    add("--top-k", type=positive_int, metavar="K", help="list the K best labels of a text")
    add(
        "--function-to-apply",
        choices=("sigmoid", "softmax", "none"),
        help="makes scores of logits (default: by the model's config.json)",
    )
    add("--labels", metavar="A,B,C", help="labels that the model was not trained on")
    add(
        "--hypothesis-template",
        metavar="T",
        help='sentence with {} for one of --labels (default: "This example is {}.")',
    )
    add("--multi-label", action="store_true", help="each of --labels may fit or not")
    add(
        "--aggregation-strategy",
        choices=("none", "simple", "first", "average", "max"),
        help="makes entities of tokens (default: simple)",
    )
    add(
        "--stride",
        type=not_negative_int,
        metavar="N",
        help="read long texts in pieces with N tokens in common, to find entities in all of them",
    )


# Those of each task's pipeline.
_ARGUMENTS = {
    "text-classification": ("top_k", "function_to_apply"),
    "token-classification": ("aggregation_strategy", "stride"),
    "zero-shot-classification": ("labels", "top_k", "hypothesis_template", "multi_label"),
}


def run(args: argparse.Namespace) -> None:
    """Read, classify, write. The output is opened before the model: a bad path fails at once."""
    from simdformer.cli.embedding import grouped, warn_of_truncation
    from simdformer.cli.output import open_output
    from simdformer.cli.progress import Progress
    from simdformer.cli.writers import record_members

    check_inputs(args)
    fields = Fields(args.field, id=args.id, template=args.template)
    with ExitStack() as stack:
        bad = BadRecords(args.errors) if args.on_error == "skip" else None
        corpus = Corpus(args.input, args.format, fields, None if bad is None else bad.note)
        refuse_same_file(corpus.files, args.output, args.errors)
        if bad is not None:
            stack.enter_context(bad)
        source = stack.enter_context(corpus)
        file = open_output(args.output, (".jsonl",))
        stack.enter_context(file)
        model = _load(args)
        arguments = _arguments(args, model.task)
        _check_arguments(model, arguments)
        records = iter(source) if args.labels is None else _with_text(source, bad)
        columns = Columns(id=args.id is not None, source=len(corpus.files) > 1)
        with Progress(source, shown=args.progress, name="classify") as progress:
            for group in grouped(records, _TEXTS):
                before = model.num_tokens
                with reported():
                    results = model([record.text for record in group], **arguments)
                for record, result in zip(group, results, strict=True):
                    members = record_members(record, columns) | _found(result, args.top_k)
                    file.write((json.dumps(members, ensure_ascii=False) + "\n").encode())
                progress.update(group, model.num_tokens - before)
    warn_of_truncation(model, progress.num_texts)
    say_left_out(corpus, bad, f"{progress.num_texts:,} texts classified")


def _load(args: argparse.Namespace) -> Pipeline:
    from simdformer import pipeline

    with reported():
        return pipeline(
            None if args.labels is None else "zero-shot-classification",
            args.model,
            compute_type=args.compute_type,
            num_threads=args.num_threads,
            max_batch_tokens=args.max_batch_tokens,
        )


def _check_arguments(model: Pipeline, arguments: dict[str, Any]) -> None:
    """UsageError for values that the model cannot use."""
    try:
        model([], **arguments)
    except ValueError as error:
        message = str(error).replace("candidate_labels", "--labels")
        for name in ("hypothesis_template", "aggregation_strategy", "stride"):
            message = message.replace(name, f"--{name.replace('_', '-')}")
        raise UsageError(message) from error


def _with_text(records: Iterable[Record], bad: BadRecords | None) -> Iterator[Record]:
    """The records without those of empty texts, to which no label fits."""
    for record in records:
        if record.text:
            yield record
            continue
        error = CliError(f"{record.source}, line {record.line}: --labels needs a text, got none")
        if bad is None:
            raise error
        bad.note(error, record.line, record.source)


def _arguments(args: argparse.Namespace, task: str) -> dict[str, Any]:
    """The arguments of the model's calls. UsageError for those of another task's."""
    if task not in _ARGUMENTS:
        raise CliError(f"{args.model} is a model for {task}; classify needs one for classification")
    given: dict[str, Any] = {}
    for name in dict.fromkeys(chain(*_ARGUMENTS.values())):
        value = getattr(args, name)
        if value is None or value is False:
            continue
        if name not in _ARGUMENTS[task]:
            tasks = " or ".join(other for other, names in _ARGUMENTS.items() if name in names)
            raise UsageError(f"--{name.replace('_', '-')} is for {tasks}, not for {task}")
        given[name] = value
    if task == "token-classification":
        return {"aggregation_strategy": "simple", **given}
    if task == "text-classification":
        return {"truncation": True, "top_k": 1, **given}
    del given["labels"]
    given.pop("top_k", None)
    return {"candidate_labels": args.labels, **given}


def _found(result: Any, top_k: int | None) -> dict[str, Any]:
    """What the output holds of a text's result."""
    if isinstance(result, dict):
        pairs = zip(result["labels"], result["scores"], strict=True)
        result = [{"label": label, "score": score} for label, score in pairs][: top_k or 1]
    elif not (result and "label" in result[0]):
        return {"entities": result}
    return {"labels": result} if top_k else result[0]
