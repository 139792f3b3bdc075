"""Data by another route: energies for the arm, sources for the digits, files for tables."""

from __future__ import annotations

import gzip
import hashlib
import math
import runpy
import sys
from itertools import product
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation
from sklearn.datasets import load_digits, load_linnerud
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_score
from sklearn.utils import Bunch

from mtlsk import datasets
from mtlsk.datasets import (
    MAKERS,
    TOY_STARTS,
    arm,
    blocked_split,
    fetch_sarcos,
    inverse_dynamics,
    load_table,
    make_arm,
    make_multi_digits,
    split_rows,
    toy_losses,
    toy_minimum,
)


def test_all_is_what_is_there():
    assert sorted(datasets.__all__) == datasets.__all__
    assert all(hasattr(datasets, name) for name in datasets.__all__)


# The arm ----------------------------------------------------------------------------------------


def link_poses(q):
    """Centres of mass (T, J, 3) and orientations (T, J, 3, 3) by forward kinematics."""
    position, turn = np.zeros((len(q), 3)), Rotation.identity(len(q))
    centres, turns = [], []
    for j in range(q.shape[1]):
        position = position + turn.apply(arm.OFFSETS[j])
        turn = turn * Rotation.from_rotvec(q[:, j : j + 1] * arm.AXES[j])
        centres.append(position + turn.apply(arm.CENTRES[j]))
        turns.append(turn.as_matrix())
    return np.stack(centres, 1), np.stack(turns, 1)


def potential(q):
    return -np.einsum("j,tjx,x->t", arm.MASSES[: q.shape[1]], link_poses(q)[0], arm.GRAVITY)


def slope(values, h):
    """Fourth-order central difference along the first axis; loses two samples at each end."""
    return (values[:-4] - 8 * values[1:-3] + 8 * values[3:-1] - values[4:]) / (12 * h)


def kinetic(q, h):
    """Kinetic energy along a path sampled every h seconds, from finite differences of the poses."""
    centres, turns = link_poses(q)
    velocity, inner = slope(centres, h), turns[2:-2]
    # The body's angular velocity, from the antisymmetric R' dR/dt.
    skew = np.swapaxes(inner, -1, -2) @ slope(turns, h)
    spin = np.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], -1)
    joints = q.shape[1]
    return 0.5 * (
        np.einsum("j,tjx->t", arm.MASSES[:joints], velocity**2)
        + np.einsum("jx,tjx->t", arm.INERTIAS[:joints], spin**2)
    )


@pytest.mark.parametrize("joints", [1, 2, 7])
def test_power_is_the_change_of_energy(joints):
    h, rng = 2e-3, np.random.default_rng(0)
    t = h * np.arange(60)[:, None]
    size, rate, phase = rng.uniform(0.5, 1.5, (3, joints))
    q = size * np.sin(rate * t + phase)
    qd, qdd = size * rate * np.cos(rate * t + phase), -(rate**2) * q
    energy = kinetic(q, h) + potential(q)[2:-2]
    power = (qd * inverse_dynamics(q, qd, qdd)).sum(1)[4:-4]
    assert np.abs(power).max() > 1e-3
    np.testing.assert_allclose(slope(energy, h), power, rtol=1e-6, atol=1e-7)


def test_torque_at_rest_is_the_gradient_of_the_potential():
    q, h = np.random.default_rng(1).uniform(-1.5, 1.5, (20, 7)), 1e-5
    still = np.zeros_like(q)
    steps = h * np.eye(7)
    gradient = np.stack([(potential(q + e) - potential(q - e)) / (2 * h) for e in steps], 1)
    assert np.abs(gradient).max() > 5.0
    np.testing.assert_allclose(inverse_dynamics(q, still, still), gradient, atol=1e-7)


