"""Members trained together are the nets that one-by-one training gives."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from mtlsk import DivergenceError, MultiTaskRegressor
from mtlsk.estimators.together import ELEMENTWISE, fit_together, twin, why_apart

RNG = np.random.default_rng(0)
X = RNG.normal(size=(70, 4)).astype(np.float32)
Y = np.c_[X @ [1.0, -1.0, 0.5, 0.0], X[:, 0] ** 2, np.sin(2 * X[:, 1])].astype(np.float32)
GAPS = np.where(RNG.random(Y.shape) < 0.4, np.nan, Y)
WEIGHTS = np.vstack([np.full(3, 1 / 3), [1.0, 0.0, 0.0], [2.0, 0.5, 1.5]])
RATES = [0.02, 1e-3, 0.05]


@pytest.fixture
def one_thread():
    """Threads share numbers out, and each rounds its last few in another way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(**params):
    small = {"hidden_layer_sizes": (8, 6), "max_epochs": 4, "batch_size": 16, "random_state": 3}
    return MultiTaskRegressor(**{**small, "lr": 0.01, **params})


def alone(p, y=Y, lrs=None, **params):
    spec = {"name": "LinearScalarization", "weights": WEIGHTS[p].tolist()}
    rate = {} if lrs is None else {"lr": lrs[p]}
    return make(**{**params, **rate}, aggregator=spec).fit(X, y)


def together(y=Y, lrs=None, **params):
    return fit_together(make(**params).initialize_for(X, y), WEIGHTS[:, : width(y)], lrs, X, y)


def width(y):
    return 1 if y.ndim == 1 else y.shape[1]


def absolute(prediction, label):
    return (prediction[:, 0] - label).abs()


