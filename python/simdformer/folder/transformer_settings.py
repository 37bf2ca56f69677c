# SPDX-License-Identifier: Apache-2.0
"""The settings of a Transformer that are not in config.json: sentence_bert_config.json."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from simdformer.checkpoint import naming, read_json
from simdformer.folder.fields import refuse_keys, warn_keys
from simdformer.folder.overrides import NO_OVERRIDES, Overrides

_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# Arguments of from_pretrained in the file: the names before 5.4, and the present ones.
_OVERRIDES = {
    "config_args": "config_kwargs",
    "tokenizer_args": "processor_kwargs",
    "model_args": "model_kwargs",
}
# No effect: where a model is searched, which the caller says here; and, below, how torch runs it.
_HUB = (
    "cache_dir",
    "code_revision",
    "force_download",
    "local_files_only",
    "revision",
    "subfolder",
    "token",
    "trust_remote_code",
    "use_auth_token",
    "use_fast",
)
_RUNTIME = (
    "add_pooling_layer",
    "attn_implementation",
    "device_map",
    "dtype",
    "export",
    "file_name",
    "low_cpu_mem_usage",
    "provider",
    "torch_dtype",
    "unpad_inputs",
    "use_memory_efficient_attention",
    "use_safetensors",
)
_KEYS = (
    "max_seq_length",
    "do_lower_case",
    "transformer_task",
    "modality_config",
    "module_output_name",
    "processing_kwargs",
    "query_length",
    "document_length",
    "query_expansion",
    "tokenizer_name_or_path",
    # no effect: how texts are padded, where files are stored, what runs the model
    "unpad_inputs",
    "cache_dir",
    "backend",
    *_OVERRIDES,
    *_OVERRIDES.values(),
)
# Arguments of the tokenizer's call: those applied here, and those that only change padding or the form of the
# result.
_TEXT_APPLIED = ("max_length", "truncation", "add_special_tokens")
_TEXT_IGNORED = (
    "padding",
    "padding_side",
    "pad_to_multiple_of",
    "return_tensors",
    "return_attention_mask",
    "return_token_type_ids",
    "return_length",
    "return_special_tokens_mask",
    "return_offsets_mapping",
    "verbose",
    "logits_to_keep",
)
_MODALITIES = ("text", "image", "audio", "video", "message")


@dataclass(frozen=True)
class TransformerSettings:
    """The settings of a Transformer that are not in config.json.

    max_seq_length: the maximum length; None for that of tokenizer_config.json.
    task_lengths: the maximum length for texts of a task. max_length: has precedence over both.
    hidden_state: the index of the hidden state to use, 0 for the embeddings' output; None for the last.
    add_special_tokens: whether texts get the tokenizer's special tokens.
    message_format: the form of texts for a chat template, "flat", "structured" or "auto"; None for no
    template.
    chat_template_kwargs: further variables of the template.
    query_expansion: as stored in the file; None for none.
    """

    max_seq_length: int | None = None
    do_lower_case: bool = False
    task_lengths: Mapping[str, int] = field(default_factory=dict)
    max_length: int | None = None
    hidden_state: int | None = None
    add_special_tokens: bool = True
    message_format: str | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    query_expansion: object = None
    overrides: Overrides = NO_OVERRIDES

    def length(self, task: str | None) -> int | None:
        """The maximum length for texts of a task."""
        lengths = (self.max_length, self.task_lengths.get(task or ""), self.max_seq_length)
        return next((length for length in lengths if length is not None), None)


def transformer_config_name(folder: Path) -> str:
    """The name of sentence_bert_config.json in this folder; some models have another one."""
    return next((name for name in _FILES if os.path.lexists(folder / name)), _FILES[0])


def read_transformer_settings(
    folder: Path, task: str = "feature-extraction", output: str = "token_embeddings"
) -> TransformerSettings:
    """Read sentence_bert_config.json, under any of its names.

    task, output: the required values of the module's task and output, if the file has them.
    Errors: ValueError naming the file and the field.
    """
    path = folder / transformer_config_name(folder)
    if not os.path.lexists(path):
        return TransformerSettings()
    config = read_json(path)
    refuse_keys(path, config, _KEYS)
    with naming(path):
        for name, known in (("transformer_task", task), ("module_output_name", output)):
            if config.get(name, known) != known:
                raise ValueError(f"unknown {name} {config[name]!r}; known: {known!r}")
        if config.get("tokenizer_name_or_path") is not None:
            raise ValueError(
                f"tokenizer_name_or_path={config['tokenizer_name_or_path']!r} is not supported; known: null"
            )
        settings = TransformerSettings(
            max_seq_length=get_length(config, "max_seq_length"),
            do_lower_case=bool(config.get("do_lower_case", False)),
            task_lengths={
                name: length
                for name in ("query", "document")
                if (length := get_length(config, f"{name}_length")) is not None
            },
            query_expansion=config.get("query_expansion"),
            overrides=_overrides(config),
        )
        settings = _with_processing(path, settings, get_object(config, "processing_kwargs"))
        return _with_modalities(settings, get_object(config, "modality_config"), task)


def get_length(config: Mapping[str, Any], name: str) -> int | None:
    """An int, or None."""
    value = config.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError(f"{name} must be an int or null, got {value!r}")
    return value


def get_object(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object; null means an empty one."""
    value = config.get(name)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{name} must be an object, got {value!r}")
    return dict(value or {})