def test_torque_is_linear_in_acceleration_by_a_mass_matrix():
    rng = np.random.default_rng(2)
    q, qd, qdd = rng.uniform(-1.5, 1.5, (3, 20, 7))
    at_rest = inverse_dynamics(q, qd, np.zeros_like(q))
    unit = [np.broadcast_to(e, q.shape) for e in np.eye(7)]
    mass = np.stack([inverse_dynamics(q, qd, e) - at_rest for e in unit], -1)
    np.testing.assert_allclose(mass, np.swapaxes(mass, 1, 2), atol=1e-12)
    assert np.linalg.eigvalsh(mass).min() > 1e-4
    torque = inverse_dynamics(q, qd, qdd)
    np.testing.assert_allclose(torque, at_rest + np.einsum("nij,nj->ni", mass, qdd), atol=1e-11)
    # Velocities enter as squares: the arm has no friction.
    gravity = inverse_dynamics(q, 0 * qd, 0 * qd)
    doubled = inverse_dynamics(q, 2 * qd, 0 * qd)
    np.testing.assert_allclose(doubled - gravity, 4 * (at_rest - gravity), atol=1e-11)


def test_velocity_torques_are_those_of_lagrange():
    """M' qd - grad(qd' M qd) / 2: power alone cannot see a link's gyroscopic moment."""
    rng, h = np.random.default_rng(5), 1e-5
    q, qd = rng.uniform(-1.5, 1.5, (2, 10, 7))
    still = np.zeros_like(q)

    def mass(q):
        unit = [np.broadcast_to(e, q.shape) for e in np.eye(7)]
        rest = inverse_dynamics(q, still, still)
        return np.stack([inverse_dynamics(q, still, e) - rest for e in unit], -1)

    def twice_kinetic(q):
        return np.einsum("ni,nij,nj->n", qd, mass(q), qd)

    rate = (mass(q + h * qd) - mass(q - h * qd)) / (2 * h)
    gradient = np.stack(
        [(twice_kinetic(q + e) - twice_kinetic(q - e)) / (2 * h) for e in h * np.eye(7)], 1
    )
    expected = np.einsum("nij,nj->ni", rate, qd) - gradient / 2
    torque = inverse_dynamics(q, qd, still) - inverse_dynamics(q, still, still)
    np.testing.assert_allclose(torque, expected, atol=1e-7)


def test_make_arm_is_seeded_and_shaped():
    made = make_arm(50, random_state=3)
    again, other = make_arm(50, random_state=3), make_arm(50, random_state=4)
    pd.testing.assert_frame_equal(made.data, again.data)
    pd.testing.assert_frame_equal(made.target, again.target)
    assert not (made.data.to_numpy() == other.data.to_numpy()).any()
    assert made.data.shape == (50, 21)
    assert made.target.shape == (50, 7)
    assert made.feature_names[::7] == ["pos1", "vel1", "acc1"]
    assert made.target_names[-1] == "torque7"
    q, qd, qdd = np.split(made.data.to_numpy(), 3, axis=1)
    np.testing.assert_array_equal(made.target, inverse_dynamics(q, qd, qdd))
    assert make_arm(5, n_joints=2, random_state=0).data.shape == (5, 6)


def test_a_line_leaves_much_of_the_arm():
    made = make_arm(1500, random_state=0)
    target = made.target / made.target.std()
    r2 = cross_val_score(Ridge(), made.data, target, scoring="r2", cv=3)
    assert 0.6 < r2.mean() < 0.85


def test_the_arms_tasks_conflict():
    correlation = make_arm(2000, random_state=0).target.corr().to_numpy()
    assert (correlation[np.triu_indices(7, 1)] < -0.01).any()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: make_arm(0), "n_samples is 0.*at least 1"),
        (lambda: make_arm(5, n_joints=8), r"n_joints is 8.*1\.\.7"),
        (lambda: inverse_dynamics([0.0], [0.0], [0.0]), r"\(1,\).*one shape"),
        (lambda: inverse_dynamics(np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 2))), "one shape"),
        (lambda: inverse_dynamics(*np.ones((3, 2, 8))), "one shape"),
        (lambda: make_multi_digits(0), "n_samples is 0.*at least 1"),
        (lambda: make_multi_digits(5, shift=-1), "shift is -1.*at least 0"),
        (lambda: fetch_sarcos(split="blokced"), "split is 'blokced'.*'blocked'.*'random'"),
        (lambda: toy_losses(torch.zeros(3)), r"shape \(3,\).*\(\.\.\., 2\)"),
        (lambda: toy_losses(torch.tensor(1.0)), r"shape \(\)"),
        (lambda: toy_minimum(0.5), "scale 0.5.*1.0 or 0.1"),
    ],
)
def test_makers_name_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


