# SPDX-License-Identifier: Apache-2.0
"""Parts of heads: what stands between the hidden states of an encoder and logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from simdformer._core import Dense, LayerNorm, Linear
from simdformer.models.activations import from_hidden_act


class HeadLayer(NamedTuple):
    """norm(activation(linear(x))). activation: a kernel's name."""

    linear: Linear
    activation: str = "identity"
    norm: LayerNorm | None = None

    def native(self) -> Dense:
        """The same as a part of an encoder's native call."""
        return Dense(self.linear, activation=self.activation, norm=self.norm)


def head_activation(config: Mapping[str, Any], given: str | tuple[str, str]) -> str:
    """A kernel's name, or what the field of config.json says, with its default."""
    if isinstance(given, str):
        return given
    field, default = given
    return from_hidden_act(config.get(field, default), field)
