"""A study that ran before: its name and storage, from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtlsk.studyfile import StudyFile


def stored_study(folder: Path, storage: str | None) -> tuple[str, str]:
    """Return the name of the study in a results folder and the URL of its storage.

    Raises
    ------
    FileNotFoundError or ValueError
        In one line, if the folder holds no study or its storage is not there.
    """
    from mtlsk.folder import MARKER, read_marker

    marker = folder / MARKER
    if not marker.exists():
        raise FileNotFoundError(
            f"{folder} holds no study ({MARKER} is missing); give a folder that 'mtlsk study run' "
            "wrote, e.g. runs/quickstart"
        )
    url = storage_url(folder, storage)
    name = read_marker(marker).get("name")
    if not isinstance(name, str):
        raise ValueError(f"{marker} names no study; give a folder that 'mtlsk study run' wrote")
    return name, url


def storage_url(folder: Path, storage: str | None) -> str:
    """Return the URL of a storage that is there: the one given, or the folder's own.

    Raises
    ------
    FileNotFoundError
        If it is a file that is missing.
    """
    if storage is None and not (folder / "study.db").exists():
        raise FileNotFoundError(f"{folder} has no study.db; give the --storage of the run")
    url = storage or f"sqlite:///{(folder / 'study.db').resolve()}"
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        raise FileNotFoundError(f"--storage {url}: there is no such file")
    return url


def stored_file(folder: Path, data: str | None) -> StudyFile:
    """Return the study file that a results folder keeps; ``data`` is its table, if it has one.

    Raises
    ------
    ValueError
        In one line, if the study's table is not given, or the folder's marker is damaged.
    """
    from mtlsk.folder import MARKER, read_marker
    from mtlsk.studyfile import StudyError, validate

    stored = read_marker(folder / MARKER)["study"]
    section = {k: v for k, v in stored["data"].items() if k != "sha256" and v is not None}
    if "name" not in section:
        if data is None:
            raise StudyError(f"{folder} does not hold the study's table; give --data, or the FILE")
        section["path"] = data
    kept = {k: v for k, v in stored["study"].items() if v is not None}
    return validate({**stored, "study": kept, "data": section}, str(folder / MARKER))


def check_same_file(folder: Path, file: StudyFile, where: str) -> None:
    """Raise StudyError unless a results folder is that of a study file."""
    import json

    from mtlsk.folder import MARKER, differences, read_marker
    from mtlsk.studyfile import StudyError

    identity = json.loads(json.dumps(file.identity()))
    changed = differences(read_marker(folder / MARKER).get("study"), identity)
    changed = [d for d in changed if d not in ("data.path", "data.sha256")]
    if changed:
        raise StudyError(
            f"{where} is not the study in {folder}: {', '.join(changed[:5])} changed; give the "
            "folder instead, or the --out of that file's run"
        )