# Digits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0, 4, 8])
def test_each_picture_is_the_maximum_of_two_source_digits(shift):
    made = make_multi_digits(40, shift=shift, random_state=0)
    side = 8 + shift
    assert made.images.shape == (40, side, side)
    assert made.data.shape == (40, side * side)
    np.testing.assert_array_equal(made.data, made.images.reshape(40, -1))
    assert made.data.to_numpy().min() == 0.0
    assert made.data.to_numpy().max() == 1.0
    source = load_digits()
    for image, (left, right) in zip(made.images[:6], made.target.to_numpy(), strict=False):
        lefts, rights = (source.images[source.target == label] / 16 for label in (left, right))
        low, high = image[:8, :8], image[-8:, -8:]
        # A source can lie under the picture only where it is nowhere brighter.
        lefts = lefts[(lefts <= low).all(axis=(1, 2))]
        rights = rights[(rights <= high).all(axis=(1, 2))]
        pairs = (
            np.maximum(np.pad(a, (0, shift)), np.pad(b, (shift, 0)))
            for a, b in product(lefts, rights)
        )
        assert any(np.array_equal(pair, image) for pair in pairs)


def test_digits_are_seeded_and_both_targets_agree():
    labels = make_multi_digits(300, random_state=1)
    columns = make_multi_digits(300, as_regression=True, random_state=1)
    pd.testing.assert_frame_equal(labels.data, columns.data)
    assert not labels.data.equals(make_multi_digits(300, random_state=2).data)
    assert labels.target_names == list(labels.target) == ["left", "right"]
    assert (labels.target.dtypes == np.int64).all()
    assert columns.target_names == [f"{side}{d}" for side in ("left", "right") for d in range(10)]
    for task, name in enumerate(("left", "right")):
        one_hot = columns.target.iloc[:, 10 * task : 10 * task + 10]
        assert (one_hot.sum(axis=1) == 1.0).all()
        np.testing.assert_array_equal(one_hot.to_numpy().argmax(1), labels.target[name])
        assert labels.target[name].nunique() == 10


# Makers and SARCOS ------------------------------------------------------------------------------


def fake_openml(monkeypatch, rows=200):
    frame = pd.DataFrame(np.arange(rows * 28).reshape(rows, 28))
    frame.columns = [f"V{i + 1}" for i in range(28)]
    monkeypatch.setattr(datasets.sarcos, "fetch_openml", lambda **_: Bunch(frame=frame))
    return frame


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_every_maker_gives_the_same_kind_of_bunch(name, monkeypatch):
    fake_openml(monkeypatch)
    made = MAKERS[name]()
    assert isinstance(made.data, pd.DataFrame)
    assert isinstance(made.target, pd.DataFrame)
    assert list(made.data) == made.feature_names
    assert list(made.target) == made.target_names
    assert len(made.data) == len(made.target)
    assert made.target.shape[1] >= 2
    assert np.isfinite(made.data.to_numpy()).all()
    assert np.isfinite(made.target.to_numpy()).all()
    assert made.DESCR.endswith(".")
    assert "\n" not in made.DESCR


def test_linnerud_is_scikit_learns():
    made, source = MAKERS["linnerud"](), load_linnerud()
    np.testing.assert_array_equal(made.data, source.data)
    np.testing.assert_array_equal(made.target, source.target)


