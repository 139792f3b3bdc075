"""Data of every shape and type: a fit that works, or one clear line, and nothing in between."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtlsk import DivergenceError, MultiTaskClassifier, MultiTaskNet, MultiTaskRegressor

AGGREGATORS = ["LinearScalarization", "MGDA", "ConicGrad", "FAMO", "PCGrad"]
ESTIMATORS = [
    MultiTaskRegressor,
    MultiTaskClassifier,
    MultiTaskNet,
    lambda **params: MultiTaskNet(tasks="classification", **params),
]


def values(rng, kind, shape):
    """Return an array of one kind of content."""
    number = rng.normal(size=shape)
    made = {
        "float64": number,
        "float32": number.astype(np.float32),
        "int": rng.integers(-3, 3, shape),
        "uint8": rng.integers(0, 3, shape).astype(np.uint8),
        "bool": number > 0,
        "huge": number * 1e30,
        "tiny": number * 1e-30,
        "constant": np.full(shape, 2.5),
        "zero": np.zeros(shape),
        "strings": rng.choice(["a", "b", "c"], shape),
        "objects": rng.choice(["a", "b"], shape).astype(object),
        "numbers as objects": number.astype(object),
        "some missing": np.where(rng.random(shape) < 0.3, np.nan, number),
        "all missing": np.full(shape, np.nan),
        "None": np.where(rng.random(shape) < 0.3, None, rng.integers(0, 2, shape)),
        "infinite": np.where(rng.random(shape) < 0.1, np.inf, number),
        "complex": number + 1j,
        "dates": np.full(shape, np.datetime64("2020-01-01")),
    }
    return made[kind]


KINDS = [
    *("float64", "float32", "int", "uint8", "bool", "huge", "tiny", "constant", "zero"),
    *("strings", "objects", "numbers as objects", "dates", "None", "complex"),
    *("some missing", "all missing", "infinite"),
]


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, d = draw(st.sampled_from([30, 7, 2, 1, 30, 0])), draw(st.sampled_from([3, 1, 3, 3, 0]))
    k = draw(st.sampled_from([None, 1, 2, 5, 40, 0]))
    of_X = draw(st.sampled_from([*["float64"] * len(KINDS), *KINDS]))  # half of them are fine
    of_y = draw(st.sampled_from(KINDS))
    X = values(rng, of_X, (n, d))
    rows = n + draw(st.sampled_from([*[0] * 9, 1]))
    y = values(rng, of_y, (rows,) if k is None else (rows, k))
    shape = draw(st.sampled_from(["array", "frame", "list", "three dimensions"]))
    if shape == "frame":
        X, y = pd.DataFrame(X), pd.DataFrame(y) if y.ndim == 2 else pd.Series(y)
    elif shape == "list":
        X, y = X.tolist(), y.tolist()
    elif shape == "three dimensions" and y.ndim == 2:
        y = y[:, :, None]
    return X, y, draw(st.sampled_from(ESTIMATORS)), draw(st.sampled_from(AGGREGATORS))


def attempt(net, X, y):
    """Return what a fit raises, None for nothing; others than these are bugs."""
    try:
        net.fit(X, y)
    except (ValueError, TypeError, DivergenceError) as error:
        return error
    return None


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases())
def test_a_fit_works_or_says_why_in_one_line(case):
    X, y, make, aggregator = case
    net = make(
        hidden_layer_sizes=(4,), aggregator=aggregator, max_epochs=2, batch_size=8, random_state=0
    )
    before = dict(vars(net))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="task .* has one class only")
        failure = attempt(net, X, y)
    if failure is not None:
        message = str(failure)
        theirs = "Complex data not supported", "Reshape your data"  # these have several lines
        assert message
        assert "\n" not in message or any(part in message for part in theirs)
        assert isinstance(failure, DivergenceError) or vars(net).keys() == before.keys()
        return
    n = len(np.asarray(X))
    shape = np.asarray(y).shape
    prediction = net.predict(X)
    assert prediction.shape == shape
    assert not pd.isna(np.asarray(prediction)).any()
    if hasattr(net, "predict_proba"):
        found = net.predict_proba(X)
        for probability in found if isinstance(found, list) else [found]:
            assert probability is None or np.allclose(probability.sum(1), 1.0)
    assert len(net.task_scores(X, y)) == (1 if len(shape) == 1 else shape[1])
    assert net.partial_fit(X, y).predict(X).shape[0] == n


@pytest.mark.parametrize("aggregator", AGGREGATORS)
@pytest.mark.parametrize("missing", [0.0, 0.5])
def test_forty_tasks(aggregator, missing):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 3))
    y = X @ rng.normal(size=(3, 40))
    y[rng.random(y.shape) < missing] = np.nan
    net = MultiTaskRegressor((16,), aggregator, max_epochs=60, lr=0.02, random_state=0).fit(X, y)
    assert net.score(X, y) > 0.5
    labels = np.where(np.isnan(y), np.nan, y > 0)
    one = MultiTaskClassifier((16,), aggregator, max_epochs=40, lr=0.02, random_state=0)
    assert one.fit(X, labels).score(X, labels) > 0.8


def test_one_row_one_feature_one_constant_target():
    for cls in (MultiTaskRegressor, MultiTaskNet):
        net = cls((4,), max_epochs=5, random_state=0).fit([[1.0]], [[2.0, 2.0]])
        assert net.predict([[1.0]]).shape == (1, 2)
    with pytest.warns(UserWarning, match="one class only"):
        net = MultiTaskClassifier((4,), max_epochs=5, random_state=0).fit([[1.0]], ["a"])
    assert net.predict([[1.0], [3.0]]).tolist() == ["a", "a"]


def test_nothing_is_left_of_a_failed_first_fit():
    net = MultiTaskClassifier((4,), max_epochs=1)
    with pytest.raises(ValueError, match="Unknown label type"):
        net.fit([[1.0], [2.0]], [0.5, 0.25])
    assert not hasattr(net, "classes_")
    assert not hasattr(net, "n_features_in_")
