"""A study that ran before: its name and storage, from its folder."""

from __future__ import annotations

from pathlib import Path


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
    url = storage
    if url is None:
        if not (folder / "study.db").exists():
            raise FileNotFoundError(f"{folder} has no study.db; give the --storage of the run")
        url = f"sqlite:///{(folder / 'study.db').resolve()}"
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        raise FileNotFoundError(f"--storage {url}: there is no such file")
    name = read_marker(marker).get("name")
    if not isinstance(name, str):
        raise ValueError(f"{marker} names no study; give a folder that 'mtlsk study run' wrote")
    return name, url
