"""``mtlsk study best``: the trial of the front that a preference asks for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtlsk.cli.command import Command
from mtlsk.cli.signals import go_on
from mtlsk.cli.stored import check_same_file, storage_url, stored_file, stored_study
from mtlsk.cli.terminal import print_json, table

if TYPE_CHECKING:
    from mtlsk.choosing import Choice
    from mtlsk.outcome import Results
    from mtlsk.studyfile import StudyFile
    from mtlsk.tablemodel import TableModel


class StudyBest(Command):
    """Choose a trial from the search's front by preference, and save its model.

    The front is that of the validation objectives. With weights p of the objectives, normalised by
    the front's best and worst values, it is the trial of the smallest max_j p_j z_j (plus 0.001
    times sum_j p_j z_j): every trial of the front is somebody's choice, also off its convex hull.
    The trial that scalarization has to offer at the same preference stands beside it.
    """

    name = "best"
    summary = "choose from the front by preference, and save the model"
    example = "mtlsk study best runs/quickstart --preference 1,1,1,1,1,1,2 --save best.pkl"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        parser.add_argument(
            "study", metavar="FILE_OR_FOLDER", help="study file, or folder of results"
        )
        parser.add_argument(
            "--preference",
            metavar="P,P,...",
            help="a weight for each objective, 0 or more (default: equal)",
        )
        parser.add_argument("--save", metavar="MODEL", help="file to write: .pkl, .joblib, .skops")
        parser.add_argument(
            "--refit", action="store_true", help="train the model again: none was kept here"
        )
        parser.add_argument("--data", metavar="PATH", help="the study's table, for --refit")
        parser.add_argument("--storage", metavar="URL", help="if 'run' had one")
        parser.add_argument("--out", metavar="DIR", help="if 'run' had one, with a FILE")
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout")

    def run(self, arguments: argparse.Namespace) -> int:
        """Choose, print, save."""
        from mtlsk.choosing import choose
        from mtlsk.outcome import SCALARIZATION, Results
        from mtlsk.results import read_results
        from mtlsk.tablefile import check_writable
        from mtlsk.trials import open_storage

        preference = numbers(arguments.preference)
        if arguments.save:
            check_writable(arguments.save)
        folder, name, url, file = locate(arguments)
        results = Results(**read_results(name, open_storage(url)))
        chosen = choose(results, preference)
        if chosen is None:
            raise ValueError(f"study {name!r} has no complete trial yet; run it first")
        other = choose(results, preference, SCALARIZATION)
        model = None
        if arguments.save or arguments.refit:
            model = get_model(arguments, folder, results, file, chosen)
            go_on()
        if model is not None and arguments.save:
            model.save(arguments.save)
        if arguments.json:
            print_json({**as_json(chosen, other), "study": name, "model": arguments.save})
        else:
            print_choice(name, results, chosen, other)
            if arguments.save:
                print(f"saved {arguments.save}; mtlsk predict {arguments.save} DATA")
        return 0


def numbers(text: str | None) -> list[float] | None:
    """Read "0.2,0.8"."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--preference {text} is no list of numbers, e.g. 0.2,0.8") from None


def locate(arguments: argparse.Namespace) -> tuple[Path, str, str, StudyFile | None]:
    """Return folder, name, storage and, where one was given, file of a study."""
    from mtlsk.studyfile import read_study

    place = Path(arguments.study)
    if place.is_dir():
        return place, *stored_study(place, arguments.storage), None
    file = read_study(place, data=arguments.data)
    folder = Path(arguments.out) if arguments.out else Path("runs") / file.study.name
    if arguments.storage and not folder.exists():  # another machine's study, on a shared database
        return folder, file.study.name, storage_url(folder, arguments.storage), file
    name, url = stored_study(folder, arguments.storage)
    check_same_file(folder, file, str(place))
    return folder, name, url, file


def get_model(
    arguments: argparse.Namespace,
    folder: Path,
    results: Results,
    file: StudyFile | None,
    chosen: Choice,
) -> TableModel:
    """Return the kept model of a trial, or train it again."""
    from mtlsk.choosing import kept, refit
    from mtlsk.problem import Problem

    if not arguments.refit:
        return kept(folder, chosen)
    problem = Problem.load(file or stored_file(folder, arguments.data))
    if problem.sha256 != results.data_sha256:
        raise ValueError(
            f"the data {problem.name!r} is not what the study ran on: their sha256 differ; give "
            "the study's own with --data"
        )
    return refit(problem, results.name, chosen)


def print_choice(name: str, results: Results, chosen: Choice, other: Choice | None) -> None:
    """Print the parameters and objectives of the chosen trial, and scalarization's."""
    weights = ", ".join(f"{o} {w:.3g}" for o, w in chosen.preference.items())
    many = "trial" if chosen.n_front == 1 else "trials"
    print(f"study {name!r}: {chosen.n_front} {many} on the search's front; preference {weights}")
    print(f"trial {chosen.number} of the search:")
    width = max(map(len, chosen.params), default=0)
    for key, value in chosen.params.items():
        print(f"  {key:<{width}}  {shown(value)}")
    header = ["objective", "validation", "test"]
    if other is not None:
        header += ["scalarization: validation", "test"]
    rows: list[list[Any]] = []
    for objective, up in zip(results.objectives, results.maximise, strict=True):
        cells = [chosen.validation[objective], chosen.test[objective]]
        if other is not None:
            cells += [other.validation[objective], other.test[objective]]
        rows.append([f"{objective} ({'max' if up else 'min'})", *cells])
    print(table(header, rows))
    if other is None:
        print("scalarization has no complete trial to compare with")
    else:
        print(f"scalarization: its trial {other.number} at the same preference")


def shown(value: Any) -> str:
    """Return a parameter in short: four digits a number."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    return "none" if value is None else str(value)


def as_json(chosen: Choice, other: Choice | None) -> dict[str, Any]:
    """Return a choice as plain data."""

    def plain(choice: Choice) -> dict[str, Any]:
        return {
            "trial": choice.number,
            "params": choice.params,
            "validation": choice.validation,
            "test": choice.test,
        }

    return {
        "preference": chosen.preference,
        "front": chosen.n_front,
        "search": plain(chosen),
        "scalarization": None if other is None else plain(other),
    }
