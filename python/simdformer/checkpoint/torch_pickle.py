# SPDX-License-Identifier: Apache-2.0
"""The tensors in the pickle of a torch.save file, which is never unpickled.

A pickle is a program, and Python's unpickler calls whatever the program names. This interpreter supports
only the instructions that torch.save writes for a dict of tensors, or a dict of such dicts, and can call
only three functions of its own. It imports nothing, sets no attributes and creates only constants,
tuples, dicts and StoredTensors. The instructions are described in Python's pickletools.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import FunctionType
from typing import Any

from simdformer.checkpoint.torch_tensors import (
    NAMES,
    Storage,
    StorageType,
    StoredTensor,
    is_size,
)

_LONGEST_NAME = 1000  # in bytes; error messages quote a name


def read_state_dict(pickled: bytes) -> dict[str, StoredTensor]:
    """The tensors of a state_dict by name.

    Errors: ValueError, with the reason only, if the pickle contains or does anything else. Time and memory
    are limited to a hundred bytes per byte of the pickle.
    """
    return tensors_of(_Machine(pickled).run())


def read_programs(pickled: bytes, count: int) -> tuple[list[object], int]:
    """The results of several pickles that follow one another, and the offset after the last one. Errors: as
    for read_state_dict."""
    machine = _Machine(pickled)
    return [machine.run() for _ in range(count)], machine.at


def tensors_of(state: object) -> dict[str, StoredTensor]:
    """The tensors by name in the result of a pickle. ValueError says what it contains instead."""
    if type(state) is not dict:
        raise ValueError(f"it contains a {type(state).__name__}, not tensors by name")
    _check_flat(state)
    for name, value in state.items():
        if type(name) is not str or type(value) is not StoredTensor:
            raise ValueError(f"{name!r} is a {type(value).__name__}, not a tensor")
    return state


def _check_flat(state: dict[Any, Any]) -> None:
    """A training checkpoint contains several dicts. ValueError names the one to use."""
    inner = {name: value for name, value in state.items() if type(value) is dict}
    tensors = {
        n: sum(type(x) is StoredTensor for x in value.values()) for n, value in inner.items()
    }
    if not any(tensors.values()):
        return
    best = max(tensors, key=lambda name: tensors[name])
    raise ValueError(
        f"it is a training checkpoint, whose tensors are in the nested dict {best!r}: save that alone,"
        f" torch.save(torch.load(path)[{best!r}], path)"
    )


class _Machine:
    """Interprets the instructions. Values are never compared or printed, because they may be nested
    arbitrarily deep."""

    def __init__(self, pickled: bytes) -> None:
        self._pickled = pickled
        self._at = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    @property
    def at(self) -> int:
        """The offset of the next byte."""
        return self._at

    def run(self) -> object:
        """Run one program and return the value on top of its stack. The next program begins after it."""
        self._stack, self._marks, self._memo = [], [], {}
        while (code := self._bytes(1)) != _STOP:
            if code not in _INSTRUCTIONS:
                raise ValueError(
                    f"the pickle has the instruction {code!r} at byte {self._at - 1}, which a dict of"
                    " tensors does not need; it is not run"
                )
            _INSTRUCTIONS[code](self)
        return self._pop()

    def _bytes(self, count: int) -> bytes:
        taken = self._pickled[self._at : self._at + count]
        if len(taken) < count:
            raise ValueError("the pickle is cut short")
        self._at += count
        return taken

    def _line(self) -> str:
        end = self._pickled.find(b"\n", self._at, self._at + _LONGEST_NAME)
        if end < 0:
            raise ValueError("the pickle has a name without an end")
        return self._bytes(end + 1 - self._at)[:-1].decode("utf-8", errors="replace")

    def _int(self, count: int, *, signed: bool = False) -> int:
        return int.from_bytes(self._bytes(count), "little", signed=signed)

    def _pop(self) -> Any:
        # the values below a mark belong to the mark
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise ValueError("the pickle takes a value where there is none")
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        if not self._marks:
            raise ValueError("the pickle takes a mark where there is none")
        mark = self._marks.pop()
        items = self._stack[mark:]
        del self._stack[mark:]
        return items

    def push(self, value: object) -> None:
        """Push a constant."""
        self._stack.append(value)

    def protocol(self) -> None:
        """Skip the version of the protocol."""
        version = self._int(1)
        if version != 2:
            raise ValueError(f"a pickle of protocol {version}; torch.save writes 2")

    def mark(self) -> None:
        """Begin a tuple or the items of a dict."""
        self._marks.append(len(self._stack))

    def integer(self, count: int, *, signed: bool = False) -> None:
        """Push an integer of a fixed number of bytes."""
        self._stack.append(self._int(count, signed=signed))

    def long(self) -> None:
        """Push an integer that follows its length."""
        self._stack.append(self._int(self._int(1), signed=True))

    def text(self) -> None:
        """Push a UTF-8 string that follows its length."""
        size = self._int(4)
        if size > _LONGEST_NAME:
            raise ValueError(
                f"a name of {size} bytes in the pickle; at most {_LONGEST_NAME} are read"
            )
        try:
            self._stack.append(self._bytes(size).decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(f"a name in the pickle is not UTF-8: {error.reason}") from error

    def put(self, count: int) -> None:
        """Store the topmost value under a number."""
        value = self._pop()
        self._stack.append(value)
        self._memo[self._int(count)] = value

    def get(self, count: int) -> None:
        """Push a stored value."""
        number = self._int(count)
        if number not in self._memo:
            raise ValueError(f"the pickle takes a value {number} that it did not keep")
        self._stack.append(self._memo[number])

    def tuple_of(self, count: int) -> None:
        """Make a tuple of the topmost values."""
        items = [self._pop() for _ in range(count)]
        self._stack.append(tuple(reversed(items)))

    def marked_tuple(self) -> None:
        """Make a tuple of the values since the mark."""
        self._stack.append(tuple(self._pop_to_mark()))

    def set_items(self, items: list[Any]) -> None:
        """Put alternating keys and values into the topmost dict."""
        target = self._pop()
        if type(target) is not dict or len(items) % 2:
            raise ValueError("the pickle puts items into something that is not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Checked before hashing: hashing a tuple nested a million deep would crash the process.
            if type(key) not in (str, int):
                raise ValueError(f"a dict in it has a {type(key).__name__} as its key, not a name")
            target[key] = value
        self._stack.append(target)

    def marked_items(self) -> None:
        """Take all values since the mark."""
        self.set_items(self._pop_to_mark())

    def one_item(self) -> None:
        """Take a key and a value."""
        value, key = self._pop(), self._pop()
        self.set_items([key, value])

    def append(self, items: list[Any]) -> None:
        """Append values to the topmost list."""
        target = self._pop()
        if type(target) is not list:
            raise ValueError("the pickle appends to something that is not a list")
        target.extend(items)
        self._stack.append(target)

    def one_value(self) -> None:
        """Take one value."""
        self.append([self._pop()])

    def marked_values(self) -> None:
        """Take all values since the mark."""
        self.append(self._pop_to_mark())

    def number(self) -> None:
        """Push a float64."""
        self._stack.append(struct.unpack(">d", self._bytes(8))[0])

    def attributes(self) -> None:
        """Set an object's attributes. A state_dict has only _metadata, which is not used."""
        self._pop()
        target = self._pop()
        if type(target) is not dict:
            raise ValueError("the pickle sets attributes of something that is not a dict")
        self._stack.append(target)

    def name(self) -> None:
        """Push the replacement for a name of a module. Other names are errors."""
        module, name = self._line(), self._line()
        if (module, name) not in NAMES:
            raise ValueError(
                f"the pickle asks for {f'{module}.{name}'!r}, which no dict of tensors needs; it is"
                " neither imported nor run"
            )
        self._stack.append(NAMES[module, name])

    def storage(self) -> None:
        """Push an array stored beside the pickle."""
        match self._pop():
            # The last element is None: views of other storages, which the format before 1.6 allowed, are
            # rejected.
            case ("storage", StorageType(dtype), str(key), str(), size, *rest) if is_size(
                size
            ) and rest in ([], [None]):
                self._stack.append(Storage(dtype, key, size))
            case _:
                raise ValueError("the pickle describes a storage in a way that torch.save does not")

    def call(self) -> None:
        """Call one of the functions in torch_tensors."""
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, FunctionType) or type(arguments) is not tuple:
            raise ValueError("the pickle calls something that is not a function")
        self._stack.append(function(*arguments))


