"""A text as rows of characters and several questions about what comes next."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils import Bunch

from ._naming import did_you_mean, listing
from ._read import read_bytes, unpacked

__all__ = ["TEXT_TASKS", "load_text"]

UNKNOWN = "\ufffd"  # stands for the characters that are too rare
VOWELS = frozenset("aeiouyAEIOUY")

TEXT_TASKS: dict[str, Callable[[str], int] | None] = {
    "next": None,
    "next_but_one": None,
    "vowel": lambda c: c in VOWELS,
    "space": str.isspace,
    "case": lambda c: 2 if c.isupper() else int(c.islower()),
}
"""Names of the tasks; of the next character where there is a function of it."""

AHEAD = 2  # characters after a context that tasks look at


def load_text(
    path: str | os.PathLike[str],
    *,
    context: int = 32,
    tasks: Sequence[str] = tuple(TEXT_TASKS),
    stride: int = 1,
    min_count: int = 1,
    test_size: float = 0.25,
) -> Bunch:
    r"""Read a text file as rows of characters with several classes each to predict.

    Row i holds the codes of characters i to i + context - 1; codes are places in the vocabulary,
    the sorted characters of the whole text. Line ends are ``\n``. Neighbouring rows overlap, so
    the end of the text is the test part, and rows that lie across the border are left out.

    Parameters
    ----------
    path : path
        A text file in UTF-8, with or without a byte order mark; ``.gz`` is unpacked.
    context : int
        T, characters in a row, at least 1.
    tasks : sequence of str
        ``"next"`` and ``"next_but_one"``: the code of the first and the second character after the
        row; of the first also ``"vowel"`` (one of aeiouy) and ``"space"``, 0 or 1, and ``"case"``,
        0 for what is no letter, 1 for lower and 2 for upper case.
    stride : int
        Characters from the start of one row to that of the next.
    min_count : int
        Characters that come less often share one code, that of U+FFFD: with few of a kind one
        part of the text may lack what another has.
    test_size : float
        Share of the text that is the test part, in [0, 1).

    Returns
    -------
    Bunch
        ``data`` (n, T) and ``target`` (n, K) DataFrames of int64; ``split`` (n,) of "train" and
        "test"; ``vocabulary``, a str whose place i is code i; ``feature_names``, ``target_names``;
        ``name`` of the file, without its folder; ``sha256`` of the file's bytes; ``DESCR``.

    Raises
    ------
    FileNotFoundError
        Where there is no such file.
    ValueError
        For a file that is empty, not UTF-8, or too short for a row of each part, and for
        parameters that are not allowed.
    """
    for name, value in {"context": context, "stride": stride, "min_count": min_count}.items():
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} is {value!r}; give an integer of at least 1")
    if not 0 <= test_size < 1:
        raise ValueError(f"test_size is {test_size!r}; give a share from 0 to below 1")
    names = _tasks(tasks)
    label, content = Path(path).name, read_bytes(path)
    text = _text(unpacked(content, label), label)
    vocabulary = _vocabulary(text, min_count)
    place = {character: i for i, character in enumerate(vocabulary)}
    unknown = place.get(UNKNOWN, 0)
    codes = np.array([place.get(character, unknown) for character in text], dtype=np.int64)

    border = round(len(text) * (1 - test_size))
    starts, split = _rows(len(text), border, context + AHEAD, stride, test_size > 0, label)
    columns = [f"character_{i - context}" for i in range(context)]  # -1 is the last
    windows = np.lib.stride_tricks.sliding_window_view(codes, context)[starts]
    following = starts + context
    answers: dict[str, NDArray[np.int64]] = {}
    for name in names:
        of_character = TEXT_TASKS[name]
        if of_character is None:
            answers[name] = codes[following + (name == "next_but_one")]
        else:
            classes = {c: int(of_character(c)) for c in set(text)}
            answers[name] = np.array([classes[text[i]] for i in following], dtype=np.int64)
    return Bunch(
        data=pd.DataFrame(windows, columns=columns),
        target=pd.DataFrame(answers, columns=names),
        split=split,
        vocabulary=vocabulary,
        feature_names=columns,
        target_names=names,
        name=label,
        sha256=hashlib.sha256(content).hexdigest(),
        DESCR=f"{label}: {len(text)} characters of {len(vocabulary)} kinds, {len(starts)} rows "
        f"of {context}, {len(names)} tasks.",
    )


def _tasks(tasks: Sequence[str]) -> list[str]:
    names = [tasks] if isinstance(tasks, str) else list(tasks)
    for name in names:
        if name not in TEXT_TASKS:
            raise ValueError(
                f"tasks names {name!r}, which is none of {listing(TEXT_TASKS)}"
                f"{did_you_mean(str(name), TEXT_TASKS)}"
            )
    if not names or len(set(names)) < len(names):
        raise ValueError(f"tasks is {names}; name one task or more, each once")
    return names


def _text(content: bytes, label: str) -> str:
    if not content:
        raise ValueError(f"{label} is empty (0 bytes); write or fetch it again")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{label} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _vocabulary(text: str, min_count: int) -> str:
    counts = Counter(text)
    kept = {character for character, count in counts.items() if count >= min_count}
    return "".join(sorted(kept if len(kept) == len(counts) else kept | {UNKNOWN}))


def _rows(
    length: int, border: int, window: int, stride: int, tested: bool, label: str
) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """Return where rows start and which part each is of; ValueError where a part has none."""
    starts = np.arange(0, length - window + 1, stride)
    train, test = starts + window <= border, starts >= border
    if not train.any() or (tested and not test.any()):
        parts = "the training and the test part" if tested else "the text"
        raise ValueError(
            f"{label} has {length} characters, too few for a row of {window} in {parts}; "
            "give a longer text or a smaller context"
        )
    kept = train | test
    return starts[kept], np.where(train[kept], "train", "test")
