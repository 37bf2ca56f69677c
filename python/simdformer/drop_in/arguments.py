# SPDX-License-Identifier: Apache-2.0
"""The arguments of constructors: which model to load, and how to run it. Other arguments of
sentence-transformers are applied, known to have no effect here, or rejected with the reason."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simdformer.folder.loading import COMPUTE_TYPES
from simdformer.folder.overrides import Overrides
from simdformer.folder.resolve import resolve_model
from simdformer.text.inputs import Budget, check_device, check_known, checked_budget
from simdformer.text.warning import warn_caller

# Older names of arguments.
_RENAMED = {
    "tokenizer_kwargs": "processor_kwargs",
    "tokenizer_args": "processor_kwargs",
    "automodel_args": "model_kwargs",
    "config_args": "config_kwargs",
}
_KNOWN = (
    "backend",
    "classifier_dropout",
    "config_kwargs",
    "keep_in_fp32_modules",
    "model_card_data",
    "model_kwargs",
    "modules",
    "processor_kwargs",
    "trust_remote_code",
    "use_auth_token",
)
# The torch dtypes that are compute types.
_DTYPES = ("float32", "bfloat16")
# Keys of model_kwargs that change how torch computes, but not the result. add_pooling_layer adds a pooler
# that no embedding uses.
_NO_EFFECT = ("add_pooling_layer", "attn_implementation", "low_cpu_mem_usage")
# Keys that all three dictionaries of sentence-transformers may have. The constructor has its own arguments
# for them.
_HUB = ("cache_dir", "code_revision", "local_files_only", "revision", "token", "use_auth_token")
# Keys of config_kwargs that change how the GTE authors' code computes, but not the result.
_NO_EFFECT_ON_CONFIG = ("unpad_inputs", "use_memory_efficient_attention")


@dataclass(frozen=True)
class LoadRequest:
    """Which model to load, and how to run it.

    source: further arguments of resolve_model.
    """

    name_or_path: str
    source: Mapping[str, Any]
    compute_type: str
    budget: Budget
    overrides: Overrides

    def found(self) -> FoundRequest:
        """The same request with the model's folder. Errors: as for resolve_model."""
        if Path(self.name_or_path).is_file():
            raise NotADirectoryError(
                f"{self.name_or_path} is a file; a model is a folder, or a name"
            )
        return FoundRequest(
            **vars(self), folder=resolve_model(self.name_or_path, **self.source).absolute()
        )


@dataclass(frozen=True)
class FoundRequest(LoadRequest):
    """A request with the folder that was found."""

    folder: Path

    def found(self) -> FoundRequest:
        """The request itself if the folder still exists, else a new search."""
        if self.folder.is_dir():
            return self
        fields = {name: value for name, value in vars(self).items() if name != "folder"}
        return LoadRequest(**fields).found()

    def __getstate__(self) -> dict[str, Any]:
        """The state for pickle: without the token, with dicts that can be pickled."""
        source = {name: value for name, value in self.source.items() if name != "token"}
        overrides = Overrides(dict(self.overrides.config), dict(self.overrides.tokenizer))
        return {**vars(self), "source": source, "overrides": overrides}


