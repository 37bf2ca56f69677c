"""Setting an attribute of a module after its first call takes effect, for every attribute: no packed form
outlives the values from which it was made."""

from __future__ import annotations

import copy
import threading

import numpy as np
import pytest

from simdformer import _core, nn
from tests.support import assert_same_bits, normal

SIZE, HEADS = 16, 4


def rows(seed=0):
    return normal(np.random.default_rng(seed), 2, 5, SIZE)


def encoder(norm="layer", **options):
    layer = nn.TransformerEncoderLayer(SIZE, HEADS, 32, batch_first=True, norm=norm, **options)
    return nn.TransformerEncoder(layer, 2, nn.LayerNorm(SIZE))


def attend(**options):
    return lambda: nn.MultiheadAttention(SIZE, HEADS, batch_first=True, **options)


def self_attention(module):
    x = rows()
    return module(x, x, x)[0]


def positioned(make):
    return lambda: nn.MultiheadAttention(SIZE, HEADS, batch_first=True, position=make())


def decoder():
    layer = nn.TransformerDecoderLayer(SIZE, HEADS, 32, batch_first=True)
    return nn.TransformerDecoder(layer, 2, nn.RMSNorm(SIZE))


def transformer():
    return nn.Transformer(SIZE, HEADS, 1, 1, 32, batch_first=True)


def language_model(**options):
    layer = nn.TransformerEncoderLayer(SIZE, HEADS, 32)
    embedding = nn.Embedding(30, SIZE)
    return nn.LanguageModel(embedding, nn.TransformerEncoder(layer, 1), **options)


def learned_language_model():
    head = nn.Linear(SIZE, 30)
    return language_model(position=nn.LearnedPositionalEmbedding(40, SIZE), lm_head=head, scale=2.0)


def sinusoidal_language_model():
    return language_model(position=nn.SinusoidalPositionalEncoding(SIZE))


def text_encoder(max_positions=None):
    embeddings = nn.TextEmbeddings(30, SIZE, 12, 2, nn.LayerNorm(SIZE), padding_idx=1)
    position = nn.RotaryEmbedding(4, max_positions=max_positions)
    layers = [
        nn.TransformerEncoderLayer(SIZE, HEADS, 32, position=position, activation=activation)
        for activation in ("gelu", "geglu")
    ]
    return nn.TextEncoder(embeddings, layers, nn.LayerNorm(SIZE))


def logits(module):
    return module(np.arange(7), [0, 3, 7])


def on_rows(module):
    return module(rows())


def on_target(module):
    return module(rows(), rows(1))


DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 4}

# name: (function that builds it, function that calls it)
MODULES = {
    "encoder": (encoder, on_rows),
    "gated encoder": (lambda: encoder("rms", activation="swiglu", norm_first=True), on_rows),
    "batch norms": (lambda: encoder("batch", alpha=1.5), on_rows),
    "decoder": (decoder, on_target),
    "transformer": (transformer, on_target),
    "attention": (attend(), self_attention),
    "attention with all": (
        attend(add_bias_kv=True, add_zero_attn=True, qk_norm=nn.RMSNorm(4), logit_scale=True),
        self_attention,
    ),
    "grouped": (attend(num_kv_heads=2, head_dim=6, window_size=(1, 2)), self_attention),
    "bilinear": (attend(score="bilinear", softcap=2.0), self_attention),
    "additive": (attend(score="additive", scale=0.7), self_attention),
    "cosine": (attend(score="cosine", tie_qk=True), self_attention),
    "other sizes": (
        attend(kdim=12, vdim=8),
        lambda m: m(rows(), rows()[..., :12], rows()[..., :8])[0],
    ),
    "rotary": (positioned(lambda: nn.RotaryEmbedding(4)), self_attention),
    "dynamic": (positioned(lambda: nn.RotaryEmbedding(4, scaling=DYNAMIC)), self_attention),
    "alibi": (positioned(lambda: nn.ALiBi(HEADS)), self_attention),
    "t5": (positioned(lambda: nn.RelativePositionBias(HEADS)), self_attention),
    "shaw": (positioned(lambda: nn.ShawRelativePosition(4, 3)), self_attention),
    "xl": (positioned(lambda: nn.TransformerXLRelativePosition(SIZE, HEADS)), self_attention),
    "deberta": (
        positioned(lambda: nn.DisentangledRelativePosition(SIZE, HEADS, position_buckets=8)),
        self_attention,
    ),
    "deberta apart": (
        positioned(
            lambda: nn.DisentangledRelativePosition(
                SIZE, HEADS, max_relative_positions=8, share_att_key=False
            )
        ),
        self_attention,
    ),
    "language model": (learned_language_model, logits),
    "tied language model": (sinusoidal_language_model, logits),
    "text encoder": (text_encoder, logits),
    "text model": (lambda: nn.LanguageModel(text_encoder(9)), logits),
    "linear": (lambda: nn.Linear(SIZE, 3), on_rows),
    "layer norm": (lambda: nn.LayerNorm((5, SIZE)), on_rows),
    "embedding": (lambda: nn.Embedding(9, 4, padding_idx=2), lambda m: m([1, 2])),
}

