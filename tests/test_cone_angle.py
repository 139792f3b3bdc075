"""ConeAngle: the angle follows the critical cone or a schedule, in the next step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mtlsk import Descent, MultiTaskRegressor
from mtlsk.certificates import critical_cone
from mtlsk.controllers import CONTROLLERS, ConeAngle
from mtlsk.estimators.live import build_component


def run(controller, steps=20, aggregator="ConicGrad", seed=0):
    """Return (c before the step, record, gradients of the losses) of each step."""
    torch.manual_seed(seed)
    module = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    x, y = torch.randn(steps, 6, 5), torch.randn(steps, 6, 3) * torch.tensor([0.1, 1.0, 3.0])
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    descent = Descent(module, optimizer, aggregator, controller, n_tasks=3)
    seen = []
    for xb, yb in zip(x, y, strict=True):
        c = descent.aggregator.c
        seen.append((c, descent.backward(((module(xb) - yb) ** 2).mean(0))))
        optimizer.step()
    return seen


def test_it_is_rho_times_the_critical_cosine_of_the_step_before():
    seen = run(ConeAngle(rho=0.8, c_max=0.9, c_min=0.1))
    assert seen[0][0] == 0.5  # the user's own, in the first step
    cosines = [critical_cone(record.gramian) for _, record in seen]
    assert min(cosines) < 0.9 < max(cosines)  # or the bounds would not be tested
    for (c, _), critical in zip(seen[1:], cosines, strict=False):
        assert c == pytest.approx(min(0.9, max(0.1, 0.8 * critical)))


def test_schedules_start_at_the_maximum_and_stay_at_the_minimum():
    linear = [c for c, _ in run(ConeAngle("linear", c_max=0.9, c_min=0.1, n_steps=8))]
    assert linear[1:10] == pytest.approx([0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1])
    assert linear[-1] == pytest.approx(0.1)
    cosine = [c for c, _ in run(ConeAngle("cosine", c_max=0.1, c_min=0.9, n_steps=4))]
    halves = 0.1 + 0.8 * (1 - np.cos(np.pi * np.array([0.25, 0.5, 0.75, 1.0]))) / 2
    assert cosine[1:5] == pytest.approx(halves.tolist())


def test_it_is_refused_where_there_is_no_cone():
    for wrong in ("CAGrad", "MGDA", "LinearScalarization"):
        with pytest.raises(ValueError, match=f"cone of ConicGrad, and {wrong} has none"):
            run(ConeAngle(), aggregator=wrong)
    with pytest.raises(ValueError, match=r"c_min=0.9 is above c_max=0.5; exchange them"):
        run(build_component(CONTROLLERS, "ConeAngle", {"c_min": 0.9, "c_max": 0.5}))


def test_with_kept_weights_the_angle_is_kept_too():
    X, y = np.random.default_rng(0).standard_normal((2, 48, 3))
    net = MultiTaskRegressor(
        (4,), "ConicGrad", "ConeAngle", gramian={"name": "exact", "every": 3}, max_epochs=1,
        batch_size=8, random_state=0,
    )  # fmt: skip
    entries = net.fit(X, y).history_[-1, "changes"]
    assert [(e["step"], e["n"]) for e in entries] == [(0, 1), (3, 1)]  # of 6 steps
    assert entries[0]["reason"] == "0.9 of the critical cosine"
    assert net.aggregator_.c == entries[-1]["value"] != net.get_params()["aggregator"]
