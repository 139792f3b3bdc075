"""The study of ConicGrad's open questions runs, and its report is what its trials say."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.dummy import DummyRegressor
from sklearn.metrics import r2_score

from mtlsk.aggregators import ConicGrad
from mtlsk.controllers import ConeAngle
from mtlsk.datasets import make_arm, split_rows

SCRIPT = Path(__file__).parents[1] / "studies" / "conicgrad_questions.py"
COMMITTED = SCRIPT.with_suffix("")
PICTURES = ("differences.png", "angles.png")
REFERENCES = {"mean gradient", "MGDA", "single-task nets"}
KEYS = ["data", "seed", "variant", "lr"]


def run(*arguments):
    command = [sys.executable, "-W", "error", str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def table(text, first):
    """Return the rows of the table whose titles begin with ``first``, as lists of cells."""
    lines = text[text.index(f"| {first}") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def body(page):
    """Return a report without the lines of its date and machine."""
    return page.split("\n\n", 2)[2]


def said(row):
    """Return the word for a row of the main comparisons."""
    if float(row[7]) >= 0.05:
        return "not told apart"
    return "better" if float(row[3]) > 0 else "worse"


def check_guesses(text, folder):
    """Check that the report has the guesses beside its trials, and counts what is above them."""
    trials = pd.read_csv(folder / "trials.csv")
    guesses = pd.read_csv(folder / "guesses.csv").set_index("data")
    for row in table(text, "data | guess"):
        cells = [float(cell) for cell in row[1:4]]
        assert cells == pytest.approx(guesses.loc[row[0]].tolist(), abs=5e-4)
    arms = {(r[0], r[1]): int(r[7]) for r in table(text, "data | arm")}
    for (data, arm), own in trials.groupby(["data", "arm"]):
        low = int((own.valid <= guesses.valid[data]).sum())
        if arm in ("fixed c", "dynamic c", "flip", "printed"):  # the others share variants
            assert arms[data, arm] == low
        if arm in ("fixed c", "flip", "printed"):
            words = re.search(rf"than guessing.*?{arm}: (.*?) \(", text)[1]
            assert f"{data} {low} of {len(own)}" in words.split(", ")


def stepped(p):
    """Return Holm's corrected p-values, by the definition."""
    found, last = {}, 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        last = found[i] = max(last, min(1.0, (len(p) - rank) * p[i]))
    return [found[i] for i in range(len(p))]


def check(text):
    """Check that words follow from the tables, and that arms have equally many trials."""
    assert not re.search(r"\bnan\b", text)
    rows = table(text, "arm | against")
    assert len(rows) == 10  # five pairs, two scores
    assert f"{len(rows)} main comparisons" in text
    for row, p in zip(rows, stepped([float(r[6]) for r in rows]), strict=True):
        assert float(row[7]) == pytest.approx(p, rel=0.01)
        assert row[8] == said(row)
    verdicts = re.findall(r"^\*\*Verdict\*\*: (.*)$", text, flags=re.M)
    assert len(verdicts) == 3
    for arm, base in dict.fromkeys((r[0], r[1]) for r in rows):
        own = [r for r in rows if r[:2] == [arm, base]]
        words = ", ".join(rf"{r[2]} {said(r)} \({re.escape(r[3])}, p [\d.e-]+\)" for r in own)
        assert sum(bool(re.search(f"{arm} against {base}: {words}", v)) for v in verdicts) == 1
    sentences = {  # verdict -> where it stands for "not told apart", and its arms
        "A dynamic c is not told apart": ("dynamic c",),
        "the closed form is not told apart": ("flip",),
        "As printed it is not told apart": ("printed",),
        "is not told apart from a shared one": ("gamma a task", "gamma a task, wide"),
    }
    for sentence, arms in sentences.items():
        told = {said(r) for r in rows if r[0] in arms} - {"not told apart"}
        assert (sentence in text) == (not told)
    told = {said(r) for r in rows if r[0] == "printed"} - {"not told apart"}
    assert ("As printed it is worse" in text) == (told == {"worse"})
    told = {said(r) for r in rows if r[0].startswith("gamma a task")}
    assert ("A gamma a task, of random lists, is better" in text) == (
        told - {"not told apart"} == {"better"}
    )
    for row in table(text, "arm | against"):  # what is averaged over the blocks by data set
        part = text[text.index(f"| data | score | {row[1]} | {row[0]} |") :]
        cells = [r for r in table(part, "data | score") if r[1] == row[2]]
        if not any(int(r[6]) for r in cells):  # none diverged
            means = [float(r[4].split()[0]) for r in cells]
            assert np.mean(means) == pytest.approx(float(row[4]), rel=0.06, abs=1e-4)
    arms = table(text, "data | arm")
    for data in dict.fromkeys(r[0] for r in arms):
        counts = {r[1]: int(r[5]) for r in arms if r[0] == data}
        assert set(counts) > REFERENCES
        assert len({n for arm, n in counts.items() if arm not in REFERENCES}) == 1
        assert len({counts[arm] for arm in REFERENCES}) == 1


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    out = tmp_path_factory.mktemp("quick")
    run("--quick", "--seeds", "1", "--jobs", "1", "--out", out)
    return out


