"""``mtlsk study check``: what a study file would run."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from mtlsk.cli.command import Command, positive
from mtlsk.cli.progress import duration
from mtlsk.cli.terminal import is_terminal, print_json, table

if TYPE_CHECKING:
    from mtlsk.plan import Estimate, PlannedStudy
    from mtlsk.study import Study


class StudyCheck(Command):
    """Say what a study file would run, and about how long, without running a trial.

    Data, split, objectives, each study with its fits (trials x repeats x folds x nets), and what
    is searched: aggregator[ConicGrad]__c is a parameter only where ConicGrad is chosen. For the
    time an epoch or two of the middle of each aggregator's space are run and multiplied.
    """

    name = "check"
    summary = "say what a study file would run, and about how long"
    example = "mtlsk study check studies/quickstart.toml"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        parser.add_argument("file", metavar="FILE", help="study file (TOML); trusted like code")
        parser.add_argument("--trials", type=positive, metavar="N", help="as of 'run'")
        parser.add_argument("--workers", type=positive, metavar="N", help="as of 'run'")
        parser.add_argument("--device", metavar="D", help="cpu, cuda or auto")
        parser.add_argument("--data", metavar="PATH", help="table used instead of [data]")
        parser.add_argument("--no-time", action="store_true", help="run nothing, estimate nothing")
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout")

    def run(self, arguments: argparse.Namespace) -> int:
        """Print the plan."""
        from mtlsk.plan import estimate, plan
        from mtlsk.study import Study

        study = Study.from_toml(
            arguments.file,
            data=arguments.data,
            trials=arguments.trials,
            device=arguments.device,
        )
        planned = plan(study)
        if not arguments.json:
            print_plan(study, planned)
        time = None if arguments.no_time else estimate(study, arguments.workers, told)
        if arguments.json:
            print_json(as_json(study, planned, time))
        elif time is not None:
            print_time(study, time)
        return 0


def told(word: str) -> None:
    """Say what is timed, where somebody waits for it."""
    if is_terminal(sys.stderr):
        print(f"\r\033[Ktiming {word} ...\r", end="", file=sys.stderr, flush=True)


def print_plan(study: Study, planned: list[PlannedStudy]) -> None:
    """Print data, objectives, studies and what they search."""
    file, problem = study.file, study.problem
    rows = ", ".join(f"{part} {n}" for part, n in problem.n_rows.items())
    ways = ["max" if up else "min" for up in problem.maximise]
    goals = [f"{name} ({way})" for name, way in zip(problem.objectives, ways, strict=True)]
    for note in (
        f"study {file.study.name!r}, results in {study.out}",
        f"data {problem.name}: {rows} rows; {len(problem.feature_names)} features, "
        f"{problem.n_tasks} targets ({', '.join(problem.task_names)})",
        *problem.notes,
        f"objectives: {', '.join(goals)}",
    ):
        print(note)
    print()
    header = ["study", "sampler", "trials", "repeats", "fits a trial", "fits"]
    cells = [
        [p.which, p.sampler, p.trials, file.study.repeats, p.fits_a_trial, p.fits] for p in planned
    ]
    print(table(header, cells))
    print(f"{sum(p.fits for p in planned)} fits in all: trials x repeats x folds x nets")
    for p in planned:
        grid = f", a grid of {p.grid} points" if p.grid is not None else ""
        print(f"\n{p.which} searches{grid}:" if p.searched else f"\n{p.which} searches nothing")
        width = max(map(len, p.searched), default=0)
        for name, text in p.searched.items():
            print(f"  {name:<{width}}  {text}")


def print_time(study: Study, time: Estimate) -> None:
    """Print how long it may take, and what that rests on."""
    from mtlsk.plan import speed_up

    if is_terminal(sys.stderr):
        print("\033[K", end="", file=sys.stderr, flush=True)
    many = "" if time.workers == 1 else "s"
    print(f"\nabout {duration(time.seconds)} with {time.workers} worker{many}; one fit takes about")
    for word, seconds in time.fit_seconds.items():
        print(f"  {seconds:8.3g} s  {word}")
    faster = speed_up(study)
    print(
        "Estimated from an epoch or two of the middle of each aggregator's space"
        + (f"; {faster}." if faster else ".")
    )


def as_json(study: Study, planned: list[PlannedStudy], time: Estimate | None) -> dict[str, Any]:
    """Return the plan as plain data."""
    problem = study.problem
    return {
        "study": study.file.study.name,
        "data": {
            "name": problem.name,
            "rows": problem.n_rows,
            "features": problem.feature_names,
            "targets": problem.task_names,
            "split": study.file.data.split,
            "folds": study.file.data.folds,
        },
        "objectives": problem.objectives,
        "maximise": problem.maximise,
        "studies": [
            {
                "study": p.which,
                "sampler": p.sampler,
                "trials": p.trials,
                "fits_a_trial": p.fits_a_trial,
                "fits": p.fits,
                "grid": p.grid,
                "searched": p.searched,
            }
            for p in planned
        ],
        "seconds": None if time is None else time.seconds,
        "fit_seconds": None if time is None else time.fit_seconds,
        "workers": None if time is None else time.workers,
    }
