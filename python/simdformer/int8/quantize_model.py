# SPDX-License-Identifier: Apache-2.0
"""quantize_model: write a model folder in int8, which is loaded like any other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from simdformer import nn
from simdformer.checkpoint import find_weights, has_weights
from simdformer.folder.cross_encoder_folder import CrossEncoderFolder, open_folder
from simdformer.folder.model_folder import ModelFolder, TransformerFolder
from simdformer.folder.modules import read_modules
from simdformer.folder.new_folder import new_folder
from simdformer.folder.resolve import resolve_model
from simdformer.folder.task_folder import TaskFolder, open_plain
from simdformer.folder.token_heads import FILES as HEADS
from simdformer.int8.calibration import MIN_COSINE, QuantizedEncoder, quantize_encoder
from simdformer.int8.config import CONFIG_FILE
from simdformer.int8.sample import Sample
from simdformer.int8.saved import WEIGHTS_FILE, saved_tensors, write_quantized
from simdformer.text.batching import pack
from simdformer.text.inputs import pair_list, text_list
from simdformer.text.reader import TextReader
from simdformer.text.tokenizer import Pair, check_text

# More texts do not improve the result, and the sample runs several times.
MAX_TEXTS = 1000

# Files copied with the weights: settings, vocabularies, chat templates, the model card and its license.
_COPIED_SUFFIXES = (".json", ".txt", ".md", ".jinja", ".model")
_COPIED_NAMES = ("LICENSE", "NOTICE")
_OTHER_FORMATS = ("onnx", "openvino")


@dataclass(frozen=True)
class PartReport:
    """A linear layer or a table of embeddings.

    Attributes
    ----------
    name
        Name of the part.
    compute_type
        "int8", or "float32" if it was kept.
    error
        ``|int8 - float32| / |float32|`` of its output.
    cosine_loss
        1 - the mean cosine of the vectors with only this part in int8.
    """

    name: str
    compute_type: str
    error: float
    cosine_loss: float


@dataclass(frozen=True)
class QuantizationReport:
    """Result of `quantize_model`.

    Attributes
    ----------
    folder, parts
        The folder, and a PartReport per part.
    mean_cosine, first_percentile, min_cosine
        Of the cosines between the sample's vectors in int8 and in float32.
    texts
        Size of the sample; 0 if it was ids of the model's vocabulary.
    float32_bytes, int8_bytes
        Sizes of the weights before and after.
    """

    folder: Path
    parts: tuple[PartReport, ...]
    mean_cosine: float
    first_percentile: float
    min_cosine: float
    texts: int
    float32_bytes: int = 0
    int8_bytes: int = 0


def quantize_model(
    model_name_or_path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    texts: Sequence[str] | Sequence[Pair] | None = None,
    min_cosine: float = MIN_COSINE,
    overwrite: bool = False,
    cache_folder: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> QuantizationReport:
    """Write a model folder with int8 weights, about a quarter of the size.

    SentenceTransformer(output), or CrossEncoder(output) for a cross-encoder, runs it in int8. A
    classification head stays in float32. Without texts the result has the same bits as the original model
    with compute_type="int8" on the CPU that quantized it.

    Parameters
    ----------
    model_name_or_path, cache_folder, revision, local_files_only, token
        See `SentenceTransformer`.
    output
        The folder to make. It appears only when it is complete.
    texts
        A sample of the model's use, a hundred texts or more, of which the first 1,000 are used; pairs for
        a cross-encoder. Weights are rounded so that errors cancel on it (GPTQ), and the loss is measured
        on it. None: plain rounding, measured with ids from the whole vocabulary.
    min_cosine
        The least cosine to float32 on the sample. Parts stay in float32 until it holds; 1 keeps all.
    overwrite
        Replace output if it is a quantized model.

    Returns
    -------
    QuantizationReport
        What was quantized, and the loss.

    Raises
    ------
    FileExistsError, FileNotFoundError
        If output exists, or there is no such model.
    ValueError
        If the model is quantized already, is a SparseEncoder or a MultiVectorEncoder, or has a Router; if
        texts is empty or holds pairs for a model of single texts, or min_cosine is not in [0, 1].

    References
    ----------
    Frantar et al. 2022, GPTQ.

    Examples
    --------
    >>> from simdformer import SentenceTransformer, quantize_model
    >>> report = quantize_model("all-MiniLM-L6-v2", "minilm-int8")
    >>> SentenceTransformer("minilm-int8").compute_type
    'int8'
    """
    if not 0 <= min_cosine <= 1:
        raise ValueError(f"min_cosine must be in [0, 1], got {min_cosine}")
    checked = None if texts is None else _checked_texts(texts)
    source = resolve_model(
        model_name_or_path,
        cache_folder=cache_folder,
        revision=revision,
        local_files_only=local_files_only,
        token=token,
    )
    target = Path(output).expanduser()
    _refuse_target(source, target, overwrite)
    model = open_folder(source)
    if model.quantization is not None:
        raise ValueError(f"{source} is quantized already: see {model.quantization.path}")
    if isinstance(model, ModelFolder) and model.listed.tasks:
        raise ValueError(f"{model.listed.source}: models with a Router cannot be quantized")
    opened: TransformerFolder = model
    if isinstance(model, ModelFolder) and not os.path.lexists(source / "modules.json"):
        opened = open_plain(source, model.config) or model
    opened.resolve("int8")
    if checked and not isinstance(checked[0], str) and not model.reads_pairs:
        raise ValueError(
            f"texts contains pairs, but {source} is not a cross-encoder and reads single texts"
        )
    return _quantize(opened, target, checked, min_cosine)


def _quantize(
    model: TransformerFolder,
    target: Path,
    texts: list[str] | list[Pair] | None,
    min_cosine: float,
) -> QuantizationReport:
    inner = model.transformer.relative_to(model.folder)
    with model.checkpoint() as checkpoint:
        measure = model.measure(checkpoint)
        has_head = (CrossEncoderFolder, TaskFolder)
        head = model.saved_head(checkpoint) if isinstance(model, has_head) else {}
        encoder = model.encoder(checkpoint)
        quantized = quantize_encoder(
            encoder,
            measure,
            sample=partial(_text_sample, model, texts) if texts else None,
            min_cosine=min_cosine,
            with_losses=True,
        )
        report = _report(target, quantized, len(texts or ()))
        with new_folder(target) as temporary:
            _copy_files(model, temporary)
            tensors = {**dict(saved_tensors(encoder, quantized)), **head}
            declaration = _declaration(report, min_cosine, quantized.rotated)
            write_quantized(temporary / inner, tensors, declaration)
        sizes = (checkpoint.num_bytes(), (target / inner / WEIGHTS_FILE).stat().st_size)
    return replace(report, float32_bytes=sizes[0], int8_bytes=sizes[1])


def _checked_texts(texts: Sequence[str] | Sequence[Pair]) -> list[str] | list[Pair]:
    """The texts as a list: strings, or pairs if the first one is a pair."""
    given = text_list(texts)[:MAX_TEXTS]
    if not given:
        raise ValueError("texts must have at least one text; None uses the model's vocabulary")
    if isinstance(given[0], (list, tuple)):
        return pair_list(given, "texts")[0]
    return [check_text(text, index) for index, text in enumerate(given)]


def _text_sample(
    model: TransformerFolder, texts: list[str] | list[Pair], encoder: nn.TextEncoder
) -> Sample:
    pairs = not isinstance(texts[0], str)
    tokenizer = model.tokenizer(encoder, pairs=pairs)
    reader = TextReader(tokenizer, include_prompt=True, template=model.chat_template())
    read: Any = reader.prompted_pair if pairs else reader.prompted
    tokens = tokenizer([read(text, None) for text in texts])
    return Sample(*pack(tokens.input_ids, tokens.type_ids))


def _refuse_target(source: Path, target: Path, overwrite: bool) -> None:
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot create {target.name}: there is no folder {target.parent}")
    if not os.path.lexists(target):
        return
    if source.resolve().is_relative_to(target.resolve()):
        raise ValueError(f"{target} is or contains the model itself; pass another folder")
    if not overwrite:
        raise FileExistsError(f"{target} exists; overwrite=True replaces a quantized model")
    if not _is_quantized(target):
        raise FileExistsError(f"{target} is not a quantized model; it is not overwritten")


def _is_quantized(folder: Path) -> bool:
    """Whether the folder itself is a quantized model, not one of those below it."""
    try:
        listed = read_modules(folder)
    except (OSError, ValueError):
        listed = None
    modules = () if listed is None else listed.modules
    places = [folder, *(module.folder for module in modules if module.folder is not None)]
    return any((place / CONFIG_FILE).is_file() for place in places)


def _copy_files(model: TransformerFolder, target: Path) -> None:
    """Copy all files of the model except the Transformer's weights, with its model card and license."""
    (target / model.transformer.relative_to(model.folder)).mkdir(parents=True, exist_ok=True)
    for path in sorted(model.folder.rglob("*")):
        relative = path.relative_to(model.folder)
        if path.is_file() and _is_copied(model, path, relative):
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / relative)


