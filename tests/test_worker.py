"""A worker's batches of trials, in this process."""

import os
import signal
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import optuna
import pytest
import torch

import mtlsk.sweep
import mtlsk.worker
from mtlsk import MultiTaskRegressor, Study, models, trials
from mtlsk.batch import Batch
from mtlsk.evaluation import Evaluation, evaluate
from mtlsk.heartbeat import Heartbeat
from mtlsk.outcome import SCALARIZATION, SEARCH, SINGLE_TASK
from mtlsk.problem import Problem, task_losses
from mtlsk.trials import count, load_study
from mtlsk.worker import Worker

FILE = """
[study]
name = "{name}"
sampler = {sampler}
[data]
name = "arm"
options = {{ n_samples = 300, random_state = 0 }}
split = "random"
[estimator]
hidden_layer_sizes = [8]
max_epochs = 2
batch_size = 64
{estimator}
[search]
lr = {lr}
"""
LR = "{ low = 1e-3, high = 3e-2, log = true }"


@pytest.fixture
def begin(tmp_path):
    """Open a small study and start a worker of it here: (worker, baseline)."""
    path, threads, made = list(sys.path), torch.get_num_threads(), []

    def started(wanted=12, estimator="", lr=LR, name="small", sampler="TPE"):
        file = tmp_path / f"{name}.toml"
        points = ", points = 9" if sampler == "grid" else ""
        table = f'{{ name = "{sampler}"{points} }}'
        file.write_text(FILE.format(name=name, sampler=table, estimator=estimator, lr=lr))
        study = Study.from_toml(file, out=tmp_path / name, trials=wanted)
        study.open()[0].remove_session()
        job = {
            "study": study.file.model_dump(),
            "estimator": {},
            "sha256": study.problem.sha256,
            "wanted": study.wanted,
            "trials": wanted,
            "out": str(study.out),
            "storage": study.storage_url,
            "threads": 1,
            "sys_path": sys.path,
        }
        worker = Worker(job)
        made.append(worker)
        return worker, load_study(worker.storage, worker.names[SCALARIZATION])

    yield started
    sys.path[:] = path
    torch.set_num_threads(threads)
    for worker in made:
        worker.storage.remove_session()
        worker.storage.engine.dispose()


def states(study):
    return [t.state.name for t in study.get_trials(deepcopy=False)]


@pytest.fixture
def runs(monkeypatch):
    """How many trials each call trained, and what to do before it does."""
    found, before = [], []
    evaluate_each = mtlsk.worker.evaluate_each

    def noted(problem, wanted, repeats):
        found.append(len(wanted))
        for action in before:
            action(len(wanted))
        return evaluate_each(problem, wanted, repeats)

    monkeypatch.setattr(mtlsk.worker, "evaluate_each", noted)
    return found, before


def test_a_batch_is_told_one_by_one(begin, monkeypatch):
    worker, baseline = begin()
    seen = []
    measure = Problem.measure

    def noted(problem, *arguments):
        seen.append(states(baseline))
        return measure(problem, *arguments)

    monkeypatch.setattr(Problem, "measure", noted)
    assert worker.run(SCALARIZATION, 3) == 3
    assert seen == [["COMPLETE"] * n + ["RUNNING"] * (3 - n) for n in range(3)]
    assert states(baseline) == ["COMPLETE"] * 3
    for trial in baseline.get_trials():
        assert trial.user_attrs["owner"] == worker.owner
        assert set(trial.user_attrs["measured"]) == {"objectives", "losses", "seconds"}
        assert trial.values == trial.user_attrs["measured"]["objectives"]["validation"]
    first = baseline.get_trials()[0].user_attrs["estimator"]
    assert first["aggregator__weights"] == pytest.approx([1 / 7] * 7)
    assert worker.run(SEARCH, 1) == 1


