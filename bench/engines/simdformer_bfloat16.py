"""simdformer with compute_type="bfloat16"."""

from __future__ import annotations

from engines import simdformer


class Engine(simdformer.Engine):
    compute_type = "bfloat16"
