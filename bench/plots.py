"""The figures of benchmarks, drawn from their JSON."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import report

_OWN_COLOR = "#1b6ca8"
_PEER_COLOR = "#b8c4ce"
_LIMIT_COLOR = "#c0392b"
_LEAST_INTENSITY = 0.1  # flop per byte at which the roofline starts


def plot_encode(result: dict[str, Any], path: Path) -> None:
    """One panel per set: the engines of one precision, fastest first, as bars from zero. Whiskers show the
    middle half of the rounds, and a dashed line 100% of the FMA peak."""
    plt = _pyplot()
    sets = list(result["sets"])
    engines = report.of_one_precision(list(result["engines"]))
    columns = min(3, len(sets)) if len(sets) != 4 else 2  # readable at the width of a page
    lines = -(-len(sets) // columns)
    figure, grid = plt.subplots(
        lines,
        columns,
        figsize=(1 + 3.6 * columns, lines * (0.32 * len(engines) + 1.1) + 0.3),
        squeeze=False,
        layout="constrained",
    )
    axes = grid.ravel()
    for unused in axes[len(sets) :]:
        unused.remove()
    for axis, name in zip(axes, sets, strict=False):
        _encode_panel(axis, name, result, engines)
    settings = result["settings"]
    figure.suptitle(
        f"{settings['model']}, threads: {settings['threads']}, {result['machine']['cpu']}"
        f" ({settings['isa']}); dashed: the whole measured FMA peak",
        fontsize=10,
    )
    _save(figure, path)


def _encode_panel(axis: Any, name: str, result: dict[str, Any], engines: list[str]) -> None:
    text_set = result["sets"][name]
    latency = name == "one"
    rows = [row for row in result["rows"] if row["set"] == name and row["engine"] in engines]
    rows.sort(key=lambda row: row["seconds"])

    def shown(rate: float) -> float:
        seconds = text_set["gflop"] / rate
        return seconds * 1e3 if latency else text_set["texts"] / seconds

    values = [shown(row["gflops"]) for row in rows]
    ranges = [sorted(map(shown, report.middle_half(row["rates"]))) for row in rows]
    below = [max(0.0, v - low) for v, (low, _) in zip(values, ranges, strict=True)]
    above = [max(0.0, high - v) for v, (_, high) in zip(values, ranges, strict=True)]
    own = [row["engine"].startswith("simdformer") for row in rows]
    names = [row["engine"] for row in rows]
    colors = [_OWN_COLOR if mine else _PEER_COLOR for mine in own]
    whiskers = {"ecolor": "#444444", "elinewidth": 1, "capsize": 2}
    axis.barh(names, values, color=colors, height=0.68, xerr=[below, above], error_kw=whiskers)
    limit = shown(result["peak"]["fma_gflops"]["best"])
    axis.axvline(limit, color=_LIMIT_COLOR, linestyle="--", linewidth=1)
    right = max(*(high for _, high in ranges), limit) * 1.22
    for y, (value, (_, high)) in enumerate(zip(values, ranges, strict=True)):
        _label(axis, y, report.figure(value), high + right * 0.015, limit, right)
    axis.invert_yaxis()
    axis.set_xlim(0, right)
    texts = f"{text_set['texts']} texts, mean" if text_set["texts"] > 1 else "1 text,"
    axis.set_title(f"{name}: {texts} {text_set['mean_tokens']:.0f} tokens", fontsize=9.5)
    unit = "ms (shorter is better)" if latency else "texts/s (longer is better)"
    axis.set_xlabel(unit, fontsize=8.5)
    axis.tick_params(axis="x", labelsize=8)


def _label(axis: Any, y: int, text: str, x: float, limit: float, right: float) -> None:
    """A bar's figure after it, or after the line of the limit if they would overlap."""
    width = right * 0.028 * len(text)
    if x - right * 0.01 < limit < x + width:
        x = limit + right * 0.015
    axis.text(x, y, text, va="center", fontsize=8.5, color="#222222")


