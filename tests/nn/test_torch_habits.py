"""Typical first steps of a torch user."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import simdformer.functional as F
from simdformer import nn
from tests.support import assert_same_bits, normal


def layer(**options):
    nn.manual_seed(0)
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options)


class Classifier(nn.Module):
    """A module defined by the user."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8, padding_idx=0)
        self.layers = nn.ModuleList()
        for _ in range(2):
            self.layers.append(layer())
        self.head = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3))

    def forward(self, ids):
        x = self.embed(ids)
        for each in self.layers:
            x = each(x)
        return F.log_softmax(self.head(x.mean(axis=1)), dim=-1)


def test_a_users_own_module_runs_and_loads_its_state():
    nn.manual_seed(1)
    a, b = Classifier().eval(), Classifier()
    ids = np.array([[1, 2, 3], [4, 5, 0]])
    assert a.load_state_dict(a.state_dict()) == ([], [])
    b.load_state_dict(a.state_dict())
    assert_same_bits(a(ids), b(ids))
    assert "layers.1.self_attn.in_proj_weight" in a.state_dict()
    np.testing.assert_allclose(np.exp(a(ids)).sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.eval(),
        lambda m: m.train(),
        lambda m: m.train(False),
        lambda m: m.cpu(),
        lambda m: m.float(),
        lambda m: m.to("cpu"),
        lambda m: m.to(device="cpu", dtype=np.float32),
        lambda m: m.to(np.float32),
        lambda m: m.requires_grad_(False),
    ],
)
def test_methods_without_effect_return_the_module(call):
    module = layer()
    assert call(module) is module
    assert not module.training


@pytest.mark.parametrize("place", ["cuda", "cuda:0", "float16", np.float64, "bfloat16"], ids=str)
def test_other_devices_and_dtypes_are_refused_by_name(place):
    with pytest.raises(ValueError, match="cannot be moved to"):
        layer().to(place)
    with pytest.raises(ValueError, match="must be None or"):
        layer().to(**{"device" if "cuda" in str(place) else "dtype": place})


def test_modules_and_parameters_have_names():
    model = Classifier()
    names = dict(model.named_modules())
    assert names[""] is model
    assert names["layers.0.self_attn.out_proj"] is model.layers[0].self_attn.out_proj
    assert list(names.values()) == list(model.modules())
    assert [p.shape for p in model.parameters()] == [p.shape for _, p in model.named_parameters()]


def test_a_module_list_can_be_extended():
    modules = nn.ModuleList()
    assert len(modules) == 0
    a, b, c, d = (nn.Linear(2, 2) for _ in range(4))
    modules.append(a).extend([b, c])
    modules.insert(0, d)
    assert list(modules) == [d, a, b, c]
    assert modules[-1] is c
    assert modules[1:3] == [a, b]
    assert list(modules.state_dict())[::2] == [f"{i}.weight" for i in range(4)]
    with pytest.raises(TypeError, match="a ModuleList holds Modules, got int for 4"):
        modules.append(3)


def test_a_sequence_runs_its_modules_in_order(rng):
    a, b = nn.Linear(4, 6), nn.Linear(6, 2)
    x = normal(rng, 3, 4)
    expected = b(F.gelu(a(x)))
    assert_same_bits(nn.Sequential(a, nn.GELU(), nn.Dropout(), b)(x), expected)
    named = nn.Sequential({"first": a, "second": nn.GELU()}).append(b)
    assert_same_bits(named(x, num_threads=1), expected)
    assert list(named.state_dict()) == ["first.weight", "first.bias", "2.weight", "2.bias"]
    int8 = nn.Sequential(a, nn.GELU(), b).to_compute_type("int8")
    assert np.abs(int8(x) - expected).max() < 0.1