def test_sarcos_targets_and_splits(monkeypatch):
    frame = fake_openml(monkeypatch)
    made = fetch_sarcos()
    assert made.target_names == [f"V{i}" for i in range(22, 29)]
    np.testing.assert_array_equal(made.target, frame.to_numpy()[:, 21:])
    np.testing.assert_array_equal(made.data, frame.to_numpy()[:, :21])
    tests = np.concatenate([np.arange(30, 40) + 40 * i for i in range(5)])
    np.testing.assert_array_equal(np.flatnonzero(made.split == "test"), tests)
    drawn = fetch_sarcos(split="random").split
    np.testing.assert_array_equal(drawn, fetch_sarcos(split="random").split)
    assert (drawn == "test").sum() == 50
    assert (drawn == "train").sum() == 150
    assert (drawn != made.split).any()
    assert fetch_sarcos(split=None).split is None


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # the script's manifest
def test_sarcos_through_scikit_learns_cache(data_dir, tmp_path):
    fill = runpy.run_path(str(data_dir / "make_openml_cache.py"))["main"]
    fill(str(data_dir), str(tmp_path), ["sarcos_4449"])
    made = fetch_sarcos(tmp_path)
    source = pd.read_csv(data_dir / "sarcos_4449.csv.gz").to_numpy()
    np.testing.assert_allclose(made.data, source[:, :21], rtol=1e-12)
    np.testing.assert_allclose(made.target, source[:, 21:], rtol=1e-12)
    assert made.split.shape == (4449,)
    assert set(made.split) == {"train", "test"}


@pytest.mark.filterwarnings("ignore:A network error:UserWarning")
def test_sarcos_offline_says_what_to_do(monkeypatch, tmp_path):
    def offline(*args, **kwargs):
        raise URLError("no route")

    monkeypatch.setattr("sklearn.datasets._openml.urlopen", offline)
    monkeypatch.setattr("sklearn.datasets._openml.time.sleep", lambda seconds: None)
    with pytest.raises(
        OSError, match=r"not cached in .*no route.*connect once.*data_home"
    ) as caught:
        fetch_sarcos(tmp_path)
    assert isinstance(caught.value.__cause__, URLError)
    assert "\n" not in str(caught.value)


# Splits -----------------------------------------------------------------------------------------


def counts(parts):
    return tuple(int((parts == word).sum()) for word in ("train", "validation", "test"))


@pytest.mark.parametrize("n", [20, 57, 1000, 4449])
def test_blocked_rows_lie_in_every_fourth_of_twenty_blocks(n):
    edges = [len(block) for block in np.array_split(np.arange(n), 20)]
    block = np.repeat(np.arange(20), edges)
    assert set(block[blocked_split(n)]) == {3, 7, 11, 15, 19}
    parts = split_rows(n, "blocked")
    assert set(block[parts == "test"]) == {3, 7, 11, 15, 19}
    assert set(block[parts == "validation"]) == {1, 9, 17}
    np.testing.assert_array_equal(parts == "test", blocked_split(n))
    for i in range(20):
        assert len(set(parts[block == i])) == 1
    np.testing.assert_allclose(np.array(counts(parts)) / n, [0.6, 0.15, 0.25], atol=0.05)


def test_blocked_split_takes_other_blocks():
    assert blocked_split(10, n_blocks=5, every=2).tolist() == [False, False, True, True] * 2 + [
        False,
        False,
    ]


def test_random_rows_are_seeded():
    parts = split_rows(200, "random", random_state=1)
    assert counts(parts) == (120, 30, 50)
    np.testing.assert_array_equal(parts, split_rows(200, "random", random_state=1))
    assert (parts != split_rows(200, "random", random_state=2)).any()
    assert counts(split_rows(3, "random")) == (1, 1, 1)


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_together_as_near_the_shares_as_brute_force(seed):
    sizes = np.random.default_rng(seed).integers(1, 40, 7)
    frame = pd.DataFrame({"who": np.repeat([f"g{i}" for i in range(7)], sizes)})
    frame = frame.sample(frac=1.0, random_state=seed)  # the index is no longer 0, 1, ..
    parts = split_rows(len(frame), "group:who", frame=frame, random_state=seed)
    assert (pd.Series(parts).groupby(frame["who"].to_numpy()).nunique() == 1).all()
    wanted = np.array([0.6, 0.15, 0.25]) * len(frame)

    def astray(got):
        return np.abs(np.asarray(got) - wanted).sum()

    best = min(
        astray(np.bincount(choice, weights=sizes, minlength=3))
        for choice in product(range(3), repeat=7)
        if len(set(choice)) == 3
    )
    assert astray(counts(parts)) <= best + 0.1 * len(frame)
    again = split_rows(len(frame), "group:who", frame=frame, random_state=seed)
    np.testing.assert_array_equal(parts, again)


