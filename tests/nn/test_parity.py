"""simdformer.nn compared with torch.nn, for torch's options: same arguments, same weights."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest

from simdformer import nn
from tests.support import normal

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.parity

TOLERANCE = 2e-6  # relative to the output's largest element
N, L, S, E, HEADS = 2, 5, 7, 24, 3


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch warns about nested tensors and mixed mask types
        yield


def tensor(x):
    return None if x is None else torch.from_numpy(x)


def assert_close(actual, expected):
    expected = expected.numpy()
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= TOLERANCE * np.abs(expected).max()


def twins(name, *args, **kwargs):
    """torch's module with random weights everywhere, and ours with the same weights."""
    torch.manual_seed(1)
    theirs = getattr(torch.nn, name)(*args, **kwargs).eval()
    for p in theirs.parameters():
        p.add_(torch.randn_like(p) * 0.1)
    ours = getattr(nn, name)(*args, **kwargs)
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    return ours, theirs


def batch(rng, rows, features, batch_first):
    x = normal(rng, N, rows, features)
    return x if batch_first else np.ascontiguousarray(x.transpose(1, 0, 2))


def padding(kind, keys):
    mask = np.zeros((N, keys), bool)
    mask[1, -3:] = True
    if kind == "left":
        mask = mask[:, ::-1].copy()
    if kind == "float":
        return np.where(mask, -np.inf, np.linspace(-1, 1, keys)).astype(np.float32)
    return None if kind is None else mask


def pair_mask(kind, rng, rows, keys, dims):
    shape = (rows, keys) if dims == 2 else (N * HEADS, rows, keys)
    if kind == "float":
        return normal(rng, *shape)
    mask = rng.random(shape) < 0.3
    mask[..., 0] = False  # torch returns NaN if all keys are masked
    mask[..., -1, :] = False
    mask[..., 4] &= False  # a key that remains with padding on either side
    return None if kind is None else mask


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("padded", [None, "right", "left", "float"])
@pytest.mark.parametrize(
    ("kind", "dims"), [(None, 2), ("bool", 2), ("bool", 3), ("float", 2), ("float", 3)]
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"add_bias_kv": True},
        {"add_zero_attn": True},
        {"add_bias_kv": True, "add_zero_attn": True},
        {"kdim": 20, "vdim": 13},
    ],
    ids=str,
)
def test_multihead_attention(rng, options, kind, dims, padded, batch_first):
    ours, theirs = twins("MultiheadAttention", E, HEADS, batch_first=batch_first, **options)
    q = batch(rng, L, E, batch_first)
    k = batch(rng, S, options.get("kdim", E), batch_first)
    v = batch(rng, S, options.get("vdim", E), batch_first)
    mask, pad = pair_mask(kind, rng, L, S, dims), padding(padded, S)
    for average in (False, True):
        out, weights = ours(
            q, k, v, key_padding_mask=pad, attn_mask=mask, average_attn_weights=average
        )
        expected = theirs(
            *map(tensor, (q, k, v)),
            key_padding_mask=tensor(pad),
            attn_mask=tensor(mask),
            average_attn_weights=average,
        )
        assert_close(out, expected[0])
        assert_close(weights, expected[1])


def test_multihead_attention_without_a_batch(rng):
    ours, theirs = twins("MultiheadAttention", E, HEADS)
    q, k = normal(rng, L, E), normal(rng, S, E)
    mask = rng.random(S) < 0.4
    mask[0] = False
    out, weights = ours(q, k, k, key_padding_mask=mask)
    expected = theirs(tensor(q), tensor(k), tensor(k), key_padding_mask=tensor(mask))
    assert_close(out, expected[0])
    assert_close(weights, expected[1])


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", [None, "bool", "float", "causal"])
def test_encoder(rng, kind, batch_first, bias, activation, norm_first):
    options = {
        "dim_feedforward": 50,
        "activation": activation,
        "bias": bias,
        "norm_first": norm_first,
        "batch_first": batch_first,
    }
    ours, theirs = twins("TransformerEncoderLayer", E, HEADS, **options)
    x = batch(rng, S, E, batch_first)
    if kind == "causal":
        mask = torch.nn.Transformer.generate_square_subsequent_mask(S).numpy()
    else:
        mask = pair_mask(kind, rng, S, S, 2)
    expected = theirs(tensor(x), src_mask=tensor(mask), is_causal=kind == "causal")
    assert_close(ours(x, src_mask=mask, is_causal=kind == "causal"), expected)

    stack = nn.TransformerEncoder(ours, 2, nn.LayerNorm(E))
    theirs = torch.nn.TransformerEncoder(theirs, 2, torch.nn.LayerNorm(E)).eval()
    assert_close(stack(x, mask=mask), theirs(tensor(x), mask=tensor(mask)))


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_the_encoder_ignores_padding(rng, batch_first, norm_first):
    ours, theirs = twins(
        "TransformerEncoderLayer", E, HEADS, 50, batch_first=batch_first, norm_first=norm_first
    )
    x, pad = batch(rng, S, E, batch_first), padding("right", S)
    real = ~pad if batch_first else ~pad.T
    out = ours(x, src_key_padding_mask=pad)
    expected = theirs(tensor(x), src_key_padding_mask=tensor(pad))
    assert_close(out[real], expected[torch.from_numpy(real)])
    assert not out[~real].any()


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("padded", [None, "right", "left", "float"])
@pytest.mark.parametrize("memory_kind", [None, "bool", "float"])
def test_transformer(rng, memory_kind, padded, batch_first, bias, norm_first):
    ours, theirs = twins(
        "Transformer",
        E,
        HEADS,
        2,
        2,
        dim_feedforward=50,
        norm_first=norm_first,
        batch_first=batch_first,
        bias=bias,
    )
    src, tgt = batch(rng, S, E, batch_first), batch(rng, L, E, batch_first)
    masks = {
        "tgt_mask": torch.nn.Transformer.generate_square_subsequent_mask(L).numpy(),
        "memory_mask": pair_mask(memory_kind, rng, L, S, 3),
        "src_key_padding_mask": padding(padded, S),
        "memory_key_padding_mask": padding(padded, S),
    }
    out = ours(src, tgt, **masks, tgt_is_causal=True)
    expected = theirs(
        tensor(src), tensor(tgt), **{k: tensor(v) for k, v in masks.items()}, tgt_is_causal=True
    )
    assert_close(out, expected)


