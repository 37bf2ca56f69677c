"""Modules in bfloat16 and int8: errors are within those of rounding their matrices."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from simdformer import _core, nn
from simdformer.checkpoint.int8_matrix import Int8Matrix
from simdformer.generation import generate
from simdformer.nn import initialization
from simdformer.nn.parameters import Stored
from tests.kernels.test_bf16 import rounded
from tests.nn.test_changes import MODULES as SMALL
from tests.support import assert_same_bits, normal

SIZE, HEADS = 32, 4
SCORES = ["scaled_dot", "dot", "bilinear", "euclidean", "cosine", "additive"]
# The error of an int8 product is about 1% of the size of its terms.
INT8 = 0.05


def rows(seed=0, features=SIZE):
    return normal(np.random.default_rng(seed), 2, 9, features)


def on_rows(module):
    return module(rows())


def on_target(module):
    return module(rows(), rows(1))


def self_attention(module):
    x = rows()
    return module(x, x, x)[0]


def layer_options(score="scaled_dot", **options):
    return {"batch_first": True, "score": score, **options}


def encoder(**options):
    layer = nn.TransformerEncoderLayer(SIZE, HEADS, 64, **layer_options(**options))
    return nn.TransformerEncoder(layer, 2, nn.LayerNorm(SIZE))


def decoder(**options):
    layer = nn.TransformerDecoderLayer(SIZE, HEADS, 64, **layer_options(**options))
    return nn.TransformerDecoder(layer, 2)


def language_model(lm_head=None):
    layer = nn.TransformerEncoderLayer(SIZE, HEADS, 64, norm_first=True)
    stack = nn.TransformerEncoder(layer, 2, nn.LayerNorm(SIZE))
    return nn.LanguageModel(nn.Embedding(50, SIZE), stack, lm_head=lm_head)


def logits(module):
    return module(np.arange(12), [0, 5, 12])


MODULES = {
    "linear": (lambda: nn.Linear(SIZE, 20), on_rows),
    "gated": (lambda: encoder(activation="swiglu"), on_rows),
    "grouped": (lambda: encoder(num_kv_heads=2, head_dim=12), on_rows),
    "tied": (lambda: encoder(tie_qk=True), on_rows),
    "decoder": (decoder, on_target),
    "transformer": (lambda: nn.Transformer(SIZE, HEADS, 1, 1, 64, batch_first=True), on_target),
    "other sizes": (
        lambda: nn.MultiheadAttention(SIZE, HEADS, kdim=24, vdim=20, batch_first=True),
        lambda m: m(rows(), rows(1, 24), rows(2, 20))[0],
    ),
    "rotary": (lambda: encoder(position=nn.RotaryEmbedding(8)), on_rows),
    "deberta": (lambda: encoder(position=nn.DisentangledRelativePosition(SIZE, HEADS)), on_rows),
    "language model": (language_model, logits),
    "own head": (lambda: language_model(nn.Linear(SIZE, 50)), logits),
    **{f"encoder {s}": (lambda s=s: encoder(score=s), on_rows) for s in SCORES},
    **{f"decoder {s}": (lambda s=s: decoder(score=s), on_target) for s in SCORES},
}


@pytest.fixture(params=MODULES)
def module_and_call(request):
    nn.manual_seed(3)
    make, call = MODULES[request.param]
    return make(), call


def matrices(module):
    return [(owner, name) for owner in module._multiplying() for name in owner.matrices()]


def assert_near(actual, expected, bound):
    assert np.linalg.norm(actual - expected) <= bound * np.linalg.norm(expected)


def test_bfloat16_has_the_bits_of_rounded_weights_in_bfloat16(module_and_call):
    module, call = module_and_call
    exact = call(module)
    in_bf16 = copy.deepcopy(module).to_compute_type("bfloat16")
    assert in_bf16.compute_type == "bfloat16"
    found = call(in_bf16)
    assert_near(found, exact, 0.02)
    assert np.abs(found - exact).max() > 0
    again = copy.deepcopy(module).to_compute_type("bfloat16").load_state_dict(in_bf16.state_dict())
    assert not again.missing_keys


def test_bfloat16_parameters_read_as_rounded_ones(module_and_call):
    module, call = module_and_call
    in_bf16 = copy.deepcopy(module).to_compute_type("bfloat16")
    call(in_bf16)
    for owner, name in matrices(in_bf16):
        if name != "head":
            value = getattr(owner, name)
            assert_same_bits(rounded(np.array(value)), value)


def test_int8_is_close_to_float32(module_and_call):
    module, call = module_and_call
    exact = call(module)
    in_int8 = copy.deepcopy(module).to_compute_type("int8")
    assert in_int8.compute_type == "int8"
    found = call(in_int8)
    assert_near(found, exact, INT8)
    assert np.abs(found - exact).max() > 0


def test_int8_parameters_dequantize_to_the_weights(module_and_call):
    module, call = module_and_call
    in_int8 = copy.deepcopy(module).to_compute_type("int8")
    call(in_int8)
    for (owner, name), (original, _) in zip(matrices(in_int8), matrices(module), strict=True):
        if name == "head" or getattr(original, "score", None) == "bilinear":
            continue
        found, exact = getattr(owner, name), getattr(original, name)
        assert isinstance(found, Int8Matrix)
        steps = np.repeat(found.scale, _core.s8_group(), axis=1)[:, : exact.shape[1]]
        assert (np.abs(found.float32() - exact) <= 0.5001 * steps).all()


@pytest.mark.parametrize("compute_type", ["bfloat16", "int8"])
def test_loading_the_state_gives_the_same_bits(module_and_call, compute_type):
    module, call = module_and_call
    converted = copy.deepcopy(module).to_compute_type(compute_type)
    state = converted.state_dict()
    other = copy.deepcopy(module)
    for value in (x for x in other.state_dict().values() if x.dtype == np.float32):
        assert not value.flags.writeable
    other.to_compute_type(compute_type)
    other.load_state_dict(state)
    assert_same_bits(call(other), call(converted))


@pytest.mark.parametrize("compute_type", ["bfloat16", "int8"])
def test_copies_and_pickles_compute_the_same_bits(module_and_call, compute_type):
    module, call = module_and_call
    module.to_compute_type(compute_type)
    again = pickle.loads(pickle.dumps(module))
    before = call(module)
    for other in (again, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert other.compute_type == compute_type
        assert_same_bits(call(other), before)


@pytest.mark.usefixtures("active_isa")
@pytest.mark.parametrize("compute_type", ["bfloat16", "int8"])
def test_every_level(compute_type):
    nn.manual_seed(0)
    module = encoder()
    exact = on_rows(module)
    assert_near(on_rows(module.to_compute_type(compute_type)), exact, INT8)


@pytest.mark.parametrize("compute_type", ["bfloat16", "int8"])
def test_packed_padded_and_alone_are_the_same_bits(compute_type):
    module = encoder().to_compute_type(compute_type)
    x = rows()
    packed = module(x.reshape(-1, SIZE), cu_seqlens=[0, 9, 18])
    assert_same_bits(packed.reshape(x.shape), module(x))
    assert_same_bits(module(x[1:])[0], module(x)[1])
    assert_same_bits(module(x, num_threads=2), module(x, num_threads=1))


@pytest.mark.parametrize("kind", ["language model", "own head"])
def test_generation_in_int8_has_the_logits_of_whole_passes(kind):
    model = MODULES[kind][0]().to_compute_type("int8")
    (tokens,) = generate(model, [[1, 2, 3]], max_new_tokens=6)
    sequence = [1, 2, 3, *tokens] if len(tokens) == 6 else list(tokens)
    whole = model(np.array(sequence[:-1]), [0, len(sequence) - 1])
    assert whole[2:].argmax(axis=1).tolist() == sequence[3:]


def rows_with_a_large_feature():
    """Rows in which one feature is much larger than the others."""
    x = rows().reshape(-1, SIZE)
    x[:, 5] *= 60
    return x


def test_a_sample_shows_the_outliers():
    linear = nn.Linear(SIZE, 40)
    x = rows_with_a_large_feature()
    without = copy.deepcopy(linear).to_compute_type("int8")
    linear_exact = linear(x)
    linear.to_compute_type("int8", sample=x)
    assert linear.weight.outliers.tolist() == [5]
    assert without.weight.outliers.tolist() == []
    loss, loss_without = (
        np.linalg.norm(m(x) - linear_exact) / np.linalg.norm(linear_exact)
        for m in (linear, without)
    )
    assert loss < 0.5 * loss_without


def test_a_sample_may_have_any_form_of_the_calls_arguments():
    x = rows_with_a_large_feature()
    options = {"src": x, "cu_seqlens": [0, 9, 18]}
    by_name = encoder(norm_first=True, norm="rms").to_compute_type("int8", sample=options)
    attention = nn.MultiheadAttention(SIZE, HEADS).to_compute_type("int8", sample=(x, x, x))
    assert 5 in attention.in_proj_weight.outliers
    assert 5 in by_name.layers[0].self_attn.in_proj_weight.outliers
    model = language_model().to_compute_type("int8", sample=(np.arange(20), [0, 20]))
    assert model.compute_type == "int8"


def test_cross_attention_keeps_the_outliers_of_queries_and_of_keys():
    attention = nn.MultiheadAttention(SIZE, HEADS)
    x, memory = rows_with_a_large_feature(), normal(np.random.default_rng(4), 7, SIZE)
    memory[:, 11] *= 80
    attention.to_compute_type("int8", sample=(x, memory, memory))
    assert attention.in_proj_weight.outliers.tolist() == [5, 11]


def test_an_unknown_type_is_refused():
    with pytest.raises(
        ValueError, match="unknown compute_type 'float16'; known: float32, bfloat16"
    ):
        encoder().to_compute_type("float16")


def test_int8_cannot_be_converted_back():
    module = encoder().to_compute_type("int8")
    assert module.to_compute_type("int8") is module
    for compute_type in ("float32", "bfloat16"):
        with pytest.raises(ValueError, match=f"in int8 cannot be converted to {compute_type}"):
            module.to_compute_type(compute_type)


def test_bfloat16_becomes_float32_with_its_rounded_weights():
    module = encoder().to_compute_type("bfloat16").to_compute_type("float32")
    assert module.compute_type == "float32"
    weight = np.array(module.layers[0].linear1.weight)
    assert_same_bits(weight, rounded(weight))


def test_floats_are_not_loaded_into_int8():
    module = encoder()
    state = module.state_dict()
    module.to_compute_type("int8")
    with pytest.raises(ValueError, match="in_proj_weight is in int8: give an Int8Matrix"):
        module.load_state_dict(state)
    with pytest.raises(ValueError, match="weight is in int8"):
        module.layers[0].linear1.weight = state["layers.0.linear1.weight"]


def test_codes_are_loaded_into_a_module_in_float32():
    module = encoder()
    in_int8 = copy.deepcopy(module).to_compute_type("int8")
    module.load_state_dict(in_int8.state_dict())
    assert module.compute_type == "int8"
    assert_same_bits(on_rows(module), on_rows(in_int8))


def test_codes_for_a_vector_are_refused():
    norm = nn.LayerNorm(2)
    codes = nn.Linear(2, 2).to_compute_type("int8").weight
    with pytest.raises(TypeError, match="weight must be an array of floats, got an Int8Matrix"):
        norm.weight = codes


def test_part_of_a_module_may_be_in_another_type():
    module = encoder()
    module.layers[0].to_compute_type("int8")
    assert module.compute_type == "mixed"
    assert module.layers[1].compute_type == "float32"
    on_rows(module)
    module.to_compute_type("int8")
    assert module.compute_type == "int8"


def test_weights_that_are_not_finite_are_named_and_nothing_is_changed():
    module = encoder()
    weight = np.array(module.layers[1].linear2.weight)
    weight[1, 2] = np.inf
    module.layers[1].linear2.weight = weight
    with pytest.raises(ValueError, match=r"weight cannot be quantized: weight\[1, 2\] is inf"):
        module.to_compute_type("int8")
    assert module.compute_type == "float32"


def test_heads_of_an_int8_attention_are_not_pruned():
    module = nn.MultiheadAttention(SIZE, HEADS).to_compute_type("int8")
    with pytest.raises(ValueError, match="heads cannot be pruned in int8"):
        module.prune_heads([1])
    assert module.num_heads == HEADS
    assert module.in_proj_weight.shape == (3 * SIZE, SIZE)


def test_heads_of_a_bfloat16_attention_are_pruned():
    module = nn.MultiheadAttention(SIZE, HEADS, batch_first=True).to_compute_type("bfloat16")
    before = module(*(rows(),) * 3, head_mask=np.array([1, 0, 1, 1], np.float32))[0]
    module.prune_heads([1])
    assert module.compute_type == "bfloat16"
    np.testing.assert_allclose(self_attention(module), before, atol=1e-5)


def test_a_type_may_be_chosen_before_the_numbers_are_loaded():
    expected = encoder().to_compute_type("bfloat16")
    source = encoder()
    with initialization.deferred():
        module = encoder().to_compute_type("bfloat16")
    stored = {k: Stored(v.shape, lambda v=v: np.array(v)) for k, v in source.state_dict().items()}
    module.load_state_dict(stored)
    assert module.compute_type == "bfloat16"
    assert_same_bits(on_rows(module), on_rows(source.to_compute_type("bfloat16")))
    assert expected.compute_type == "bfloat16"


def test_float32_weights_are_freed():
    import gc
    import weakref

    class Matrix(np.ndarray):
        pass

    linear = nn.Linear(SIZE, SIZE)
    value = np.array(linear.weight).view(Matrix)
    gone = weakref.ref(value)
    linear._parameters["weight"] = value
    del value
    linear(rows())
    linear.to_compute_type("int8")
    linear(rows())
    gc.collect()
    assert gone() is None


def test_positions_keep_their_tables_in_float32():
    module = SMALL["xl"][0]().to_compute_type("int8")
    assert module.position.projection.compute_type == "float32"
    assert module.compute_type == "int8"
