"""Check the docstrings of all public names with numpydoc; print each problem and exit with 1 if any.

    python tools/check_docstrings.py

Classes and functions need a summary, Parameters, Returns and Examples sections. Methods need a summary;
the sections that they have are checked as well. Types are in the annotations.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from enum import Enum
from typing import Any

MODULES = (
    "simdformer",
    "simdformer.functional",
    "simdformer.nn",
    "simdformer.nn.initialization",
    "simdformer.nn.parameters",
    "simdformer.generation",
    "simdformer.explain",
    "simdformer.util",
    "simdformer.util.late_interaction",
    "simdformer.ray",
)
# Codes of numpydoc (numpydoc.validate.ERROR_MSGS) that are not applied: docstrings start on the line of the
# quotes; summaries and descriptions may start with a formula or a dtype; parameters may be grouped in another
# order; no extended summary, types or See Also are required.
IGNORED = {"GL01", "GL02", "SS02", "SS05", "ES01", "PR03", "PR04", "PR06", "PR08", "RT02", "RT04"}
IGNORED |= {"SA01", "SA04"}
# Not required for methods, and for classes of results, which have an Attributes section instead.
IGNORED_OF_OTHERS = {*IGNORED, "PR01", "RT01", "YD01", "EX01"}


def public_objects(module: str) -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, object) of the classes and functions in __all__ and of their methods."""
    home = importlib.import_module(module)
    for name in home.__all__:
        thing = getattr(home, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            yield f"{module}.{name}", thing
        if inspect.isclass(thing):
            yield from methods(f"{module}.{name}", thing)


def methods(prefix: str, owner: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties that a class or its bases in this package define."""
    for name in sorted(dir(owner)):
        home = next((base for base in owner.__mro__ if name in vars(base)), object)
        member = vars(home).get(name)
        is_method = isinstance(member, property | staticmethod | classmethod)
        if name.startswith("_") or not home.__module__.startswith("simdformer"):
            continue
        if is_method or inspect.isfunction(member):
            yield f"{prefix}.{name}", getattr(owner, name)


def is_required(thing: Any) -> bool:
    """Return whether a class or function needs all sections."""
    return not inspect.isclass(thing) or not (
        issubclass(thing, Enum)
        or "Attributes\n" in (thing.__doc__ or "").partition("Parameters\n")[0]
    )


def problems(name: str, all_sections: bool) -> list[str]:
    """Return what numpydoc finds in one docstring."""
    from numpydoc.validate import validate

    ignored = IGNORED if all_sections else IGNORED_OF_OTHERS
    return [f"{code}: {text}" for code, text in validate(name)["errors"] if code not in ignored]


def main() -> int:
    """Check all modules."""
    count = 0
    for module in MODULES:
        for name, thing in public_objects(module):
            is_method = name.count(".") > module.count(".") + 1
            for problem in problems(name, not is_method and is_required(thing)):
                print(f"{name}: {problem}")
                count += 1
    return min(count, 1)


if __name__ == "__main__":
    sys.exit(main())