def test_groups_are_drawn_by_the_seed_and_none_is_left_without():
    frame = pd.DataFrame({"g": np.repeat(np.arange(20), 5)})
    one, two = (split_rows(100, "group:g", frame=frame, random_state=s) for s in (0, 1))
    assert counts(one) == counts(two) == (60, 15, 25)
    assert (one != two).any()
    lopsided = pd.DataFrame({"g": ["a"] * 96 + ["b"] * 2 + ["c"] * 2})
    assert sorted(counts(split_rows(100, "group:g", frame=lopsided))) == [2, 2, 96]


def test_a_column_marks_the_rows():
    words = ["train", "Validation ", "test", "val", "valid", "train"]
    parts = split_rows(6, "column:my:part", frame=pd.DataFrame({"my:part": words}))
    assert parts.tolist() == ["train", *["validation", "test"], *["validation"] * 2, "train"]
    frame = pd.DataFrame({"part": ["test"] * 20 + ["train"] * 50})
    one, two = (split_rows(70, "column:part", frame=frame, random_state=s) for s in (0, 1))
    assert counts(one) == counts(two) == (40, 10, 20)
    assert (one[:20] == "test").all()
    assert (one != two).any()


TABLE = pd.DataFrame(
    {
        "driver": ["a", "b"] * 15,
        "fold": ["train"] * 29 + ["tset"],
        "all": ["train"] * 30,
        "gap": ["test"] + [None] * 29,
        "one": ["train"] + ["test"] * 29,
    },
    index=range(100, 130),
)


@pytest.mark.parametrize(
    ("n", "split", "words"),
    [
        (30, "blokced", "split is 'blokced'.*'random'.*mean 'blocked'"),
        (30, "grop:driver", "split is 'grop:driver'.*'group:COLUMN'"),
        (30, 7, "split is 7; give 'blocked'"),
        (19, "blocked", "at least 20 rows, not 19; try 'random'"),
        (2, "random", "at least 3 rows, not 2"),
        (30, "group:", "names no column; write group:NAME"),
        (30, "group:drivr", "no column 'drivr'.*'fold'.*mean 'driver'"),
        (30, "column:zzz", "no column 'zzz', only 'driver'"),
        (30, "group:driver", "at least 3 groups.*2: 'a', 'b'; try"),
        (30, "group:gap", "column 'gap' is empty in row 2"),
        (30, "column:fold", "row 30 holds 'tset'; allowed are train.*mean 'test'"),
        (30, "column:all", "no row is marked 'test'"),
        (30, "column:one", "one train row"),
        (29, "group:driver", "frame has 30 rows, the data 29"),
    ],
)
def test_split_rows_names_what_is_wrong(n, split, words):
    with pytest.raises(ValueError, match=words) as caught:
        split_rows(n, split, frame=TABLE)
    assert "\n" not in str(caught.value)


def test_split_rows_asks_for_the_table():
    with pytest.raises(ValueError, match="'group:driver' needs the table; give frame="):
        split_rows(30, "group:driver")


@pytest.mark.parametrize(
    ("words", "n", "options"),
    [
        ("10 rows do not fill 20 blocks", 10, {}),
        ("every is 1", 30, {"every": 1}),
        ("n_blocks is 3; .*every = 4", 30, {"n_blocks": 3}),
    ],
)
def test_blocked_split_names_what_is_wrong(words, n, options):
    with pytest.raises(ValueError, match=words):
        blocked_split(n, **options)


# Tables -----------------------------------------------------------------------------------------

