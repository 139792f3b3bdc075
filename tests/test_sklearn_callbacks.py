"""scikit-learn's own callbacks hear of a net's fit and epochs, wherever the net is."""

from __future__ import annotations

import copy
import gc
import importlib.util
import pickle
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import EarlyStopping
from skorch.dataset import ValidSplit

from mtlsk import DivergenceError, MultiTaskClassifier, MultiTaskRegressor
from mtlsk.estimators import sklearn_callbacks

skl = pytest.importorskip("sklearn.callback")

RNG = np.random.default_rng(0)
X = pd.DataFrame(RNG.normal(size=(60, 5)))
Y = pd.DataFrame({"a": X[0] - X[1], "b": X[2] ** 2, "c": np.sin(X[3])})


@pytest.fixture(autouse=True)
def collected():
    """Let what a callback listens with end here, not in the middle of another test."""
    yield
    gc.collect()


def make(**params):
    small = {"hidden_layer_sizes": (8,), "max_epochs": 3, "batch_size": 20, "random_state": 0}
    return MultiTaskRegressor(**{**small, "aggregator": "MGDA", **params})


class Diary:
    """Writes down what it hears; asks to stop after the epochs told."""

    def __init__(self, stop_after=None):
        self.heard = []
        self.stop_after = stop_after

    def setup(self, estimator, context):
        self.heard.append("setup")

    def teardown(self, estimator, context):
        self.heard.append("teardown")

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None, metadata=None):
        self.heard.append(("begin", context.task_name, context.task_id, context.max_subtasks))
        self.data = X, y, metadata

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
        score = fitted_estimator.score(X, y)
        self.heard.append(("end", context.task_name, context.task_id, score))
        return context.task_name == "epoch" and context.task_id + 1 == self.stop_after


def parameters(net):
    return torch.cat([p.detach().flatten() for p in net.module_.parameters()])


def test_a_fit_and_its_epochs_are_told_in_order_with_the_user_s_data():
    diary = Diary()
    weights = np.linspace(0.5, 1, 60)
    net = make().set_callbacks(diary).fit(X, Y, sample_weight=weights)
    begins = [h[:4] for h in diary.heard if h[0] == "begin"]
    assert begins == [("begin", "fit", 0, 3), *(("begin", "epoch", i, 0) for i in range(3))]
    assert [h if isinstance(h, str) else h[:3] for h in diary.heard] == [
        "setup",
        ("begin", "fit", 0),
        *(e for i in range(3) for e in (("begin", "epoch", i), ("end", "epoch", i))),
        ("end", "fit", 0),
        "teardown",
    ]
    seen, y, metadata = diary.data
    assert seen is X
    assert y is Y
    assert metadata["sample_weight"] is weights
    assert diary.heard[-2][3] == net.score(X, Y) == diary.heard[-3][3]
    assert "_epochs" not in vars(net)


@pytest.mark.parametrize("params", [{}, {"train_split": ValidSplit(5)}, {"optimizer": "Muon"}])
def test_training_is_the_same_to_the_bit(params):
    monitor = skl.ScoringMonitor(scoring="r2")
    watched = make(**params).set_callbacks(monitor, Diary()).fit(X, Y)
    assert torch.equal(parameters(watched), parameters(make(**params).fit(X, Y)))
    assert [len(row["batches"]) for row in watched.history_] == [0, 0, 0]


def test_scoring_monitor_logs_the_score_of_each_epoch():
    monitor = skl.ScoringMonitor(scoring={"r2": "r2", "worst": lambda e, X, y: e.score(X, y) - 1})
    net = make().set_callbacks(monitor).fit(X, Y)
    rows = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert [row["task_id"] for row in rows] == [0, 1, 2]
    for n, row in enumerate(rows, 1):  # the net that as many epochs of training give
        expected = make(max_epochs=n).fit(X, Y).score(X, Y)
        assert row["r2"] == pytest.approx(expected, rel=1e-6)
        assert row["worst"] == pytest.approx(expected - 1)
    assert rows[-1]["r2"] == pytest.approx(net.score(X, Y))


def test_progress_bar_shows_the_epochs(capsys):
    net = make().set_callbacks(skl.ProgressBar()).fit(X, Y)
    assert "MultiTaskRegressor - fit" in capsys.readouterr().out
    assert net.fit(X, Y).score(X, Y) == make().fit(X, Y).score(X, Y)


