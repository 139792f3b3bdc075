"""Trials in an Optuna storage: opening it, counting what is done, failing what was abandoned."""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import joblib
import numpy as np
import optuna
import psutil
from numpy.typing import NDArray
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from mtlsk.outcome import BASELINES, SEARCH
from mtlsk.storage import PATIENCE, PatientStorage, StorageError
from mtlsk.studyfile import StudyError
from mtlsk.trouble import first_line

SCHEMA = 2
"""Version of what this package stores in a study; another one is refused."""

HEARTBEAT, GRACE = 10, 60
"""Seconds between the signs of life of a trial, and without one before it counts as lost."""

OPENING = 10.0
"""Seconds for which a command waits for a storage that it opens: most likely it is misspelt."""

BUSY = 5
"""Seconds that SQLite itself waits for a lock: with several workers others write now and then."""

OWNERLESS = 10
"""Seconds that a trial may run without having said whose it is: that takes milliseconds."""

MAX_LOST = 3
"""Times that the worker of one and the same trial may die before the trial counts as failed."""

NO_DRAW = ("draw", "surplus")
"""Attributes of trials that are no draw of their own: run again, or more than were wanted."""

optuna.logging.set_verbosity(optuna.logging.ERROR)


def study_names(name: str) -> dict[str, str]:
    """Return the names of a study and its baselines in the storage."""
    return {SEARCH: name} | {which: f"{name}/baselines/{which}" for which in BASELINES}


def open_storage(
    url: str, *, patience: float = OPENING, say: Callable[[str], None] | None = None
) -> PatientStorage:
    """Open a storage with heartbeat.

    Parameters
    ----------
    url : str
        SQLAlchemy's; ``postgresql://`` takes the driver that is installed, psycopg 3 or 2.
    patience : float
        Seconds for which a database that does not answer is tried again now.
    say : callable or None
        Told of trouble in one line, now and later; by default it is printed on stderr.

    Raises
    ------
    StudyError
        For a database that is not there, is none of Optuna's, or is another version's.
    """
    try:
        named = with_driver(url)
        sqlite = named.startswith("sqlite")
        # SQLite waits for a lock by itself; another connection may be closed by its server
        engine = {"connect_args": {"timeout": BUSY}} if sqlite else {"pool_pre_ping": True}
        for attempt in range(10):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                    storage = PatientStorage(
                        named,
                        patience=patience,
                        say=say or say_on_stderr,
                        engine_kwargs=engine,
                        heartbeat_interval=HEARTBEAT,
                        grace_period=GRACE,
                        heartbeat_stale_trial_callback=requeue,
                    )
                storage.patience = PATIENCE
                return storage
            except (DBAPIError, AssertionError):
                # another process may be making the tables at this moment
                if attempt == 9 or not _exists(url):
                    raise
                time.sleep(0.2)
        raise AssertionError("not reached")
    except RuntimeError as error:  # Optuna's own check of its tables
        raise StudyError(
            f"the storage was written by another version of optuna ({first_line(error)}); "
            "use that version, or another --storage or --out"
        ) from None
    except (SQLAlchemyError, ImportError, ValueError, AssertionError, StorageError) as error:
        raise StudyError(f"the storage cannot be opened: {_why_closed(error)}") from None


def _why_closed(error: Exception) -> str:
    if isinstance(error, StorageError):
        return str(error)
    if isinstance(error, ImportError):
        return "its driver is not installed; for PostgreSQL: pip install 'mtlsk[postgresql]'"
    return (
        f"{first_line(error)}; give --storage a URL like sqlite:///study.db or "
        "postgresql://user@host/database"
    )


def with_driver(url: str) -> str:
    """Return a URL that names the driver of PostgreSQL, where it does not."""
    kind, colon, rest = url.partition("://")
    if kind not in ("postgresql", "postgres"):
        return url
    old = find_spec("psycopg") is None and find_spec("psycopg2") is not None
    return f"postgresql+{'psycopg2' if old else 'psycopg'}{colon}{rest}"


def say_on_stderr(text: str) -> None:
    """Print a line beside what else is printed."""
    from tqdm import tqdm

    tqdm.write(f"mtlsk: {text}", file=sys.stderr)  # above a bar, where there is one


def _exists(url: str) -> bool:
    """Say whether the file of an SQLite URL is there; other databases are taken to be."""
    return not url.startswith("sqlite:///") or os.path.exists(url.removeprefix("sqlite:///"))


def load_study(storage: RDBStorage, name: str, sampler: Any = None) -> optuna.Study:
    """Open a study that exists."""
    return optuna.load_study(study_name=name, storage=storage, sampler=sampler)


