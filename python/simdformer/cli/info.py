# SPDX-License-Identifier: Apache-2.0
"""`simdformer info`: the configuration of the installation, and of a model."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from simdformer.cli.errors import reported

if TYPE_CHECKING:
    from pathlib import Path

    from simdformer import CrossEncoder, Pipeline, SentenceTransformer
    from simdformer.cli.options import SubParsers
    from simdformer.folder.cross_encoder_folder import AnyCrossEncoderFolder
    from simdformer.folder.model_folder import ModelFolder, TransformerFolder

_EPILOG = """\
examples:
  simdformer info
  simdformer info all-MiniLM-L6-v2
  simdformer info ./my-model --json
"""

# The fields of config.json with the sizes of a model: names of BERT, decoders, DistilBERT,
# nomic-embed-text and T5.
_SIZES = (
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_size",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "hidden_act",
    "hidden_activation",
    "n_layers",
    "n_heads",
    "dim",
    "hidden_dim",
    "activation",
    "n_layer",
    "n_head",
    "n_embd",
    "n_inner",
    "n_positions",
    "activation_function",
    "num_layers",
    "num_heads",
    "d_model",
    "d_kv",
    "d_ff",
    "feed_forward_proj",
)

# Files of tokenizers that are not JSON.
_VOCABULARIES = ("vocab.txt", "merges.txt")


_OTHER_TASKS = ("token-classification", "fill-mask")


def add_parser(commands: SubParsers) -> None:
    """Add the subcommand and its arguments."""
    parser = commands.add_parser(
        "info",
        help="show the installation's configuration, or a model's",
        description="Show version, instruction sets and threads; with MODEL, also the model's configuration.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="folder or name of a model")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> None:
    """Collect, then print."""
    from simdformer import show_config
    from simdformer.cli.output import write_text

    described: dict[str, Any] = {"simdformer": show_config("dicts")}
    if args.model is not None:
        with reported():
            described["model"] = describe_model(args.model)
    if args.json:
        write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n")
    else:
        write_text("\n".join(_lines(described)) + "\n")


def describe_model(name: str) -> dict[str, Any]:
    """Load the model and describe it. Errors: see loading."""
    from simdformer import CrossEncoder, SentenceTransformer
    from simdformer.folder.cross_encoder_folder import AnyCrossEncoderFolder, open_folder
    from simdformer.folder.resolve import resolve_model

    folder = resolve_model(name)
    opened = open_folder(folder)
    model: CrossEncoder | Pipeline | SentenceTransformer
    other = _other_task(folder)
    if other is not None:
        model, behind = other, _task(opened, other)
    elif isinstance(opened, AnyCrossEncoderFolder):
        model = CrossEncoder(str(folder))
        behind = _head(opened, model)
    else:
        model = SentenceTransformer(str(folder))
        behind = _modules(opened, model)
    parameters, weights = _weights(opened)
    return {
        "name": name,
        "folder": str(folder),
        "class": type(model).__name__,
        "architecture": opened.config.get("model_type", "static"),
        **{size: opened.config[size] for size in _SIZES if size in opened.config},
        "parameters": parameters,
        "compute_type": model.compute_type,
        "max_seq_length": model.max_seq_length,
        **behind,
        "files": _file_sizes(folder, weights),
    }


def _modules(opened: ModelFolder, model: SentenceTransformer) -> dict[str, Any]:
    """The modules after the Transformer of an embedding model."""
    return {
        "modules": opened.kinds,
        "pooling": list(opened.modes),
        "dense_layers": opened.kinds.count("Dense"),
        "normalize": "Normalize" in opened.kinds,
        "embedding_dimension": model.get_embedding_dimension(),
        "similarity": model.similarity_fn_name,
        **_prompts(model),
    }


def _head(opened: AnyCrossEncoderFolder, model: CrossEncoder) -> dict[str, Any]:
    """The modules after the Transformer of a cross-encoder."""
    from simdformer.folder.settings import read_activation

    return {
        "head": opened.head_name,
        "num_labels": model.num_labels,
        "activation_fn": read_activation(opened.config, opened.defaults, model.num_labels).name,
        **_prompts(model),
    }


def _prompts(model: CrossEncoder | SentenceTransformer) -> dict[str, Any]:
    return {
        "prompts": dict(model.prompts),
        "default_prompt_name": model.default_prompt_name,
    }


def _other_task(folder: Path) -> Pipeline | None:
    """The model of a folder that transformers saved, if its head gives neither embeddings nor scores."""
    from simdformer import pipeline
    from simdformer.pipelines import folder_task

    if (folder / "modules.json").exists():
        return None
    try:
        task = folder_task(folder)
        return pipeline(task, str(folder)) if task in _OTHER_TASKS else None
    except ValueError:  # config.json may name a head that the folder does not have
        return None


def _task(opened: TransformerFolder, model: Pipeline) -> dict[str, Any]:
    """The head of a folder for a pipeline."""
    from simdformer.models.classification import label_names

    described = {"task": model.task, "head": opened.config["architectures"][0]}
    if model.task == "fill-mask":
        return described | {"mask_token": model.tokenizer.mask_token}
    return described | {"labels": label_names(opened.config)}


def _weights(opened: TransformerFolder) -> tuple[int, set[Path]]:
    """The number of elements of all floating-point tensors, and their files."""
    from simdformer.checkpoint import Checkpoint, has_weights

    with ExitStack() as stack:
        checkpoints = [stack.enter_context(opened.checkpoint())]
        checkpoints += [
            stack.enter_context(Checkpoint(other)) for other in opened.others if has_weights(other)
        ]
        files = {file for checkpoint in checkpoints for file in checkpoint.files()}
        return sum(checkpoint.num_parameters() for checkpoint in checkpoints), files


def _file_sizes(folder: Path, weights: set[Path]) -> dict[str, int]:
    """The size in bytes of each file that a model is read from."""
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.suffix == ".json" or path in weights or path.name in _VOCABULARIES
    }


def _lines(described: dict[str, Any], indent: str = "") -> list[str]:
    """One value per line, aligned. Nested values are indented below their name."""
    width = max((len(name) for name in described), default=0)
    lines = []
    for name, value in described.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}", *_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name:{width}}  {_readable(value)}")
    return lines


def _readable(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, dict)):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value) or "(empty)"
