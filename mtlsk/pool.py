"""Worker processes and who gives them work.

Each worker is a process of its own, fed by a thread of the parent through a pipe: one that dies
takes the trials it runs with it, nothing else. They stay in the parent's process group, end with
it (at the latest with what they run, should the parent be killed), and share the cores among them:
torch threads that add up to more than the cores fight.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from mtlsk.studyfile import StudyError

# Ctrl-C and the end of a terminal reach the whole process group; a worker leaves them to the
# parent, from its first line on
START = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "hasattr(signal, 'SIGHUP') and signal.signal(signal.SIGHUP, signal.SIG_IGN); "
    "from mtlsk.worker import main; main()"
)
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C inside, where this is the thread that gets it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


Say = Callable[[str], None]


class Work(NamedTuple):
    """Trials for one worker: of which study, and how many at most."""

    which: str
    trials: int


LONGEST = 3.0
"""Seconds between two looks at how a study goes, at most."""


class WorkerDiedError(RuntimeError):
    """A worker process ended without an answer.

    Attributes
    ----------
    wished : bool
        Whether somebody ended it by SIGTERM, and not the trial it ran.
    """

    def __init__(self, code: int, last: str) -> None:
        super().__init__(f"a worker ended with code {code}{last}")
        self.wished = code == -signal.SIGTERM


class WorkerProcess:
    """One worker: a process and its pipe; ``say`` is told what the process has to say."""

    def __init__(self, job: dict[str, Any], say: Say) -> None:
        self.say = say
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (lives as long as the worker)
        threads = str(job["threads"])
        self.process = subprocess.Popen(
            [sys.executable, "-c", START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={
                **os.environ,
                **dict.fromkeys(THREAD_VARIABLES, threads),
                "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            },
        )
        self.threads: int | None = None
        self.job = job

    def start(self) -> None:
        """Send the study and wait until the worker has loaded it."""
        self.threads = self.ask(self.job)["threads"]

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send one line and return the answer.

        Raises
        ------
        WorkerDiedError
            If the process ends instead.
        StudyError
            If it answers with an error.
        """
        line = self._answer(message)
        if not line:
            self.process.wait()
            self.errors.seek(0)
            said = [text for text in self.errors.read().splitlines() if text.strip()]
            last = f": {said[-1]}" if said else ""
            raise WorkerDiedError(self.process.returncode, last)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise StudyError(answer["error"])
        return answer

    def _answer(self, message: dict[str, Any]) -> str:
        """Send one line and return the one that answers it, "" if there is none."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
            for line in self.process.stdout:
                said = json.loads(line).get("say")
                if said is None:
                    return line
                self.say(said)
        return ""

    def stop(self) -> None:
        """End the process, now if it does not by itself, and wait for it."""
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.errors.close()


class Pool:
    """N workers that run what ``next_work`` hands out until it has nothing left.

    Parameters
    ----------
    job : dict
        The first line of each worker; ``threads`` is its number of torch threads.
    n_workers : int
    next_work : callable
        (the study of each trial that this pool has in flight, its workers' process ids) -> the
        next work, or None when there is nothing to do now. It is called under one lock.
    on_death : callable
        Called after a worker died, under the same lock: (its process id, or None where somebody
        wished it to).
    on_stop : callable
        Called before the workers are stopped, where it is not because there is no work left.
    say : callable
        Told what workers have to say, from any thread.
    max_deaths : int
        How many workers may die in a row, without a trial ending between, before the pool gives up.
    """

    def __init__(
        self,
        job: dict[str, Any],
        n_workers: int,
        next_work: Callable[[list[str], set[int]], Work | None],
        on_death: Callable[[int | None], None],
        *,
        on_stop: Callable[[], None] = lambda: None,
        say: Say = print,
        max_deaths: int = 3,
    ) -> None:
        self.job = job
        self.next_work = next_work
        self.on_death = on_death
        self.on_stop = on_stop
        self.say = say
        self.max_deaths = max_deaths
        self.changed = threading.Condition()
        self.in_flight: dict[int, Work] = {}
        self.workers: dict[int, WorkerProcess] = {}
        self.deaths = 0
        self.failure: Exception | None = None
        self.stopping = False
        self.threads = [
            threading.Thread(target=self._serve, args=(i,), daemon=True) for i in range(n_workers)
        ]

    def run(self, tick: Callable[[], None], *, interval: float = 0.2) -> None:
        """Run until there is no work left, calling ``tick`` now and then in this thread.

        On any exception, KeyboardInterrupt included, the workers are stopped and it propagates.
        """
        try:
            for thread in self.threads:
                thread.start()
            while any(thread.is_alive() for thread in self.threads):
                begun = time.monotonic()
                tick()
                # of a study of many trials it takes its time, which is the workers'; and one that
                # waited for a storage says nothing of the next
                time.sleep(min(max(interval, 20 * (time.monotonic() - begun)), LONGEST))
            if self.failure is not None:
                raise self.failure
        except BaseException:
            self.on_stop()
            raise
        finally:
            self.stopping = True
            with _no_interrupts():  # a second Ctrl-C must not leave workers behind
                self._stop()

    def _stop(self) -> None:
        for worker in list(self.workers.values()):
            worker.stop()
        for thread in self.threads:
            if thread.ident is not None:
                thread.join(10)

    def _serve(self, index: int) -> None:
        try:
            while (work := self._take(index)) is not None:
                self._do(index, work)
        except Exception as error:
            with self.changed:
                if not self.stopping:
                    self.failure = self.failure or error
        finally:
            with self.changed:
                self.in_flight.pop(index, None)
                self.changed.notify_all()

    def _take(self, index: int) -> Work | None:
        """Return the next work, waiting while others may still give some back."""
        with self.changed:
            self.in_flight.pop(index, None)
            self.changed.notify_all()
            while not self.stopping and self.failure is None:
                pids = {worker.process.pid for worker in self.workers.values()}
                trials = [w.which for w in self.in_flight.values() for _ in range(w.trials)]
                work = self.next_work(trials, pids)
                if work is not None:
                    self.in_flight[index] = work
                    return work
                if not self.in_flight:
                    return None
                self.changed.wait(1.0)
            return None

    def _do(self, index: int, work: Work) -> None:
        try:
            if index not in self.workers:
                worker = WorkerProcess(self.job, self.say)
                self.workers[index] = worker
                if self.stopping:  # stop() may have looked before it was there
                    worker.stop()
                    return
                worker.start()
            self.workers[index].ask(work._asdict())
            self.deaths = 0
        except WorkerDiedError as error:
            if self.stopping:
                return
            with self.changed:
                worker = self.workers.pop(index)
                worker.stop()
                self.deaths += 1
                if self.deaths >= self.max_deaths:
                    raise StudyError(f"{error}; gave up after {self.deaths} in a row") from None
                self.on_death(None if error.wished else worker.process.pid)