def test_the_quick_study_goes_on_and_counts_its_trials(quick, tmp_path):
    first = pd.read_csv(quick / "trials.csv")
    check((quick / "report.md").read_text())
    check_guesses((quick / "report.md").read_text(), quick)
    assert not first.duplicated(KEYS).any()
    assert first.groupby("variant").size().nunique() == 1
    assert first.valid.notna().all()
    short = first.drop(index=[0, 5, 40])  # as if it had been interrupted
    short.to_csv(tmp_path / "trials.csv", index=False)
    printed = run("--quick", "--seeds", "1", "--jobs", "1", "--out", tmp_path)
    assert "seed 0: 3 trials" in printed
    again = pd.read_csv(tmp_path / "trials.csv")
    pd.testing.assert_frame_equal(again.iloc[:-3], short.reset_index(drop=True))
    assert (tmp_path / "guesses.csv").read_text() == (quick / "guesses.csv").read_text()
    a, b = (t.sort_values(KEYS).reset_index(drop=True) for t in (again, first))
    pd.testing.assert_frame_equal(a, b, check_exact=False, rtol=1e-3)
    for name in PICTURES:
        assert 5_000 < (quick / name).stat().st_size < 150_000


def test_an_arm_that_diverges_is_counted_as_lost(quick, tmp_path):
    shutil.copy(quick / "guesses.csv", tmp_path)
    first = pd.read_csv(quick / "trials.csv")
    frames, random = [], np.random.default_rng(0)
    for seed in range(12):
        frame = first.assign(seed=seed)
        frame[["mean", "worst"]] += random.normal(0, 0.01, (len(frame), 2))
        gone = frame.variant.str.startswith("printed")
        gone |= frame.variant.isin({*REFERENCES, "auto", "critical"})
        scores = ["valid", "mean", "worst", "tasks", "c_first", "c_last"]
        frames.append(frame.assign(**{name: frame[name].mask(gone) for name in scores}))
    pd.concat(frames).to_csv(tmp_path / "trials.csv", index=False)
    run("--report", "--out", tmp_path)
    text = (tmp_path / "report.md").read_text()
    check(text)
    assert "Every trial of printed diverged" in text
    rows = [r for r in table(text, "arm | against") if r[0] == "printed"]
    assert {r[5] for r in rows} == {"0 of 12"}
    assert {(r[3], r[4], float(r[6])) for r in rows} == {("-inf", "-", 0.000488)}  # p 2 / 2^12
    assert table(text, "data | guess")[0][4:] == ["diverged"] * 2
    assert ["auto", "diverged / diverged"] in table(text, "variant |")
    assert "As printed it is worse" in text
    part = text[text.index("| data | score | fixed c | printed |") :]
    assert {(r[3], r[6]) for r in table(part, "data | score")} == {("diverged", "12")}


