# SPDX-License-Identifier: Apache-2.0
"""What layers know of positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simdformer import _core
from simdformer.nn.module import Module

if TYPE_CHECKING:
    from simdformer.nn.attention import MultiheadAttention


class Position(Module):
    """Positions inside an attention: given to it as `position=`."""

    def check_heads(self, num_heads: int, head_dim: int) -> None:
        """ValueError if an attention of these heads can't use it."""

    def tables(self, length: int) -> dict[str, Any]:
        """Arguments of _core.Positions that serve positions below `length`."""
        raise NotImplementedError


def position_arguments(attention: MultiheadAttention, length: int) -> _core.Positions:
    """The tables of one attention for one call, of the heads that are left in it."""
    if attention.position is None:
        return _core.Positions()
    tables = dict(attention.position.tables(length))
    if "relative" in tables and len(tables["relative"]) != attention.num_heads:
        tables["relative"] = np.ascontiguousarray(tables["relative"][attention._kept_heads])
    return _core.Positions(**tables)
