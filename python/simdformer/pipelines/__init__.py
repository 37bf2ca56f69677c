# SPDX-License-Identifier: Apache-2.0
"""Models for tasks, under the names of transformers' pipelines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from simdformer.checkpoint import read_json
from simdformer.drop_in.arguments import load_request
from simdformer.models.classification import TOKEN_HEADS, named_head
from simdformer.models.masked_language_model import has_masked_head
from simdformer.pipelines.base import Pipeline
from simdformer.pipelines.feature_extraction import FeatureExtractionPipeline
from simdformer.pipelines.fill_mask import FillMaskPipeline
from simdformer.pipelines.text_classification import TextClassificationPipeline
from simdformer.pipelines.token_classification import TokenClassificationPipeline
from simdformer.pipelines.zero_shot_classification import ZeroShotClassificationPipeline
from simdformer.text.inputs import check_known

TASKS: dict[str, type[Pipeline]] = {
    kind.task: kind
    for kind in (
        TextClassificationPipeline,
        TokenClassificationPipeline,
        FillMaskPipeline,
        ZeroShotClassificationPipeline,
        FeatureExtractionPipeline,
    )
}
# Other names of tasks.
ALIASES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}
# Arguments of transformers' pipeline that come from the folder here.
_OF_THE_FOLDER = (
    "config",
    "feature_extractor",
    "image_processor",
    "pipeline_class",
    "processor",
    "tokenizer",
    "video_processor",
)


def pipeline(
    task: str | None = None,
    model: str | os.PathLike[str] | None = None,
    *,
    compute_type: str = "default",
    num_threads: int | None = None,
    max_batch_tokens: int = 16384,
    cache_folder: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    device: object = None,
    **further: Any,
) -> Pipeline:
    """Load a model for a task, as `pipeline` of transformers does.

    Files of sentence-transformers in the folder, such as prompts and modules, are not used.

    Parameters
    ----------
    task : str or None
        "text-classification" ("sentiment-analysis"), "token-classification" ("ner"), "fill-mask",
        "zero-shot-classification" or "feature-extraction". None: one of the first three, by the
        architectures in config.json.
    model : str or path
        A folder, or a name.
    compute_type, num_threads, max_batch_tokens, cache_folder, revision, local_files_only, token
        See `SentenceTransformer`. Heads are float32.
    device
        None, "cpu" or -1.
    **further
        Arguments of transformers' `pipeline` (dtype, device_map, model_kwargs, trust_remote_code,
        use_fast; of the others None), and defaults of the arguments of the task's calls:

        text-classification: top_k, function_to_apply, truncation, max_length.
        token-classification: aggregation_strategy, ignore_labels, stride,
        is_split_into_words, delimiter.
        fill-mask: top_k, targets, tokenizer_kwargs.
        zero-shot-classification: candidate_labels, hypothesis_template, multi_label.
        feature-extraction: truncation, max_length, tokenize_kwargs, return_tensors.

    Returns
    -------
    Pipeline
        Call it with texts. See `Pipeline`.

    Raises
    ------
    FileNotFoundError, ValueError
        See `SentenceTransformer`; also for an unknown task, and for a folder without the task's head.
    TypeError
        For an unknown argument.

    Examples
    --------
    >>> from simdformer import pipeline
    >>> classify = pipeline("text-classification", "cross-encoder/ms-marco-MiniLM-L6-v2")
    >>> [result] = classify({"text": "How many cats?", "text_pair": "Two cats."}, top_k=1)
    >>> result["label"]
    'LABEL_0'
    """
    name = ALIASES.get(task, task) if isinstance(task, str) else task
    if name is not None:
        check_known("task", name, [*TASKS, *ALIASES])
    if model is None:
        raise TypeError("model is required: the name or the folder of a model for the task")
    _refuse_objects(further, model)
    model_kwargs = dict(further.pop("model_kwargs", None) or {})
    for argument in ("dtype", "torch_dtype", "device_map"):
        if (value := further.pop(argument, None)) is not None:
            model_kwargs[argument] = value
    loading = {
        "model_kwargs": model_kwargs,
        "processor_kwargs": {"use_fast": further.pop("use_fast", True)},
        "trust_remote_code": further.pop("trust_remote_code", None),
    }
    request = load_request(
        model,
        loading,
        compute_type=compute_type,
        num_threads=num_threads,
        max_batch_tokens=max_batch_tokens,
        device=None if device == -1 else device,
        cache_folder=cache_folder,
        revision=revision,
        local_files_only=local_files_only,
        token=token,
    ).found()
    return TASKS[name or folder_task(request.folder)](request, further)


def folder_task(folder: Path) -> str:
    """The task whose head config.json's architectures name. ValueError if they name none."""
    path = folder / "config.json"
    config = read_json(path)
    if named_head(config) is not None:
        return "text-classification"
    if named_head(config, TOKEN_HEADS) is not None:
        return "token-classification"
    if has_masked_head(config):
        return "fill-mask"
    raise ValueError(
        f"{path}: architectures={config.get('architectures')!r} names no task; give one of"
        f" {', '.join(TASKS)}"
    )


def _refuse_objects(further: dict[str, Any], model: object) -> None:
    """ValueError for objects that transformers would use instead of the folder's files."""
    for name in _OF_THE_FOLDER:
        given = further.pop(name, None)
        if given is None or (name == "tokenizer" and given == model):
            continue
        raise ValueError(
            f"{name} must be None, because the model's folder has it, got {given!r:.100}"
        )
