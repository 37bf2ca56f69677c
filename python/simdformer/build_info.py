# SPDX-License-Identifier: Apache-2.0
"""Information about this installation, for bug reports."""

from __future__ import annotations

from typing import Any, Literal, overload

from simdformer import _core

# Levels where int8 is faster than float32 (docs/quantization.md): those with an instruction that
# multiplies int8, and avx2.
_INT8_LEVELS = ("avx2", "avx2_vnni", "avx512_vnni", "avx512_amx", "neon_dot", "neon_i8mm")


def auto_compute_type() -> Literal["float32", "int8"]:
    """The compute type of "auto" at the active instruction set level."""
    return "int8" if _core.active_isa() in _INT8_LEVELS else "float32"


@overload
def show_config(mode: Literal["stdout"] = ...) -> None: ...
@overload
def show_config(mode: Literal["dicts", "dict"]) -> dict[str, Any]: ...
def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Print version, instruction sets, threads, compute type and compiler, as numpy.show_config does.

    Parameters
    ----------
    mode
        "stdout" prints; "dicts" (or "dict") returns a dictionary instead.

    Returns
    -------
    dict or None
        The configuration, if mode is "dicts".

    Raises
    ------
    ValueError
        If mode is unknown.

    Examples
    --------
    >>> import simdformer
    >>> sorted(simdformer.show_config("dicts"))
    ['auto_compute_type', 'compiler', 'isa', 'threads', 'version']
    """
    if mode not in ("stdout", "dicts", "dict"):
        raise ValueError(f"unknown mode {mode!r}; known: stdout, dicts")
    from simdformer import __version__

    config = {
        "version": __version__,
        "isa": {
            "active": _core.active_isa(),
            "available": _core.available_isas(),
            "compiled": _core.compiled_isas(),
        },
        "threads": {
            "count": _core.num_threads(),
            "source": _core.num_threads_source(),
            "provider": _core.thread_provider(),
        },
        "auto_compute_type": auto_compute_type(),
        "compiler": _core.compiler(),
    }
    if mode != "stdout":
        return config
    print(
        f"simdformer {__version__}\n"
        f"isa:      {_core.active_isa()} (available: {', '.join(_core.available_isas())};"
        f" compiled: {', '.join(_core.compiled_isas())})\n"
        f"threads:  {_core.num_threads()} ({_core.num_threads_source()}; {_core.thread_provider()})\n"
        f"compute_type auto: {auto_compute_type()}\n"
        f"compiler: {_core.compiler()}"
    )
    return None
