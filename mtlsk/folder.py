"""What a results folder and a storage say of the study they hold, and whether it is this one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mtlsk.studyfile import StudyError
from mtlsk.trials import SCHEMA

MARKER = "study.json"
"""The file that says which study a folder holds."""


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that it is either the old or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)


def differences(old: Any, new: Any, place: str = "") -> list[str]:
    """Return the dotted keys at which two nested dicts differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(set(old) | set(new))
        return [
            d
            for k in keys
            for d in differences(old.get(k), new.get(k), f"{place}.{k}" if place else k)
        ]
    return [] if old == new else [place]


def check_same(stored: Any, identity: dict[str, Any], where: str) -> None:
    """Raise StudyError unless what is stored is this study, written by this version."""
    if not isinstance(stored, dict) or stored.get("schema") != SCHEMA:
        found = stored.get("schema") if isinstance(stored, dict) else None
        raise StudyError(
            f"{where}: written by another version of mtlsk (schema {found}, this one writes "
            f"{SCHEMA}); use another --out or --storage, or that version"
        )
    # through JSON, as what is stored went
    changed = differences(stored["study"], json.loads(json.dumps(identity)))
    if changed:
        raise StudyError(
            f"{where} holds another study of that name: {', '.join(changed[:5])} changed; "
            "give another --out or --storage, or rename it in [study]"
        )


def check_folder(out: Path, name: str, identity: dict[str, Any]) -> None:
    """Raise StudyError for a results folder that holds another study or other files."""
    if not out.exists():
        return
    if not out.is_dir():
        raise StudyError(f"--out {out} is a file; give a folder")
    marker = out / MARKER
    if not marker.exists():
        if any(not p.name.startswith((".", "study.db")) for p in out.iterdir()):
            raise StudyError(f"--out {out} holds other files and no study; give another folder")
        return
    stored = read_marker(marker)
    if stored.get("name") != name:
        raise StudyError(
            f"--out {out} holds another study, {stored.get('name')!r}; give another folder"
        )
    check_same(stored, identity, f"--out {out}")


def read_marker(marker: Path) -> dict[str, Any]:
    """Read a folder's marker."""
    try:
        stored = json.loads(marker.read_text())
    except (OSError, ValueError) as error:
        raise StudyError(f"{marker} cannot be read ({error}); give another folder") from None
    return stored if isinstance(stored, dict) else {}
