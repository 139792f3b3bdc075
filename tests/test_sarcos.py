"""The joint net on real data: SARCOS arm inverse dynamics, 21 features to 7 torques."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mtlsk import SCORERS, MultiTaskRegressor, certify
from mtlsk.gramian import cosines
from mtlsk.scorers import per_task_scorer, unwrap


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


def test_certificates_scorers_and_files_on_a_joint_net(split, tmp_path):
    X, y, X_test, y_test = split
    model = joint("ConicGrad", 10).fit(X, y)
    report = certify(model, X_test, y_test)
    net, inner, targets = unwrap(model, X_test, y_test)
    cosine = cosines(net.task_gramian(inner, targets)[0]).numpy()
    worst = cosine[np.triu_indices(7, 1)].min()
    assert report["min_cosine"].value == pytest.approx(worst)
    sentence = next(f.sentence for f in report.findings if f.topic == "conflict")
    pairs = (cosine[np.triu_indices(7, 1)] < -0.1).sum()
    assert re.match(rf"{pairs} of 21 pairs" if pairs else "No pair", sentence)
    assert f"{worst:.2f}" in sentence
    scores = SCORERS(model, X_test, y_test)
    r2 = r2_score(y_test, model.predict(X_test), multioutput="raw_values")
    assert scores["worst_r2"] == pytest.approx(r2.min())
    named = per_task_scorer("r2")(model, X_test, y_test)
    assert list(named.values()) == pytest.approx(r2)
    # six epochs in two halves, the second in a net that read the first from a file
    inner_X, inner_y = inner[:1000], targets[:1000]
    whole = MultiTaskRegressor((32,), "ConicGrad", "APT", max_epochs=6, random_state=0)
    half = clone(whole).set_params(max_epochs=3).fit(inner_X, inner_y)
    half.save_params(f_training=tmp_path / "net.pt")
    again = clone(half).set_params(warm_start=True).initialize_for(inner_X, inner_y)
    again.load_params(f_training=tmp_path / "net.pt")
    whole.fit(inner_X, inner_y)
    assert np.array_equal(again.fit(inner_X, inner_y).predict(inner), whole.predict(inner))
