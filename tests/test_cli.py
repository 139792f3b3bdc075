import re
import subprocess
import sys
import tomllib

import numpy as np
import pandas as pd
import pytest

from mtlsk import SCORERS
from mtlsk.aggregators import AGGREGATORS
from mtlsk.cli import main
from mtlsk.controllers import CONTROLLERS
from mtlsk.studyfile import read_study


def run(capsys, *arguments):
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("aggregators", AGGREGATORS.members()),
        ("controllers", CONTROLLERS.members()),
        ("scorers", SCORERS),
        ("data", ["arm", "multi_digits", "sarcos", "linnerud"]),
    ],
)
def test_list_names_every_member_with_a_sentence(capsys, kind, names):
    code, out, _ = run(capsys, "list", kind)
    assert code == 0
    found = re.findall(r"^(\S+)\n    \S.*[.:]$", out, flags=re.M)
    assert sorted(found) == sorted(names)


def test_list_engines_says_cost_error_and_the_rule_of_auto(capsys):
    code, out, _ = run(capsys, "list", "engines")
    assert code == 0
    blocks = re.split(r"\n(?=\S)", out)
    names = [block.split("\n")[0] for block in blocks]
    assert names == ["auto", "budget", "exact", "features", "online"]
    assert "cheapest exact route" in blocks[0]
    assert all("cost: " in block and "error: " in block for block in blocks[1:])
    assert all("every = 1" in block for block in blocks[1:])


def test_init_prints_a_study_file_that_is_valid(capsys, tmp_path):
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 4)), columns=list("abcd"))
    table.rename(columns={"d": 'odd "name"'}).to_csv(tmp_path / "my table.csv", index=False)
    code, out, _ = run(capsys, "study", "init", str(tmp_path / "my table.csv"), "--targets", "2")
    assert code == 0
    assert tomllib.loads(out)["data"]["targets"] == ["c", 'odd "name"']
    (tmp_path / "my.toml").write_text(out)
    assert read_study(tmp_path / "my.toml").study.name == "my-table"
    code, out, err = run(
        capsys, "study", "init", str(tmp_path / "my table.csv"), "--targets", "a", "nope"
    )
    assert (code, out) == (2, "")
    assert "'nope'" in err


def test_missing_files_are_one_line_and_code_2(capsys, tmp_path):
    for arguments in (
        ("study", "run", str(tmp_path / "no.toml")),
        ("study", "report", str(tmp_path)),
        ("study", "init", str(tmp_path / "no.csv"), "--targets", "1"),
    ):
        code, out, err = run(capsys, *arguments)
        assert code == 2
        assert out == ""
        assert err.startswith("mtlsk: error: ")
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [[], ["lst"], ["list", "aggregator"], ["study", "run", "f", "--trials", "x"]]
)
def test_wrong_words_leave_with_2_and_point_to_help(capsys, arguments):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "--help" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["study"], ["study", "run"], ["study", "init"], ["list"]])
def test_help_is_there_for_every_command(capsys, words):
    with pytest.raises(SystemExit) as left:
        main([*words, "--help"])
    assert left.value.code == 0
    assert "usage: mtlsk" in capsys.readouterr().out


def test_without_the_study_extra_the_error_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['optuna'] = None\n"
        "from mtlsk.cli import main; sys.exit(main(['study', 'run', 'x.toml']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "pip install 'mtlsk[study]'" in done.stderr
    assert "Traceback" not in done.stderr
