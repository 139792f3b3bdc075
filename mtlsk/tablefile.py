"""Files of table models: written whole or not at all, and read with a word on trust and versions.

A pickle (``.pkl``, ``.joblib``) runs code of the file's when it is opened: open only your own. A
``.skops`` file is opened without running any; it may hold the types of :data:`TRUSTED` alone, and
those the reader names.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import joblib

from mtlsk.component import closest
from mtlsk.estimators import SKOPS_TRUSTED
from mtlsk.estimators.statefile import write
from mtlsk.machine import versions

PICKLES = (".pkl", ".joblib")
SUFFIXES = (*PICKLES, ".skops")
TRUSTED = [
    *SKOPS_TRUSTED,
    "mtlsk.preparation.Preparation",
    "mtlsk.tablemodel.TableModel",
    "numpy.dtype",
]
"""Types in the ``.skops`` file of a table model that skops does not know and may trust."""

MATTER = ("mtlsk", "torch", "scikit-learn")
"""Libraries whose version may change what a stored model predicts."""

Model = TypeVar("Model")


class ModelWarning(UserWarning):
    """A model was fitted with other versions of the libraries."""


def check_suffix(path: str | Path) -> str:
    """Return the suffix of a model's file, one of ``SUFFIXES``; ValueError for any other."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"{path}: the suffix {suffix!r} is of no model file{closest(suffix, SUFFIXES)}; "
            f"use {', '.join(SUFFIXES)}"
        )
    return suffix


def save_model(model: Any, path: str | Path) -> None:
    """Write a model to a file by its suffix; the file is either as it was or whole.

    Raises
    ------
    ValueError
        For a suffix that is none of ``SUFFIXES``, or a model that no ``.skops`` file can hold.
    OSError
        If the file cannot be written.
    """
    if check_suffix(path) in PICKLES:
        buffer = io.BytesIO()
        joblib.dump(model, buffer)
        content = buffer.getvalue()
    else:
        import skops.io

        try:
            content = skops.io.dumps(model)
        except TypeError as error:
            raise ValueError(f"{path}: {error}") from None
    write(path, content)


def load_model(path: str | Path, kind: type[Model], trusted: Sequence[str] = ()) -> Model:
    """Read a model of a class from a file by its suffix.

    Raises
    ------
    FileNotFoundError, OSError or ValueError
        In one line, for a file that cannot be read, is damaged, holds something else, or types
        that are not trusted.
    """
    suffix = check_suffix(path)
    content = _bytes(Path(path))
    with warnings.catch_warnings():
        # each estimator in it would say so by itself
        warnings.filterwarnings("ignore", message="Trying to unpickle", category=UserWarning)
        try:
            model = _unskops(content, path, trusted) if suffix == ".skops" else _unpickle(content)
        except ModuleNotFoundError as error:
            if error.name == "skops":
                raise
            raise ValueError(
                f"{path} needs the module {error.name!r}, which is not here; stand beside it, or "
                "install it"
            ) from error
        except UntrustedError:
            raise
        except Exception as error:
            raise ValueError(
                f"{path} is damaged or no model that mtlsk wrote ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:120]}); write it again with 'mtlsk fit'"
            ) from error
    if not isinstance(model, kind):
        raise ValueError(
            f"{path} holds a {type(model).__name__} and no {kind.__name__}; "
            "'mtlsk fit DATA --save' and 'mtlsk study best --save' write one"
        )
    about: Mapping[str, Any] = getattr(model, "about", {})
    changed = other_versions(about.get("versions", {}))
    if changed:
        text = f"{path} was fitted with {changed}; its predictions may differ"
        warnings.warn(text, ModelWarning, stacklevel=3)
    return model


class UntrustedError(ValueError):
    """A file holds types that nobody said to trust."""


def other_versions(then: Mapping[str, str]) -> str:
    """Return "torch 2.4 (here 2.13)", ... for libraries that matter and differ from those here."""
    now = versions()
    # 2.13.0+cpu and 2.13.0 are one version, built for two kinds of machine
    plain = [(n, then[n].partition("+")[0], now[n].partition("+")[0]) for n in MATTER if n in then]
    differ = [name for name, old, new in plain if old != new]
    return ", ".join(f"{name} {then[name]} (here {now[name]})" for name in differ)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise FileNotFoundError(
            f"there is no file {path}{closest(path.name, names)}; 'mtlsk fit DATA --save' and "
            "'mtlsk study best --save' write models"
        ) from None
    except OSError as error:
        raise OSError(f"{path} cannot be read ({error.strerror}); give a model's file") from None


def _unpickle(content: bytes) -> Any:
    return joblib.load(io.BytesIO(content))


def _unskops(content: bytes, path: str | Path, trusted: Sequence[str]) -> Any:
    import skops.io

    allowed = [*TRUSTED, *trusted]
    unknown = sorted(set(skops.io.get_untrusted_types(data=content)) - set(allowed))
    if unknown:
        raise UntrustedError(
            f"{path} holds types that are not trusted: {', '.join(unknown)}; if you trust them "
            "name them: TableModel.load(path, trusted=[...])"
        )
    return skops.io.loads(content, trusted=allowed)


def check_writable(path: str | Path, suffixes: Sequence[str] = SUFFIXES) -> None:
    """Raise in one line, before anything is computed, where a file cannot be written."""
    file = Path(path)
    if file.suffix.lower() not in suffixes:
        raise ValueError(
            f"{path}: the suffix {file.suffix!r} is not allowed; use {', '.join(suffixes)}"
        )
    if file.is_dir():
        raise ValueError(f"{path} is a folder; give a file")
    folder = file.parent
    if not folder.is_dir():
        raise ValueError(f"{path}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{path}: the folder {folder} cannot be written; choose another")
