import sys

import numpy as np
import pandas as pd
import pytest

from mtlsk import MultiTaskRegressor
from mtlsk.datasets import split_rows
from mtlsk.evaluation import evaluate, evaluate_single
from mtlsk.preparation import Preparation
from mtlsk.problem import Problem, check_space, resolve_objectives, task_losses
from mtlsk.search import SearchSpace
from mtlsk.studyfile import StudyError, validate


def study(data, objectives=None, **estimator):
    about = {"name": "s"} | ({} if objectives is None else {"objectives": objectives})
    return validate({"study": about, "data": data, "estimator": estimator}, "s.toml")


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    n = 200
    frame = pd.DataFrame({"a": rng.normal(5, 3, n), "b": rng.normal(size=n)})
    frame["town"] = rng.choice(["x", "y", "z"], n)
    frame["one"] = frame.a + frame.b + (frame.town == "x")
    frame["two"] = 100 * frame.b
    frame.loc[3, "a"] = np.nan
    frame.loc[7, "town"] = None
    frame.loc[[11, 12], "two"] = np.nan
    path = tmp_path / "t.csv"
    frame.to_csv(path, index=False)
    return path


def test_text_and_missing_values_are_prepared_on_the_training_part_and_said(table):
    problem = Problem.load(study({"path": str(table), "targets": 2, "split": "random"}))
    assert problem.task_names == ["one", "two"]
    assert problem.name == "t.csv"
    frame = pd.read_csv(table)
    train = split_rows(200, "random", random_state=0) == "train"
    X, y = problem.folds[0].train
    assert X.shape == (train.sum(), 5)  # a, b, three towns
    assert np.isfinite(X).all()
    filled = frame.a.fillna(frame.a[train].median())[train]
    np.testing.assert_allclose(X[:, 0], (filled - filled.mean()) / filled.std(ddof=0))
    assert np.isnan(y).sum() == frame.two[train].isna().sum()
    assert np.nanmean(y, axis=0) == pytest.approx([0, 0], abs=1e-12)
    text = " ".join(problem.notes)
    assert "one-hot encoded: town" in text
    assert "2 missing feature values are imputed" in text
    assert "2 of 400 labels are missing" in text
    assert sum(problem.n_rows.values()) == 200


def test_evaluate_measures_what_the_net_predicts(table):
    problem = Problem.load(
        study({"path": str(table), "targets": 2, "split": "random"}, ["mean", "worst", "worst_r2"])
    )
    measured = evaluate(problem, {"max_epochs": 2, "random_state": 0})
    assert problem.maximise == [False, False, True]
    for part in ("validation", "test"):
        mean, worst, _ = measured.objectives[part]
        assert mean == pytest.approx(np.mean(measured.losses[part]))
        assert worst == max(measured.losses[part])
    X, y = problem.folds[0].measured["test"]
    error = np.nanmean((measured.net.predict(X) - y) ** 2, axis=0)
    assert measured.losses["test"] == pytest.approx(error.tolist())
    again = evaluate(problem, {"max_epochs": 2, "random_state": 0})
    assert again.objectives == measured.objectives


def test_repeats_are_seeds_one_above_the_other_and_their_mean(table):
    problem = Problem.load(study({"path": str(table), "targets": 2, "split": "random"}))
    params = {"max_epochs": 2, "random_state": 5}
    both = evaluate(problem, params, 2)
    alone = [evaluate(problem, {**params, "random_state": seed}) for seed in (5, 6)]
    assert [r["test"][1] for r in both.repeats] == [one.losses["test"] for one in alone]
    mean = np.mean([one.told for one in alone], axis=0)
    assert both.told == pytest.approx(mean.tolist())
    X, _ = problem.folds[0].train
    assert (both.net.predict(X) == alone[0].net.predict(X)).all()
    assert both.measured()["repeats"] == both.repeats
    assert "repeats" not in alone[0].measured()


@pytest.mark.parametrize("split", ["random", "blocked", "group:town"])
def test_folds_are_prepared_apart_and_the_last_net_has_seen_them_all(table, split):
    pd.read_csv(table).fillna({"town": "x"}).to_csv(table, index=False)
    data = {"path": str(table), "targets": 2, "split": split}
    problem = Problem.load(study({**data, "folds": 2}))
    rows = split_rows(200, split, frame=pd.read_csv(table), random_state=0)
    pool = int((rows != "test").sum())
    *folds, last = problem.folds
    assert len(folds) == 2
    assert sum(len(f.measured["validation"][0]) for f in folds) == pool
    for fold in folds:
        assert set(fold.measured) == {"validation"}
        assert len(fold.train[0]) + len(fold.measured["validation"][0]) == pool
        assert np.nanmean(fold.train[1], axis=0) == pytest.approx([0, 0], abs=1e-12)
    assert set(last.measured) == {"test"}
    assert len(last.train[0]) == pool
    assert problem.n_rows == {"train and validation": pool, "test": int((rows == "test").sum())}
    measured = evaluate(problem, {"max_epochs": 1, "random_state": 0})
    parts = [f.measured["validation"] for f in folds]
    nets = [MultiTaskRegressor(max_epochs=1, random_state=0).fit(*f.train) for f in folds]
    losses = [
        np.nanmean((net.predict(X) - y) ** 2, axis=0)
        for net, (X, y) in zip(nets, parts, strict=True)
    ]
    assert measured.losses["validation"] == pytest.approx(np.mean(losses, axis=0).tolist())


def test_more_folds_than_groups_is_one_line(table):
    pd.read_csv(table).fillna({"town": "x"}).to_csv(table, index=False)
    data = {"path": str(table), "targets": 2, "split": "group:town", "folds": 3}
    with pytest.raises(ValueError, match="3 folds need as many groups outside the test part"):
        Problem.load(study(data))


