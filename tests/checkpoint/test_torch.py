"""PyTorch's files: weights are read as they were written. All other contents are refused, and nothing in a
file is executed."""

from __future__ import annotations

import pickle
import pickletools
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.stored_zip import StoredZip
from simdformer.checkpoint.tensor_file import TensorFile
from simdformer.checkpoint.torch_pickle import read_state_dict
from tests.support import assert_same_bits
from tests.support.model_fixtures import write_files
from tests.support.torch_files import (
    call,
    name,
    number,
    ordered_dict,
    state_dict,
    storage,
    tensor,
    text,
    tuple_of,
    write_archive,
    write_torch,
)

rng = np.random.default_rng(6)
TENSORS = {
    "a.weight": rng.standard_normal((3, 5)).astype(np.float32),
    "b": rng.standard_normal(7).astype(np.float32),
    "scalar": np.float32(2.5).reshape(()),
    "empty": np.empty((0, 4), np.float32),
}
SIX = np.arange(6, dtype=np.float32)


def read_all(path):
    with Checkpoint(path) as checkpoint:
        return {key: checkpoint.read(key) for key in checkpoint.names()}


def assert_holds(path, tensors):
    found = read_all(path)
    assert found.keys() == tensors.keys()
    for key, array in tensors.items():
        assert_same_bits(found[key], array)


def refused(path, match):
    """Check that the error names the file and the reason."""
    with pytest.raises(ValueError, match=match) as error:
        Checkpoint(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pytorch_model.bin"


# Files that are read


def test_tensors_are_read_as_they_were_written(path):
    write_torch(path, TENSORS)
    assert_holds(path.parent, TENSORS)


@pytest.mark.parametrize("suffix", ["bin", "pt", "pth"])
def test_a_file_may_have_any_of_pytorchs_suffixes(tmp_path, suffix):
    assert_holds(write_torch(tmp_path / f"x.{suffix}", TENSORS), TENSORS)


def test_arrays_outlive_the_checkpoint(path):
    write_torch(path, TENSORS)
    found = read_all(path)["b"]
    path.write_bytes(b"")
    assert_same_bits(found, TENSORS["b"])


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_become_float32(path, dtype):
    array = TENSORS["a.weight"].astype(dtype)
    write_torch(path, {"a": array})
    assert_holds(path, {"a": array.astype(np.float32)})


def test_bfloat16_becomes_float32(path):
    bits = np.array([0x3F80, 0xC000, 0x0001, 0x7F7F], np.uint16)  # 1, -2, a denormal, the largest
    stored = storage("BFloat16", size=4)
    write_archive(path, state_dict({"x": tensor((4,), (1,), stored=stored)}), [bits.tobytes()])
    expected = np.array([1, -2, 2.0**-133, (2 - 2**-7) * 2.0**127], np.float32)
    assert_holds(path, {"x": expected})


def test_integers_are_refused_when_they_are_read(path):
    write_torch(path, {"embeddings.position_ids": np.arange(3), "b": TENSORS["b"]})
    with Checkpoint(path) as checkpoint:
        assert_same_bits(checkpoint.read("b"), TENSORS["b"])
        with pytest.raises(ValueError, match="has dtype I64; weights must be one of"):
            checkpoint.read("embeddings.position_ids")
        assert checkpoint.num_parameters() == 7


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (tensor((3,), (1,), offset=2), SIX[2:5]),
        (tensor((3, 2), (1, 3)), SIX.reshape(2, 3).T),
        (tensor((1, 3, 2), (17, 1, 3)), SIX.reshape(2, 3).T[None]),
        (tensor((6, 1), (1, 0)), SIX[:, None]),
        (tensor((2, 3, 1), (1, 2, 6)), SIX.reshape(1, 3, 2).transpose(2, 1, 0)),
        (tensor((), (), offset=5), SIX[5].reshape(())),
        (tensor((0, 9), (3, 1), offset=6), np.empty((0, 9), np.float32)),
        (call("torch._utils", "_rebuild_parameter", tensor(), b"\x88", ordered_dict()), SIX.reshape(2, 3)),
    ],
    ids=["offset", "transposed", "transposed and 1", "a column", "reversed", "scalar", "empty", "parameter"],
)  # fmt: skip
def test_views_of_a_storage_are_read_in_c_order(path, view, expected):
    write_archive(path, state_dict({"x": view}), [SIX.tobytes()])
    found = read_all(path)["x"]
    assert found.flags.c_contiguous
    assert_same_bits(found, expected.copy(order="C"))


