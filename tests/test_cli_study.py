"""Studies on the command line: checked before, watched while they run, chosen from after."""

import io
import json
import sys

import pandas as pd
import pytest
import torch
from test_study import Here

import mtlsk.study
from mtlsk import Study, TableModel, models, plan, pool
from mtlsk.cli import main, progress
from mtlsk.cli.progress import Progress, duration
from mtlsk.trials import Counts

FILE = """
[study]
name = "few"
trials = 4
repeats = 2
[data]
name = "linnerud"
split = "random"
folds = 2
[estimator]
hidden_layer_sizes = [4]
max_epochs = 2
[search]
aggregator = ["ConicGrad", "MGDA"]
aggregator__c = {}
lr = { low = 1e-3, high = 3e-2, log = true }
[baselines]
scalarization = 3
equal_weights = 0
single_task = 2
"""


def run(capsys, *arguments):
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the study ran, in this process, and what it printed as JSON."""
    folder = tmp_path_factory.mktemp("few")
    (folder / "few.toml").write_text(FILE)
    threads, path = torch.get_num_threads(), list(sys.path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "WorkerProcess", Here)
        patch.setattr(mtlsk.study, "cores", lambda: 1)
        patch.chdir(folder)
        out = io.StringIO()
        patch.setattr(sys, "stdout", out)
        assert main(["study", "run", "few.toml", "--workers", "1", "--json"]) == 0
    (folder / "said.json").write_text(out.getvalue())
    torch.set_num_threads(threads)
    sys.path[:] = path
    return folder


@pytest.fixture(autouse=True)
def there(request, monkeypatch):
    if "folder" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("folder"))


def test_run_says_in_one_json_object_what_it_came_to(folder):
    text = (folder / "said.json").read_text()
    assert text.count("\n") == 1
    said = json.loads(text)
    assert said["folder"] == "runs/few"
    assert said["trials"]["search"] == {"wanted": 4, "complete": 4, "failed": 0, "pruned": 0}
    assert said["trials"]["scalarization"]["complete"] == 3
    assert said["verdict"]
    assert said["indicators"]["search"]["hypervolume"] > 0
    assert "runs/few/report.md" in said["files"]


def test_report_prints_as_quietly_as_it_is_asked(capsys, folder):
    assert run(capsys, "study", "report", "runs/few", "--quiet") == (0, "", "")
    again = json.loads(run(capsys, "study", "report", "runs/few", "--json")[1])
    assert again["trials"] == json.loads((folder / "said.json").read_text())["trials"]
    code, out, _ = run(capsys, "study", "report", "runs/few")
    assert code == 0
    assert "search: 4 trials complete, 0 failed" in out


@pytest.mark.parametrize("where", ["runs/few", "few.toml"])
def test_best_prints_the_choice_beside_scalarization_and_saves_its_model(capsys, folder, where):
    code, out, err = run(
        capsys, "study", "best", where, "--preference", "1,1,2", "--save", "best.pkl"
    )
    assert (code, err) == (0, "")
    assert "preference loss Weight 0.25" in out
    assert "scalarization: its trial" in out
    model = TableModel.load("best.pkl")
    assert model.about["study"] == "few"
    assert f"trial {model.about['trial']} of the search" in out
    assert list(model.predict(_table())) == ["Weight", "Waist", "Pulse"]
    found = json.loads(run(capsys, "study", "best", where, "--json")[1])
    assert set(found["search"]["validation"]) == set(found["preference"])
    assert sum(found["preference"].values()) == pytest.approx(1)


def test_a_model_that_is_missing_is_fitted_again_to_the_same(capsys, folder):
    assert run(capsys, "study", "best", "runs/few", "--save", "kept.pkl")[0] == 0
    number = TableModel.load("kept.pkl").about["trial"]
    path = models.path("runs/few", "search", number)
    content = path.read_bytes()
    path.unlink()
    try:
        code, out, err = run(capsys, "study", "best", "runs/few", "--save", "gone.pkl")
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert "--refit" in err
        assert not (folder / "gone.pkl").exists()
        assert run(capsys, "study", "best", "runs/few", "--refit", "--save", "again.pkl")[0] == 0
    finally:
        path.write_bytes(content)
    kept, again = (TableModel.load(name) for name in ("kept.pkl", "again.pkl"))
    pd.testing.assert_frame_equal(again.predict(_table()), kept.predict(_table()), rtol=1e-5)


def test_the_front_and_the_best_from_python(folder):
    study = Study.from_toml("few.toml")
    assert 1 <= len(study.front_) <= 4
    best = study.best([1, 0, 0])
    assert best.number == study.front_["number"].iloc[0]
    assert best.params["hidden_layer_sizes"] == [4]
    assert best.model.score(_table()) <= 1
    assert study.best([1, 0, 0], refit=True).model.about["trial"] == best.number


def _table():
    from mtlsk.datasets import make_linnerud

    bunch = make_linnerud()
    return bunch.data.join(bunch.target)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["best", "runs/few", "--preference", "0.2"], "has 1 weights for 3 objectives"),
        (["best", "runs/few", "--preference=-1,1,1"], "not allowed"),
        (["best", "runs/few", "--preference", "0,0,0"], "not all 0"),
        (["best", "runs/few", "--preference", "a,b,c"], "no list of numbers"),
        (["best", "no.toml"], "no such study file"),
        (["best", "."], "holds no study"),
        (["best", "few.toml", "--out", "no"], "holds no study"),
        (["best", "other.toml", "--out", "runs/few"], "is not the study in runs/few"),
        (["best", "runs/few", "--save", "no/m.pkl"], "there is no folder"),
        (["best", "runs/few", "--storage", "sqlite:///no.db"], "there is no such file"),
        (["check", "no.toml"], "no such study file"),
        (["report", "few.toml"], "holds no study"),
        (["run", "few.toml", "--trials", "0"], "--trials 0"),
    ],
)
def test_wrong_input_is_one_line_and_code_2(capsys, folder, arguments, words):
    (folder / "other.toml").write_text(FILE.replace("[4]", "[5]"))
    code, out, err = run(capsys, "study", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("mtlsk: error: ")
    assert err.count("\n") == 1
    assert words in err


def test_check_says_what_would_run_and_runs_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few.toml").write_text(FILE)
    code, out, err = run(capsys, "study", "check", "few.toml", "--workers", "1")
    assert (code, err) == (0, "")
    assert [p.name for p in tmp_path.iterdir()] == ["few.toml"]
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if " TPE " in line}
    # two repeats of two folds and the test part's fit; of single_task one net a task
    assert rows["search"] == ["TPE", "4", "2", "6", "24"]
    assert rows["single_task"][-3:] == ["2", "18", "36"]
    assert "aggregator[ConicGrad]__c" in out
    assert "with 1 worker;" in out
    found = json.loads(run(capsys, "study", "check", "few.toml", "--no-time", "--json")[1])
    assert found["seconds"] is None
    assert found["studies"][0]["searched"]["lr"] == "0.001 to 0.03, log"


def test_a_grid_has_its_size_and_an_estimate_is_fits_times_seconds(tmp_path, monkeypatch):
    path = tmp_path / "grid.toml"
    text = FILE.replace('name = "few"', 'name = "few"\nsampler = { name = "grid", points = 2 }')
    path.write_text(text.replace("trials = 4", "trials = 50"))
    study = Study.from_toml(path)
    search = plan.plan(study)[0]
    assert (search.sampler, search.grid, search.trials) == ("grid", 6, 6)
    seconds = {"ConicGrad": 3.0, "MGDA": 1.0, "LinearScalarization": 0.5}
    monkeypatch.setattr(plan, "seconds_of", lambda _, params, which: seconds[params["aggregator"]])
    found = plan.estimate(study, workers=2)
    fits = {p.which: p.fits for p in plan.plan(study)}
    total = 2.0 * fits["search"] + 0.5 * (fits["scalarization"] + fits["single_task"])
    total += plan.BESIDE * sum(study.wanted.values())
    assert found.start > 0
    assert found.seconds == pytest.approx(found.start + total / 2)
    assert found.fit_seconds["ConicGrad"] == 3.0


class Watched:
    wanted = {"search": 4, "scalarization": 2}

    def results(self):
        raise AssertionError("nothing has ended")


def test_without_a_terminal_progress_is_a_line_now_and_then(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Progress, "look", lambda *_: None)
    with Progress(Watched(), quiet=False) as shown:
        shown.volume = 0.25
        for done in (0, 1, 2, 3):
            counts = {"search": Counts(done, 0, 1), "scalarization": Counts(0, 1, 0)}
            shown(counts, Watched.wanted)
            clock[0] += 20.0
    err = capsys.readouterr().err
    assert err == ("hypervolume 0.250, 1 failed, search 2/4, scalarization 1/2, about 60 s left\n")
    with Progress(Watched(), quiet=True) as shown:
        shown(counts, Watched.wanted)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_progress_is_a_bar(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    stream.fileno = lambda: 2
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress.os, "get_terminal_size", lambda _: (0, 0))
    monkeypatch.setattr(Progress, "look", lambda *_: None)
    with Progress(Watched(), quiet=False) as shown:
        shown.volume = 0.25
        counts = {"search": Counts(2, 0, 1), "scalarization": Counts(0, 1, 0)}
        shown(counts, Watched.wanted)
    assert " 50% 3/6 [" in stream.getvalue()
    assert "hypervolume 0.250, 1 failed, search 2/4, scalarization 1/2" in stream.getvalue()


def test_durations_are_words():
    assert [duration(s) for s in (3, 89, 600, 7200)] == ["3 s", "89 s", "10 min", "2.0 h"]
