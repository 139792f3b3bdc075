"""Every study file beside its report runs from the command line, with two trials."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from mtlsk.datasets import make_arm

FILES = sorted((Path(__file__).parent.parent / "studies").glob("*.toml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_study_file_runs(file, tmp_path):
    command = [sys.executable, "-m", "mtlsk", "study", "run", str(file), "--trials", "2"]
    command += ["--workers", "1", "--out", str(tmp_path / "out")]
    if file.stem == "sarcos":  # a table of its shape: the arm's targets are seven torques too
        arm = make_arm(160, random_state=0)
        pd.concat([arm.data, arm.target], axis=1).to_csv(tmp_path / "arm.csv", index=False)
        command += ["--data", str(tmp_path / "arm.csv")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "out" / "report.md").read_text()
    assert "| trials complete | 2 | 2 |" in report
    assert "hypervolume" in report


def test_there_are_study_files():
    assert {file.stem for file in FILES} == {"quickstart", "sarcos"}
