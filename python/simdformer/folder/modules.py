# SPDX-License-Identifier: Apache-2.0
"""What a sentence-transformers folder says: its modules, their settings, and its prompts.

Both generations are read: the booleans and module paths of releases before 5.4, and the
`pooling_mode` and longer paths since. Only JSON is read; a module is known by name, never imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from simdformer import _core
from simdformer.checkpoint import Checkpoint, read_any_json, read_json
from simdformer.checkpoint.weights import Weights
from simdformer.models.activations import from_torch_class
from simdformer.models.config_fields import positive_int

POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")

# The older pooling config's booleans; several may be set, and they concatenate in this order.
_POOLING_BOOLEANS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

_KNOWN_MODULES = ("Transformer", "Pooling", "Dense", "Normalize")

_TRANSFORMER_CONFIGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)


@dataclass(frozen=True)
class TransformerSettings:
    """The settings beside the encoder's config.json that concern texts."""

    max_seq_length: int | None = None
    do_lower_case: bool = False


@dataclass(frozen=True)
class PoolingSettings:
    """Pooling modes, concatenated in order, and whether prompt tokens take part."""

    modes: tuple[str, ...] = ("mean",)
    include_prompt: bool = True
    embedding_dimension: int | None = None


@dataclass(frozen=True)
class SentenceModules:
    """The modules of a model: Transformer, Pooling, any number of Dense, perhaps Normalize."""

    transformer: Path
    pooling: PoolingSettings = PoolingSettings()
    dense: tuple[Path, ...] = ()
    normalize: bool = False


@dataclass(frozen=True)
class Defaults:
    """config_sentence_transformers.json: what applies unless the caller says otherwise.

    activation_fn: a cross-encoder's, as a path such as "torch.nn.modules.activation.Sigmoid".
    """

    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity_fn_name: str | None = None
    truncate_dim: int | None = None
    activation_fn: str | None = None


def read_modules(folder: Path) -> SentenceModules:
    """Read modules.json. Without one: the Transformer in `folder` itself, and mean pooling, or the last
    token's vector if it is a causal language model.

    Errors: ValueError for a module that is not known (it lists those that are), an order other
    than Transformer, Pooling, Dense ..., Normalize, or a path that leaves the folder.
    """
    path = folder / "modules.json"
    if not path.is_file():
        causal = is_causal_language_model(read_json(folder / "config.json"))
        pooling = PoolingSettings(("lasttoken",) if causal else ("mean",))
        return SentenceModules(transformer=folder, pooling=pooling)
    modules = _modules(path)
    kinds = [kind for kind, _ in modules]
    num_dense = kinds.count("Dense")
    order = ["Transformer", "Pooling", *["Dense"] * num_dense, "Normalize"]
    if kinds not in (order, order[:-1]):
        raise ValueError(
            f"{path}: modules {' -> '.join(kinds)} cannot be run;"
            " supported: Transformer -> Pooling [-> Dense ...] [-> Normalize]"
        )
    folders = [_inside(folder, path, entry.get("path", "")) for _, entry in modules]
    for kind, module_folder in zip(kinds[2:], folders[2:], strict=True):
        _check_features(kind, module_folder / "config.json")
    return SentenceModules(
        transformer=folders[0],
        pooling=read_pooling(folders[1] / "config.json"),
        dense=tuple(folders[2 : 2 + num_dense]),
        normalize=kinds[-1] == "Normalize",
    )


def is_causal_language_model(config: Mapping[str, Any]) -> bool:
    """Whether config.json's first architecture is one, and is_causal does not say otherwise."""
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    return str(first).endswith("ForCausalLM") and config.get("is_causal") is not False


def read_cross_encoder_module(folder: Path) -> Path:
    """The folder of a cross-encoder's one module, the Transformer. Without modules.json: `folder`.

    Errors: ValueError for other modules; it says what to use for a sentence embedding model.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return folder
    modules = _modules(path)
    kinds = [kind for kind, _ in modules]
    if kinds != ["Transformer"]:
        raise ValueError(
            f"{path}: CrossEncoder runs a Transformer with a classification head, alone, not"
            f" {' -> '.join(kinds)}; for a model with Pooling use SentenceTransformer"
        )
    return _inside(folder, path, modules[0][1].get("path", ""))


def has_other_modules(folder: Path) -> bool:
    """Whether modules.json has more than a Transformer. ValueError for unknown modules."""
    path = folder / "modules.json"
    return path.is_file() and [kind for kind, _ in _modules(path)] != ["Transformer"]


def read_pooling(path: Path) -> PoolingSettings:
    """Read a Pooling module's config.json, of either generation."""
    config = read_json(path)
    mode = config.get("pooling_mode")
    if mode is None:
        modes = [mode for key, mode in _POOLING_BOOLEANS.items() if config.get(key)] or ["mean"]
    else:
        modes = [mode] if isinstance(mode, str) else mode
    if not isinstance(modes, list) or not modes or not all(m in POOLING_MODES for m in modes):
        raise ValueError(
            f"{path}: unknown pooling_mode {mode!r}; known: {', '.join(POOLING_MODES)}"
        )
    dimension = config.get("embedding_dimension", config.get("word_embedding_dimension"))
    return PoolingSettings(tuple(modes), bool(config.get("include_prompt", True)), dimension)