MODULES = {
    "relu": nn.ReLU(), "gelu": nn.GELU(), "gelu_tanh": nn.GELU(approximate="tanh"),
    "silu": nn.SiLU(), "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(), "identity": nn.Identity(),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_an_activation_may_be_a_module(rng, name):
    x = normal(rng, 2, 5, 8)
    expected = layer(activation=name)
    got = layer(activation=MODULES[name])
    assert got.activation == name
    assert_same_bits(got(x), expected(x))
    if name not in ("identity", "gelu_tanh"):
        assert_same_bits(MODULES[name](x), getattr(F, name)(x))


@pytest.mark.parametrize("name", ["relu", "gelu", "silu", "sigmoid", "tanh", "quick_gelu"])
def test_an_activation_may_be_a_function(rng, name):
    x = normal(rng, 2, 5, 8)
    module = layer()
    module.activation = getattr(F, name)
    assert_same_bits(module(x), layer(activation=name)(x))


def test_an_activation_may_be_a_function_with_an_option(rng):
    x = normal(rng, 2, 5, 8)
    tanh = functools.partial(F.gelu, approximate="tanh")
    assert_same_bits(layer(activation=tanh)(x), layer(activation="gelu_tanh")(x))


@pytest.mark.parametrize(
    "activation", [lambda x: x, np.tanh, 3, None, F.swiglu, functools.partial(F.gelu, out=1)]
)
def test_other_activations_are_refused(activation):
    with pytest.raises(ValueError, match=r"unknown activation .*; known: identity, gelu"):
        layer(activation=activation)


def test_repr_distinguishes_modules_that_compute_differently():
    assert repr(nn.Sequential(nn.GELU("tanh"), nn.Dropout(0.1), nn.ReLU())) == (
        "Sequential(\n  (0): GELU(approximate='tanh')\n  (1): Dropout(p=0.1)\n  (2): ReLU()\n)"
    )
    plain, other = nn.LayerNorm(4), nn.LayerNorm(4, eps=1e-12)
    assert repr(plain) == "LayerNorm(weight=(4,), bias=(4,))"
    assert repr(other) == "LayerNorm(weight=(4,), bias=(4,), eps=1e-12)"
    assert "norm_first=True" in repr(layer(norm_first=True))
    assert "2 x" not in repr(nn.ModuleList([plain, other]))


def test_attributes_before_the_constructor_are_refused():
    class Early(nn.Module):
        def __init__(self):
            self.linear = nn.Linear(2, 2)
            super().__init__()

    with pytest.raises(AttributeError, match=r"call super\(\).__init__\(\) before Early.linear"):
        Early()


def test_max_norm_is_refused():
    with pytest.raises(ValueError, match=r"max_norm must be None, got 1.0"):
        nn.Embedding(5, 2, max_norm=1.0)
    with pytest.raises(ValueError, match=r"padding_idx must be within 5 embeddings, got 5"):
        nn.Embedding(5, 2, padding_idx=5)


def lm():
    nn.manual_seed(0)
    return nn.LanguageModel(nn.Embedding(11, 8), nn.TransformerEncoder(layer(), 1))


X64 = np.zeros((2, 3, 8))
X = X64.astype(np.float32)
IDS = np.array([[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lm()(IDS, [0, 2, 4]), ValueError, r"input_ids must be a vector"),
        (lambda: lm()([1.0, 2.0], [0, 2]), TypeError, "input_ids must be integers, got float"),
        (lambda: lm()([1, 2], [0, 1.5]), TypeError, "cu_seqlens must be a vector of integers"),
        (lambda: lm()([1, 2], [0, 3]), ValueError, "cu_seqlens must increase from 0 to the 2 ids of"),
        (lambda: lm()([1, 2], [0, 2, 2]), ValueError, "cu_seqlens must describe at least one sequence"),
        (lambda: lm()([1, 20], [0, 2]), IndexError, r"input_ids must be in \[0, 11\)"),
        (lambda: layer()(X64), TypeError, r"src must be float32, got float64: .*astype"),
        (lambda: layer()(X, src_mask=np.zeros((3, 3))), TypeError, r"src_mask must be .*astype"),
        (lambda: layer()(X, src_mask=np.zeros((3, 4), bool)), ValueError, "src_mask must have shape"),
        (lambda: layer()(X, cache=3), TypeError, "cache must be a DecoderCache or None, got int"),
        (lambda: nn.TransformerEncoder(layer(), 1)(X, np.zeros((3, 4), bool)), ValueError,
         r"^mask must have shape"),
        (lambda: layer()(X, head_mask=np.ones(2)), TypeError, "head_mask must be float32, got float64"),
        (lambda: nn.LayerNorm(8)(X64), TypeError, r"input must be float32, got float64: .*astype"),
        (lambda: nn.Embedding(5, 2)([5]), IndexError, r"input must be in \[0, 5\)"),
        (lambda: nn.MultiheadAttention(8, 2, num_kv_heads=0), ValueError, "num_kv_heads must be a pos"),
        (lambda: layer()(np.ma.masked_array(X, X == 0)), TypeError, "src is a masked array"),
        (lambda: layer()([[1.0], [2.0, 3.0]]), ValueError, "src cannot be read as an array"),
    ],
)  # fmt: skip
def test_errors_name_what_the_caller_passed(call, error, message):
    with pytest.raises(error, match=message):
        call()


TRANSFORMER = {"d_model": 8, "nhead": 2, "num_encoder_layers": 1, "num_decoder_layers": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"src_mask": np.zeros((3, 4), bool)}, "src_mask must have shape"),
        ({"tgt_mask": np.zeros((3, 4), bool)}, "tgt_mask must have shape"),
        ({"memory_mask": np.zeros((3, 4), bool)}, "memory_mask must have shape"),
        ({"src_is_causal": True}, "src_is_causal is a hint about src_mask, which is None"),
        ({"tgt_is_causal": True}, "tgt_is_causal is a hint about tgt_mask, which is None"),
        ({"src_key_padding_mask": np.zeros((2, 4), bool)}, "src_key_padding_mask must have shape"),
        ({"src_cu_seqlens": [0, 3]}, "src must have shape .* with src_cu_seqlens"),
        ({"src_key_padding_mask": np.array([[0, 0, 1], [0, 0, 0]], bool)},
         "memory_key_padding_mask must be given with src_key_padding_mask"),
    ],
)  # fmt: skip
def test_a_transformers_errors_have_its_own_names(options, message):
    model = nn.Transformer(**TRANSFORMER, dim_feedforward=16, batch_first=True)
    with pytest.raises(ValueError, match=message):
        model(X, X, **options)


