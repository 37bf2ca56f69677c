"""The same operations in other libraries, on one thread, for bench/kernels.py --peers.

Each method returns a function that runs the operation once on arrays made in advance. So the figures include
the overhead of the library's call, as its users get it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

Operation = Callable[[], object]

# Attention is timed for this many heads in one call, as layers do, and divided.
HEADS = 12


class TorchPeer:
    name = "torch"

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        self._torch = torch
        self._functional = torch.nn.functional

    def linear(self, m: int, n: int, k: int) -> Operation:
        linear = self._torch.nn.Linear(k, n)
        return self._inference(linear, self._torch.rand(m, k))

    def attention(self, length: int, head_dim: int) -> Operation:
        q, k, v = self._torch.rand(3, 1, HEADS, length, head_dim)
        return self._inference(self._functional.scaled_dot_product_attention, q, k, v)

    def layer_norm(self, rows: int, cols: int) -> Operation:
        return self._inference(self._torch.nn.LayerNorm(cols), self._torch.rand(rows, cols))

    def softmax(self, rows: int, cols: int) -> Operation:
        return self._inference(self._torch.nn.Softmax(-1), self._torch.rand(rows, cols))

    def gelu(self, rows: int, cols: int) -> Operation:
        return self._inference(self._functional.gelu, self._torch.rand(rows, cols))

    def gelu_tanh(self, rows: int, cols: int) -> Operation:
        return self._inference(self._torch.nn.GELU("tanh"), self._torch.rand(rows, cols))

    def silu(self, rows: int, cols: int) -> Operation:
        return self._inference(self._functional.silu, self._torch.rand(rows, cols))

    def exp(self, rows: int, cols: int) -> Operation:
        return self._inference(self._torch.exp, self._torch.rand(rows, cols))

    def mean(self, rows: int, cols: int) -> Operation:
        return self._inference(self._torch.mean, self._torch.rand(rows, cols), 0)

    def l2_normalize(self, rows: int, cols: int) -> Operation:
        return self._inference(self._functional.normalize, self._torch.rand(rows, cols))

    def _inference(self, function: Callable[..., object], *arguments: Any) -> Operation:
        @self._torch.inference_mode()
        def run() -> object:
            return function(*arguments)

        return run


class OnnxRuntimePeer:
    name = "onnxruntime"

    def linear(self, m: int, n: int, k: int) -> Operation:
        weight = _random(k, n)
        return self._session("MatMul", {"x": _random(m, k)}, constants={"w": weight})

    def attention(self, length: int, head_dim: int) -> Operation:
        inputs = {name: _random(1, length, HEADS * head_dim) for name in "qkv"}
        return self._session("MultiHeadAttention", inputs, domain="com.microsoft", num_heads=HEADS)

    def layer_norm(self, rows: int, cols: int) -> Operation:
        constants = {"scale": _random(cols), "bias": _random(cols)}
        return self._session("LayerNormalization", {"x": _random(rows, cols)}, constants=constants)

    def softmax(self, rows: int, cols: int) -> Operation:
        return self._session("Softmax", {"x": _random(rows, cols)}, axis=-1)

    def gelu(self, rows: int, cols: int) -> Operation:
        return self._session("Gelu", {"x": _random(rows, cols)}, domain="com.microsoft")

    def _session(
        self,
        operator: str,
        inputs: dict[str, np.ndarray],
        *,
        constants: dict[str, np.ndarray] | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> Operation:
        """A model of one node in a session of one thread."""
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper

        constants = constants or {}
        node = helper.make_node(operator, [*inputs, *constants], ["y"], domain=domain, **attributes)
        graph = helper.make_graph(
            [node],
            operator,
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape)
                for name, value in inputs.items()
            ],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
        )
        return lambda: session.run(None, inputs)


class NumpyPeer:
    """Operations that are a single line of NumPy. The caller limits BLAS to one thread."""

    name = "numpy"

    def linear(self, m: int, n: int, k: int) -> Operation:
        x, weight, out = _random(m, k), _random(k, n), np.empty((m, n), np.float32)
        return lambda: np.matmul(x, weight, out=out)

    def layer_norm(self, rows: int, cols: int) -> Operation:
        x, weight, bias = _random(rows, cols), _random(cols), _random(cols)

        def run() -> object:
            centered = x - x.mean(axis=1, keepdims=True)
            variance = np.square(centered).mean(axis=1, keepdims=True)
            return centered / np.sqrt(variance + 1e-5) * weight + bias

        return run

    def softmax(self, rows: int, cols: int) -> Operation:
        x = _random(rows, cols)

        def run() -> object:
            weights = np.exp(x - x.max(axis=1, keepdims=True))
            return weights / weights.sum(axis=1, keepdims=True)

        return run

    def exp(self, rows: int, cols: int) -> Operation:
        x, out = _random(rows, cols), np.empty((rows, cols), np.float32)
        return lambda: np.exp(x, out=out)

    def mean(self, rows: int, cols: int) -> Operation:
        x = _random(rows, cols)
        return lambda: x.mean(axis=0)

    def l2_normalize(self, rows: int, cols: int) -> Operation:
        x = _random(rows, cols)
        return lambda: x / np.linalg.norm(x, axis=1, keepdims=True)


def installed_peers() -> list[Any]:
    peers: list[Any] = [NumpyPeer()]
    if importlib.util.find_spec("torch"):
        peers.append(TorchPeer())
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
        peers.append(OnnxRuntimePeer())
    return peers


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, dtype=np.float32)
