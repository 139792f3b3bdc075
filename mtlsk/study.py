"""Study: a study file run to its end, on any number of worker processes.

.. code:: python

    from mtlsk import Study

    study = Study.from_toml("studies/quickstart.toml", trials=12)
    study.run(workers=2)        # again: goes on from where it was
    study.trials()              # a DataFrame of what is done so far
    study.best([1, 2]).model    # a TableModel, by what each objective matters
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import optuna
import pandas as pd
from optuna.trial import TrialState

from mtlsk.choosing import Best, choose, front
from mtlsk.folder import MARKER, check_folder, check_same, is_torn, write_atomically
from mtlsk.lineup import line_up
from mtlsk.machine import machine, versions
from mtlsk.outcome import SCALARIZATION, SEARCH, SINGLE_TASK, Results
from mtlsk.pool import Pool, Work
from mtlsk.problem import Problem, check_space
from mtlsk.results import read_results
from mtlsk.sampler import START, may_be_asked
from mtlsk.search import SearchSpace
from mtlsk.stopping import growth
from mtlsk.storage import PATIENCE, PatientStorage, Sparing, StorageError
from mtlsk.studyfile import StudyError, StudyFile, read_study
from mtlsk.sweep import AT_MOST, members_at_once
from mtlsk.trials import (
    SCHEMA,
    Counts,
    cores,
    count,
    fail_abandoned,
    host_digest,
    minimised,
    open_storage,
    say_on_stderr,
    study_names,
    wait_until_none_runs,
)
from mtlsk.whole import whole

Progress = Callable[[dict[str, Counts], dict[str, int]], None]
"""Called now and then with the counts of both studies and the trials wanted."""

TOGETHER = (
    "Scalarization trials that differ in weights and learning rate only are trained in one run: "
    f"the first {START}, which are random, and then at most {AT_MOST} and so many that the trials "
    "without a result are at most a quarter of those with one, or one a worker. Their seconds are "
    "a share of the run."
)
"""Said in the report, because the sampler learns later of trials that run at once."""


class Study:
    """One study: what its file says, its data, and where its trials are kept.

    Parameters
    ----------
    file : StudyFile
    trials : int or None
        Trials wanted in all, of the search and of the baseline; the file's number by default.
    device : str or None
        Overrides the file's ``[estimator] device``.
    storage : str or None
        URL of the Optuna storage; ``study.db`` in ``out`` by default.
    out : str or Path or None
        Folder of the results; ``runs/NAME`` by default.
    fork : str or None
        Name under which a changed file runs beside the study that has the file's name, which is
        left as it is.

    Raises
    ------
    StudyError, ValueError or OSError
        In one line, for a study that cannot run as asked; nothing is written before :meth:`run`.
    """

    def __init__(
        self,
        file: StudyFile,
        *,
        trials: int | None = None,
        device: str | None = None,
        storage: str | None = None,
        out: str | Path | None = None,
        fork: str | None = None,
    ) -> None:
        if trials is not None and trials < 1:
            raise StudyError(f"--trials {trials} is not allowed; give a number from 1")
        self.forked_from = None if fork is None else file.study.name
        if fork is not None:
            file = file.renamed(fork)
        self.file = file
        self.out = Path(out) if out is not None else Path("runs") / file.study.name
        self.storage_url = storage or f"sqlite:///{(self.out / 'study.db').resolve()}"
        self.override = {"device": device} if device is not None else {}
        self.asked_trials = trials
        # what the file says wrong shows before its data is read
        SearchSpace.parse({**file.estimator, **self.override}, file.search, file.presets)
        self.problem = Problem.load(file)
        self.lineup = line_up(file, self.problem, trials=trials, override=self.override)
        for entry in self.lineup.values():
            check_space(entry.space, self.problem)
        self.wanted = {which: entry.wanted for which, entry in self.lineup.items()}
        self.at_once = dict.fromkeys(self.lineup, 1)
        if SCALARIZATION in self.lineup and file.study.pruning is None:  # nets alone are watched
            space = self.lineup[SCALARIZATION].space
            self.at_once[SCALARIZATION] = members_at_once(space, self.problem)

    @classmethod
    def from_toml(cls, path: str | Path, *, data: str | None = None, **options: Any) -> Self:
        """Read a study file; ``data`` replaces its [data] name or path by a table's path."""
        file = read_study(path, data=data)
        try:
            return cls(file, **options)
        except StudyError as error:
            # what is wrong with the file says which file
            raise StudyError(f"{path}: {error}" if str(error)[0] == "[" else str(error)) from None

    # ---- running

    def run(self, workers: int | None = None, progress: Progress | None = None) -> Self:
        """Run trials until there are as many as wanted and none is RUNNING any more.

        Parameters
        ----------
        workers : int or None
            Processes; by default one a core, at most 8. Their torch threads add up to the cores.
        progress : callable or None
            Told the counts now and then.
        """
        n_workers = min(cores(), 8) if workers is None else workers
        if n_workers < 1:
            raise StudyError(f"--workers {workers} is not allowed; give a number from 1")
        storage, studies = self.open()
        device = self.override.get("device", self.file.estimator.get("device", "cpu"))
        # as it is where the trials run: a report may be written elsewhere
        studies[SEARCH].set_user_attr(
            "ran", {"machine": {**machine(), "device": device}, "versions": versions()}
        )
        if studies[SEARCH].user_attrs.get("stopped"):  # what an earlier command did; this goes on
            studies[SEARCH].set_user_attr("stopped", None)
        job = {
            "study": self._resolved(),
            "estimator": self.override,
            "sha256": self.problem.sha256,
            "wanted": self.wanted,
            "trials": self.asked_trials,
            "out": str(self.out.resolve()),
            "storage": self.storage_url,
            "threads": max(1, cores() // n_workers),
            "sys_path": [p or os.getcwd() for p in sys.path],
        }

        def tick() -> None:
            with whole(storage.give_up.set):
                counts = {w: count(s) for w, s in studies.items()}
            if progress is not None:
                progress(counts, self.wanted)

        def fail_all(died: int | None = None) -> None:
            for study in studies.values():
                fail_abandoned(study, died=died)

        storage.say = say = Sparing(say_on_stderr)
        if n_workers > cores():
            say(
                f"{n_workers} workers share {cores()} cores, with one torch thread each: "
                "more workers than cores gain nothing"
            )
        tick()
        while True:
            fail_all()
            next_work = partial(self._next, studies, n_workers)
            # who stops a run does not wait for a storage
            pool = Pool(job, n_workers, next_work, fail_all, on_stop=storage.give_up.set, say=say)
            try:
                pool.run(tick)
            except BaseException:  # also Ctrl-C: what the workers left is failed and queued again
                with contextlib.suppress(StorageError):  # or it will be, by the next command
                    fail_all()
                raise
            fail_all()
            wait_until_none_runs(list(studies.values()))
            tick()
            if all(count(s).done >= self.wanted[w] for w, s in studies.items()):
                break
            if self._at_rest(studies):
                studies[SEARCH].set_user_attr("stopped", self._stopped())
                break
        storage.remove_session()
        return self

    def _next(
        self,
        studies: Mapping[str, optuna.Study],
        n_workers: int,
        in_flight: list[str],
        pids: set[int],
    ) -> Work | None:
        """Return trials of the study that is furthest from its total, None if nothing is missing.

        Several where they can be trained in one run, as far as the sampler allows it and the other
        workers are left their share of what is missing.
        """
        if self._at_rest(studies):
            return None
        missing, room = {}, {}
        for which, study in studies.items():
            running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            owners = [t.user_attrs.get("owner") for t in running]
            # one that has not said whose it is may be anybody's, and workers count it too
            others = sum(
                o is None or o["host"] != host_digest() or o["pid"] not in pids for o in owners
            )
            found = count(study)
            asked = others + in_flight.count(which)
            missing[which] = self.wanted[which] - found.done - asked
            room[which] = may_be_asked(found.complete, asked, blind=self.lineup[which].blind)
        which = max(missing, key=lambda w: missing[w] / self.wanted[w])
        if missing[which] <= 0:
            return None
        share = math.ceil(sum(max(0, m) for m in missing.values()) / n_workers)
        return Work(which, min(missing[which], self.at_once[which], room[which], share))

    def _at_rest(self, studies: Mapping[str, optuna.Study]) -> bool:
        """Say whether the file's stopping rule holds: no front grows any more, of equal budgets.

        The nets of one task each have no front: they stop with the others.
        """
        stop = self.file.study.stop
        if stop is None:
            return False
        for which, study in studies.items():
            if which == SINGLE_TASK or count(study).done >= self.wanted[which]:
                continue
            _, values = minimised(study)
            if growth(values, stop.trials) > stop.hypervolume:
                return False
        return True

    def _stopped(self) -> str:
        stop = self.file.study.stop
        assert stop is not None
        return (
            f"Stopped before all trials were run: in the last {stop.trials} trials of each study "
            f"the hypervolume of its front grew by at most {100 * stop.hypervolume:g} %."
        )

    def _resolved(self) -> dict[str, Any]:
        """Return the file's content with paths that hold from anywhere."""
        content = self.file.model_dump()
        if content["data"]["path"] is not None:
            content["data"]["path"] = str(Path(content["data"]["path"]).resolve())
        return content

    def trials(self) -> pd.DataFrame:
        """Return one row a finished or failed trial of search and scalarization."""
        return self.results().trials

    def results(self, *, patience: float = PATIENCE) -> Results:
        """Return all that is known of what is done so far, from a storage that answers in time.

        Parameters
        ----------
        patience : float
            Seconds for which what the storage does not answer is tried again.
        """
        storage = open_storage(self.storage_url)
        storage.patience = patience
        return Results(**read_results(self.file.study.name, storage, self.out))

    @property
    def front_(self) -> pd.DataFrame:
        """The search's complete trials that no other one of it dominates on validation."""
        return front(self.results())

    def best(self, preference: Sequence[float] | None = None, *, refit: bool = False) -> Best:
        """Return the trial of the search's front that a preference asks for, and its model.

        Parameters
        ----------
        preference : sequence of float or None
            A weight for each objective, 0 or more; equal ones by default. See
            :func:`mtlsk.choosing.chebyshev`.
        refit : bool
            Train the model again, where none was kept on this machine.

        Raises
        ------
        StudyError
            Without a complete trial, or for a preference that does not fit; its ``model``, when
            it is asked for, where none was kept.
        """
        chosen = choose(self.results(), preference)
        if chosen is None:
            raise StudyError(f"study {self.file.study.name!r} has no complete trial yet; run it")
        return Best(chosen, self.file.study.name, self.problem if refit else self.out)

    # ---- where it is kept

    def identity(self) -> dict[str, Any]:
        """Return what makes this study itself: its file but for trials and paths, and its data."""
        identity = self.file.identity()
        identity["data"] = {k: v for k, v in identity["data"].items() if k != "path"}
        identity["data"]["sha256"] = self.problem.sha256
        return identity

    def open(self) -> tuple[PatientStorage, dict[str, optuna.Study]]:
        """Return the storage and its two studies, made where they do not exist yet.

        Raises
        ------
        StudyError
            If folder or storage hold another study, or another version's.
        """
        name = self.file.study.name
        identity = self.identity()
        check_folder(self.out, name, identity)
        fresh = not self.out.exists()
        self.out.mkdir(parents=True, exist_ok=True)
        try:
            storage = open_storage(self.storage_url)
            self._check_known(storage)
            studies = {
                which: self._study(storage, which, full, identity)
                for which, full in study_names(name).items()
                if which in self.lineup
            }
        except StudyError:
            if fresh and not any(self.out.iterdir()):
                self.out.rmdir()
            raise
        marker = {"schema": SCHEMA, "name": name, "study": identity}
        origin = studies[SEARCH].user_attrs["mtlsk"].get("forked_from")
        if origin is not None:
            marker["forked_from"] = origin
        write_atomically(self.out / MARKER, json.dumps(marker, indent=1) + "\n")
        return storage, studies

    def _check_known(self, storage: PatientStorage) -> None:
        """Raise StudyError if the folder holds a study that its storage does not know."""
        marker, name = self.out / MARKER, self.file.study.name
        if marker.exists() and name not in optuna.get_all_study_names(storage):
            torn = f"{marker} is torn and" if is_torn(marker) else f"{marker} says it ran, but"
            raise StudyError(
                f"{torn} the storage knows no study {name!r}: give the --storage it ran with, or "
                "another --out"
            )

    def _study(
        self, storage: PatientStorage, which: str, name: str, identity: dict[str, Any]
    ) -> optuna.Study:
        directions: list[Literal["minimize", "maximize"]] = [
            "maximize" if m else "minimize" for m in self.problem.maximise
        ]
        if which == SINGLE_TASK:  # of nets of one task each only the losses are known
            directions = ["minimize"] * self.problem.n_tasks
        try:
            study = optuna.create_study(
                study_name=name, storage=storage, directions=directions, load_if_exists=True
            )
        except ValueError as error:  # of that name, with other objectives
            raise StudyError(f"storage, study {name!r}: {error}; give another --storage") from None
        about = study.user_attrs.get("mtlsk")
        if about is None and not count(study).begun:
            # new, or a run was stopped while it made it
            study.set_user_attr("mtlsk", self._about(identity))
        else:
            check_same(about, identity, f"storage, study {name!r}")
        if study.user_attrs.get("wanted") != self.wanted[which]:
            study.set_user_attr("wanted", self.wanted[which])
        return study

    def _about(self, identity: dict[str, Any]) -> dict[str, Any]:
        """Return what a storage keeps of the study, for its report and its next run."""
        problem = self.problem
        return {
            "schema": SCHEMA,
            "study": identity,
            "data": {"name": problem.name, "sha256": problem.sha256},
            "n_rows": problem.n_rows,
            "notes": [*problem.notes, *self._notes()],
            "objectives": problem.objectives,
            "maximise": problem.maximise,
            "task_names": problem.task_names,
            "seed": self.file.study.seed,
            **({"forked_from": self.forked_from} if self.forked_from is not None else {}),
        }

    def _notes(self) -> list[str]:
        space = self.lineup[SEARCH].space
        both = [n for n in space.own if n != "task_scale"]
        norm = self.file.estimator.get("update_norm", "native")
        return [
            (
                f"Search and baselines all search {', '.join(both)}."
                if both
                else "Neither search nor baselines tune the learning rate."
            ),
            f"update_norm is {norm!r}"
            + (
                ": every update has the length of the mean gradient."
                if norm == "mean"
                else ": aggregators differ in the length of their updates, not only in direction."
            ),
            *([TOGETHER] if max(self.at_once.values()) > 1 else []),
        ]
