"""An SQLite that can load extensions: Python's own, or pysqlite3 if Python was built without this."""

from __future__ import annotations

import sqlite3
from types import ModuleType

import pytest


def sqlite_with_extensions() -> ModuleType:
    if hasattr(sqlite3.Connection, "enable_load_extension"):
        return sqlite3
    return pytest.importorskip("pysqlite3")