CASES = {
    "as it is": {},
    "linear": {"hidden_layer_sizes": ()},
    "three layers": {"hidden_layer_sizes": [8, 8, 8]},
    "no bias, skip": {"module__bias": False, "module__skip": True},
    "tanh": {"activation": "tanh"},
    "gelu": {"activation": "gelu"},
    "logistic": {"activation": "logistic"},
    "SGD": {"optimizer": "SGD"},
    "SGD with momentum and decay": {
        "optimizer": {"name": "SGD", "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}
    },
    "Adam": {"optimizer": "Adam", "optimizer__weight_decay": 0.1, "optimizer__amsgrad": True},
    "AdamW": {"optimizer__weight_decay": 0.1, "optimizer__momentum": 0.5},
    "torch's AdamW": {"optimizer": torch.optim.AdamW},
    "RMSprop": {"optimizer": "RMSprop", "optimizer__momentum": 0.5, "lr": 1e-3},
    "NAdam": {"optimizer": "NAdam"},
    "foreach": {"optimizer__foreach": True},
    "absolute error": {"criterion": "absolute_error"},
    "huber": {"criterion": "huber"},
    "own criterion": {"criterion": absolute},
    "task_scale": {"task_scale": [1.0, 3.0, 0.2]},
    "missing labels": {"y": GAPS},
    "batches without any label of a task": {"y": GAPS, "batch_size": 2},
    "missing labels, scaled": {"y": GAPS, "task_scale": [1.0, 3.0, 0.2], "criterion": "huber"},
    "one batch": {"batch_size": -1},
    "batches of one": {"batch_size": 1, "max_epochs": 1},
    "last batch dropped": {"iterator_train__drop_last": True},
    "not shuffled": {"iterator_train__shuffle": False},
    "no epochs": {"max_epochs": 0},
}


@pytest.mark.parametrize("params", CASES.values(), ids=CASES)
def test_each_member_is_the_net_fitted_alone(params):
    for p, member in enumerate(together(**params)):
        same(member, alone(p, **params), params.get("y", Y))


# where rates enter: the optimizer's steps, and how many of them there are
RATED = {n: p for n, p in CASES.items() if any(k.startswith(("optim", "batch")) for k in p)}


@pytest.mark.parametrize("params", [{}, *RATED.values()], ids=["as it is", *RATED])
def test_each_member_has_its_own_rate(params):
    lrs = [lr / 10 for lr in RATES] if "lr" in params else RATES
    for p, member in enumerate(together(lrs=lrs, **params)):
        same(member, alone(p, lrs=lrs, **params), params.get("y", Y))


def same(member, net, y):
    """Compare parameters, predictions, history, and what a further pass makes of them."""
    for a, b in zip(member.module_.parameters(), net.module_.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        assert a.is_contiguous()
    np.testing.assert_allclose(member.predict(X), net.predict(X), atol=2e-5)
    assert member.lr == net.lr
    assert repr(clone(member)) == repr(clone(net))
    assert member.aggregator_.weights == net.aggregator_.weights
    assert len(member.history_) == len(net.history_)
    for row, wanted in zip(member.history_, net.history_, strict=True):
        for name in ("epoch", "train_loss", "train_losses", "task_weights"):
            np.testing.assert_allclose(row[name], wanted[name], rtol=1e-4, atol=1e-6)
    member.partial_fit(X, y)
    net.partial_fit(X, y)
    assert member.n_steps_ == net.n_steps_
    np.testing.assert_allclose(member.predict(X), net.predict(X), atol=2e-5)


def test_one_task_in_one_dimension():
    members = together(y=Y[:, 0])
    spec = {"name": "LinearScalarization", "weights": [2.0]}
    net = make(aggregator=spec).fit(X, Y[:, 0])
    assert members[2].predict(X).shape == (70,)
    np.testing.assert_allclose(members[2].predict(X), net.predict(X), atol=1e-5)


def test_a_diverging_member_says_so_and_leaves_the_others_as_they_are():
    lrs = [0.02, 1e30, 0.05]
    first, second, third = together(lrs=lrs, optimizer="SGD")
    assert isinstance(second, DivergenceError)
    with pytest.raises(DivergenceError) as error:
        alone(1, lrs=lrs, optimizer="SGD")
    assert str(second) == str(error.value)
    same(first, alone(0, lrs=lrs, optimizer="SGD"), Y)
    same(third, alone(2, lrs=lrs, optimizer="SGD"), Y)


@pytest.mark.parametrize("lrs", [None, RATES], ids=["one rate", "a rate each"])
def test_a_member_does_not_depend_on_who_is_trained_beside_it(lrs, one_thread):
    everyone = together(lrs=lrs, max_epochs=20)
    for p, member in enumerate(everyone):
        net = make(max_epochs=20).initialize_for(X, Y)
        rate = None if lrs is None else lrs[p : p + 1]
        (single,) = fit_together(net, WEIGHTS[p : p + 1], rate, X, Y)
        assert np.array_equal(single.predict(X), member.predict(X))


def test_divergence_in_the_last_step():
    members = together(lrs=[1e-3, 1e39, 1e-3], optimizer="SGD", batch_size=-1, max_epochs=1)
    assert [isinstance(m, DivergenceError) for m in members] == [False, True, False]
    assert "not finite after the last step" in str(members[1])


def test_the_callers_generators_are_left_as_they_were():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    together()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_members_share_nothing():
    first, second, _ = together()
    before = second.predict(X)
    first.partial_fit(X, Y)
    first.set_params(aggregator="MGDA", lr=1.0)
    assert np.array_equal(second.predict(X), before)
    assert second.optimizer_.param_groups[0]["lr"] == 0.01


def test_a_twin_is_a_net_of_its_own():
    net = make().initialize_for(X, Y)
    other = twin(net)
    owned = {id(p) for p in other.module_.parameters()}
    assert {id(p) for p in other.optimizer_.param_groups[0]["params"]} == owned
    assert not owned & {id(p) for p in net.module_.parameters()}
    assert np.array_equal(other.fit(X, Y).predict(X), make().fit(X, Y).predict(X))


def test_a_criterion_that_reduces_is_refused():
    with pytest.raises(ValueError, match="one loss a row"):
        together(criterion=lambda prediction, label: (prediction[:, 0] - label).mean())


class Own(MultiTaskRegressor):
    """Changes nothing, but could."""


APART = {
    "a subclass": (Own(), ["Own", "only MultiTaskRegressor itself"]),
    "a module": (MultiTaskRegressor(module=nn.Linear), ["module=Linear", "HardSharing"]),
    "a convolution": (make(module__trunk="conv"), ["module__trunk='conv'", "'mlp'"]),
    "an aggregator": (make(aggregator="MGDA"), ["aggregator='MGDA'", "'LinearScalarization'"]),
    "a controller": (make(controller="APT"), ["controller='APT'", "None"]),
    "an update norm": (make(update_norm="mean"), ["update_norm='mean'", "'native'"]),
    "a split": (make(train_split=len), ["train_split", "None"]),
    "callbacks": (make(callbacks=[("a", None)]), ["callbacks", "None"]),
    "a callback's parameter": (make(callbacks__print_log=None), ["callbacks__print_log"]),
    "compile": (make(compile=True), ["compile=True", "False"]),
    "an optimizer": (make(optimizer="LBFGS"), ["optimizer='LBFGS'", "Adam, ", "SGD"]),
    "groups": (make(optimizer__param_groups=[("*", {})]), ["optimizer__param_groups"]),
}


@pytest.mark.parametrize(("net", "words"), APART.values(), ids=APART)
def test_what_cannot_be_trained_together(net, words):
    reason = why_apart(net)
    assert reason is not None
    assert "\n" not in reason
    for word in words:
        assert word in reason


@pytest.mark.parametrize("optimizer", sorted(ELEMENTWISE, key=str))
def test_what_can(optimizer):
    assert why_apart(make(optimizer=optimizer, controller="none", callbacks="disable")) is None
