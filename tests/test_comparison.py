"""What a study's trials come to: fronts, single-task nets, seeds, and what is said of them."""

import dataclasses

import numpy as np
import pytest
from made_results import make_full

from mtlsk.comparison import compare, single_task_losses, spread, verdict
from mtlsk.seeds import Seeds


def without(results, *studies):
    trials = results.trials[~results.trials["study"].isin(studies)].reset_index(drop=True)
    wanted = {k: v for k, v in results.wanted.items() if k not in studies}
    return dataclasses.replace(results, trials=trials, wanted=wanted)


def said(results):
    first, points = verdict(results, compare(results))
    return " ".join(first), " ".join(points)


def test_all_three_fronts_are_measured_on_one_scale():
    found = compare(make_full())
    assert list(found.indicators) == ["search", "scalarization", "equal_weights"]
    best = found.indicators["search"]
    assert best.igd_plus == best.epsilon == 0.0  # the search holds the whole reference front
    for other in ("scalarization", "equal_weights"):
        assert found.indicators[other].hypervolume < best.hypervolume
        assert found.indicators[other].epsilon > 0


def test_the_base_is_the_test_loss_of_the_net_best_on_validation():
    results = make_full(K=2)
    rows = results.trials["study"] == "single_task"
    results.trials.loc[rows, "validation loss: task 0"] = [5.0, 1.0, 2.0, 3.0, 4.0]
    results.trials.loc[rows, "test loss: task 0"] = [0.1, 0.7, 0.2, 0.2, 0.2]
    assert single_task_losses(results)["task 0"] == 0.7


def test_delta_m_by_hand():
    results = make_full(K=2)
    base = single_task_losses(results)
    front = compare(results).rows["search"]
    row = front.iloc[0]
    expected = np.mean(
        [100 * (row[f"test loss: {t}"] - base[t]) / base[t] for t in ("task 0", "task 1")]
    )
    assert row["delta_m"] == pytest.approx(expected)


@pytest.mark.parametrize("spoil", ["none", "failed", "zero", "columns"])
def test_without_single_task_nets_there_is_no_delta_m(spoil):
    results = make_full(K=2)
    rows = results.trials["study"] == "single_task"
    if spoil == "none":
        results = without(results, "single_task")
    elif spoil == "failed":
        results.trials.loc[rows, "state"] = "FAIL"
    elif spoil == "zero":
        results.trials.loc[rows, "test loss: task 1"] = 0.0
    else:
        del results.trials["validation loss: task 1"]
    found = compare(results)
    assert found.base == {}
    assert "delta_m" not in found.table()
    assert "single-task" not in " ".join(said(results))


def test_a_study_without_scalarization_compares_nothing():
    results = without(make_full(), "scalarization", "equal_weights", "single_task")
    found = compare(results)
    assert list(found.rows) == ["search"]
    assert found.compared is None
    assert found.rows["search"]["undominated"].all()
    assert said(results)[0] == "No comparison: this study has no scalarization baseline."


def test_undominated_trials_are_named_on_both_sides():
    results = make_full(K=2)
    first, points = said(results)
    assert first.startswith("The search wins")
    front = compare(results).rows["search"]
    shown = [int(n) for n in front["number"][front["undominated"]]][:12]
    assert f"no scalarization point dominates: {', '.join(map(str, shown))}" in points
    assert "Scalarization's trials that no searched point dominates: none." in points


def test_scalarization_wins_as_plainly():
    results = make_full(K=2)
    swap = {"search": "scalarization", "scalarization": "search"}
    results.trials["study"] = results.trials["study"].replace(swap)
    first, points = said(results)
    assert first.startswith("Scalarization wins")
    assert "no scalarization point dominates: none." in points


def test_one_seed_says_nothing_of_spread_and_several_do():
    assert "says nothing about the spread between seeds" in said(make_full(K=2))[0]
    first, points = said(make_full(K=2, repeats=4))
    assert "Over 4 seeds" in first
    assert "says nothing" not in first
    assert "in every seed: " in points


@pytest.mark.parametrize(
    ("b", "says"),
    [
        ([0.1, 0.11, 0.1], "the search's lead is larger than the spread"),
        ([0.9, 0.91, 0.9], "scalarization's lead is larger than the spread"),
        ([0.3, 0.7, 0.5], "the interval holds 0, so these seeds do not tell"),
    ],
)
def test_what_seeds_tell(b, says):
    volumes = {"search": np.array([0.5, 0.5, 0.5]), "scalarization": np.array(b)}
    assert says in spread(Seeds({}, volumes))


def test_nobody_wins_where_seeds_do_not_tell():
    assert said(make_full(K=2, repeats=4))[0].startswith("The search wins: ")
    results = make_full(K=2, repeats=4)
    table = results.repeats
    columns = [c for c in table if c.startswith("test: ")]
    bad = table["repeat"].isin([0, 1]) & (table["study"] == "search")
    table.loc[bad, columns] = 100.0
    first, _ = said(results)
    assert first.startswith("The search is ahead, but not beyond the seeds: ")
    assert "do not tell which of the two is better" in first


def test_pruned_trials_are_no_part_of_a_front():
    results = make_full(K=2)
    results.trials.loc[0, "state"] = "PRUNED"
    assert 0 not in compare(results).rows["search"]["number"].tolist()
