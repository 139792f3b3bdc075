"""How a study goes: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from mtlsk.cli.terminal import is_terminal
from mtlsk.whole import whole

if TYPE_CHECKING:
    from mtlsk.study import Study
    from mtlsk.trials import Counts

LINE = 30.0
"""Seconds between two lines where there is no terminal."""

FORMAT = "{percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}] {desc}"

LOOK = 2.0
"""Seconds, at least, between two looks at the front: each reads the storage."""


class Progress:
    """Told the counts now and then, shows them on stderr.

    Parameters
    ----------
    study : Study
    quiet : bool
        Show nothing.
    """

    def __init__(self, study: Study, *, quiet: bool) -> None:
        self.study = study
        self.quiet = quiet
        self.bar: Any = None
        self.line: tuple[float, int] = (time.monotonic(), 0)
        self.first: int | None = None
        self.began: tuple[float, int] | None = None
        self.volume: float | None = None
        self.looked: tuple[float, int] = (-LOOK, 0)

    def __enter__(self) -> Self:
        if not self.quiet and is_terminal(sys.stderr):
            from tqdm import tqdm

            total = sum(self.study.wanted.values())
            sized = all(os.get_terminal_size(sys.stderr.fileno()))
            # a terminal that does not say how large it is would get no bar at all
            size: dict[str, Any] = {"dynamic_ncols": True} if sized else {"ncols": 100, "nrows": 20}
            self.bar = tqdm(total=total, leave=False, bar_format=FORMAT, **size)
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, counts: Mapping[str, Counts], wanted: Mapping[str, int]) -> None:
        """Show how far every study is."""
        if self.quiet:
            return
        done = sum(min(c.done, wanted[w]) for w, c in counts.items())
        now = time.monotonic()
        if self.first is None:
            self.first = done
        if self.began is None and done > self.first:  # before, workers start
            self.began = now, done
        if self.bar is not None:
            self.look(counts, now)
            if self.bar.n == 0 and self.bar.initial == 0:
                self.bar.initial = done  # of an earlier run: it tells nothing of how fast this is
            self.bar.n = done
            self.bar.total = sum(wanted.values())
            self.bar.set_description_str(self.text(counts, wanted))
        elif now - self.line[0] >= LINE and done > self.line[1]:
            self.look(counts, now)
            self.line = now, done
            left = self.left(now, done, sum(wanted.values()))
            print(f"{self.text(counts, wanted)}{left}", file=sys.stderr, flush=True)

    def look(self, counts: Mapping[str, Counts], now: float) -> None:
        """Read the front anew where trials have ended since."""
        complete = sum(c.complete for c in counts.values())
        if complete == self.looked[1] or now - self.looked[0] < LOOK:
            return
        from mtlsk.choosing import hypervolume_so_far
        from mtlsk.storage import StorageError

        with whole(), contextlib.suppress(StorageError):  # another look comes soon
            self.volume = hypervolume_so_far(self.study.results(patience=0.0))
        self.looked = time.monotonic(), complete

    def text(self, counts: Mapping[str, Counts], wanted: Mapping[str, int]) -> str:
        """Return the hypervolume, what failed, and the counts of every study."""
        failed = sum(c.failed for c in counts.values())
        parts = [f"hypervolume {self.volume:.3f}"] if self.volume is not None else []
        parts += [f"{failed} failed"] if failed else []
        parts += [f"{which} {c.done}/{wanted[which]}" for which, c in counts.items()]
        return ", ".join(parts)

    def left(self, now: float, done: int, total: int) -> str:
        """Return how much time is left at the pace so far."""
        if self.began is None:
            return ""
        seconds, trials = now - self.began[0], done - self.began[1]
        if trials <= 0 or total <= done:
            return ""
        return f", about {duration(seconds / trials * (total - done))} left"


def duration(seconds: float) -> str:
    """Return seconds in words: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
