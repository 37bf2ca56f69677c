# SPDX-License-Identifier: Apache-2.0
"""An HTTP server for embeddings and rankings (extra `server`).

`create_app` returns an ASGI application; `simdformer serve` runs it.
"""

from __future__ import annotations

from simdformer.server.app import create_app
from simdformer.server.incoming import checked_key

__all__ = ["checked_key", "create_app"]
