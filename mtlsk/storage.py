"""An Optuna storage that outlives a database that is away, locked or full for a while."""

from __future__ import annotations

import contextlib
import copy
import datetime
import functools
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import text
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_delay,
    stop_any,
    stop_when_event_set,
    wait_exponential,
    wait_random,
)

from mtlsk.pending import Pending
from mtlsk.trouble import Trouble, reason, trouble

PATIENCE = 120.0
"""Seconds for which an operation is tried again: restarts of databases take less."""

ONCE = "mtlsk:once"
"""Attribute that tells whether a trial of an earlier try is there already."""

T = TypeVar("T")
Say = Callable[[str], None]


class StorageError(OSError):
    """The storage took nothing for as long as it was worth while to try."""


class Sparing:
    """Say each line once while it holds: what several workers find they say together."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.lock = threading.Lock()
        self.said: dict[str, float] = {}

    def __call__(self, text: str) -> None:
        """Say a line unless it was said within the last ``PATIENCE`` seconds."""
        with self.lock:
            now = time.monotonic()
            if now - self.said.get(text, -PATIENCE) >= PATIENCE:
                self.said[text] = now
                self.say(text)


class PatientStorage(RDBStorage):
    """Optuna's RDBStorage, whose operations are tried again where waiting may help.

    The pauses grow from 0.2 to 5 s. What an earlier try may have stored although its connection
    broke is recognised: a trial that ended, one that was queued.

    Parameters
    ----------
    url : str
    patience : float
        Seconds for which an operation is tried again.
    say : callable
        Told in one line when the trouble begins.
    options
        Of RDBStorage.

    Attributes
    ----------
    give_up : threading.Event
        When it is set nothing is tried again any more, from any thread.
    """

    def __init__(self, url: str, *, patience: float, say: Say, **options: Any) -> None:
        self.patience = patience
        self.say = say
        self.give_up = threading.Event()
        self._troubled = -float("inf")
        self._once = threading.local()
        self.attempt(lambda: super(PatientStorage, self).__init__(url, **options))

    def attempt(self, operation: Callable[[], T]) -> T:
        """Return what an operation returns, trying again where that may help.

        Raises
        ------
        StorageError
            In one line, if it does not help.
        """
        try:
            return operation()
        except Exception as error:
            found = trouble(error)
            if found is None:
                raise
            self._troubled = time.monotonic()
            if not found.may_pass or not self.patience or self.give_up.is_set():
                raise StorageError(explain(found, error)) from error
            self.say(f"{found.value}; trying again for {self.patience:.0f} s")
        again = Retrying(
            retry=retry_if_exception(self._may_pass),
            wait=wait_exponential(multiplier=0.2, max=5) + wait_random(0, 0.2),
            stop=stop_any(stop_after_delay(self.patience), stop_when_event_set(self.give_up)),
            sleep=sleep_using_event(self.give_up),
            retry_error_callback=_unwrapped,
        )
        self.give_up.wait(0.2)
        result: T = again(self._noted, operation)
        return result

    def _noted(self, operation: Callable[[], T]) -> T:
        """Run an operation that had trouble; its signs of life may be late until now."""
        try:
            return operation()
        finally:
            self._troubled = time.monotonic()

    @staticmethod
    def _may_pass(error: BaseException) -> bool:
        found = trouble(error)
        return found is not None and found.may_pass

    # ---- operations that must not be done twice

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Set a trial's state; one that an earlier try has set already is success."""
        tries = 0

        def once() -> bool:
            nonlocal tries
            tries += 1
            try:
                # what is held back goes with it: a trial that ended takes nothing any more
                self._add_held(trial_id)
                return RDBStorage.set_trial_state_values(self, trial_id, state, values)
            except UpdateFinishedTrialError:
                if tries == 1 or RDBStorage.get_trial(self, trial_id).state is not state:
                    raise
                return True

        ended = self.attempt(once)
        self._once.pending = Pending() if self._held() is not None else None
        return ended

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Store what this thread says of one trial inside in one transaction, and read others once.

        Parameters and user attributes are stored at the end, or with the trial's state where that
        is set inside; meanwhile the others' trials are taken to be as they were when first read.
        A transaction and a look each are most of what a study costs beside its fits.
        """
        self._once.pending = Pending()
        try:
            yield
        finally:
            held, self._once.pending = self._once.pending, None
            if held.params or held.attributes:
                self.attempt(lambda: self._store(held))

    def _held(self) -> Pending | None:
        held: Pending | None = getattr(self._once, "pending", None)
        return held

    def _store(self, held: Pending) -> None:
        # a second try of what was stored violates a constraint, which is what may be ignored
        with _create_scoped_session(self.scoped_session, ignore_integrity_error=True) as session:
            held.add(self, session)

    def _add_held(self, trial_id: int) -> None:
        """Begin a transaction with what is held back of a trial, or none."""
        held, session = self._held(), self.scoped_session()
        if held is None or held.trial_id != trial_id:
            return
        try:
            held.add(self, session)
        except BaseException:
            session.rollback()  # or a second try would add to what this one began
            raise

    def _set_trial_param(self, trial_id: int, *parameter: Any) -> None:
        """Store a parameter of a trial, or hold it back."""
        held = self._held()
        if held is not None:
            held.trial_id = trial_id
            held.params.append(parameter)
        else:
            plain = functools.partial(RDBStorage._set_trial_param, self, trial_id, *parameter)
            self.attempt(plain)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Store an attribute of a trial, or hold it back."""
        held = self._held()
        if held is not None:
            held.trial_id = trial_id
            held.attributes[key] = value
        else:
            plain = functools.partial(RDBStorage.set_trial_user_attr, self, trial_id, key, value)
            self.attempt(plain)

    def _get_trials(self, study_id: int, *which: Any, **more: Any) -> list[FrozenTrial]:
        """Return trials of a study; within ``together`` as they were when first asked for."""
        held = self._held()
        if held is not None and study_id in held.read:
            return held.read[study_id]
        plain = functools.partial(RDBStorage._get_trials, self, study_id, *which, **more)
        found = self.attempt(plain)
        if held is not None:
            held.read[study_id] = found
        return found

    def _create_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None = None
    ) -> FrozenTrial:
        """Make a trial; a queued one carries a mark by which a second try finds it.

        One that was asked for and not heard of has no owner, and is queued again for that.
        """
        if template_trial is not None:
            template_trial = _marked(template_trial)
        self._once.tries = 0
        make = functools.partial(RDBStorage._create_new_trial, self, study_id, template_trial)
        return self.attempt(make)

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Any
    ) -> models.TrialModel:
        """Find or make a trial within a transaction that holds the study's lock."""
        self._once.tries += 1
        if template_trial is not None and self._once.tries > 1:
            found = _find(study_id, template_trial, session)
            if found is not None:
                return found
        return super()._get_prepared_new_trial(study_id, template_trial, session)

    def fail_and_queue(self, study_id: int, trial_id: int, template_trial: FrozenTrial) -> bool:
        """Fail a trial that runs and queue one in its place, both or neither.

        Nobody can draw anew between the two, and of several who try one succeeds.

        Returns
        -------
        Whether the trial did not end otherwise.
        """
        queued = _marked(template_trial)

        def once() -> bool:
            with _create_scoped_session(self.scoped_session) as session:
                if self.engine.name == "sqlite":  # which has no locks of rows
                    session.execute(text("BEGIN IMMEDIATE"))
                models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
                trial: Any = models.TrialModel.find_or_raise_by_id(trial_id, session, True)
                if trial.state is not TrialState.RUNNING:
                    return _find(study_id, queued, session) is not None
                trial.state = TrialState.FAIL
                trial.datetime_complete = datetime.datetime.now()
                RDBStorage._get_prepared_new_trial(self, study_id, queued, session)
                return True

        return self.attempt(once)

    # ---- signs of life

    def record_heartbeat(self, trial_id: int) -> None:
        """Send a sign of life, once: the next comes soon."""
        try:
            super().record_heartbeat(trial_id)
        except Exception as error:
            if trouble(error) is None:
                raise
            self._troubled = time.monotonic()
            raise StorageError(reason(error)) from error

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        """Return the trials without a sign of life; none while signs could not be stored."""
        assert self.heartbeat_interval is not None
        if time.monotonic() - self._troubled < 2 * self.heartbeat_interval:
            return []
        return self.attempt(functools.partial(RDBStorage._get_stale_trial_ids, self, study_id))

    @staticmethod
    def _fill_storage_url_template(template: str) -> str:
        return template  # a folder's name may have braces


