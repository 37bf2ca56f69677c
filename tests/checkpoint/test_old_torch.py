"""Weights in files of PyTorch before 1.6. The pickles in them are not unpickled."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import SentenceTransformer
from simdformer.checkpoint import Checkpoint
from tests.support import assert_same_bits
from tests.support.tiny_models import BY_NAME
from tests.support.torch_files import (
    MAGIC,
    listed,
    machine,
    name,
    number,
    old_file,
    old_torch,
    state_dict,
    storage,
    tensor,
    text,
    tuple_of,
)

rng = np.random.default_rng(6)
TENSORS = {
    "a.weight": rng.standard_normal((3, 5)).astype(np.float32),
    "half": rng.standard_normal(7).astype(np.float16),
    "double": rng.standard_normal((2, 2)),
    "scalar": np.float32(2.5).reshape(()),
    "empty": np.empty((0, 4), np.float32),
}
SIX = np.arange(6, dtype=np.float32)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pytorch_model.bin"


def read_all(path):
    with Checkpoint(path) as checkpoint:
        return {key: checkpoint.read(key) for key in checkpoint.names()}


def refused(path, content, match):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=match) as error:
        read_all(path)
    assert str(path) in str(error.value)


def test_its_tensors_are_read(path):
    path.write_bytes(old_torch(TENSORS))
    found = read_all(path)
    assert found.keys() == TENSORS.keys()
    for key, array in TENSORS.items():
        assert_same_bits(found[key], array.astype(np.float32))


def test_views_of_a_shared_storage_are_read(path):
    stored = storage(more=(b"N",))
    items = {
        "whole": tensor(stored=stored),
        "second": tensor((3,), (1,), 3, stored=stored),
        "turned": tensor((3, 2), (1, 3), stored=stored),
    }
    path.write_bytes(old_file(state_dict(items), {"0": SIX}))
    found = read_all(path)
    assert_same_bits(found["whole"], SIX.reshape(2, 3))
    assert_same_bits(found["second"], SIX[3:])
    assert_same_bits(found["turned"], np.ascontiguousarray(SIX.reshape(2, 3).T))


def test_a_model_of_that_time_has_the_same_vectors(tmp_path):
    bert = BY_NAME["bert"]
    folder = bert.write(tmp_path / "m")
    expected = SentenceTransformer(folder).encode(["a cab", "deed"])
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(old_torch(bert.weights()))
    assert_same_bits(SentenceTransformer(folder).encode(["a cab", "deed"]), expected)


ITEM = {"a": tensor(stored=storage(more=(b"N",)))}
PICKLED = state_dict(ITEM)
VIEW = storage(more=(tuple_of(text("1"), number(0), number(6)),))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (MAGIC, "the pickle is cut short"),
        (
            old_file(PICKLED, {"0": SIX})[:-1],
            "storage '0' of 24 bytes ends after the end of the file",
        ),
        (old_file(PICKLED, {"0": SIX})[:-25], "storage '0' begins after the end of the file"),
        (old_file(PICKLED, {"0": SIX[:5]}), "6 numbers of 4 bytes in an entry of 20 bytes"),
        (old_file(PICKLED, {}), "storage '0' is not in the file"),
        (old_file(PICKLED, {"0": SIX}, keys=["0", "1"]), "lists storages that no tensor has"),
        (
            old_file(PICKLED, {"0": SIX}, version=b"\x80\x02M\xea\x03."),
            "version 1002 of the format",
        ),
        (old_file(PICKLED, {"0": SIX}, machine=machine(little=False)), "little-endian machine"),
        (old_file(PICKLED, {"0": SIX}, machine=listed(["x"])), "little-endian machine"),
        (old_file(listed(["x"]), {"0": SIX}), "it contains a list, not tensors by name"),
        (
            old_file(state_dict({"a": tensor(stored=VIEW)}), {"0": SIX}),
            "describes a storage in a way that torch.save does not",
        ),
        (
            old_file(state_dict({"a": name("os", "system")}), {"0": SIX}),
            "asks for 'os.system', which no dict of tensors needs",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_damaged_file_is_refused_with_the_reason(path, content, match):
    refused(path, content, match)


def test_a_size_beyond_all_memory_is_refused(path):
    whole = old_file(PICKLED, {"0": SIX})
    refused(
        path,
        whole[:-32] + (1 << 62).to_bytes(8, "little") + whole[-24:],
        "ends after the end of the file",
    )


@pytest.mark.parity
def test_torch_writes_such_files(path):
    torch = pytest.importorskip("torch")
    shared = torch.arange(6.0).reshape(2, 3)
    state = {"a": shared, "b": shared.t(), "c": torch.ones(2, dtype=torch.bfloat16)}
    torch.save(state, path, _use_new_zipfile_serialization=False)
    found = read_all(path)
    for key, value in state.items():
        assert_same_bits(found[key], value.float().contiguous().numpy())
    layer = torch.nn.Linear(3, 2)
    torch.save(layer.state_dict(), path, _use_new_zipfile_serialization=False)
    found = read_all(path)
    for key, value in layer.state_dict().items():
        assert_same_bits(found[key], value.numpy())