# Other values for an attribute by its name, if its present value does not determine them.
OTHERS = {
    "activation": ["gelu", "tanh", "swiglu", "geglu", "?"],
    "score": ["dot", "cosine", "euclidean", "bilinear", "additive", "?"],
    "masked_row": ["nan", "?"],
    "scale": [0.3],
    "eps": [0.5],
    "norm": [nn.RMSNorm(SIZE), None, "?"],
    "norm1": [nn.RMSNorm(SIZE), nn.Identity(), None],
    "norm2": [nn.RMSNorm(SIZE), nn.Identity(), None],
    "experts": [nn.MixtureOfExperts(SIZE, 6, num_experts=3, top_k=2), "?"],
    "norm3": [nn.RMSNorm(SIZE), nn.Identity(), None],
    "position": [nn.ALiBi(HEADS), nn.RotaryEmbedding(2), nn.ALiBi(3), None, 3],
    "q_norm": [nn.LayerNorm(4), None],
    "k_norm": [nn.LayerNorm(4), None],
    "lm_head": [nn.Linear(SIZE, 11), None],
    "max_positions": [3, 64],
    "scaling": [{"rope_type": "linear", "factor": 3.0}, None, {"rope_type": "?"}],
    "pos_att_type": [("c2p",), ("p2c",)],
    "freq": ["tensor2tensor", "?"],
    "layout": ["concat", "?"],
    "padding_idx": [3, None],
    "position_embeddings": [nn.Embedding(20, SIZE), None],
    "projection": [nn.Linear(SIZE, SIZE), None],
    "token_type_embeddings": [nn.Embedding(3, SIZE), None],
    "embedding": [nn.Embedding(30, SIZE), None],
    "linear_gate": [nn.Linear(SIZE, 32)],
    "num_batches_tracked": [np.array(3)],
}


def modules_of(module, path=()):
    """Paths to a module and its descendants."""
    yield path
    for name, child in module.named_children():
        yield from modules_of(child, (*path, name))


def at(module, path):
    for name in path:
        module = dict(module.named_children())[name]
    return module


def attributes_of(module):
    """The names of everything that can be set on it, including parameters and modules."""
    names = {name for name in vars(module) if not name.startswith("_")}
    for kind in type(module).__mro__:
        names |= {k for k, v in vars(kind).items() if isinstance(v, property) and v.fset}
    names |= {name for name, _ in module.named_parameters() if "." not in name}
    return sorted(names)


# Or by its type; bool comes before int, of which it is a subclass.
OTHERS_OF = {
    bool: lambda value: [not value],
    int: lambda value: [value + 1, max(value - 1, 1)],
    float: lambda value: [value * 1.5 + 0.25],
    tuple: lambda value: [tuple(v + 1 for v in value), value[:1]],
    np.ndarray: lambda value: [value * np.float32(0.5) + np.float32(0.1)],
    nn.Module: lambda value: [None, 3],  # noqa: ARG005
}


def others(name, value):
    """Other values for an attribute."""
    if name in OTHERS:
        return [copy.deepcopy(other) for other in OTHERS[name]]
    for kind, make in OTHERS_OF.items():
        if isinstance(value, kind):
            return make(value)
    raise AssertionError(f"say in OTHERS what else {name}={value!r} can be")


def parts():
    for kind, (make, _) in MODULES.items():
        for path in modules_of(make()):
            yield pytest.param(kind, path, id="-".join((kind, *path)))


def outcome(module, call, path, name, number):
    """The result of a call after the change: the output, or the error."""
    target = at(module, path)
    try:
        setattr(target, name, others(name, getattr(target, name))[number])
        return call(module)
    except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
        return str(error)


