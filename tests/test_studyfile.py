import re
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mtlsk import Study
from mtlsk.studyfile import StudyError, StudySection, read_study, validate

GOOD = """
[study]
name = "small"
[data]
name = "arm"
[search]
aggregator = ["MGDA"]
"""
ROOT = Path(__file__).parent.parent
STUDIES = sorted((ROOT / "studies").glob("*.toml"))


def write(tmp_path, text):
    path = tmp_path / "my.toml"
    path.write_text(text)
    return path


def test_defaults_and_data_replacement(tmp_path):
    path = write(tmp_path, GOOD.replace('"arm"', '"arm"\ntargets = 2\noptions = {n_samples = 9}'))
    study = read_study(path)
    assert (study.study.trials, study.data.split, study.data.scale_y) == (60, "blocked", True)
    replaced = read_study(path, data="table.csv").data
    assert (replaced.path, replaced.name, replaced.options) == ("table.csv", None, {})
    assert replaced.targets == 2


def test_trials_are_no_part_of_the_identity_and_everything_else_is(tmp_path):
    one = read_study(write(tmp_path, GOOD)).identity()
    more = GOOD.replace('"small"', '"small"\ntrials = 7') + "[baselines]\nscalarization = 5\n"
    assert read_study(write(tmp_path, more)).identity() == one
    other = GOOD.replace("MGDA", "CAGrad")
    assert read_study(write(tmp_path, other)).identity() != one


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_the_study_files_of_the_project_are_valid(path):
    assert read_study(path).study.name == path.stem


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[study]", "[studdy]", ["'studdy'", "did you mean 'study'"]),
        ('name = "arm"', 'name = "arm"\nsplti = 3', ["[data]", "'splti'", "did you mean 'split'"]),
        ('name = "small"', 'name = "a/b"', ["[study]", "name='a/b'"]),
        (
            'name = "small"',
            'name = "small"\ntrials = 0',
            ["trials=0", "greater than or equal to 1"],
        ),
        ('name = "small"', 'name = "small"\nobjectives = 3', ["objectives"]),
        ('name = "small"', "", ["[study] needs 'name'"]),
        ('name = "arm"', "", ["[data]", "either name", "or path"]),
        ('name = "arm"', 'path = "x.csv"', ["path needs targets"]),
        ('name = "arm"', 'name = "arm"\npath = "x.csv"', ["either name"]),
        ("[data]", "[data", ["not valid TOML"]),
    ],
)
def test_what_is_wrong_is_one_line_with_file_and_key(tmp_path, old, new, words):
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(StudyError) as caught:
        read_study(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_missing_file_names_the_nearest(tmp_path):
    write(tmp_path, GOOD)
    with pytest.raises(StudyError, match=r"mi\.toml: no such study file.*'my\.toml'"):
        read_study(tmp_path / "mi.toml")


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "my.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StudyError, match="cannot be read as text"):
        read_study(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            'sampler = { name = "grid", points = 1 }',
            "sampler.points=1: .* greater than or equal to 2",
        ),
        ('sampler = { name = "TPE", points = 3 }', r"\[study\] sampler 'TPE' has no points"),
        ('sampler = { nam = "grid" }', r"\[study.sampler\] unknown key 'nam' .*'name'.* points$"),
        ('objectives = "mean"', r"objectives='mean': write \"task_losses\", or a list such as"),
        ("sampler = 3", 'sampler=3: write a name such as "TPE", or'),
        ("prune = { dominated_by = 0 }", "prune.dominated_by=0: .* greater than or equal to 1$"),
        ('prune = "yes"', "prune='yes': write true, or { dominated_by = 3"),
        ("stop = true", "stop=True: write { hypervolume = 0.01"),
        ('models = "some"', "models='some': .*'front', 'all' or 'none'"),
    ],
)
def test_a_table_within_a_table_is_one_thing_that_is_wrong(tmp_path, line, message):
    path = write(tmp_path, GOOD.replace("[data]", f"{line}\n[data]"))
    with pytest.raises(StudyError, match=message) as caught:
        read_study(path)
    assert "more)" not in str(caught.value)


def test_the_file_in_the_readme_is_one(tmp_path):
    text = (ROOT / "README.md").read_text()
    (block,) = re.findall(r"```toml\n(.*?)```", text, flags=re.S)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(120, 4)), columns=["a", "b", "price", "demand"])
    frame.assign(shop=rng.integers(12, size=120)).to_csv(tmp_path / "my.csv", index=False)
    (tmp_path / "demand.toml").write_text(block)
    study = Study.from_toml(tmp_path / "demand.toml", data=str(tmp_path / "my.csv"))
    assert list(study.wanted.values()) == [60, 60, 15, 15]
    sections = tomllib.loads(block)
    unsaid = set(StudySection.model_fields) - set(sections["study"])
    assert unsaid == {"seed"}  # every other key of [study] is shown


@pytest.mark.parametrize("sampler", [{"name": "random"}, {"name": "grid", "points": 3}, "NSGA-II"])
def test_what_was_read_can_be_sent_and_read_again(sampler):
    raw = {"study": {"name": "a", "sampler": sampler}, "data": {"name": "arm"}}
    file = validate(raw, "a.toml")
    assert validate(file.model_dump(), "again") == file
    assert file.renamed("b").study.sampling == file.study.sampling
