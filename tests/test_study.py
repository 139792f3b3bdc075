"""Studies end to end, on worker processes; one small study serves most tests."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import optuna
import pandas as pd
import pytest
import torch
from optuna.trial import TrialState

import mtlsk.study
from mtlsk import Study, pool, trials
from mtlsk.cli import main
from mtlsk.folder import differences
from mtlsk.pool import WorkerProcess
from mtlsk.results import read_results
from mtlsk.sampler import START
from mtlsk.studyfile import StudyError
from mtlsk.worker import Worker

ROOT = Path(__file__).parent.parent
SMALL = """
[study]
name = "small"
trials = 3
[data]
name = "arm"
options = {{ n_samples = 300, random_state = 0 }}
split = "random"
[estimator]
hidden_layer_sizes = [8]
max_epochs = {epochs}
[search]
aggregator = ["ConicGrad", "MGDA"]
aggregator__c = {{}}
controller = ["none", "APT"]
task_scale = {{ simplex = true }}
lr = {lr}
[baselines]
equal_weights = 0
single_task = 0
"""
LR = "{ low = 1e-3, high = 3e-2, log = true }"


def write(folder, *, epochs=2, lr=LR, name="small.toml"):
    path = folder / name
    path.write_text(SMALL.format(epochs=epochs, lr=lr))
    return path


def start(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "mtlsk", "study", "run", "small.toml", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a terminal gives
        # in the background of a script it would be ignored, here and in all that is started
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which the small study ran from the command line, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    write(folder)
    process = start(folder, "--workers", "2")
    output, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return folder, output


@pytest.fixture
def command(monkeypatch):
    """Run the small study of a folder by the command line of this process: the exit code.

    Workers have one torch thread each: several on a few numbers wait for each other.
    """
    path, handler = list(sys.path), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(mtlsk.study, "cores", lambda: 1)

    def run(folder, *arguments):
        monkeypatch.chdir(folder)
        return main(["study", "run", "small.toml", *arguments])

    yield run
    sys.path[:] = path
    signal.signal(signal.SIGTERM, handler)


class Here:
    """A worker that runs its trials in this process: a process of its own takes long to start."""

    def __init__(self, job, say):
        self.process, self.job = SimpleNamespace(pid=os.getpid()), job

    def start(self):
        self.worker = Worker(self.job)

    def ask(self, message):
        return {"ended": self.worker.run(message["which"], message["trials"])}

    def stop(self):
        self.worker.storage.remove_session()
        self.worker.storage.engine.dispose()


@pytest.fixture
def here(monkeypatch):
    """Let workers be no processes of their own, where that is not what is looked at."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(pool, "WorkerProcess", Here)
    yield
    torch.set_num_threads(threads)


def states(folder):
    """State names of each trial of the search and the baselines that there are."""
    storage = trials.open_storage(f"sqlite:///{folder / 'runs' / 'small' / 'study.db'}")
    there = optuna.get_all_study_names(storage)
    return {
        which: [t.state.name for t in trials.load_study(storage, name).get_trials(deepcopy=False)]
        for which, name in trials.study_names("small").items()
        if name in there
    }


def test_a_run_leaves_its_files_and_as_many_trials_as_wanted(finished):
    folder, output = finished
    out = folder / "runs" / "small"
    names = {p.name for p in out.iterdir()}
    expected = {"trials.csv", "front.csv", "report.md", "report.html", "pareto.png", "study.db"}
    expected |= {"study.json", "models"}
    assert names == expected
    assert states(folder) == {"search": ["COMPLETE"] * 3, "scalarization": ["COMPLETE"] * 3}
    table = pd.read_csv(out / "trials.csv")
    assert table.study.value_counts().to_dict() == {"search": 3, "scalarization": 3}
    scales = table.query("study == 'search'").filter(like="param: task_scale[")
    assert scales.sum(axis=1).tolist() == pytest.approx([7] * 3)
    weights = table.query("study == 'scalarization'").filter(like="__weights[")
    assert weights.iloc[0].tolist() == pytest.approx([1 / 7] * 7)
    assert "search: 3 trials complete, 0 failed" in output


def test_outputs_tell_data_and_machine_but_no_path_or_host(finished):
    folder, _ = finished
    out = folder / "runs" / "small"
    study = Study.from_toml(folder / "small.toml", out=out)
    for name in ("report.md", "trials.csv", "front.csv"):
        text = (out / name).read_text()
        assert study.problem.sha256 in text
        assert "torch" in text
        assert str(folder) not in text
        assert os.uname().nodename not in text


