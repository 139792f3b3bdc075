"""The study file: TOML in, a validated :class:`StudyFile` out, one clear line for what is wrong."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mtlsk.component import closest


class StudyError(ValueError):
    """A study cannot be run as asked: one line that says what to change."""


class Section(BaseModel):
    """A table of the file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", strict=True)


Count = Annotated[int, Field(ge=1)]


class Sampler(Section):
    """[study] sampler: a name of ``mtlsk.sampler.SAMPLERS``; ``points`` an interval in a grid."""

    name: str
    points: Annotated[int, Field(ge=2)] | None = None

    @property
    def per_interval(self) -> int:
        """Points of an interval in a grid."""
        return self.points or 5


class Stop(Section):
    """[study] stop: end when no front grew by this share in so many trials of each study."""

    hypervolume: Annotated[float, Field(gt=0, lt=1)] = 0.01
    trials: Count = 20


class Prune(Section):
    """[study] prune: end a fit whose validation losses so many finished trials dominate.

    Looked at after each epoch from ``after`` on, at the same epoch of the same repeat and fold.
    """

    dominated_by: Count = 3
    after: Count = 5


class StudySection(Section):
    """[study]: the name of the study, what it minimises, how it is searched and how long."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    objectives: Literal["task_losses"] | list[str] | None = None
    trials: Count = 60
    seed: Annotated[int, Field(ge=0)] = 0
    repeats: Count = 1
    sampler: str | Sampler = "TPE"
    stop: Stop | None = None
    prune: Prune | bool = False
    models: Literal["front", "all", "none"] = "front"

    @model_validator(mode="after")
    def _points_of_a_grid(self) -> StudySection:
        sampler = self.sampling
        if sampler.points is not None and sampler.name.lower() != "grid":
            raise ValueError(
                f"sampler {sampler.name!r} has no points, which are a grid's: leave them out, or "
                'write { name = "grid", points = 5 }'
            )
        return self

    @property
    def sampling(self) -> Sampler:
        """The sampler with its options."""
        return Sampler(name=self.sampler) if isinstance(self.sampler, str) else self.sampler

    @property
    def pruning(self) -> Prune | None:
        """The pruning with its options, None for none."""
        return Prune() if self.prune is True else self.prune or None


class DataSection(Section):
    """[data]: a maker's name or a table's path, and how rows are split and columns scaled."""

    name: str | None = None
    path: str | None = None
    targets: Count | str | list[str] | None = None
    drop: list[str] = []
    options: dict[str, Any] = {}
    split: str = "blocked"
    folds: Annotated[int, Field(ge=2)] | None = None
    scale_X: bool = True  # noqa: N815 (the file's word)
    scale_y: bool = True

    @model_validator(mode="after")
    def _one_source(self) -> DataSection:
        if (self.name is None) == (self.path is None):
            raise ValueError("give either name (a maker of mtlsk.datasets) or path (a table)")
        if self.path is not None and self.options:
            raise ValueError("options are keyword arguments of a maker: leave them out with path")
        if self.path is not None and self.targets is None:
            raise ValueError("path needs targets: a list of column names, or how many are last")
        return self


class Baselines(Section):
    """[baselines]: trials of what a search is compared with; 0 for none.

    Attributes
    ----------
    scalarization : int or None
        Trials of linear scalarization, as many as the search has unless said.
    equal_weights : int or None
        Trials of equal weights; unless said a quarter of the search's, at least 5.
    single_task : int or None
        Trials of one net a task, K fits each; unless said as many as make the fits those of the
        search, at least 5.
    weights : str
        How weights of the scalarization come about: "search" leaves them to the study's sampler,
        "dirichlet" draws them uniformly from the simplex, "lattice" takes evenly spaced ones.
    """

    scalarization: Annotated[int, Field(ge=0)] | None = None
    equal_weights: Annotated[int, Field(ge=0)] | None = None
    single_task: Annotated[int, Field(ge=0)] | None = None
    weights: Literal["search", "dirichlet", "lattice"] = "search"


class StudyFile(Section):
    """A whole study file.

    Attributes
    ----------
    study, data, baselines : the tables of these names
    estimator : dict
        Keyword arguments of :class:`mtlsk.MultiTaskRegressor`.
    search : dict
        Dunder name -> choices, bounds or ``{}``; see :mod:`mtlsk.search`.
    presets : dict
        Name -> keyword arguments of the estimator that ``[search] preset`` chooses together.
    """

    study: StudySection
    data: DataSection
    estimator: dict[str, Any] = {}
    search: dict[str, Any] = {}
    presets: dict[str, dict[str, Any]] = {}
    baselines: Baselines = Baselines()

    def identity(self) -> dict[str, Any]:
        """Return what makes two files the same study: everything but how many trials."""
        whole = self.model_dump()
        for name in ("trials", "stop", "models"):
            del whole["study"][name]
        whole["baselines"] = {"weights": self.baselines.weights}
        return whole

    def renamed(self, name: str) -> StudyFile:
        """Return the same study under another name.

        Raises
        ------
        StudyError
            For a name that is none, or the one it has.
        """
        if name == self.study.name:
            raise StudyError(f"--fork {name}: the file's own name; give another one")
        raw = self.model_dump()
        return validate({**raw, "study": {**raw["study"], "name": name}}, f"--fork {name}")


def read_study(path: str | Path, *, data: str | None = None) -> StudyFile:
    """Read and validate a study file; ``data`` replaces its name or path by a table's path.

    Raises
    ------
    StudyError
        In one line with the file and the key.
    """
    try:
        text = Path(path).read_bytes().decode()
        raw = tomllib.loads(text)
    except FileNotFoundError:
        near = closest(Path(path).name, (p.name for p in Path(path).parent.glob("*.toml")))
        raise StudyError(
            f"{path}: no such study file{near}; 'mtlsk study init' writes one"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: cannot be read as text: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{path}: not valid TOML: {error}") from None
    if data is not None and isinstance(raw.get("data"), dict):
        raw["data"] = {k: v for k, v in raw["data"].items() if k not in ("name", "options")}
        raw["data"]["path"] = data
    return validate(raw, str(path))


def validate(raw: Mapping[str, Any], where: str) -> StudyFile:
    """Validate a parsed study file; ``where`` names it in messages."""
    try:
        return StudyFile.model_validate(raw)
    except ValidationError as error:
        raise StudyError(f"{where}: {_one_line(error)}") from None


WRITTEN = {
    "objectives": '"task_losses", or a list such as ["mean", "worst"]',
    "sampler": 'a name such as "TPE", or { name = "grid", points = 5 }',
    "prune": "true, or { dominated_by = 3, after = 5 }",
    "stop": "{ hypervolume = 0.01, trials = 20 }",
}
"""What is written for the keys that take more than one kind of value."""

BRANCHES = ("Sampler", "Prune", "Stop", "bool", "int", "str")
"""What a union calls its branches in the place of an error; more have brackets."""


def _one_line(error: ValidationError) -> str:
    """Return the first thing wrong with its key, the closest allowed key and how many more."""
    # a misspelt key explains the missing one better than the other way round, and what is wrong
    # within a table better than that it is one
    first, *others = sorted(
        error.errors(),
        key=lambda e: (e["type"] != "extra_forbidden", not isinstance(e["input"], int | float)),
    )
    place = [str(p) for p in first["loc"] if str(p) not in BRANCHES]
    if first["type"] == "extra_forbidden":
        model: type[BaseModel] = StudyFile
        for part in place[:-1]:
            inner = model.model_fields[part].annotation
            sections = [i for i in (inner, *get_args(inner)) if isinstance(i, type)]
            model = next((i for i in sections if issubclass(i, Section)), model)
        keys = list(model.model_fields)
        what = "key" if len(place) > 1 else "table"
        table = f"[{'.'.join(place[:-1])}] " if len(place) > 1 else ""
        text = (
            f"{table}unknown {what} {place[-1]!r}{closest(place[-1], keys)}; "
            f"allowed: {', '.join(keys)}"
        )
    elif first["type"] == "missing":
        table = ".".join(place[:-1])
        text = f"[{table}] needs {place[-1]!r}" if table else f"the table [{place[-1]}] is missing"
    else:
        message = first["msg"].removeprefix("Value error, ")
        # a union reports each of its branches: the key is what the user wrote
        keys = [p for p in place if not p.startswith(("literal[", "list[", "constrained-"))]
        if len(keys) == 2 and keys[1] in WRITTEN:
            message = f"write {WRITTEN[keys[1]]}"
        table, key = f"[{keys[0]}] " if keys else "", ".".join(keys[1:])
        value = f"{key}={first['input']!r}: " if key else ""
        text = f"{table}{value}{message}"
    # the branches of one union are one thing that is wrong
    others = [e for e in others if [str(p) for p in e["loc"][:2]] != place[:2]]
    return text + (f" (and {len(others)} more)" if others else "")