def test_a_source_mask_that_ignores_nothing_needs_no_other(rng):
    model = nn.Transformer(**TRANSFORMER, dim_feedforward=16, batch_first=True)
    src, tgt = normal(rng, 2, 3, 8), normal(rng, 2, 4, 8)
    none = np.zeros((2, 3), bool)
    assert_same_bits(model(src, tgt, src_key_padding_mask=none), model(src, tgt))


def test_the_error_for_nested_dictionaries_names_the_one_to_use():
    model = layer()
    checkpoint = {"epoch": 3, "optimizer": {"state": {}}, "model": model.state_dict()}
    message = r"contains dictionaries, 'optimizer', 'model'.*pass state_dict\['model'\]"
    with pytest.raises(ValueError, match=message):
        model.load_state_dict(checkpoint)


@pytest.mark.parametrize("name", ["batch_first", "norm_first", "bias"])
@pytest.mark.parametrize("value", [1, 0, np.True_, np.False_], ids=repr)
def test_flags_are_evaluated_as_in_python(rng, name, value):
    x = normal(rng, 2, 3, 8)
    options = {"batch_first": True, name: value}
    nn.manual_seed(0)
    got = nn.TransformerEncoderLayer(
        np.int64(8), np.int64(2), np.int32(16), np.float32(0), **options
    )
    nn.manual_seed(0)
    options[name] = bool(value)
    assert_same_bits(got(x), nn.TransformerEncoderLayer(8, 2, 16, **options)(x))


def test_numpy_scalars_are_numbers(rng):
    x = normal(rng, 2, 3, 8)
    nn.manual_seed(0)
    got = nn.MultiheadAttention(
        np.int64(8), np.int64(2), batch_first=np.True_, num_kv_heads=np.int64(1), scale=np.float32(0.5),
        softcap=np.float32(2), window_size=np.array([1, 1]), head_dim=np.int64(4),
    )  # fmt: skip
    nn.manual_seed(0)
    plain = nn.MultiheadAttention(
        8,
        2,
        batch_first=True,
        num_kv_heads=1,
        scale=0.5,
        softcap=2.0,
        window_size=(1, 1),
        head_dim=4,
    )
    out, weights = got(x, x, x, need_weights=np.int64(1), num_threads=np.int64(1))
    expected, expected_weights = plain(x, x, x)
    assert_same_bits(out, expected)
    assert_same_bits(weights, expected_weights)
