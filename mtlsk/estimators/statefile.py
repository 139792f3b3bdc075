"""Files of a net's state: written whole or not at all, and read without running code."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

STAMP = "mtlsk.stamp"
"""Where a file says of which moment it is: an entry that torch's own loaders pass over."""


def write(target: Any, content: bytes | str) -> None:
    """Write to a path, so that it holds either the old or the new content, or to an open file.

    The new content is on the disk under another name before it takes the old one's place: a
    process that is killed here leaves the old file as it was, and at most a hidden one beside it.
    """
    if hasattr(target, "write"):
        target.write(content)
        return
    path = Path(target)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def in_bytes(state: Any) -> bytes:
    """Return a state as ``torch.save`` writes it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def plain(value: Any, where: str = "") -> Any:
    """Return a state as tensors, numbers, text, lists, tuples and dicts, numpy's numbers as ours.

    Raises
    ------
    TypeError
        For anything else, naming the place: it could not be read without running code.
    """
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        items = [plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        return {key: plain(v, f"{where}.{key}" if where else str(key)) for key, v in value.items()}
    raise TypeError(
        f"{where} holds a {type(value).__name__}, which a file of states cannot; keep tensors, "
        "numbers, text, lists and dicts"
    )


def on_cpu(value: Any) -> Any:
    """Return a plain state with all its tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {key: on_cpu(v) for key, v in value.items()}
    return type(value)(map(on_cpu, value)) if type(value) in (list, tuple) else value


def rows_to_json(rows: Any) -> str:
    """Return the rows of a history as JSON; numpy's numbers as Python's."""
    return json.dumps(rows, default=_number)


def _number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"the history holds a {type(value).__name__}, which JSON cannot")


def name_of(source: Any) -> str:
    """Return what to call a path or an open file in a message."""
    return str(getattr(source, "name", "the file") if hasattr(source, "read") else source)


def read(source: Any, **options: Any) -> Any:
    """Return what ``torch.save`` wrote to a path or an open file, on the CPU.

    What loads it takes it to its own device; memories of numbers a task stay on the CPU.

    Raises
    ------
    FileNotFoundError
        As it comes: skorch's ``LoadInitState`` takes it for a first run.
    ValueError
        In one line, for a file that is damaged or holds other things.
    """
    try:
        return torch.load(source, **{"map_location": "cpu", **options})
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Exception as error:
        safe = options.get("weights_only", False)
        more = safe and "eights only" in str(error)
        why = "it holds more than tensors and numbers" if more else type(error).__name__
        raise ValueError(
            f"{name_of(source)} is damaged or no file that save_params wrote ({why}); "
            "give another file, or train anew"
        ) from error


def read_tensors(source: Any) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file; errors as those of :func:`read`."""
    from safetensors.torch import load

    content = source.read() if hasattr(source, "read") else Path(source).read_bytes()
    try:
        tensors: dict[str, Tensor] = load(content)
        return tensors
    except Exception as error:
        raise ValueError(
            f"{name_of(source)} is damaged or no safetensors file; give another file"
        ) from error


def read_rows(source: Any) -> list[dict[str, Any]]:
    """Return the rows of a history that was saved as JSON; errors as those of :func:`read`."""
    try:
        text = source.read() if hasattr(source, "read") else Path(source).read_text()
        rows = json.loads(text)
    except ValueError as error:
        raise ValueError(
            f"{name_of(source)} is damaged or no history ({type(error).__name__}); "
            "give another file, or leave it out"
        ) from error
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        raise ValueError(f"{name_of(source)} is no history, which is a list of rows; leave it out")
    return rows
