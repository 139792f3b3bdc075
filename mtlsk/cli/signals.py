"""Ctrl-C, SIGTERM and SIGHUP: all stop a command in order, and the exit code says which it was."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from mtlsk.whole import STOPS

CAME: list[int] = []
"""Signals that came to the command that runs."""


def _stop(number: int, frame: FrameType | None) -> None:
    CAME.append(number)
    raise KeyboardInterrupt


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Let these signals raise KeyboardInterrupt inside, where this is the thread that gets them."""
    CAME.clear()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in STOPS:
            # a script's background jobs ignore Ctrl-C, and must go on doing so
            if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def go_on() -> None:
    """Raise KeyboardInterrupt if a signal came: skorch ends a fit quietly, and takes it."""
    if CAME:
        raise KeyboardInterrupt


def code() -> int:
    """Return the exit code of the signal that came: 128 and its number, as shells have it."""
    return 128 + (CAME[0] if CAME else signal.SIGINT)


def word() -> str:
    """Return what happened, in a word."""
    return "interrupted" if code() == 128 + signal.SIGINT else "terminated"
