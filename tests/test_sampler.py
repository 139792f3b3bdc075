"""What the sampler of a study draws, and how many trials it may be asked for at once."""

import warnings

import optuna
import pytest

from mtlsk.sampler import SAMPLERS, START, SeededByDraw, grid, may_be_asked, sampler_name
from mtlsk.studyfile import StudyError
from mtlsk.trials import draw_of, requeue


@pytest.mark.parametrize(
    ("told", "asked", "room"),
    [
        (0, 0, START),
        (0, 4, START - 4),
        (4, 4, START - 8),
        (0, START, 1),  # all random ones run: one more must not look random to the others
        (START, 0, START // 4),
        (START - 1, 1, 1),
        (40, 0, 10),
        (40, 7, 3),
        (40, 10, 1),
        (40, 90, 1),
    ],
)
def test_random_trials_at_once_and_then_a_quarter_of_those_told(told, asked, room):
    assert may_be_asked(told, asked) == room


def drawn(at_once, n=START + 6):
    """Numbers that a study of n trials draws, asked so many at once."""
    study = optuna.create_study(sampler=SeededByDraw(3))
    found = []
    while len(found) < n:
        asked = [(t, t.suggest_float("x", 0, 1)) for t in (study.ask() for _ in range(at_once))]
        for trial, x in asked:
            study.tell(trial, x)
            found.append(x)
    return found


def test_the_first_trials_are_random_also_one_by_one():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        together, alone = drawn(START), drawn(1)
    assert together[:START] == alone[:START]
    assert together[START : START + 6] != alone[START : START + 6]  # those look at results
    assert drawn(1) == alone


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_draws_by_seed_and_draw(name):
    """Also of two objectives and of parameters that only some trials have."""

    def run(seed, n):
        study = optuna.create_study(
            directions=["minimize"] * 2, sampler=SeededByDraw(seed, name.lower())
        )
        found = []
        for _ in range(n):
            trial = study.ask()
            x = trial.suggest_float("x", 0, 1)
            kind = trial.suggest_categorical("kind", ["a", "b"])
            y = trial.suggest_float("y", 0, 1) if kind == "a" else 0.5
            study.tell(trial, [x, (1 - x) ** 2 + y])
            found.append((x, kind, y))
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        first = run(3, START + 8)
        assert len({x for x, *_ in first[:START]}) == START
        assert run(3, START + 8) == first
        assert run(4, 2) != first[:2]


def test_a_sampler_that_there_is_not():
    assert sampler_name("nsga-ii") == "NSGA-II"
    with pytest.raises(
        StudyError, match=r"unknown sampler 'nsga2' \(did you mean 'NSGA-II'\?\).*GP"
    ):
        sampler_name("nsga2")


def test_a_trial_that_is_run_again_keeps_its_draw_and_the_others_theirs():
    study = optuna.create_study(sampler=SeededByDraw(0, "random"))
    values = {}
    for n in range(6):
        trial = study.ask()
        if n == 1:  # dies before it asked for anything
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            requeue(study, study.trials[1])
            continue
        values[trial.number] = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        study.tell(trial, 0.0)
    plain = optuna.create_study(sampler=SeededByDraw(0, "random"))
    wanted = []
    for _ in range(5):
        trial = plain.ask()
        # the order in which parameters are asked for makes no difference
        y, x = trial.suggest_float("y", 0, 1), trial.suggest_float("x", 0, 1)
        wanted.append((x, y))
        plain.tell(trial, 0.0)
    assert [draw_of(study, t) for t in study.trials] == [0, 1, 1, 2, 3, 4]
    assert sorted(values.values()) == sorted(wanted)


def test_a_grid_has_every_point_once_and_no_more():
    def suggest(trial):
        kind = trial.suggest_categorical("kind", ["a", "b"])
        trial.suggest_float("lr", 1e-4, 1e-2, log=True)
        if kind == "a":
            trial.suggest_int("n", 1, 2)
            trial.suggest_float("lr", 1e-4, 1e-2, log=True)  # again: the same

    points, whole = grid(suggest, 3, 100)
    assert not whole
    assert len(points) == 3 * 2 + 3 == len({str(sorted(p.items())) for p in points})
    assert sorted({p["lr"] for p in points}) == pytest.approx([1e-4, 1e-3, 1e-2])
    assert {p["n"] for p in points if p["kind"] == "a"} == {1, 2}
    assert all("n" not in p for p in points if p["kind"] == "b")
    assert len(grid(suggest, 3, 4)[0]) == 5
    assert grid(lambda trial: trial.suggest_categorical("k", [1, 2]), 2, 9)[1]
