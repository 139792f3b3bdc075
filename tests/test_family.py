"""Every aggregator there is: the contract, and each claimed property with its complement."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from sklearn.base import clone

from mtlsk.aggregators import (
    AGGREGATORS,
    FAMO,
    MGDA,
    PROPERTIES,
    Aggregator,
    AlignedMTL,
    CAGrad,
    ConicGrad,
    DynamicWeightAverage,
    FairGrad,
    GradNorm,
    GradVac,
    LinearScalarization,
    RandomWeighting,
    SDMGrad,
    SmoothTchebycheff,
    Tchebycheff,
    Torchjd,
)
from mtlsk.controllers import Controller
from mtlsk.descent import Descent
from mtlsk.taskmap import TaskMap
from mtlsk.testing import check_aggregator, gradients, holds

DEFAULTS = [cls() for cls in AGGREGATORS.members().values()]
OTHERS: list[Aggregator] = [
    LinearScalarization(weights=[0.8, 0.1, 0.1]),
    MGDA(normalization="l2"),
    MGDA(normalization="loss"),
    MGDA(normalization="loss+"),
    AlignedMTL(scale="median"),
    AlignedMTL(scale="rmse"),
    FairGrad(alpha=0.5),
    FairGrad(alpha=1.0),
    FairGrad(alpha=10.0),
    SDMGrad(lam=0.0),
    SDMGrad(lam=3.0),
    Torchjd(method="PCD"),
    CAGrad(c=0.0),
    CAGrad(c=1.0),
    ConicGrad(c=0.05),
    ConicGrad(c=1.0),
    ConicGrad(solver="flip"),
    ConicGrad(solver="printed"),
    ConicGrad(c="auto"),
    ConicGrad(c="auto", solver="flip"),
    ConicGrad(c="auto", solver="printed"),
    RandomWeighting(distribution="dirichlet"),
    DynamicWeightAverage(temperature=0.1, period=1),
    FAMO(lr=1.0, gamma=0.0),
    Tchebycheff(preference=[0.2, 0.2, 0.6], reference=1.0),
    Tchebycheff(preference=[0.6, 0.2, 0.2]),
    SmoothTchebycheff(mu=0.01),
    SmoothTchebycheff(preference=[0.6, 0.2, 0.2], reference=-1.0),
    GradNorm(alpha=0.0, lr=0.5),
    GradVac(beta=0.0),
    GradVac(beta=0.5),
]
"""Members with other parameters than their defaults."""
FAMILY = [*DEFAULTS, *OTHERS]


def listed(aggregator):
    """Say whether a parameter is a list of one number a task."""
    return any(isinstance(v, list) for v in aggregator.get_params().values())


@pytest.mark.parametrize("aggregator", FAMILY, ids=repr)
def test_the_contract(aggregator):
    check_aggregator(aggregator)


def test_every_member_is_found_by_its_own_name_and_says_where_it_is_from():
    for name, cls in AGGREGATORS.members().items():
        assert name == cls.__name__
        assert cls.cost, name
        assert cls.paper or cls is LinearScalarization, name
        assert cls.__module__ == f"mtlsk.aggregators.{cls.__module__.rpartition('.')[2]}"


def special_sets():
    """Yield J in which a small gradient is opposed by much larger ones."""
    yield torch.tensor([[-3.0, 0.02, 0.0], [10.0, 0.0, 0.0], [0.0, 0.0, 0.1]]).double()
    yield torch.tensor([[1.0, 0.0, 0.0], [-0.9, 0.1, 0.0], [-0.9, 0.0, 0.1]]).double()
    yield torch.tensor([[1.0, 0.0, 0.0], [-100.0, 1.0, 0.0], [0.0, 1.0, 1.0]]).double()


# four in a plane, all improved by some d: what holds of independent gradients need not here
FOUR_IN_A_PLANE = torch.tensor([[-0.4, 0.5], [-0.2, 0.2], [0.7, 0.4], [8.4, -5.6]]).double()
# check_aggregator tries the claims on the first 12 random ones
SETS = [*special_sets(), *(gradients(seed) for seed in range(12, 40)), FOUR_IN_A_PLANE]


def has_entries(aggregator):
    """Return whether a parameter has one entry a task, and so fits one K only."""
    return any(isinstance(value, list) for value in aggregator.get_params(deep=False).values())


@pytest.mark.parametrize("claim", PROPERTIES)
@pytest.mark.parametrize("aggregator", FAMILY, ids=repr)
def test_claimed_properties_hold_and_the_others_fail_somewhere(aggregator, claim):
    sets = [j for j in SETS if len(j) == 3 or not has_entries(aggregator)]
    held = (holds(claim, aggregator, j, calls) for j in sets for calls in (1, 5))
    if claim in aggregator.properties:
        assert all(held), f"{aggregator} is not {claim}"
    else:
        assert not all(held), f"{aggregator} seems to be {claim}: it may claim it"


@pytest.mark.parametrize("aggregator", FAMILY, ids=repr)
def test_one_unit_for_all_losses_changes_no_direction(aggregator):
    same = True
    for unit, j in itertools.product((1e-8, 1e6), SETS[:9]):
        losses = torch.linspace(1.0, 2.0, 3, dtype=torch.float64)
        ways = []
        for scale in (1.0, unit):
            with torch.random.fork_rng():
                torch.manual_seed(0)
                live = clone(aggregator)
                for _ in range(3):
                    w = live.task_weights(scale**2 * j @ j.T, scale * losses)
            ways.append((w @ j) / (w @ j).norm())
        same &= bool(torch.allclose(*ways, rtol=1e-6, atol=1e-9))
    assert same == aggregator.unit_free


@pytest.mark.parametrize("aggregator", FAMILY, ids=repr)
def test_equal_gradients_give_the_mean_gradient_at_most_rescaled(aggregator):
    """The weights are at the scale of the mean loss: no method sums over tasks."""
    g = torch.ones(3, 3, dtype=torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        w = clone(aggregator).task_weights(g, torch.ones(3, dtype=torch.float64))
    if getattr(aggregator, "preference", None) is not None:
        return  # the gradient of max_k lambda_k L_k is as long as the lambda of the argmax
    if not isinstance(aggregator, CAGrad) and getattr(aggregator, "solver", "") != "printed":
        assert math.isclose(float(w.sum()), 1, rel_tol=1e-6), w


def hostile_sets():
    """Yield J of three tasks that stop, mislead or overflow solvers."""
    j = gradients(0)
    for base in (j, gradients(1), gradients(2)):
        for scales in ([1.0, 1e6, 1e3], [1e6, 1e6, 1.0], [1e-6, 1.0, 1.0]):
            yield base * torch.tensor(scales, dtype=torch.float64)[:, None]
    for other in (-1.0, -1e3, 1.0, 1e6):
        for noise in (0.0, 1e-12, 1e-8, 1e-4):
            yield torch.stack([j[0], other * j[0] + noise * j[1], j[2]])
    yield torch.cat([j[:2], -j[:2].mean(0, keepdim=True)])
    yield torch.cat([j[:2], 1e-9 * j[2:]])
    yield 1e-140 * j
    yield 1e140 * j


@pytest.mark.parametrize("aggregator", FAMILY, ids=repr)
def test_hostile_sets_give_finite_weights_and_no_warning(aggregator):
    """numpy's warnings are errors here: nothing is divided by zero or overflows on the way."""
    for j in hostile_sets():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            live = clone(aggregator)
            for _ in range(3):
                w = live.task_weights(j @ j.T, torch.ones(3, dtype=torch.float64))
                assert bool(w.isfinite().all()), (j, w)


