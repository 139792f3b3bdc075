"""The study of shallow ReLU nets: what it writes, and that the committed report is consistent."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "studies" / "relu.py"
REPORT = SCRIPT.with_suffix("") / "report.md"


def table(text, first):
    """Return the rows of the table whose titles begin with ``first``, as lists of cells."""
    start = text.index(f"| {first}")
    lines = text[start:].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def check(text):
    """Check what follows from the tables themselves."""
    assert "nan" not in text
    assert text.count("**Verdict**") == 3
    unique = table(text, "N | noted")
    ambiguous = [[float(cell.split()[0]) for cell in row[2:]] for row in unique]
    for one, two, three, copies in ambiguous:
        assert one == copies > 0.1
        assert two == three == 0
    assert "Uniqueness with two or more tasks holds" in text
    gaps = [float(row[2].split()[0]) for row in table(text, "T | solved")]
    falls = all(a > b for a, b in pairwise(gaps))
    assert ("The claim holds here: the gap falls" in text) == falls
    training = table(text, "training | T")
    assert {row[0] for row in training} == {"gradient descent", "Adam", "path_norm"}
    for kind in ("gradient descent", "Adam"):
        for tasks in "123":
            cells = [row[-1] for row in training if row[:2] == [kind, tasks]]
            near, total = (sum(int(c.split(" of ")[i]) for c in cells) for i in (0, 1))
            said = re.search(f"[:;] {kind} comes", text).start() + 2
            assert f"{near} of {total} nets (T = {tasks})" in text[said:].split(":")[0]
    assert all(float(row[8].split()[0]) > -1e-3 for row in training)  # none below the least


def test_the_quick_study(tmp_path):
    command = [sys.executable, "-W", "error", str(SCRIPT), "--quick", "--out", str(tmp_path)]
    subprocess.run(command, check=True, timeout=300, capture_output=True)
    check((tmp_path / "report.md").read_text())
    for name in ("gap.png", "functions.png"):
        assert 5_000 < (tmp_path / name).stat().st_size < 150_000


def test_the_committed_report():
    text = REPORT.read_text()
    check(text)
    solved = [int(row[1]) for row in table(text, "T | solved")]
    assert min(solved) >= 3
    for name in re.findall(r"\]\((.*?\.png)\)", text):
        assert (REPORT.parent / name).stat().st_size < 150_000
    assert len(re.findall("/(home|root|tmp|work)/", text)) == 0


@pytest.mark.parametrize("change", [("| 0.000 [", "| 0.100 ["), ("gap falls", "gap does not fall")])
def test_a_report_that_contradicts_itself_is_seen(change):
    with pytest.raises(AssertionError):
        check(REPORT.read_text().replace(*change, 1))
