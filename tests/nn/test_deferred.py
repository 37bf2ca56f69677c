"""Parameters that are not arrays: built empty, read on demand, and freed after packing."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from simdformer import nn
from simdformer.nn import initialization
from simdformer.nn.parameters import Empty, Stored
from tests.nn.test_changes import MODULES
from tests.support import assert_same_bits, normal

SIZE = 16


class File:
    """A checkpoint that counts reads and can be closed."""

    def __init__(self, tensors):
        self.tensors = tensors
        self.reads = []

    def stored(self):
        return {
            name: Stored(x.shape, lambda n=name: self.read(n)) for name, x in self.tensors.items()
        }

    def read(self, name):
        assert self.tensors is not None, f"{name} is read after the file was closed"
        self.reads.append(name)
        return self.tensors[name].copy()

    def close(self):
        self.tensors = None


def counters(state):
    return {name: value for name, value in state.items() if value.dtype != np.float32}


def deferred(make):
    """A module without numbers, one with numbers, and a file of these."""
    with_numbers = make()
    with initialization.deferred():
        empty = make()
    state = with_numbers.state_dict()
    file = File({k: np.array(v) for k, v in state.items() if k not in counters(state)})
    return empty, with_numbers, file


def load(module, file):
    keys = module.load_state_dict({**file.stored(), **counters(numbers_of(module))}, strict=False)
    assert not keys.unexpected_keys
    return module


def numbers_of(module):
    """The numbers that a module built without numbers has."""
    return {
        n: o._parameters[k]
        for n, o, k in module._owners()
        if not isinstance(o._parameters[k], Empty)
    }


@pytest.mark.parametrize("kind", MODULES)
def test_stored_parameters_give_the_bits_of_arrays(kind):
    make, call = MODULES[kind]
    empty, expected, file = deferred(make)
    assert_same_bits(call(load(empty, file)), call(expected))


@pytest.mark.parametrize("kind", MODULES)
def test_each_tensor_is_read_once_and_the_file_may_be_closed(kind):
    make, call = MODULES[kind]
    empty, expected, file = deferred(make)
    load(empty, file).pack()
    file.close()
    matrices = [
        n for n in file.reads if "position." not in n
    ]  # tables are computed from them on demand
    assert len(matrices) == len(set(matrices))
    assert_same_bits(call(empty), call(expected))


@pytest.mark.parametrize("kind", MODULES)
def test_parameters_are_unpacked_to_the_bit(kind):
    make, call = MODULES[kind]
    empty, expected, file = deferred(make)
    load(empty, file).pack()
    file.close()
    call(empty)
    found, numbers = empty.state_dict(), expected.state_dict()
    assert list(found) == list(numbers)
    for name, value in numbers.items():
        np.testing.assert_array_equal(found[name], value)
        assert not found[name].flags.writeable


def test_a_module_without_numbers_says_so():
    with initialization.deferred():
        layer = nn.TransformerEncoderLayer(SIZE, 4, 32)
    for use in (layer.state_dict, layer.pack, lambda: layer.linear1.weight):
        with pytest.raises(ValueError, match=r"of .* was built without values; load a state_dict"):
            use()
    assert [name for name, *_ in layer._owners()] == list(
        nn.TransformerEncoderLayer(SIZE, 4, 32).state_dict()
    )
    with pytest.raises(ValueError, match=r"missing keys: self_attn\.in_proj_weight"):
        layer.load_state_dict({})


def test_only_what_is_built_in_the_block_is_without_numbers():
    with initialization.deferred():
        pass
    assert nn.Linear(2, 2).weight.shape == (2, 2)


def test_a_stored_tensor_of_another_shape_is_named():
    linear = nn.Linear(3, 2)
    stored = Stored((2, 4), lambda: np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match=r"weight has shape \(2, 4\), the module needs \(2, 3\)"):
        linear.load_state_dict({"weight": stored, "bias": np.zeros(2)})
    linear.weight = Stored((2, 3), lambda: np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match=r"shape \(2, 3\) was read with shape \(2, 4\)"):
        linear.pack()


def packed_encoder():
    empty, expected, file = deferred(MODULES["encoder"][0])
    load(empty, file).pack()
    file.close()
    return empty, expected


def test_packed_weights_are_in_memory_once():
    module, _ = packed_encoder()
    for name, owner, key in module._owners():
        if key in owner.matrix_names:
            assert owner._parameters[key].is_packed, name


def test_arrays_set_by_the_user_stay_arrays():
    module = MODULES["encoder"][0]()
    weight = module.layers[0].linear1.weight
    MODULES["encoder"][1](module)
    assert module.layers[0].linear1.weight is weight


def test_a_copy_of_packed_weights_is_independent():
    call = MODULES["encoder"][1]
    module, expected = packed_encoder()
    before = call(module)
    other = copy.deepcopy(module)
    other.layers[0].linear1.bias = other.layers[0].linear1.bias + np.float32(1)
    other.layers[1].self_attn.in_proj_weight = other.layers[1].self_attn.in_proj_weight * 2
    assert np.abs(call(other) - before).max() > 0.01
    assert_same_bits(call(module), call(expected))


def test_packed_weights_are_pickled():
    call = MODULES["encoder"][1]
    module, expected = packed_encoder()
    again = pickle.loads(pickle.dumps(module))
    assert_same_bits(call(again), call(expected))
    for name, value in expected.state_dict().items():
        assert_same_bits(again.state_dict()[name], value)


def test_heads_of_packed_weights_are_pruned():
    call = MODULES["encoder"][1]
    module, expected = packed_encoder()
    for each in (module, expected):
        each.layers[0].self_attn.prune_heads([1, 2])
    assert_same_bits(call(module), call(expected))


def test_weights_are_unpacked_before_they_are_packed_again():
    call = MODULES["encoder"][1]
    module, expected = packed_encoder()
    for each in (module, expected):
        each.layers[0].self_attn.in_proj_bias = each.layers[0].self_attn.in_proj_bias + np.float32(
            1
        )
        each.layers[0].linear2.bias = normal(np.random.default_rng(0), SIZE)
    assert_same_bits(call(module), call(expected))


def test_a_tied_embedding_is_stored_once_and_used_twice():
    empty, expected, file = deferred(MODULES["tied language model"][0])
    load(empty, file).pack()
    file.close()
    assert file.reads.count("embedding.weight") == 1
    ids, offsets = np.arange(6), [0, 6]
    assert_same_bits(empty(ids, offsets), expected(ids, offsets))


def test_a_file_is_loaded_tensor_by_tensor(tmp_path):
    from safetensors.numpy import save_file

    module, other = MODULES["encoder"][0](), MODULES["encoder"][0]()
    save_file({k: np.array(v) for k, v in module.state_dict().items()}, tmp_path / "w.safetensors")
    with initialization.deferred():
        empty = MODULES["encoder"][0]()
    call = MODULES["encoder"][1]
    for target in (other, empty):
        target.load_state_dict(tmp_path / "w.safetensors")
        assert_same_bits(call(target), call(module))
