"""simdformer with compute_type="int8"."""

from __future__ import annotations

from engines import simdformer


class Engine(simdformer.Engine):
    compute_type = "int8"