@pytest.mark.parametrize(("kind", "path"), list(parts()))
def test_setting_an_attribute_after_a_call_has_the_same_effect_as_before(kind, path):
    make, call = MODULES[kind]
    unused = make()
    names = attributes_of(at(unused, path))
    for name in names:
        for number in range(len(others(name, getattr(at(unused, path), name)))):
            fresh, used = copy.deepcopy(unused), copy.deepcopy(unused)
            call(used)
            expected = outcome(fresh, call, path, name, number)
            actual = outcome(used, call, path, name, number)
            if isinstance(expected, str):
                assert actual == expected
            else:
                assert_same_bits(actual, expected)


@pytest.mark.parametrize("kind", MODULES)
def test_no_attribute_can_change_without_being_set(kind):
    whole = MODULES[kind][0]()
    for path in modules_of(whole):
        for name in attributes_of(at(whole, path)):
            value = getattr(at(whole, path), name)
            assert not isinstance(value, (list, dict, set)), name
            assert not isinstance(value, np.ndarray) or not value.flags.writeable, name


class Packs:
    """Counts packed matrices."""

    def __init__(self, monkeypatch):
        self.count = 0
        pack = _core.Linear

        def counted(*args):
            self.count += 1
            return pack(*args)

        monkeypatch.setattr(_core, "Linear", counted)


@pytest.fixture
def packs(monkeypatch):
    return Packs(monkeypatch)


@pytest.mark.parametrize("kind", ["encoder", "decoder", "deberta", "grouped", "language model"])
def test_options_never_pack_a_weight_again(packs, kind):
    make, call = MODULES[kind]
    module = make()
    call(module)
    count = packs.count
    for path in modules_of(module):
        part = at(module, path)
        if isinstance(part, nn.LayerNorm):
            part.eps = 0.5
        if isinstance(part, nn.MultiheadAttention):
            part.scale, part.softcap, part.window_size = 0.3, 3.0, (3, 0)
            part.masked_row = "nan"
        if hasattr(part, "norm_first"):
            part.norm_first, part.activation, part.alpha, part.residual = True, "tanh", 2.0, False
    call(module)
    assert packs.count == count


def test_the_first_call_of_sixteen_threads_packs_once(packs):
    module, results = encoder(), [None] * 16
    start = threading.Barrier(16)

    def first(i):
        start.wait()
        results[i] = on_rows(module)

    threads = [threading.Thread(target=first, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert packs.count == 2 * 4  # in_proj, out_proj, linear1 and linear2 of two layers
    for result in results:
        assert_same_bits(result, results[0])


def test_settings_made_during_other_threads_calls_take_effect():
    module = encoder()
    stop = threading.Event()

    def call():
        while not stop.is_set():
            on_rows(module)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(50):
        module.layers[0].norm1.eps = 0.01 * (i + 1)
        module.layers[1].linear1.weight = module.layers[1].linear1.weight * np.float32(0.99)
        module.norm = None if i % 2 else nn.RMSNorm(SIZE)
    stop.set()
    for thread in threads:
        thread.join()
    fresh = encoder()
    fresh.norm = None
    fresh.load_state_dict(module.state_dict())
    fresh.layers[0].norm1.eps = module.layers[0].norm1.eps
    assert_same_bits(on_rows(module), on_rows(fresh))


def test_a_copy_is_independent():
    module = encoder()
    before = on_rows(module)
    other = copy.deepcopy(module)
    other.layers[1].norm2.eps = 0.5
    other.layers[0].linear2.weight = other.layers[0].linear2.weight * np.float32(2)
    assert np.abs(on_rows(other) - before).max() > 0.01
    assert_same_bits(on_rows(module), before)


def test_a_copy_packs_nothing_that_was_packed(packs):
    module = encoder()
    on_rows(module)
    count = packs.count
    on_rows(copy.deepcopy(module))
    assert packs.count == count


def test_a_module_in_a_list_can_be_replaced():
    module = encoder()
    on_rows(module)
    other = encoder().layers[0]
    module.layers[1] = other
    first = nn.TransformerEncoder([module.layers[0], other], 2, module.norm)
    assert_same_bits(on_rows(module), on_rows(first))


def test_a_module_that_is_set_to_none_has_no_parameters():
    module = encoder()
    module.norm = None
    assert not [key for key in module.state_dict() if key.startswith("norm.")]
