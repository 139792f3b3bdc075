"""The files of a report, on made-up results."""

import dataclasses
import os
import re
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_results import make_full

import mtlsk
import mtlsk.report.figure
from mtlsk.machine import machine, versions
from mtlsk.pareto import non_dominated
from mtlsk.report import Results, write_report
from mtlsk.report.text import parameters

FILES = {"trials.csv", "front.csv", "report.md", "pareto.png", "report.html"}


def make_results(m=2, n=30, maximise=None, seed=0, **changes):
    rng = np.random.default_rng(seed)
    objectives = [f"loss {i}" for i in range(m)]
    maximise = maximise or [False] * m
    rows = []
    for study in ("search", "scalarization"):
        for number in range(n):
            row = {"study": study, "number": number, "state": "COMPLETE", "seconds": 1.5}
            row |= {"reason": "", "param: lr": 0.004}
            if study == "search":
                row |= {"param: aggregator": "ConicGrad", "param: aggregator[ConicGrad]__c": 0.6123}
            else:
                row |= {f"param: task_scale[{i}]": 1 / m for i in range(m)}
            values = rng.uniform(size=m)
            for i, name in enumerate(objectives):
                sign = -1.0 if maximise[i] else 1.0
                row[f"validation: {name}"] = sign * values[i]
                row[f"test: {name}"] = sign * (values[i] + 0.05 * rng.normal())
                row[f"test loss: task {i}"] = values[i]
            rows.append(row)
    results = Results(
        name="cone-angle",
        date="2026-07-01",
        data_name="make_arm(n=1000)",
        data_sha256="c0ffee" * 10,
        n_rows={"train": 600, "validation": 200, "test": 200},
        notes=["the learning rate is searched in both"],
        objectives=objectives,
        maximise=maximise,
        task_names=[f"task {i}" for i in range(m)],
        trials=pd.DataFrame(rows),
        seed=7,
        wanted={"search": n, "scalarization": n},
        machine={"cpu": "Example CPU", "cores": "2"},
        versions={"mtlsk": "0.1", "torch": "2.13"},
    )
    return dataclasses.replace(results, **changes)


def failed(results, study, numbers, reason):
    """The same results with some trials failed."""
    trials = results.trials.copy()
    rows = (trials["study"] == study) & trials["number"].isin(numbers)
    trials.loc[rows, ["state", "reason"]] = ["FAIL", reason]
    measured = [c for c in trials if c.startswith(("validation: ", "test"))]
    trials.loc[rows, measured] = np.nan
    return dataclasses.replace(results, trials=trials)


