# SPDX-License-Identifier: Apache-2.0
"""Modules that return their input."""

from __future__ import annotations

from typing import Any

from simdformer.nn.module import Module


class Identity(Module):
    """Return the input, as torch.nn.Identity. Use it instead of a norm to leave the norm out.

    Parameters
    ----------
    *_, **__
        Accepted without effect.

    Examples
    --------
    >>> from simdformer import nn
    >>> nn.Identity()(np.float32([1, 2]))
    array([1., 2.], dtype=float32)
    """

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        """Return the input."""
        return input

    def _pack(self) -> None:
        return None


class Dropout(Identity):
    """Return the input, as torch.nn.Dropout in eval mode.

    Parameters
    ----------
    p
        A probability in [0, 1], without effect.
    inplace
        Without effect.

    Examples
    --------
    >>> from simdformer import nn
    >>> nn.Dropout(0.5)(np.float32([1, 2]))
    array([1., 2.], dtype=float32)
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:  # noqa: ARG002
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p must be in [0, 1], got {p}")
        self.p = p
