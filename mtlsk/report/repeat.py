"""The study file that trains one trial again, in the pieces that all trials share and its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import tomli_w

from mtlsk.datasets import MAKERS
from mtlsk.outcome import BASELINES, SINGLE_TASK, Results

KEPT = ("objectives", "seed", "repeats")
"""Keys of [study] that decide what a trial's training comes to."""


def repeat_pieces(results: Results) -> dict[str, Any] | None:
    """Return the pieces of the study files, None where the results hold no study file.

    A file is ``[study]``, its name, `study`, then ``[estimator]`` with `fixed` of the trial's study
    and `own` of the trial, each a pair (lines, tables), and `tail`; the command is `command` with
    the file's name in it.
    """
    if not results.file or not results.estimators:
        return None
    study = _plain(results.file.get("study", {}))
    data = {k: v for k, v in _plain(results.file.get("data", {})).items() if k != "sha256"}
    data.pop("path", None)
    name = data.get("name") or results.data_name
    data["name"] = name
    made = name in MAKERS or bool(re.fullmatch(r"[\w.]+:\w+", str(name)))
    baselines = dict.fromkeys(BASELINES, 0)
    # a trial of one net a task is no study of one estimator
    every = {key: e for key, e in results.estimators.items() if key[0] != SINGLE_TASK}
    pieces = {key: _lines(values) for key, values in every.items()}
    fixed = _shared(pieces)
    own = {}
    for (which, number), lines in pieces.items():
        mine = [text for key, text in lines.items() if key not in fixed[which]]
        own[f"{which} {number}"] = _split(mine)
    kept = {k: v for k, v in study.items() if k in KEPT}
    return {
        "study": _toml({"trials": 1, **kept}),
        "fixed": {which: _split(lines.values()) for which, lines in fixed.items()},
        "own": own,
        "tail": "\n"
        + _toml({"data": data})
        + f"# sha256 {results.data_sha256}\n\n"
        + _toml({"baselines": baselines}),
        "command": "mtlsk study run {file}" + ("" if made else " --data TABLE"),
        "table": None if made else str(name),
    }


def _plain(value: Any) -> Any:
    """Return what TOML can hold: Python's own numbers, and no None, which TOML leaves out."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def _lines(estimator: Mapping[str, Any]) -> dict[str, str]:
    """Return the TOML text of each keyword argument."""
    return {k: _argument(k, _Value(v)) for k, v in _plain(estimator).items()}


class _Value:
    """A value that hashes by its text, so that what most trials share is written once."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.text = repr(value)

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Value) and other.text == self.text


@lru_cache(maxsize=4096)
def _argument(key: str, value: _Value) -> str:
    text = _toml({"estimator": {key: value.value}})
    return text.removeprefix("[estimator]\n").strip("\n")


def _toml(table: Mapping[str, Any]) -> str:
    """Write a table, with lists of plain values on one line each."""

    def on_one_line(match: re.Match[str]) -> str:
        return "[" + ", ".join(part.strip(" ,") for part in match[1].strip().splitlines()) + "]"

    return re.sub(r"\[\n((?:    [^\n\[\]{]+\n)+)\]", on_one_line, tomli_w.dumps(table))


def _shared(pieces: Mapping[tuple[str, int], dict[str, str]]) -> dict[str, dict[str, str]]:
    """Return for each study the arguments that all of its trials have alike."""
    shared: dict[str, dict[str, str]] = {}
    for (which, _), lines in pieces.items():
        if which not in shared:
            shared[which] = dict(lines)
        for key in [k for k, text in shared[which].items() if lines.get(k) != text]:
            del shared[which][key]
    return shared


def _split(texts: Any) -> tuple[str, str]:
    """Return lines first, tables after: in TOML a table ends what stands above it."""
    every = list(texts)
    lines = [t for t in every if not t.startswith("[")]
    return "\n".join(lines), "\n\n".join(t for t in every if t.startswith("["))
