# SPDX-License-Identifier: Apache-2.0
"""What a cross-encoder's logits go through, as a function of arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdformer.functional.rows import activate
from simdformer.models.activations import from_torch_class, to_torch_class

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class ActivationKernel:
    """A kernel as a function of arrays; an element's result does not depend on its place."""

    name: str

    @property
    def torch_class(self) -> str:
        """The class path in torch that a folder says for it."""
        return to_torch_class(self.name)

    def __call__(self, logits: Float32) -> Float32:
        return logits if self.name == "identity" else activate(self.name, logits, None)


def activation_function(activation_fn: object) -> Callable[[Float32], Any]:
    """What was given as an activation. Modules of torch.nn are known by their class, not called."""
    if isinstance(activation_fn, str):
        return ActivationKernel(from_torch_class(activation_fn, "activation_fn"))
    kind = type(activation_fn)
    if kind.__module__.startswith("torch.nn."):
        # A module with options (GELU(approximate='tanh')) shows them.
        shown = repr(activation_fn).removesuffix("(approximate='none')").removesuffix("()")
        return ActivationKernel(from_torch_class(f"{kind.__module__}.{shown}", "activation_fn"))
    if not callable(activation_fn):
        raise TypeError(
            f"activation_fn must be a name of torch.nn or a function, got {kind.__name__}"
        )
    function: Callable[[Float32], Any] = activation_fn
    return function
