"""in_background: the same items in the same order, made no further ahead than allowed."""

from __future__ import annotations

import threading
import time

import pytest

from simdformer.cli.background import in_background


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.001)


def workers():
    return [t for t in threading.enumerate() if t.name == "simdformer-cli"]


def test_items_come_in_order():
    assert list(in_background(range(1000))) == list(range(1000))


def test_items_are_made_in_another_thread():
    names = in_background(threading.current_thread().name for _ in range(3))
    assert set(names) == {"simdformer-cli"}


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        raise ValueError("broken")

    got = in_background(items())
    assert next(got) == 1
    with pytest.raises(ValueError, match="broken"):
        next(got)


def test_no_more_than_ahead_items_wait():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            yield i

    got = in_background(items(), ahead=2)
    next(got)
    wait_until(lambda: len(made) == 4)  # one taken, two in the queue, one in the thread's hand
    time.sleep(0.05)
    assert len(made) == 4
    got.close()


def test_the_thread_ends_when_nobody_wants_more():
    def items():
        while True:
            yield 0

    got = in_background(items())
    next(got)
    got.close()
    wait_until(lambda: not workers())