def test_tied_weights_share_a_storage(path):
    # torch.save takes the storage from its memo the second time.
    first, second = storage() + b"q\x05", b"h\x05"
    items = {"a": tensor(stored=first), "b": tensor((6,), (1,), stored=second)}
    write_archive(path, state_dict(items), [SIX.tobytes()])
    assert_holds(path, {"a": SIX.reshape(2, 3), "b": SIX})


def test_the_metadata_of_a_state_dict_is_ignored(path):
    version = b"}" + text("version") + b"K\x01s"
    metadata = b"}" + text("_metadata") + ordered_dict() + text("") + version + b"ssb"
    write_torch(path, TENSORS, end=metadata + b".")
    assert_holds(path, TENSORS)


def test_files_of_before_2_1_have_no_byte_order(path):
    write_torch(path, TENSORS, order=None)
    assert_holds(path, TENSORS)


def test_a_file_may_have_been_saved_under_any_name(path):
    write_torch(path, TENSORS, folder="模型")
    assert_holds(path, TENSORS)


def test_the_names_of_tensorflow_layer_norms_are_understood(path):
    write_torch(path, {"x.LayerNorm.gamma": TENSORS["b"]})
    assert_holds(path, {"x.LayerNorm.weight": TENSORS["b"]})


def test_safetensors_come_first(path):
    path.write_bytes(b"no archive")
    save_file({"b": TENSORS["b"]}, path.with_name("model.safetensors"))
    assert_holds(path.parent, {"b": TENSORS["b"]})


def write_shards(folder, **changes):
    weight_map = {}
    for i, (key, array) in enumerate(TENSORS.items()):
        weight_map[key] = f"pytorch_model-{i}.bin"
        write_torch(folder / weight_map[key], {key: array})
    index = {"weight_map": weight_map | changes}
    write_files(folder, {"pytorch_model.bin.index.json": index})


def test_shards_are_read_through_their_index(tmp_path):
    write_shards(tmp_path)
    assert_holds(tmp_path, TENSORS)
    with Checkpoint(tmp_path) as checkpoint:
        assert {file.name for file in checkpoint.files()} == {
            f"pytorch_model-{i}.bin" for i in range(4)
        }


@pytest.mark.parametrize("shard", ["../pytorch_model-0.bin", "/etc/x.bin", "a\\b.bin", "x.pkl", 7])
def test_a_shard_elsewhere_or_of_another_kind_is_refused(tmp_path, shard):
    write_shards(tmp_path, b=shard)
    refused(tmp_path / "pytorch_model.bin.index.json", "shard")


# Pickles with other contents

ODD_CALLS = {
    "a tensor of nothing": call("torch._utils", "_rebuild_tensor_v2"),
    "a tensor of a string": call("torch._utils", "_rebuild_tensor_v2", *[text("x")] * 6),
    "a tensor of a tensor": tensor(stored=tensor()),
    "a parameter of a storage": call("torch._utils", "_rebuild_parameter", storage(), b"\x88", b"}"),
    "a parameter of itself": call("torch._utils", "_rebuild_parameter", name("torch._utils", "_rebuild_parameter"), b"\x88", b"}"),
    "a dict of pairs": call("collections", "OrderedDict", tuple_of(text("a"), text("b"))),
    "a storage that is called": name("torch", "FloatStorage") + b")R",
    "a tensor that is called": tensor() + b")R",
    "a tuple that is called": b"))R",
    "arguments that are no tuple": name("collections", "OrderedDict") + b"}R",
    "a storage of another kind": tuple_of(text("module"), *[text("x")] * 4) + b"Q",
    "a storage of a string": text("storage") + b"Q",
    "a storage without a type": tuple_of(text("storage"), *[text("x")] * 3, number(6)) + b"Q",
    "a storage of a negative size": storage(size=-1),
    "a storage of True numbers": storage(size=6).replace(number(6), b"\x88"),
    "attributes of a tensor": tensor() + b"}b",
    "attributes of a function": name("torch._utils", "_rebuild_tensor_v2") + b"}b",
    "attributes of a class": name("torch", "FloatStorage") + b"}b",
    "items of a tensor": tensor() + text("x") + b"Ns",
    "items by halves": b"}(" + text("x") + b"u",
}  # fmt: skip


