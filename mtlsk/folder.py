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

WIDTH, SHOWN = 60, 5
"""Characters of a value, and how many values, that a message shows."""


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that it is either the old or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # or a machine that stops may leave an empty file of that name
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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


def changes(old: Any, new: Any) -> list[str]:
    """Return "key: old -> new" of each dotted key at which two nested dicts differ."""
    return [
        f"{key}: {_shown(_at(old, key))} -> {_shown(_at(new, key))}"
        for key in differences(old, new)
    ]


def _at(nested: Any, key: str) -> Any:
    """Return what stands at a dotted key, whose parts may have dots themselves."""
    if not isinstance(nested, dict):
        return nested
    for name, inner in nested.items():
        if key == name:
            return inner
        if key.startswith(f"{name}.") and isinstance(inner, dict):
            return _at(inner, key.removeprefix(f"{name}."))
    return None


def _shown(value: Any) -> str:
    """Return a value as a study file writes it, if it is short."""
    if value is None:
        return "(none)"
    if isinstance(value, dict):
        text = "{" + ", ".join(f"{k}: {_shown(v)}" for k, v in value.items()) + "}"
    else:
        text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."


def check_same(stored: Any, identity: dict[str, Any], where: str) -> None:
    """Raise StudyError unless what is stored is this study, written by this version."""
    if not isinstance(stored, dict) or stored.get("schema") != SCHEMA:
        found = stored.get("schema") if isinstance(stored, dict) else None
        raise StudyError(
            f"{where}: written by another version of mtlsk (schema {found}, this one writes "
            f"{SCHEMA}); use another --out or --storage, or that version"
        )
    # through JSON, as what is stored went
    changed = changes(stored["study"], json.loads(json.dumps(identity)))
    if changed:
        more = f"; and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        raise StudyError(
            f"{where} holds another study of that name, changed are {'; '.join(changed[:SHOWN])}"
            f"{more}; --fork NAME runs the changed file as a study of its own beside it"
        )


def check_folder(out: Path, name: str, identity: dict[str, Any]) -> None:
    """Raise StudyError for a results folder that holds another study or other files.

    A marker that is torn is left to what the storage says.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise StudyError(f"--out {out} is a file; give a folder")
    marker = out / MARKER
    if not marker.exists():
        if any(not p.name.startswith((".", "study.db")) for p in out.iterdir()):
            raise StudyError(f"--out {out} holds other files and no study; give another folder")
        return
    if is_torn(marker):
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
        raise StudyError(
            f"{marker} cannot be read ({error}); 'mtlsk study run' with the study's file mends it"
        ) from None
    return stored if isinstance(stored, dict) else {}


def is_torn(marker: Path) -> bool:
    """Say whether a folder's marker is there but not whole."""
    try:
        return marker.exists() and not isinstance(json.loads(marker.read_text()), dict)
    except ValueError:
        return True
