# SPDX-License-Identifier: Apache-2.0
"""Pictures as data, which a page, `--json` and matplotlib show."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class HeatMap:
    """Numbers (rows, columns) as colors between low and high. diverging: zero has the middle color."""

    kind: ClassVar[str] = "heat_map"
    title: str
    x_label: str
    y_label: str
    x_ticks: Sequence[str]
    y_ticks: Sequence[str]
    values: Array
    low: float
    high: float
    diverging: bool = False
    note: str = ""


@dataclass(frozen=True, eq=False)
class Heads:
    """Measures of each head of each layer, and the map of a selected head.

    measures: by name, numbers (layers, heads). maps: for each layer float32 (heads, n, n), in [0, 1]; only
    pages contain them, with one byte per weight. strongest: query, key and value of the largest weight of
    each layer and head.
    """

    kind: ClassVar[str] = "heads"
    title: str
    tokens: Sequence[str]
    measures: Mapping[str, Array]
    maps: Sequence[Array]
    strongest: Sequence[Sequence[Any]]
    note: str = ""


@dataclass(frozen=True, eq=False)
class Bars:
    """One bar per label. One series is shown at a time, with its facts."""

    kind: ClassVar[str] = "bars"
    title: str
    x_label: str
    y_label: str
    labels: Sequence[str]
    series: Mapping[str, Array]
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, eq=False)
class Lines:
    """Series of numbers over the numbers x."""

    kind: ClassVar[str] = "lines"
    title: str
    x_label: str
    y_label: str
    x: Sequence[float]
    series: Mapping[str, Array]
    log_x: bool = False
    log_y: bool = False
    note: str = ""


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of words and numbers."""

    kind: ClassVar[str] = "table"
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""


Figure: TypeAlias = HeatMap | Heads | Bars | Lines | Table


def scaled(
    title: str,
    x: tuple[str, Sequence[str]],
    y: tuple[str, Sequence[str]],
    values: Array,
    note: str = "",
) -> HeatMap:
    """A HeatMap with zero in the middle of the colors. x, y: label and ticks of each axis."""
    most = float(np.nanmax(np.abs(values), initial=0)) or 1.0
    return HeatMap(title, x[0], y[0], x[1], y[1], values, -most, most, True, note)


def plain(value: Any) -> Any:
    """Convert a value for JSON: arrays become lists, numbers are printed as float32, NaN becomes null.

    Maps of heads are left out.
    """
    if is_dataclass(value) and not isinstance(value, type):
        kind = getattr(value, "kind", None)
        parts = {f.name: plain(getattr(value, f.name)) for f in fields(value) if f.name != "maps"}
        return parts if kind is None else {"kind": kind, **parts}
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist()) if value.dtype.kind != "f" else _floats(value)
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, (float, np.floating)):
        return _float(np.float32(value))
    return value


def packed_maps(maps: Sequence[Array]) -> str:
    """The maps of all layers, one byte per weight, compressed with zlib, in base64. The error is below
    0.002."""
    raw = b"".join(np.rint(np.asarray(layer) * 255).astype(np.uint8).tobytes() for layer in maps)
    return base64.b64encode(zlib.compress(raw, 7)).decode("ascii")


def slug(title: str) -> str:
    """A title as a file name."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def strongest(maps: Sequence[Array], tokens: Sequence[str]) -> Iterator[list[list[Any]]]:
    """Query, key and value of the largest weight of each head, per layer."""
    for layer in maps:
        found = []
        for weights in layer:
            if not weights.size:
                continue
            i, j = np.unravel_index(weights.argmax(), weights.shape)
            found.append([tokens[i], tokens[j], weights[i, j]])
        yield found


def _floats(array: Array) -> Any:
    if array.ndim == 1:
        return [_float(number) for number in array.astype(np.float32)]
    return [_floats(part) for part in array]


def _float(number: np.float32) -> float | None:
    # the shortest decimals of the float32, not of the double it converts to
    return float(str(number)) if np.isfinite(number) else None