def _marked(template: FrozenTrial) -> FrozenTrial:
    """Return a copy that carries a mark of its own."""
    template = copy.deepcopy(template)
    template.system_attrs[ONCE] = uuid.uuid4().hex
    return template


def _find(study_id: int, marked: FrozenTrial, session: Any) -> models.TrialModel | None:
    """Return the stored trial that carries the mark of this one."""
    mark = json.dumps(marked.system_attrs[ONCE])
    found: models.TrialModel | None = (
        session.query(models.TrialModel)
        .join(models.TrialSystemAttributeModel)
        .filter(models.TrialModel.study_id == study_id)
        .filter(models.TrialSystemAttributeModel.key == ONCE)
        .filter(models.TrialSystemAttributeModel.value_json == mark)
        .one_or_none()
    )
    return found


def _patient(name: str) -> Callable[..., Any]:
    plain = getattr(RDBStorage, name)

    @functools.wraps(plain)
    def tried(self: PatientStorage, *arguments: Any, **options: Any) -> Any:
        return self.attempt(functools.partial(plain, self, *arguments, **options))

    return tried


for _name in (
    "create_new_study",  # a second try finds its name taken, as if another process had been first
    "delete_study",
    "set_study_user_attr",
    "set_study_system_attr",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_all_studies",
    "get_trial_id_from_study_id_trial_number",
    "set_trial_intermediate_value",
    "set_trial_system_attr",
    "get_trial",
):
    setattr(PatientStorage, _name, _patient(_name))


def _unwrapped(state: RetryCallState) -> Any:
    """Raise what the last try raised, as one line."""
    assert state.outcome is not None
    error = state.outcome.exception()
    assert error is not None
    found = trouble(error)
    if found is None:
        raise error
    raise StorageError(explain(found, error)) from error


def explain(found: Trouble, error: BaseException) -> str:
    """Return in one line what a database's trouble is and what to do."""
    then = {
        Trouble.TORN: "nothing was written to it: put a copy in its place, or give another --out",
        Trouble.REFUSED: "give --storage a URL like postgresql://user:password@host/database",
    }
    return (
        f"{found.value} ({reason(error)}); "
        f"{then.get(found, 'what is finished is kept, and the same command goes on from there')}"
    )
