# SPDX-License-Identifier: Apache-2.0
"""What a text pipeline asks of the models behind it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from simdformer._core import TransformerStack

Float32 = NDArray[np.float32]


class Module(Protocol):
    """What has a packed form, which follows its changes."""

    def native(self) -> TransformerStack:
        """The packed form."""


@runtime_checkable
class TokenModel(Protocol):
    """What may have token vectors of its own."""

    def token_rows(
        self, input_ids: Any, cu_seqlens: Any, token_type_ids: Any = None, *, num_threads: int = 0
    ) -> Float32 | None:
        """float32 (total_tokens, hidden_size); None for the encoder's."""


class PooledModel(Protocol):
    """What gives each text a row: _core.PooledStack, or one with further steps behind it."""

    @property
    def embedding_dimension(self) -> int:
        """The length of a row."""

    def encode(self, *args: Any, **kwargs: Any) -> Float32:
        """_core.PooledStack's arguments and result."""