def test_objectives_default_to_losses_up_to_three_tasks_and_to_mean_and_worst_beyond():
    assert resolve_objectives(None, list("abc")) == (["loss a", "loss b", "loss c"], [False] * 3)
    assert resolve_objectives(None, list("abcd")) == (["mean", "worst"], [False, False])
    assert len(resolve_objectives("task_losses", list("abcd"))[0]) == 4
    assert resolve_objectives(["loss b", "worst"], list("ab")) == (["loss b", "worst"], [False] * 2)
    for wrong in ([], ["loss c"], ["mean", "mean"], ["men"]):
        with pytest.raises(StudyError):
            resolve_objectives(wrong, list("ab"))


def test_numbers_are_left_alone_without_scaling():
    data = pd.DataFrame({"a": [1.0, 2.0, 3.0]})
    made = Preparation.fit(data[:2], np.ones((2, 1)), scale_X=False, scale_y=False)
    assert made.features(data)[:, 0].tolist() == [1, 2, 3]
    assert made.targets(np.array([[5.0]])).tolist() == [[5.0]] == made.restore(np.array([[5.0]]))


def test_a_function_of_ones_own_as_data(tmp_path, monkeypatch):
    (tmp_path / "mine_data.py").write_text(
        "import numpy as np\n"
        "def make(n=100):\n"
        "    X = np.random.default_rng(0).normal(size=(n, 3))\n"
        "    return X, X @ np.ones((3, 2))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    problem = Problem.load(
        study({"name": "mine_data:make", "options": {"n": 80}, "split": "random"})
    )
    assert (problem.n_tasks, sum(problem.n_rows.values())) == (2, 80)
    one = study({"name": "mine_data:make", "targets": 1, "split": "random"})
    assert Problem.load(one).n_tasks == 1


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("activation", ["relu", "tahn"]),
        ("hidden_layer_sizes", [[8], [0]]),
        ("device", ["cpu", "tpu"]),
        ("optimizer", ["SGD", "AdamW"]),
    ],
)
def test_every_choice_is_rehearsed_before_a_run(name, choices):
    problem = Problem.load(study({"name": "linnerud", "split": "random"}))
    estimator = {"optimizer__dampening": 0.5} if name == "optimizer" else {}
    with pytest.raises(StudyError, match=name if name != "optimizer" else "dampening"):
        check_space(SearchSpace.parse(estimator, {name: choices}), problem)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return {}", "returned a dict"),
        ("return None", "returned a NoneType"),
        ("raise KeyError('lost')", "KeyError: 'lost'"),
        ("return np.ones((9, 2)), np.ones((8, 2))", "9 rows and y 8"),
        ("return np.full((9, 2), np.inf), np.ones((9, 2))", "infinite in row 1"),
    ],
)
def test_what_a_function_of_ones_own_does_wrong_is_one_line(tmp_path, monkeypatch, body, words):
    (tmp_path / "wrong_data.py").write_text(f"import numpy as np\ndef make():\n    {body}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wrong_data", raising=False)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are checked below
        Problem.load(study({"name": "wrong_data:make"}))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"name": "amr"}, ["'amr'", "did you mean 'arm'"]),
        ({"name": "arm", "options": {"n_sampls": 3}}, ["options", "n_sampls"]),
        ({"name": "arm", "targets": 8}, ["targets=8", "only 7"]),
        ({"name": "arm", "targets": ["torqe1"]}, ["'torqe1'", "did you mean 'torque1'"]),
        ({"name": "arm", "split": "blokced"}, ["'blokced'"]),
        ({"name": "no_such_module_x:make"}, ["cannot import", "no_such_module_x"]),
        ({"path": "no_such.csv", "targets": 1}, ["no_such.csv"]),
    ],
)
def test_data_that_is_not_there_is_one_line(data, words):
    with pytest.raises((ValueError, OSError)) as caught:
        Problem.load(study(data))
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_prediction_that_is_nan_is_no_missing_label():
    y = np.array([[1.0, 2.0], [np.nan, 4.0]])
    assert task_losses(y, np.zeros((2, 2))).tolist() == [1.0, 10.0]
    found = task_losses(y, np.array([[0.0, 0.0], [np.nan, np.nan]]))
    assert found[0] == 1.0
    assert np.isnan(found[1])


@pytest.mark.parametrize("objectives", [["mean", "worst"], ["worst_r2"]])
def test_the_net_of_one_task_alone_is_told_by_its_loss_whatever_the_objectives(objectives):
    raw = {
        "study": {"name": "s", "objectives": objectives},
        "data": {"name": "linnerud", "split": "random", "targets": 1},
    }
    found = evaluate_single(Problem.load(validate(raw, "s.toml")), {"max_epochs": 1})
    assert found.told == found.losses["validation"]
    assert len(found.told) == 1


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"split": "group:nix"}, r"^\[data\] split='group:nix' names 'nix', which is no column"),
        ({"split": "random", "folds": 1000}, r"^\[data\] 1000 folds need as many rows"),
        ({"targets": ["nix"]}, r"^\[data\] targets names 'nix', which is no column"),
    ],
)
def test_what_is_wrong_with_a_table_names_the_files_own_word(tmp_path, split, words):
    path = tmp_path / "t.csv"
    path.write_text("a,b,y\n" + "".join(f"{i},{i % 3},{i * i}\n" for i in range(30)))
    raw = {"study": {"name": "x"}, "data": {"path": str(path), "targets": 1, **split}}
    with pytest.raises(StudyError, match=words):
        Problem.load(validate(raw, "x.toml"))
