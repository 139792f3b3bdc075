"""The study of ConicGrad's toy: its steps are the library's, its report is what its runs say."""

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mtlsk import Descent
from mtlsk.datasets import TOY_STARTS, toy_losses
from mtlsk.datasets.toy import MINIMA
from mtlsk.optimizers import Adam

STUDIES = Path(__file__).parent.parent / "studies"
COMMITTED = STUDIES / "conicgrad_toy"
FILES = ("ends.csv", "paths.npz")


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module("conicgrad_toy")


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module("conicgrad_toy_report")


def run(*arguments):
    command = [sys.executable, "-W", "error", str(STUDIES / "conicgrad_toy.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return done.stdout


def body(page):
    """Return a report without the lines of its date and machine."""
    return page.split("\n\n", 2)[2]


def stepped(study, setting, start, steps):
    """Return the points of one trajectory by the library's own step."""
    module = torch.nn.ParameterList([torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))])
    online = {"name": "online", "dual_lr": setting.gamma_or_rate}
    descent = Descent(
        module,
        Adam(module.parameters(), lr=study.LR),
        study.built(setting),
        n_tasks=2,
        update_norm="mean",
        gramian=online if setting.method == "online" else "auto",
    )
    shift = study.below(setting)
    points = [list(start)]
    for _ in range(steps):
        descent.backward(toy_losses(module[0]) + shift)
        descent.optimizer.step()
        descent.observe(toy_losses(module[0]) + shift)
        points.append(module[0].tolist())
    return np.array(points)


@pytest.mark.parametrize(
    "method",
    ["LinearScalarization", "MGDA", "CAGrad", "NashMTL", "FAMO", "printed", "flip", "exact",
     "online"],
)  # fmt: skip
def test_its_steps_are_those_of_descent(study, method):
    setting = next(s for s in study.usual() if s.method == method)
    form = method in ("printed", "flip", "exact", "online")
    other = setting._replace(c=0.5, gamma_or_rate=0.01) if form else setting
    # one in a valley of the logarithms; from (0, 0) equal gradients leave Adam rounding to divide
    begin = [TOY_STARTS[4], (-6.9, 4.0)]
    points, means = study.followed([setting, other], [begin, begin], 120)
    for s, own in enumerate([setting, other]):
        for n, start in enumerate(begin):
            expected = stepped(study, own, start, 120)
            np.testing.assert_allclose(points[:, s, n], expected, rtol=0, atol=1e-9)
    assert np.abs(points[-1] - points[0]).max() > 0.05
    np.testing.assert_allclose(means, toy_losses(torch.tensor(points)).mean(-1), atol=1e-12)


def test_the_closed_form_is_the_aggregator_s_where_there_is_no_cone(study):
    setting = study.Setting("flip", 0.5, 0.01)
    closed, one = study.ClosedForm([setting], 1), study.built(setting)
    nothing = [[1.0, -1.0], [-1.0, 1.0]]  # the mean gradient is zero
    for rows in ([[4.0, -1.0], [-1.0, 1.0]], nothing, [[1.0, 0.5], [0.5, 9.0]], nothing):
        gramian = torch.tensor(rows, dtype=torch.float64)
        expected = one.task_weights(gramian, torch.ones(2))
        torch.testing.assert_close(closed.weights(gramian[None], None)[0], expected)
    assert not torch.equal(expected, one.task_weights(gramian + torch.eye(2), torch.ones(2)))


def test_all_forms_all_starts_and_the_whole_grid_are_run(study):
    wanted = study.settings(quick=False, seeds=3)
    assert study.STEPS == 50_000
    assert study.LR == 1e-3
    assert len({str(s) for s in wanted}) == len(wanted)
    for form in ("printed", "flip"):
        own = {(s.c, s.gamma_or_rate) for s in wanted if s.method == form}
        assert own == {(c, g) for c in (0.25, 0.5, 0.75, 0.9) for g in (0.001, 0.005, 0.01)}
    assert {s.seed for s in wanted} == {0, 1, 2}
    assert {s.method for s in study.usual()} == {s.method for s in wanted}
    lists = study.grouped(wanted)
    assert sorted(str(s) for own in lists for s in own) == sorted(map(str, wanted))
    assert all(len({s.scale for s in own}) == 1 for own in lists)
    assert all(len({study.BATCHED.get(s.method) for s in own}) == 1 for own in lists)
    np.testing.assert_array_equal(study.starts(0), np.array(TOY_STARTS))
    assert not np.array_equal(study.starts(1), study.starts(2))


