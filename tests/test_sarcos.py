"""The joint net on real data: SARCOS arm inverse dynamics, 21 features to 7 torques."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mtlsk import SCORERS, MultiTaskRegressor


@pytest.fixture(scope="module")
def split(data_dir):
    """Return (X, y) of the training blocks and of every fourth of 20 blocks, held out in time."""
    table = pd.read_csv(data_dir / "sarcos_4449.csv.gz")
    X, y = table.iloc[:, :-7], table.iloc[:, -7:]
    block = np.arange(len(table)) * 20 // len(table)
    held_out = block % 4 == 3
    return X[~held_out], y[~held_out], X[held_out], y[held_out]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def scaled(estimator):
    """Standardise X and y on the rows that are trained on."""
    pipeline = make_pipeline(StandardScaler(), estimator)
    return TransformedTargetRegressor(pipeline, transformer=StandardScaler())


def joint(aggregator, max_epochs):
    return scaled(
        MultiTaskRegressor(
            aggregator=aggregator, max_epochs=max_epochs, batch_size=128, random_state=0
        )
    )


def held_out_r2(model, split):
    X, y, X_test, y_test = split
    model.fit(X, y)
    return r2_score(y_test, model.predict(X_test), multioutput="raw_values")


def test_the_split_is_the_one_of_the_record(split):
    X, y, X_test, y_test = split
    assert X.shape[1] == X_test.shape[1] == 21
    assert y.shape[1] == y_test.shape[1] == 7
    assert (len(X), len(X_test)) == (3337, 1112)
    assert not set(X.index) & set(X_test.index)


def test_linear_scalarization(split):
    model = joint("LinearScalarization", 150)
    r2 = held_out_r2(model, split)
    assert r2.mean() >= 0.94
    assert r2.min() >= 0.88
    ridge = held_out_r2(scaled(Ridge()), split)
    assert (r2 > ridge).all()  # the net is worth it in every task
    assert SCORERS["worst_r2"](model, *split[2:]) == pytest.approx(r2.min())
    losses = np.array(model.regressor_[-1].history_[:, "train_losses"])
    assert (losses[-1] < 0.1 * losses[0]).all()


@pytest.mark.parametrize("aggregator", ["MGDA", "CAGrad", "ConicGrad"])
def test_gradient_aggregators(split, aggregator):
    model = joint(aggregator, 25)
    r2 = held_out_r2(model, split)
    assert r2.mean() >= 0.90
    history = model.regressor_[-1].history_
    assert min(history[:, "min_cosine"]) < 0  # the tasks do conflict
    weights = np.array(history[:, "task_weights"])
    assert (weights.std(axis=0) > 0).all()  # and the weights answer