def test_the_multiplier_divides_out():
    random = torch.Generator().manual_seed(0)
    J = torch.randn(3, 8, generator=random, dtype=torch.float64)
    printed = ConicGrad(0.5, solver="printed")
    for _ in range(5):  # equal weights at first
        w = torch.softmax(getattr(printed, "logits_", torch.zeros(3, dtype=torch.float64)), 0)
        d = J.T @ printed.task_weights(J @ J.T, torch.ones(3))
    g0 = J.mean(0)
    Z = 0.25 * (g0 @ g0) * torch.eye(8, dtype=torch.float64) - torch.outer(g0, g0)
    for multiplier in (0.1, 1.0, 7.0):
        closed = torch.linalg.solve(Z, J.T @ w) / multiplier
        torch.testing.assert_close(closed * g0.norm() / closed.norm(), d)


def test_the_committed_report_is_what_its_trials_say(tmp_path):
    for name in ("trials.csv", "guesses.csv"):
        shutil.copy(COMMITTED / name, tmp_path)
    run("--report", "--out", tmp_path)
    text = (COMMITTED / "report.md").read_text()
    assert body((tmp_path / "report.md").read_text()) == body(text)
    check(text)
    check_guesses(text, COMMITTED)
    critical = pd.read_csv(COMMITTED / "trials.csv").query("variant == 'critical'")
    ends, rho = critical[["c_first", "c_last"]].to_numpy(), ConeAngle().rho
    assert f"lie between {ends.min():.3f} and {ends.max():.3f}: about rho ({rho:g})" in text
    for name in PICTURES:
        assert f"]({name})" in text
        assert (COMMITTED / name).stat().st_size < 150_000
    assert not re.search("/(home|root|tmp|work)/", text)


def test_the_committed_trials_are_all_there():
    trials = pd.read_csv(COMMITTED / "trials.csv")
    assert set(trials.data) == {"sarcos", "arm", "tox21", "wq"}
    assert trials.seed.nunique() >= 3
    assert trials.lr.nunique() == 3
    assert not trials.duplicated(KEYS).any()
    size = trials.data.nunique() * trials.seed.nunique() * trials.lr.nunique()
    assert set(trials.groupby("variant").size()) == {size}
    ends = trials[trials.variant.isin(["linear", "cosine"])].c_last
    assert ends.between(0.25, 0.25 + 0.65 / 15).all()  # schedules as long as the training


def test_a_guess_is_the_mean_of_the_training_rows():
    arm, part = make_arm(1500, random_state=0), split_rows(1500, "blocked")
    X, y = np.asarray(arm.data), np.asarray(arm.target)
    known = DummyRegressor().fit(X[part == "train"], y[part == "train"])
    valid, test = (
        r2_score(y[part == name], known.predict(X[part == name]), multioutput="raw_values")
        for name in ("validation", "test")
    )
    guesses = pd.read_csv(COMMITTED / "guesses.csv").set_index("data")
    expected = [valid.mean(), test.mean(), test.min()]
    assert guesses.loc["arm", ["valid", "mean", "worst"]].tolist() == pytest.approx(expected, 1e-4)
    assert set(guesses.loc["tox21"]) == {0.5}
    assert (guesses.loc[["sarcos", "arm", "wq"]] < 0).all(axis=None)  # blocks differ


def test_a_verdict_that_contradicts_its_table_is_seen(quick):
    text = (quick / "report.md").read_text()
    wrong = text.replace("dynamic c against fixed c: mean score not told apart", "mean better")
    assert wrong != text
    with pytest.raises(AssertionError):
        check(wrong)
    with pytest.raises(AssertionError):
        check(text.replace("| not told apart |", "| better |", 1))
