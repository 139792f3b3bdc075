"""Runs that are not left to their end: workers and commands stopped, a disk that is full."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from sqlalchemy import event
from sqlalchemy.engine import Engine

import mtlsk.study
from mtlsk import Study, pool, trials
from mtlsk.trials import draw_of, load_study, open_storage
from mtlsk.worker import Worker

FILE = """
[study]
name = "small"
trials = {wanted}
sampler = "random"
models = "none"
[data]
name = "arm"
options = {{ n_samples = 300, random_state = 0 }}
split = "random"
[estimator]
hidden_layer_sizes = [8]
max_epochs = {epochs}
[search]
aggregator = ["{aggregator}"]
lr = {{ low = 1e-3, high = 3e-2, log = true }}
[baselines]
scalarization = 0
equal_weights = 0
single_task = 0
"""


def write(folder, *, wanted, aggregator="ConicGrad"):
    path = folder / "small.toml"
    path.write_text(FILE.format(epochs=1, wanted=wanted, aggregator=aggregator))
    return path


@pytest.fixture
def found(tmp_path):
    """The trials of the study as they are now, and the study."""
    opened = []

    def now():
        if not opened:
            if not (tmp_path / "runs" / "small" / "study.json").exists():
                return []
            opened.append(open_storage(f"sqlite:///{tmp_path}/runs/small/study.db"))
        return load_study(opened[0], "small").get_trials(deepcopy=False)

    now.study = lambda: load_study(opened[0], "small")
    yield now
    for storage in opened:
        storage.remove_session()
        storage.engine.dispose()


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
    return value


def running(found, but=()):
    """A trial that runs and says whose it is, not one of these processes'."""
    for trial in found():
        owner = trial.user_attrs.get("owner", {}).get("pid")
        if trial.state.name == "RUNNING" and owner not in (None, *but):
            return trial
    return None


def test_a_worker_that_is_stopped_and_a_command_that_is_killed(tmp_path, found):
    write(tmp_path, wanted=4, aggregator="held:Held")
    shutil.copy(Path(__file__).with_name("held.py"), tmp_path)
    (tmp_path / "hold").touch()
    command = subprocess.Popen(
        [sys.executable, "-m", "mtlsk", "study", "run", "small.toml", "--workers", "1"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stopped = wait_for(lambda: running(found))
    worker = stopped.user_attrs["owner"]["pid"]
    os.kill(worker, signal.SIGHUP)  # which a worker leaves to its command
    os.kill(worker, signal.SIGTERM)
    second = wait_for(lambda: running(found, but=[worker]))
    assert found()[stopped.number].state.name == "FAIL"
    assert (second.user_attrs["draw"], second.user_attrs["lost"]) == (stopped.number, 0)
    orphan = psutil.Process(second.user_attrs["owner"]["pid"])
    os.kill(command.pid, signal.SIGKILL)
    command.wait()
    assert orphan.is_running()
    (tmp_path / "hold").unlink()
    # to the end of its trial, and no longer
    wait_for(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE)
    assert found()[second.number].state.name == "COMPLETE"
    assert [t.state.name for t in found() if t.number > second.number] == []
    assert [draw_of(found.study(), t) for t in found()] == [stopped.number] * 2


class Here:
    """A worker that runs its trials in this process."""

    def __init__(self, job, say):
        self.process, self.job, self.say = SimpleNamespace(pid=os.getpid()), job, say

    def start(self):
        self.worker = Worker(self.job, self.say)

    def ask(self, message):
        return {"ended": self.worker.run(message["which"], message["trials"])}

    def stop(self):
        self.worker.storage.remove_session()
        self.worker.storage.engine.dispose()


def test_a_full_disk_ends_the_command_in_one_line_and_it_goes_on(
    tmp_path, found, monkeypatch, capsys
):
    from mtlsk.cli import main

    threads, path = torch.get_num_threads(), list(sys.path)
    monkeypatch.setattr(pool, "WorkerProcess", Here)
    monkeypatch.setattr(mtlsk.study, "cores", lambda: 1)
    monkeypatch.setattr(trials, "PATIENCE", 0.5)
    monkeypatch.setattr(trials, "HEARTBEAT", 1)  # the owner of what is left is this process
    monkeypatch.setattr(trials, "GRACE", 2)
    write(tmp_path, wanted=30)  # some fit into pages that there are
    monkeypatch.chdir(tmp_path)
    room = {"pages": None}

    def limit(connection):
        """Let the disk be full from the first complete trial on."""
        if room["pages"] is not None:
            connection.exec_driver_sql(f"PRAGMA max_page_count = {room['pages']}")

    def fill(counts, wanted):
        if room["pages"] is None and counts["search"].complete:
            room["pages"] = 1  # that is, what it has now

    event.listen(Engine, "begin", limit)
    try:
        with pytest.raises(OSError, match="disk of the storage is full") as caught:
            Study.from_toml("small.toml").run(1, fill)
        done = [t.number for t in found() if t.state.name == "COMPLETE"]
        assert done
        line = str(caught.value)
        assert line.endswith("the same command goes on from there")
        assert "\n" not in line
        capsys.readouterr()
        assert main(["study", "run", "small.toml", "--workers", "1"]) == 2
        error = [e for e in capsys.readouterr().err.splitlines() if e.startswith("mtlsk: error")]
        assert len(error) == 1
        assert "the disk of the storage is full: free some space" in error[0]
        room["pages"] = 1 << 20
        assert main(["study", "run", "small.toml", "--workers", "1"]) == 0
    finally:
        event.remove(Engine, "begin", limit)
        torch.set_num_threads(threads)
        sys.path[:] = path
    complete = [t for t in found() if t.state.name == "COMPLETE"]
    assert set(done) <= {t.number for t in complete}
    assert sorted(draw_of(found.study(), t) for t in complete) == list(range(30))


def test_a_file_that_finds_no_room_says_what_to_do(monkeypatch, capsys):
    from mtlsk.cli import main

    def full(kind):
        raise OSError(errno.ENOSPC, "No space left on device", "report.md")

    monkeypatch.setattr("mtlsk.catalogue.as_text", full)
    assert main(["list", "engines"]) == 2
    line = (
        "mtlsk: error: the disk is full: free some space, and the same command goes on from there"
    )
    assert capsys.readouterr().err.splitlines() == [line]