def plot_fidelity(result: dict[str, Any], speeds: dict[str, Any], path: Path) -> None:
    """Texts per second on the set 'mixed' against 1 - cosine: a line from mean to worst per engine."""
    plt = _pyplot()
    rates = {row["engine"]: row["texts_per_s"] for row in speeds["rows"] if row["set"] == "mixed"}
    figure, axis = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
    axis.spines["left"].set_visible(True)
    for engine, found in result["engines"].items():
        losses = [1 - found[key] for key in ("mean_cosine", "first_percentile", "min_cosine")]
        x = [rates[engine]] * 3
        color = _OWN_COLOR if engine.startswith("simdformer") else "#7f8c96"
        axis.plot(x, losses, color=color, linewidth=1.6, zorder=2)
        for marker, y in zip("o_v", losses, strict=True):
            axis.scatter(x[:1], [y], marker=marker, s=46, color=color, zorder=3)
        axis.annotate(
            engine,
            (x[0], losses[0]),
            xytext=(7, 3),
            textcoords="offset points",
            fontsize=8.5,
            color=color,
        )
    axis.set_yscale("log")
    axis.set_ylim(6e-2, 3e-6)
    axis.set_xlim(0, 1.25 * max(rates[engine] for engine in result["engines"]))
    axis.grid(color="#eeeeee")
    axis.set_xlabel("texts/s on the set mixed (faster is to the right)")
    axis.set_ylabel("1 - cosine to float32 (nearer is higher)")
    axis.set_title(
        f"{result['texts']['count']:,} texts, {speeds['settings']['threads']} threads, "
        f"{speeds['machine']['cpu']}; circle: mean, bar: 1st percentile, triangle: worst",
        fontsize=9,
    )
    _save(figure, path)


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.spines.left": False,
            "axes.edgecolor": "#888888",
            "ytick.left": False,
            "axes.axisbelow": True,
        }
    )
    return plt


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.png")
    figure.savefig(temporary, dpi=160)
    temporary.replace(path)


def plot_kernels(result: dict[str, Any], path: Path) -> None:
    """One row of panels per ISA level: GEMM by rows, attention by length, the others as bars."""
    plt = _pyplot()
    isas = list(result["peaks"])
    figure, axes = plt.subplots(
        len(isas), 3, figsize=(12, 2.8 * len(isas) + 0.4), squeeze=False, layout="constrained"
    )
    for line, isa in zip(axes, isas, strict=True):
        rows = [row for row in result["rows"] if row["isa"] == isa]
        peak = result["peaks"][isa]["fma_gflops"]
        gemm = [row for row in rows if row["kernel"] == "gemm"]
        _shares(line[0], gemm, x=0, group=lambda s: f"{s[1]} x {s[2]}")
        line[0].set_title(f"{isa}: GEMM by rows of the input, per weight (n x k)", fontsize=9)
        attention = [row for row in rows if row["kernel"] == "attention"]
        _shares(line[1], attention, x=0, group=lambda s: f"head_dim {s[1]}")
        line[1].set_title(f"attention by length (100% = {peak:.0f} GFLOP/s)", fontsize=9)
        others = [row for row in rows if row["unit"] == "GB/s"]
        labels = [f"{row['kernel']} {row['shape']}" for row in others]
        line[2].barh(labels, [row["share_of_limit"] * 100 for row in others], color=_OWN_COLOR)
        line[2].invert_yaxis()
        line[2].tick_params(labelsize=6.5)
        line[2].set_xlim(0, 130)
        line[2].axvline(100, color=_LIMIT_COLOR, linestyle="--", linewidth=1)
        line[2].set_title("bytes in and out, % of read bandwidth at that size", fontsize=9)
    figure.suptitle(f"One thread, {result['machine']['cpu']}", fontsize=10)
    _save(figure, path)


