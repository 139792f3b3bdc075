"""Models of tables: what they take, what they refuse, and their files."""

import joblib
import numpy as np
import pandas as pd
import pytest

from mtlsk import MultiTaskRegressor, TableModel, certify, tablefile
from mtlsk.estimators import statefile
from mtlsk.tablefile import ModelWarning, check_writable
from mtlsk.tablemodel import fit_table

PARAMS = {"hidden_layer_sizes": [8], "max_epochs": 5, "random_state": 0, "aggregator": "ConicGrad"}
TARGETS = ["sum", "difference"]


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(80, 2)), columns=["left", "right"])
    frame["colour"] = rng.choice(["red", "blue"], 80)
    frame["sum"] = 100 + 10 * (frame.left + frame.right)
    frame["difference"] = frame.left - frame.right
    frame.loc[3, "colour"] = None
    frame.loc[4, "left"] = np.nan
    frame.loc[5, "sum"] = np.nan
    return frame


@pytest.fixture(scope="module")
def model(table):
    return fit_table(table, TARGETS, PARAMS, about={"data": {"name": "made", "sha256": "0"}})


def test_predictions_are_in_the_targets_units_and_keep_the_index(model, table):
    rows = table.drop(columns=TARGETS).iloc[[7, 3]]
    found = model.predict(rows)
    assert list(found.columns) == TARGETS
    assert list(found.index) == [7, 3]
    assert abs(model.predict(table)["sum"].mean() - 100) < 5


def test_columns_may_come_in_any_order_and_others_are_left_aside(model, table):
    shuffled = table[["difference", "colour", "right", "left", "sum"]].assign(more="x")
    pd.testing.assert_frame_equal(model.predict(shuffled), model.predict(table))


def test_an_empty_cell_is_imputed_as_in_training_and_a_new_word_is_fine(model, table):
    median = table.assign(left=table.left.median())
    np.testing.assert_allclose(model.predict(table.assign(left=np.nan)), model.predict(median))
    assert np.isfinite(model.predict(table.assign(colour="green"))).all(axis=None)
    assert np.isfinite(model.predict(table.assign(colour=None))).all(axis=None)


def test_numbers_written_as_text_are_numbers_and_the_other_way_round(table):
    frame = table.assign(colour=np.where(table.right > 0, "1", "2"))
    model = fit_table(frame, TARGETS, PARAMS)
    expected = model.predict(frame)
    np.testing.assert_allclose(model.predict(frame.assign(left=frame.left.astype(str))), expected)
    for kind in (int, float):
        found = model.predict(frame.assign(colour=frame.colour.astype(kind)))
        pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.rename(columns={"left": "Left"}), r"no column 'left'.*did you mean 'Left'"),
        (lambda t: t.drop(columns=["left", "right"]), r"no column 'left' \(and 1 more\)"),
        (lambda t: t.assign(left="x"), r"'left' was numeric in training, and row 1 holds 'x'"),
        (lambda t: t.assign(left=np.inf), "'left' is infinite"),
        (lambda t: t[:0], "no rows"),
        (lambda t: t.to_numpy(), "takes a DataFrame, not a ndarray"),
        (lambda t: pd.concat([t, t[["left"]]], axis=1), "'left' more than once"),
    ],
)
def test_what_does_not_fit_is_one_line(model, table, change, words):
    with pytest.raises(ValueError, match=words) as caught:
        model.predict(change(table))
    assert "\n" not in str(caught.value)


def test_losses_and_score_leave_missing_labels_out(model, table):
    losses = model.losses(table)
    labelled = table["sum"].notna()
    error = (model.predict(table)["sum"] - table["sum"])[labelled]
    assert losses.loc["sum", "rows"] == 79
    assert losses.loc["sum", "mse"] == pytest.approx((error**2).mean())
    spread = table["sum"].var(ddof=0)
    assert losses.loc["sum", "r2"] == pytest.approx(1 - losses.loc["sum", "mse"] / spread)
    assert model.score(table) == pytest.approx(losses["r2"].mean())
    unlabelled = model.losses(table.assign(sum=np.nan))
    assert np.isnan(unlabelled.loc["sum", "mse"])
    with pytest.raises(ValueError, match="no row has a label"):
        model.losses(table.assign(sum=np.nan, difference=np.nan))
    with pytest.raises(ValueError, match="no target 'sum'"):
        model.losses(table.drop(columns="sum"))


