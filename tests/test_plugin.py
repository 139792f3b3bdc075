"""An aggregator of one's own in one file, and as an installed package of somebody else."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = '''
"""Weights by inverse gradient norms, and a controller that lets them grow equal."""

from mtlsk import Aggregator, Controller
from mtlsk.controllers import Change
from mtlsk.domains import Interval


class InverseNorm(Aggregator):
    """Weight each task by a power of its inverse gradient norm."""

    domains = {"power": Interval(0.0, 2.0)}

    def __init__(self, power=1.0):
        self.power = power

    def task_weights(self, gramian, losses):
        w = gramian.diagonal().clamp_min(1e-12) ** (-self.power / 2)
        return w / w.sum()


class Fading(Controller):
    """Let the power of InverseNorm fade."""

    def adjust(self, record, gradients):
        return {"aggregator__power": Change(1.0 / (2 + record.step), "fades")}
'''
METADATA = "Metadata-Version: 2.1\nName: inverse-norm\nVersion: 1.0\n"
POINTS = """[mtlsk.aggregators]
InverseNorm = inverse_norm:InverseNorm
[mtlsk.controllers]
Fading = inverse_norm:Fading
"""
WHEEL = "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the folder into which pip installed the package."""
    folder = tmp_path_factory.mktemp("plugin")
    wheel = folder / "inverse_norm-1.0-py3-none-any.whl"
    files = {
        "inverse_norm.py": SOURCE,
        "inverse_norm-1.0.dist-info/METADATA": METADATA,
        "inverse_norm-1.0.dist-info/WHEEL": WHEEL,
        "inverse_norm-1.0.dist-info/entry_points.txt": POINTS,
    }
    record = "".join(f"{name},,\n" for name in (*files, "inverse_norm-1.0.dist-info/RECORD"))
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**files, "inverse_norm-1.0.dist-info/RECORD": record}.items():
            archive.writestr(name, text)
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options]
    subprocess.run([*command, "--target", folder / "site", wheel], check=True)
    return folder / "site"


def run(arguments, site, cwd):
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-W", "error", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_a_member_like_our_own_in_every_way_of_writing_it(site, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import numpy as np
        from inverse_norm import Fading, InverseNorm
        from sklearn.model_selection import GridSearchCV

        from mtlsk import MultiTaskRegressor
        from mtlsk.aggregators import AGGREGATORS
        from mtlsk.component import describe
        from mtlsk.testing import check_aggregator, check_controller

        X, y = np.random.default_rng(0).standard_normal((2, 60, 3))
        if __name__ == "__main__":
            ways = ["InverseNorm", "inversenorm", "inverse_norm:InverseNorm", InverseNorm,
                    InverseNorm(), {"name": "InverseNorm", "power": 1.0}]
            answers = []
            for way in ways:
                net = MultiTaskRegressor((4,), way, max_epochs=2, random_state=0).fit(X, y)
                assert type(net.aggregator_) is InverseNorm
                answers.append(net.predict(X))
            assert all(np.array_equal(a, answers[0]) for a in answers)
            assert AGGREGATORS.members()["InverseNorm"] is InverseNorm
            assert describe(InverseNorm(0.5)) == {"name": "inverse_norm:InverseNorm", "power": 0.5}
            check_aggregator(InverseNorm())
            check_controller(Fading(), aggregator="InverseNorm")

            grid = [{"aggregator": ["InverseNorm"], "aggregator__power": [0.5, 1.0]},
                    {"aggregator": ["MGDA", InverseNorm(2.0)]},
                    {"aggregator": ["InverseNorm"], "controller": ["Fading"]}]
            net = MultiTaskRegressor((4,), max_epochs=2, random_state=0)
            scores = [GridSearchCV(net, grid, cv=2, n_jobs=n).fit(X, y).cv_results_
                      ["mean_test_score"] for n in (1, 2)]
            assert np.allclose(*scores) and len(set(scores[0])) == 5, scores
            print("all ways")
        """)
    )
    assert run([script], site, tmp_path) == "all ways\n"


def test_it_is_listed(site, tmp_path):
    text = run(["-m", "mtlsk", "list", "aggregators"], site, tmp_path)
    assert "InverseNorm\n    Weight each task by a power of its inverse gradient norm.\n" in text
    assert "power = 1.0: a number in [0, 2]" in text


def test_a_study_searches_its_own_domain(site, tmp_path):
    (tmp_path / "own.toml").write_text(
        textwrap.dedent("""
        [study]
        name = "own"
        trials = 4
        [data]
        name = "arm"
        options = { n_samples = 200, random_state = 0 }
        split = "random"
        [estimator]
        hidden_layer_sizes = [4]
        max_epochs = 2
        [search]
        aggregator = ["InverseNorm", "inverse_norm:InverseNorm"]
        aggregator__power = {}
        controller = ["none", "Fading"]
        [baselines]
        scalarization = 2
        equal_weights = 0
        single_task = 0
        """)
    )
    run(["-m", "mtlsk", "study", "run", "own.toml", "--workers", "1"], site, tmp_path)
    page = (tmp_path / "runs" / "own" / "trials.csv").read_text()
    assert "InverseNorm" in page
    report = (tmp_path / "runs" / "own" / "report.md").read_text()
    assert "search 4" in report
