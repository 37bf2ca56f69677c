# SPDX-License-Identifier: Apache-2.0
"""Draws the pictures of a report with matplotlib (extra "plots")."""

from __future__ import annotations

import io
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from simdformer.explain.figures import Bars, Figure, Heads, HeatMap, Lines, Table, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Sheet

_MOST_TICKS = 40


def draw(figure: Figure, kind: str) -> bytes:
    """Draw a picture and return the bytes of the file, which are reproducible. kind: "png" or "svg".

    All measures of Heads and all series of Bars are drawn. Errors: ImportError without matplotlib.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Sheet

    settings: Any = {"svg.hashsalt": "simdformer", "svg.fonttype": "none", "font.size": 9}
    # A dollar sign in a token must not start a formula.
    with rc_context({**settings, "text.parse_math": False}):
        sheet = Sheet()
        _PAINTERS[type(figure)](sheet, figure)
        if len(sheet.axes) <= 2:  # the picture, and a color bar if there is one
            sheet.axes[0].set_title(figure.title)
        else:
            sheet.suptitle(figure.title, y=1.02)
        buffer = io.BytesIO()
        # without date and version of matplotlib, so that equal pictures have equal bytes
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        sheet.savefig(buffer, format=kind, dpi=120, bbox_inches="tight", metadata=metadata)
    return buffer.getvalue()


def _heat_map(sheet: Sheet, figure: HeatMap) -> None:
    rows, columns = len(figure.y_ticks), len(figure.x_ticks)
    sheet.set_size_inches(_within(2.5 + 0.3 * columns, 3, 8), _within(2 + 0.3 * rows, 3, 7))
    axes = sheet.add_subplot()
    _paint(sheet, axes, figure)


def _paint(sheet: Sheet, axes: Axes, figure: HeatMap) -> None:
    colors = "RdBu" if figure.diverging else "Blues"
    values = np.ma.masked_invalid(np.asarray(figure.values, float).reshape(len(figure.y_ticks), -1))
    image = axes.imshow(values, colors, vmin=figure.low, vmax=figure.high, interpolation="nearest")
    axes.set(xlabel=figure.x_label, ylabel=figure.y_label)
    if len(figure.x_ticks) <= _MOST_TICKS:
        short = all(len(tick) <= 2 for tick in figure.x_ticks)
        axes.set_xticks(range(len(figure.x_ticks)), figure.x_ticks, rotation=0 if short else 90)
    if len(figure.y_ticks) <= _MOST_TICKS:
        axes.set_yticks(range(len(figure.y_ticks)), figure.y_ticks)
    sheet.colorbar(image, ax=axes, shrink=0.8)


def _heads(sheet: Sheet, figure: Heads) -> None:
    names = list(figure.measures)
    columns = 3
    rows = -(-len(names) // columns)
    layers, heads = figure.measures[names[0]].shape
    sheet.set_size_inches(columns * (1.6 + 0.2 * heads), rows * (1 + 0.2 * layers))
    numbers = [str(i) for i in range(max(layers, heads))]
    sheet.subplots_adjust(hspace=0.6, wspace=0.3)
    for place, name in enumerate(names, 1):
        values = figure.measures[name]
        most = float(np.nanmax(np.abs(values), initial=1e-12))
        low = -most if np.nanmin(values, initial=0) < 0 else 0.0
        ticks = numbers[:heads], numbers[:layers]
        grid = HeatMap(name, "head", "layer", *ticks, values, low, most, diverging=low < 0)
        axes = sheet.add_subplot(rows, columns, place)
        axes.set_title(name, fontsize="medium")
        _paint(sheet, axes, grid)


def _bars(sheet: Sheet, figure: Bars) -> None:
    names = list(figure.series)
    sheet.set_size_inches(2 + 2.2 * len(names), _within(1.2 + 0.2 * len(figure.labels), 2, 40))
    every = sheet.subplots(1, len(names), sharey=True, squeeze=False)[0]
    places = np.arange(len(figure.labels))
    for axes, name in zip(every, names, strict=True):
        values = np.asarray(figure.series[name], float)
        axes.barh(places, values, color=np.where(values < 0, "#d55e00", "#0072b2"))
        axes.set_title(fill(name, 20), fontsize="medium")
    every[0].set_yticks(places, figure.labels)
    every[0].invert_yaxis()
    every[0].set(xlabel=figure.x_label, ylabel=figure.y_label)


def _lines(sheet: Sheet, figure: Lines) -> None:
    sheet.set_size_inches(6, 4)
    axes = sheet.add_subplot()
    marker = "." if len(figure.x) <= 40 else ""
    for name, values in figure.series.items():
        shown = np.asarray(values, float)
        if figure.log_y:
            shown = np.where(shown > 0, shown, np.nan)
        axes.plot(figure.x, shown, marker=marker, label=name)
    axes.set(xlabel=figure.x_label, ylabel=figure.y_label)
    if figure.log_x:
        axes.set_xscale("log")
        axes.set_xticks(figure.x, [f"{x:g}" for x in figure.x])
        axes.minorticks_off()
    if figure.log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")  # matplotlib would parse it as a formula
    axes.grid(alpha=0.3)
    axes.legend()


def _table(sheet: Sheet, figure: Table) -> None:
    sheet.set_size_inches(1.4 * len(figure.columns), 0.6 + 0.3 * len(figure.rows))
    axes = sheet.add_subplot()
    axes.axis("off")
    words = [[_word(value) for value in plain(row)] for row in figure.rows]
    axes.table(words, colLabels=list(figure.columns), loc="center")


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _word(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


_PAINTERS: dict[type, Any] = {
    HeatMap: _heat_map,
    Heads: _heads,
    Bars: _bars,
    Lines: _lines,
    Table: _table,
}
