"""simdformer.functional compared with PyTorch and transformers."""

from __future__ import annotations

import numpy as np
import pytest

import simdformer.functional as F
from tests.support import assert_within, normal

pytestmark = pytest.mark.parity

torch = pytest.importorskip("torch", reason="torch is not installed (group parity)")
SHAPES = [(1, 1, 8), (1, 77, 64), (33, 70, 20), (128, 128, 64), (257, 40, 80)]


def check(actual, expected, tolerance=2e-6):
    expected = np.asarray(expected)
    assert_within(actual, expected, tolerance * max(1e-30, np.abs(expected).max(initial=0)))


def masks(rng, kind, queries, keys):
    if kind == "bool":
        return rng.random((queries, keys)) < 0.7
    if kind == "key":
        return rng.random((2, 1, 1, keys)) < 0.7
    if kind == "float":
        return normal(rng, 2, 4, queries, keys)
    if kind == "infinite":
        return np.where(rng.random((2, 1, queries, keys)) < 0.5, 0, -np.inf).astype(np.float32)
    return None


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["none", "causal", "bool", "key", "float", "infinite"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("scale", [None, 0.05])
def test_scaled_dot_product_attention(rng, shape, kind, kv_heads, scale):
    queries, keys, dim = shape
    q = normal(rng, 2, 4, queries, dim)
    k, v = normal(rng, 2, kv_heads, keys, dim), normal(rng, 2, kv_heads, keys, dim)
    mask = masks(rng, kind, queries, keys)
    options = {"is_causal": kind == "causal", "scale": scale, "enable_gqa": True}
    theirs = torch.nn.functional.scaled_dot_product_attention(
        *map(torch.from_numpy, (q, k, v)),
        attn_mask=None if mask is None else torch.from_numpy(mask),
        **options,
    )
    check(F.scaled_dot_product_attention(q, k, v, mask, **options), theirs)


def test_tensors_are_read_and_written_in_place(rng):
    q, k, v = (torch.from_numpy(normal(rng, 2, 9, 3, 8)).transpose(1, 2) for _ in range(3))
    out = torch.empty(2, 3, 9, 8)
    F.scaled_dot_product_attention(q, k, v, out=out)
    check(out.numpy(), torch.nn.functional.scaled_dot_product_attention(q, k, v))


def test_tensor_in_half_precision_is_refused():
    x = torch.zeros(2, 3, dtype=torch.float16)
    with pytest.raises(TypeError, match="query must be float32, got float16"):
        F.scaled_dot_product_attention(x, x, x)


NORMS = {
    "layer_norm": ((4, 7, 33), lambda f, x, w, b: f(x, (33,), w, b)),
    "rms_norm": ((4, 7, 33), lambda f, x, w, _: f(x, (33,), w)),
    "batch_norm": ((40, 33), lambda f, x, w, b: f(x, b, w**2, w, b)),
    "linear": ((4, 33), lambda f, x, w, b: f(x, w[None] * b[:, None], b)),
    "softmax": ((4, 7, 33), lambda f, x, _w, _b: f(x, 1)),
    "glu": ((4, 7, 34), lambda f, x, _w, _b: f(x)),
    "gelu": ((4, 7, 33), lambda f, x, _w, _b: f(x, approximate="tanh")),
}


@pytest.mark.parametrize("name", NORMS)
def test_function_equals_torchs(rng, name):
    shape, call = NORMS[name]
    arrays = [normal(rng, *shape), normal(rng, 33), normal(rng, 33)]
    theirs = call(getattr(torch.nn.functional, name), *map(torch.from_numpy, arrays))
    check(call(getattr(F, name), *arrays), theirs.numpy(), 3e-6)


def test_batch_norm_in_training_updates_as_torch(rng):
    x, mean, var = normal(rng, 20, 5, 3), normal(rng, 5), normal(rng, 5) ** 2
    theirs = [torch.from_numpy(a.copy()) for a in (mean, var)]
    expected = torch.nn.functional.batch_norm(torch.from_numpy(x), *theirs, training=True)
    check(F.batch_norm(x, mean, var, training=True), expected, 3e-6)
    check(mean, theirs[0])
    check(var, theirs[1])


# transformers


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "reach"), [(32, 128), (16, 64)])
def test_t5_buckets(bidirectional, buckets, reach):
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    relative = np.arange(-600, 600)
    theirs = t5.T5Attention._relative_position_bucket(
        torch.from_numpy(relative), bidirectional, buckets, reach
    )
    ours = F.t5_bucket(
        relative, bidirectional=bidirectional, num_buckets=buckets, max_distance=reach
    )
    np.testing.assert_array_equal(ours, theirs.numpy())


