# SPDX-License-Identifier: Apache-2.0
"""Values from the caller that replace fields of a folder's files."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Overrides(NamedTuple):
    """Fields by name. config: of config.json. tokenizer: of tokenizer_config.json."""

    config: Mapping[str, Any] = MappingProxyType({})
    tokenizer: Mapping[str, Any] = MappingProxyType({})

    def under(self, others: Overrides) -> Overrides:
        """Combine with `others`, which have precedence."""
        return Overrides({**self.config, **others.config}, {**self.tokenizer, **others.tokenizer})


NO_OVERRIDES = Overrides()