@pytest.mark.parametrize("value", ODD_CALLS.values(), ids=ODD_CALLS)
def test_what_torch_save_does_not_write_is_refused(path, value):
    write_archive(path, state_dict({"x": value}), [SIX.tobytes()])
    refused(path, "the pickle (describes|calls|fills|sets|puts)")


class Trap:
    """When unpickled, it executes its argument."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_pickle_is_executed(path, tmp_path, protocol):
    file = str(tmp_path / "executed")
    for trap in (Trap(open, file, "w"), Trap(eval, f"open({file!r}, 'w')"), Trap(exec, "1 / 0")):
        write_archive(path, pickle.dumps({"x": trap}, protocol))
        refused(path, "neither imported nor run|it is not run|a pickle of protocol")
    pickle.loads(pickle.dumps(Trap(open, file, "w"), protocol)).close()
    assert (tmp_path / "executed").exists()  # the trap works


@pytest.mark.parametrize(
    "function",
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("torch._utils", "_rebuild_tensor"),
        ("collections", "OrderedDict.fromkeys"),
        ("collections", "namedtuple"),
        ("numpy.core.multiarray", "scalar"),
    ],
    ids=".".join,
)
def test_a_name_that_tensors_do_not_need_is_neither_imported_nor_called(path, function):
    write_archive(path, state_dict({"x": call(*function, text("exit 1"))}))
    refused(path, f"the pickle asks for '{'.'.join(function)}'.*neither imported nor run")


KNOWN = b"\x80(N\x88\x89)}]aeGKMJ\x8aXqrhj\x85\x86\x87tsubcQR."


@pytest.mark.parametrize("code", sorted(set(range(256)) - set(KNOWN)))
def test_an_instruction_that_tensors_do_not_need_is_refused(path, code):
    write_archive(path, b"\x80\x02" + tensor() + bytes([code]) + b"1\n2\n" + bytes(99) + b".")
    refused(path, "the pickle has the instruction .* it is not run")


def test_every_instruction_that_is_run_is_one_of_pickles():
    assert {ord(code.code) for code in pickletools.opcodes} > set(KNOWN)


@pytest.mark.parametrize(
    ("pickled", "match"),
    [
        (b"", "cut short"),
        (b".", "takes a value where there is none"),
        (b"(N0.", "instruction b'0'"),
        (b"}(\x85.", "takes a value where there is none"),
        (b"t.", "takes a mark where there is none"),
        (b"h\x07.", "takes a value 7 that it did not keep"),
        (b"q\x00.", "takes a value where there is none"),
        (b"\x80\x05N.", "a pickle of protocol 5"),
        (b"N.", "it contains a NoneType, not tensors by name"),
        (b"K\x01.", "it contains a int, not tensors by name"),
        (tensor() + b".", "it contains a StoredTensor, not tensors by name"),
        (state_dict({"epoch": b"K\x01"}), "'epoch' is a int, not a tensor"),
        (state_dict({"state_dict": b"}"}), "'state_dict' is a dict, not a tensor"),
        (b"X\x03\x00\x00\x00\xff\xfe\xfd.", "not UTF-8"),
        (b"X\xff\xff\xff\xff.", "a name of 4294967295 bytes"),
        (b"cos", "a name without an end"),
        (b"cos\nsystem", "a name without an end"),
        (b"c" + b"x" * 2000 + b"\nx\n.", "a name without an end"),
        (b"\x8a\xff\x01.", "cut short"),
        # Deep nesting would end the process if the value were hashed, compared or printed.
        (b")" + b"\x85" * 300_000 + b".", "it contains a tuple"),
        (b"})" + b"\x85" * 300_000 + b"Ns.", "a tuple as its key"),
        (b")" + b"\x85" * 300_000 + b"Q", "describes a storage"),
        (b"(" * 300_000, "cut short"),
        (b"}q\x00" + text("x") + b"h\x00s.", "'x' is a dict"),  # the dict contains itself
    ],
    ids=lambda value: str(value)[:24],
)
def test_an_invalid_pickle_is_refused(path, pickled, match):
    write_archive(path, pickled)
    refused(path, match)


@pytest.mark.parametrize("piece", [b"}", b"(", b")", b"(t", b")\x85", b"K\x01q\x00", b"X\0\0\0\0"])
def test_a_pickles_memory_is_bounded_by_its_size(piece):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="cut short"):
            read_state_dict(piece * (50_000 // len(piece)))
        assert tracemalloc.get_traced_memory()[1] < 100 * 50_000
    finally:
        tracemalloc.stop()


def test_a_pickle_of_many_megabytes_is_not_read(path):
    write_archive(path, b"}" * (5 << 20))
    refused(path, "data.pkl has 5242880 bytes")


# False shapes and storages


@pytest.mark.parametrize(
    ("lie", "match"),
    [
        (tensor((2, 4), (4, 1)), r"tensor 'x': shape \(2, 4\) from number 0 on, in a storage of 6"),
        (tensor(offset=1), "from number 1 on, in a storage of 6"),
        (tensor(offset=-1), "describes a tensor"),
        (tensor(offset=2**80), "describes a tensor"),
        (tensor((-2, 3)), "describes a tensor"),
        (tensor((2, 3), (-3, 1)), "describes a tensor"),
        (tensor((2, 3), (3,)), "describes a tensor"),
        (tensor((1,) * 33, (1,) * 33), "describes a tensor"),
        (tensor((2**62, 2**62), (2**62, 1)), "in a storage of 6"),
        (tensor((2**60,), (0,)), "has gaps or overlaps"),
        (tensor((2, 2), (3, 1)), r"strides \(3, 1\) has gaps or overlaps"),
        (tensor((3,), (2,)), "has gaps or overlaps"),
        (tensor((2, 2), (1, 1)), "has gaps or overlaps"),
        (tensor((0, 2**62, 2**62), (1, 1, 1)), "is too large"),
        (tensor((0,), (1,), offset=7), "from number 7 on"),
        (tensor(stored=storage(size=7)), "7 numbers of 4 bytes in an entry of 24 bytes"),
        (tensor(stored=storage("Double")), "6 numbers of 8 bytes in an entry of 24 bytes"),
        (tensor(stored=storage(size=2**62)), "in an entry of 24 bytes"),
        (tensor(stored=storage(key="1")), "has no entry 'pytorch_model/data/1'"),
        (tensor(stored=storage(key="../data.pkl")), "has no entry"),
        (tensor(stored=storage("ComplexFloat")), "asks for 'torch.ComplexFloatStorage'"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_a_tensor_that_its_storage_cannot_hold_is_refused(path, lie, match):
    write_archive(path, state_dict({"x": lie}), [SIX.tobytes()])
    refused(path, match)


def test_a_storage_that_more_tensors_share_than_any_model_has_is_refused(path):
    items = {f"layer.{i}": b"h\x05" for i in range(10_000)}
    pickled = state_dict(
        {"layer": tensor((10_000,), (1,), stored=storage(size=10_000)) + b"q\x05"} | items
    )
    write_archive(path, pickled, [bytes(40_000)])
    refused(path, "10001 tensors of 400040000 bytes share the few in the file")


# Damaged archives


@pytest.mark.parametrize(
    "content", [b"", b"PK\5\6", b"x" * 100, pickle.dumps({}), b"PK\5\6" + bytes(18)]
)
def test_a_file_that_is_not_an_archive_is_refused(path, content):
    path.write_bytes(content)
    refused(path, "not a zip archive, or cut short|0 entries called data.pkl")


@pytest.mark.parametrize("order", [b"big", b"", b"l" * 100, b"\xff"])
def test_another_byte_order_is_refused(path, order):
    write_torch(path, TENSORS, order=order)
    refused(path, "its byte order is .*, not 'little'")


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_archive_is_refused(path, compression):
    write_torch(path, {"x": np.zeros(10_000, np.float32)}, compression=compression)
    refused(path, "is compressed")


def test_two_pickles_are_refused(path):
    write_torch(path, TENSORS)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/data.pkl", state_dict({}))
    refused(path, "2 entries called data.pkl")


def test_a_file_cut_anywhere_is_refused(path):
    write_torch(path, TENSORS)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refused(path, "not a supported PyTorch checkpoint")


@pytest.mark.parametrize(
    "bits", [0xFF, *(pytest.param(bit, marks=pytest.mark.slow) for bit in (0x01, 0x80))]
)
def test_a_file_with_any_byte_changed_is_read_or_refused(path, bits):
    write_torch(path, TENSORS)
    whole = path.read_bytes()
    refusals = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ bits]) + whole[at + 1 :])
        try:
            read_all(path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017  (many are read)
            refusals += 1
    assert refusals > len(whole) / 10


END = struct.Struct("<4s4H2LH")


@pytest.mark.parametrize(
    ("size", "offset", "match"),
    [
        (2**32 - 2, 0, "a directory of 4294967294 bytes"),
        (10**6, 0, "the directory ends beyond the file"),
        (46, 2**32 - 2, "the directory ends beyond the file"),
        (46, 0, "the directory is damaged"),
        (45, 0, "the directory is damaged"),
    ],
)
def test_a_false_zip_directory_is_refused(path, size, offset, match):
    write_torch(path, TENSORS)
    whole = path.read_bytes()[: -END.size]
    path.write_bytes(whole + END.pack(b"PK\5\6", 0, 0, 1, 1, size, offset, 0))
    refused(path, match)


def test_an_entry_beyond_the_file_is_refused(path):
    write_torch(path, TENSORS)
    whole = bytearray(path.read_bytes())
    at = whole.rindex(b"PK\1\2")  # the last entry in the directory, "empty"
    whole[at + 20 : at + 28] = struct.pack("<LL", 2**31, 2**31)
    path.write_bytes(whole)
    refused(path, "the entry 'pytorch_model/data/3' ends beyond the file")
    whole[at + 42 : at + 46] = struct.pack("<L", 2**31)
    path.write_bytes(whole)
    refused(path, "the entry 'pytorch_model/data/3' lies beyond the file")
    whole[at + 42 : at + 46] = struct.pack("<L", 1)
    path.write_bytes(whole)
    refused(path, "the entry 'pytorch_model/data/3' is not where the directory says")


def test_an_encrypted_entry_is_refused(path):
    write_torch(path, TENSORS)
    whole = bytearray(path.read_bytes())
    whole[whole.rindex(b"PK\1\2") + 8] |= 1
    path.write_bytes(whole)
    refused(path, "the entry 'pytorch_model/data/3' is encrypted")


def test_a_file_that_shrinks_while_it_is_open_is_an_exception(path):
    write_torch(path, {"x": np.ones(100_000, np.float32)})
    with Checkpoint(path) as checkpoint:
        with path.open("r+b") as file:
            file.truncate(5000)
        with pytest.raises(ValueError, match="truncated while it was being read"):
            checkpoint.read("x")


@pytest.mark.parametrize("zip64", [False, True])
def test_entries_are_where_zipfile_finds_them(path, monkeypatch, zip64):
    if zip64:
        monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)
        monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    write_torch(path, TENSORS)
    assert (b"PK\6\6" in path.read_bytes()) == zip64
    file = TensorFile(path)
    archive = StoredZip(file)
    with zipfile.ZipFile(path) as theirs:
        assert archive.names() == theirs.namelist()
        for entry in theirs.namelist():
            begin, size = archive.place(entry)
            assert file.read(size, begin) == theirs.read(entry)
    file.close()
    assert_holds(path, TENSORS)


def test_a_training_checkpoint_error_names_the_dict_to_save(path):
    """It contains a model's dict, an optimizer's dict with numbers as keys, lists and floats, and an
    epoch."""
    model = state_dict({"weight": tensor(), "bias": tensor()})[2:-1]
    state = b"}(K\x00" + state_dict({"step": tensor()})[2:-1] + b"u"
    groups = b"](}" + text("lr") + b"G" + struct.pack(">d", 0.1) + b"s" + b"}e"
    optimizer = b"}(" + text("state") + state + text("param_groups") + groups + b"u"
    pickled = state_dict({"epoch": b"K\x03", "model": model, "optimizer": optimizer})
    write_archive(path, pickled, [bytes(24)])
    refused(
        path,
        r"a training checkpoint, whose tensors are in the nested dict 'model': save that alone",
    )