@pytest.mark.parametrize("aggregator", FAMILY, ids=repr)
@pytest.mark.parametrize("scale", [None, [2.0, 0.5, 1.0]])
def test_with_update_norm_mean_every_update_is_as_long_as_the_mean_gradient(aggregator, scale):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    module.shared_parameters = module[0].parameters
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    descent = Descent(
        module, optimizer, clone(aggregator), n_tasks=3, update_norm="mean",
        task_map=TaskMap(3, scale),
    )  # fmt: skip
    x, y = torch.randn(6, 20, 4), torch.randn(6, 20, 3) * torch.tensor([1.0, 3.0, 0.3])
    for xb, yb in zip(x, y, strict=True):
        record = descent.backward(((module(xb) - yb) ** 2).mean(0))
        w0 = torch.full((3,), 1 / 3, dtype=torch.float64)
        length = sum(float(d.double().square().sum()) for d in record.direction)
        assert length == pytest.approx(float(w0 @ record.gramian @ w0), rel=1e-4)
        optimizer.step()
        descent.observe(((module(xb) - yb) ** 2).mean(0))


class Reshapes(Controller):
    """Scales, merges and splits tasks on the way."""

    def adjust(self, record, gradients):
        changes = {1: ("task_scale", [2.0, 1.0, 0.5]), 3: ("task_groups", [[0, 2], [1]]),
                   6: ("task_scale", None), 7: ("task_groups", None)}  # fmt: skip
        return dict([changes[record.step]]) if record.step in changes else {}


@pytest.mark.parametrize("aggregator", [a for a in FAMILY if not listed(a)], ids=repr)
def test_tasks_may_be_scaled_merged_split_and_absent_on_the_way(aggregator):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    module.shared_parameters = module[0].parameters
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    descent = Descent(module, optimizer, clone(aggregator), Reshapes(), n_tasks=3)
    x, y = torch.randn(12, 20, 4), torch.randn(12, 20, 3)
    for step, (xb, yb) in enumerate(zip(x, y, strict=True)):
        present = [True, step % 3 != 2, step % 4 != 3]
        record = descent.backward(((module(xb) - yb) ** 2).mean(0), present)
        assert bool(record.weights.isfinite().all())
        assert record.weights[~torch.tensor(present)].tolist() == [0.0] * present.count(False)
        optimizer.step()
        descent.observe(((module(xb) - yb) ** 2).mean(0))
        if step % 4 == 3:
            descent.end_epoch()
