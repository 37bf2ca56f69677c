# SPDX-License-Identifier: Apache-2.0
"""Matches the values given to `load_state_dict` with the parameters of a module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from simdformer.checkpoint import Checkpoint
from simdformer.nn.parameters import Stored, as_slot, shape_of

State: TypeAlias = Mapping[str, Any]

# A training counter that torch's BatchNorm saves. It is kept if present, but not required.
_COUNTER = "num_batches_tracked"


class IncompatibleKeys(NamedTuple):
    """Keys that `load_state_dict(strict=False)` could not match.

    Parameters
    ----------
    missing_keys, unexpected_keys
        Parameters without a value, and values without a parameter.

    Examples
    --------
    >>> from simdformer import nn
    >>> nn.Linear(2, 2).load_state_dict({}, strict=False).missing_keys
    ['weight', 'bias']
    """

    missing_keys: list[str]
    unexpected_keys: list[str]


class Wanted(NamedTuple):
    """A parameter of the module: the value of its place, and whether it may be an Int8Matrix."""

    slot: Any
    is_matrix: bool


@contextmanager
def opened_state(source: State | str | Path) -> Iterator[State]:
    """The given `{name: array}`, or that of a checkpoint, whose tensors are read one by one."""
    if isinstance(source, Mapping):
        yield source
        return
    if not isinstance(source, (str, Path)):
        raise TypeError(
            f"state_dict must map names to arrays or be a path, got {type(source).__name__}"
        )
    with Checkpoint(Path(source)) as checkpoint:
        names = [name for name in checkpoint.names() if not name.endswith(_COUNTER)]
        yield {
            name: _InFile(checkpoint.shape(name), partial(checkpoint.read, name)) for name in names
        }


class _InFile(Stored):
    """A tensor of a file that is only open during the call."""


def match_state(
    wanted: Mapping[str, Wanted], state: State, *, strict: bool, kind: str
) -> tuple[dict[str, Any], IncompatibleKeys]:
    """The new values of the parameters' places, and the keys without a match.

    Errors: ValueError listing everything that does not match.
    """
    if nested := [name for name, value in state.items() if isinstance(value, Mapping)]:
        best = max(nested, key=lambda name: len(wanted.keys() & state[name].keys()))
        raise ValueError(
            f"state_dict of {kind} contains dictionaries, {', '.join(map(repr, nested))}, as training"
            f" checkpoints do: pass state_dict[{best!r}]"
        )
    missing = [n for n in wanted if n not in state and not n.endswith(_COUNTER)]
    unexpected = [name for name in state if name not in wanted]
    problems = []
    if strict and missing:
        problems.append(f"missing keys: {', '.join(missing)}")
    if strict and unexpected:
        problems.append(f"unexpected keys: {', '.join(unexpected)}")
    given = [name for name in wanted if name in state]
    for name in given:
        found, needed = shape_of(state[name]), shape_of(wanted[name].slot)
        if found != needed:
            problems.append(f"{name} has shape {found}, the module needs {needed}")
    if problems:
        raise ValueError(f"state_dict does not fit {kind}: {'; '.join(problems)}")
    slots = {name: _slot(name, state[name], *wanted[name]) for name in given}
    return slots, IncompatibleKeys(missing, unexpected)


def _slot(name: str, value: Any, old: Any, is_matrix: bool) -> Any:
    if isinstance(value, _InFile):
        value = value.array()
    return as_slot(name, value, old, is_matrix=is_matrix)
