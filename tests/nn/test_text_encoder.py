"""nn.TextEncoder: token ids through embeddings, layers and a final norm."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest

from simdformer import _core, nn
from simdformer.generation import generate
from simdformer.nn import initialization
from simdformer.nn.parameters import Stored
from tests.support import assert_same_bits, normal

E, H, F, VOCAB, LONGEST = 16, 2, 32, 50, 20
CU = [0, 5, 12]


@pytest.fixture
def ids(rng):
    return rng.integers(0, VOCAB, CU[-1])


def layer(**options):
    return nn.TransformerEncoderLayer(E, H, F, **options)


def bert(padding_idx=None):
    embeddings = nn.TextEmbeddings(VOCAB, E, LONGEST, 2, nn.LayerNorm(E), padding_idx)
    return nn.TextEncoder(embeddings, [layer() for _ in range(3)], nn.LayerNorm(E))


def test_it_equals_its_parts_applied_in_order(ids):
    model, types = bert(), np.arange(CU[-1]) % 2
    positions = np.concatenate([np.arange(5), np.arange(7)])
    parts = model.embeddings
    x = parts.word_embeddings(ids) + parts.position_embeddings(positions)
    x = parts.norm(x + parts.token_type_embeddings(types))
    for each in model.layers:
        x = each(x, cu_seqlens=CU)
    np.testing.assert_allclose(model(ids, CU, types), model.norm(x), rtol=1e-5, atol=1e-5)


def test_the_table_of_positions_limits_a_sequence():
    assert bert().max_positions == LONGEST
    assert bert(padding_idx=1).max_positions == LONGEST - 2
    with pytest.raises(ValueError, match="sequence 0 has 21 tokens, the model serves 20 positions"):
        bert()(np.zeros(21, np.int32), [0, 21])
    with pytest.raises(IndexError, match=r"input_ids\[1\] is 50"):
        bert()([1, VOCAB], [0, 2])


def test_cached_tokens_have_the_bits_of_one_call(ids):
    rotary = nn.RotaryEmbedding(E // H)
    layers = [layer(position=rotary, window_size=(-1, 0)) for _ in range(3)]
    model, cache = nn.TextEncoder(nn.TextEmbeddings(VOCAB, E), layers), nn.DecoderCache(1)
    steps = [model(ids[i : i + 4], [0, 4], cache=cache) for i in (0, 4, 8)]
    assert_same_bits(np.concatenate(steps), model(ids, [0, 12]))
    assert model.max_positions == 0


def test_stored_tables_are_read_once_and_then_out_of_the_packed_form():
    read = []

    def numbers(name, shape):
        read.append(name)
        return np.full(shape, len(read), np.float32)

    with initialization.deferred():
        model = bert()
    shapes = {n: value.shape for n, value in bert().named_parameters()}
    model.load_state_dict({n: Stored(s, partial(numbers, n, s)) for n, s in shapes.items()})
    model.pack()
    assert sorted(read) == sorted(shapes)
    words = model.embeddings.word_embeddings.weight
    assert words.shape == (VOCAB, E)
    assert not words.flags.writeable
    assert np.shares_memory(words, model.embeddings.native().word())
    assert len(read) == len(shapes)


@pytest.mark.parametrize("compute_type", ["bfloat16", "int8"])
def test_it_runs_in_each_compute_type_and_keeps_its_tables(ids, compute_type):
    model = bert()
    exact, words = model(ids, CU), model.embeddings.word_embeddings.weight
    found = model.to_compute_type(compute_type)(ids, CU)
    assert 0 < np.abs(found - exact).max() < 0.2
    assert_same_bits(model.embeddings.word_embeddings.weight, words)


def test_repr_shows_the_structure():
    text = repr(bert())
    assert "(word_embeddings): Embedding(weight=(50, 16))" in text
    assert "(0-2): 3 x TransformerEncoderLayer(" in text
    assert "(out_proj): Linear(weight=(16, 16), bias=(16,))" in text


def test_layers_of_another_class_are_refused():
    embeddings = nn.TextEmbeddings(VOCAB, E)
    with pytest.raises(TypeError, match="takes TransformerEncoderLayers, got Linear"):
        nn.TextEncoder(embeddings, [nn.Linear(E, E)])
    with pytest.raises(ValueError, match="must have d_model 16, the embeddings' features, got 8"):
        nn.TextEncoder(embeddings, [nn.TransformerEncoderLayer(8, H, F)])


def test_native_tables_are_none_where_there_are_none():
    native = _core.Embeddings(np.ones((3, 4), np.float32))
    assert native.position() is None
    assert native.token_type() is None
    assert_same_bits(native.word(), np.ones((3, 4), np.float32))


def causal():
    rotary = nn.RotaryEmbedding(E // H, max_positions=LONGEST)
    shared = {"position": rotary, "norm": "rms", "norm_first": True, "activation": "swiglu"}
    layers = [layer(qk_norm=nn.RMSNorm(E // H), **shared) for _ in range(2)]
    return nn.TextEncoder(nn.TextEmbeddings(VOCAB, E), layers, nn.RMSNorm(E))


@pytest.mark.parametrize("lm_head", [None, nn.Linear(E, VOCAB, bias=False)])
def test_a_language_model_of_a_text_encoder_is_that_of_its_parts(ids, lm_head):
    encoder = causal()
    parts = nn.LanguageModel(
        encoder.embeddings.word_embeddings,
        nn.TransformerEncoder(list(encoder.layers), 2, encoder.norm),
        lm_head=lm_head,
    )
    model = nn.LanguageModel(encoder, lm_head=lm_head)
    assert model.vocab_size == VOCAB
    assert_same_bits(model(ids, CU), parts(ids, CU))
    assert_same_bits(model(ids, CU, last_only=True), parts(ids, CU)[[4, 11]])


@pytest.mark.parametrize("padding_idx", [None, 1])
@pytest.mark.usefixtures("active_isa")
def test_rows_looked_up_in_a_heads_panels_have_the_tables_bits(rng, padding_idx):
    """For all ids, so in whole panels and in the last one."""
    for vocab in (3, 50, 97):
        tables = [normal(rng, rows, E) for rows in (vocab, vocab + 3, 2)]
        ids, types = np.arange(vocab, dtype=np.int32), np.arange(vocab, dtype=np.int32) % 2
        rows = [
            _core.TransformerStack(
                [], None, _core.Embeddings(word, *tables[1:], padding_idx=padding_idx)
            ).encode(ids, np.array([0, vocab], np.int32), types)
            for word in (tables[0], _core.Linear(tables[0]))
        ]
        assert_same_bits(*rows)


def test_a_tied_head_and_the_embeddings_are_one_packed_matrix(ids):
    encoder = causal()
    before, table = encoder(ids, CU), encoder.embeddings.word_embeddings.weight
    place = Stored.of(table, "float32")
    encoder.embeddings.word_embeddings.put("weight", place)
    head = nn.Linear(E, VOCAB, bias=False)
    head.weight = table
    expected = nn.LanguageModel(copy.deepcopy(encoder), lm_head=head)(ids, CU)
    model = nn.LanguageModel(encoder)
    assert_same_bits(model(ids, CU), expected)
    assert encoder.embeddings.native().word() is None
    assert place.is_packed
    assert_same_bits(encoder.embeddings.word_embeddings.weight, table)
    assert_same_bits(encoder(ids, CU), before)


@pytest.mark.parametrize("compute_type", ["bfloat16", "int8"])
def test_a_tied_head_of_another_type_leaves_the_table_as_it_is(ids, compute_type):
    model = nn.LanguageModel(causal())
    table = model.stack.embeddings.word_embeddings.weight
    before = model(ids, CU)
    model.to_compute_type(compute_type)
    assert 0 < np.abs(model(ids, CU) - before).max() < 0.1 * np.abs(before).max()
    assert_same_bits(model.stack.embeddings.native().word(), table)


def test_word_embeddings_must_be_in_float32():
    head = _core.Linear.in_bfloat16(np.ones((3, 4), np.float32))
    with pytest.raises(ValueError, match="must be in float32"):
        _core.Embeddings(head)


@pytest.mark.parametrize("compute_type", ["float32", "bfloat16", "int8"])
def test_generation_with_a_text_encoder_takes_the_tokens_of_whole_passes(compute_type):
    model = nn.LanguageModel(causal()).to_compute_type(compute_type)
    assert model.compute_type == compute_type
    (tokens,) = generate(model, [[3, 1, 4]], max_new_tokens=8)
    sequence = [3, 1, 4]
    for token in tokens:
        logits = model(np.array(sequence), [0, len(sequence)], last_only=True)
        assert token == logits[0].argmax()
        sequence.append(int(token))
    assert len(tokens) == 8


def test_a_sequence_longer_than_the_positions_is_refused():
    model = nn.LanguageModel(causal())
    with pytest.raises(ValueError, match="has 21 tokens, the model serves 20 positions"):
        model(np.zeros(21, np.int32), [0, 21])


def test_a_text_encoder_replaces_only_embedding_and_stack():
    with pytest.raises(ValueError, match="cannot be combined with a TextEncoder"):
        nn.LanguageModel(causal(), scale=2.0)
    with pytest.raises(ValueError, match="stack is required"):
        nn.LanguageModel(nn.Embedding(3, 4))
    with pytest.raises(ValueError, match="a TextEncoder attends to none"):
        nn.LanguageModel(causal())([1], [0, 1], memory=np.zeros((1, E), np.float32))


def test_layers_may_share_a_position():
    model = causal()
    model([1, 2], [0, 2])
    first, second = (each.self_attn for each in model.layers)
    assert first.position is second.position
    assert first._own_positions() is second._own_positions()
