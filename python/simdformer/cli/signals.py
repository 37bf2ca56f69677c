# SPDX-License-Identifier: Apache-2.0
"""Signals that end the command reliably.

Python can lose the exception of a signal handler in two ways: it is raised in a callback that cannot
raise (each import has such callbacks, for weak references to its lock), or the signal arrives just before
a blocking read. So a thread sends the signal again until the command stops.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from typing import NoReturn

# Much longer than it takes to unwind the stack and remove a temporary file.
_GRACE_SECONDS = 0.5

_stopping = threading.Event()


class Terminated(KeyboardInterrupt):
    """SIGTERM: unwinds the stack as Ctrl-C does, so that temporary files are removed."""


def watch() -> None:
    """Make SIGTERM raise Terminated, and repeat SIGINT and SIGTERM until `stopping` is called."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _report_all_but_signals
    numbers, wakeup = os.pipe()
    if sys.platform != "win32":
        os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    threading.Thread(target=_repeat, args=(numbers,), daemon=True).start()


def stopping() -> None:
    """The signal has reached the command; stop repeating it."""
    _stopping.set()


def _terminate(*_: object) -> NoReturn:
    raise Terminated


def _repeat(numbers: int) -> None:
    while True:
        number = os.read(numbers, 1)[0]
        if number not in (signal.SIGINT, signal.SIGTERM):
            continue
        while not _stopping.wait(_GRACE_SECONDS):
            if sys.platform == "win32":
                _thread.interrupt_main(number)
            else:
                signal.pthread_kill(threading.main_thread().ident or 0, number)


def _report_all_but_signals(unraisable: sys.UnraisableHookArgs) -> None:
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
