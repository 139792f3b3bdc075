"""Files are whole, hold what can be read without running code, and say what they are."""

import collections
import io
import os

import numpy as np
import pytest
import torch
from torch import nn

from mtlsk.estimators.statefile import (
    in_bytes,
    name_of,
    plain,
    read,
    read_rows,
    rows_to_json,
    write,
)


def test_a_file_is_the_old_or_the_new_one(tmp_path, monkeypatch):
    file = tmp_path / "a.pt"
    write(file, b"old")
    seen = []
    replace = os.replace

    def watching(source, target):
        seen.append((file.read_bytes(), source.read_bytes()))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", watching)
    with pytest.raises(KeyboardInterrupt):
        write(file, b"new")
    assert seen == [(b"old", b"new")]
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]
    monkeypatch.setattr(os, "replace", replace)
    write(str(file), "text")
    assert file.read_text() == "text"


def test_plain_states():
    value = {
        "a": [np.float64(0.1), np.int64(3), (1, None, "x", True)],
        "b": collections.OrderedDict(c=nn.Parameter(torch.ones(2))),
    }
    found = plain(value)
    assert type(found["a"][0]) is float
    assert type(found["a"][1]) is int
    assert not found["b"]["c"].requires_grad
    torch.load(io.BytesIO(in_bytes(found)), weights_only=True)
    for bad in ({1}, np.zeros(2), object(), len):
        with pytest.raises(TypeError, match=r"memory\.x\[1\] holds a .*keep tensors"):
            plain({"x": [0, bad]}, "memory")


def test_reading(tmp_path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nowhere")
    with pytest.raises(IsADirectoryError):
        read(tmp_path)
    (tmp_path / "a").write_text("[1")
    with pytest.raises(ValueError, match="a is damaged or no history"):
        read_rows(tmp_path / "a")
    (tmp_path / "a").write_text('{"b": 1}')
    with pytest.raises(ValueError, match="is no history"):
        read_rows(tmp_path / "a")
    rows = [{"epoch": 1, "loss": float("nan"), "x": 0.1 + 0.2}]
    (tmp_path / "a").write_text(rows_to_json(rows))
    assert repr(read_rows(tmp_path / "a")) == repr(rows)
    with pytest.raises(TypeError, match="holds a set"):
        rows_to_json([{"x": {1}}])
    assert name_of(io.BytesIO()) == "the file"
    assert name_of(tmp_path / "a") == str(tmp_path / "a")
