# SPDX-License-Identifier: Apache-2.0
"""The settings changed since a model was loaded, as files of its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simdformer.checkpoint import read_json
from simdformer.drop_in.module_list import read_module_list
from simdformer.drop_in.text_model import TextModel
from simdformer.folder.modules import is_causal_language_model
from simdformer.folder.transformer_settings import transformer_config_name


def settings_files(model: TextModel, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The changed settings, as files and their fields. modules.json is returned whole if the folder has none.

    defaults: further fields of config_sentence_transformers.json.
    """
    folder, overrides, pipeline = model.folder, model.overrides, model.pipeline
    modules = read_module_list(folder)
    files: dict[str, Any] = {}
    if not modules:
        modules = [(name, f"{i}_{name}" if i else "") for i, name in enumerate(model.module_names)]
        files["modules.json"] = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
            for i, (name, path) in enumerate(modules)
        ]
    paths = dict(reversed(modules))
    limit: dict[str, Any] = {}
    if model.limit_changed or "model_max_length" in overrides.tokenizer:
        limit["max_seq_length"] = pipeline.tokenizer.max_seq_length
    if "Transformer" not in paths and (limit or any(overrides)):
        raise ValueError(
            "max_seq_length and overridden fields can only be saved if the first module is a Transformer;"
            f" modules of this model: {', '.join(paths)}"
        )
    root = Path(paths.get("Transformer", ""))
    if "Pooling" in paths:
        pooling = Path(paths["Pooling"]) / "config.json"
        files[str(pooling)] = {"include_prompt": pipeline.include_prompt}
        if not (folder / pooling).is_file():
            causal = is_causal_language_model(read_json(folder / "config.json"))
            files[str(pooling)] |= {
                "embedding_dimension": pipeline.encoder.hidden_size,
                "pooling_mode": "lasttoken" if causal else "mean",
            }
    elif "modules.json" in files:
        limit |= {"transformer_task": "sequence-classification", "module_output_name": "scores"}
    if "modules.json" in files and pipeline.has_template:
        limit |= _with_messages("Pooling" in paths)
    return files | {
        str(root / transformer_config_name(folder / root)): limit,
        "config_sentence_transformers.json": {
            "prompts": model.prompts,
            "default_prompt_name": model.default_prompt_name,
            **defaults,
        },
        str(root / "config.json"): dict(overrides.config),
        str(root / "tokenizer_config.json"): dict(overrides.tokenizer),
    }


def _with_messages(pooled: bool) -> dict[str, Any]:
    """Settings by which a saved folder applies its chat template, as one without modules.json does."""
    output = "last_hidden_state" if pooled else "logits"
    text = {"method": "forward", "method_output_name": output}
    modalities = {"text": text, "message": {**text, "format": "auto"}}
    return {
        "modality_config": modalities,
        **({"module_output_name": "token_embeddings"} if pooled else {}),
    }