def _overrides(config: Mapping[str, Any]) -> Overrides:
    """Fields that the file replaces in config.json and tokenizer_config.json."""
    given = {
        new: {**get_object(config, old), **get_object(config, new)}
        for old, new in _OVERRIDES.items()
    }
    for values in given.values():
        for name in _HUB:
            values.pop(name, None)
    if unknown := given["model_kwargs"].keys() - set(_RUNTIME):
        raise ValueError(f"model_kwargs: {', '.join(sorted(unknown))}: not supported")
    return Overrides(given["config_kwargs"], given["processor_kwargs"])


def _with_processing(
    path: Path, settings: TransformerSettings, processing: Mapping[str, Any]
) -> TransformerSettings:
    """Apply processing_kwargs, the arguments of the tokenizer's call. "common" has precedence over "text"."""
    warn_keys(path, processing, ("common", "text", "chat_template", *_MODALITIES))
    text = {**get_object(processing, "text"), **get_object(processing, "common")}
    chat = get_object(processing, "chat_template")
    text |= {name: chat.pop(name) for name in _TEXT_APPLIED[:2] if name in chat}
    if unknown := text.keys() - {*_TEXT_APPLIED, *_TEXT_IGNORED}:
        raise ValueError(f"processing_kwargs: {', '.join(sorted(unknown))}: not supported")
    if text.get("truncation", True) not in (True, "longest_first"):
        raise ValueError(
            f"processing_kwargs: truncation={text['truncation']!r} is not supported; known: true,"
            " 'longest_first'"
        )
    special = text.get("add_special_tokens", True)
    if not isinstance(special, bool):
        raise ValueError(  # noqa: TRY004  (the file is wrong, not the call)
            f"processing_kwargs: add_special_tokens must be true or false, got {special!r}"
        )
    return replace(
        settings,
        max_length=get_length(text, "max_length"),
        add_special_tokens=special,
        chat_template_kwargs=chat,
    )


def _with_modalities(
    settings: TransformerSettings, modalities: Mapping[str, Any], task: str
) -> TransformerSettings:
    """Apply modality_config: the output to use, and whether texts become messages."""
    if not modalities:
        return settings
    read = "message" if "message" in modalities else "text"
    if read not in modalities:
        raise ValueError(f"modality_config has no 'text', only {', '.join(modalities)}")
    params = modalities[read]
    if not isinstance(params, dict) or params.get("method") != "forward":
        raise ValueError(
            f"modality_config.{read} must be an object with method 'forward', got {params!r}"
        )
    unknown = params.keys() - {"method", "method_output_name", "format"}
    if unknown:
        raise ValueError(f"modality_config.{read}: {', '.join(sorted(unknown))}: not supported")
    output = params.get("method_output_name")
    state = _hidden_state(read, output, task)
    if read == "text":
        return replace(settings, hidden_state=state)
    form = params.get("format", "auto")
    if form not in ("flat", "structured", "auto"):
        raise ValueError(
            f"modality_config.message: unknown format {form!r}; known: flat, structured, auto"
        )
    return replace(settings, hidden_state=state, message_format=form)


def _hidden_state(read: str, output: object, task: str) -> int | None:
    path = output if isinstance(output, list) else [output]
    if path == ["last_hidden_state" if task == "feature-extraction" else "logits"]:
        return None
    is_state = len(path) == 2 and path[0] == "hidden_states" and task == "feature-extraction"
    if is_state and isinstance(path[1], int) and not isinstance(path[1], bool):
        return path[1]
    raise ValueError(
        f"modality_config.{read}: method_output_name={output!r} is not supported; known:"
        " 'last_hidden_state', ['hidden_states', layer]"
    )
