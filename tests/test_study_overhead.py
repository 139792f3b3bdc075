"""The study of what a step costs: its script in a quick run, and its report. No times."""

import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CELL = re.compile(r"^([\d.]+) \(([\d.]+) to ([\d.]+)\)$")


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    out = tmp_path_factory.mktemp("overhead")
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "studies/overhead.py", "--quick", "--out", out],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=out,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (out / "overhead.png").stat().st_size < 150_000
    return (out / "report.md").read_text()


@pytest.fixture(params=["quick", "committed"])
def report(request):
    if request.param == "quick":
        return request.getfixturevalue("quick")
    return (ROOT / "studies/overhead/report.md").read_text()


def test_there_is_no_hole_in_it(report):
    assert "nan" not in report.lower()
    assert "; 3 repeats of the whole measurement" in report
    assert len(re.findall(r"^\| exact", report, flags=re.M)) == report.count("**Verdict**") == 2


def test_verdicts_are_those_of_the_tables(report):
    for section in report.split("**Found**")[1:]:
        table, verdict = section.split("**Verdict**", 1)
        rows = [line.strip("| ").split(" | ") for line in table.splitlines() if " to " in line]
        rows = [row for row in rows if CELL.match(row[1])]
        assert len(rows) >= 5
        grown = []
        for name, *values, factor, said in rows:
            each = [tuple(map(float, CELL.match(cell).groups())) for cell in values]
            for middle, low, high in each:
                assert 0 < low <= middle <= high
            (first, _, above), (last, below, _) = each[0], each[-1]
            assert float(factor) == pytest.approx(last / first, rel=0.02)
            if said == "grows":
                assert below >= above - 0.01
                grown.append(name)
        told = re.search(r"it grows for (.*?); not for", verdict)[1]
        assert [re.sub(r" \(.*", "", name) for name in told.split("), ")] == (grown or ["none"])
        word = "fails for all" if not grown else "holds for"
        assert verdict.startswith(f": {word}")


def test_the_committed_report_has_all_sizes():
    text = (ROOT / "studies/overhead/report.md").read_text()
    for line in ("| 2 | 7 | 20 | 40 | 100 |", "TorchJD backward", "TorchJD autogram"):
        assert line in text
    sizes = re.search(r"number of parameters (.*?); batches", text)[1].split(", ")
    numbers = [int(size.replace(",", "")) for size in sizes]
    assert numbers == sorted(numbers)
    assert numbers[0] < 10_000
    assert numbers[-1] > 30_000_000
    assert statistics.median(numbers) > 100_000
