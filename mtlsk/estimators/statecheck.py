"""Whether states belong together and to a net: one clear line for what does not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from skorch.history import History
from torch import Tensor, nn

from mtlsk.estimators.statefile import STAMP, name_of
from mtlsk.modules import Task

VERSION = 1
"""Of what a file says about the training."""

WHOLE = ("optimizer", "training")
"""Parts whose file holds the whole training."""


def parts_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return part -> file of arguments ``f_part``; ``f_params`` is the module.

    TypeError for a name that does not begin with ``f_``, and for one part under two names.
    """
    for name in given:
        if not name.startswith("f_"):
            raise TypeError(
                f"unexpected argument {name!r}; files are named f_training, f_params, "
                "f_optimizer, f_history, f_aggregator, f_controller"
            )
    parts = {name[2:]: file for name, file in given.items() if file is not None}
    if "params" in parts and "module" in parts:
        raise TypeError("f_params and f_module are the same; give one of them")
    return {"module" if name == "params" else name: file for name, file in parts.items()}


def files_of(checkpoint: Any, net: Any, rows: list[dict[str, Any]] | None) -> dict[str, Any]:
    """Return the arguments ``f_part`` of a skorch ``Checkpoint``, less history and pickle.

    Names of files may be made of the last row of the history: that of ``rows``, if there are any.

    Raises
    ------
    FileNotFoundError
        Where names need a history and there is none.
    """
    own = net.history_
    try:
        net.history_ = own if rows is None else History(rows)
        files: dict[str, Any] = checkpoint.get_formatted_files(net)
    except IndexError:  # there is no row
        files = checkpoint._f_kwargs()
        for name, file in files.items():
            if isinstance(file, str) and "{" in file:
                raise FileNotFoundError(f"no checkpoint in {checkpoint.dirname!r}") from None
            if isinstance(file, str):
                files[name] = os.path.join(checkpoint.dirname, checkpoint.fn_prefix + file)
    finally:
        net.history_ = own
    return {**files, "f_history": None, "f_pickle": None}


def torn(
    sources: Mapping[str, Any],
    states: Mapping[str, Any],
    training: Mapping[str, Any] | None,
    rows: list[dict[str, Any]] | None,
) -> str:
    """Return in words which files are of different moments, or "" where all are of one."""
    stamps: dict[str, Any] = {}
    for part, state in states.items():
        stamp = getattr(state, "_metadata", state).get(STAMP) if part not in WHOLE else training
        if stamp is not None:
            stamps[name_of(sources[part])] = [stamp[n] for n in ("epoch", "step", "seed")]
    if not stamps:
        return ""
    (first, one), *others = stamps.items()
    for name, other in others:
        for i, what in enumerate(("epoch", "step")):
            if other[i] != one[i]:
                return f"{first} is of {what} {one[i]}, {name} of {what} {other[i]}"
        if other != one:
            return f"{first} and {name} are of different trainings"
    if rows is not None and len(rows) != one[0]:
        return f"{first} is of epoch {one[0]}, the history of epoch {len(rows)}"
    return ""


def check_state(part: str, state: Any, source: Any) -> None:
    """Raise ValueError for something that is no state of this part at all."""
    if not isinstance(state, Mapping):
        raise ValueError(
            f"{name_of(source)} holds a {type(state).__name__}, no state that save_params wrote"
        )
    if part in WHOLE and not {"state", "param_groups"} <= set(state):
        raise ValueError(f"{name_of(source)} holds no optimizer; is it the file of f_params?")
    training = state.get(STAMP) if part in WHOLE else None
    if part == "training" and training is None:
        raise ValueError(
            f"{name_of(source)} holds an optimizer alone, not a training; give it as f_optimizer"
        )
    if training is not None and training["version"] != VERSION:
        raise ValueError(
            f"{name_of(source)} was written by another version of mtlsk (its states have version "
            f"{training['version']}, this one reads {VERSION}); use that version"
        )


def check_modules(
    own: Mapping[str, nn.Module], saved: Mapping[str, Any], sources: Mapping[str, Any], file: Any
) -> None:
    """Raise ValueError for a module's state whose names or shapes are not those of the net's own.

    Parameters
    ----------
    sources : mapping
        Part -> its file; where it has none the state comes from ``file``.
    """
    for name, module in own.items():
        if name in saved and (words := difference(saved[name], module.state_dict())):
            raise ValueError(
                f"{name_of(sources.get(name, file))} is of another module: {words}; give this "
                "net the parameters and the shapes of data of the one that was saved"
            )


def difference(saved: Mapping[str, Any], present: Mapping[str, Any]) -> str:
    """Return in words the first thing in which the shapes of two modules' states differ, or ""."""
    for name, value in present.items():
        if name not in saved:
            return f"it has no {name}"
        there, here = (
            tuple(v.shape) if isinstance(v, Tensor) else None for v in (saved[name], value)
        )
        if there != here:
            return f"{name} is {there} there and {here} here"
    more = [name for name in saved if name not in present]
    return f"it has {more[0]} too" if more else ""


def check_training(net: Any, training: Mapping[str, Any], source: Any) -> None:
    """Raise ValueError for the training of a net with other tasks or other components."""
    file, tasks, here = name_of(source), training["tasks"], list(net.task_names_)
    if len(tasks) != len(here):
        raise ValueError(
            f"{file} is of {len(tasks)} tasks ({', '.join(tasks)}), "
            f"and this net has {len(here)} ({', '.join(here)})"
        )
    if tasks != here and sorted(tasks) == sorted(here):
        raise ValueError(
            f"{file} has the tasks in another order, {', '.join(tasks)}, than this net, "
            f"{', '.join(here)}; give y in that order"
        )
    for saved, task in zip(training["kinds"], net.tasks_, strict=True):
        if saved != kind_of(task):
            raise ValueError(
                f"{file} has task {task.name!r} as {saved}, this net as {kind_of(task)}; give it "
                "the y, or the classes, of the net that was saved"
            )
    for owner, name in training["classes"].items():
        own = class_name(getattr(net, f"{owner}_"))
        if own != name:
            raise ValueError(
                f"{file} is of a net with {owner}={name!r}, this one has {own!r}; load it into "
                f"one with {owner}={name!r}, then set_params({owner}={own!r})"
            )


def kind_of(task: Task) -> str:
    """Return what a task is, in words: its kind and its classes."""
    classes = [] if task.classes is None else task.classes.tolist()
    return task.kind + (f" ({', '.join(map(repr, classes))})" if classes else "")


def check_groups(optimizer: Any, state: Mapping[str, Any], source: Any) -> None:
    """Raise ValueError for the state of an optimizer with groups of other sizes."""
    groups = state["param_groups"], optimizer.param_groups
    there, here = ([len(group["params"]) for group in some] for some in groups)
    if there != here:
        raise ValueError(
            f"{name_of(source)} is of an optimizer whose groups have {there} tensors, here they "
            f"have {here}; give this net the parameters of the one that was saved"
        )


def class_name(component: Any) -> str:
    """Return the name of a component's class, "none" for None."""
    return "none" if component is None else type(component).__name__