@pytest.mark.parametrize("heads", [1, 3, 5])
@pytest.mark.parametrize("head_dim", [1, 3, 20])
@pytest.mark.parametrize("length", [1, 17])
def test_odd_sizes(rng, heads, head_dim, length):
    features = heads * head_dim
    ours, theirs = twins("TransformerEncoderLayer", features, heads, 31, layer_norm_eps=1e-3)
    x = normal(rng, length, 3, features)
    assert_close(ours(x), theirs(tensor(x)))


@pytest.mark.parametrize("name", ["LayerNorm", "RMSNorm", "BatchNorm1d", "Linear"])
def test_small_modules(rng, name):
    ours, theirs = twins(name, E, *([9] if name == "Linear" else []))
    x = normal(rng, S, E)
    assert_close(ours(x), theirs(tensor(x)))


def test_state_dict_loads_back_into_torch():
    ours, theirs = twins("Transformer", E, HEADS, 1, 1, dim_feedforward=50)
    state = {k: torch.tensor(v) for k, v in ours.state_dict().items()}
    theirs.load_state_dict(state)
    assert list(state) == list(theirs.state_dict())


def test_tensors_are_arrays(rng):
    ours, theirs = twins("TransformerEncoderLayer", E, HEADS, 50)
    x = torch.from_numpy(normal(rng, S, N, E))
    assert_close(ours(x), theirs(x))


@pytest.mark.parametrize(
    "activation",
    [torch.nn.functional.gelu, torch.relu, torch.nn.GELU(approximate="tanh"), torch.nn.SiLU(),
     functools.partial(torch.nn.functional.gelu, approximate="tanh")],
    ids=["gelu", "relu", "GELU tanh", "SiLU", "partial of gelu"],
)  # fmt: skip
def test_activations_of_torch(rng, activation):
    options = {"dim_feedforward": 48, "activation": activation, "batch_first": True}
    ours, theirs = twins("TransformerEncoderLayer", E, HEADS, **options)
    x = normal(rng, N, L, E)
    assert_close(ours(x), theirs(tensor(x)))


def test_tensors_in_bfloat16_load_as_from_a_file(tmp_path):
    """Tensors of a dict, of a file, and parameters with gradients."""
    theirs = torch.nn.Linear(5, 3).bfloat16()
    from_dict, from_file = nn.Linear(5, 3), nn.Linear(5, 3)
    from_dict.load_state_dict(dict(theirs.named_parameters()))
    torch.save(theirs.state_dict(), tmp_path / "model.pt")
    from_file.load_state_dict(tmp_path / "model.pt")
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(from_dict.state_dict()[name], value.float().numpy())
        np.testing.assert_array_equal(from_file.state_dict()[name], value.float().numpy())


def test_a_checkpoint_of_training_says_which_dict_to_take(tmp_path):
    with torch.enable_grad():
        module = torch.nn.Linear(5, 3)
        optimizer = torch.optim.AdamW(module.parameters())
        module(torch.ones(1, 5)).sum().backward()
        optimizer.step()
    path = tmp_path / "checkpoint.pt"
    state = {
        "model_state_dict": module.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
    }
    torch.save({"epoch": 3, "loss": 0.25, **state}, path)
    for given in (path, str(path), torch.load(path)):
        with pytest.raises(ValueError, match="'model_state_dict'"):
            nn.Linear(5, 3).load_state_dict(given)


def test_tensors_that_numpy_lacks_are_refused_by_name():
    with pytest.raises(TypeError, match=r"input cannot be read as an array: .*BFloat16"):
        nn.Linear(5, 3)(torch.zeros(1, 5, dtype=torch.bfloat16))
