"""The command line: ``mtlsk study run | report | init`` and ``mtlsk list``.

Exit codes: 0 done, 1 done but no trial completed, 2 wrong input (one line says what), 130
interrupted (what is done is kept).
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

LISTS = ("aggregators", "controllers", "engines", "optimizers", "scorers", "data")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and whose help keeps its line breaks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Print one line and leave with code 2."""
        self.exit(2, f"{self.prog}: error: {message}; try {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = Parser(prog="mtlsk", description="Multi-task learning as a parameter.")
    parser.add_argument("--version", action="version", version=f"mtlsk {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    study = commands.add_parser("study", help="search aggregators against scalarization")
    actions = study.add_subparsers(dest="action", required=True, metavar="ACTION")

    run = actions.add_parser(
        "run",
        help="run a study file, or go on with it",
        description=(
            "Run a study file; the same command again goes on from where it was.\n\n"
            "example: mtlsk study run studies/quickstart.toml --trials 12 --workers 2"
        ),
    )
    run.add_argument("file", metavar="FILE", help="study file (TOML); it is trusted like code")
    run.add_argument(
        "--trials", type=int, metavar="N", help="trials wanted in all, of search and of baseline"
    )
    run.add_argument(
        "--workers", type=int, metavar="N", help="processes (default: one a core, at most 8)"
    )
    run.add_argument("--storage", metavar="URL", help="Optuna storage (default: DIR/study.db)")
    run.add_argument("--device", metavar="D", help="cpu, cuda or auto")
    run.add_argument("--data", metavar="PATH", help="table used instead of the file's [data]")
    run.add_argument("--out", metavar="DIR", help="folder of results (default: runs/STUDY_NAME)")
    run.set_defaults(run=study_run)

    report = actions.add_parser(
        "report",
        help="write the report of a study again",
        description=(
            "Write trials.csv, front.csv, report.md and pareto.png of what is done so far.\n\n"
            "example: mtlsk study report runs/quickstart"
        ),
    )
    report.add_argument("folder", metavar="DIR", help="folder of results, as written by 'run'")
    report.add_argument("--storage", metavar="URL", help="if 'run' had one")
    report.set_defaults(run=study_report)

    init = actions.add_parser(
        "init",
        help="print a study file for a table",
        description=(
            "Print a study file for a CSV or Parquet table.\n\n"
            "example: mtlsk study init my.csv --targets price demand > my.toml"
        ),
    )
    init.add_argument("data", metavar="DATA", help="table (.csv, .csv.gz, .tsv, .parquet)")
    init.add_argument(
        "--targets",
        nargs="+",
        required=True,
        metavar="T",
        help="column names, or how many are last",
    )
    init.set_defaults(run=study_init)

    listing = commands.add_parser("list", help="what there is, with its parameters")
    listing.add_argument("kind", choices=LISTS, metavar=" | ".join(LISTS))
    listing.add_argument(
        "--markdown", action="store_true", help="a table, of aggregators, controllers or engines"
    )
    listing.set_defaults(run=list_kind)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    arguments = build_parser().parse_args(argv)
    # as with `python -m`: a study may name a module beside which the user stands
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        code: int = arguments.run(arguments)
    except ModuleNotFoundError as error:
        return _fail(f"{error.name} is not installed; pip install 'mtlsk[study]'")
    except (ValueError, OSError) as error:
        return _fail(" ".join(str(error).split()))
    except Exception as error:
        # what the database says (full disk, locked, gone) is no traceback either
        if type(error).__module__.partition(".")[0] in ("sqlalchemy", "optuna", "sqlite3"):
            return _fail(f"the storage failed: {' '.join(str(error).split())[:300]}")
        raise
    except KeyboardInterrupt:
        print("mtlsk: interrupted", file=sys.stderr)
        return 130
    return code


def _fail(message: str) -> int:
    print(f"mtlsk: error: {message}", file=sys.stderr)
    return 2


def _version() -> str:
    try:
        return version("mtlsk")
    except PackageNotFoundError:
        return "unknown"


def study_run(arguments: argparse.Namespace) -> int:
    """Run a study and write its report."""
    from tqdm import tqdm

    from mtlsk.study import Study

    study = Study.from_toml(
        arguments.file,
        data=arguments.data,
        trials=arguments.trials,
        device=arguments.device,
        storage=arguments.storage,
        out=arguments.out,
    )
    for note in study.problem.notes:
        print(note)
    bar: Any = tqdm(total=sum(study.wanted.values()), unit="trial", disable=None, leave=False)

    def show(counts: Any, wanted: Any) -> None:
        bar.n = min(sum(c.done for c in counts.values()), bar.total)
        text = ", ".join(f"{w} {c.done}/{wanted[w]}" for w, c in counts.items())
        failed = sum(c.failed for c in counts.values())
        bar.set_postfix_str(text + (f", {failed} failed" if failed else ""))

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with bar:
            study.run(arguments.workers, show)
    except KeyboardInterrupt:
        again = "the same command goes on from there; 'mtlsk study report' shows what is done"
        print(f"stopped; finished trials are kept in {study.out}; {again}", file=sys.stderr)
        return 130
    return _report(study.out, study.file.study.name, study.storage_url)


def study_report(arguments: argparse.Namespace) -> int:
    """Write the report of what a folder's study has done so far."""
    from mtlsk.folder import MARKER, read_marker

    folder = Path(arguments.folder)
    marker = folder / MARKER
    if not marker.exists():
        raise FileNotFoundError(
            f"{folder} holds no study ({MARKER} is missing); give a folder that 'mtlsk study run' "
            "wrote, e.g. runs/quickstart"
        )
    url = arguments.storage
    if url is None:
        if not (folder / "study.db").exists():
            raise FileNotFoundError(f"{folder} has no study.db; give the --storage of the run")
        url = f"sqlite:///{(folder / 'study.db').resolve()}"
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        raise FileNotFoundError(f"--storage {url}: there is no such file")
    name = read_marker(marker).get("name")
    if not isinstance(name, str):
        raise ValueError(f"{marker} names no study; give a folder that 'mtlsk study run' wrote")
    return _report(folder, name, url)


def _report(folder: Path, name: str, url: str) -> int:
    from mtlsk.report import Results, write_report
    from mtlsk.results import read_results
    from mtlsk.trials import open_storage

    results = Results(**read_results(name, open_storage(url), folder))
    comparison = write_report(results, folder)
    for which in results.wanted:
        failed = results.of(which, "FAIL")
        complete = results.of(which, "COMPLETE")
        print(f"{which}: {len(complete)} trials complete, {len(failed)} failed")
    if comparison is not None:
        print(comparison.verdict())
    print(f"report.md, pareto.png, front.csv and trials.csv are in {folder}")
    return 0 if len(results.trials.query("state == 'COMPLETE'")) else 1


def study_init(arguments: argparse.Namespace) -> int:
    """Print a study file for a table."""
    from mtlsk.datasets import load_table

    targets: Any = arguments.targets
    if len(targets) == 1 and targets[0].isdigit():
        targets = int(targets[0])
    table = load_table(arguments.data, targets)
    stem = Path(arguments.data).name.split(".")[0]
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in stem)
    name = plain.lstrip("._-") or "study"
    beyond = len(table.target_names) > 3
    objectives = '["mean", "worst"]' if beyond else '"task_losses"'
    alternative = '"task_losses"' if beyond else '["mean", "worst"]'
    print(f"""\
# {len(table.data)} rows, {len(table.feature_names)} features, {len(table.target_names)} targets.
# A study file can name code (module:Class): trust it like code.

[study]
name = {json.dumps(name)}
objectives = {objectives}           # or {alternative}, or names from `mtlsk list scorers`
trials = 60                         # of the search, and as many of the baseline

[data]
path = {json.dumps(arguments.data)}
targets = {json.dumps(table.target_names, ensure_ascii=False)}
split = "random"                    # "blocked" where neighbouring rows are alike; "group:COLUMN"
scale_X = true
scale_y = true

[estimator]                         # keyword arguments of MultiTaskRegressor
hidden_layer_sizes = [64, 64]
max_epochs = 60
batch_size = 64

[search]                            # choices, {{ low = ..., high = ... }}, or {{}}: its own domain
aggregator = ["ConicGrad", "CAGrad", "MGDA"]
aggregator__c = {{}}
task_scale = {{ simplex = true }}
lr = {{ low = 1e-3, high = 3e-2, log = true }}""")
    return 0


def list_kind(arguments: argparse.Namespace) -> int:
    """Print the members of a kind with a sentence each and their parameters, or a table."""
    from mtlsk.catalogue import as_markdown, as_text

    print(as_markdown(arguments.kind) if arguments.markdown else as_text(arguments.kind))
    return 0