def test_certify_is_that_of_the_net_on_scaled_targets(model, table):
    X = model.preparation.features(table[model.feature_names])
    y = model.preparation.targets(table[TARGETS].to_numpy())
    report = model.certify(table)
    assert list(report.tasks.index) == TARGETS
    expected = certify(model.net, X, pd.DataFrame(y, columns=TARGETS))
    pd.testing.assert_frame_equal(report.tasks, expected.tasks)


@pytest.mark.parametrize("suffix", [".pkl", ".joblib", ".skops"])
def test_a_file_gives_the_model_back(model, table, tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    model.save(path)
    again = TableModel.load(path)
    pd.testing.assert_frame_equal(again.predict(table), model.predict(table))
    assert again.about == model.about
    assert again.about["params"] == PARAMS
    assert set(again.about["versions"]) >= {"mtlsk", "torch", "scikit-learn"}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_model_of_other_versions_warns(model, tmp_path):
    old = {**model.about, "versions": {**model.about["versions"], "torch": "1.0"}}
    old_model = TableModel(
        model.net, model.preparation, model.feature_names, model.target_names, old
    )
    old_model.save(tmp_path / "old.pkl")
    with pytest.warns(ModelWarning, match=r"torch 1.0 \(here "):
        TableModel.load(tmp_path / "old.pkl")


def test_builds_of_one_version_are_one_version(monkeypatch):
    monkeypatch.setattr(tablefile, "versions", lambda: {"torch": "2.1+cu1", "mtlsk": "1"})
    assert tablefile.other_versions({"torch": "2.1+cpu"}) == ""
    assert tablefile.other_versions({"torch": "2.1", "mtlsk": "2"}) == "mtlsk 2 (here 1)"


class Stranger:
    """A type that nobody said to trust."""

    def __init__(self):
        self.x = 1


def test_skops_refuses_what_is_not_trusted_and_names_it(model, tmp_path):
    about = {**model.about, "guest": Stranger()}
    guest = TableModel(model.net, model.preparation, model.feature_names, TARGETS, about)
    guest.save(tmp_path / "guest.skops")
    name = f"{Stranger.__module__}.Stranger"
    with pytest.raises(ValueError, match=f"not trusted: {name}"):
        TableModel.load(tmp_path / "guest.skops")
    assert TableModel.load(tmp_path / "guest.skops", trusted=[name]).about["guest"].x == 1


def test_files_that_are_no_models_are_one_line(model, tmp_path):
    joblib.dump(MultiTaskRegressor(), tmp_path / "net.pkl")
    (tmp_path / "torn.pkl").write_bytes(b"\x80\x04")
    (tmp_path / "torn.skops").write_bytes(b"PK")
    (tmp_path / "folder.pkl").mkdir()
    model.save(tmp_path / "whole.pkl")
    for name, words in {
        "net.pkl": "holds a MultiTaskRegressor and no TableModel",
        "torn.pkl": "damaged",
        "torn.skops": "damaged",
        "folder.pkl": "cannot be read",
        "whol.pkl": "did you mean 'whole.pkl'",
        "model.csv": "suffix '.csv'",
    }.items():
        with pytest.raises((ValueError, OSError), match=words) as caught:
            TableModel.load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_save_that_fails_leaves_the_old_file(model, tmp_path, monkeypatch):
    path = tmp_path / "model.pkl"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(statefile.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        model.save(path)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_written_shows_before_the_work(tmp_path):
    for path, words in (
        (tmp_path / "no" / "m.pkl", "there is no folder"),
        (tmp_path / "m.txt", "suffix '.txt'"),
    ):
        with pytest.raises(ValueError, match=words):
            check_writable(path)
    (tmp_path / "m.pkl").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        check_writable(tmp_path / "m.pkl")


def test_a_table_that_cannot_be_fitted_is_one_line(table):
    with pytest.raises(ValueError, match=r"no column.*did you mean 'sum'"):
        fit_table(table, ["Sum"])
    with pytest.raises(ValueError, match="a feature and a target"):
        fit_table(table, list(table))