SCALINGS = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 8.0, "original_max_position_embeddings": 512},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512,
    },
    "longrope": {
        "factor": 4.0,
        "short_factor": [1.0 + i / 9 for i in range(16)],
        "long_factor": [2.0 + i for i in range(16)],
        "original_max_position_embeddings": 512,
        "partial_rotary_factor": 0.5,
    },
}


@pytest.mark.parametrize("kind", SCALINGS)
@pytest.mark.parametrize("length", [100, 3000])
def test_rotary_frequencies(kind, length):
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = {"rope_type": kind, "rope_theta": 10000.0, **SCALINGS[kind]}
    config = transformers.LlamaConfig(
        hidden_size=256,
        num_attention_heads=4,
        max_position_embeddings=1024,
        rope_parameters=parameters,
    )
    theirs, factor = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), seq_len=length)
    scaling = dict(parameters)
    if kind == "dynamic":
        scaling["original_max_position_embeddings"] = 1024
    ours, our_factor = F.rotary_frequencies(64, scaling=scaling, seq_len=length)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=2e-6)
    assert our_factor == pytest.approx(factor)


@pytest.mark.parametrize("terms", ["c2p", "p2c", "c2p|p2c"])
@pytest.mark.parametrize("buckets", [-1, 8])
def test_disentangled_attention(rng, terms, buckets):
    deberta = pytest.importorskip("transformers.models.deberta_v2.modeling_deberta_v2")
    config = deberta.DebertaV2Config(
        hidden_size=24,
        num_attention_heads=3,
        pos_att_type=terms.split("|"),
        relative_attention=True,
        max_relative_positions=32,
        position_buckets=buckets,
        share_att_key=False,
        attention_probs_dropout_prob=0.0,
        hidden_dropout_prob=0.0,
    )
    torch.manual_seed(0)
    layer = deberta.DisentangledSelfAttention(config).eval()
    span = buckets if buckets > 0 else 32
    x, table = torch.from_numpy(normal(rng, 2, 20, 24)), torch.from_numpy(normal(rng, 2 * span, 24))
    mask = torch.ones(2, 1, 20, 20)
    with torch.no_grad():
        theirs = layer(x, mask, rel_embeddings=table)[0].numpy()

        def heads(linear, value):
            flat = linear(value).numpy()
            return flat.reshape(*flat.shape[:-1], 3, 8).swapaxes(-2, -3)

        q, k, v = (heads(p, x) for p in (layer.query_proj, layer.key_proj, layer.value_proj))
        position_keys = heads(layer.pos_key_proj, table) if "c2p" in terms else None
        position_queries = heads(layer.pos_query_proj, table) if "p2c" in terms else None
    ours = F.deberta_attention(
        q,
        k,
        v,
        position_keys,
        position_queries,
        position_buckets=max(buckets, 0),
        max_relative_positions=32,
    )
    check(ours.swapaxes(1, 2).reshape(2, 20, 24), theirs, 5e-6)


@pytest.mark.parametrize("size", [1.0, 1e18, 5e18])
@pytest.mark.parametrize("is_causal", [False, True])
def test_products_beyond_float32(rng, size, is_causal):
    q, k = normal(rng, 2, 1, 3, 40, 64, scale=size)
    v = normal(rng, 1, 3, 40, 64)
    tensors = map(torch.from_numpy, (q, k, v))
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        theirs = torch.nn.functional.scaled_dot_product_attention(*tensors, is_causal=is_causal)
    assert torch.isfinite(theirs).all()
    ours = F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-6)


def test_functions_of_torch(rng):
    x = normal(rng, 4, 6, 5, scale=3.0)
    t = torch.from_numpy(x)
    functional = torch.nn.functional
    np.testing.assert_allclose(F.log_softmax(x, 1), functional.log_softmax(t, 1), atol=2e-6)
    np.testing.assert_allclose(F.normalize(x), functional.normalize(t), atol=2e-7)
    ids = np.array([[1, 3], [0, 1]])
    theirs = functional.embedding(torch.from_numpy(ids), t[:, 0], padding_idx=0)
    np.testing.assert_array_equal(F.embedding(ids, x[:, 0], padding_idx=0), theirs)
