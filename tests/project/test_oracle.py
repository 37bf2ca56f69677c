"""The oracle: it is independent of the library, short, and agrees with PyTorch in float64."""

from __future__ import annotations

import ast

import numpy as np
import pytest

from tests import oracle
from tests.support import TESTS

LENGTHS = [1, 7, 30]
FILES = sorted((TESTS / "oracle").glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_oracle_never_imports_the_library(file):
    tree = ast.parse(file.read_text())
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            modules.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    assert modules <= {
        "__future__",
        "collections",
        "dataclasses",
        "itertools",
        "math",
        "numpy",
        "tests",
        "typing",
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_oracles_files_are_short(file):
    assert len(file.read_text().splitlines()) <= 300


@pytest.mark.parametrize("mode", ["cls", "max", "mean", "weightedmean", "lasttoken"])
def test_pooling_of_equal_rows_is_that_row(mode):
    row = np.arange(4.0)
    np.testing.assert_allclose(oracle.pool(mode, [row] * 5), row, rtol=1e-15)


@pytest.mark.parity
def test_the_oracles_bert_is_that_of_transformers():
    import torch
    import transformers

    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=20,
        num_attention_heads=5,
        num_hidden_layers=3,
        intermediate_size=37,
        max_position_embeddings=40,
    )
    rng = np.random.default_rng(0)
    model = transformers.BertModel(config, add_pooling_layer=False).eval().double()
    w = {name: 0.3 * rng.standard_normal(p.shape) for name, p in model.named_parameters()}
    model.load_state_dict({k: torch.tensor(v) for k, v in w.items()}, strict=False)

    cu_seqlens = np.concatenate([[0], np.cumsum(LENGTHS)])
    ids, types = (rng.integers(0, high, cu_seqlens[-1]) for high in (50, 2))
    states = oracle.bert(ids, w, cu_seqlens, 3, 5, types)
    for tokens in oracle.sequences(cu_seqlens):
        with torch.no_grad():
            expected = model(
                input_ids=torch.tensor(ids[tokens])[None],
                token_type_ids=torch.tensor(types[tokens])[None],
            ).last_hidden_state[0]
        np.testing.assert_allclose(states[tokens], expected.numpy(), rtol=0, atol=1e-13)


@pytest.mark.parity
@pytest.mark.parametrize(
    "name", ["gelu", "gelu_tanh", "relu", "silu", "quick_gelu", "tanh", "sigmoid"]
)
def test_activation_is_that_of_torch(name):
    import torch

    functional = torch.nn.functional
    torchs = {
        "gelu": functional.gelu,
        "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
        "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
        "relu": torch.relu,
        "silu": functional.silu,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
    }
    x = np.linspace(-9, 9, 1001)
    expected = torchs[name](torch.tensor(x)).numpy()
    np.testing.assert_allclose(oracle.ACTIVATIONS[name](x), expected, rtol=0, atol=1e-14)


@pytest.mark.parity
@pytest.mark.parametrize("start", [0, 3])
def test_pooling_is_that_of_sentence_transformers(start):
    import torch
    from sentence_transformers.sentence_transformer.modules import Pooling

    modes = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
    x = np.random.default_rng(0).standard_normal((9, 4))
    features = {
        "token_embeddings": torch.tensor(x)[None],
        "attention_mask": torch.ones(1, 9, dtype=torch.int64),
        "prompt_length": start,
    }
    pooling = Pooling(4, modes, include_prompt=False)
    expected = pooling(features)["sentence_embedding"].numpy()
    actual = oracle.pool_sequences(modes, x, [0, 9], start)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-14)
