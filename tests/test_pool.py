"""What a pool counts as in flight, and what a study hands out to it."""

import threading

import pytest

from mtlsk import Study, pool, trials
from mtlsk.outcome import SCALARIZATION, SEARCH
from mtlsk.pool import Pool, Work
from mtlsk.sampler import START

FILE = """
[study]
name = "small"
[data]
name = "arm"
options = {{ n_samples = 200, random_state = 0 }}
split = "random"
[estimator]
hidden_layer_sizes = [8]
{more}
[search]
aggregator = ["MGDA"]
lr = {{ low = 1e-3, high = 3e-2, log = true }}
[baselines]
equal_weights = 0
single_task = 0
"""


class Fake:
    """A worker process that answers when it is let."""

    started = threading.Semaphore(0)
    let = threading.Semaphore(0)
    asked: list = []

    def __init__(self, job, say):
        self.process = self
        self.pid = id(self)

    def start(self):
        pass

    def stop(self):
        pass

    def ask(self, message):
        Fake.asked.append(message)
        Fake.started.release()
        Fake.let.acquire()
        return {}


def test_trials_in_flight_are_counted_not_calls(monkeypatch):
    monkeypatch.setattr(pool, "WorkerProcess", Fake)
    Fake.asked.clear()
    left, seen = [Work("a", 3), Work("b", 2)], []

    def next_work(in_flight, pids):
        seen.append(sorted(in_flight))
        return left.pop(0) if left else None

    workers = Pool({}, 2, next_work, lambda died: None)
    runner = threading.Thread(target=workers.run, args=(lambda: None,), kwargs={"interval": 0.01})
    runner.start()
    for _ in range(2):
        Fake.started.acquire()
    assert seen == [[], ["a"] * 3]
    Fake.let.release(2)
    runner.join(20)
    assert not runner.is_alive()
    assert Fake.asked == [{"which": "a", "trials": 3}, {"which": "b", "trials": 2}]


@pytest.fixture
def study(tmp_path):
    def made(wanted, more=""):
        path = tmp_path / "small.toml"
        path.write_text(FILE.format(more=more))
        study = Study.from_toml(path, out=tmp_path / "out", trials=wanted)
        storage, studies = study.open()
        opened.append(storage)
        return study, studies

    opened: list = []
    yield made
    for storage in opened:
        storage.remove_session()
        storage.engine.dispose()


def handed_out(study, studies, n_workers=1, in_flight=()):
    """All that is handed out until nothing is missing, when no trial ends."""
    found, flying = [], list(in_flight)
    while (work := study._next(studies, n_workers, flying, set())) is not None:
        found.append(work)
        flying += [work.which] * work.trials
    return found


@pytest.mark.parametrize("wanted", [1, 5, 25])
def test_never_more_is_handed_out_than_is_wanted(study, wanted):
    made, studies = study(wanted)
    for n_workers in (1, 3, 8):
        work = handed_out(made, studies, n_workers)
        for which in (SEARCH, SCALARIZATION):
            assert sum(w.trials for w in work if w.which == which) == wanted
        assert all(w.trials == 1 for w in work if w.which == SEARCH)
        assert max(w.trials for w in work) <= START


def test_the_random_trials_of_the_baseline_are_handed_out_at_once(study):
    work = handed_out(*study(25))
    assert work[:2] == [Work(SEARCH, 1), Work(SCALARIZATION, START)]
    assert {w.trials for w in work[2:]} == {1}  # as long as none of them is told


def test_trials_that_run_elsewhere_are_not_asked_for_again(study):
    made, studies = study(12)
    for _ in range(4):
        with pytest.warns(UserWarning, match="Heartbeat"):
            trial = studies[SCALARIZATION].ask()
        trial.set_user_attr("owner", {**trials.owner(), "host": "another"})
    work = handed_out(made, studies)
    assert sum(w.trials for w in work if w.which == SCALARIZATION) == 8
    assert next(w for w in work if w.which == SCALARIZATION).trials == START - 4


def test_a_trial_that_has_not_said_whose_it_is_counts_as_somebodys(study):
    """Workers count it as well: without it they would be sent for surplus trials for ever."""
    made, studies = study(3)
    with pytest.warns(UserWarning, match="Heartbeat"):
        studies[SCALARIZATION].ask()
    work = handed_out(made, studies)
    assert sum(w.trials for w in work if w.which == SCALARIZATION) == 2


def test_the_other_workers_are_left_their_share(study):
    made, studies = study(10)
    nearly = [SEARCH] * 8
    assert made._next(studies, 1, nearly, set()) == Work(SCALARIZATION, 10)
    assert made._next(studies, 4, nearly, set()) == Work(SCALARIZATION, 3)


def test_where_nothing_is_gained_trials_are_handed_out_one_by_one(study):
    made, studies = study(6, 'update_norm = "mean"')
    assert {w.trials for w in handed_out(made, studies)} == {1}
    assert not any("one run" in note for note in made._notes())


def test_the_report_says_that_trials_are_trained_in_one_run(study):
    (note,) = [note for note in study(6)[0]._notes() if "one run" in note]
    assert "a quarter" in note
    assert "seconds are a share" in note
