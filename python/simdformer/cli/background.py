# SPDX-License-Identifier: Apache-2.0
"""Work in a thread of its own, so that Ctrl-C is answered at once."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

T = TypeVar("T")


def in_background(items: Iterable[T], *, ahead: int = 2) -> Generator[T, None, None]:
    """Yield `items`, made by a daemon thread at most `ahead` items before they are asked for.

    Python answers signals in the main thread and only between bytecodes, and one forward pass may
    last a second. Waiting on a queue can be interrupted; the pass then goes on for nobody, and
    the thread ends with it. An exception raised by `items` is raised here.
    """
    done = object()
    results: queue.Queue[object] = queue.Queue(maxsize=ahead)
    failure: list[BaseException] = []
    abandoned = threading.Event()

    def produce() -> None:
        try:
            for item in items:
                results.put(item)
                if abandoned.is_set():
                    return
        except BaseException as error:  # noqa: BLE001  (handed to the consumer)
            failure.append(error)
        results.put(done)

    threading.Thread(target=produce, name="simdformer-cli", daemon=True).start()
    try:
        while (item := results.get()) is not done:
            yield item  # type: ignore[misc]
        if failure:
            raise failure[0]
    finally:
        abandoned.set()
        while not results.empty():  # a producer that waits for room may now see `abandoned`
            results.get_nowait()