def test_every_trial_of_a_batch_gives_signs_of_life(begin, monkeypatch):
    monkeypatch.setattr(trials, "HEARTBEAT", 1)
    monkeypatch.setattr(trials, "GRACE", 2)
    worker, baseline = begin()
    stale, signs = [], []
    fit_together = mtlsk.sweep.fit_together

    def slow(*arguments):
        time.sleep(4.2)  # beyond the grace period
        stale.append(worker.storage._get_stale_trial_ids(baseline._study_id))
        with worker.storage.engine.connect() as connection:
            signs.extend(connection.exec_driver_sql("SELECT trial_id FROM trial_heartbeats").all())
        return fit_together(*arguments)

    monkeypatch.setattr(mtlsk.sweep, "fit_together", slow)
    assert worker.run(SCALARIZATION, 4) == 4
    assert stale == [[]]
    assert len(signs) == 4  # one that never gave a sign is not stale either
    assert states(baseline) == ["COMPLETE"] * 4


def test_a_diverged_trial_fails_alone(begin):
    worker, baseline = begin(estimator='optimizer = "SGD"', lr="[1e-2, 1e30]")
    worker.run(SCALARIZATION, 8)
    found = {(t.params["lr"], t.state.name) for t in baseline.get_trials()}
    assert found == {(1e-2, "COMPLETE"), (1e30, "FAIL")}
    reasons = [t.user_attrs["failed"] for t in baseline.get_trials() if t.params["lr"] > 1]
    assert all(text.startswith("diverged: ") for text in reasons)
    assert count(baseline).done == 8


def test_a_trial_more_than_wanted_fails_without_counting(begin):
    worker, baseline = begin(wanted=2)
    assert worker.run(SCALARIZATION, 4) == 4
    assert states(baseline) == ["COMPLETE"] * 2 + ["FAIL"] * 2
    assert count(baseline).done == 2


def test_a_trial_more_than_wanted_takes_no_point_of_a_grid(begin):
    worker, _ = begin(wanted=9, sampler="grid")
    worker.wanted = {**worker.wanted, SEARCH: 2}
    assert worker.run(SEARCH, 4) == 4
    worker.wanted = {**worker.wanted, SEARCH: 9}  # a command that wants more
    assert worker.run(SEARCH, 7) == 7
    study = load_study(worker.storage, worker.names[SEARCH])
    found = [t.params for t in study.get_trials() if t.state.name == "COMPLETE"]
    assert found == worker.lineup[SEARCH].first


def lose(worker, baseline, n, which=SCALARIZATION):
    """Leave n trials behind as a worker does that died over them, and find them lost."""
    owner, worker.owner = worker.owner, {**worker.owner, "started": 0.0}
    with Heartbeat(worker.storage) as heartbeat:
        study = load_study(worker.storage, worker.names[which], worker.lineup[which].make_sampler())
        asked = worker._ask(Batch(study, heartbeat), which, n)
    worker.owner = owner
    assert trials.fail_abandoned(baseline, died=os.getpid()) == n
    return [t.trial.params for t in asked]


def test_trials_of_a_batch_that_was_lost_run_once_more_and_each_alone(begin, runs):
    worker, baseline = begin()
    lost = lose(worker, baseline, 3)
    assert states(baseline) == ["FAIL"] * 3 + ["WAITING"] * 3
    for _ in range(3):
        assert worker.run(SCALARIZATION, 8) == 1
    assert [n for n in runs[0] if n] == [1, 1, 1]
    done = [t.params for t in baseline.get_trials(states=(optuna.trial.TrialState.COMPLETE,))]
    assert done == lost
    assert worker.run(SCALARIZATION, 4) == 4
    assert [n for n in runs[0] if n] == [1, 1, 1, 4]
    assert count(baseline).done == 7