def load_request(
    model_name_or_path: str | os.PathLike[str] | None,
    further: Mapping[str, Any],
    *,
    compute_type: str,
    num_threads: int | None,
    max_batch_tokens: int,
    device: object,
    **source: Any,
) -> LoadRequest:
    """Check the arguments of a constructor.

    source: those of resolve_model. further: arguments of sentence-transformers that have no name here.
    Errors: TypeError for an unknown argument, ValueError for a value that is not supported.
    """
    given = dict(_renamed(further))
    if unknown := [name for name in given if name not in _KNOWN]:
        raise TypeError(f"the constructor got unknown arguments: {', '.join(sorted(unknown))}")
    check_known("compute_type", compute_type, COMPUTE_TYPES)
    budget = checked_budget(max_batch_tokens, num_threads, device)
    _check_backend(given)
    if (old := given.get("use_auth_token")) is not None:
        warn_caller("use_auth_token is the older name of token", FutureWarning)
        if source["token"] is not None:
            raise ValueError("token and use_auth_token are two names of one argument; pass one")
        source["token"] = old
    if not isinstance(model_name_or_path, (str, os.PathLike)):
        raise TypeError(f"model_name_or_path must be a path or a name, got {model_name_or_path!r}")
    model_kwargs = _options(given, "model_kwargs")
    default_task = model_kwargs.pop("default_task", None)
    compute_type = _compute_type(compute_type, model_kwargs)
    tokenizer = _options(given, "processor_kwargs")
    if not tokenizer.pop("use_fast", True):
        raise ValueError(
            "processor_kwargs['use_fast'] must be True: only fast tokenizers are supported"
        )
    config = _options(given, "config_kwargs")
    for name in _NO_EFFECT_ON_CONFIG:
        config.pop(name, None)
    if default_task is not None:  # an argument of Jina's code, which selects adapters with it
        config["default_task"] = default_task
    return LoadRequest(
        os.fspath(model_name_or_path), source, compute_type, budget, Overrides(config, tokenizer)
    )


def _renamed(further: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in further.items():
        new = _RENAMED.get(name, name)
        if new != name and further.get(new) is not None:
            raise TypeError(f"{new} and {name} are two names of one argument; pass one")
        if new == name or value is not None:
            yield new, value


def _check_backend(given: Mapping[str, Any]) -> None:
    if given.get("modules") is not None:
        raise ValueError(
            "modules must be None: torch modules cannot be run; save the model with them and load its"
            " folder"
        )
    backend = given.get("backend")
    if backend not in (None, "torch"):
        raise ValueError(
            f"backend must be 'torch' (the checkpoint's own weights, run by simdformer), got {backend!r}"
        )
    if given.get("keep_in_fp32_modules"):
        raise ValueError(
            "keep_in_fp32_modules must be None: compute_type applies to all matrices of the encoder;"
            " a classification head is always float32"
        )


def _options(given: Mapping[str, Any], argument: str) -> dict[str, Any]:
    """A dict of keyword arguments, without those that the constructor has itself."""
    options = given.get(argument) or {}
    if not isinstance(options, Mapping):
        raise TypeError(f"{argument} must be a dict, got {options!r}")
    options = dict(options)
    options.pop("trust_remote_code", None)  # code in a folder is never executed
    for name in _HUB:
        if options.pop(name, None) not in (None, False):
            raise ValueError(f"{argument}[{name!r}] cannot be set: pass it to the constructor")
    return options


def _compute_type(compute_type: str, model_kwargs: dict[str, Any]) -> str:
    """The compute type of compute_type and model_kwargs, which must agree. Also checks the rest of
    model_kwargs."""
    check_device_map(model_kwargs.pop("device_map", None))
    if not model_kwargs.pop("use_safetensors", True):
        raise ValueError(
            "model_kwargs['use_safetensors'] must not be False: safetensors are read where there are any"
        )
    for name in ("dtype", "torch_dtype"):
        value = model_kwargs.pop(name, None)
        dtype = getattr(value, "__name__", str(value)).removeprefix("torch.")
        if value is None or dtype == "auto":
            continue
        if dtype not in _DTYPES:
            raise ValueError(
                f"model_kwargs[{name!r}] must be one of {', '.join(_DTYPES)}, auto, got {value!r}"
            )
        if compute_type not in ("default", dtype):
            raise ValueError(f"compute_type={compute_type!r}, but model_kwargs request {value!r}")
        compute_type = dtype
    for name in _NO_EFFECT:
        model_kwargs.pop(name, None)
    left = [name for name, value in model_kwargs.items() if value is not None]
    if left:
        raise ValueError(
            f"model_kwargs cannot be used here: {', '.join(sorted(left))};"
            f" known: dtype, torch_dtype, default_task, device_map, use_safetensors,"
            f" {', '.join(_NO_EFFECT)}"
        )
    return compute_type


def check_device_map(device_map: object) -> None:
    """ValueError unless the whole model is placed on the CPU."""
    places = device_map.values() if isinstance(device_map, Mapping) else [device_map]
    for place in places:
        check_device(None if place == "auto" else place)
