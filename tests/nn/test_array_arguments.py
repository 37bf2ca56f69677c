"""Every array argument of functional and nn: strides do not change bits, and other dtypes are refused."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import simdformer.functional as F
from simdformer import nn
from tests.support import LAYOUTS
from tests.support.calls import ARGUMENTS, CALLS, WITHOUT_ARRAYS


def in_records(x):
    """A field of records whose size is not a multiple of the item's size."""
    records = np.zeros(x.shape[:-1], [("flag", "u1"), ("field", x.dtype, x.shape[-1:])])
    records["field"] = x
    return records["field"]


def unaligned(x):
    """One byte after the start of an item."""
    raw = np.zeros(x.nbytes + 1, np.uint8)
    out = raw[1:].view(x.dtype).reshape(x.shape)
    out[...] = x
    return out


def repeated(x):
    """Strides of 0 along the first axis."""
    return np.broadcast_to(x[:1], x.shape)


def turned(x):
    """The last two axes are swapped in memory."""
    return x.swapaxes(-1, -2).copy().swapaxes(-1, -2) if x.ndim > 1 else x[::-1].copy()[::-1]


VIEWS = [*LAYOUTS, in_records, unaligned, repeated, turned]


def run(name, **changed):
    call = CALLS[name]
    result = call.function(**{**call.arrays, **changed})
    return [
        part for part in (result if isinstance(result, tuple) else (result,)) if part is not None
    ]


def test_every_public_function_and_module_is_called_here():
    public = {*F.__all__, *nn.__all__} - WITHOUT_ARRAYS
    assert public <= CALLS.keys()


@pytest.mark.parametrize("layout", VIEWS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_strides_change_no_bit(name, argument, layout):
    view = layout(CALLS[name].arrays[argument])
    if "cu_seqlens" in argument and layout is repeated:
        pytest.skip("offsets that do not rise")
    expected = run(name, **{argument: np.ascontiguousarray(view)})
    for got, wanted in zip(run(name, **{argument: view}), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


OUTS = [n for n, c in CALLS.items() if "out" in inspect.signature(c.function).parameters]


@pytest.mark.parametrize("layout", VIEWS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", OUTS)
def test_results_are_written_to_any_strides(name, layout):
    expected = run(name)[0]
    out = layout(np.zeros_like(expected))
    if not out.flags.writeable:
        with pytest.raises(ValueError, match="out is read-only"):
            run(name, out=out)
        return
    got = run(name, out=out)[0]
    assert np.shares_memory(got, out)
    np.testing.assert_array_equal(out, expected)


def other_dtypes(array):
    if array.dtype == np.float32:
        return ["float64", "float16", "int32", "complex64", "object", "U3"]
    if array.dtype == bool:
        return ["float64", "uint8", "int64", "object"]
    return ["bool", "float64", "object", "U3"]


@pytest.mark.parametrize(
    ("name", "argument", "dtype"),
    [(n, a, d) for n, a in ARGUMENTS for d in other_dtypes(CALLS[n].arrays[a])],
)
def test_another_dtype_is_refused_by_name(name, argument, dtype):
    if name in ("Identity", "Dropout"):
        pytest.skip("takes anything")
    array = CALLS[name].arrays[argument]
    if argument in ("positions", "offset") and dtype == "float64":
        pytest.skip("positions may be fractions")
    with pytest.raises(TypeError, match=rf"^{argument} .*(must|cannot)") as raised:
        run(name, **{argument: np.clip(array, -100, 100).astype(dtype)})
    if dtype == "float64" and array.dtype == np.float32:
        assert "convert with .astype(numpy.float32)" in str(raised.value)


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
@pytest.mark.parametrize("value", ["text", {"a": 1}, object()], ids=["text", "dict", "object"])
def test_an_argument_that_is_not_an_array_is_refused_by_name(name, argument, value):
    if name in ("Identity", "Dropout"):
        pytest.skip("takes anything")
    with pytest.raises(TypeError, match=rf"^{argument} must be"):
        run(name, **{argument: value})


EMPTY = {
    "LayerNorm": [(0, 8), (3, 0, 8)], "RMSNorm": [(0, 4, 8)], "BatchNorm1d": [(0, 4), (0, 4, 8), (3, 4, 0)],
    "Linear": [(0, 8), (2, 0, 8)], "layer_norm": [(0, 6), (2, 0, 6)], "rms_norm": [(0, 6), (2, 0, 6)],
    "batch_norm": [(0, 4), (3, 4, 0)], "power_norm": [(0, 4), (3, 4, 0)], "softmax": [(0, 3), (3, 0)],
    "log_softmax": [(0, 3), (3, 0)], "normalize": [(0, 3), (3, 0)], "gelu": [(0,), (3, 0)],
    "linear": [(0, 6), (2, 0, 6)], "glu": [(0, 4), (3, 0)], "Sequential": [(0, 8)],
}  # fmt: skip


@pytest.mark.parametrize(("name", "shape"), [(n, s) for n, shapes in EMPTY.items() for s in shapes])
def test_empty_batches_are_empty(name, shape):
    result = run(name, input=np.zeros(shape, np.float32))[0]
    assert result.size == 0
    assert result.dtype == np.float32
    assert result.ndim == len(shape)


@pytest.mark.parametrize(
    "name", ["TransformerEncoderLayer", "TransformerEncoder", "sequence first TransformerEncoder"]
)
@pytest.mark.parametrize("shape", [(0, 4, 8), (3, 0, 8), (0, 0, 8), (0, 8)], ids=str)
def test_a_stack_for_empty_input_returns_empty_output(name, shape):
    assert CALLS[name].function(np.zeros(shape, np.float32)).shape == shape
