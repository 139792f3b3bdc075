"""From a table to predictions on the command line, without Python."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mtlsk.cli import build_parser, main
from mtlsk.fitting import parse_settings

QUICK = ("--set", "max_epochs=3", "--set", "hidden_layer_sizes=[8]")


def run(capsys, *arguments):
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a messy table: semicolons, decimal commas, text, empty cells."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("tables")
    frame = pd.DataFrame(rng.normal(size=(80, 2)).round(3), columns=["größe", "b"])
    frame["city"] = rng.choice(["Köln", "Bonn; West", "A, B"], 80)
    frame["site"] = np.repeat(np.arange(8), 10)
    for k in range(7):
        frame[f"y{k}"] = (50 + 5 * (k * frame["größe"] - frame["b"])).round(3)
    frame.iloc[::9, 0] = np.nan
    frame.iloc[::7, 2] = None
    frame.iloc[::5, 6] = np.nan
    frame.to_csv(folder / "messy.csv", sep=";", decimal=",", index=False)
    line = ["fit", str(folder / "messy.csv"), "--targets", "7", "--drop", "site", *QUICK]
    assert main([*line, "--save", str(folder / "m.pkl")]) == 0
    return folder


def test_fit_prints_what_the_net_is_worth_on_held_out_rows(capsys, folder):
    data = str(folder / "messy.csv")
    code, out, err = run(capsys, "fit", data, "--targets", "7", "--drop", "site", *QUICK)
    assert (code, err) == (0, "")
    assert "60 rows trained, 20 rows held out (random); 3 features, 7 targets" in out
    rows = [line.split() for line in out.splitlines() if line.startswith("y")]
    assert [row[0] for row in rows] == [f"y{k}" for k in range(7)]
    code, out, _ = run(
        capsys, "fit", data, "--targets", "7", "--split", "group:site", *QUICK, "--json"
    )
    found = json.loads(out)
    assert found["rows"] == {"train": 60, "held_out": 20}
    losses = found["held_out"]["y1"]
    assert set(losses) == {"rows", "mse", "mse of the mean", "r2"}
    frame = pd.read_csv(data, sep=";", decimal=",")
    assert 0.3 < losses["mse of the mean"] / frame["y1"].var() < 3
    assert found["params"]["max_epochs"] == 3


def test_all_rows_train_without_a_split(capsys, folder):
    data = str(folder / "messy.csv")
    code, out, _ = run(capsys, "fit", data, "--targets", "7", "--split", "none", *QUICK)
    assert code == 0
    assert "80 rows trained, none" in out
    assert "R2" not in out


def test_predict_writes_csv_to_stdout_or_a_file_by_its_suffix(capsys, folder):
    model, data = str(folder / "m.pkl"), str(folder / "messy.csv")
    code, out, err = run(capsys, "predict", model, data, "--keep", "site", "city")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "site,city,y0,y1,y2,y3,y4,y5,y6"
    assert len(lines) == 81
    for suffix, read in ((".csv", pd.read_csv), (".parquet", pd.read_parquet)):
        target = folder / f"p{suffix}"
        assert run(capsys, "predict", model, data, "--out", str(target))[:2] == (0, "")
        found = read(target)
        assert found.shape == (80, 7)
        assert 30 < found["y0"].mean() < 70


def test_certify_prints_the_report_and_its_json(capsys, folder):
    model, data = str(folder / "m.pkl"), str(folder / "messy.csv")
    code, out, _ = run(capsys, "certify", model, data)
    assert code == 0
    assert out.startswith("Certificates of 7 tasks on 80 rows")
    found = json.loads(run(capsys, "certify", model, data, "--json")[1])
    assert set(found["tasks"]) == {f"y{k}" for k in range(7)}
    assert {f["topic"] for f in found["findings"]}
    assert "critical_cone" in found["certificates"]


def test_fit_takes_data_and_estimator_of_a_study_file(capsys, tmp_path):
    (tmp_path / "s.toml").write_text(
        '[study]\nname = "s"\n[data]\nname = "arm"\nsplit = "random"\n'
        "options = { n_samples = 60, random_state = 0 }\n"
        '[estimator]\nmax_epochs = 2\naggregator = "MGDA"\n'
    )
    code, out, err = run(capsys, "fit", "--study", str(tmp_path / "s.toml"), "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["params"] == {"random_state": 0, "max_epochs": 2, "aggregator": "MGDA"}
    code, out, _ = run(
        capsys, "fit", "--study", str(tmp_path / "s.toml"), "--set", "lr=0.01", "--json"
    )
    assert json.loads(out)["params"]["lr"] == 0.01


def test_settings_are_toml_or_words():
    words = ["a=1", "b=0.5", "c=true", "d=[8, 8]", "e=ConicGrad", "f=none", "g={x = 1}", "h=a=b"]
    assert parse_settings(words) == {
        "a": 1,
        "b": 0.5,
        "c": True,
        "d": [8, 8],
        "e": "ConicGrad",
        "f": None,
        "g": {"x": 1},
        "h": "a=b",
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit"], "give DATA and --targets"),
        (["fit", "no.csv", "--targets", "1"], "no file no.csv"),
        (["fit", ".", "--targets", "1"], "is a directory"),
        (["fit", "messy.csv", "--targets", "y9"], "did you mean 'y0'|'y9', which is no column"),
        (["fit", "messy.csv", "--targets", "7", "--set", "lr"], "no NAME=VALUE"),
        (["fit", "messy.csv", "--targets", "7", "--set", "epochs=2"], "no parameter 'epochs'"),
        (["fit", "messy.csv", "--targets", "7", "--set", "aggregator=Conic"], "ConicGrad"),
        (["fit", "messy.csv", "--targets", "7", "--split", "blok"], "'blocked'"),
        (["fit", "messy.csv", "--targets", "7", "--split", "group:no"], "'no'"),
        (["fit", "messy.csv", "--targets", "7", "--save", "m.txt"], "suffix '.txt'"),
        (["fit", "messy.csv", "--targets", "7", "--save", "no/m.pkl"], "no folder"),
        (["fit", "messy.csv", "--targets", "7", "--set", "lr=1e30", *QUICK], "diverged"),
        (["predict", "no.pkl", "messy.csv"], "no file no.pkl"),
        (["predict", ".", "messy.csv"], "suffix ''"),
        (["predict", "messy.csv", "messy.csv"], "suffix '.csv'"),
        (["predict", "m.pkl", "no.csv"], "no file"),
        (["predict", "m.pkl", "other.csv"], "no column 'größe'"),
        (["predict", "m.pkl", "messy.csv", "--keep", "no"], "--keep no"),
        (["predict", "m.pkl", "messy.csv", "--out", "p.txt"], "suffix '.txt'"),
        (["certify", "m.pkl", "other.csv"], "no target 'y0'|no column"),
    ],
)
def test_wrong_input_is_one_line_and_code_2_and_leaves_nothing(
    capsys, folder, monkeypatch, arguments, words
):
    (folder / "other.csv").write_text("x\n1\n")
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("mtlsk: error: ")
    assert err.count("\n") == 1
    assert any(word in err for word in words.split("|")), err
    assert sorted(folder.iterdir()) == before


def test_the_commands_of_the_readme_work(capsys, tmp_path, monkeypatch):
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    blocks = re.findall(r"```shell\n(mtlsk .*?)```", readme, flags=re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) == 7
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(40, 4)), columns=["size", "age", "price", "demand"])
    frame.to_csv("my.csv", index=False)
    frame.drop(columns=["price", "demand"]).to_csv("new.csv", index=False)
    for line in lines:
        words, _, target = line.removeprefix("mtlsk ").partition(" > ")
        arguments = build_parser().parse_args(shlex.split(words))
        if getattr(arguments, "action", "") in ("run", "best"):
            continue  # long, and tested elsewhere
        code, out, err = run(capsys, *shlex.split(words))
        assert (code, err) == (0, "")
        if target:
            Path(target).write_text(out)
    assert {p.name for p in tmp_path.iterdir()} == {
        *("my.csv", "new.csv", "my.pkl", "predictions.csv", "my.toml")
    }
