"""What callbacks and splits see of the rows of a fit: labels in the user's words."""

import numpy as np
import pandas as pd
import pytest
import torch
from skorch.callbacks import Callback, EpochScoring
from skorch.dataset import Dataset, ValidSplit
from skorch.helper import predefined_split
from skorch.utils import data_from_dataset

from mtlsk import SCORERS, MultiTaskClassifier, MultiTaskNet, MultiTaskRegressor

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
TWO = np.where(X[:, 0] > 0, "yes", "no")
BOTH = pd.DataFrame({"sold": TWO, "price": X[:, 1]})
WEIGHTS = RNG.uniform(0.5, 2, 60)
SMALL = {"hidden_layer_sizes": (8,), "max_epochs": 3, "lr": 0.02, "random_state": 0}


class Takes(Callback):
    """Takes X and y of the training rows, as skorch's callbacks do."""

    def on_epoch_end(self, net, dataset_train=None, **kwargs):
        net.taken = data_from_dataset(dataset_train)
        net.row = dataset_train[3]


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("scoring", ["accuracy", "f1_macro", "roc_auc", "neg_log_loss"])
def test_scores_of_an_epoch_are_the_same_with_and_without_cache(scoring, weights):
    found = []
    for use_caching in (True, False):
        score = EpochScoring(scoring, lower_is_better=False, use_caching=use_caching)
        net = MultiTaskClassifier(**SMALL, callbacks=[score], train_split=ValidSplit(3))
        found.append(net.fit(X, TWO, weights).history_[:, scoring])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_the_last_score_of_an_epoch_is_the_fitted_net_s(weights):
    name = "worst_score"
    score = EpochScoring(SCORERS[name], on_train=True, name=name, use_caching=False)
    net = MultiTaskNet(**SMALL, callbacks=[score]).fit(X, BOTH, weights)
    assert net.history_[-1, name] == pytest.approx(SCORERS[name](net, X, BOTH))


def test_numbers_are_scored_with_weights_too():
    score = EpochScoring("r2", on_train=True, use_caching=False)
    net = MultiTaskRegressor(**SMALL, callbacks=[score]).fit(X, X[:, :2], WEIGHTS)
    assert net.history_[-1, "r2"] == pytest.approx(net.score(X, X[:, :2]))


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_labels_are_in_the_user_s_words_and_batches_in_numbers(weights):
    some = BOTH.copy()
    some.loc[::4, "sold"] = None
    net = MultiTaskNet(**SMALL, callbacks=[Takes()]).fit(X, some, weights)
    features, labels = net.taken
    np.testing.assert_allclose(features, X, rtol=1e-6)
    expected = [None if pd.isna(v) else v for v in some["sold"]]
    assert labels[:, 0].tolist() == expected
    np.testing.assert_allclose(labels[:, 1].astype(float), X[:, 1], rtol=1e-6)
    row = net.row[1] if weights is None else net.row[1][0]
    np.testing.assert_allclose(row, [float(TWO[3] == "yes"), X[3, 1]], rtol=1e-6)
    plain = MultiTaskClassifier(**SMALL, callbacks=[Takes()]).fit(X, TWO)
    assert plain.taken[1].tolist() == TWO.tolist()


FIXED = {
    "strings": (MultiTaskClassifier, TWO),
    "numbers": (MultiTaskRegressor, X[:, 1]),
    "columns": (MultiTaskRegressor, X[:, :2]),
    "both": (MultiTaskNet, BOTH),
}


@pytest.mark.parametrize(("make", "y"), FIXED.values(), ids=FIXED.keys())
def test_a_validation_set_comes_as_the_user_has_it(make, y):
    own = Dataset(X[40:], y[40:])
    net = make(**SMALL, train_split=predefined_split(own)).fit(X[:40], y[:40])

    def last_rows(dataset, labels):
        part = torch.utils.data.Subset
        return part(dataset, range(40)), part(dataset, range(40, 60))

    other = make(**SMALL, train_split=last_rows).fit(X, y)
    expected = other.history_[:, "valid_losses"]
    np.testing.assert_allclose(net.history_[:, "valid_losses"], expected, rtol=1e-5)


def test_a_class_of_the_validation_set_must_be_known():
    own = Dataset(X, np.where(X[:, 0] > 1, "perhaps", TWO))
    net = MultiTaskClassifier(**SMALL, train_split=predefined_split(own))
    with pytest.raises(ValueError, match="'perhaps' of task 'y'"):
        net.fit(X, TWO)