def test_the_same_command_again_runs_nothing_and_a_larger_total_goes_on(
    finished, command, here, capsys
):
    folder, _ = finished
    assert command(folder, "--workers", "1") == 0
    assert states(folder)["search"] == ["COMPLETE"] * 3
    assert command(folder, "--workers", "1", "--trials", "4") == 0
    assert states(folder) == {"search": ["COMPLETE"] * 4, "scalarization": ["COMPLETE"] * 4}
    capsys.readouterr()
    assert main(["study", "report", "runs/small"]) == 0
    assert "search: 4 trials complete" in capsys.readouterr().out


def test_no_two_trials_of_a_study_are_alike(finished):
    folder, _ = finished
    table = pd.read_csv(folder / "runs" / "small" / "trials.csv")
    assert table["validation: mean"].nunique() == len(table)


@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        (("max_epochs = 2", "max_epochs = 3"), [], ["another study", "estimator.max_epochs"]),
        (
            ('name = "small"', 'name = "other"'),
            ["--out", "runs/small"],
            ["another study", "'small'"],
        ),
        (('"MGDA"', '"MGDAA"'), [], ["new.toml: [search]", "'MGDAA'", "did you mean 'MGDA'"]),
        (("lr =", "lrr ="), [], ["new.toml: [search]", "'lrr'"]),
        (("", ""), ["--out", "."], ["holds other files"]),
        (("", ""), ["--data", "nothing.csv"], ["path needs targets"]),
        (
            ('name = "arm"', 'name = "arm"\ntargets = 7'),
            ["--data", "nothing.csv"],
            ["no file nothing.csv"],
        ),
        (("", ""), ["--device", "cuda:77"], ["cuda:77", "not available"]),
        (("", ""), ["--trials", "0"], ["--trials 0"]),
        (("", ""), ["--workers", "0"], ["--workers 0"]),
        (("", ""), ["--storage", "nonsense", "--out", "fresh"], ["storage cannot be opened"]),
    ],
)
def test_a_study_that_cannot_run_is_one_line_and_writes_nothing(
    finished, change, arguments, words, monkeypatch, capsys
):
    folder, _ = finished
    monkeypatch.chdir(folder)
    text = SMALL.format(epochs=2, lr=LR).replace(*change, 1) if change[0] else None
    (folder / "new.toml").write_text(text or SMALL.format(epochs=2, lr=LR))
    before = sorted(folder.rglob("*"))
    assert main(["study", "run", "new.toml", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("mtlsk: error: ")
    for word in words:
        assert word in lines[0]
    assert sorted(folder.rglob("*")) == before


def test_storage_of_another_version_is_refused(tmp_path):
    study = Study.from_toml(write(tmp_path), out=tmp_path / "out")
    _, studies = study.open()
    about = studies["search"].user_attrs["mtlsk"]
    studies["search"].set_user_attr("mtlsk", {**about, "schema": 99})
    with pytest.raises(StudyError, match=r"another version of mtlsk.*99"):
        study.open()


def test_storage_of_another_optuna_is_refused(tmp_path):
    study = Study.from_toml(write(tmp_path), out=tmp_path / "out")
    storage, _ = study.open()
    storage.remove_session()
    with sqlite3.connect(tmp_path / "out" / "study.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
    with pytest.raises(StudyError, match="another version of optuna"):
        study.open()


def test_diverged_trials_are_marked_and_the_study_goes_on(tmp_path, command, here):
    path = write(tmp_path, lr="[1e30]")
    path.write_text(path.read_text().replace("[search]", '[search]\noptimizer = ["SGD"]'))
    assert command(tmp_path, "--trials", "2", "--workers", "1") == 1  # none completed
    assert states(tmp_path) == {"search": ["FAIL"] * 2, "scalarization": ["FAIL"] * 2}
    table = pd.read_csv(tmp_path / "runs" / "small" / "trials.csv")
    assert table.reason.str.match(r"diverged: .*task 'torque\d'.*lr=1e\+30").all()
    assert "diverged" in (tmp_path / "runs" / "small" / "report.md").read_text()


def read(folder, query):
    """Rows of a query, read from the database as it is."""
    database = folder / "runs" / "small" / "study.db"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
            return opened.execute(query).fetchall()
    except sqlite3.OperationalError:  # it is just being made
        return []


def running(folder):
    """Owners of the trials that run."""
    query = (
        "SELECT value_json FROM trial_user_attributes JOIN trials USING (trial_id) "
        "WHERE state = 'RUNNING' AND key = 'owner'"
    )
    return [json.loads(text) for (text,) in read(folder, query)]


def wait_for(condition, seconds=120, pause=0.05):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(pause)
    return found


def send(kind, condition):
    """Send a signal, as soon as there is one, to the process whose id ``condition`` gives."""
    sender = threading.Thread(target=lambda: os.kill(wait_for(condition), kind))
    sender.start()
    return sender


def write_baseline(folder, *, epochs, wanted):
    """Write a study of one trial of the search and many of the baseline."""
    path = write(folder, epochs=epochs)
    text = path.read_text().replace("trials = 3", "trials = 1")
    path.write_text(f"{text}\nscalarization = {wanted}\n")
    return path


def batch(folder, size):
    """The process that runs so many trials at once, None as long as there is none."""
    pids = [owner["pid"] for owner in running(folder)]
    return next((pid for pid in pids if pids.count(pid) >= size), None)


def baseline_of(folder):
    storage = trials.open_storage(f"sqlite:///{folder / 'runs' / 'small' / 'study.db'}")
    return trials.load_study(storage, trials.study_names("small")["scalarization"]).get_trials()


def test_ctrl_c_in_the_middle_of_a_batch_keeps_what_is_done(tmp_path, command):
    write_baseline(tmp_path, epochs=300, wanted=13)
    process = start(tmp_path, "--workers", "2")
    wait_for(lambda: batch(tmp_path, 2))
    complete = "SELECT trial_id FROM trials WHERE state = 'COMPLETE'"
    wait_for(lambda: len(read(tmp_path, complete)) >= 7)
    group = os.getpgid(wait_for(lambda: batch(tmp_path, 2)))
    before = set(read(tmp_path, complete))
    os.killpg(process.pid, signal.SIGINT)  # what the terminal does: all of the group
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert group == process.pid
    assert "the same command goes on" in error
    assert "Traceback" not in error
    assert not running(tmp_path)
    names = states(tmp_path)["scalarization"]
    assert names.count("FAIL") == names.count("WAITING") >= 1
    assert command(tmp_path, "--workers", "1") == 0
    assert states(tmp_path)["scalarization"].count("COMPLETE") == 13
    assert states(tmp_path)["scalarization"].count("FAIL") == names.count("FAIL")
    assert before <= set(read(tmp_path, complete))


def test_a_termination_keeps_what_is_done_and_the_same_command_goes_on(
    tmp_path, command, monkeypatch, capsys
):
    write(tmp_path, epochs=150)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # until the command has its own way
    sender = send(signal.SIGTERM, lambda: running(tmp_path) and os.getpid())
    assert command(tmp_path, "--trials", "2", "--workers", "1") == 143
    sender.join()
    error = capsys.readouterr().err
    assert "the same command goes on" in error
    assert not running(tmp_path)
    monkeypatch.setattr(pool, "WorkerProcess", Here)
    assert command(tmp_path, "--trials", "2", "--workers", "1") == 0
    for found in states(tmp_path).values():
        assert found.count("COMPLETE") == 2
        assert set(found) <= {"COMPLETE", "FAIL"}


def test_a_killed_worker_loses_one_trial_which_is_run_again(tmp_path, command, capsys):
    write(tmp_path, epochs=150)
    killer = send(signal.SIGKILL, lambda: next((owner["pid"] for owner in running(tmp_path)), None))
    assert command(tmp_path, "--trials", "2", "--workers", "2") == 0
    killer.join()
    found = states(tmp_path)
    assert {which: s.count("COMPLETE") for which, s in found.items()} == {
        "search": 2,
        "scalarization": 2,
    }
    assert sum(s.count("FAIL") for s in found.values()) == 1
    assert "2 trials complete, 0 failed" in capsys.readouterr().out


def test_a_worker_killed_in_the_middle_of_a_batch_loses_all_of_it_once(tmp_path, command):
    write_baseline(tmp_path, epochs=100, wanted=START + 1)
    killer = send(signal.SIGKILL, lambda: batch(tmp_path, START))
    assert command(tmp_path, "--workers", "1") == 0
    killer.join()
    by_state = {"COMPLETE": [], "FAIL": []}
    for trial in baseline_of(tmp_path):
        by_state[trial.state.name].append(trial)  # there is no other state
    assert len(by_state["COMPLETE"]) == START + 1
    assert len(by_state["FAIL"]) == START
    assert not any("failed" in trial.user_attrs for trial in by_state["FAIL"])
    again = [t.params for t in by_state["COMPLETE"] if t.user_attrs.get("lost") == 1]
    # the last one may have died before it was drawn
    lost = [t.params for t in by_state["FAIL"] if len(t.params) == 8]
    assert len(again) == START
    assert len(lost) >= START - 1
    assert all(again.count(params) == 1 for params in lost)


def test_a_trial_left_without_owner_is_run_again_and_none_in_vain(tmp_path, monkeypatch, here):
    """What a worker leaves that is killed the moment it asks."""
    monkeypatch.setattr(trials, "OWNERLESS", 2)
    study = Study.from_toml(write(tmp_path), out=tmp_path / "out", trials=2)
    _, studies = study.open()
    ask(studies["scalarization"])
    study.run(workers=1)
    names = [t.state.name for t in studies["scalarization"].get_trials()]
    assert (names.count("COMPLETE"), names.count("FAIL"), len(names)) == (2, 1, 3)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A folder in which the baseline ran by the Python interface, its trials kept beside it."""
    folder = tmp_path_factory.mktemp("elsewhere")
    url = f"sqlite:///{folder / 'elsewhere.db'}"
    path = write_baseline(folder, epochs=2, wanted=13)
    study = Study.from_toml(path, out=folder / "out", storage=url)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mtlsk.study, "cores", lambda: 1)  # as in the command beside which it is put
        study.run(workers=1, progress=lambda counts, wanted: seen.append((counts, wanted)))
    return folder, study.trials(), seen


def test_python_interface_and_storage_elsewhere(elsewhere):
    folder, table, seen = elsewhere
    assert [c.done for c in seen[-1][0].values()] == [1, 13]
    assert table.study.tolist() == ["search", *["scalarization"] * 13]
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["models", "study.json"]
    assert json.loads((folder / "out" / "study.json").read_text())["name"] == "small"


def test_one_worker_gives_the_same_trials_twice(elsewhere, tmp_path, command):
    write_baseline(tmp_path, epochs=2, wanted=13)
    assert command(tmp_path, "--workers", "1") == 0
    tables = [elsewhere[1], Study.from_toml("small.toml").trials()]
    assert len(tables[0]) == 14
    pd.testing.assert_frame_equal(*(table.drop(columns="seconds") for table in tables))


def ask(study):
    """A trial that is RUNNING with no optimize() behind it, which Optuna warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return study.ask()


def test_trials_of_a_process_that_is_gone_are_failed_at_once_and_queued_again(tmp_path):
    study = Study.from_toml(write(tmp_path), out=tmp_path / "out")
    _, studies = study.open()
    search = studies["search"]
    gone, alive = ask(search), ask(search)
    gone.suggest_float("x", 0, 1)
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    gone.set_user_attr("owner", {"host": trials.host_digest(), "pid": child.pid, "started": 0.0})
    alive.set_user_attr("owner", trials.owner())
    assert trials.fail_abandoned(search) == 1
    found = search.get_trials()
    assert [t.state.name for t in found] == ["FAIL", "RUNNING", "WAITING"]
    assert ask(search).suggest_float("x", 0, 1) == found[0].params["x"]
    assert trials.count(search).done == 0  # a lost trial does not count


def test_a_trial_that_brings_down_three_workers_is_not_run_again(tmp_path):
    search = Study.from_toml(write(tmp_path), out=tmp_path / "out").open()[1]["search"]
    gone = {**trials.owner(), "started": 0.0}
    for _ in range(trials.MAX_LOST):
        ask(search).set_user_attr("owner", gone)
        assert trials.fail_abandoned(search, died=os.getpid()) == 1
    assert [t.state.name for t in search.get_trials()] == ["FAIL"] * trials.MAX_LOST
    assert "worker died 3 times" in search.get_trials()[-1].user_attrs["failed"]
    assert trials.count(search).done == 1


def test_a_stop_is_no_death(tmp_path):
    search = Study.from_toml(write(tmp_path), out=tmp_path / "out").open()[1]["search"]
    gone = {**trials.owner(), "started": 0.0}
    for _ in range(trials.MAX_LOST + 1):
        ask(search).set_user_attr("owner", gone)
        trials.fail_abandoned(search)
    assert search.get_trials()[-1].state is TrialState.WAITING


def test_a_run_stopped_while_it_made_the_study_can_go_on(tmp_path):
    study = Study.from_toml(write(tmp_path), out=tmp_path / "out")
    (tmp_path / "out").mkdir()
    storage = trials.open_storage(study.storage_url)
    directions = ["minimize"] * len(study.problem.objectives)
    optuna.create_study(study_name="small", storage=storage, directions=directions)
    assert study.open()[1]["search"].user_attrs["mtlsk"]["schema"] == trials.SCHEMA


def test_two_commands_on_one_folder_share_the_total(tmp_path, command):
    write(tmp_path)
    other = start(tmp_path, "--trials", "3", "--workers", "1")
    wait_for((tmp_path / "runs" / "small" / "study.db").exists, pause=0.001)
    mine = command(tmp_path, "--trials", "3", "--workers", "1")
    _, error = other.communicate(timeout=300)
    assert (mine, other.returncode) == (0, 0), error
    assert {w: s.count("COMPLETE") for w, s in states(tmp_path).items()} == {
        "search": 3,
        "scalarization": 3,
    }


def test_a_process_id_given_to_another_process_is_not_the_owner(tmp_path):
    study = Study.from_toml(write(tmp_path), out=tmp_path / "out")
    search = study.open()[1]["search"]
    who = trials.owner()
    ask(search).set_user_attr("owner", {**who, "started": who["started"] - 1000})
    ask(search).set_user_attr("owner", {**who, "host": "another machine", "pid": 1})
    trials.fail_abandoned(search)
    assert [t.state.name for t in search.get_trials()][:2] == ["FAIL", "RUNNING"]


def test_a_worker_has_the_torch_threads_it_is_given(tmp_path):
    study = Study.from_toml(write(tmp_path), out=tmp_path / "out")
    study.open()
    threads = trials.cores() + 1  # what nobody takes unasked
    worker = WorkerProcess(
        {
            "study": study.file.model_dump(),
            "estimator": {},
            "sha256": study.problem.sha256,
            "wanted": study.wanted,
            "trials": None,
            "out": str(study.out),
            "storage": study.storage_url,
            "threads": threads,
            "sys_path": sys.path,
        },
        print,
    )
    try:
        worker.start()
        assert worker.threads == threads
    finally:
        worker.stop()


def test_all_baselines_seeds_folds_and_the_stopping_rule_together(tmp_path, command, here, capsys):
    path = write(tmp_path)
    text = path.read_text().replace("trials = 3", "trials = 12\nrepeats = 2")
    text = text.replace("equal_weights = 0\nsingle_task = 0", "equal_weights = 2\nsingle_task = 2")
    text = text.replace('split = "random"', 'split = "random"\nfolds = 2')
    text = text.replace("repeats = 2", "repeats = 2\nstop = { trials = 2, hypervolume = 0.99 }")
    path.write_text(text)
    assert command(tmp_path, "--workers", "1") == 0
    found = {which: len(names) for which, names in states(tmp_path).items()}
    assert list(found) == ["search", "scalarization", "equal_weights", "single_task"]
    assert 3 <= found["search"] < 12  # the rule needs more trials than two
    results = read_results(
        "small",
        trials.open_storage(f"sqlite:///{tmp_path / 'runs' / 'small' / 'study.db'}"),
        tmp_path / "runs" / "small",
    )
    table, repeats = results["trials"], results["repeats"]
    assert any("Stopped before all trials were run" in note for note in results["notes"])
    assert repeats.groupby(["study", "number"]).size().eq(2).all()
    columns = [c for c in repeats if c.startswith(("validation", "test"))]
    means = repeats.groupby(["study", "number"])[columns].mean()
    found = table.set_index(["study", "number"])[columns].loc[means.index]
    pd.testing.assert_frame_equal(found, means, check_names=False)
    single = table.query("study == 'single_task'")
    losses = single.filter(regex="^test loss: ")
    assert single["test: mean"].tolist() == pytest.approx(losses.mean(axis=1).tolist())
    assert set(results["traces"]) <= {(r.study, r.number) for r in table.itertuples()}
    assert {which for which, _ in results["traces"]} == {"search", "scalarization", "equal_weights"}
    for key in results["traces"]:
        assert results["estimators"][key]["hidden_layer_sizes"] == [8]
    path.write_text(text.replace("stop = { trials = 2, hypervolume = 0.99 }", ""))
    assert command(tmp_path, "--workers", "1", "--trials", "3") == 0  # as many as asked for now
    assert "Stopped before" not in (tmp_path / "runs" / "small" / "report.md").read_text()


def test_differences_are_named_by_dotted_keys():
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}) == ["a.c", "d"]
