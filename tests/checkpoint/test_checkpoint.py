"""Reading weights: tensors are read as they were written, in every layout in use, and errors name what is
damaged. PyTorch's files are tested in test_torch.py."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.tensor_file import TensorFile
from simdformer.checkpoint.weights import Weights
from tests.support import torch_files
from tests.support.model_fixtures import write_files

rng = np.random.default_rng(5)
TENSORS = {
    "a.weight": rng.standard_normal((3, 5)).astype(np.float32),
    "b": rng.standard_normal(7).astype(np.float32),
}


def write_raw(path, header, body=b""):
    """A safetensors file with an arbitrary header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def test_tensors_are_read_as_they_were_written(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    with Checkpoint(tmp_path) as checkpoint:
        assert sorted(checkpoint.names()) == sorted(TENSORS)
        for name, tensor in TENSORS.items():
            assert checkpoint.read(name).dtype == np.float32
            np.testing.assert_array_equal(checkpoint.read(name), tensor)


def test_arrays_outlive_the_checkpoint(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    with Checkpoint(tmp_path) as checkpoint:
        b = checkpoint.read("b")
    (tmp_path / "model.safetensors").write_bytes(b"")
    np.testing.assert_array_equal(b, TENSORS["b"])


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_become_float32(tmp_path, dtype):
    tensor = TENSORS["a.weight"].astype(dtype)
    save_file({"a": tensor}, tmp_path / "model.safetensors")
    with Checkpoint(tmp_path) as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("a"), tensor.astype(np.float32))


def test_bfloat16_becomes_float32(tmp_path):
    bits = np.array([0x3F80, 0xC000, 0x0001, 0x7F7F], np.uint16)  # 1, -2, a denormal, the largest
    header = {"x": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}
    write_raw(tmp_path / "model.safetensors", header, bits.tobytes())
    with Checkpoint(tmp_path) as checkpoint:
        expected = np.array([[1, -2], [2.0**-133, (2 - 2**-7) * 2.0**127]], np.float32)
        np.testing.assert_array_equal(checkpoint.read("x"), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_are_those_of_the_whole_tensor(tmp_path, dtype):
    whole = np.arange(60).reshape(5, 4, 3).astype(dtype)
    save_file({"a": np.zeros(7, dtype), "b": whole}, tmp_path / "model.safetensors")
    with Checkpoint(tmp_path) as checkpoint:
        rows = checkpoint.read_rows("b", [4, 0, 4])
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, whole[[4, 0, 4]])


def test_a_range_of_rows_is_read_at_once(tmp_path, monkeypatch):
    whole = np.arange(60, dtype=np.float32).reshape(5, 4, 3)
    save_file({"a": np.zeros(7, np.float32), "b": whole}, tmp_path / "model.safetensors")
    with Checkpoint(tmp_path) as checkpoint:
        reads, read_into = [], TensorFile.read_into
        monkeypatch.setattr(
            TensorFile, "read_into", lambda *args: reads.append(1) or read_into(*args)
        )
        rows = checkpoint.read_rows("b", range(1, 4))
    np.testing.assert_array_equal(rows, whole[1:4])
    assert len(reads) == 1


def test_rows_that_are_not_adjacent_in_the_file_are_read(tmp_path):
    numbers = np.arange(6, dtype=np.float32)
    pickled = torch_files.state_dict(
        {"a": torch_files.tensor((3, 2), (1, 3))}
    )  # of a matrix (2, 3)
    torch_files.write_archive(tmp_path / "pytorch_model.bin", pickled, [numbers.tobytes()])
    with Checkpoint(tmp_path) as checkpoint:
        rows = checkpoint.read_rows("a", [2, 1])
    np.testing.assert_array_equal(rows, numbers.reshape(2, 3).T[[2, 1]])


def test_rows_of_integers_are_refused(tmp_path):
    save_file({"a": np.zeros((3, 2), np.int32)}, tmp_path / "model.safetensors")
    with (
        Checkpoint(tmp_path) as checkpoint,
        pytest.raises(ValueError, match=r"tensor 'a' in .* has dtype I32"),
    ):
        checkpoint.read_rows("a", [1])


def test_the_names_of_tensorflow_layer_norms_are_understood(tmp_path):
    save_file({"x.LayerNorm.gamma": TENSORS["b"]}, tmp_path / "model.safetensors")
    with Checkpoint(tmp_path) as checkpoint:
        assert checkpoint.names() == ["x.LayerNorm.weight"]


def write_shards(folder, **changes):
    for i, (name, tensor) in enumerate(TENSORS.items()):
        save_file({name: tensor}, folder / f"model-{i}.safetensors")
    weight_map = {name: f"model-{i}.safetensors" for i, name in enumerate(TENSORS)} | changes
    write_files(folder, {"model.safetensors.index.json": {"weight_map": weight_map}})


def test_shards_are_read_through_their_index(tmp_path):
    write_shards(tmp_path)
    with Checkpoint(tmp_path) as checkpoint:
        for name, tensor in TENSORS.items():
            np.testing.assert_array_equal(checkpoint.read(name), tensor)


@pytest.mark.parametrize(
    "shard", ["../model-0.safetensors", "/etc/x.safetensors", "a/b.safetensors", "a\\b.safetensors"]
)
def test_a_shard_name_with_a_path_separator_is_refused(tmp_path, shard):
    write_shards(tmp_path, b=shard)
    with pytest.raises(ValueError, match=r"index\.json: shard names must be plain file names, got"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("shard", [7, None, "..", "", "pytorch_model.bin"])
def test_a_shard_that_is_not_a_safetensors_file_name_is_refused(tmp_path, shard):
    write_shards(tmp_path, b=shard)
    with pytest.raises(ValueError, match=r"index\.json: shard"):
        Checkpoint(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    write_shards(tmp_path)
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"names the shard 'model-1\.safetensors'"):
        Checkpoint(tmp_path)


def test_a_tensor_that_its_shard_lacks_is_named(tmp_path):
    write_shards(tmp_path, c="model-1.safetensors")
    with pytest.raises(ValueError, match=r"places tensor 'c' in 'model-1\.safetensors'"):
        Checkpoint(tmp_path)


def test_an_index_without_a_weight_map_is_refused(tmp_path):
    write_files(tmp_path, {"model.safetensors.index.json": {"weight_map": []}})
    with pytest.raises(ValueError, match="'weight_map' must map tensor names"):
        Checkpoint(tmp_path)


def test_no_weights_at_all_is_a_file_not_found(tmp_path):
    names = r"no model\.safetensors, .*, pytorch_model\.bin or pytorch_model\.bin\.index\.json in "
    with pytest.raises(FileNotFoundError, match=names):
        Checkpoint(tmp_path)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    whole = path.read_bytes()
    for length in [*range(40), len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"model\.safetensors: not a valid safetensors file"):
            Checkpoint(tmp_path)


def entry(shape, offsets, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "header",
    [
        {"x": entry([2], [0, 4])},
        {"x": entry([2**62, 2**62], [0, 8])},
        {"x": entry([-1], [0, 8])},
        {"x": entry([2], [4, 12])},
        {"x": entry([2], [0, 8]), "y": entry([2], [0, 8])},
        {"x": entry([1], [0, 4])},
        {"x": entry([2], [0, 8], "F33")},
        {"x": {}},
        [],
        b"{",
        b"\xff\xfe",
    ],
    ids=lambda header: str(header)[:50],
)
def test_a_false_header_is_refused(tmp_path, header):
    write_raw(tmp_path / "model.safetensors", header, bytes(8))
    with pytest.raises(ValueError, match=r"model\.safetensors: not a valid safetensors file"):
        Checkpoint(tmp_path)


def test_a_header_length_beyond_the_file_is_refused_without_allocating_it(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(ValueError, match="not a valid safetensors file"):
        Checkpoint(tmp_path)


def test_a_file_that_shrinks_while_it_is_open_is_an_exception(tmp_path):
    # With a memory map this would be SIGBUS.
    path = tmp_path / "model.safetensors"
    save_file({"x": np.ones(100_000, np.float32)}, path)
    with Checkpoint(tmp_path) as checkpoint:
        with path.open("r+b") as file:
            file.truncate(5000)
        with pytest.raises(ValueError, match="truncated while it was being read"):
            checkpoint.read("x")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, value):
    tensor = np.ones((50, 3), np.float32)
    tensor[7, 1] = value
    save_file({"layer.weight": tensor}, tmp_path / "model.safetensors")
    with (
        Checkpoint(tmp_path) as checkpoint,
        pytest.raises(
            ValueError, match=r"tensor 'layer\.weight' in .* holds 1 values that are NaN"
        ),
    ):
        checkpoint.read("layer.weight")


def test_finite_weights_whose_sum_overflows_are_accepted(tmp_path):
    tensor = np.full(1000, 3e38, np.float32)
    save_file({"x": tensor}, tmp_path / "model.safetensors")
    with Checkpoint(tmp_path) as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("x"), tensor)


def test_integers_are_not_weights(tmp_path):
    save_file({"x": np.arange(3)}, tmp_path / "model.safetensors")
    with (
        Checkpoint(tmp_path) as checkpoint,
        pytest.raises(ValueError, match=r"tensor 'x' in .* has dtype I64; weights must be one of"),
    ):
        checkpoint.read("x")


SIZES = {"rows": 3, "columns": 5, "width": 7}


@pytest.fixture
def checkpoint(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    with Checkpoint(tmp_path) as checkpoint:
        yield checkpoint


def test_a_tensor_of_the_configured_shape_is_returned(checkpoint):
    weights = Weights(checkpoint, SIZES)
    np.testing.assert_array_equal(weights("a.weight", "rows", "columns"), TENSORS["a.weight"])


def test_a_misshapen_tensor_is_named_with_both_shapes_and_the_fields(checkpoint):
    with pytest.raises(ValueError) as error:  # noqa: PT011  (the whole message is compared)
        Weights(checkpoint, SIZES)("a.weight", "rows", "width")
    assert str(error.value) == (
        "tensor 'a.weight' in model.safetensors has shape (3, 5);"
        " config.json (rows=3, width=7) needs (3, 7)"
    )


def test_a_missing_tensor_is_named_with_its_shape(checkpoint):
    with pytest.raises(
        ValueError, match=r"'c' is missing .* \(width=7\) needs it with shape \(7,\)"
    ):
        Weights(checkpoint, SIZES)("c", "width")


def test_unused_tensors_are_named(checkpoint):
    weights = Weights(checkpoint, SIZES)
    weights("b", "width")
    with pytest.raises(
        ValueError, match=r"1 tensors that do not belong to the model in config\.json: 'a\.wei"
    ):
        weights.refuse_unread(())
    weights.refuse_unread(["a."])


def test_a_prefix_of_all_names_is_dropped(tmp_path):
    save_file(
        {f"bert.{name}": tensor for name, tensor in TENSORS.items()}, tmp_path / "model.safetensors"
    )
    with Checkpoint(tmp_path) as checkpoint:
        weights = Weights(checkpoint, SIZES, prefixes=("bert.",))
        np.testing.assert_array_equal(weights("b", "width"), TENSORS["b"])
        weights.refuse_unread(["a."])


def test_a_file_of_the_real_library_is_read_the_same_by_both(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path, metadata={"format": "pt"})
    theirs = load_file(path)
    with Checkpoint(tmp_path) as checkpoint:
        assert set(theirs) == set(checkpoint.names())
        for name, tensor in theirs.items():
            np.testing.assert_array_equal(checkpoint.read(name), tensor)
