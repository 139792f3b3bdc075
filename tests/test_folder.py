"""Whose a folder is: changed files, forks, torn markers and databases."""

import json
import os

import pytest

from mtlsk import Study
from mtlsk.folder import MARKER, changes, differences, write_atomically
from mtlsk.studyfile import StudyError

FILE = """
[study]
name = "small"
trials = 3
[data]
name = "arm"
options = {{ n_samples = 200, random_state = 0 }}
split = "random"
[estimator]
hidden_layer_sizes = [8]
max_epochs = {epochs}
[search]
aggregator = ["MGDA"]
lr = {lr}
"""
LR = "{ low = 1e-3, high = 3e-2, log = true }"


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Open a study of a file as it then is: (options) -> its marker."""
    monkeypatch.chdir(tmp_path)
    opened = []

    def open_one(epochs=2, lr=LR, **options):
        path = tmp_path / "small.toml"
        path.write_text(FILE.format(epochs=epochs, lr=lr))
        study = Study.from_toml(path, **options)
        storage, studies = study.open()
        opened.append(storage)
        assert studies
        return json.loads((study.out / MARKER).read_text())

    yield open_one
    for storage in opened:
        storage.remove_session()
        storage.engine.dispose()


def test_a_changed_file_is_refused_with_what_changed_and_what_to_do(made):
    made()
    with pytest.raises(StudyError) as caught:
        made(epochs=3, lr="[1e-3, 1e-2]")
    line = str(caught.value)
    assert "estimator.max_epochs: 2 -> 3; " in line
    assert "search.lr: {low: 0.001, high: 0.03, log: true} -> [0.001, 0.01]; " in line
    assert "--fork NAME" in line
    assert "\n" not in line


def test_a_fork_runs_beside_the_study_it_comes_from(made, tmp_path):
    before = made()
    forked = made(epochs=3, fork="longer")
    assert "forked_from" not in before
    assert (forked["name"], forked["forked_from"]) == ("longer", "small")
    assert forked["study"]["estimator"]["max_epochs"] == 3
    assert (tmp_path / "runs" / "longer" / "study.db").exists()
    assert made() == before  # which goes on as it was
    assert made(epochs=3, fork="longer") == forked
    with pytest.raises(StudyError, match="max_epochs: 3 -> 4"):
        made(epochs=4, fork="longer")


def test_a_fork_in_one_storage_is_a_study_of_its_own(made, tmp_path):
    url = f"sqlite:///{tmp_path}/one.db"
    before = made(storage=url)
    assert made(epochs=3, storage=url, fork="longer")["forked_from"] == "small"
    assert made(storage=url) == before


@pytest.mark.parametrize(
    ("name", "words"), [("small", "the file's own name"), ("a/b", "--fork a/b: .*name='a/b'")]
)
def test_a_fork_needs_a_name_of_its_own(made, name, words):
    with pytest.raises(StudyError, match=words):
        made(fork=name)


@pytest.mark.parametrize("text", ["", '{"schema": 2, "na', "[]", "\0" * 10])
def test_a_torn_marker_is_mended_from_what_the_storage_says(made, tmp_path, text):
    before = made()
    marker = tmp_path / "runs" / "small" / MARKER
    (marker.parent / "report.md").write_text("of before")
    marker.write_text(text)
    assert made() == before
    marker.write_text(text)
    with pytest.raises(StudyError, match="max_epochs: 2 -> 3"):
        made(epochs=3)
    assert marker.read_text() == text


@pytest.mark.parametrize(("text", "words"), [("", "is torn and"), (None, "says it ran, but")])
def test_a_folder_whose_study_the_storage_does_not_know_is_left_alone(made, tmp_path, text, words):
    made()
    marker = tmp_path / "runs" / "small" / MARKER
    if text is not None:
        marker.write_text(text)
    before = marker.read_text()
    with pytest.raises(StudyError, match=f"{words} the storage knows no study 'small'"):
        made(storage=f"sqlite:///{tmp_path}/another.db")
    assert marker.read_text() == before


def test_a_torn_database_is_one_line_and_stays_as_it_is(made, tmp_path):
    made()
    database = tmp_path / "runs" / "small" / "study.db"
    torn = database.read_bytes()[:5000] + b"torn" * 5000
    database.write_bytes(torn)
    with pytest.raises(StudyError, match="the database is damaged") as caught:
        made()
    assert "\n" not in str(caught.value)
    assert database.read_bytes() == torn


def test_changes_tell_old_and_new():
    old = {"a.b": {"c": 1, "d": "x" * 100}, "e": None}
    new = {"a.b": {"c": 2, "d": "y"}, "e": [1]}
    assert differences(old, new) == ["a.b.c", "a.b.d", "e"]
    assert changes(old, new) == [
        "a.b.c: 1 -> 2",
        f'a.b.d: "{"x" * 56}... -> "y"',
        "e: (none) -> [1]",
    ]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomically(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
