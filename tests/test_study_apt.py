"""The study of APT: what it writes, and that the committed report is consistent."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "studies" / "apt.py"
REPORT = SCRIPT.with_suffix("") / "report.md"
PICTURES = ("differences.png", "shares.png", "preservation.png")


def table(text, first):
    """Return the rows of the table whose titles begin with ``first``, as lists of cells."""
    start = text.index(f"| {first}")
    lines = text[start:].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def said(row):
    """Return the word for a row of a table of groups."""
    if float(row[-1]) >= 0.05:
        return "not told apart"
    return "better" if float(row[1].split()[0]) < 0 else "worse"


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
    cells = table(text, "data | optimizer")
    bounds = [[float(v) for v in re.findall(r"[-+][\d.]+", row[8])] for row in cells]
    assert all(low <= mean <= high for mean, low, high in bounds)
    for row, (mean, *_) in zip(cells, bounds, strict=True):
        plain, apt = (float(row[i].split()[0]) for i in (6, 7))
        assert apt - plain == pytest.approx(mean, abs=0.16)
    assert f"{len(cells)} comparisons, Holm" in text
    shares = table(text, "optimizer | arm")
    largest = max(float(row[3].split()[0]) for row in shares if row[1] == "plain")
    assert ("The claim holds at this threshold" in text) == (largest < 0.2)
    assert all(0 < float(row[2].split()[0]) < 0.6 for row in shares)
    changed = table(text[text.index("Change against rho") :], "batch | rho")
    told = sum("not told" not in row[-1] for row in changed)
    assert ("No benefit is shown" in text) == (told == 0)


def test_the_quick_study(tmp_path):
    command = [sys.executable, "-W", "error", str(SCRIPT), "--quick", "--out", str(tmp_path)]
    subprocess.run(command, check=True, timeout=300, capture_output=True)
    text = (tmp_path / "report.md").read_text()
    check(text)
    assert "SARCOS and Tox21 are left out" in text
    for name in PICTURES:
        assert 5_000 < (tmp_path / name).stat().st_size < 150_000


def test_the_committed_report():
    text = REPORT.read_text()
    check(text)
    assert {row[0] for row in table(text, "data | optimizer")} == {
        "sarcos", "arm", "digits", "tox21"
    }  # fmt: skip
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
