"""Signs of life of several trials at once."""

import time
import warnings

import optuna
import pytest
from optuna.storages import RDBStorage
from sqlalchemy.exc import OperationalError

from mtlsk.heartbeat import Heartbeat


@pytest.fixture
def study(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        storage = RDBStorage(f"sqlite:///{tmp_path}/s.db", heartbeat_interval=1, grace_period=2)
    made = optuna.create_study(storage=storage)
    made.rdb = storage
    yield made
    storage.remove_session()
    storage.engine.dispose()


def ask(study, n):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [study.ask()._trial_id for _ in range(n)]


def stale(study):
    return sorted(study.rdb._get_stale_trial_ids(study._study_id))


def test_all_trials_live_as_long_as_they_are_held_and_no_longer(study):
    first, second, ended, never = ask(study, 4)
    with Heartbeat(study.rdb) as heartbeat:
        for trial_id in (first, second, ended):
            heartbeat.add(trial_id)
        heartbeat.drop(ended)
        time.sleep(4.2)
        assert stale(study) == [ended]
        assert heartbeat.thread.daemon  # a worker that ends is not kept
    assert not heartbeat.thread.is_alive()
    time.sleep(3.2)
    assert stale(study) == sorted([first, second, ended])
    assert never not in stale(study)


def test_the_first_sign_is_sent_at_once(study):
    (trial_id,) = ask(study, 1)
    with Heartbeat(study.rdb) as heartbeat:
        heartbeat.interval = 1000
        heartbeat.add(trial_id)
        with study.rdb.engine.connect() as connection:
            rows = connection.exec_driver_sql("SELECT trial_id FROM trial_heartbeats").all()
    assert rows == [(trial_id,)]


def test_a_sign_that_is_not_taken_does_not_end_the_others(study, monkeypatch):
    record, refused = study.rdb.record_heartbeat, []

    def busy(trial_id):
        if len(refused) < 3:
            refused.append(trial_id)
            raise OperationalError("update", {}, Exception("database is locked"))
        record(trial_id)

    (trial_id,) = ask(study, 1)
    with Heartbeat(study.rdb) as heartbeat:
        heartbeat.interval = 0.1
        heartbeat.add(trial_id)
        monkeypatch.setattr(study.rdb, "record_heartbeat", busy)
        time.sleep(4.2)
        assert len(refused) == 3
        assert stale(study) == []
