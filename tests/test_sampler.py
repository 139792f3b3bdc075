"""What the sampler of a study draws, and how many trials it may be asked for at once."""

import warnings

import optuna
import pytest

from mtlsk.sampler import START, SeededByTrial, may_be_asked


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
    study = optuna.create_study(sampler=SeededByTrial(3))
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
