"""The studies of certificates run, and their verdicts are what their tables say."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

STUDIES = Path(__file__).parent.parent / "studies"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The reports of quick runs and the committed ones, by (name, whether quick)."""
    found = {}
    for name in ("certificates", "certificate_controller"):
        out = tmp_path_factory.mktemp(name)
        command = [sys.executable, "-W", "error", str(STUDIES / f"{name}.py"), "--quick"]
        done = subprocess.run(
            [*command, "--seeds", "2", "--out", str(out)],
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == 0, done.stderr
        found[name, True] = (out / "report.md").read_text()
        found[name, False] = (STUDIES / name / "report.md").read_text()
        assert "nan" not in found[name, True] + found[name, False]
        assert re.search(r"; [3-9] seeds", found[name, False])
    return found


def part(page, title):
    return page.split(f"## {title}\n")[1].split("\n## ")[0]


def cells(text):
    """Return the rows of the table in a part, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[c.strip() for c in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize("quick", [True, False])
def test_both_counterexamples_have_no_direction_of_descent(pages, quick):
    text = part(pages["certificates", quick], "Critical points")
    rows = cells(text)
    assert [float(row[2]) for row in rows] == [0, 0]
    assert all(float(row[3].split(" to ")[0]) >= 0 for row in rows)
    assert all(float(row[4]) > 0 for row in rows)
    assert "false as stated: 2 of 2" in text
    assert rows[0][3] == "0 to 11"  # its Hessian is diag(7, 11) in one complex number


@pytest.mark.parametrize("quick", [True, False])
def test_what_is_certified_is_there(pages, quick):
    text = part(pages["certificates", quick], "Certified exact fits")
    certified = [row for row in cells(text) if row[3] != "-"]
    assert certified
    for row in certified:
        within, at, left = (float(c) for c in row[3:])
        assert at <= within
        assert left < 1e-9
    assert f"applies in {len(certified)} of" in text
    assert f"is true in {len(certified)} of" in text


@pytest.mark.parametrize("quick", [True, False])
def test_equal_weights_do_not_see_how_the_objective_is_cut(pages, quick):
    text = part(pages["certificates", quick], "Conditioning and convergence")
    rows = {row[0]: row[1:5] for row in cells(text)}
    assert len(set(rows["LinearScalarization"])) == 1
    if not quick:  # so few steps differ less than is shown
        assert len(set(rows["ConicGrad"])) > 1
    assert float(re.search(r"\(to\s+([\d.e-]+)\)", text).group(1)) < 1e-9


@pytest.mark.parametrize("quick", [True, False])
def test_the_controller_s_verdict_agrees_with_its_tables(pages, quick):
    page = pages["certificate_controller", quick]
    for title in ("A language model of seven tasks", "The simulated arm"):
        text = part(page, title)
        rows = [row for row in cells(text) if row[1] != "none"]
        assert len(rows) == (4 if quick else 6)
        for aggregator, name, *_, changes, _, change, p in rows:
            low, high = map(float, re.search(r"\[(.*), (.*)\]", change).groups())
            of = f"{name} on {aggregator}"
            assert (f"{of}: never acted" in text) == (changes == "0.0 ± 0.0")
            if f"{of}: never acted" in text and aggregator == "LinearScalarization":
                assert -1 < low <= high < 1  # watching takes another route: rounding grows
                continue
            if re.search(f"{of}: (never acted|acted without any effect)", text):
                assert -0.02 < low <= high < 0.02
                continue
            word = "lower" if float(change.split()[0]) < 0 else "higher"
            word = word if float(p) < 0.05 else "not told apart"
            claimed = "inside" if low <= -17 <= high else "outside"
            less = f"; 17 % less is {claimed} the interval" if "language" in title else ""
            assert re.search(rf"{of}: {word} \([-+.\d]+ %{less}\)", text)


def test_the_controller_s_report_is_what_its_trials_say(tmp_path):
    committed = STUDIES / "certificate_controller"
    shutil.copy(committed / "trials.csv", tmp_path)
    script = [sys.executable, "-W", "error", str(STUDIES / "certificate_controller.py")]
    subprocess.run([*script, "--report", "--out", str(tmp_path)], check=True, capture_output=True)
    pages = [(folder / "report.md").read_text() for folder in (committed, tmp_path)]
    assert len({page.split("\n\n", 2)[2] for page in pages}) == 1
    trials = pd.read_csv(committed / "trials.csv")
    keys = ["data", "aggregator", "controller", "lr"]
    assert not trials.duplicated([*keys, "seed"]).any()
    assert trials.groupby(keys).size().nunique() == 1  # as many for each
    assert (trials.text == "given").all()
