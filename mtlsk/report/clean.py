"""Free text of results without paths and host names, and every column that a report reads."""

from __future__ import annotations

import re
import socket
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from mtlsk.outcome import Results


def cleaned(results: Results) -> Results:
    """Take paths and the host's name out of free text; give the trials every column they need."""
    trials = results.trials.reset_index(drop=True)
    numbers = ["number", "seconds", *results.columns("validation"), *results.columns("test")]
    for name in ["study", "state", "reason", *numbers]:
        if name not in trials:
            trials[name] = np.nan if name in numbers else ""
    for name in trials.columns.drop(["study", "state"]):
        if not pd.api.types.is_numeric_dtype(trials[name]):
            values = [clean(v) if isinstance(v, str) else v for v in trials[name]]
            trials[name] = pd.Series(values, index=trials.index, dtype=object)
    return replace(
        results,
        name=clean(results.name),
        data_name=clean(results.data_name),
        notes=[clean(note) for note in results.notes],
        trials=trials,
        file=deeply(results.file),
        estimators={key: deeply(value) for key, value in results.estimators.items()},
    )


def clean(text: str) -> str:
    """Take paths and the name of this host out of a text."""
    # Two or more components after a slash or a drive; addresses (scheme://) stay.
    text = re.sub(r"(?<![\w/.])(?!//)(?:[A-Za-z]:)?(?:[/\\][\w.+~@-]+){2,}[/\\]?", "<path>", text)
    host = socket.gethostname()
    for name in {host, host.partition(".")[0]} - {"", "localhost"}:
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "<host>", text)
    return text


def deeply(value: Any) -> Any:
    """Return nested tables and lists with all texts in them cleaned."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {k: deeply(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [deeply(v) for v in value]
    return value
