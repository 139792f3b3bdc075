"""The front of a search and the trial that a preference chooses from it."""

import numpy as np
import pandas as pd
import pytest

from mtlsk import choosing, models
from mtlsk.choosing import Best, chebyshev, choose, front, hypervolume_so_far, kept, preferences
from mtlsk.outcome import Results
from mtlsk.studyfile import StudyError
from mtlsk.tablemodel import fit_table

# the middle one lies above the line between the others: no weighted sum chooses it
POINTS = [[0.0, 1.0], [0.6, 0.6], [1.0, 0.0], [0.9, 0.9]]


def results(search=POINTS, scalarization=(), maximise=(False, False)):
    signs = np.where(maximise, -1.0, 1.0)
    rows = []
    for which, points in (("search", search), ("scalarization", scalarization)):
        for number, point in enumerate(points):
            values = np.asarray(point) * signs
            row = {"study": which, "number": number, "state": "COMPLETE", "reason": ""}
            for name, value in zip("ab", values, strict=True):
                row |= {f"validation: {name}": value, f"test: {name}": value + 10}
            rows.append(row)
    columns = ["study", "number", "state", "reason"]
    columns += [f"{part}: {name}" for name in "ab" for part in ("validation", "test")]
    return Results(
        name="made",
        date="2026-01-01",
        data_name="d",
        data_sha256="0",
        n_rows={},
        notes=[],
        objectives=["a", "b"],
        maximise=list(maximise),
        task_names=["t"],
        trials=pd.DataFrame(rows, columns=columns),
        seed=0,
        wanted={"search": len(search), "scalarization": len(scalarization)},
        machine={},
        versions={},
        estimators={("search", i): {"lr": i} for i in range(len(search))},
    )


def test_the_front_is_that_of_validation_best_first_objective_first():
    rows = front(results([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]]))
    assert rows["number"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("preference", "number"),
    [(None, 1), ([1, 1], 1), ([0, 1], 2), ([1, 0], 0), ([0.8, 0.2], 0), ([5, 95], 2)],
)
def test_a_preference_chooses_also_off_the_convex_hull(preference, number):
    chosen = choose(results(), preference)
    assert chosen.number == number
    assert chosen.n_front == 3
    assert chosen.params == {"lr": number}
    assert sum(chosen.preference.values()) == pytest.approx(1)
    assert chosen.validation == dict(zip("ab", POINTS[number], strict=True))
    assert chosen.test["a"] == POINTS[number][0] + 10


def test_every_point_of_a_front_is_somebodys_choice():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 3))
    values /= np.linalg.norm(values, axis=1, keepdims=True)  # on a sphere's far side: concave
    values = np.abs(values)
    ideal, nadir = values.min(axis=0), values.max(axis=0)
    z = (values - ideal) / (nadir - ideal) + 1e-9
    chosen = {int(np.argmin(chebyshev(values, 1 / row / (1 / row).sum()))) for row in z}
    assert len(chosen) > 36
    sums = {int(np.argmin(values @ w)) for w in rng.dirichlet(np.ones(3), 2000)}
    assert len(sums) < 10


def test_what_is_maximised_is_better_where_it_is_larger():
    chosen = choose(results(maximise=(False, True)), [0, 1])
    assert chosen.number == 2
    assert chosen.validation["b"] == 0


def test_of_objectives_in_different_units_none_wins_by_its_unit():
    points = [[0.0, 1000.0], [0.6, 600.0], [1.0, 0.0]]
    assert choose(results(points), [1, 1]).number == 1


def test_ties_go_to_the_point_that_is_no_worse():
    tied = np.array([[0.5, 0.5], [0.5, 0.4], [0.0, 1.0], [1.0, 0.0]])
    assert np.argmin(chebyshev(tied, np.array([0.5, 0.5]))) == 1


@pytest.mark.parametrize(
    ("preference", "words"),
    [
        ([0.2], "0.2 has 1 weights for 2 objectives; give one each: a, b"),
        ([1, -1], "1,-1 is not allowed"),
        ([0, 0], "not all 0"),
        ([1, float("nan")], "not allowed"),
    ],
)
def test_a_preference_that_does_not_fit_is_one_line(preference, words):
    with pytest.raises(StudyError, match=words):
        preferences(preference, ["a", "b"])


def test_without_a_complete_trial_there_is_no_choice():
    assert choose(results([])) is None
    assert hypervolume_so_far(results([])) is None


def test_the_hypervolume_is_a_share_of_the_box_of_both_fronts():
    assert hypervolume_so_far(results([[0.0, 0.0]], [[1.0, 1.0]])) == pytest.approx(1)
    corner = 0.1**2 / 1.1**2
    assert hypervolume_so_far(results([[1.0, 1.0]], [[0.0, 0.0]])) == pytest.approx(corner)


def test_a_kept_model_is_that_of_the_trial_or_one_line_says_what_to_do(tmp_path):
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 3)), columns=list("xyt"))
    chosen = choose(results())
    with pytest.raises(StudyError, match=r"is missing: another machine.*--refit"):
        kept(tmp_path, chosen)
    params = {"max_epochs": 1, "random_state": 0}
    model = fit_table(table, ["t"], params, about={"trial": 1, "params": {"lr": 1}})
    models.keep(tmp_path, "search", 1, model)
    assert Best(chosen, "made", tmp_path).model.predict(table).shape == (30, 1)
    models.keep(tmp_path, "search", 1, fit_table(table, ["t"], params, about={"trial": 7}))
    with pytest.raises(StudyError, match=r"another run.*--refit"):
        kept(tmp_path, chosen)
    models.path(tmp_path, "search", 1).write_bytes(b"\x80")
    with pytest.raises(StudyError, match=r"damaged.*--refit"):
        kept(tmp_path, chosen)


def test_best_says_which_trial_it_is():
    best = Best(choose(results()), "made", choosing.Path())
    assert best.number == 1
    assert "trial 1" in repr(best)
    assert best.objectives.loc["a", "validation"] == 0.6
