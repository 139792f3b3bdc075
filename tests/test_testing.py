"""The contract of aggregators: each of its checks notices the one thing that is broken."""

from __future__ import annotations

import math

import pytest
import torch

from mtlsk.aggregators import Aggregator, OnlineDual
from mtlsk.aggregators.base import require_gramian, require_losses
from mtlsk.domains import Interval
from mtlsk.testing import check_aggregator, gradients, holds


class Breaks(Aggregator):
    """The mean gradient, but for one thing the contract forbids."""

    domains = {"share": Interval(0.0, 1.0)}

    def __init__(self, how="nothing", share=0.5):
        self.how = how
        self.share = share

    def __setstate__(self, state):
        super().__setstate__(state)
        if self.how == "pickle":
            self.share = 0.25

    def __reduce__(self):
        return (Careless, ()) if self.how == "class" else super().__reduce__()

    def reset(self):
        if self.how == "hidden memory":
            self._calls = 0
        return super().reset()

    def task_weights(self, gramian, losses):
        w = torch.full_like(losses, 1 / len(losses))
        if self.how == "float32":
            return w.float()
        if self.how == "zero gradient":
            return w / gramian.diagonal()
        if self.how == "zero loss":
            return w / losses
        if self.how == "Gramian":
            gramian[0, 0] += 1
        if self.how == "losses":
            losses += 1
        if self.how == "order":
            return w * torch.arange(1, len(w) + 1)
        if self.how == "unit":
            return w / (1 + gramian.diagonal())
        if self.how == "random":
            return torch.rand(len(w), dtype=torch.float64)
        if self.how == "no reset":
            self.calls = getattr(self, "calls", 0) + 1
            return w * self.calls
        if self.how == "hidden memory":
            self._calls = getattr(self, "_calls", 0) + 1
            return w * self._calls
        if self.how == "overflow":
            self.calls_ = getattr(self, "calls_", 0) + 1
            return w if self.calls_ < 4 else w * math.inf
        return w


def test_what_breaks_nothing_passes():
    check_aggregator(Breaks())
    check_aggregator(Careless())
    check_aggregator(Dual())


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("pickle", "parameters changed"),
        ("class", "another class after a round trip"),
        ("float32", "random, K = 2: torch.float32, not float64"),
        ("zero gradient", "zero row: weights"),
        ("zero loss", "a loss of 0: weights"),
        ("Gramian", "changed the Gramian in place"),
        ("losses", "changed the losses in place"),
        ("order", "permuted tasks change the update"),
        ("unit", "another direction in another unit"),
        ("random", "must say stochastic = True"),
        ("no reset", r"another answer after reset\(\)"),
        ("hidden memory", "state_dict does not hold all of the memory"),
        ("overflow", r"weights \[inf"),
    ],
)
def test_the_contract_notices(how, words):
    with pytest.raises(AssertionError, match=words):
        check_aggregator(Breaks(how))


def test_a_parameter_out_of_its_domain_is_noticed():
    with pytest.raises(ValueError, match=r"share=2.0 is not allowed"):
        check_aggregator(Breaks(share=2.0))


class Unchecked:
    """No aggregator: nobody looks at what this is called with, nor at what it returns."""

    def task_weights(self, gramian, losses):
        if self.how == "remembers":
            self.last_ = losses
        if self.how != "takes anything":
            try:
                gramian = require_gramian(self, gramian)
                losses = require_losses(self, losses, gramian)
            except ValueError as error:
                raise ValueError("no task" if self.how == "names none" else str(error)) from error
        return torch.ones(len(losses) + (self.how == "shape"), dtype=torch.float64)


class Careless(Unchecked, Aggregator):
    """Aggregates by a method that it inherits from elsewhere."""

    def __init__(self, how="nothing"):
        self.how = how


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("shape", r"shape \(3,\), not \(2,\)"),
        ("takes anything", "a loss of nan gives"),
        ("names none", "a loss of nan names no task: no task"),
        ("remembers", "a loss of nan is remembered"),
    ],
)
def test_refusals_and_shapes_are_noticed_where_the_base_class_sees_neither(how, words):
    with pytest.raises(AssertionError, match=words):
        check_aggregator(Careless(how))


class Claims(Aggregator):
    """The mean gradient, or in later calls the sum of all, that claims too much."""

    def __init__(self, claim="colourful", later=False):
        self.claim = claim
        self.later = later

    @property
    def properties(self):
        return frozenset({self.claim})

    def task_weights(self, gramian, losses):
        self.calls_ = getattr(self, "calls_", 0) + 1
        return torch.full_like(losses, 1 if self.later and self.calls_ > 1 else 1 / len(losses))


@pytest.mark.parametrize(
    ("claim", "later", "words"),
    [
        ("colourful", False, r"claims \['colourful'\]; known: non-conflicting"),
        ("non-conflicting", False, r"is not non-conflicting on gradients\(\d+\), call 1"),
        ("scale-invariant", False, r"is not scale-invariant on gradients\(0\), call 1"),
        ("stationary", False, r"is not stationary on gradients\(0\), call 1"),
        ("simplex", True, r"is not simplex on gradients\(0\), call 5"),
        ("mean length", True, r"is not mean length on gradients\(0\), call 5"),
    ],
)
def test_false_claims_are_noticed(claim, later, words):
    with pytest.raises(AssertionError, match=words):
        check_aggregator(Claims(claim, later))


class Balance(Aggregator):
    """Zero where the gradients sum to zero with given weights, and else the mean gradient."""

    def __init__(self, balance):
        self.balance = balance

    def task_weights(self, gramian, losses):
        w = torch.tensor(self.balance, dtype=torch.float64)
        zero = bool(w @ gramian @ w <= 1e-12 * gramian.diagonal().max())
        return w if zero else torch.full_like(losses, 1 / len(losses))


def test_stationary_means_all_tasks_in_balance_and_two_of_them():
    assert not holds("stationary", Balance([0.25, 0.25, 0.5]), gradients(0))
    assert not holds("stationary", Balance([0.5, 0.0, 0.5]), gradients(0))


class Dual(OnlineDual, Aggregator):
    """The mean of g_0 and g_w, but for one thing that an online dual may not do."""

    def __init__(self, how="nothing"):
        self.how = how

    def task_weights(self, gramian, losses):
        return torch.full_like(losses, 1 / len(losses))

    def coefficients(self, s0, b, r):
        if self.how == "not finite":
            return 0.5, 0.5 if float(s0) else math.inf
        return (0.5, 0.25) if self.how == "floats" and isinstance(s0, float) else (0.5, 0.5)

    def advance(self, progress, lr=0.1):
        moved = super().advance(progress, lr)
        if self.how == "sum":
            return 2 * moved
        return moved - torch.eye(len(moved))[0] + 1 / len(moved) if self.how == "sign" else moved


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("not finite", r"opposite rows: coefficients \[0.5, inf\]"),
        ("floats", r"\[0.5, 0.25\] from floats, \[0.5, 0.5\] from tensors"),
        ("sum", "dual weights"),
        ("sign", "dual weights"),
    ],
)
def test_the_contract_of_online_duals_notices(how, words):
    with pytest.raises(AssertionError, match=words):
        check_aggregator(Dual(how))
