"""The ONNX project's own node cases (Apache-2.0), which its package generates: Attention,
LayerNormalization, RMSNormalization, RotaryEmbedding, Gelu, Softmax.

The package is pinned: between versions the meaning of one attribute changed. float32 cases are run
as they are, with the package's own tolerances. The 11 in float16 and bfloat16 are computed in float32
and rounded at the end, with a tolerance of one unit in the last place of their format: the library
itself takes float32 alone.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from tests.support import onnx_adapter

onnx = pytest.importorskip("onnx", reason="onnx is not installed (group parity)")
VERSION = "1.23.2"
if onnx.__version__ != VERSION:
    pytest.skip(f"the cases are those of onnx {VERSION}", allow_module_level=True)

COUNTS = {
    "Attention": 93,
    "LayerNormalization": 19,
    "RMSNormalization": 19,
    "RotaryEmbedding": 8,
    "Gelu": 4,
    "Softmax": 7,
}
# The distance from 1 to the next number of the format.
ROUNDING = {"float16": 2.0**-10, "bfloat16": 2.0**-7}


def single_nodes():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # overflows in the package's own generators
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases()
    for case in cases:
        nodes = case.model.graph.node
        if "_expanded" not in case.name and len(nodes) == 1 and nodes[0].op_type in COUNTS:
            yield case


CASES = list(single_nodes())


def test_every_case_is_there():
    found = [case.model.graph.node[0].op_type for case in CASES]
    assert {op: found.count(op) for op in COUNTS} == COUNTS


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case):
    node = case.model.graph.node[0]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    given, wanted = case.data_sets[0]
    inputs = dict(zip([name for name in node.input if name], map(np.asarray, given), strict=True))
    formats = {x.dtype.name for x in inputs.values()} & ROUNDING.keys()
    inputs = {
        name: x.astype(np.float32) if x.dtype.name in ROUNDING else x for name, x in inputs.items()
    }
    outputs = onnx_adapter.run(node, attributes, inputs)
    tolerance = max([case.rtol, *(ROUNDING[name] for name in formats)])
    for name, expected in zip([name for name in node.output if name], wanted, strict=True):
        actual = np.asarray(outputs[name]).astype(expected.dtype).astype(np.float64)
        atol = tolerance if formats else max(case.atol, 1e-7)
        np.testing.assert_allclose(
            actual, np.asarray(expected).astype(np.float64), rtol=tolerance, atol=atol
        )