_STOP = b"."
_INSTRUCTIONS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine.protocol,
    b"(": _Machine.mark,
    b"N": lambda machine: machine.push(None),
    b"\x88": lambda machine: machine.push(True),
    b"\x89": lambda machine: machine.push(False),
    b")": lambda machine: machine.push(()),
    b"}": lambda machine: machine.push({}),
    b"]": lambda machine: machine.push([]),
    b"a": _Machine.one_value,
    b"e": _Machine.marked_values,
    b"G": _Machine.number,
    b"K": lambda machine: machine.integer(1),
    b"M": lambda machine: machine.integer(2),
    b"J": lambda machine: machine.integer(4, signed=True),
    b"\x8a": _Machine.long,
    b"X": _Machine.text,
    b"q": lambda machine: machine.put(1),
    b"r": lambda machine: machine.put(4),
    b"h": lambda machine: machine.get(1),
    b"j": lambda machine: machine.get(4),
    b"\x85": lambda machine: machine.tuple_of(1),
    b"\x86": lambda machine: machine.tuple_of(2),
    b"\x87": lambda machine: machine.tuple_of(3),
    b"t": _Machine.marked_tuple,
    b"s": _Machine.one_item,
    b"u": _Machine.marked_items,
    b"b": _Machine.attributes,
    b"c": _Machine.name,
    b"Q": _Machine.storage,
    b"R": _Machine.call,
}
