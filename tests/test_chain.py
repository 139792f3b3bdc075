"""Chain: several controllers in turn."""

from __future__ import annotations

import numpy as np
import pytest

from mtlsk import Controller, MultiTaskRegressor
from mtlsk.component import describe
from mtlsk.controllers import APT, CONTROLLERS, Chain, Change

X, Y = np.random.default_rng(0).standard_normal((2, 40, 3))


class Sets(Controller):
    """Sets the learning rate."""

    def __init__(self, value=0.1):
        self.value = value

    def adjust(self, record, gradients):
        return {"lr": Change(self.value, f"is {self.value}")}


def fitted(controller, **options):
    options = {"max_epochs": 2, "batch_size": 10, "random_state": 0, **options}
    return MultiTaskRegressor((4,), "ConicGrad", controller, **options).fit(X, Y)


def test_all_of_them_act_and_the_last_wins():
    net = fitted(Chain([Sets(0.1), {"name": "ConeAngle", "schedule": "linear"}, Sets(0.2)]))
    assert net.optimizer_.param_groups[0]["lr"] == 0.2
    assert {e["name"]: e["reason"] for e in net.history_[-1, "changes"]} == {
        "lr": "is 0.2",
        "aggregator__c": "linear schedule",
    }


def test_a_chain_of_one_is_that_one():
    alone, chained = fitted(APT(0.2, 0.8)), fitted(Chain([APT(0.2, 0.8)]))
    assert np.array_equal(alone.predict(X), chained.predict(X))
    assert alone.history_[:, "optimizer__momentum"] == chained.history_[:, "optimizer__momentum"]


def test_memory_is_that_of_each_by_its_place():
    net = fitted(Chain(["ConeAngle", "APT"]))
    state = net.controller_.state_dict()
    assert set(state["1 APT"]) == {"previous_", "beta_"}
    other = CONTROLLERS.build(Chain(["ConeAngle", "APT"])).load_state_dict(state)
    assert other.members[1].beta_ == net.controller_.members[1].beta_
    assert other.reset().state_dict() == {"0 ConeAngle": {}, "1 APT": {}}


def test_the_users_instances_are_never_touched():
    mine = APT()
    fitted(Chain([mine]))
    assert mine.state_dict() == {}


def test_one_in_a_chain_is_described_and_built_again():
    chain = Chain([APT(0.2, 0.8), "ConeAngle"])
    plain = describe(chain)
    assert plain == {
        "name": "Chain",
        "controllers": [{"name": "APT", "beta_min": 0.2, "beta_max": 0.8}, "ConeAngle"],
    }
    assert describe(CONTROLLERS.build(plain)) == plain


@pytest.mark.parametrize(
    ("controllers", "words"),
    [
        ("APT", "it must be a list of controllers"),
        ([1], "controller=1 is not understood"),
        (["ATP"], "unknown controller 'ATP' .did you mean 'APT'"),
        ([{"name": "APT", "beta_max": 2}], "beta_max=2 is not allowed"),
        (["APT", "SafeStep"], "APT and SafeStep would both drive momentum; take one"),
        (["SafeStep", Chain(["CertificateController"])], "SafeStep and Chain would both drive lr"),
        (["SafeStep"], "SafeStep bounds the plain step"),
    ],
)
def test_wrong_members_are_refused_before_training(controllers, words):
    with pytest.raises(ValueError, match=words):
        fitted(Chain(controllers))


def test_another_list_on_a_fitted_net_keeps_the_memory_of_those_that_stay():
    net = fitted(Chain(["APT", "ConeAngle"]))
    beta = net.controller_.members[0].beta_
    net.set_params(controller__controllers=["APT", "CertificateController", "ConeAngle"])
    assert net.controller_.members[0].beta_ == beta
    assert net.controller_.members[1].state_dict() == {}
    net.partial_fit(X, Y)
    net.set_params(controller__controllers=["ConeAngle"])
    assert net.controller_.members[0].state_dict() == {}
