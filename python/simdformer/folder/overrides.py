# SPDX-License-Identifier: Apache-2.0
"""What a caller puts in the place of what a folder's files say."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Overrides(NamedTuple):
    """Fields by name. config: those of config.json. tokenizer: of tokenizer_config.json."""

    config: Mapping[str, Any] = MappingProxyType({})
    tokenizer: Mapping[str, Any] = MappingProxyType({})

    def under(self, others: Overrides) -> Overrides:
        """Both; `others` count where both say something."""
        return Overrides({**self.config, **others.config}, {**self.tokenizer, **others.tokenizer})


NO_OVERRIDES = Overrides()