GOOD = "a,who,flag,y1,y2\n1.5,ann,True,1,0.1\n,bob,False,,0.2\n3,,True,3,0.30000000000000004\n"


def write(folder: Path, content: str | bytes, name: str = "my.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".tsv", ".TSV.GZ"])
def test_a_table_keeps_text_gaps_and_digits(tmp_path, suffix):
    text = GOOD.replace(",", "\t") if "tsv" in suffix.lower() else GOOD
    content = text.encode()
    content = gzip.compress(content) if suffix.lower().endswith("gz") else content
    path = write(tmp_path, content, f"my{suffix}")
    table = load_table(path, ["y2", "y1"])
    assert table.feature_names == list(table.data) == ["a", "who", "flag"]
    assert table.target_names == list(table.target) == ["y2", "y1"]
    assert table.text_columns == ["who"]
    assert table.n_missing == 2
    assert table.data["flag"].tolist() == [1.0, 0.0, 1.0]
    assert table.data["who"].tolist()[:2] == ["ann", "bob"]
    assert pd.isna(table.data["who"][2])
    np.testing.assert_array_equal(table.target["y1"], [1.0, np.nan, 3.0])
    assert table.target["y2"][2] == pytest.approx(0.1 + 0.2, rel=1e-15)
    assert (table.target.dtypes == np.float64).all()
    assert table.name == f"my{suffix}"
    assert str(tmp_path) not in table.DESCR
    assert table.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert list(table.frame) == ["a", "who", "flag", "y1", "y2"]


def test_targets_by_count_by_name_and_drop(tmp_path):
    path = write(tmp_path, GOOD)
    assert load_table(path, 2).target_names == ["y1", "y2"]
    assert load_table(str(path), "a").target_names == ["a"]
    table = load_table(path, 1, drop=("y2", "who"))
    assert (table.feature_names, table.target_names) == (["a", "flag"], ["y1"])
    assert "who" in table.frame
    assert load_table(path, 1, drop="who").feature_names == ["a", "flag", "y1"]


def test_a_gap_in_a_boolean_stays_a_gap(tmp_path):
    table = load_table(write(tmp_path, "f,x,y\nTrue,1,False\n,2,True\nFalse,3,\n"), 1)
    np.testing.assert_array_equal(table.data["f"], [1.0, np.nan, 0.0])
    np.testing.assert_array_equal(table.target["y"], [0.0, 1.0, np.nan])
    assert table.text_columns == []


def test_sarcos_as_a_table(data_dir):
    table = load_table(data_dir / "sarcos_4449.csv.gz", targets=7)
    assert table.data.shape == (4449, 21)
    assert table.target.shape == (4449, 7)
    assert table.n_missing == 0
    assert table.text_columns == []


def test_parquet_keeps_its_kinds(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(
        {
            "n": pd.array([1, None, 3], dtype="Int64"),
            "b": pd.array([True, None, False], dtype="boolean"),
            "c": pd.Categorical(["u", "v", "u"]),
            "when": pd.to_datetime(["2020-01-01"] * 3),
            "y": [1, 2, 3],
        },
        index=[5, 6, 7],
    )
    frame.to_parquet(tmp_path / "my.parquet")
    table = load_table(tmp_path / "my.parquet", 1, drop="when")
    np.testing.assert_array_equal(table.data["n"], [1.0, np.nan, 3.0])
    np.testing.assert_array_equal(table.data["b"], [1.0, np.nan, 0.0])
    assert table.text_columns == ["c"]
    assert table.n_missing == 2
    assert table.target["y"].tolist() == [1.0, 2.0, 3.0]
    assert table.data.index.tolist() == table.frame.index.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="column 'when' holds dates or times; convert"):
        load_table(tmp_path / "my.parquet", 1)
    with pytest.raises(ValueError, match="target 'when' holds dates or times; convert"):
        load_table(tmp_path / "my.parquet", "when")
    whole = (tmp_path / "my.parquet").read_bytes()
    with pytest.raises(ValueError, match=r"torn\.parquet is no whole Parquet file"):
        load_table(write(tmp_path, whole[:-40], "torn.parquet"), 1)


def test_parquet_objects_and_repeated_names(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"l": [[1], [2]], "y": [1, 2]}), tmp_path / "l.parquet")
    with pytest.raises(ValueError, match=r"column 'l' holds a .* in row 1; convert"):
        load_table(tmp_path / "l.parquet", 1)
    twice = pyarrow.Table.from_arrays([pyarrow.array([1, 2])] * 2, names=["y", "y"])
    parquet.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(ValueError, match="header names 'y' more than once"):
        load_table(tmp_path / "twice.parquet", 1)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'mtlsk\[parquet\]'"):
        load_table(write(tmp_path, b"PAR1", "my.parquet"), 1)


