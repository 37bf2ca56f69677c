# SPDX-License-Identifier: Apache-2.0
"""Maps the names of activations in model files to the names of kernels. No other file does this."""

from __future__ import annotations

# config.json's hidden_act (transformers' ACT2FN) -> kernel. There "gelu" is the exact form with erf.
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

# The classes of torch.nn that have a kernel. Dropout does nothing in eval mode.
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
    """The kernel for a hidden_act of config.json. Errors: ValueError listing the known names."""
    if not isinstance(name, str) or name not in _HIDDEN_ACT:
        raise ValueError(
            f"config.json: unknown {field} {name!r}; known: {', '.join(sorted(_HIDDEN_ACT))}"
        )
    return _HIDDEN_ACT[name]