def test_a_trial_that_kills_takes_no_innocent_one_to_the_end(begin, runs):
    """One of six kills whoever runs it; the others are lost once and then done."""
    worker, baseline = begin()
    lost = lose(worker, baseline, 6)
    deadly = lost[0]

    class Killed(BaseException):
        pass

    def die(wanted):
        for trial in baseline.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            if trial.params == deadly:
                raise Killed

    runs[1].append(die)
    deaths, own = 1, worker.owner
    while any(t.state.name == "WAITING" for t in baseline.get_trials()):
        worker.owner = {**own, "started": float(deaths)}  # a process that is gone when it is
        try:
            worker.run(SCALARIZATION, 4)
        except Killed:
            deaths += 1
            trials.fail_abandoned(baseline, died=os.getpid())
    assert deaths == trials.MAX_LOST
    counted = [t for t in baseline.get_trials() if "failed" in t.user_attrs]
    assert [t.params for t in counted] == [deadly]
    done = [t.params for t in baseline.get_trials() if t.state.name == "COMPLETE"]
    assert sorted(map(str, done)) == sorted(map(str, lost[1:]))


def test_a_batch_ends_before_a_trial_that_was_lost(begin, runs):
    worker, baseline = begin()
    baseline.enqueue_trial({})
    baseline.enqueue_trial({}, user_attrs={"lost": 1})
    assert [worker.run(SCALARIZATION, 4) for _ in range(3)] == [1, 1, 4]


def test_a_lost_trial_that_comes_among_others_runs_after_them(begin, runs, monkeypatch):
    """Another worker may take the queue's first one between the look and the asking."""
    worker, baseline = begin()
    baseline.enqueue_trial({})
    baseline.enqueue_trial({}, user_attrs={"lost": 1})
    monkeypatch.setattr(mtlsk.worker, "next_was_lost", lambda study: False)
    before = []
    runs[1].append(lambda wanted: before.append(states(baseline)))
    assert worker.run(SCALARIZATION, 4) == 2
    assert runs[0] == [1, 1]
    assert before == [["RUNNING", "RUNNING"], ["COMPLETE", "RUNNING"]]


def test_a_stop_leaves_no_trial_without_owner(begin, monkeypatch):
    worker, baseline = begin()

    class Stopped(BaseException):
        pass

    def stop(number, frame):
        raise Stopped

    ask = baseline.ask

    def stopped():
        trial = ask()
        signal.raise_signal(signal.SIGTERM)
        return trial

    monkeypatch.setattr(baseline, "ask", stopped)
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with Heartbeat(worker.storage) as heartbeat, pytest.raises(Stopped):
            Batch(baseline, heartbeat).ask(worker.owner)
    finally:
        signal.signal(signal.SIGTERM, before)
    (trial,) = baseline.get_trials()
    assert trial.state.name == "RUNNING"
    assert trial.user_attrs["owner"] == worker.owner


def test_a_stop_between_the_reason_and_the_end_of_a_trial_waits(begin, monkeypatch):
    worker, baseline = begin()
    with Heartbeat(worker.storage) as heartbeat:
        batch = Batch(baseline, heartbeat)
        trial = batch.ask(worker.owner)
        say = trial.set_user_attr

        def stopped(key, value):
            say(key, value)
            signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(trial, "set_user_attr", stopped)
        came = []
        before = signal.signal(signal.SIGTERM, lambda *_: came.append(states(baseline)))
        try:
            batch.end(trial, ArithmeticError("too much"))
        finally:
            signal.signal(signal.SIGTERM, before)
    assert came == [["FAIL"]]


def test_trials_taken_by_somebody_who_thought_this_worker_dead_do_not_stop_it(begin, runs):
    worker, baseline = begin()

    def take(_):
        running = baseline.get_trials(states=(optuna.trial.TrialState.RUNNING,))
        baseline._storage.set_trial_state_values(running[1]._trial_id, optuna.trial.TrialState.FAIL)

    runs[1].append(take)
    worker.run(SCALARIZATION, 3)
    assert states(baseline) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert count(baseline).done == 2


