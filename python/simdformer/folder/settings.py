# SPDX-License-Identifier: Apache-2.0
"""Settings of a whole model: config_sentence_transformers.json, and a cross-encoder's activation."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simdformer.checkpoint import naming, read_optional_json
from simdformer.folder.activation import TorchActivation, class_name
from simdformer.folder.fields import string, warn_keys
from simdformer.folder.transformer_settings import get_object
from simdformer.models.config_fields import positive_int
from simdformer.text.warning import warn_caller

_DEFAULTS_FILE = "config_sentence_transformers.json"
_DEFAULT_KEYS = (
    "activation_fn",
    "default_prompt_name",
    "keep_in_fp32_modules",
    "max_active_dims",
    "model_type",
    "prompts",
    "similarity_fn_name",
    "truncate_dim",
    # Versions of packages, none of which is used here.
    "__version__",
    "requirements",
)


@dataclass(frozen=True)
class Defaults:
    """config_sentence_transformers.json: defaults for arguments of the caller.

    activation_fn: of a cross-encoder, as a path such as "torch.nn.modules.activation.Sigmoid".
    """

    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity_fn_name: str | None = None
    truncate_dim: int | None = None
    max_active_dims: int | None = None
    activation_fn: str | None = None


def read_model_type(folder: Path) -> str:
    """The class that saved a folder. sentence-transformers before 5 did not store it for
    SentenceTransformer."""
    config = read_optional_json(folder / _DEFAULTS_FILE)
    return str(config.get("model_type", "SentenceTransformer"))


def read_defaults(folder: Path, further: Collection[str] = ()) -> Defaults:
    """Read config_sentence_transformers.json; without the file, everything has its default. further: keys
    that are read elsewhere."""
    path = folder / _DEFAULTS_FILE
    config = read_optional_json(path)
    warn_keys(path, config, (*_DEFAULT_KEYS, *further))
    with naming(path):
        if config.get("keep_in_fp32_modules"):
            _strings(config, "keep_in_fp32_modules")  # no effect: these modules are in float32
        prompts = get_object(config, "prompts")
        if not all(isinstance(prompt, (str, type(None))) for prompt in prompts.values()):
            raise ValueError("prompts must map names to strings")
        return Defaults(
            prompts={name: prompt or "" for name, prompt in prompts.items()},
            default_prompt_name=string(config, "default_prompt_name", None),
            similarity_fn_name=string(config, "similarity_fn_name", None),
            truncate_dim=_optional_int(config, "truncate_dim"),
            max_active_dims=_optional_int(config, "max_active_dims"),
            activation_fn=string(config, "activation_fn", None),
        )


def _optional_int(config: Mapping[str, Any], name: str) -> int | None:
    return None if config.get(name) is None else positive_int(config, name)


def _strings(config: Mapping[str, Any], name: str) -> list[str]:
    value = config.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{name} must be a list of strings, got {value!r}")
    return value


def read_activation(
    config: Mapping[str, Any], defaults: Defaults, num_labels: int
) -> TorchActivation:
    """The activation of a cross-encoder's logits, in sentence-transformers' order of precedence:
    config_sentence_transformers.json, config.json, the key of releases before 4; else a sigmoid for one
    logit, and nothing for several.

    Errors: ValueError for an unknown activation. Nothing is imported.
    """
    ours = config.get("sentence_transformers")
    stated = {
        "activation_fn in config_sentence_transformers.json": defaults.activation_fn,
        "sentence_transformers.activation_fn in config.json": (
            ours.get("activation_fn") if isinstance(ours, dict) else ours
        ),
        "sbert_ce_default_activation_function in config.json": config.get(
            "sbert_ce_default_activation_function"
        ),
    }
    default = "Sigmoid" if num_labels == 1 else "Identity"
    for field_name, path in stated.items():
        if path is not None:
            name = class_name(path, field_name)
            if name is None:
                warn_caller(
                    f"{field_name}: {path!r} is not a class of torch and is not run; {default} instead"
                )
            return TorchActivation(name or default)
    return TorchActivation(default)