def test_inside_a_pipeline_and_a_search(capsys):
    monitor = skl.ScoringMonitor(scoring="r2")
    net = make().set_callbacks(monitor)
    make_pipeline(StandardScaler(), net).fit(X, Y)
    assert [row["task_name"] for row in monitor.get_logs().data].count("epoch") == 3
    search = GridSearchCV(net, {"aggregator": ["MGDA", "CAGrad"]}, cv=2)
    search.set_callbacks(skl.ProgressBar(max_propagation_depth=None)).fit(X, Y)
    rows = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(rows) == 3 * (2 * 2 + 1)
    shown = capsys.readouterr().out
    assert "GridSearchCV - fit" in shown
    assert "MultiTaskRegressor - fit" in shown
    assert not hasattr(search.best_estimator_, "_parent_callback_ctx")


def test_nets_travel_with_their_callbacks():
    """As to the processes of a search; scikit-learn brings back what they log."""
    net = make().set_callbacks(skl.ProgressBar(), skl.ScoringMonitor(scoring="r2"))
    there = pickle.loads(pickle.dumps(net)).fit(X, Y)
    again = pickle.loads(pickle.dumps(there))
    assert again.score(X, Y) == make().fit(X, Y).score(X, Y)


def test_a_callback_may_stop_the_training():
    diary = Diary(stop_after=2)
    net = make(max_epochs=50).set_callbacks(diary).fit(X, Y)
    assert len(net.history_) == 2
    assert "dur" in net.history_[-1]  # skorch's callbacks have had their turn
    assert torch.equal(parameters(net), parameters(make(max_epochs=2).fit(X, Y)))
    assert diary.heard[-1] == "teardown"


def test_the_epoch_that_skorch_stops_after_is_told_too():
    diary = Diary()
    stop = EarlyStopping(monitor="train_loss", patience=1, threshold=10.0, sink=lambda *_: None)
    net = make(max_epochs=9, callbacks=[stop]).set_callbacks(diary).fit(X, Y)
    ends = [h for h in diary.heard if h[:2] == ("end", "epoch")]
    assert len(ends) == len(net.history_) < 9


def test_a_fit_that_fails_takes_its_callbacks_down():
    diary = Diary()
    net = make(lr=1e30, optimizer="SGD").set_callbacks(diary)
    with pytest.raises(DivergenceError):
        net.fit(X, Y)
    assert diary.heard[-1] == "teardown"
    assert not {"_epochs", "_callback_fit_ctx"} & set(vars(net))
    bad = make(max_epochs="many").set_callbacks(Diary())
    with pytest.raises(ValueError, match="max_epochs='many' is not allowed"):
        bad.fit(X, Y)


def test_a_fitted_estimator_that_is_kept_stays_as_it_was():
    class Keeper(Diary):
        def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
            self.heard.append(fitted_estimator)

    keeper = Keeper()
    make().set_callbacks(keeper).fit(X, Y)
    kept = [h for h in keeper.heard if isinstance(h, MultiTaskRegressor)]
    for n, net in enumerate(kept[:3], 1):
        assert torch.equal(parameters(net), parameters(make(max_epochs=n).fit(X, Y)))


def test_classifiers_clones_and_taking_callbacks_off():
    monitor = skl.ScoringMonitor(scoring="accuracy")
    net = MultiTaskClassifier((8,), max_epochs=2, random_state=0).set_callbacks(monitor)
    clone(net).fit(X, np.where(X[0] > 0, "up", "down"))
    assert [0 <= row["accuracy"] <= 1 for row in monitor.get_logs().data] == [True] * 3
    n = len(monitor._log)
    net.set_callbacks().fit(X, np.where(X[0] > 0, "up", "down"))
    assert len(monitor._log) == n


def test_a_copy_has_the_same_parts():
    net = make().fit(X, Y)
    other = copy.copy(net)
    assert other.module_ is net.module_
    assert type(other) is type(net)
    other.module_ = None
    assert net.module_ is not None


def test_without_scikit_learn_s_callbacks_nothing_is_missed(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.callback", None)
    spec = importlib.util.spec_from_file_location("older", sklearn_callbacks.__file__)
    older = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(older)
    assert not hasattr(older.CallbackSupportMixin, "set_callbacks")

    class Net:
        @older.announced
        def fit(self, X, y, sample_weight=None, **params):
            return X, y, sample_weight, params

    assert Net().fit(1, 2, 3, a=4) == (1, 2, 3, {"a": 4})