@pytest.mark.parametrize(
    ("content", "targets", "words"),
    [
        (GOOD, ["Y2"], "targets names 'Y2'.*columns are 'a', 'who'.*mean 'y2'"),
        (GOOD, ["y1", "y1"], "targets names 'y1' more than once"),
        (GOOD, 0, "targets is 0, a count.*1 to 4"),
        (GOOD, 5, "targets is 5, a count.*1 to 4"),
        (GOOD, True, "targets is True"),
        (GOOD, 2.0, "targets is 2.0; give a name or a list"),
        (GOOD, [], "targets is empty"),
        (GOOD, ["a", "who", "flag", "y1", "y2"], "no column to predict from"),
        (GOOD, "who", "target 'who' is not numeric: row 1 holds 'ann'"),
        ("x,y\n1,1\n2,2\n3,oops\n", 1, "target 'y' is not numeric: row 3 holds 'oops'"),
        ("x,y\n1,1\n2,-inf\n", 1, "target 'y' is infinite in row 2"),
        ("x,y\n1,1\n2,2\ninf,3\n", 1, "column 'x' is infinite in row 3"),
        ("x,y\n1,\n2,\n", 1, "target 'y' has no label at all"),
        ("x,y\n", 1, "no rows"),
        ("x,y,x\n1,2,3\n", 1, "header names 'x' more than once"),
        ("x|y\n1|2\n", 1, "one column, 'x.y'; separate .*commas"),
        ("", 1, "empty"),
        ("\n\n", 1, "empty"),
        ("x,y\n1,2\n3,4\n5", 1, "line 4 has 1 cells and the header 2; .*cut short"),
        ("x,y\n1,2,9\n3,4,9\n", 1, "line 2 has 3 cells and the header 2"),
        ('x,y\n1,"2\n3,4\n', 1, "line 3 cannot be read .*unexpected end.*mend"),
        (b"x,y\n\xff\xfe,1\n", 1, "not UTF-8"),
        (",".join(f"c{i}" for i in range(20)) + "\n" + "1," * 19 + "1\n", "q", "and 8 more"),
    ],
)
def test_load_table_names_what_is_wrong(tmp_path, content, targets, words):
    with pytest.raises(ValueError, match=words) as caught:
        load_table(write(tmp_path, content), targets)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("targets", "drop", "words"),
    [
        ("y1", "y1", "'y1' stands in targets and in drop"),
        ("y1", ["whom"], "drop names 'whom'.*mean 'who'"),
        (4, "a", "targets is 4.*1 to 3"),
        (1, ["a", "who", "flag", "y1"], "drop leaves 1 of the columns"),
    ],
)
def test_drop_names_what_is_wrong(tmp_path, targets, drop, words):
    with pytest.raises(ValueError, match=words):
        load_table(write(tmp_path, GOOD), targets, drop=drop)


