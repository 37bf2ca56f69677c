# SPDX-License-Identifier: Apache-2.0
"""Which model made vectors: what manifests say of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simdformer.folder.digest import folder_digest
from simdformer.folder.resolve import resolve_model

if TYPE_CHECKING:
    from simdformer import SentenceTransformer


def identity(name: str, model: SentenceTransformer) -> dict[str, Any]:
    """The digest of the folder of the model `name`, and the compute type in which it runs."""
    return {"model": folder_digest(resolve_model(name)), "compute_type": model.compute_type}
