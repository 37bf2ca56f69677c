"""For any values in a folder's JSON, the result is a model, or a ValueError or OSError that names the
file."""

from __future__ import annotations

import copy
import json
import warnings

import numpy as np
import pytest

from simdformer import SentenceTransformer
from tests.support.model_fixtures import (
    OLD_TYPES,
    config_json,
    modules_json,
    write_dense,
    write_files,
    write_model,
)
from tests.support.tiny_models import ARCHITECTURES

VALUES = [None, True, 0, -1, 1.5, 10**400, "x", "\x00", "../..", [], [[]], {}, {"a": {}}]
KINDS = ("Transformer", "Pooling", "Dense", "Normalize")
FORWARD = {"method": "forward", "method_output_name": "last_hidden_state"}
FILES = {
    "config.json": config_json(architectures=["BertModel"], rope_scaling=None),
    "sentence_bert_config.json": {
        "max_seq_length": 100,
        "do_lower_case": False,
        "transformer_task": "feature-extraction",
        "modality_config": {"text": FORWARD},
        "module_output_name": "token_embeddings",
        "processing_kwargs": {"text": {"max_length": 50}},
        "query_length": 8,
        "config_args": {},
        "tokenizer_args": {},
        "model_args": {},
    },
    "config_sentence_transformers.json": {
        "prompts": {"query": "q"},
        "default_prompt_name": "query",
        "similarity_fn_name": "cosine",
        "truncate_dim": 4,
        "model_type": "SentenceTransformer",
    },
    "modules.json": modules_json(KINDS, OLD_TYPES),
    "1_Pooling/config.json": {"word_embedding_dimension": 20, "pooling_mode": "mean"},
    "2_Dense/config.json": {
        "in_features": 20,
        "out_features": 8,
        "bias": True,
        "activation_function": "torch.nn.Tanh",
        "use_residual": False,
        "module_input_name": "sentence_embedding",
    },
    "3_Normalize/config.json": {"module_input_name": "sentence_embedding"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_model(tmp_path_factory.mktemp("models") / "m", kinds=KINDS, files=FILES)
    write_dense(folder / "2_Dense", 20, 8)
    return folder


def changed(content):
    """The content with one value, at any depth, replaced or removed."""
    yield from VALUES
    places = [()]
    while places:
        place = places.pop()
        here = content
        for key in place:
            here = here[key]
        inner = here.items() if isinstance(here, dict) else enumerate(here)
        for key, value in inner:
            if isinstance(value, (dict, list)):
                places.append((*place, key))
            for new in [*VALUES, ...]:
                other = copy.deepcopy(content)
                target = other
                for step in place:
                    target = target[step]
                if new is ...:
                    del target[key]
                else:
                    target[key] = new
                yield other


@pytest.mark.parametrize("name", FILES)
def test_a_changed_value_gives_a_model_or_an_error_naming_the_file(folder, name):
    rng = np.random.default_rng(len(name))
    contents = list(changed(FILES[name]))
    chosen = rng.choice(len(contents), min(len(contents), 60), replace=False)
    try:
        for index in chosen:
            write_files(folder, {name: json.dumps(contents[index])})
            check(folder, name, contents[index])
    finally:
        write_files(folder, {name: json.dumps(FILES[name])})


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.model_type)
def test_a_changed_config_of_each_architecture_gives_a_model_or_an_error(tmp_path, architecture):
    folder = architecture.write(tmp_path / "m")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rng = np.random.default_rng(len(architecture.model_type))
    contents = list(changed(config))
    contents = [contents[i] for i in rng.choice(len(contents), 25, replace=False)]
    # A loop or an allocation of such a length must not begin.
    numbers = [name for name, value in config.items() if isinstance(value, int)]
    contents += [{**config, name: 2**31 - 1} for name in numbers]
    for content in contents:
        path.write_text(json.dumps(content))
        check(folder, path.name, content)


def test_a_name_that_no_file_can_have_is_named(folder):
    modules = modules_json(KINDS, OLD_TYPES)
    modules[1]["path"] = "1_\ud800"
    try:
        write_files(folder, {"modules.json": json.dumps(modules)})
        check(folder, "ud800", modules)
    finally:
        write_files(folder, {"modules.json": json.dumps(FILES["modules.json"])})


def check(folder, name, content):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            vectors = SentenceTransformer(folder).encode(["a cab", ""])
        except Exception as error:  # noqa: BLE001
            named = any(part in str(error) for part in (name, f"{folder.name}/", "prompt name"))
            if not (named and isinstance(error, (ValueError, OSError))):
                pytest.fail(f"{name}: {str(content)[:300]}: {error!r}")
            return
    assert np.isfinite(vectors).all(), content
