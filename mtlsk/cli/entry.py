"""The parser of all commands, and what becomes of errors and signals."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mtlsk.cli import signals
from mtlsk.cli.command import Parser, add_group
from mtlsk.cli.lists import Completion, List
from mtlsk.cli.scalarization_limits import ScalarizationLimits
from mtlsk.cli.study_best import StudyBest
from mtlsk.cli.study_check import StudyCheck
from mtlsk.cli.study_init import StudyInit
from mtlsk.cli.study_run import StudyReport, StudyRun
from mtlsk.cli.tables import Certify, Fit, Predict
from mtlsk.cli.terminal import complain

STUDY = (StudyInit(), StudyCheck(), StudyRun(), StudyReport(), StudyBest())
COMMANDS = (Fit(), Predict(), Certify(), ScalarizationLimits(), List(), Completion())

CODES = """\
exit codes:
  0    done
  1    done, but no trial completed
  2    wrong input, or a file or storage failed: one line on stderr says what
  130  interrupted (Ctrl-C): finished trials are kept, no file is half written
  143  terminated (SIGTERM, and 129 by a closed terminal): likewise

Results go to stdout, progress and errors to stderr. NO_COLOR=1 turns colours off."""

EXTRAS = {"pyarrow": "parquet", "skops": "skops", "matplotlib": "plot"}
"""Module -> extra that brings it; all others come with [study]."""


def build_parser() -> Parser:
    """Return the parser of all commands."""
    parser = Parser(prog="mtlsk", description="Multi-task learning as a parameter.", epilog=CODES)
    parser.add_argument("--version", action="version", version=f"mtlsk {_version()}")
    parser.set_defaults(root=parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_group(commands, "study", "search aggregators against scalarization", STUDY)
    for command in COMMANDS:
        command.add_to(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    arguments = build_parser().parse_args(argv)
    # as with `python -m`: a study may name a module beside which the user stands
    if "" not in sys.path:
        sys.path.insert(0, "")
    with signals.stopping(), warnings.catch_warnings():
        warnings.showwarning = _warn
        try:
            code: int = arguments.run(arguments)
            sys.stdout.flush()
            return code
        except BrokenPipeError:  # whoever read it has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except ModuleNotFoundError as error:
            extra = EXTRAS.get((error.name or "").partition(".")[0], "study")
            complain("error", f"{error.name} is not installed; pip install 'mtlsk[{extra}]'")
        except (ValueError, OSError, ImportError) as error:
            full = isinstance(error, OSError) and error.errno == errno.ENOSPC
            again = "the disk is full: free some space, and the same command goes on from there"
            complain("error", again if full else str(error))
        except KeyboardInterrupt as stop:
            print(f"mtlsk: {signals.word()}{f'; {stop}' if str(stop) else ''}", file=sys.stderr)
            return signals.code()
        except Exception as error:
            # what the database says (full disk, locked, gone) is no traceback either
            if type(error).__module__.partition(".")[0] not in ("sqlalchemy", "optuna", "sqlite3"):
                raise
            complain("error", f"the storage failed: {' '.join(str(error).split())[:300]}")
        return 2


def _warn(message: Warning | str, *place: Any, **more: Any) -> None:
    complain("warning", str(message))


def _version() -> str:
    try:
        return version("mtlsk")
    except PackageNotFoundError:
        return "unknown"