def test_also_one_trial_alone_is_trained_as_several_are(begin, monkeypatch):
    sizes = []
    fit_together = mtlsk.sweep.fit_together

    def noted(net, weights, *others):
        sizes.append(len(weights))
        return fit_together(net, weights, *others)

    monkeypatch.setattr(mtlsk.sweep, "fit_together", noted)
    worker, _ = begin()
    worker.run(SCALARIZATION, 1)
    worker.run(SEARCH, 1)  # which is searched, not swept
    assert sizes == [1]


def test_the_numbers_of_a_trial_are_those_of_its_parameters(begin):
    worker, baseline = begin()
    worker.run(SCALARIZATION, 4)
    for trial in baseline.get_trials():
        again = evaluate(worker.problem, trial.user_attrs["estimator"])
        assert isinstance(again, Evaluation)
        assert trial.values == pytest.approx(again.told, rel=1e-4)
        measured = trial.user_attrs["measured"]["objectives"]["test"]
        assert measured == pytest.approx(again.objectives["test"], rel=1e-4)


def test_a_trial_that_is_run_again_draws_what_it_drew(begin):
    """And so do the others: what a study draws does not depend on which trials were lost."""
    for sampler in ("random", "grid"):
        undisturbed, _ = begin(wanted=8, name=f"plain-{sampler}", sampler=sampler)
        for _ in range(8):
            undisturbed.run(SEARCH, 1)
        disturbed, _ = begin(wanted=8, name=f"killed-{sampler}", sampler=sampler)
        study = load_study(disturbed.storage, disturbed.names[SEARCH])
        disturbed.run(SEARCH, 3)
        lose(disturbed, study, 2, SEARCH)
        for _ in range(7):  # one of three was done
            disturbed.run(SEARCH, 1)
        plain = load_study(undisturbed.storage, undisturbed.names[SEARCH])
        assert count(plain).done == 8
        rows = [
            sorted(
                (sorted(t.params.items()), t.values)
                for t in each.get_trials()
                if t.state.name == "COMPLETE"
            )
            for each in (plain, study)
        ]
        assert rows[0] == rows[1]
        assert len({str(params) for params, _ in rows[0]}) == 8


def test_models_of_the_front_are_kept_and_no_other(begin):
    worker, _ = begin(wanted=6)
    assert [worker.run(SEARCH, 2) for _ in range(3)] == [2, 2, 2]
    study = load_study(worker.storage, worker.names[SEARCH])
    front = {t.number for t in study.best_trials}
    folder = Path(worker.out) / "models"
    assert {p.name for p in folder.iterdir()} == {
        f"search-{number}.{kind}" for number in front for kind in ("pkl", "json")
    }
    best = study.best_trials[0]
    model = joblib.load(models.path(worker.out, SEARCH, best.number))
    X, y = worker.problem.folds[-1].measured["test"]
    losses = task_losses(y, model.net.predict(X))
    assert losses.tolist() == best.user_attrs["measured"]["losses"]["test"]
    found = models.load_trace(worker.out, SEARCH, best.number)
    assert np.shape(found["train_losses"]) == (2, 7)
    assert np.shape(found["task_weights"]) == (2, 7)


def test_nets_of_one_task_each(begin):
    worker, _ = begin(wanted=1)
    assert worker.run(SINGLE_TASK, 1) == 1
    study = load_study(worker.storage, worker.names[SINGLE_TASK])
    (trial,) = study.get_trials()
    X, y = worker.problem.folds[0].train
    test = worker.problem.folds[0].measured["test"]
    params = trial.user_attrs["estimator"]
    assert params["aggregator"] == "LinearScalarization"
    for k in (0, 6):
        net = MultiTaskRegressor(**params).fit(X, y[:, [k]])
        loss = float(np.mean((net.predict(test[0]).ravel() - test[1][:, k]) ** 2))
        assert trial.user_attrs["measured"]["losses"]["test"][k] == pytest.approx(loss, rel=1e-5)
    assert trial.values == trial.user_attrs["measured"]["losses"]["validation"]