def test_the_quick_study(tmp_path):
    run("--quick", "--seeds", "2", "--out", str(tmp_path))
    ends = pd.read_csv(tmp_path / "ends.csv")
    assert (ends.above > -1e-4).all()  # nothing is below the minimum
    assert (ends.length >= ends.straight - 1e-6).all()
    assert (
        ends.groupby(["method", "c", "gamma_or_rate", "scale", "seed"], dropna=False).size() == 5
    ).all()
    assert ends.notna()["above"].all()
    ends[ends.method != "MGDA"].to_csv(tmp_path / "ends.csv", index=False)
    printed = run("--quick", "--seeds", "2", "--out", str(tmp_path))  # as if interrupted
    assert re.findall(r"^(\w+) nan nan [\d.]+ \d \[", printed, flags=re.M) == ["MGDA"] * 3
    assert not re.search(r"^(printed|exact|online) ", printed, flags=re.M)
    again = pd.read_csv(tmp_path / "ends.csv")
    keys = ["method", "c", "gamma_or_rate", "scale", "seed", "start"]
    both = [t.astype({"c": str}).sort_values(keys).reset_index(drop=True) for t in (ends, again)]
    pd.testing.assert_frame_equal(*both)
    for name in ("paths.png", "means.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_the_committed_report_is_what_its_runs_say(tmp_path):
    for name in FILES:
        shutil.copy(COMMITTED / name, tmp_path)
    run("--report", "--out", str(tmp_path))
    page = (COMMITTED / "report.md").read_text()
    assert "50000 steps" in page
    assert body((tmp_path / "report.md").read_text()) == body(page)


@pytest.mark.parametrize("scale", ["1", ".1"])
def test_the_verdict_agrees_with_the_table(scale):
    page = (COMMITTED / "report.md").read_text()
    part = page.split(f"## From the published starts, scale {scale}")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")]
    reached = {row[0]: row[1] for row in rows[2:]}
    assert len(reached) == 9
    said = re.search(r"\*\*Verdict\*\* at scale [\d.]+: (.*)", part)[1]
    assert f"as printed {reached['ConicGrad as printed']} (5 claimed)" in said
    for form in ("sign flipped", "exact", "online"):
        assert f"ConicGrad, {form} {reached[f'ConicGrad, {form}']}" in said
    assert f"CAGrad, c = 0.5 {reached['CAGrad, c = 0.5']} (5 claimed)" in said
    assert f"NashMTL {reached['NashMTL']} (3 claimed)" in said
    (famo,) = (row for row in rows if row[0] == "FAMO")
    assert f"FAMO ends on the front from {famo[2]} (5 claimed)" in said


def test_the_front_does_not_know_the_unit_of_a_loss(report):
    points = [(0.0, -8.35511), (-5.72727, -8.4094), (7.0, -8.0), (0.0, -5.0), (9.0, 9.0)]
    assert report.on_front(points).tolist() == [True, True, True, False, False]
    for scale, (best, _) in MINIMA.items():  # minima of two different means: both are on it
        assert report.on_front([best]).all(), scale


def test_only_starts_from_which_both_arrive_are_compared(report):
    runs = pd.DataFrame(
        [(m, 0, n, a, t) for m, ends in {
            "exact": [(0.0, 100), (0.0, 300), (9.0, np.nan)],
            "CAGrad": [(0.0, 200), (0.04, 200), (0.0, 50)],
            "MGDA": [(9.0, np.nan)] * 3,
        }.items() for n, (a, t) in enumerate(ends)],
        columns=["method", "seed", "start", "above", "arrived"],
    )  # fmt: skip
    said = report.faster(runs, "exact")
    assert said.endswith("others: 1.00 of CAGrad, c = 0.5 (of 2)")
    assert "exact is not faster" in said
    assert "MGDA" not in said
    runs.loc[1, "arrived"] = 20
    assert "exact is faster than all" in report.faster(runs, "exact")
    assert report.faster(runs, "MGDA") == "MGDA arrives with no other"