def transformer_config_name(folder: Path) -> str:
    """What sentence_bert_config.json is called in the folder of a Transformer."""
    there = (name for name in _TRANSFORMER_CONFIGS if (folder / name).is_file())
    return next(there, _TRANSFORMER_CONFIGS[0])


def read_transformer_settings(
    folder: Path, task: str = "feature-extraction", output: str = "token_embeddings"
) -> TransformerSettings:
    """Read sentence_bert_config.json, or what it was called for other models.

    task, output: what newer files must say that the module does and gives, if they say it.
    """
    path = folder / transformer_config_name(folder)
    if not path.is_file():
        return TransformerSettings()
    config = read_json(path)
    for name, known in (
        ("transformer_task", task),
        ("module_output_name", output),
    ):
        if config.get(name, known) != known:
            raise ValueError(f"{path}: unknown {name} {config[name]!r}; known: {known!r}")
    length = config.get("max_seq_length")
    if length is not None and (isinstance(length, bool) or not isinstance(length, int)):
        raise ValueError(f"{path}: max_seq_length must be an int or null, got {length!r}")
    return TransformerSettings(length, bool(config.get("do_lower_case", False)))


def read_defaults(folder: Path) -> Defaults:
    """Read config_sentence_transformers.json; a missing file says nothing."""
    path = folder / "config_sentence_transformers.json"
    if not path.is_file():
        return Defaults()
    config = read_json(path)
    prompts = config.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(
        isinstance(prompt, (str, type(None))) for prompt in prompts.values()
    ):
        raise ValueError(f"{path}: prompts must map names to strings")
    return Defaults(
        prompts={name: prompt or "" for name, prompt in prompts.items()},
        default_prompt_name=config.get("default_prompt_name"),
        similarity_fn_name=config.get("similarity_fn_name"),
        truncate_dim=config.get("truncate_dim"),
        activation_fn=config.get("activation_fn"),
    )


def read_activation(config: Mapping[str, Any], defaults: Defaults, num_labels: int) -> str:
    """The kernel that a cross-encoder's logits go through, in sentence-transformers' order: what its
    own file says, config.json, config.json of releases before 4; a sigmoid for one logit, else none.

    ValueError for an activation that is not known; nothing is imported.
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
    for field_name, path in stated.items():
        if path is not None:
            return from_torch_class(path, field_name)
    return "sigmoid" if num_labels == 1 else "identity"


def read_dense(folder: Path) -> tuple[_core.Dense, int, int]:
    """Read a Dense module: the layer, its in_features and its out_features."""
    path = folder / "config.json"
    config = read_json(path)
    sizes = {name: positive_int(config, name) for name in ("in_features", "out_features")}
    residual = bool(config.get("use_residual", False))
    if residual and sizes["in_features"] != sizes["out_features"]:
        raise ValueError(
            f"{path}: use_residual with in_features={sizes['in_features']} and"
            f" out_features={sizes['out_features']} is not supported; they must be equal"
        )
    # sentence-transformers' default activation is Tanh, also when the file does not name one.
    activation = from_torch_class(
        config.get("activation_function", "torch.nn.modules.activation.Tanh")
    )
    with Checkpoint(folder) as checkpoint:
        weights = Weights(checkpoint, sizes)
        linear = _core.Linear(
            weights("linear.weight", "out_features", "in_features"),
            weights("linear.bias", "out_features") if config.get("bias", True) else None,
        )
        weights.refuse_unread(())
    dense = _core.Dense(linear, activation=activation, residual=residual)
    return dense, sizes["in_features"], sizes["out_features"]


def _modules(path: Path) -> Sequence[tuple[str, Mapping[str, Any]]]:
    """The kinds and entries of modules.json, in order."""
    entries = read_any_json(path)
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("idx"), int) for entry in entries
    ):
        raise ValueError(f"{path}: expected a list of objects with idx, name, path and type")
    ordered = sorted(entries, key=lambda entry: int(entry["idx"]))
    return [(_module_kind(path, entry), entry) for entry in ordered]


def _module_kind(path: Path, entry: Mapping[str, Any]) -> str:
    """The class a module's type names. Its path changed over the releases, its last part did not."""
    package, _, kind = str(entry.get("type")).rpartition(".")
    # A class from elsewhere is code in the model's own repository, whatever its name.
    if kind not in _KNOWN_MODULES or package.partition(".")[0] != "sentence_transformers":
        raise ValueError(
            f"{path}: unknown module type {entry.get('type')!r};"
            f" known: {', '.join(_KNOWN_MODULES)} of sentence_transformers"
        )
    return kind


def _inside(folder: Path, source: Path, path: object) -> Path:
    parts = PurePosixPath(path).parts if isinstance(path, str) else ("..",)
    if ".." in parts or parts[:1] == ("/",) or "\\" in str(path):
        raise ValueError(f"{source}: module paths must stay in the model folder, got {path!r}")
    return folder.joinpath(*parts)


def _check_features(kind: str, path: Path) -> None:
    """Dense and Normalize can also work on token embeddings; this pipeline ends in sentences'."""
    config = read_json(path) if path.is_file() else {}
    for name in ("module_input_name", "module_output_name"):
        if config.get(name) not in (None, "sentence_embedding"):
            raise ValueError(
                f"{path}: {kind} with {name}={config[name]!r} is not supported;"
                " known: 'sentence_embedding'"
            )
