"""A storage whose database is away, locked or full for a while."""

import contextlib
import re
import sqlite3
import threading
import time
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from mtlsk import storage as patient
from mtlsk import trials
from mtlsk.storage import PatientStorage, Sparing, StorageError
from mtlsk.studyfile import StudyError
from mtlsk.trials import open_storage, with_driver


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Open storages of one file, which say what they say to a list: (open, said)."""
    said, made = [], []
    monkeypatch.setattr(trials, "BUSY", 0)

    def open_one(**options):
        made.append(open_storage(f"sqlite:///{tmp_path}/s.db", say=said.append, **options))
        return made[-1]

    yield open_one, said
    for each in made:
        each.remove_session()
        each.engine.dispose()


def study_of(storage):
    return optuna.create_study(study_name="a", storage=storage, load_if_exists=True)


def ask(study):
    with pytest.warns(UserWarning, match="Heartbeat"):
        return study.ask()


def break_commits(monkeypatch, storage, times, *, stored):
    """Let the next commits of a storage end in an error, after all was stored or before."""
    left, commit = [None] * times, storage.engine.dialect.do_commit

    def do_commit(connection):
        if stored or not left:
            commit(connection)
        if left:
            left.pop()
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error

    monkeypatch.setattr(storage.engine.dialect, "do_commit", do_commit)


def test_an_operation_waits_for_a_lock_and_says_so_once(opened, tmp_path):
    open_one, said = opened
    study = study_of(open_one())
    other = sqlite3.connect(tmp_path / "s.db", check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    threading.Timer(1.5, lambda: (other.rollback(), other.close())).start()
    study.set_user_attr("a", 1)
    assert study.user_attrs["a"] == 1
    assert said == ["the database is locked by another process; trying again for 120 s"]


def test_what_does_not_pass_in_time_is_one_line(opened, tmp_path):
    open_one, said = opened
    storage = open_one()
    study = study_of(storage)
    storage.patience = 0.5
    other = sqlite3.connect(tmp_path / "s.db")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StorageError) as caught:
        study.set_user_attr("a", 1)
    other.close()
    line = str(caught.value)
    assert line.startswith("the database is locked by another process (database is locked); ")
    assert line.endswith("the same command goes on from there")
    assert len(said) == 1
    study.set_user_attr("a", 2)


def test_who_gives_up_waits_no_more(opened, tmp_path):
    open_one, _ = opened
    storage = open_one()
    study = study_of(storage)
    other = sqlite3.connect(tmp_path / "s.db")
    other.execute("BEGIN EXCLUSIVE")
    threading.Timer(0.5, storage.give_up.set).start()
    start = time.monotonic()
    for _ in range(2):
        with pytest.raises(StorageError, match="locked"):
            study.set_user_attr("a", 1)
    assert time.monotonic() - start < patient.PATIENCE / 2
    other.close()


def test_a_full_disk_says_what_to_do_and_goes_on_when_there_is_room(opened):
    open_one, said = opened
    storage = open_one()
    study = study_of(storage)
    pages = []

    @event.listens_for(storage.engine, "begin")
    def limit(connection):
        used = connection.exec_driver_sql("PRAGMA page_count").scalar()
        most = used if len(pages) < 3 else 1 << 20
        pages.append(connection.exec_driver_sql(f"PRAGMA max_page_count = {most}").scalar())

    study.set_user_attr("a", "long" * 20_000)
    assert said == [
        "the disk of the storage is full: free some space; trying again for 120 s",
    ]
    assert len(study.user_attrs["a"]) == 80_000


def test_every_operation_that_a_study_uses_is_tried_again():
    """What Optuna calls of a storage behind its cache."""
    own = vars(PatientStorage)
    source = Path(optuna.storages._cached_storage.__file__).read_text()
    called = set(re.findall(r"self\._backend\.(\w+)\(", source))
    never_fail = {"get_heartbeat_interval", "get_heartbeat_stale_trial_callback"}
    beyond = {"_get_best_trial_id"}  # of one objective, never used here
    assert called - never_fail - beyond <= set(own)


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.FAIL])
@pytest.mark.parametrize("stored", [False, True])
def test_a_trial_ends_once_when_the_connection_breaks(opened, monkeypatch, state, stored):
    open_one, said = opened
    storage = open_one()
    study = study_of(storage)
    trial = ask(study)
    break_commits(monkeypatch, storage, 1, stored=stored)
    values = [1.0] if state is TrialState.COMPLETE else None
    assert storage.set_trial_state_values(trial._trial_id, state, values)
    assert [t.state for t in study.get_trials()] == [state]
    assert len(said) == 1


def test_a_trial_that_somebody_else_ended_is_refused(opened):
    open_one, _ = opened
    storage = open_one()
    study = study_of(storage)
    trial = ask(study)
    storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("times", [1, 6])  # within Optuna's own five tries, and beyond
def test_a_trial_is_queued_once_when_the_connection_breaks(opened, stored, times, monkeypatch):
    monkeypatch.setattr("optuna.storages._rdb.storage.time.sleep", lambda seconds: None)
    open_one, _ = opened
    storage = open_one()
    study = study_of(storage)
    break_commits(monkeypatch, storage, times, stored=stored)
    study.enqueue_trial({"x": 1.0}, user_attrs={"lost": 1})
    study.enqueue_trial({"x": 2.0})
    queued = [(t.system_attrs["fixed_params"], t.user_attrs) for t in study.get_trials()]
    assert queued == [({"x": 1.0}, {"lost": 1}), ({"x": 2.0}, {})]


def test_an_error_of_the_caller_is_not_tried_again(opened):
    open_one, said = opened
    storage = open_one()
    with pytest.raises(KeyError):
        storage.get_study_id_from_name("nothing")
    assert said == []


def test_signs_of_life_that_could_not_be_stored_make_no_trial_lost(opened, monkeypatch):
    monkeypatch.setattr(trials, "HEARTBEAT", 1)
    monkeypatch.setattr(trials, "GRACE", 1)
    open_one, _ = opened
    storage, other = open_one(), open_one()
    study = study_of(storage)
    trial = ask(study)
    storage.record_heartbeat(trial._trial_id)
    time.sleep(2.2)

    def away(self, trial_id):
        raise OperationalError("", {}, ConnectionError("gone"))

    with monkeypatch.context() as patch:
        patch.setattr(RDBStorage, "record_heartbeat", away)
        with pytest.raises(StorageError, match="gone"):
            storage.record_heartbeat(trial._trial_id)
    assert storage._get_stale_trial_ids(study._study_id) == []
    # who had no trouble finds it stale
    assert other._get_stale_trial_ids(study._study_id) == [trial._trial_id]
    storage._troubled = time.monotonic() - 2
    assert storage._get_stale_trial_ids(study._study_id) == [trial._trial_id]


def test_what_several_find_is_said_once():
    said = []
    say = Sparing(said.append)
    for text in ("a", "b", "a"):
        say(text)
    assert said == ["a", "b"]
    say.said["a"] -= patient.PATIENCE
    say("a")
    assert said == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("installed", "url", "expected"),
    [
        ({"psycopg"}, "postgresql://a:b@c/d?e=f", "postgresql+psycopg://a:b@c/d?e=f"),
        ({"psycopg", "psycopg2"}, "postgres://a@c/d", "postgresql+psycopg://a@c/d"),
        ({"psycopg2"}, "postgresql://a@c/d", "postgresql+psycopg2://a@c/d"),
        (set(), "postgresql://a@c/d", "postgresql+psycopg://a@c/d"),
        ({"psycopg"}, "postgresql+asyncpg://a@c/d", "postgresql+asyncpg://a@c/d"),
        ({"psycopg"}, "sqlite:///postgresql://", "sqlite:///postgresql://"),
    ],
)
def test_a_plain_url_takes_the_driver_that_is_installed(monkeypatch, installed, url, expected):
    monkeypatch.setattr(trials, "find_spec", lambda name: name if name in installed else None)
    assert with_driver(url) == expected


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql+nothing://a@b/c", "give --storage a URL"),
        ("postgresql+psycopg2://a@b/c", r"pip install 'mtlsk\[postgresql\]'"),
        ("sqlite:////nowhere/at/all/s.db", "unable to open database file"),
        ("nonsense", "give --storage a URL"),
    ],
)
def test_what_no_waiting_mends_fails_at_once_in_one_line(url, words):
    said = []
    with pytest.raises(StudyError, match=words) as caught:
        open_storage(url, say=said.append)
    assert "\n" not in str(caught.value)
    assert said == []


def test_a_torn_database_is_left_as_it_is(tmp_path):
    path = tmp_path / "s.db"
    path.write_bytes(b"SQLite format 3\0" + b"torn" * 1000)
    with pytest.raises(StudyError, match=r"damaged \(file is not a database\); nothing was"):
        open_storage(f"sqlite:///{path}")
    assert path.read_bytes() == b"SQLite format 3\0" + b"torn" * 1000


def test_a_folder_may_have_braces_in_its_name(tmp_path):
    folder = tmp_path / "a{b}"
    folder.mkdir()
    storage = open_storage(f"sqlite:///{folder}/s.db")
    storage.remove_session()
    storage.engine.dispose()
    assert (folder / "s.db").exists()


def abandoned(study):
    """A trial of a process that is gone."""
    trial = ask(study)
    trial.suggest_float("x", 0, 1)
    trial.set_user_attr("owner", {**trials.owner(), "started": 0.0})
    return trial


@pytest.mark.parametrize("stored", [False, True])
def test_a_lost_trial_is_queued_once_when_the_connection_breaks(opened, monkeypatch, stored):
    open_one, said = opened
    storage = open_one()
    study = study_of(storage)
    lost = abandoned(study)
    fail_and_queue = storage.fail_and_queue

    def broken(*arguments):
        break_commits(monkeypatch, storage, 1, stored=stored)
        return fail_and_queue(*arguments)

    monkeypatch.setattr(storage, "fail_and_queue", broken)
    assert trials.fail_abandoned(study) == 1
    assert len(said) == 1
    assert [t.state.name for t in study.get_trials()] == ["FAIL", "WAITING"]
    assert ask(study).suggest_float("x", 0, 1) == lost.params["x"]


def test_of_several_who_find_a_trial_lost_one_queues_it(opened):
    open_one, _ = opened
    study = study_of(open_one())
    others = [study_of(open_one()) for _ in range(4)]
    for _ in range(5):
        abandoned(study)
    barrier, counts = threading.Barrier(len(others)), []

    def fail(other):
        barrier.wait()
        counts.append(trials.fail_abandoned(other))
        other._storage._backend.remove_session()

    threads = [threading.Thread(target=fail, args=(other,)) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 5
    states = [t.state.name for t in study.get_trials()]
    assert (states.count("FAIL"), states.count("WAITING"), len(states)) == (5, 5, 10)
    assert sorted(trials.draw_of(study, t) for t in study.get_trials()[5:]) == list(range(5))


def test_parameters_are_stored_together_and_once_when_the_connection_breaks(opened, monkeypatch):
    open_one, said = opened
    storage = open_one()
    study = study_of(storage)
    trial = ask(study)
    with storage.together():
        trial.suggest_float("x", 0, 1)
        trial.suggest_categorical("c", ["a", "b"])
        assert study.get_trials()[0].params == {}
        break_commits(monkeypatch, storage, 1, stored=True)
    assert len(said) == 1
    assert study.get_trials()[0].params == trial.params
    trial.suggest_float("y", 0, 1)
    assert study.get_trials()[0].params == trial.params


def test_parameters_before_an_error_are_stored(opened):
    open_one, _ = opened
    storage = open_one()
    study = study_of(storage)
    trial = ask(study)
    with contextlib.suppress(ZeroDivisionError), storage.together():
        trial.suggest_float("x", 0, 1)
        raise ZeroDivisionError
    assert list(study.get_trials()[0].params) == ["x"]


def test_a_trial_ends_in_one_transaction_with_what_is_said_of_it(opened, monkeypatch):
    open_one, said = opened
    storage = open_one()
    study = study_of(storage)
    trial = ask(study)
    break_commits(monkeypatch, storage, 1, stored=False)  # the first try stores nothing
    with storage.together():
        trial.set_user_attr("measured", {"seconds": 1})
        assert study.get_trials()[0].user_attrs == {}
        storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])
        other = sqlite3.connect(storage.engine.url.database)
        with contextlib.closing(other):
            (state,) = other.execute("SELECT state FROM trials").fetchone()
            rows = other.execute("SELECT key FROM trial_user_attributes").fetchall()
        assert (state, rows) == ("COMPLETE", [("measured",)])
    (ended,) = study.get_trials()
    assert (ended.values, ended.user_attrs) == ([1.0], {"measured": {"seconds": 1}})
    assert len(said) == 1


def test_nothing_is_stored_of_a_trial_that_somebody_else_ended(opened):
    open_one, _ = opened
    storage = open_one()
    study = study_of(storage)
    trial = ask(study)
    open_one().set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def end():
        with storage.together():
            trial.set_user_attr("measured", 1)
            storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])

    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        end()
    (ended,) = study.get_trials()
    assert (ended.state, ended.user_attrs) == (TrialState.FAIL, {})


def test_other_trials_are_read_once_while_one_is_drawn(opened):
    open_one, _ = opened
    study, elsewhere = study_of(open_one()), study_of(open_one())
    asked, storage = ask(study), study._storage._backend
    with storage.together():
        before = len(study.get_trials())
        ask(elsewhere)
        assert len(study.get_trials()) == before == 1
        asked.suggest_float("x", 0, 1)
    assert len(study.get_trials()) == 2


def test_what_was_begun_when_the_connection_broke_is_begun_anew(opened):
    open_one, said = opened
    storage = open_one()
    study = study_of(storage)
    trial, left = ask(study), [1]

    @event.listens_for(storage.engine, "before_cursor_execute")
    def breaks(connection, cursor, statement, *more):
        if "INSERT INTO trial_user_attributes" in statement and left:
            left.pop()
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise OperationalError(statement, {}, error)

    with storage.together():
        trial.suggest_float("x", 0, 1)
        trial.set_user_attr("measured", 1)
        storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])
    (ended,) = study.get_trials()
    assert (ended.state, ended.params) == (TrialState.COMPLETE, trial.params)
    assert ended.user_attrs == {"measured": 1}
    assert len(said) == 1
