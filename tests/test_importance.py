"""Which parameters mattered: found where one decides, over the trials that have it."""

import numpy as np
import pandas as pd
import pytest
from made_results import make_full

from mtlsk.importance import LEAST, importance


def searched(n=200, maximise=False):
    """One objective that x decides, and z nearly not at all; c exists in half of the trials."""
    rng = np.random.default_rng(0)
    x, z = rng.uniform(size=(2, n))
    word = np.where(np.arange(n) % 2, "A", "B")
    value = (x - 0.3) ** 2 * (-1 if maximise else 1)
    table = {"study": "search", "number": np.arange(n), "state": "COMPLETE", "reason": ""}
    table |= {"param: x": x, "param: z": z, "param: lr": 10 ** rng.uniform(-4, -1, size=n)}
    table |= {"param: word": word, "param: fixed": 1, "seconds": 1.0}
    table["param: part[A]__c"] = np.where(word == "A", rng.uniform(size=n), np.nan)
    table |= {"validation: o": value, "test: o": value}
    return make_full(K=1, n=2, objectives=["o"], maximise=[maximise], trials=pd.DataFrame(table))


@pytest.mark.parametrize("maximise", [False, True])
def test_what_decides_comes_first_and_shares_sum_to_one(maximise):
    found = importance(searched(maximise=maximise))
    assert found.shares.index[0] == "x"
    assert found.shares.loc["x", "o"] > 0.6
    assert found.shares["o"].sum() == pytest.approx(1.0)


def test_conditional_parameters_stay_and_say_their_trials():
    found = importance(searched())
    assert found.trials["part[A]__c"] == 100
    assert found.trials["x"] == found.n_trials == found.n_complete == 200
    assert "part[A]__c" in found.shares.index
    assert "fixed" not in found.shares.index


def test_a_conditional_parameter_that_decides_is_seen():
    results = searched()
    c, z = results.trials["param: part[A]__c"], results.trials["param: z"]
    for part in ("validation", "test"):
        results.trials[f"{part}: o"] = np.where(c.notna(), (c - 0.5).abs(), 1.0 + z)
    found = importance(results)
    assert found.shares.index[0] == "part[A]__c"


def test_too_few_trials_say_nothing():
    assert importance(searched(LEAST - 1)) is None
    assert importance(searched(LEAST)) is not None


def test_many_trials_are_thinned_and_counted(monkeypatch):
    monkeypatch.setattr("mtlsk.importance.MOST", 50)
    found = importance(searched())
    assert (found.n_trials, found.n_complete) == (50, 200)
