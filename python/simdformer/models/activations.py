# SPDX-License-Identifier: Apache-2.0
"""The one place where the names of activations in model files meet the kernels' names."""

from __future__ import annotations

# config.json's hidden_act (transformers' ACT2FN) -> kernel. "gelu" is the exact erf form there.
_HIDDEN_ACT = {
    "gelu": "gelu",
    "gelu_accurate": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_python": "gelu",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "linear": "identity",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "sigmoid": "sigmoid",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}

# The classes of torch.nn that have a kernel. What is left out does nothing in eval mode.
TORCH_CLASSES = {
    "AlphaDropout": "identity",
    "Dropout": "identity",
    "GELU": "gelu",
    "Identity": "identity",
    "ReLU": "relu",
    "Sigmoid": "sigmoid",
    "SiLU": "silu",
    "Tanh": "tanh",
}


def from_hidden_act(name: object, field: str = "hidden_act") -> str:
    """The kernel for a hidden_act of config.json, or what an architecture calls it; ValueError lists
    the known ones."""
    if not isinstance(name, str) or name not in _HIDDEN_ACT:
        raise ValueError(
            f"config.json: unknown {field} {name!r}; known: {', '.join(sorted(_HIDDEN_ACT))}"
        )
    return _HIDDEN_ACT[name]
