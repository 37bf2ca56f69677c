# SPDX-License-Identifier: Apache-2.0
"""The interfaces of models in a text pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from simdformer._core import TransformerStack

Float32 = NDArray[np.float32]


class Module(Protocol):
    """An object with an up-to-date packed form."""

    def native(self) -> TransformerStack:
        """The packed form."""


@runtime_checkable
class TokenModel(Protocol):
    """A model that may return its own token vectors."""

    def token_rows(
        self, input_ids: Any, cu_seqlens: Any, token_type_ids: Any = None, *, num_threads: int = 0
    ) -> Float32 | None:
        """float32 (total_tokens, hidden_size); None to use the encoder's."""


class PooledModel(Protocol):
    """A model with one row per text: _core.PooledStack, possibly with further steps."""

    @property
    def embedding_dimension(self) -> int:
        """The length of a row."""

    def encode(self, *args: Any, **kwargs: Any) -> Float32:
        """The arguments and result of _core.PooledStack.encode."""


@runtime_checkable
class SavableModel(Protocol):
    """A model that can be written to one file for the library for C."""

    def save(self, write: Callable[[memoryview], object], **output: Any) -> None:
        """The arguments of _core.PooledStack.save. ValueError names what runs outside the native call."""
