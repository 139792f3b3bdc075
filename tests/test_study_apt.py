"""The study of APT: what it writes, that it goes on, and that its report is what its trials say."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

SCRIPT = Path(__file__).parents[1] / "studies" / "apt.py"
REPORT = SCRIPT.with_suffix("") / "report.md"
PICTURES = ("differences.png", "shares.png", "preservation.png")
TABLES = ("trials.csv", "shares.csv", "preservation.csv")
ARM = ["data", "optimizer", "aggregator", "arm"]
HOSTS = {"SGD", "Adam", "AdamW", "RAdam", "Muon"}


def run(*arguments):
    command = [sys.executable, "-W", "error", str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, timeout=300, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def body(text):
    """Return a report without the lines of its date and machine."""
    return text.split("\n\n", 2)[2]


def table(text, first):
    """Return the rows of the table whose titles begin with ``first``, as lists of cells."""
    start = text.index(f"| {first}")
    lines = text[start:].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def said(row, at=1):
    """Return the word for a row of a table of groups, with its mean in ``at``, its median next."""
    if float(row[-1]) >= 0.05 or row[at + 1] == "0":
        return "not told apart"
    return "better" if row[at + 1].startswith("-") else "worse"


def check(text):
    """Check that verdicts follow from the tables."""
    assert not re.search(r"\bnan\b", text)
    assert text.count("**Verdict**") == 3
    verdict = re.search(r"\*\*Verdict\*\*: (The claim [^(]*)\((.*)\)", text)
    words = [f"{row[0]} {said(row)}" for row in table(text, "aggregator | mean")]
    words += [f"{row[0]} {said(row)}" for row in table(text, "optimizer | mean")]
    assert all(word in verdict[2] for word in words)
    groups = {said(row) for row in table(text, "aggregator | mean")}
    assert ("does not hold" in verdict[1]) == ("worse" in groups)
    assert ("holds here" in verdict[1]) == (groups == {"better"})
    by_rank = ", ".join(f"{row[0]} {said(row, 3)}" for row in table(text, "among"))
    assert verdict[2].endswith(f"by mean rank: {by_rank}")
    cells = table(text, "data | optimizer")
    bounds = [[float(v) for v in re.findall(r"[-+][\d.]+", row[9])] for row in cells]
    assert all(low <= mean <= high for mean, low, high in bounds)
    seeds = re.search(r"(\d+) seeds; hosts", text)[1]
    whole = [row[4] == seeds for row in cells]  # a seed that diverged has no pair
    assert sum(whole) > len(cells) / 2
    for row, (mean, *_), kept in zip(cells, bounds, whole, strict=True):
        plain, apt = (float(row[i].split()[0]) for i in (7, 8))
        if kept:
            assert apt - plain == pytest.approx(mean, abs=0.16)
    places = re.search(r"\| data \|((?: \w+ \|)+)\n", text)[1].strip("| ").split(" | ")
    for name, *found in table(text, f"data | {places[0]} |"):
        for host, cell in zip(places, found, strict=True):
            own = [m for row, (m, *_) in zip(cells, bounds, strict=True) if row[:2] == [name, host]]
            if own:
                mean, better, n = re.fullmatch(r"([-+][\d.]+) \((\d+) of (\d+)\)", cell).groups()
                assert float(mean) == pytest.approx(sum(own) / len(own), abs=0.11)
                assert int(n) == len(own)
                assert sum(m < 0 for m in own) <= int(better) + sum(m == 0 for m in own)
            else:
                assert cell == "-"
    assert f"{len(cells)} comparisons, Holm" in text
    shares = table(text, "optimizer | arm")
    assert all(0 < float(row[2].split()[0]) < 0.6 for row in shares)
    small = [  # by projection, by length
        [float(row[i].split()[0]) < 0.2 for row in shares if row[1] == "plain"] for i in (3, 5)
    ]
    assert ("The claim holds at this threshold" in text) == all(map(all, small))
    assert ("It depends on the measure" in text) == (small[0] != small[1])
    changed = table(text[text.index("Change against rho") :], "batch | rho")
    assert len(changed) == 9
    assert all(("not told" in row[-2]) == (float(row[-1]) >= 0.05) for row in changed)
    told = sum("not told" not in row[-2] for row in changed)
    assert ("No benefit is shown" in text) == (told == 0)


def best(trials):
    """Return the row of each arm's rate that is best on validation rows of the first two seeds."""
    first = trials[trials.seed < 2].fillna({"valid": -1e9})
    means = first.groupby([*ARM, "lr"]).valid.mean().reset_index()
    grids = means.groupby(["data", "optimizer"]).lr.agg(["min", "max"]).reset_index()
    chosen = means.sort_values("lr").loc[means.groupby(ARM).valid.idxmax()]
    return chosen.merge(grids, on=["data", "optimizer"])


