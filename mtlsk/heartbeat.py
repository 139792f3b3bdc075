"""Heartbeat: signs of life of several trials, sent by one thread."""

from __future__ import annotations

import contextlib
import threading
from typing import Self

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from mtlsk.storage import PatientStorage, StorageError

NOT_TAKEN = (StorageError, SQLAlchemyError, StorageInternalError)


class Heartbeat:
    """A thread that says of each of its trials that somebody runs it, at the storage's interval.

    ``Study.optimize`` does this for the one trial it runs, ``Study.ask`` does not. A sign that the
    storage does not take is left out: the next comes long before the grace period is over.

    Parameters
    ----------
    storage : PatientStorage
        With a heartbeat interval.
    """

    def __init__(self, storage: PatientStorage) -> None:
        interval = storage.get_heartbeat_interval()
        assert interval is not None
        self.storage = storage
        self.interval = interval
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.trial_ids: set[int] = set()
        self.thread = threading.Thread(target=self._beat, daemon=True)

    def add(self, trial_id: int) -> None:
        """Send the first sign of a trial, now, and the others from the thread."""
        with self.lock:
            self.trial_ids.add(trial_id)
        with contextlib.suppress(*NOT_TAKEN):
            self.storage.record_heartbeat(trial_id)

    def drop(self, trial_id: int) -> None:
        """Send no more signs of a trial: it ended."""
        with self.lock:
            self.trial_ids.discard(trial_id)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.ended.set()
        self.thread.join()

    def _beat(self) -> None:
        while not self.ended.wait(self.interval):
            with self.lock:
                beating = sorted(self.trial_ids)
            for trial_id in beating:
                with contextlib.suppress(*NOT_TAKEN):
                    self.storage.record_heartbeat(trial_id)
        self.storage.remove_session()  # this thread's own