def test_a_file_that_is_not_there_or_no_table(tmp_path, monkeypatch):
    write(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no file mi\.csv; did you mean 'my\.csv'\?"):
        load_table("mi.csv", 1)
    with pytest.raises(FileNotFoundError, match=r"no file nowhere/my\.csv; check the path"):
        load_table("nowhere/my.csv", 1)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ValueError, match=r"folder\.csv is a directory"):
        load_table("folder.csv", 1)
    with pytest.raises(ValueError, match=r"my\.csv/x\.csv cannot be read"):
        load_table("my.csv/x.csv", 1)
    write(tmp_path, GOOD, "my.xls")
    with pytest.raises(ValueError, match=r"my\.xls has no suffix.*'\.csv'.*'\.parquet'"):
        load_table("my.xls", 1)
    write(tmp_path, gzip.compress(GOOD.encode())[:-12], "torn.csv.gz")
    with pytest.raises(ValueError, match=r"torn\.csv\.gz is no whole gzip file"):
        load_table("torn.csv.gz", 1)
    write(tmp_path, GOOD, "plain.csv.gz")
    with pytest.raises(ValueError, match=r"plain\.csv\.gz is no whole gzip file"):
        load_table("plain.csv.gz", 1)


# The toy problem --------------------------------------------------------------------------------


def toy_by_hand(x1, x2, scale):
    f1 = math.log(max(abs((-x1 - 7) / 2 - math.tanh(-x2)), 5e-6)) + 6
    f2 = math.log(max(abs((-x1 + 3) / 2 + math.tanh(-x2) + 2), 5e-6)) + 6
    q1 = ((-x1 + 7) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
    q2 = ((-x1 - 7) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
    c1, c2 = max(math.tanh(x2 / 2), 0.0), max(math.tanh(-x2 / 2), 0.0)
    return scale * (f1 * c1 + q1 * c2), f2 * c1 + q2 * c2


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_toy_losses_point_by_point(scale):
    # (-7, 0) and its like on the valley floors reach the floor under the logarithm.
    floors = [(-7 + 2 * math.tanh(3.0), 3.0), (7 - 2 * math.tanh(3.0), 3.0)]
    points = [*TOY_STARTS, (1.5, -3.0), (-4.0, 2.0), *floors]
    x = torch.tensor(points, dtype=torch.float64)
    expected = np.array([toy_by_hand(*point, scale) for point in points])
    np.testing.assert_allclose(toy_losses(x, scale), expected, atol=1e-12)
    assert expected[-2, 0] == pytest.approx(scale * math.tanh(1.5) * (math.log(5e-6) + 6))
    assert toy_losses(x.reshape(3, 3, 2), scale).shape == (3, 3, 2)
    assert toy_losses(x[0].float(), scale).dtype == torch.float32
    inside = x[[0, 2, 3, 5, 6]].requires_grad_()  # away from the kinks
    assert torch.autograd.gradcheck(lambda z: toy_losses(z, scale), inside)


def test_the_start_at_the_kink_moves(monkeypatch):
    def gradient():
        x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(toy_losses(x).sum(), x)[0]

    # Both kinks count with slope 1: (f1 + f2 - q1 - q2) / 2 at the origin.
    assert gradient()[1].item() == pytest.approx(math.log(3.5) + 6 + 14.46)
    clamp = torch.Tensor.clamp
    monkeypatch.setattr(
        torch.Tensor, "clamp", lambda t, min: t.relu() if min == 0 else clamp(t, min=min)
    )
    assert torch.equal(gradient(), torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_toy_minimum_by_grid_and_polish(scale):
    (x1, x2), value = toy_minimum(scale)
    # Where x2 > 0 no loss falls under ln 5e-6 + 6 = -6.2, so only the bowls below matter.
    assert value < (math.log(5e-6) + 6) * (1 + scale) / 2
    a, b = torch.meshgrid(
        torch.linspace(-20, 20, 401, dtype=torch.float64),
        torch.linspace(-30, 0, 301, dtype=torch.float64),
        indexing="ij",
    )
    grid = torch.stack([a, b], -1).reshape(-1, 2)
    start = grid[toy_losses(grid, scale).mean(-1).argmin()]
    best = minimize(
        lambda point: sum(toy_by_hand(*point, scale)) / 2,
        start.numpy(),
        method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-13, "maxiter": 2000},
    )
    np.testing.assert_allclose([x1, x2], best.x, atol=6e-6)
    assert value == pytest.approx(best.fun, abs=6e-6)
