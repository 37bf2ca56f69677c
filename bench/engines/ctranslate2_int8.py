"""CTranslate2, which quantizes to int8 when it loads."""

from __future__ import annotations

from engines import ctranslate2


class Engine(ctranslate2.Engine):
    compute_type = "int8"
