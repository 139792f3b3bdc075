"""Every controller there is: the contract, and what the history says of its changes."""

from __future__ import annotations

import math
import pickle
import random

import numpy as np
import pytest
import torch

from mtlsk import Controller, MultiTaskRegressor
from mtlsk.controllers import (
    APT,
    CONTROLLERS,
    CertificateController,
    Chain,
    Change,
    ConeAngle,
    SafeStep,
)
from mtlsk.testing import check_controller


def sgd(params):
    return torch.optim.SGD(params, lr=0.1)


def eager(**options):
    """Return a controller that acts within ten steps."""
    options = {"kappa_max": 1.01, "window": 2, "period": 1, "smoothing": 1.0, **options}
    return CertificateController(**options)


DEFAULTS = [cls() for cls in CONTROLLERS.members().values()]
OTHERS = [
    ConeAngle("linear", n_steps=4),
    ConeAngle("cosine", n_steps=4),
    SafeStep("gram"),
    SafeStep(beta=2.0),
    eager(),
    eager(repeats=0),
    eager(form="groups", threshold=0.01, patience=1, cooldown=0),
    Chain([]),
    Chain(["ConeAngle", {"name": "APT", "beta_max": 0.7}]),
    Chain([APT(), Chain([eager()])]),
]


@pytest.mark.parametrize("controller", [*DEFAULTS, *OTHERS], ids=repr)
def test_the_contract(controller):
    check_controller(controller, sgd if isinstance(controller, SafeStep) else None)


def test_every_member_is_found_by_its_own_name_and_says_where_it_is_from():
    for name, cls in CONTROLLERS.members().items():
        assert name == cls.__name__
        assert cls.paper or cls is Chain, name


class Breaks(APT):
    """Does one thing the contract forbids."""

    domains = {}

    def __init__(self, how="no reason"):
        super().__init__()
        self.how = how

    def reset(self):
        return self if self.how == "no reset" else super().reset()

    def adjust(self, record, gradients):
        changes = dict(super().adjust(record, gradients))
        if self.how == "no reason":
            return {name: change.value for name, change in changes.items()}
        if self.how == "hidden memory":
            self._seen = getattr(self, "_seen", 0) + 1
            return {"lr": Change(0.1 / self._seen, "counts")}
        if self.how == "no reset":
            self.calls_ = getattr(self, "calls_", 0) + 1
            return {"lr": Change(0.1 / self.calls_, "counts")}
        if self.how == "by chance":
            return {"lr": Change(random.random(), "drawn")}
        if self.how == "not finite":
            return {"optimizer__eps": Change(math.inf, "large")}
        if self.how == "one task" and len(record.losses) == 1:
            return {"lr": 0.1}
        if self.how == "own parameter":
            self.how = "altered"
        return changes


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("no reason", "no reason for a change"),
        ("hidden memory", "state_dict does not hold"),
        ("own parameter", "altered its own parameters"),
        ("no reset", r"another run after reset\(\)"),
        ("by chance", "two runs make other changes"),
        ("not finite", "optimizer__eps = inf"),
        ("one task", "no reason for a change of lr"),
    ],
)
def test_the_contract_notices(how, words):
    with pytest.raises(AssertionError, match=words):
        check_controller(Breaks(how))


class Twice(Controller):
    """Sets the learning rate in every step, with another reason every second time."""

    def adjust(self, record, gradients):
        return {
            "lr": Change(0.01 + 0.001 * record.step, "even" if record.step % 4 < 2 else "odd"),
            "task_scale": [1.0, 1.0],
        }


def test_the_history_has_every_change_with_its_reason():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 3)), rng.standard_normal((60, 2))
    net = MultiTaskRegressor((4,), controller=Twice(), max_epochs=2, batch_size=10, random_state=0)
    net.fit(X, y)
    rows = net.history_[:, "changes"]
    assert len(rows) == 2
    lr = [entry for row in rows for entry in row if entry["name"] == "lr"]
    assert [(e["step"], e["n"], e["reason"]) for e in lr] == [
        (0, 2, "even"),
        (2, 2, "odd"),
        (4, 2, "even"),
        (6, 2, "odd"),
        (8, 2, "even"),
        (10, 2, "odd"),
    ]
    assert [e["value"] for e in lr] == pytest.approx([0.011, 0.013, 0.015, 0.017, 0.019, 0.021])
    scales = [entry for entry in rows[0] if entry["name"] == "task_scale"]
    assert scales == [{"step": 0, "name": "task_scale", "value": [1.0, 1.0], "reason": "", "n": 6}]
    assert net.history_[:, "lr"] == pytest.approx([0.0125, 0.0185])  # the mean of each epoch


class Now(Controller):
    """Sets the learning rate in some steps, for the same reason."""

    def adjust(self, record, gradients):
        return {"lr": Change(0.1 + record.step, "again")} if record.step in (0, 1, 4) else {}


def test_the_same_reason_in_a_later_step_is_an_entry_of_its_own():
    X, y = np.random.default_rng(0).standard_normal((2, 60, 2))
    net = MultiTaskRegressor((4,), controller=Now(), max_epochs=1, batch_size=10, random_state=0)
    entries = net.set_params(lr=1e-6, optimizer="SGD").fit(X * 0, y * 0).history_[-1, "changes"]
    assert [(e["step"], e["n"], e["value"]) for e in entries] == [(0, 2, 1.1), (4, 1, 4.1)]


def test_without_a_controller_nothing_is_changed():
    net = MultiTaskRegressor((4,), max_epochs=1).fit(np.ones((8, 2)), np.ones((8, 2)))
    assert net.history_[:, "changes"] == [[]]


def test_a_bound_controller_pickles_without_the_optimizer():
    net = MultiTaskRegressor((4,), controller="APT", max_epochs=1)
    net.fit(np.ones((8, 2)), np.ones((8, 2)))
    assert len(pickle.dumps(net.controller_)) < 5000
    again = pickle.loads(pickle.dumps(net)).partial_fit(np.ones((8, 2)), np.ones((8, 2)))
    assert again.controller_.beta_ == again.optimizer_.param_groups[0]["betas"][0]


def test_one_that_looks_at_the_gramian_gets_it_from_any_aggregator_and_refuses_online():
    X, y = np.random.default_rng(0).standard_normal((2, 40, 3))
    net = MultiTaskRegressor((4,), controller=eager(), max_epochs=1, batch_size=4, random_state=0)
    assert net.fit(X, y).history_[:, "min_cosine"]
    net.set_params(aggregator="MGDA", gramian="online")
    with pytest.raises(ValueError, match="'online' computes no Gramian, which CertificateCon") as e:
        net.fit(X, y)
    assert str(e.value).endswith("; it can use: auto, budget, exact, features")
