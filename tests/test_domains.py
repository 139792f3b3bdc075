"""Domains: what is a member, what is printed, what a trial is asked for."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import optuna
import pytest

from mtlsk.domains import Choice, Domain, Either, Interval, PerTask, Simplex, is_real


class FakeTrial:
    """Writes down what it is asked; answers with the share ``at`` of the way from low to high."""

    def __init__(self, at=0.5):
        self.at, self.asked = at, {}

    def suggest_float(self, name, low, high, *, step=None, log=False):
        self.asked[name] = ("float", low, high, log)
        return low + self.at * (high - low)

    def suggest_int(self, name, low, high, *, step=1, log=False):
        self.asked[name] = ("int", low, high, log)
        return round(low + self.at * (high - low))

    def suggest_categorical(self, name, choices):
        self.asked[name] = ("categorical", choices)
        return choices[-1]


@pytest.mark.parametrize(
    "domain", [Interval(0, 1), Choice("a"), Simplex(), Either(Choice("a"), (None,))]
)
def test_every_domain_follows_the_protocol(domain):
    assert isinstance(domain, Domain)
    assert domain.resolve({}) == domain


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), np.int64(1), Fraction(1, 3)])
def test_real_numbers_are_members(value):
    assert is_real(value)
    assert value in Interval(0, 1)


@pytest.mark.parametrize(
    "value", [True, False, np.True_, math.nan, math.inf, "0.5", None, [0.5], 1j, np.array(0.5)]
)
def test_no_bool_nan_text_or_container_is_a_number(value):
    assert value not in Interval(0, 1)


def test_ends_are_members_unless_left_out():
    closed = Interval(0, 1)
    open_ = Interval(0, 1, open_low=True, open_high=True)
    assert [v in closed for v in (-1e-9, 0, 1, 1 + 1e-9)] == [False, True, True, False]
    assert [v in open_ for v in (0, 1e-9, 1 - 1e-9, 1)] == [False, True, True, False]
    # each side on its own
    assert 0 not in Interval(0, 1, open_low=True)
    assert 1 in Interval(0, 1, open_low=True)
    assert 0 in Interval(0, 1, open_high=True)
    assert 1 not in Interval(0, 1, open_high=True)


def test_an_infinite_end_is_open():
    assert 1e300 in Interval(0, math.inf)
    assert math.inf not in Interval(0, math.inf)
    assert -math.inf not in Interval(-math.inf, 0)


def test_a_number_too_large_for_a_float_is_judged_and_does_not_crash():
    assert 10**400 not in Interval(0, 1)


def test_integers_only():
    whole = Interval(1, 8, integer=True)
    assert [v in whole for v in (1, 8, np.int32(3), 3.0, 2.5, True)] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]


def test_a_sibling_bound_must_be_resolved_before_use():
    upper = Interval("beta_min", 0.999, open_high=True, log=True, search=(0.1, 0.9))
    with pytest.raises(ValueError, match=r"beta_min.*resolve it first"):
        assert 0.5 in upper
    resolved = upper.resolve({"beta_min": 0.4, "other": 7})
    assert [v in resolved for v in (0.3, 0.4, 0.998, 0.999)] == [False, True, True, False]
    assert (resolved.low, resolved.high) == (0.4, 0.999)
    assert resolved == Interval(0.4, 0.999, open_high=True, log=True, search=(0.1, 0.9))
    assert Interval(0, "top").resolve({"top": 2.0}) == Interval(0, 2.0)
    assert 0.3 not in Either(upper, (None,)).resolve({"beta_min": 0.4})
    assert None in Either(upper, (None,)).resolve({"beta_min": 0.4})


@pytest.mark.parametrize(
    ("domain", "text"),
    [
        (Interval(0.0, 1.0), "a number in [0, 1]"),
        (Interval(0.0, 1.0, open_low=True, open_high=True), "a number in (0, 1)"),
        (Interval(-math.inf, math.inf), "a number in (-inf, inf)"),
        (Interval(1, 8, integer=True), "an integer in [1, 8]"),
        (Interval("beta_min", 0.999), "a number in [beta_min, 0.999]"),
        (Choice("exact", 1, None), "one of 'exact', 1, None"),
        (Simplex(), "a list of one non-negative number a task, not all zero"),
        (
            Simplex(optional=True),
            "a list of one non-negative number a task, not all zero (or None: all equal)",
        ),
        (Either(Interval(0, 1), (None,)), "a number in [0, 1], or None"),
    ],
)
def test_what_is_printed(domain, text):
    assert str(domain) == text


@pytest.mark.parametrize(
    ("domain", "asked"),
    [
        (Interval(0.0, 2.0), ("float", 0.0, 2.0, False)),
        (Interval(0.1, 2.0, log=True), ("float", 0.1, 2.0, True)),
        (Interval(0.0, math.inf, search=(0.25, 4.0)), ("float", 0.25, 4.0, False)),
        (Interval(0.5, 1.0, search=(0.25, 4.0)), ("float", 0.5, 1.0, False)),
        (Interval(1, 8, integer=True), ("int", 1, 8, False)),
        (Interval(0.5, 8.5, integer=True, log=True), ("int", 1, 8, True)),
        (Interval(1, 8, integer=True, open_low=True, open_high=True), ("int", 2, 7, False)),
        (Choice("a", "b"), ("categorical", ("a", "b"))),
        (Either(Interval(0.0, 2.0), (None,)), ("float", 0.0, 2.0, False)),
    ],
)
def test_what_a_trial_is_asked(domain, asked):
    trial = FakeTrial()
    domain.suggest(trial, "aggregator[X]__c", 3)
    assert trial.asked == {"aggregator[X]__c": asked}


@pytest.mark.parametrize("at", [0.0, 1.0])
@pytest.mark.parametrize(
    "domain",
    [
        Interval(0.0, 1.0, open_low=True, open_high=True),
        Interval(0.0, 1.0, open_low=True, log=True),
        Interval(2, 5, integer=True, open_low=True, open_high=True),
        Interval("a", 1.0, open_high=True, search=(0.0, 0.9)).resolve({"a": 0.2}),
        Choice("a", "b"),
        Either(Interval(1.0, 2.0), (None,)),
        Simplex(),
        Simplex(total="n_tasks"),
    ],
    ids=str,
)
def test_the_ends_of_what_is_searched_are_members(domain, at):
    assert domain.suggest(FakeTrial(at), "x", 4) in domain


@pytest.mark.parametrize(
    "domain",
    [
        Interval("a", 1.0, open_low=True, search=(0.0, 0.9)).resolve({"a": 0.2}),
        Interval(0.0, 1.0, open_low=True, search=(0.0, 0.9)),
    ],
    ids=str,
)
def test_an_open_end_inside_the_searched_part_is_left_out(domain):
    assert domain.suggest(FakeTrial(0.0), "x", 4) in domain


@pytest.mark.parametrize(
    ("domain", "match"),
    [
        (Interval(0.0, math.inf), "x: .*no end to search to.*search"),
        (Interval(0.95, 1.0, search=(0.0, 0.9)), "x: nothing to search between 0.95 and 0.9"),
        (Interval("low", 1.0), "resolve it first"),
    ],
)
def test_what_cannot_be_searched_says_so(domain, match):
    with pytest.raises(ValueError, match=match):
        domain.suggest(FakeTrial(), "x", 2)


def test_choices_are_compared_by_value_and_type():
    choice = Choice(1, "exact", None)
    assert [v in choice for v in (1, "exact", None)] == [True] * 3
    assert [v in choice for v in (True, 1.0, "Exact", 2, [1])] == [False] * 5


@pytest.mark.parametrize("value", [[1.0, 2], (0, 1), [0.2] * 7, [np.float64(0.5), 0]])
def test_one_non_negative_number_a_task_is_in_the_simplex(value):
    assert value in Simplex()  # no sum is asked for


@pytest.mark.parametrize(
    "value",
    [[], [0, 0], [-1, 2], [math.nan, 1], [math.inf, 1], "11", b"11", 1.0, [True, 1], ["1"], {1: 2}],
)
def test_anything_else_is_not(value):
    assert value not in Simplex(optional=True)


def test_none_is_a_member_only_where_it_is_said():
    assert None in Simplex(optional=True)
    assert None not in Simplex()
    assert None not in Interval(0, 1)
    assert None in Either(Interval(0, 1), (None,))
    assert 2 not in Either(Interval(0, 1), (None,))


@pytest.mark.parametrize(("total", "expected"), [("one", 1.0), ("n_tasks", 4.0)])
def test_a_searched_simplex_has_its_total(total, expected):
    trial = FakeTrial(0.25)
    point = Simplex(total=total).suggest(trial, "scale", 4)
    assert list(trial.asked) == ["scale[0]", "scale[1]", "scale[2]", "scale[3]"]
    assert sum(point) == pytest.approx(expected, abs=1e-12)
    assert point == pytest.approx([expected / 4] * 4)  # equal answers: its centre


def test_uniform_numbers_give_a_uniform_point_of_the_simplex():
    rng = np.random.default_rng(0)

    class Uniform(FakeTrial):
        def suggest_float(self, name, low, high, *, step=None, log=False):
            return rng.uniform(low, high)

    points = np.array([Simplex().suggest(Uniform(), "w", 3) for _ in range(4000)])
    # uniform on the triangle: mean 1/3, second moment 1/6, P(x_1 > 1/2) = 1/4
    np.testing.assert_allclose(points.mean(0), 1 / 3, atol=0.02)
    np.testing.assert_allclose((points**2).mean(0), 1 / 6, atol=0.02)
    np.testing.assert_allclose((points > 0.5).mean(0), 1 / 4, atol=0.03)


def test_a_fixed_trial_of_optuna_gives_what_was_fixed():
    trial = optuna.trial.FixedTrial({"c": 0.5, "n": 3, "s": "flip", "w[0]": 0.5, "w[1]": 0.25})
    assert Interval(0, 1).suggest(trial, "c", 2) == 0.5
    assert Interval(1, 8, integer=True).suggest(trial, "n", 2) == 3
    assert Choice("exact", "flip").suggest(trial, "s", 2) == "flip"
    assert Simplex().suggest(trial, "w", 2) == pytest.approx([1 / 3, 2 / 3])  # ln 2 : 2 ln 2


def test_a_real_trial_of_optuna_samples_members():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    domains = {
        "c": Interval(0.0, 1.0, open_low=True, search=(0.05, 0.99)),
        "lr": Interval(0.0, math.inf, open_low=True, log=True, search=(1e-3, 1e-1)),
        "n": Interval(1, 4, integer=True, open_high=True),
        "solver": Choice("exact", "flip"),
        "scale": Simplex(total="n_tasks"),
    }
    seen = set()
    for _ in range(20):
        trial = study.ask()
        for name, domain in domains.items():
            value = domain.suggest(trial, name, 3)
            assert value in domain
            seen.add((name, value) if name in ("n", "solver") else name)
        study.tell(trial, 0.0)
    assert {("n", 1), ("n", 2), ("n", 3), ("solver", "exact"), ("solver", "flip")} <= seen
    assert study.trials[0].distributions["lr"].log


def test_words_besides_a_number():
    domain = Either(Interval(0.0, 1.0), ("auto",))
    assert "auto" in domain
    assert 0.5 in domain
    for wrong in ("Auto", None, 1.5, [0.5], "mean"):
        assert wrong not in domain
    assert str(domain) == "a number in [0, 1], or 'auto'"


def test_a_number_or_one_a_task():
    domain = PerTask(Interval("low", 1.0)).resolve({"low": 0.25})
    for right in (0.25, [0.25, 1.0], (0.5,)):
        assert right in domain
    for wrong in (0.2, [0.5, 0.2], [], "0.5", None, [None], [True]):
        assert wrong not in domain
    assert str(domain) == "a number in [0.25, 1], or a list of such numbers, one a task"
