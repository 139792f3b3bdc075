"""Steps that a signal must not cut in two."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

# a closed terminal sends SIGHUP, which Windows lacks
STOPS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
"""Signals that stop a command in order."""


@contextlib.contextmanager
def whole(hurry: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Let ``STOPS`` wait until the block is done, where this is the thread that gets them.

    A database that is read in this moment would stay locked by what was begun.

    Parameters
    ----------
    hurry : callable
        Called when a signal comes, so that the block waits for nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        hurry()

    # ignored ones stay so, and those that Python did not set cannot be set again
    heard = [n for n in STOPS if signal.getsignal(n) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
