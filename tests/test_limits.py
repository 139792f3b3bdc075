"""mtlsk scalarization-limits: the answer on a table, its JSON, its errors."""

import json

import numpy as np
import pandas as pd
import pytest

from mtlsk.cli import main
from mtlsk.limits import limits_of_table, prepared


def run(capsys, *arguments):
    code = main(["scalarization-limits", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Three targets at 120 degrees on top of a shared one, with text and empty cells in X."""
    rng = np.random.default_rng(1)
    folder = tmp_path_factory.mktemp("limits")
    x = rng.normal(size=(300, 3))
    angles = 2 * np.pi * np.arange(3) / 3 + 0.1
    y = x @ np.vstack([np.cos(angles), np.sin(angles), np.full(3, 0.4)])
    frame = pd.DataFrame(x, columns=list("abc"))
    frame["city"] = rng.choice(["Bonn", "Köln"], 300)
    names = ["lift", "roll", "yaw"]
    frame[names] = 7 + [1.0, 10.0, 0.1] * (y + 0.2 * rng.normal(size=y.shape))
    frame.loc[3, "a"] = np.nan
    frame.to_csv(folder / "three.csv", index=False)
    frame.loc[5, "roll"] = np.nan
    frame.to_csv(folder / "gap.csv", index=False)
    return folder


def test_it_says_what_is_missed_and_by_how_much(capsys, tables):
    code, out, err = run(capsys, tables / "three.csv", "--targets", "lift", "roll", "yaw")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("Scalarization does not reach everything (theorem)")
    assert "tasks roll - lift - yaw - roll is negative" in lines[0]
    rows = {line.split()[0]: [float(c) for c in line.split()[1:]] for line in lines[2:5]}
    assert list(rows) == ["lift", "roll", "yaw"]
    for full, balanced, mixed, gain in rows.values():
        assert full < mixed < balanced < 1
        assert gain == pytest.approx(balanced - mixed, abs=2e-4)
        assert gain > 0.03
    assert "no task weights give it" in out
    assert max(map(len, lines)) < 140


def test_json_has_the_same_and_the_mixture(capsys, tables):
    data = tables / "three.csv"
    code, out, _ = run(capsys, data, "--targets", "3", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["explorable"], found["proved"], found["method"]) == (
        False,
        True,
        "theorem, q = 1",
    )
    assert found["cycle"] == ["roll", "lift", "yaw", "roll"]
    assert found["balanced_missed"]
    assert found["gap"] < -0.03
    assert sum(m["probability"] for m in found["mixture"]) == pytest.approx(1)
    errors = pd.DataFrame(found["mse"]).T
    assert np.ptp(errors["balanced"]) < 1e-6
    assert (errors["gain"] > 0).all()


def test_ranks_that_reach_everything(capsys, tables):
    data = tables / "three.csv"
    code, out, _ = run(capsys, data, "--targets", "lift", "roll")
    assert code == 0
    assert out.startswith("Scalarization reaches everything (theorem): with the signs")
    assert "mixture" not in out.splitlines()[1]
    assert "task weights give it" in out
    code, out, _ = run(capsys, data, "--targets", "3", "--rank", "3")
    assert "the rank suffices" in out


def test_the_picture_is_written(capsys, tables, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "three.png"
    assert run(capsys, tables / "three.csv", "--targets", "3", "--plot", path)[0] == 0
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["three.csv", "--targets", "3", "--rank", "4"], "rank=4 is not allowed"),
        (["gap.csv", "--targets", "3"], "target 'roll' lacks 1 labels (the first in row 6)"),
        (["three.csv", "--targets", "lyft"], "lift"),
        (["none.csv", "--targets", "3"], "none.csv"),
        (["three.csv", "--targets", "3", "--rank", "3", "--plot", "x.png"], "smaller rank"),
        (["three.csv", "--targets", "3", "--plot", "no/x.png"], "there is no folder no"),
    ],
)
def test_errors_are_one_line(capsys, tables, words, line):
    code, out, err = run(capsys, tables / words[0], *words[1:])
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert line in err


def test_the_numbers_of_the_arm(data_dir):
    names = ["torque1", "torque4", "torque5"]
    others = [f"torque{i}" for i in (2, 3, 6, 7)]
    X, Y = prepared(str(data_dir / "sarcos_4449.csv.gz"), names, others)
    found = limits_of_table(X, Y, 1)
    assert found.reach.gap == pytest.approx(-0.0541, abs=5e-5)
    assert [row[2] for row in found.rows()] == pytest.approx([0.6442] * 3, abs=5e-5)