def fair(trials, seeds):
    """Check that all arms had the same trials, and each of its seeds at the rate chosen."""
    sizes = trials[trials.seed < 2].groupby(ARM).size()
    assert set(sizes) == {8}
    assert trials.groupby(ARM).lr.nunique().eq(4).all()
    rest = trials[trials.seed >= 2].merge(best(trials)[[*ARM, "lr"]], on=[*ARM, "lr"])
    assert len(rest) == (trials.seed >= 2).sum() == (seeds - 2) * len(sizes)
    assert not trials.duplicated([*ARM, "lr", "seed"]).any()
    for _, own in trials.groupby(["data", "optimizer"]):  # the same grid with and without APT
        assert own.groupby(["aggregator", "arm"]).lr.agg(frozenset).nunique() == 1


def counted(text, trials):
    """Check the numbers of arms at the edges of their grids."""
    chosen = best(trials)
    chosen = chosen[~chosen.arm.str.startswith("task")]
    least, largest = ((chosen.lr == chosen[edge]) for edge in ("min", "max"))
    words = f"chosen for {least.sum()} of {len(chosen)} arms, the largest for {largest.sum()} ("
    parts = []
    for arm in ("plain", "APT", "constant"):
        own = chosen.arm == arm
        parts.append(f"{arm} {least[own].sum()} and {largest[own].sum()} of {own.sum()}")
    assert words + ", ".join(parts) + "; " in text


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return importlib.import_module("apt_tables")


def made(name, scores, alone):
    """Return trials of one rate: a row for each (aggregator, arm, seed), its tasks' scores."""
    rows = [(name, "AdamW", *key, *tasks) for key, tasks in scores.items()]
    rows += [
        (name, "AdamW", "LinearScalarization", f"task {k}", seed, score)
        for k, score in enumerate(alone)
        for seed in (0, 1)
    ]
    names = [*ARM, "seed", *(f"task {k}" for k in range(len(alone)))]
    trials = pd.DataFrame([(*r, *[np.nan] * (len(names) - len(r))) for r in rows], columns=names)
    return trials.assign(lr=0.1, valid=trials["task 0"])


def test_ranks_and_differences_are_those_by_hand(tables):
    few = made(
        "digits",
        {
            ("MGDA", "plain", 0): (0.8, 0.6),
            ("MGDA", "APT", 0): (0.6, 0.9),
            ("CAGrad", "plain", 0): (0.7, 0.7),
            ("CAGrad", "APT", 0): (0.5, 0.8),
            ("MGDA", "plain", 1): (np.nan, np.nan),  # diverged, all of them
            ("MGDA", "APT", 1): (np.nan, np.nan),
            ("CAGrad", "plain", 1): (np.nan, np.nan),
            ("CAGrad", "APT", 1): (np.nan, np.nan),
        },
        (0.8, 0.6),
    )
    more = made(
        "arm",
        {
            ("MGDA", arm, seed): (0.9, 0.8, 0.4, np.nan)  # the last cannot be scored
            for arm in ("plain", "APT")
            for seed in (0, 1)
        },
        (0.8, 0.8, 0.7, np.nan),
    )
    frame = tables.finals(pd.concat([few, more], ignore_index=True))
    frame = frame.set_index(["data", "aggregator", "arm", "seed"])
    # accuracies: the ranks 1 and 4, 3 and 1, 2 and 3, 4 and 2 of two tasks, among four
    ranks = frame.loc["digits"].xs(0, level="seed")["rank"]
    assert ranks["MGDA", "plain"] == pytest.approx((2.5 - 1) / 3)
    assert ranks["MGDA", "APT"] == pytest.approx((2 - 1) / 3)
    assert ranks["CAGrad", "APT"] == pytest.approx((3 - 1) / 3)
    assert (frame.loc["digits"].xs(1, level="seed")["rank"] == 0.5).all()
    delta = frame.loc[("digits", "MGDA", "APT", 0), "delta"]
    assert delta == pytest.approx(100 * (0.2 / 0.8 - 0.3 / 0.6) / 2)
    assert np.isnan(frame.loc[("digits", "MGDA", "APT", 1), "delta"])
    # R2, so ratios of 1 - R2: half, the same, twice as much
    delta = frame.loc[("arm", "MGDA", "APT", 0), "delta"]
    assert delta == pytest.approx(100 * (-0.5 + 0 + 1) / 3)