def chunks(png):
    """The chunks of a PNG, with their check sums checked."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, found = 8, []
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        assert struct.unpack(">I", png[at + 8 + size : at + 12 + size])[0] == zlib.crc32(
            kind + body
        )
        found.append((kind, body))
        at += 12 + size
    return found


def is_complete_png(path):
    found = chunks(path.read_bytes())
    return found[0][0] == b"IHDR" and found[-1][0] == b"IEND"


def cells(page, first):
    """The cells of the table rows whose first cell is `first`."""
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("|")]
    return [row for row in rows if row[0] == first]


@pytest.mark.parametrize(
    ("m", "maximise"), [(1, None), (2, None), (3, None), (5, None), (2, [True, False])]
)
def test_a_report_is_five_files_and_says_what_it_must(tmp_path, m, maximise):
    results = make_results(m, maximise=maximise)
    comparison = write_report(results, tmp_path / "new" / "run").compared
    assert {p.name for p in (tmp_path / "new" / "run").iterdir()} == FILES
    page = (tmp_path / "new" / "run" / "report.md").read_text()
    lines = page.splitlines()
    assert lines[0] == "# cone-angle"
    assert lines[2].startswith(comparison.verdict())  # the verdict comes first
    for said in ("make_arm(n=1000)", "c0ffee" * 10, "Example CPU", "torch 2.13", "2026-07-01"):
        assert said in page
    for said in ("train 600", "learning rate is searched in both", "no trial saw", "(pareto.png)"):
        assert said in page
    assert f"{comparison.search.hypervolume:.4g}" in page
    assert is_complete_png(tmp_path / "new" / "run" / "pareto.png")


@pytest.mark.parametrize("maximise", [[False, False], [True, False]])
def test_the_front_is_chosen_on_validation_and_judged_on_test(tmp_path, maximise):
    results = make_results(maximise=maximise)
    comparison = write_report(results, tmp_path).compared
    front = pd.read_csv(tmp_path / "front.csv")
    sign = np.where(maximise, -1.0, 1.0)
    judged = {}
    for study in ("search", "scalarization"):
        rows = results.trials[results.trials["study"] == study]
        values = rows[["validation: loss 0", "validation: loss 1"]].to_numpy() * sign
        expected = set(rows["number"][non_dominated(values)])
        of_study = front[front["study"] == study]
        assert set(of_study["number"]) == expected
        tested = rows[["test: loss 0", "test: loss 1"]].to_numpy() * sign
        assert set(rows["number"][non_dominated(tested)]) != expected  # the data tell them apart
        judged[study] = of_study[["test: loss 0", "test: loss 1"]].to_numpy() * sign
        assert (np.diff(judged[study][:, 0]) >= 0).all()  # the best first test objective first
    assert np.allclose(comparison.search.points, judged["search"])
    assert np.allclose(comparison.scalarization.points, judged["scalarization"])
    for study, other in (("search", "scalarization"), ("scalarization", "search")):
        expected = [
            not any((y <= x).all() and (y < x).any() for y in judged[other]) for x in judged[study]
        ]
        assert front[front["study"] == study]["undominated"].tolist() == expected
        assert False in expected  # so that a constant column would not do
        assert True in expected


def test_a_better_search_is_said_to_win_also_where_higher_is_better(tmp_path):
    for maximise in ([False, False], [True, True]):
        results = make_results(maximise=maximise)
        trials = results.trials.copy()
        better = trials["study"] == "search"
        tests = ["test: loss 0", "test: loss 1"]
        trials.loc[better, tests] += 0.5 if maximise[0] else -0.5
        comparison = write_report(dataclasses.replace(results, trials=trials), tmp_path).compared
        assert comparison.verdict().startswith("The search wins")
        page = (tmp_path / "report.md").read_text()
        assert ("higher is better)." in page) == maximise[0]


def test_the_csvs_say_data_cpu_and_versions_in_every_row(tmp_path):
    results = make_results()
    write_report(results, tmp_path)
    for name in ("trials.csv", "front.csv"):
        rows = pd.read_csv(tmp_path / name)
        assert rows.columns[-4:].tolist() == ["data", "sha256", "cpu", "versions"]
        assert (rows["data"] == "make_arm(n=1000)").all()
        assert (rows["sha256"] == "c0ffee" * 10).all()
        assert (rows["cpu"] == "Example CPU").all()
        assert (rows["versions"] == "mtlsk=0.1 torch=2.13").all()
    rows = pd.read_csv(tmp_path / "trials.csv")
    kept = rows[results.trials.columns.drop("reason")]
    pd.testing.assert_frame_equal(kept, results.trials.drop(columns="reason"), check_dtype=False)


def test_the_picture_carries_data_and_machine(tmp_path):
    write_report(make_results(), tmp_path)
    found = chunks((tmp_path / "pareto.png").read_bytes())
    text = b"".join(body for kind, body in found if kind in (b"tEXt", b"iTXt"))
    for said in (b"cone-angle", b"c0ffee" * 10, b"Example CPU", b"torch 2.13"):
        assert said in text


def test_failed_trials_are_counted_by_reason_and_stay_out_of_the_front(tmp_path):
    results = failed(make_results(), "search", [0, 1, 2], "diverged: loss 1e9 in epoch 3")
    results = failed(results, "scalarization", [4], "")
    write_report(results, tmp_path)
    page = (tmp_path / "report.md").read_text()
    assert cells(page, "trials failed") == [["trials failed", "3", "1"]]
    assert cells(page, "trials complete") == [["trials complete", "27", "29"]]
    assert cells(page, "trials wanted") == [["trials wanted", "30", "30"]]
    table = page.split("## Failed trials")[1].split("##")[0]
    assert ["search", "diverged", "3", "diverged: loss 1e9 in epoch 3"] in cells(table, "search")
    assert ["scalarization", "unknown", "1", "unknown"] in cells(table, "scalarization")
    front = pd.read_csv(tmp_path / "front.csv")
    assert not front["number"][front["study"] == "search"].isin([0, 1, 2]).any()
    assert len(pd.read_csv(tmp_path / "trials.csv")) == 60
    assert "Failed trials" not in page_of(make_results(), tmp_path)


def page_of(results, out):
    write_report(results, out)
    return (out / "report.md").read_text()


@pytest.mark.parametrize("m", [1, 2, 3, 5])
@pytest.mark.parametrize("empty", ["search", "scalarization"])
def test_a_study_without_a_complete_trial_leaves_nothing_to_compare(tmp_path, m, empty):
    results = failed(make_results(m), empty, range(30), "diverged")
    assert write_report(results, tmp_path).compared is None
    page = (tmp_path / "report.md").read_text()
    assert page.splitlines()[2].startswith(f"No comparison: {empty} gave no complete trial")
    assert "hypervolume (higher" not in page
    other = "scalarization" if empty == "search" else "search"
    assert cells(page, "trials complete")[0][1:] == (
        ["0", "30"] if empty == "search" else ["30", "0"]
    )
    assert set(pd.read_csv(tmp_path / "front.csv")["study"]) == {other}
    shown = cells(page.split("## The fronts")[1].split("##")[0], other)
    assert {row[-1] for row in shown} == {"-"}  # undominated by nothing is no merit
    assert is_complete_png(tmp_path / "pareto.png")


@pytest.mark.parametrize("columns", [None, ["study", "number", "state", "reason", "seconds"]])
def test_no_trials_at_all(tmp_path, columns):
    results = make_results(trials=pd.DataFrame(columns=columns))
    assert write_report(results, tmp_path).compared is None
    assert {p.name for p in tmp_path.iterdir()} == FILES
    page = (tmp_path / "report.md").read_text()
    assert "No comparison: search and scalarization gave no complete trial" in page
    assert is_complete_png(tmp_path / "pareto.png")


def test_a_value_that_is_not_finite_is_left_out_and_said(tmp_path):
    results = make_results()
    results.trials.loc[0, "test: loss 1"] = np.inf
    results.trials.loc[0, "validation: loss 0"] = -1.0  # else it were the best of all
    page = page_of(results, tmp_path)
    assert "Left out: 1 complete trials" in page
    front = pd.read_csv(tmp_path / "front.csv")
    assert 0 not in front["number"][front["study"] == "search"].tolist()


def test_twenty_rows_a_study_are_shown_and_the_rest_counted(tmp_path):
    results = make_results(n=25)
    line = np.tile(np.linspace(0, 1, 25), 2)
    for part in ("validation", "test"):
        results.trials[f"{part}: loss 0"] = line
        results.trials[f"{part}: loss 1"] = 1 - line
    page = page_of(results, tmp_path)
    table = page.split("## The fronts")[1].split("##")[0]
    assert [row[1] for row in cells(table, "search")] == [str(i) for i in range(20)]
    assert len(cells(table, "scalarization")) == 20
    assert "In `front.csv`: 5 more of search and 5 more of scalarization." in table
    assert len(pd.read_csv(tmp_path / "front.csv")) == 50
    assert page.splitlines()[2].startswith("A tie")


def test_parameters_are_short_and_readable():
    row = {
        "param: lr": 0.0041234,
        "param: aggregator": "ConicGrad",
        "param: controller": "APT",
        "param: aggregator[ConicGrad]__c": 0.61234,
        "param: controller[APT]__beta_max": 0.9,
        "param: aggregator[MGDA]__x": np.nan,
        "param: task_scale[0]": 0.25,
        "param: task_scale[1]": 0.75,
        "param: batch_size": 64.0,
        "param: nesterov": True,
        "test: loss": 1.0,
    }
    assert parameters(row) == (
        "lr=0.00412 aggregator=ConicGrad c=0.612 controller=APT beta_max=0.9 "
        "task_scale=(0.25, 0.75) batch_size=64 nesterov=True"
    )
    clash = {
        "param: aggregator[CAGrad]__c": 0.5,
        "param: controller[Cone]__c": 0.25,
        "param: n": "a",
    }
    assert parameters(clash) == "CAGrad.c=0.5 Cone.c=0.25 n=a"


def test_task_losses_are_those_of_the_points_best_on_validation(tmp_path):
    results = make_results(seed=1)
    page = page_of(results, tmp_path)
    table = page.split("## Test loss of each task")[1].split("##")[0]
    head, shown = cells(table, "task")[0], cells(table, "task 1")[0]
    for i, study in enumerate(("search", "scalarization"), start=1):
        rows = results.trials[results.trials["study"] == study]
        best = rows.loc[(rows["validation: loss 0"] + rows["validation: loss 1"]).idxmin()]
        assert best.name != rows["validation: loss 0"].idxmin()  # the mean must be what decides
        assert head[i] == f"{study}, trial {best['number']}"
        assert shown[i] == f"{best['test loss: task 1']:.4g}"
    assert "best mean of the validation objectives" in table
    mixed = page_of(make_results(maximise=[True, False]), tmp_path)  # no mean of these
    assert "best validation loss 0" in mixed


def test_neither_host_nor_path_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "node17.example.org")
    file = tmp_path / "deep" / "table.csv"
    results = make_results(
        data_name=str(file),
        notes=[f"read from {file} on node17", "see https://example.net/a/b and 1/2"],
        machine=machine(),
        versions=versions(),
    )
    results = failed(results, "search", [3], f"OSError: no file '{file}' on node17.example.org")
    results.trials["param: module"] = f"{tmp_path}/net.py"
    write_report(results, tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes()
        assert str(tmp_path).encode() not in content
        assert b"node17" not in content
        assert b"table.csv" not in content
    page = (tmp_path / "out" / "report.md").read_text()
    assert "OSError: no file '<path>' on <host>" in page
    assert "see https://example.net/a/b and 1/2" in page


def test_the_real_host_is_not_written(tmp_path):
    write_report(make_results(machine=machine(), versions=versions()), tmp_path)
    png = chunks((tmp_path / "pareto.png").read_bytes())
    texts = [body for kind, body in png if kind in (b"tEXt", b"iTXt")]  # not the pixels
    texts += [(tmp_path / name).read_bytes() for name in FILES - {"pareto.png", "report.html"}]
    page = (tmp_path / "report.html").read_bytes()
    scripts = re.sub(rb"<(script|style)>.*?</\1>", b"", page, flags=re.DOTALL)  # the same for all
    texts.append(re.sub(rb"<[^>]*>", b" ", scripts))
    host = re.escape(socket.gethostname().encode())
    assert not any(re.search(rb"(?<!\w)" + host + rb"(?!\w)", text) for text in texts)


@pytest.mark.parametrize("breaks_at", [1, 3, 5])
def test_an_interrupted_report_leaves_the_old_files_whole(tmp_path, monkeypatch, breaks_at):
    write_report(make_results(seed=1), tmp_path)
    old = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    write_bytes, calls = type(tmp_path).write_bytes, []

    def interrupted(path, content):
        calls.append(path)
        if len(calls) == breaks_at:
            write_bytes(path, content[: len(content) // 2])
            raise KeyboardInterrupt
        return write_bytes(path, content)

    monkeypatch.setattr(type(tmp_path), "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_report(make_results(seed=2), tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == old


def test_the_same_results_give_the_same_files(tmp_path):
    for folder in ("a", "b"):
        write_report(make_results(), tmp_path / folder)
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_trials_given_are_not_changed(tmp_path):
    results = make_results()
    before = results.trials.copy()
    write_report(results, tmp_path)
    pd.testing.assert_frame_equal(results.trials, before)


def test_names_with_markdown_or_mathematics_in_them(tmp_path):
    results = make_results()
    new = {f"{part}: loss 0": f"{part}: a$b|c_$" for part in ("validation", "test")}
    results = dataclasses.replace(
        results, objectives=["a$b|c_$", "loss 1"], trials=results.trials.rename(columns=new)
    )
    page = page_of(results, tmp_path)
    assert "validation: a$b\\|c_$" in page
    assert is_complete_png(tmp_path / "pareto.png")


def test_a_wild_trial_does_not_squash_the_picture():
    front, every = np.array([1.0, 2.0]), np.array([1.0, 2.0, 3.0, 2.5, 1e9])
    low, high = mtlsk.report.figure._window(front, every)
    assert low < 1.0
    assert 3.0 <= high < 10.0


def test_directions_must_fit_the_objectives():
    with pytest.raises(ValueError, match="2 objectives and 1 directions"):
        make_results(maximise=[True, False]).__class__(
            **{**vars(make_results()), "maximise": [True]}
        )


def test_machine_names_the_processor_and_not_the_host(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    found = machine()
    assert {"cpu", "cores", "python", "system"} <= set(found)
    assert found["cores"] == "2 of 64"
    assert all(isinstance(v, str) and v for v in found.values())
    assert not any(socket.gethostname() in v for v in found.values())


def test_versions_names_the_libraries():
    found = versions()
    assert list(found) == [
        "mtlsk", "torch", "skorch", "scikit-learn", "optuna", "moocore", "numpy"
    ]  # fmt: skip
    assert found["numpy"] == np.__version__


def test_without_plotly_the_hint_is_one_line_and_nothing_is_written(tmp_path):
    code = (
        "import sys\n"
        "sys.modules['plotly'] = sys.modules['plotly.offline'] = None\n"
        "try:\n    import mtlsk.report\n"
        "except ModuleNotFoundError as error:\n    print(error.name)\n"
    )
    root = str(Path(mtlsk.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.strip().partition(".")[0] == "plotly"  # of which the command line makes one


def test_baselines_seeds_and_pruned_trials_are_on_the_page(tmp_path):
    results = make_full(K=2, repeats=3)
    results.trials.loc[3, ["state", "reason"]] = ["PRUNED", "dominated by 3 trials"]
    comparison = write_report(results, tmp_path).compared
    page = (tmp_path / "report.md").read_text()
    assert "|  | search | scalarization | equal weights | single task |" in page
    assert cells(page, "trials pruned") == [["trials pruned", "1", "0", "0", "0"]]
    assert cells(page, "additive epsilon (lower is better)")[0][1] == "0"
    assert "Over 3 seeds" in comparison.verdict()
    assert "Maninis" in page
    front = pd.read_csv(tmp_path / "front.csv")
    assert set(front["study"]) == {"search", "scalarization", "equal_weights"}
    assert {"delta_m", "undominated in every seed"} <= set(front)
    assert "## Which parameters mattered" in page
