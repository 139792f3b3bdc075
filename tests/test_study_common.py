"""What all studies' command lines have: a quick run keeps apart, what is not there is one line."""

import importlib
from pathlib import Path

import pytest

STUDIES = Path(__file__).parent.parent / "studies"


@pytest.fixture
def parser(monkeypatch):
    monkeypatch.syspath_prepend(str(STUDIES))
    made = importlib.import_module("common").parser("What it asks.", "apt")
    made.add_argument("--report", action="store_true")
    return made


def test_a_quick_run_does_not_write_over_a_whole_one(parser, tmp_path):
    assert parser.parse_args([]).out == STUDIES / "apt"
    assert parser.parse_args(["--quick"]).out == STUDIES / "apt" / "quick"
    assert parser.parse_args(["--quick", "--out", str(tmp_path)]).out == tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "nowhere"], "--data nowhere: no such folder"),
        (["--report", "--out", "nowhere"], "no tables in nowhere; run without --report"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(parser, capsys, arguments, said):
    with pytest.raises(SystemExit):
        parser.parse_args(arguments)
    assert said in capsys.readouterr().err.splitlines()[-1]
