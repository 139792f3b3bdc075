"""Schedules of the learning rate go on where they were."""

import copy
import pickle

import numpy as np
import pytest
import torch
from skorch.callbacks import Checkpoint, LoadInitState, LRScheduler
from torch.optim import lr_scheduler

from mtlsk import MultiTaskRegressor

RNG = np.random.default_rng(5)
X = RNG.normal(size=(40, 4)).astype(np.float32)
Y = np.c_[X @ [1.0, -1.0, 0.5, 0.0], X[:, 0] ** 2].astype(np.float32)


def shrink(epoch):
    return 0.8**epoch


POLICIES = {
    "StepLR": {"policy": "StepLR", "step_size": 2, "gamma": 0.5},
    "ExponentialLR": {"policy": "ExponentialLR", "gamma": 0.7},
    "MultiStepLR": {"policy": "MultiStepLR", "milestones": [2, 4], "gamma": 0.3},
    "LambdaLR": {"policy": "LambdaLR", "lr_lambda": shrink},
    "CosineAnnealingLR": {"policy": "CosineAnnealingLR", "T_max": 4},
    "WarmRestartLR": {"policy": "WarmRestartLR", "max_lr": 0.01, "base_period": 2},
    "plateau": {"policy": "ReduceLROnPlateau", "patience": 0, "threshold": 0.5},
    "OneCycleLR": {
        "policy": lr_scheduler.OneCycleLR,
        "max_lr": 0.01,
        "total_steps": 30,
        "step_every": "batch",
    },
    "class": {"policy": lr_scheduler.ExponentialLR, "gamma": 0.7},
}


def make(policy, epochs, folder=None, *, first=False, **params):
    """A net with a schedule, and by ``folder`` a checkpoint after it, or ``first`` before it."""
    callbacks = [("schedule", LRScheduler(**policy))]
    if folder is not None:
        cp = Checkpoint(monitor=None, dirname=str(folder))
        more = [("cp", cp), ("load", LoadInitState(cp))]
        callbacks = [*more, *callbacks] if first else [*callbacks, *more]
    small = {"hidden_layer_sizes": (6,), "batch_size": 16, "random_state": 0, "lr": 0.01}
    return MultiTaskRegressor(max_epochs=epochs, callbacks=callbacks, **{**small, **params})


def trace(net):
    """Everything that a schedule may show in."""
    rows = [{k: v for k, v in r.items() if k not in ("dur", "event_cp")} for r in net.history_]
    groups = [{k: v for k, v in g.items() if k != "params"} for g in net.optimizer_.param_groups]
    return repr((rows, groups, [p.tolist() for p in net.module_.parameters()]))


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
def test_a_schedule_goes_on(policy, tmp_path):
    whole = make(policy, 6).fit(X, Y)
    ways = {"warm start": make(policy, 3, warm_start=True).fit(X, Y).fit(X, Y)}
    one_by_one = make(policy, 1).fit(X, Y)
    for i in range(5):
        one_by_one = pickle.loads(pickle.dumps(one_by_one)) if i % 2 else one_by_one
        one_by_one.partial_fit(X, Y)
    ways["one by one"] = one_by_one
    for first in (False, True):
        folder = tmp_path / str(first)
        for _ in range(2):
            net = make(policy, 3, folder, first=first).fit(X, Y)
        ways[f"checkpoint, first: {first}"] = net
    half = make(policy, 3).fit(X, Y)
    half.save_params(f_training=tmp_path / "t")
    loaded = make(policy, 3).initialize_for(X, Y)
    loaded.load_params(f_training=tmp_path / "t")
    loaded.save_params(f_training=tmp_path / "t")  # passed on, not gone on with yet
    again = make(policy, 3).initialize_for(X, Y)
    again.load_params(f_training=tmp_path / "t")
    for net in (loaded, again):
        net.set_params(warm_start=True).fit(X, Y)
    ways |= {"file": loaded, "file of a file": again}
    for name, net in ways.items():
        assert trace(net) == trace(whole), name
    assert trace(half) != trace(whole)


def test_the_user_s_word_between_two_fits_stands():
    policy = {"policy": "ExponentialLR", "gamma": 0.5}
    net = make(policy, 1).fit(X, Y).set_params(lr=1.0)
    lrs = []

    def step(*args):
        lrs.append(net.optimizer_.param_groups[0]["lr"])

    net.optimizer_.register_step_pre_hook(step)
    net.partial_fit(X, Y)
    assert set(lrs) == {1.0}
    assert net.optimizer_.param_groups[0]["lr"] == 0.5


def test_a_new_fit_starts_anew():
    policy = {"policy": "StepLR", "step_size": 2}
    net = make(policy, 3).fit(X, Y)
    first = trace(net)
    assert trace(net.fit(X, Y)) == first


def test_a_schedule_of_another_kind_starts_anew(tmp_path):
    one = make({"policy": "ExponentialLR", "gamma": 0.5}, 2).fit(X, Y)
    one.save_params(f_training=tmp_path / "t")
    two = make({"policy": "StepLR", "step_size": 100}, 1).initialize_for(X, Y)
    two.load_params(f_training=tmp_path / "t")
    two.partial_fit(X, Y)
    assert isinstance(dict(two.callbacks_)["schedule"].lr_scheduler_, lr_scheduler.StepLR)


def test_what_a_file_cannot_hold_is_that_of_the_new_schedule(tmp_path):
    net = make(POLICIES["WarmRestartLR"], 2).fit(X, Y)  # it keeps numpy arrays
    net.save_params(f_training=tmp_path / "t")
    state = torch.load(tmp_path / "t", weights_only=True)["mtlsk.stamp"]["schedules"]["schedule"]
    assert "max_lr" not in state["state"]
    assert state["state"]["last_epoch"] == 2


def test_a_copy_of_a_net_has_the_schedule_of_its_own_optimizer():
    net = make(POLICIES["StepLR"], 2).fit(X, Y)
    for twin in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        scheduler = dict(twin.callbacks_)["schedule"].lr_scheduler_
        assert scheduler.optimizer is twin.optimizer_
