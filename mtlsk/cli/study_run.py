"""``mtlsk study run`` and ``mtlsk study report``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mtlsk.cli import signals
from mtlsk.cli.command import Command
from mtlsk.cli.terminal import coloured, print_json, relative

if TYPE_CHECKING:
    from mtlsk.comparison import Fronts
    from mtlsk.outcome import Results


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add how much is printed."""
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quiet", action="store_true", help="nothing but errors")
    how.add_argument("--json", action="store_true", help="one JSON object on stdout at the end")


class StudyRun(Command):
    """Run a study file; the same command again goes on from where it was.

    A terminal shows a bar with the trials done of each study and how many failed, the time left,
    and the hypervolume of the search's front on validation so far: 1 would fill the box that the
    fronts of all its studies span together, from the best value of each objective to a tenth
    beyond the worst; it may fall as the box grows. Elsewhere a line comes now and then.
    """

    name = "run"
    summary = "run a study file, or go on with it"
    example = "mtlsk study run studies/quickstart.toml --trials 12 --workers 2"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        parser.add_argument("file", metavar="FILE", help="study file (TOML); trusted like code")
        parser.add_argument(
            "--trials",
            type=int,
            metavar="N",
            help="trials wanted in all, of search and of baseline",
        )
        parser.add_argument(
            "--workers", type=int, metavar="N", help="processes (default: one a core, at most 8)"
        )
        parser.add_argument("--storage", metavar="URL", help="Optuna storage (OUT/study.db)")
        parser.add_argument("--device", metavar="D", help="cpu, cuda or auto")
        parser.add_argument(
            "--data", metavar="PATH", help="table used instead of the file's [data]"
        )
        parser.add_argument(
            "--out", metavar="DIR", help="folder of results (default: runs/STUDY_NAME)"
        )
        parser.add_argument(
            "--fork", metavar="NAME", help="run a changed file as this study, beside the old one"
        )
        add_output(parser)

    def run(self, arguments: argparse.Namespace) -> int:
        """Run a study and write its report."""
        import mtlsk.report  # noqa: F401 (what it lacks shows before hours of trials)
        from mtlsk.cli.progress import Progress
        from mtlsk.study import Study

        study = Study.from_toml(
            arguments.file,
            data=arguments.data,
            trials=arguments.trials,
            device=arguments.device,
            storage=arguments.storage,
            out=arguments.out,
            fork=arguments.fork,
        )
        silent = arguments.quiet or arguments.json
        if not silent:
            for note in study.problem.notes:
                print(note)
        try:
            with Progress(study, quiet=arguments.quiet) as progress:
                study.run(arguments.workers, progress)
        except BaseException as error:
            # a signal in the middle of what the database does comes out as the database's failure
            if not (signals.CAME or isinstance(error, KeyboardInterrupt)):
                raise
            raise KeyboardInterrupt(
                f"finished trials are kept in {study.out}: the same command goes on from there, "
                "'mtlsk study report' shows what is done"
            ) from None
        return report(study.out, study.file.study.name, study.storage_url, arguments)


class StudyReport(Command):
    """Write the report of what a study has done so far again, from its folder."""

    name = "report"
    summary = "write the report of a study again"
    example = "mtlsk study report runs/quickstart"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        parser.add_argument("folder", metavar="DIR", help="folder of results, written by 'run'")
        parser.add_argument("--storage", metavar="URL", help="if 'run' had one")
        add_output(parser)

    def run(self, arguments: argparse.Namespace) -> int:
        """Write the report."""
        from mtlsk.cli.stored import stored_study

        folder = Path(arguments.folder)
        name, url = stored_study(folder, arguments.storage)
        return report(folder, name, url, arguments)


def report(folder: Path, name: str, url: str, arguments: argparse.Namespace) -> int:
    """Write the report of a stored study, print what it came to, return the exit code."""
    from mtlsk.comparison import verdict
    from mtlsk.outcome import Results
    from mtlsk.report import write_report
    from mtlsk.results import read_results
    from mtlsk.trials import open_storage

    before = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    results = Results(**read_results(name, open_storage(url), folder))
    fronts = write_report(results, folder)
    written = [p for p in folder.iterdir() if before.get(p) != p.stat().st_mtime_ns]
    files = sorted(relative(p) for p in written if p.suffix in (".md", ".html", ".csv", ".png"))
    trials = counts(results)
    sentences, points = verdict(results, fronts)
    if arguments.json:
        print_json(
            {
                "study": name,
                "folder": relative(folder),
                "objectives": results.objectives,
                "trials": trials,
                "verdict": " ".join(sentences),
                "points": points,
                "indicators": indicators(fronts),
                "files": files,
            }
        )
    elif not arguments.quiet:
        import sys

        for which, n in trials.items():
            pruned = f", {n['pruned']} pruned" if n["pruned"] else ""
            print(f"{which}: {n['complete']} trials complete, {n['failed']} failed{pruned}")
        print(coloured(" ".join(sentences), "bold", sys.stdout))
        for point in points:
            print(point)
        names = [Path(f).name for f in files]
        print(f"{', '.join(names)} are in {folder}")
    return 0 if any(n["complete"] for n in trials.values()) else 1


def counts(results: Results) -> dict[str, dict[str, int]]:
    """Return of each study how many trials are wanted, complete, failed and pruned."""
    words = {"complete": "COMPLETE", "failed": "FAIL", "pruned": "PRUNED"}
    return {
        which: {
            "wanted": wanted,
            **{word: len(results.of(which, state)) for word, state in words.items()},
        }
        for which, wanted in results.wanted.items()
    }


def indicators(fronts: Fronts) -> dict[str, dict[str, float | int | None]]:
    """Return size and indicators of every front on the test objectives, None for what is not."""
    from mtlsk.comparison import DELTA_M, UNDOMINATED

    found: dict[str, dict[str, float | int | None]] = {}
    for which, measured in fronts.indicators.items():
        rows = fronts.rows[which]
        numbers = {
            "hypervolume": measured.hypervolume,
            "igd_plus": measured.igd_plus,
            "epsilon": measured.epsilon,
        }
        if fronts.base and len(rows):
            numbers["best_delta_m"] = float(rows[DELTA_M].min())
        found[which] = {
            "points": len(rows),
            "undominated": int(rows[UNDOMINATED].sum()),
            **{name: value if value == value else None for name, value in numbers.items()},
        }
    return found