def test_a_word_goes_by_the_median_and_not_by_two_blocks_far_off(tables):
    values = [*np.linspace(-2, -0.3, 18), 45, 45]
    blocks = pd.DataFrame({"delta": values, "seed": np.arange(20), "data": "arm", "by": "all"})
    (row,), words = tables.grouped(blocks, "by")
    assert row[1].startswith("+")
    assert row[2] == "-1.05"
    assert float(row[-1]) < 0.05
    assert words == {"all": "better"}
    assert said(row) == "better"


def test_preservation_is_paired_by_seed_and_corrected(tables):
    rows = [
        {"batch": b, "rho": rho, "seed": seed} | dict.fromkeys(tables.PRESERVATION, seed + value)
        for b in tables.BATCHES
        for rho in tables.RHOS
        for seed, value in zip((0, 1, 2), np.multiply(rho, (1, 1.01, 1.02)), strict=True)
    ]
    rows = pd.DataFrame(rows).sample(frac=1, random_state=0)  # in no order
    found = tables.changes(rows)
    assert len(found) == len(tables.BATCHES) * (len(tables.RHOS) - 1)
    mean, word, p = found[16, 0.2][-1]
    assert mean == pytest.approx(0.202)
    assert word == "up"
    t = 0.202 / (0.002 / 3**0.5)
    alone = 1 - t / (2 + t**2) ** 0.5  # with two degrees of freedom
    assert p == pytest.approx(min(9 * alone, 1), rel=1e-3)


def test_the_quick_study_goes_on_where_it_stopped(tmp_path):
    run("--quick", "--out", tmp_path)
    text = (tmp_path / "report.md").read_text()
    check(text)
    assert "SARCOS and Tox21 are left out" in text
    for name in PICTURES:
        assert 5_000 < (tmp_path / name).stat().st_size < 150_000
    file = tmp_path / "quick_trials.csv"
    trials = pd.read_csv(file)
    fair(trials, 3)
    counted(text, trials)
    alone = trials[trials.arm.str.startswith("task")]
    assert alone.groupby("data").arm.nunique().to_dict() == {"arm": 7, "digits": 2}
    assert alone["task 1"].isna().all()
    trials.iloc[:-3].to_csv(file, index=False)
    printed = run("--quick", "--out", tmp_path)
    assert re.findall(r"(\w+), .*: (\d+) runs", printed) == [("quick_trials", "3")]
    assert body((tmp_path / "report.md").read_text()) == body(text)
    pd.testing.assert_frame_equal(pd.read_csv(file), trials)


def test_the_report_is_what_the_trials_say(tmp_path):
    for name in TABLES:
        shutil.copy(REPORT.parent / name, tmp_path)
    run("--report", "--out", tmp_path)
    assert body((tmp_path / "report.md").read_text()) == body(REPORT.read_text())


def test_every_arm_had_as_many_trials():
    trials = pd.read_csv(REPORT.parent / "trials.csv")
    seeds = trials.seed.nunique()
    assert seeds >= 3
    fair(trials, seeds)
    counted(REPORT.read_text(), trials)
    arms = trials[~trials.arm.str.startswith("task")].drop_duplicates(ARM)
    assert set(arms.data) == {"sarcos", "arm", "digits", "tox21"}
    assert set(arms.optimizer) == HOSTS
    methods = arms[arms.arm != "constant"].groupby(["data", "optimizer", "arm"]).aggregator
    assert len(methods) == 4 * 5 * 2
    assert methods.agg(frozenset).nunique() == 1
    assert methods.nunique().min() >= 4
    assert (arms.arm == "constant").sum() == 4 * 5


def test_the_committed_report():
    text = REPORT.read_text()
    check(text)
    pairs = {(row[0], row[1]) for row in table(text, "data | optimizer")}
    assert pairs == {(d, h) for d in ("sarcos", "arm", "digits", "tox21") for h in HOSTS}
    assert int(re.search(r"(\d+) seeds; hosts", text)[1]) >= 3
    for name in PICTURES:
        assert f"]({name})" in text
        assert (REPORT.parent / name).stat().st_size < 150_000
    assert (REPORT.parent / "../apt_tracking/report.md").exists()
    assert not re.search("/(home|root|tmp|work)/", text)


def test_a_verdict_that_contradicts_its_table_is_seen():
    text = REPORT.read_text()
    row = table(text, "aggregator | mean")[0]
    word = said(row)
    wrong = text.replace(f"{row[0]} {word}", f"{row[0]} {'worse' if word != 'worse' else 'better'}")
    with pytest.raises(AssertionError):
        check(wrong)
