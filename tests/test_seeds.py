"""Fronts over seeds, against formulas by hand."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from made_results import make_full
from scipy import stats

from mtlsk.seeds import Seeds, mean_of, over_seeds


def test_the_interval_is_scipys():
    x = np.random.default_rng(0).normal(size=6)
    found = mean_of(x)
    test = stats.ttest_1samp(x, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((test.low, test.high))
    assert found.value == pytest.approx(x.mean())


def test_one_seed_has_no_interval():
    found = mean_of(np.array([2.0]))
    assert found.value == 2.0
    assert np.isnan([found.low, found.high]).all()
    assert np.isnan(mean_of(np.array([])).value)


def seeds():
    a = [np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[0.0, 1.0], [3.0, 3.0]])]
    b = [np.array([[2.0, 2.0]]), np.array([[2.0, 2.0]])]
    return Seeds({"a": a, "b": b}, {"a": np.array([0.5, 0.7]), "b": np.array([0.1, 0.5])})


def test_undominated_in_every_seed_is_not_in_one_of_them():
    assert seeds().undominated("a", "b").tolist() == [True, False]
    assert seeds().undominated("b", "a").tolist() == [False]


def test_a_point_that_a_seed_lacks_is_not_undominated_in_every_seed():
    found = seeds()
    found.points["a"][0][0] = np.nan
    assert found.undominated("a", "b").tolist() == [False, False]


def test_the_difference_is_paired():
    assert seeds().difference("a", "b").value == pytest.approx(0.3)
    assert seeds().difference("a", "b").high - 0.3 == pytest.approx(
        stats.t.ppf(0.975, 1) * np.std([0.4, 0.2], ddof=1) / np.sqrt(2)
    )


def test_half_the_seeds_attain_the_median_surface():
    sets = [np.array([[float(i), float(i)]]) for i in range(3)]  # (1, 1): two of three attain it
    found = Seeds({"a": sets}, {"a": np.zeros(3)}).median_attained("a")
    assert found.tolist() == [[1.0, 1.0]]


def test_fronts_over_seeds_keep_their_trials_in_order():
    results = make_full(K=2, repeats=3)
    front = results.trials[results.trials["study"] == "search"].iloc[[4, 1]]
    found = over_seeds(results, {"search": front})
    table = results.repeats
    for i, points in enumerate(found.points["search"]):
        for point, number in zip(points, (4, 1), strict=True):
            row = table.query(f"study == 'search' and number == {number} and repeat == {i}")
            assert (
                point.tolist() == row[["test: loss task 0", "test: loss task 1"]].values[0].tolist()
            )


def test_one_repeat_gives_no_seeds_and_a_missing_column_is_named():
    results = make_full(K=2)
    assert over_seeds(results, {"search": results.trials.iloc[:2]}) is None
    bare = pd.DataFrame({"study": ["search"], "number": [0], "repeat": [0]})
    results = dataclasses.replace(make_full(K=2, repeats=2), repeats=bare)
    with pytest.raises(ValueError, match="'test: loss task 0'"):
        over_seeds(results, {"search": results.trials.iloc[:2]})