def host_digest() -> str:
    """Return a name for this machine that does not tell its name."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:16]


def owner() -> dict[str, Any]:
    """Return who this process is: machine (a digest), process id and start time."""
    process = psutil.Process()
    return {"host": host_digest(), "pid": process.pid, "started": process.create_time()}


def is_gone(trial: FrozenTrial) -> bool:
    """Say whether the process that ran a trial is known not to run any more.

    Trials of other machines are left to their heartbeat; one that never said whose it is counts
    as abandoned after the grace period.
    """
    who = trial.user_attrs.get("owner")
    if who is None:
        began = trial.datetime_start or datetime.datetime.now()
        return (datetime.datetime.now() - began).total_seconds() > OWNERLESS
    if who["host"] != host_digest():
        return False
    try:
        process = psutil.Process(who["pid"])
        running = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return not running or abs(process.create_time() - who["started"]) > 1.0
    except psutil.NoSuchProcess:
        return True


def draw_of(study: optuna.Study, trial: FrozenTrial) -> int:
    """Return which draw of its study a trial is: 0, 1, ... without those that are run again.

    What a sampler draws depends on it, so a study in which trials were lost draws what it would
    have drawn otherwise: a trial that is run again keeps its draw, and the others are numbered as
    if it had no number of its own, as they are if there was one more than wanted.
    """
    if "draw" in trial.user_attrs:
        return int(trial.user_attrs["draw"])
    earlier = study.get_trials(deepcopy=False)[: trial.number]
    return trial.number - sum(not t.user_attrs.keys().isdisjoint(NO_DRAW) for t in earlier)


def requeue(study: optuna.Study, trial: FrozenTrial) -> None:
    """Put the parameters of a trial that was failed back in the queue: it will be run again."""
    study.add_trial(successor(study, trial, trial.user_attrs.get("lost", 0)))


def successor(study: optuna.Study, trial: FrozenTrial, lost: int) -> FrozenTrial:
    """Return the queued trial that runs another one again."""
    params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    return optuna.trial.create_trial(
        state=TrialState.WAITING,
        system_attrs={"fixed_params": params},
        user_attrs={"lost": lost, "draw": draw_of(study, trial)},
    )


def fail_abandoned(study: optuna.Study, *, died: int | None = None) -> int:
    """Fail the RUNNING trials whose owner is gone, queue them again, and return how many.

    ``died`` is the process id of an owner that did not end on anybody's wish: a trial that has
    brought down ``MAX_LOST`` workers is not run again but counts as failed.
    """
    count = 0
    storage = study._storage
    database: PatientStorage = storage._backend  # type: ignore[attr-defined]  # behind a cache
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if is_gone(trial):
            who = trial.user_attrs.get("owner", {})
            lost = trial.user_attrs.get("lost", 0)
            lost += int(died is not None and who.get("pid") == died)
            try:
                storage.set_trial_user_attr(trial._trial_id, "lost", lost)
                if lost >= MAX_LOST:
                    text = f"lost: its worker died {lost} times"
                    storage.set_trial_user_attr(trial._trial_id, "failed", text)
                    mine = storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
                else:
                    again = successor(study, trial, lost)
                    mine = database.fail_and_queue(study._study_id, trial._trial_id, again)
            except optuna.exceptions.UpdateFinishedTrialError:
                continue  # it ended, or another process was first
            count += int(mine)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    return count


@dataclass(frozen=True)
class Counts:
    """How many trials of a study are complete, failed by themselves, running, and pruned."""

    complete: int
    failed: int
    running: int
    pruned: int = 0

    @property
    def begun(self) -> int:
        """Trials that ran or run."""
        return self.done + self.running

    @property
    def done(self) -> int:
        """Trials that count towards the total; lost and interrupted ones do not."""
        return self.complete + self.failed + self.pruned


def count(study: optuna.Study) -> Counts:
    """Count the trials of a study."""
    trials = study.get_trials(deepcopy=False)
    of = Counter([t.state for t in trials])
    return Counts(
        complete=of[TrialState.COMPLETE],
        failed=sum("failed" in t.user_attrs for t in trials if t.state is TrialState.FAIL),
        running=of[TrialState.RUNNING],
        pruned=of[TrialState.PRUNED],
    )


def signs(study: optuna.Study) -> NDArray[np.float64]:
    """Return what makes lower better in every objective, (m,): 1 or -1 each."""
    maximised = [d is StudyDirection.MAXIMIZE for d in study.directions]
    return np.where(maximised, -1.0, 1.0)


def minimised(study: optuna.Study) -> tuple[list[int], NDArray[np.float64]]:
    """Return numbers and objectives (n, m) of complete trials, lower is better, as they ended."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    trials.sort(key=lambda t: (t.datetime_complete or datetime.datetime.max, t.number))
    values = np.array([t.values for t in trials], dtype=np.float64)
    values = values.reshape(len(trials), len(study.directions))
    return [t.number for t in trials], values * signs(study)


def failed(study: optuna.Study) -> list[int]:
    """Return the numbers of the trials that failed, by themselves or with their worker."""
    found = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    return [t.number for t in found]


def wait_until_none_runs(studies: list[optuna.Study], *, interval: float = 0.5) -> None:
    """Return when no trial of the studies is RUNNING, failing those whose owner is gone."""
    while True:
        for study in studies:
            fail_abandoned(study)
        if not any(count(study).running for study in studies):
            return
        time.sleep(interval)


def cores() -> int:
    """Return the number of cores this process may use."""
    found: int = joblib.cpu_count()  # minds what a container or a batch system leaves it
    return found
