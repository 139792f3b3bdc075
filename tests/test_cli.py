import argparse
import re
import shlex
import signal
import subprocess
import sys
import tomllib

import numpy as np
import pandas as pd
import pytest

from mtlsk import SCORERS
from mtlsk.aggregators import AGGREGATORS
from mtlsk.cli import build_parser, entry, main
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


def commands():
    """Yield the words of each command and its parser."""

    def walk(parser, words):
        inner = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        for action in inner:
            for name, each in action.choices.items():
                yield from walk(each, (*words, name))
        if not inner:
            yield words, parser

    return list(walk(build_parser(), ()))


def test_every_command_has_a_sentence_and_an_example_that_it_understands():
    found = commands()
    assert len(found) == 11
    for words, parser in found:
        sentence, *_, last = parser.description.split("\n")
        assert re.fullmatch(r"[A-Z].*[.,:]?", sentence)
        assert last.startswith(f"example: mtlsk {' '.join(words)}")
        line = shlex.split(last.removeprefix("example: mtlsk ").partition(" > ")[0])
        assert build_parser().parse_args(line).run.__self__.name == words[-1]


@pytest.mark.parametrize("words", [[], ["study"], *([*w] for w, _ in commands())])
def test_help_is_there_for_every_command(capsys, words):
    with pytest.raises(SystemExit) as left:
        main([*words, "--help"])
    assert left.value.code == 0
    assert "usage: mtlsk" in capsys.readouterr().out


def test_help_lists_the_exit_codes(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    codes = re.findall(r"^  (\d+) ", capsys.readouterr().out, flags=re.M)
    assert codes == ["0", "1", "2", "130", "143"]


def test_help_imports_nothing_heavy():
    code = (
        "import sys, mtlsk.cli\n"
        "mtlsk.cli.build_parser().format_help()\n"
        "print({'torch', 'numpy', 'pandas', 'sklearn', 'optuna', 'tqdm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.fixture
def interruptible():
    """SIGINT as a terminal has it: in the background of a script it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_with_its_code_and_one_line(
    capsys, monkeypatch, interruptible, number, code
):
    monkeypatch.setattr(entry.List, "run", lambda *_: signal.raise_signal(number))
    before = signal.getsignal(signal.SIGTERM)
    assert run(capsys, "list", "data")[0] == code
    assert signal.getsignal(signal.SIGTERM) is before

    def swallow(*_):  # as skorch does
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            entry.signals.go_on()

    monkeypatch.setattr(entry.List, "run", swallow)
    found, out, err = run(capsys, "list", "data")
    word = {130: "interrupted", 143: "terminated"}[code]
    assert (found, out, err) == (code, "", f"mtlsk: {word}\n")


def test_a_reader_that_has_seen_enough_is_no_error():
    line = f"{sys.executable} -c 'from mtlsk.cli import main; exit(main())' list aggregators"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{line} | true"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_errors_are_coloured_on_a_terminal_alone_and_not_with_no_color(monkeypatch):
    class Stream:
        def isatty(self):
            return True

    terminal = entry.complain.__globals__
    coloured = terminal["coloured"]
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert coloured("x", "red", Stream()) == "\033[31mx\033[0m"
    assert coloured("x", "red", sys.__stdin__) == "x" or sys.__stdin__.isatty()
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured("x", "red", Stream()) == "x"


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_the_commands(capsys, shell):
    code, out, _ = run(capsys, "completion", shell)
    assert code == 0
    assert all(word in out for word in ("predict", "certify", "study"))
    assert shell == "tcsh" or "--targets" in out
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=out, text=True, check=True)


def test_without_shtab_the_error_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    code, _, err = run(capsys, "completion", "bash")
    assert code == 2
    assert "pip install 'mtlsk[study]'" in err


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
