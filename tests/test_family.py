"""Every aggregator there is: the contract, and each claimed property with its complement."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.base import clone

from mtlsk.aggregators import (
    AGGREGATORS,
    FAMO,
    PROPERTIES,
    Aggregator,
    CAGrad,
    ConicGrad,
    DynamicWeightAverage,
    GradNorm,
    GradVac,
    LinearScalarization,
    RandomWeighting,
    SmoothTchebycheff,
    Tchebycheff,
)
from mtlsk.testing import check_aggregator, gradients, holds

DEFAULTS = [cls() for cls in AGGREGATORS.members().values()]
OTHERS: list[Aggregator] = [
    LinearScalarization(weights=[0.8, 0.1, 0.1]),
    CAGrad(c=0.0),
    CAGrad(c=1.0),
    ConicGrad(c=0.05),
    ConicGrad(c=1.0),
    ConicGrad(solver="flip"),
    ConicGrad(solver="printed"),
    RandomWeighting(distribution="dirichlet"),
    DynamicWeightAverage(temperature=0.1, period=1),
    FAMO(lr=1.0, gamma=0.0),
    Tchebycheff(reference=1.0),
    Tchebycheff(preference=[0.6, 0.2, 0.2]),
    SmoothTchebycheff(mu=0.01),
    SmoothTchebycheff(preference=[0.6, 0.2, 0.2], reference=-1.0),
    GradNorm(alpha=0.0, lr=0.5),
    GradVac(beta=0.0),
    GradVac(beta=0.5),
]
"""Members with other parameters than their defaults."""
FAMILY = [*DEFAULTS, *OTHERS]


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


SETS = [*special_sets(), *(gradients(seed) for seed in range(40))]


@pytest.mark.parametrize("claim", PROPERTIES)
@pytest.mark.parametrize("aggregator", FAMILY, ids=repr)
def test_claimed_properties_hold_and_the_others_fail_somewhere(aggregator, claim):
    held = (holds(claim, aggregator, j, calls) for j in SETS for calls in (1, 5))
    if claim in aggregator.properties:
        assert all(held), f"{aggregator} is not {claim}"
    else:
        assert not all(held), f"{aggregator} seems to be {claim}: it may claim it"


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
