"""load_text: codes, questions, parts that do not overlap, and one line for what is wrong."""

import gzip
import hashlib

import numpy as np
import pandas as pd
import pytest

from mtlsk import MultiTaskClassifier
from mtlsk.datasets import TEXT_TASKS, load_text
from mtlsk.modules import CharLM

TEXT = "Ab cd.\nEf gh ij, Kl mn op.\nQr st uv wx yz!\n"


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "made.txt"
    file.write_text(TEXT)
    return file


def test_rows_are_the_text_and_targets_what_follows(path):
    text = load_text(path, context=4, test_size=0)
    read = ["".join(text.vocabulary[c] for c in row) for row in text.data.to_numpy()]
    assert read == [TEXT[i : i + 4] for i in range(len(TEXT) - 5)]
    following = [TEXT[i + 4] for i in range(len(TEXT) - 5)]
    assert [text.vocabulary[c] for c in text.target["next"]] == following
    ahead = [text.vocabulary[c] for c in text.target["next_but_one"]]
    assert ahead == [TEXT[i + 5] for i in range(len(TEXT) - 5)]
    assert text.target["vowel"].tolist() == [int(c in "aeiouyAEIOUY") for c in following]
    assert text.target["space"].tolist() == [int(c in " \n") for c in following]
    cases = [2 if c.isupper() else 1 if c.islower() else 0 for c in following]
    assert text.target["case"].tolist() == cases
    assert set(text.split) == {"train"}


def test_the_bunch(path):
    text = load_text(path, context=4, tasks=["space", "next"])
    assert text.vocabulary == "".join(sorted(set(TEXT)))
    assert list(text.data) == text.feature_names
    assert text.feature_names[-1] == "character_-1"
    assert list(text.target) == text.target_names == ["space", "next"]
    assert len(text.data) == len(text.target) == len(text.split)
    assert {str(t) for t in [*text.data.dtypes, *text.target.dtypes]} == {"int64"}
    assert text.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert text.name == "made.txt"
    assert text.DESCR.startswith("made.txt: 43 characters of ")
    assert list(TEXT_TASKS) == load_text(path, context=4).target_names


@pytest.mark.parametrize("stride", [1, 3])
def test_no_character_is_in_both_parts(path, stride):
    text = load_text(path, context=5, stride=stride, test_size=0.4)
    whole = load_text(path, context=5, stride=stride, test_size=0)
    border = round(len(TEXT) * 0.6)
    starts = np.arange(0, len(TEXT) - 6, stride)
    inside = starts + 7 <= border
    np.testing.assert_array_equal(text.data[text.split == "train"], whole.data[inside])
    np.testing.assert_array_equal(text.data[text.split == "test"], whole.data[starts >= border])
    assert len(text.data) < len(whole.data)


def test_rare_characters_share_a_code(path):
    text = load_text(path, context=4, min_count=3, test_size=0)
    assert text.vocabulary == "\n .\ufffd" or set(text.vocabulary) <= set(" \n.\ufffd")
    first = [text.vocabulary[c] for c in text.data.iloc[0]]
    assert first == ["\ufffd", "\ufffd", " ", "\ufffd"]
    assert text.target["case"].nunique() == 3  # told from the text, not from the codes


def test_line_ends_and_a_byte_order_mark(tmp_path, path):
    other = tmp_path / "windows.txt"
    other.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    mine, theirs = load_text(path, context=4), load_text(other, context=4)
    np.testing.assert_array_equal(mine.data, theirs.data)
    assert mine.sha256 != theirs.sha256


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "made.txt is empty"),
        (b"ab\xff\xfecd", "made.txt is not UTF-8 .*at byte 2.*save it as UTF-8"),
        (b"abc", "made.txt has 3 characters, too few for a row of 6.*smaller context"),
        (b"abcdefghijk", "11 characters, too few for a row of 6 in the training and the test"),
    ],
)
def test_files_that_are_refused(path, content, words):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        load_text(path, context=4)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder(tmp_path, path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*mode.txt; did you mean 'made"):
        load_text(tmp_path / "mode.txt")
    with pytest.raises(ValueError, match="is a directory"):
        load_text(tmp_path)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"context": 0}, "context is 0; give an integer of at least 1"),
        ({"context": 2.5}, "context is 2.5; give an integer"),
        ({"stride": 0}, "stride is 0"),
        ({"min_count": 0}, "min_count is 0"),
        ({"test_size": 1.0}, "test_size is 1.0"),
        ({"tasks": ["nxt"]}, "'nxt', which is none of 'next'.*did you mean 'next'"),
        ({"tasks": []}, "name one task or more"),
        ({"tasks": ["case", "case"]}, "each once"),
    ],
)
def test_parameters_that_are_refused(path, params, words):
    with pytest.raises(ValueError, match=words):
        load_text(path, **params)


def test_a_packed_file_is_the_same_text(tmp_path):
    text = "to be or not to be, that is the question. " * 9
    (tmp_path / "plain.txt").write_text(text)
    (tmp_path / "packed.txt.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "torn.txt.gz").write_bytes(gzip.compress(text.encode())[:-9])
    plain, packed = (load_text(tmp_path / n, context=8) for n in ("plain.txt", "packed.txt.gz"))
    pd.testing.assert_frame_equal(plain.data, packed.data)
    with pytest.raises(ValueError, match=r"torn\.txt\.gz is no whole gzip file"):
        load_text(tmp_path / "torn.txt.gz")


def test_a_book_of_plays(data_dir):
    """The next character is guessed better than by how often each comes."""
    text = load_text(data_dir / "tinyshakespeare.txt.gz", context=16, stride=400)
    train = np.asarray(text.split == "train")
    assert len(text.vocabulary) == 65
    net = MultiTaskClassifier(
        module=CharLM, module__width=32, aggregator="MGDA", max_epochs=4, random_state=0
    ).fit(text.data[train], text.target[train])
    found = net.predict_proba(text.data[~train])[text.target_names.index("next")]
    classes = list(net.classes_[text.target_names.index("next")])
    answers = text.target["next"][~train]
    share = text.target["next"][train].value_counts(normalize=True)
    known = answers.isin(classes)
    places = [classes.index(a) for a in answers[known]]
    cross_entropy = -np.log(found[known.to_numpy()][np.arange(len(places)), places]).mean()
    assert cross_entropy < -np.log(share[answers[known]]).mean() - 0.1