def _shares(axis: Any, rows: list[dict[str, Any]], *, x: int, group: Any) -> None:
    """The fraction of the limit against one of the sizes, one line per group, from 0 to 100%."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(group(row["sizes"]), []).append(row)
    for label, members in groups.items():
        axis.plot(
            [row["sizes"][x] for row in members],
            [row["share_of_limit"] * 100 for row in members],
            marker="o",
            markersize=3,
            linewidth=1.2,
            label=label,
        )
    axis.set_xscale("log", base=2)
    ticks = sorted({row["sizes"][x] for row in rows})
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.axhline(100, color=_LIMIT_COLOR, linestyle="--", linewidth=1)
    axis.set_ylim(0, 108)
    axis.set_ylabel("% of FMA peak", fontsize=8)
    axis.grid(axis="y", color="#e6e6e6")
    axis.tick_params(labelsize=8)
    if groups:
        axis.legend(fontsize=6.5, ncols=2, frameon=False, loc="lower right")


def plot_roofline(result: dict[str, Any], path: Path) -> None:
    """Kernels of the widest level under its FMA peak and its read bandwidths, log-log."""
    plt = _pyplot()
    isa = list(result["peaks"])[-1]
    peak, memory = (result["peaks"][isa][key] for key in ("fma_gflops", "read_gbs"))
    # int8 has its own roof.
    rows = [row for row in result["rows"] if row["isa"] == isa and row["unit"] != "Gop/s"]
    cache = max((row["limit"] for row in rows if row["unit"] == "GB/s"), default=memory)
    figure, axis = plt.subplots(figsize=(9, 4.6), layout="constrained")
    axis.spines["left"].set_visible(True)
    axis.axhline(peak, color=_LIMIT_COLOR, linewidth=1.2, label=f"FMA peak {peak:.0f} GFLOP/s")
    for rate, style, label in ((cache, "-.", "cache"), (memory, "--", "memory")):
        axis.plot(
            [_LEAST_INTENSITY, peak / rate],
            [rate * _LEAST_INTENSITY, peak],
            color=_LIMIT_COLOR,
            linewidth=1.2,
            linestyle=style,
            label=f"{label} read {rate:.0f} GB/s",
        )
    kernels = list(dict.fromkeys(row["kernel"] for row in rows))
    palette = plt.get_cmap("tab20").colors
    for number, kernel in enumerate(kernels):
        members = [row for row in rows if row["kernel"] == kernel]
        axis.scatter(
            [row["intensity"] for row in members],
            [row["gflops"] for row in members],
            s=22,
            marker="os^Dv<>PX*hd"[number % 12],
            color=palette[number * 2 % 20 + number // 10],
            label=kernel,
        )
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_ylim(1, peak * 1.5)
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if tick < peak * 1.5]
    axis.set_yticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()
    axis.set_xlabel("flop per byte, each input read and each output written once")
    axis.set_ylabel("GFLOP/s")
    axis.set_title(f"Roofline, {isa}, one thread, {result['machine']['cpu']}", fontsize=10)
    axis.grid(color="#eeeeee")
    figure.legend(fontsize=8, frameon=False, loc="outside right center")
    _save(figure, path)


def plot_serve(result: dict[str, Any], path: Path) -> None:
    """A panel for each kind of text: median and 99th percentile of the time to a response, by load."""
    plt = _pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    rows = result["rows"][::-1]
    names = [f"{row['server']}: {row['load']}" for row in rows]
    for axis, kind in zip(axes, ("short", "long"), strict=True):
        for part, color in (("p99", _PEER_COLOR), ("p50", _OWN_COLOR)):
            axis.barh(names, [row[f"{kind}_{part}_ms"] for row in rows], color=color, label=part)
        axis.set_xscale("log")
        axis.set_xlabel("ms")
        axis.set_title(f"{kind} texts", fontsize=10)
        axis.grid(axis="x", alpha=0.3)
    axes[0].legend()
    _save(figure, path)