def _is_copied(model: TransformerFolder, path: Path, relative: Path) -> bool:
    if relative.parts[0] in _OTHER_FORMATS or any(part.startswith(".") for part in relative.parts):
        return False
    if (
        path.parent in model.others
        and has_weights(path.parent)
        and path == find_weights(path.parent)
    ):
        return True
    if path.name.endswith(".index.json"):
        return False
    if path.parent == model.folder and path.name in HEADS.values():
        return True
    return path.suffix in _COPIED_SUFFIXES or path.stem.upper() in _COPIED_NAMES


def _declaration(report: QuantizationReport, min_cosine: float, rotated: bool) -> dict[str, Any]:
    """The fields of quantization_config.json other than scheme, version and group size."""
    return {
        "rotated": rotated,
        "sample": f"{report.texts} texts" if report.texts else "vocabulary",
        "required_min_cosine": min_cosine,
        "mean_cosine": report.mean_cosine,
        "first_percentile": report.first_percentile,
        "min_cosine": report.min_cosine,
        "parts": {
            part.name: {
                "compute_type": part.compute_type,
                "error": part.error,
                "cosine_loss": part.cosine_loss,
            }
            for part in report.parts
        },
    }


def _report(folder: Path, quantized: QuantizedEncoder, texts: int) -> QuantizationReport:
    cosines, types = quantized.cosines, quantized.part_types
    return QuantizationReport(
        folder=folder,
        parts=tuple(PartReport(n, types[n], *loss) for n, loss in quantized.losses.items()),
        mean_cosine=float(cosines.mean()),
        first_percentile=float(np.quantile(cosines, 0.01)),
        min_cosine=float(cosines.min()),
        texts=texts,
    )
