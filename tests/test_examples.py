"""Every example runs, and so does every Python block of the README."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
QUICK = {
    "conicgrad_toy": ["--steps", "60", "--lr", "0.05"],
    "path_norm": ["--epochs", "100"],
    "char_lm": ["--epochs", "2"],
    "holomorphic": ["--epochs", "300"],
    "prescribed_conflict": ["--steps", "5"],
}


BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
RUN = """
import contextlib, io, json, runpy, sys, traceback
found = {}
for name, path, *arguments in json.loads(sys.argv[1]):
    sys.argv[1:], error = arguments, ""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            runpy.run_path(path, run_name="__main__")
        except BaseException:
            error = traceback.format_exc()
    found[name] = [error, printed.getvalue()]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What each script failed with and printed: one process runs them, most of its time imports."""
    folder = tmp_path_factory.mktemp("ran")
    (folder / "readme.py").write_text("\n".join(BLOCKS))
    scripts = [[path.stem, str(path), *QUICK.get(path.stem, [])] for path in EXAMPLES]
    engines = str(ROOT / "studies" / "engines.py")
    scripts.append(["readme", "readme.py"])
    scripts.append(["engines", engines, "--quick", "--out", "engines"])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN, json.dumps(scripts)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.mark.parametrize("name", [path.stem for path in EXAMPLES])
def test_example_runs(ran, name):
    error, printed = ran[1][name]
    assert not error
    assert printed


def test_the_four_examples_are_there():
    names = {p.stem for p in EXAMPLES}
    assert {"fit_predict", "grid_search_aggregators", "own_aggregator", "conicgrad_toy"} <= names


def test_readme_blocks_run_in_order(ran):
    assert len(BLOCKS) >= 3
    error, printed = ran[1]["readme"]
    assert not error
    assert printed.startswith("R2 0.")


def test_readme_opens_with_the_two_commands():
    shell = re.findall(r"```shell\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    first, second = shell[0].strip().splitlines()
    assert "pip install" in first
    assert "study run studies/quickstart.toml" in first
    assert "pip install" in second
    assert "'.[test]'" in second
    assert "python -m pytest" in second


def test_readme_tells_what_the_sarcos_report_found():
    page = (ROOT / "studies" / "sarcos" / "report.md").read_text()
    readme = " ".join((ROOT / "README.md").read_text().split())
    ahead = page.split("\n\n")[1].startswith("Scalarization is ahead, but not beyond the seeds")
    assert ahead == ("scalarization was, though not beyond the spread between seeds" in readme)
    assert "trials wanted: search 12, scalarization 12" in page


def test_the_study_of_engines_runs_in_its_quick_mode(ran):
    folder, found = ran
    assert not found["engines"][0]
    page = (folder / "engines" / "report.md").read_text()
    assert "nan" not in page
    for engine in ("mean gradient", "budget", "features", "online", "exact, every 10th"):
        cosines = re.findall(rf"\| ConicGrad \| {engine} \| ([-.\d]+)", page)
        assert len(cosines) == 1
        assert 0.3 < float(cosines[0]) <= 1  # an estimate, but no other direction


def test_the_readme_quotes_the_study_of_engines_and_the_benchmarks():
    readme = (ROOT / "README.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)`[^|]*\|[^|]*\| [^|]*\| (.*) \|$", readme, flags=re.M))
    page = (ROOT / "studies" / "engines" / "report.md").read_text()
    table = page.split("## sarcos: one update")[1].split("## ")[0]
    for engine in ("budget", "features", "online"):
        found = re.search(rf"\| ConicGrad \| {engine} \|(.*)\|", table).group(1).split("|")
        cosine, progress = found[2].split()[0], found[3].split()
        share = f"{float(progress[0]) / float(progress[2]):.0%}".replace("%", " %")
        assert rows[engine].startswith(f"{float(cosine):.2f}, {share}"), engine


def test_the_study_of_momentum_runs_and_shows_what_apt_s_docstring_says(tmp_path):
    script = ROOT / "studies" / "apt_tracking.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), "--quick", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    committed = ROOT / "studies" / "apt_tracking" / "report.md"
    for page in ((tmp_path / "report.md").read_text(), committed.read_text()):
        rows = re.findall(r"^\| (flips|rotation|constant, noise 3)[^|]*\|(.*)\|$", page, flags=re.M)
        errors = {name: [float(c.split()[0]) for c in cells.split("|")] for name, cells in rows}
        fixed, _, gradient, by_momentum, *_ = errors["flips"]
        assert gradient < 0.8 * fixed  # abrupt changes
        assert by_momentum < 0.8 * fixed
        fixed, _, gradient, by_momentum, *_ = errors["rotation"]
        assert by_momentum < 0.9 * fixed < fixed < gradient
        fixed, _, gradient, by_momentum, *_ = errors["constant, noise 3"]
        assert min(gradient, by_momentum) > 1.5 * fixed  # stationary noise
