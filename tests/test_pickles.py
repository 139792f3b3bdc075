"""A pickle holds everything and maps its tensors; what skops sees is data."""

import copy
import io
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import skorch.utils
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Checkpoint, LRScheduler
from skorch.dataset import ValidSplit
from skorch.exceptions import DeviceWarning
from torch import nn

from mtlsk import (
    SKOPS_TRUSTED,
    MultiTaskClassifier,
    MultiTaskNet,
    MultiTaskRegressor,
    RandomizedFront,
)
from mtlsk.aggregators import AGGREGATORS, ConicGrad
from mtlsk.controllers import CONTROLLERS, Chain, Controller
from mtlsk.engines import ENGINES
from mtlsk.estimators import DecomposedRegressor
from mtlsk.modules import CRITERIA, CharLM, HolomorphicSharing
from mtlsk.optimizers import OPTIMIZERS
from mtlsk.regularizers import REGULARIZERS

RNG = np.random.default_rng(5)
X = RNG.normal(size=(40, 4)).astype(np.float32)
Y = np.c_[X @ [1.0, -1.0, 0.5, 0.0], X[:, 0] ** 2].astype(np.float32)


def make(**params):
    small = {"hidden_layer_sizes": (6,), "max_epochs": 2, "batch_size": 16, "random_state": 0}
    return MultiTaskRegressor(**{**small, **params})


FULL = {
    "aggregator": "ConicGrad",
    "controller": "APT",
    "gramian": {"name": "online", "every": 3},
    "train_split": ValidSplit(4),
}


def numbers(net):
    """What training has made of a net, and what it goes on from."""
    losses = [(r["train_losses"], r["task_weights"]) for r in net.history_]
    return repr((losses, net.predict(X).tolist(), net.n_steps_, len(net.history_)))


def goes_on(net, original):
    assert numbers(net) == numbers(original)
    assert numbers(copy.deepcopy(net).partial_fit(X, Y)) == numbers(
        copy.deepcopy(original).partial_fit(X, Y)
    )


# ---- pickles


def test_copies_and_clones():
    net = make(**FULL).fit(X, Y)
    for twin in (copy.deepcopy(net), copy.copy(net), pickle.loads(pickle.dumps(net))):
        goes_on(twin, net)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        goes_on(pickle.loads(pickle.dumps(net, protocol)), net)
    twin = copy.deepcopy(net)
    before = numbers(net)
    twin.partial_fit(X, Y)
    assert numbers(net) == before  # nothing is shared
    assert not clone(net).initialized_
    assert numbers(clone(net).fit(X, Y)) == before
    assert "_pickled" not in vars(net)


def test_joblib_in_another_process(tmp_path):
    net = make(**FULL).fit(X, Y)
    joblib.dump((net, X, Y), tmp_path / "net.joblib", compress=3)
    script = """
import sys, joblib
net, X, Y = joblib.load(sys.argv[1])
print(net.partial_fit(X, Y).predict(X).tolist())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(tmp_path / "net.joblib")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(net.partial_fit(X, Y).predict(X).tolist())


def test_a_pickle_made_by_a_callback_in_training_goes_on(tmp_path):
    """skorch's f_pickle: the counters are those of the moment, and nothing of the step is in it."""
    for first in (True, False):
        file = str(tmp_path / f"{first}.pkl")
        cp = Checkpoint(f_third, None, None, None, None, f_pickle=file)
        step = LRScheduler("StepLR", step_size=2)
        callbacks = [("cp", cp), ("lr", step)] if first else [("lr", step), ("cp", cp)]
        params = {**FULL, "controller": "APT", "callbacks": callbacks}
        whole = make(**params, max_epochs=5).fit(X, Y)
        half = pickle.loads(Path(file).read_bytes())
        assert not {"_descent", "_meter", "_labels"} & set(vars(half))
        assert len(half.history_) == 3
        half.set_params(callbacks__cp__monitor=f_never)
        half.partial_fit(X, Y).partial_fit(X, Y)
        assert numbers(half) == numbers(whole)
        assert half.optimizer_.param_groups[0]["lr"] == whole.optimizer_.param_groups[0]["lr"]


def f_third(net):
    return len(net.history) == 3


def f_never(net):
    return False


class Finds(pickle.Pickler):
    """Notes the tensors that come by."""

    def reducer_override(self, obj):
        if isinstance(obj, torch.Tensor | torch.storage.UntypedStorage):
            self.found = [*getattr(self, "found", []), obj]
        return NotImplemented


@pytest.mark.parametrize("module", ["class", "instance"])
def test_every_tensor_in_a_pickle_is_mapped_to_a_device_there_is(module, monkeypatch):
    """A net fitted on CUDA loads on a CPU: no tensor is outside what skorch maps."""
    cone = {"name": "ConeAngle", "schedule": "linear"}
    chain = {"name": "Chain", "controllers": ["APT", cone]}
    lr = LRScheduler("StepLR", step_size=2)
    params = {**FULL, "controller": chain, "callbacks": [("lr", lr)]}
    if module == "instance":
        own = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
        params |= {"module": own, "hidden_layer_sizes": (64, 64)}
    net = make(**params).fit(X, Y)
    assert isinstance(net.aggregator_.dual_, torch.Tensor)
    assert isinstance(net.controller_.members[0].previous_, torch.Tensor)
    pickler = Finds(io.BytesIO())
    pickler.dump(net)
    assert not hasattr(pickler, "found")
    pickler.dump(net.aggregator_)
    assert pickler.found  # the test can see

    where = []
    load = torch.load

    def watched(file, map_location=None, **options):
        where.append(str(map_location))
        return load(file, map_location=map_location, **options)

    data = pickle.dumps(net)
    monkeypatch.setattr(skorch.utils.torch, "load", watched)
    pickle.loads(data)
    assert len(where) > 10
    assert set(where) == {"cpu"}


def test_a_net_of_a_device_that_is_not_here_comes_to_the_cpu():
    net = make(**FULL).fit(X, Y)
    before = numbers(net)
    net.device = "cuda"
    data = pickle.dumps(net)
    if torch.cuda.is_available():
        pytest.skip("the device is here")
    with pytest.warns(DeviceWarning, match="cpu"):
        twin = pickle.loads(data)
    assert twin.device == "cpu"
    assert numbers(twin) == before
    twin.partial_fit(X, Y)


def test_a_subclass_s_own_state_is_heeded():
    data = pickle.dumps(Forgets((6,), max_epochs=1, random_state=0).fit(X, Y))
    assert pickle.loads(data).remembered_ == "nothing"


class Forgets(MultiTaskRegressor):
    """Has a word in what is pickled."""

    def __getstate__(self):
        return {**super().__getstate__(), "remembered_": "nothing"}


# ---- skops


sio = pytest.importorskip("skops.io")


def types_of(net):
    return set(sio.get_untrusted_types(data=sio.dumps(net)))


def through_skops(net, trusted=SKOPS_TRUSTED):
    return sio.loads(sio.dumps(net), trusted=trusted)


def members():
    """Every built-in component as a class and as an object: what needs more to be built has it."""
    for registry in (AGGREGATORS, CONTROLLERS, ENGINES, REGULARIZERS):
        owner = "gramian" if registry is ENGINES else registry.kind
        for cls in registry.own().values():
            yield owner, cls
            yield owner, cls()
    for cls in OPTIMIZERS.own().values():
        yield "optimizer", cls


def fits(owner, spec):
    """The parameters of a net in which a component works."""
    params = {owner: spec, "max_epochs": 1}
    name = (spec if isinstance(spec, type) else type(spec)).__name__
    if owner in ("controller", "gramian"):
        params["aggregator"] = "ConicGrad"
    if name == "SafeStep":
        params |= {"optimizer": "SGD", "lr": 0.01}
    if owner == "regularizer":
        params["hidden_layer_sizes"] = (4,)
    return params


MIXED = pd.DataFrame(
    {
        "price": Y[:, 0],
        "a": np.where(X[:, 0] > 0, "yes", "no"),
        "b": np.array(["u", "v", "w"])[np.arange(len(X)) % 3],
    }
)


@pytest.mark.parametrize("way", ["pickle", "skops", "files", "copy"])
def test_classes_and_mixed_tasks_come_back(way, tmp_path):
    params = {"hidden_layer_sizes": (4,), "aggregator": "MGDA", "random_state": 0}
    net = MultiTaskNet(**params, class_weight={"a": "balanced"}, max_epochs=3).fit(X, MIXED)
    whole = MultiTaskNet(**params, class_weight={"a": "balanced"}, max_epochs=6).fit(X, MIXED)
    if way == "files":
        net.save_params(f_training=tmp_path / "net.pt")
        again = clone(net).initialize_for(X, MIXED)
        again.load_params(f_training=tmp_path / "net.pt")
    else:
        roads = {"pickle": lambda n: pickle.loads(pickle.dumps(n)), "copy": copy.deepcopy}
        again = {**roads, "skops": through_skops}[way](net)
    assert [task.kind for task in again.tasks_] == ["regression", "binary", "multiclass"]
    pd.testing.assert_frame_equal(again.predict(X), net.predict(X))
    for part in (net, again):
        part.set_params(warm_start=True).fit(X, MIXED)
        for one, other in zip(part.predict_proba(X), whole.predict_proba(X), strict=True):
            assert one is other is None or np.array_equal(one, other)


def test_files_of_other_classes_are_refused(tmp_path):
    net = MultiTaskNet((4,), max_epochs=1, random_state=0).fit(X, MIXED)
    net.save_params(f_training=tmp_path / "net.pt")
    other = MultiTaskNet((4,), random_state=0)
    other.initialize_for(X, MIXED.assign(a=np.where(X[:, 0] > 0, "ja", "nein")))
    with pytest.raises(ValueError, match=r"task 'a' as .*'no', 'yes'.*'ja', 'nein'") as caught:
        other.load_params(f_training=tmp_path / "net.pt")
    assert "\n" not in str(caught.value)


def test_the_list_of_trusted_types_is_what_nets_need():
    needed = types_of(make(train_split=ValidSplit(3)).fit(X, Y))
    assert needed <= set(SKOPS_TRUSTED)
    for name in CRITERIA["regression"]:
        needed |= types_of(make(criterion=name, max_epochs=1).fit(X, Y))
    needed |= types_of(MultiTaskNet((4,), max_epochs=1, random_state=0).fit(X, MIXED))
    needed |= types_of(MultiTaskClassifier((4,), max_epochs=1, random_state=0).fit(X, MIXED["a"]))
    needed |= types_of(RandomizedFront().fit(X, np.c_[X[:, 0], X[:, 0] - X[:, 1]]))
    characters = MultiTaskRegressor(module=CharLM, module__width=4, max_epochs=1, random_state=0)
    needed |= types_of(characters.fit(np.eye(40, 4), Y))
    pairs = make(hidden_layer_sizes=(64, 64), module=HolomorphicSharing).fit(X, Y)
    needed |= types_of(pairs)
    needed |= types_of(DecomposedRegressor((4,), max_epochs=1, random_state=0).fit(X, Y))
    for owner, spec in members():
        net = make(**fits(owner, spec)).fit(X, Y)
        found = types_of(net)
        assert found <= set(SKOPS_TRUSTED), f"{owner}={spec}"
        needed |= found
        assert numbers(through_skops(net)) == numbers(net), f"{owner}={spec}"
    assert needed == set(SKOPS_TRUSTED)


SKOPS = {
    "defaults": {},
    "everything": FULL,
    "objects": {"aggregator": ConicGrad(c=0.3), "controller": Chain([{"name": "APT"}])},
    "memory": {"aggregator": "GradNorm", "aggregator__alpha": 0.5, "task_scale": [1, 2]},
    "a generator": {"random_state": np.random.RandomState(1)},
    "Muon": {"optimizer": "Muon", "lr": 0.02},
}


@pytest.mark.parametrize("params", SKOPS.values(), ids=SKOPS.keys())
def test_a_net_comes_back_from_skops_and_goes_on(params):
    net = make(**params).fit(X, pd.DataFrame(Y, columns=["a", "b"]))
    twin = through_skops(net)
    assert twin.task_names_ == ["a", "b"]
    mine, theirs = net.get_params(), twin.get_params()
    assert mine.keys() == theirs.keys()
    plain = [n for n, v in mine.items() if isinstance(v, int | float | str | list | dict | tuple)]
    assert [n for n in plain if "callbacks" not in n and mine[n] != theirs[n]] == []
    goes_on(twin, net)


def test_skops_with_callbacks_that_one_trusts(tmp_path):
    cp = Checkpoint(None, dirname=str(tmp_path))
    lr = LRScheduler("StepLR", step_size=1)
    net = make(callbacks=[("cp", cp), ("lr", lr)]).fit(X, Y)
    more = types_of(net) - set(SKOPS_TRUSTED)
    assert more == {
        "skorch.callbacks.lr_scheduler.LRScheduler",
        "skorch.callbacks.training.Checkpoint",
        "skorch.utils.noop",
    }
    goes_on(through_skops(net, [*SKOPS_TRUSTED, *more]), net)


def test_skops_in_a_pipeline_and_of_an_unfitted_net():
    pipe = make_pipeline(StandardScaler(), make(aggregator="MGDA")).fit(X, Y)
    assert np.array_equal(through_skops(pipe).predict(X), pipe.predict(X))
    empty = through_skops(make(aggregator="MGDA"))
    assert not empty.initialized_
    assert numbers(empty.fit(X, Y)) == numbers(make(aggregator="MGDA").fit(X, Y))


def test_no_pickle_is_hidden_in_skops_data():
    """The bytes that skops cannot look into are tensors and numbers, read as such."""
    state = make(**FULL).fit(X, Y).__getstate__()
    torch.load(io.BytesIO(state["training"]), weights_only=True)

    class Bomb:
        def __reduce__(self):
            return (RAN.append, (1,))

    buffer = io.BytesIO()
    torch.save({"state": {}, "param_groups": [], "mtlsk.stamp": Bomb()}, buffer)
    bad = {**state, "training": buffer.getvalue()}
    bad["params"] = {**state["params"], "torch_load_kwargs": {"weights_only": False}}
    net = MultiTaskRegressor.__new__(MultiTaskRegressor)
    with pytest.raises(ValueError, match="more than tensors and numbers"):
        net.__setstate__(bad)
    assert RAN == []


RAN: list[int] = []


def test_skops_data_may_not_import_a_module():
    net = make(aggregator="mtlsk.aggregators:MGDA").fit(X, Y)
    goes_on(through_skops(net), net)
    state = net.__getstate__()
    for owner, spec in [
        ("aggregator", "antigravity:MGDA"),
        ("optimizer", {"name": "antigravity:A"}),
        ("controller", {"name": "Chain", "controllers": ["APT", {"name": "antigravity:B"}]}),
        ("controller", Chain(["antigravity:B"])),
        ("controller__controllers", ["antigravity:B"]),
    ]:
        bad = {**state, "params": {**state["params"], owner: spec}}
        with pytest.raises(ValueError, match="'antigravity' is not imported"):
            MultiTaskRegressor.__new__(MultiTaskRegressor).__setstate__(bad)
    assert "antigravity" not in sys.modules


def test_skops_data_sets_only_what_was_learned():
    state = make().fit(X, Y).__getstate__()
    bad = {**state, "learned": {**state["learned"], "predict": 1, "_data": 2, "module_": 3}}
    net = MultiTaskRegressor.__new__(MultiTaskRegressor)
    net.__setstate__(bad)
    assert callable(net.predict)
    assert callable(net._data)
    assert isinstance(net.module_, nn.Module)


def test_what_skops_cannot_hold_is_said():
    net = make(module=nn.Linear(4, 2), hidden_layer_sizes=(64, 64)).fit(X, Y)
    with pytest.raises(TypeError, match="is an instance, which no skops file can hold"):
        sio.dumps(net)
    net = make().fit(X, Y)
    net.trim_for_prediction()
    with pytest.raises(ValueError, match="trimmed"):
        sio.dumps(net)
    goes_on_predicting = pickle.loads(pickle.dumps(net))
    assert np.array_equal(goes_on_predicting.predict(X), net.predict(X))


def test_skops_of_a_device_that_is_not_here():
    if torch.cuda.is_available():
        pytest.skip("the device is here")
    net = make(**FULL).fit(X, Y)
    state = net.__getstate__()
    state["params"]["device"] = "cuda"
    twin = MultiTaskRegressor.__new__(MultiTaskRegressor)
    with pytest.warns(DeviceWarning, match="loaded to 'cpu'"):
        twin.__setstate__(state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        twin.partial_fit(X, Y)


def test_a_controller_of_one_s_own_is_not_trusted():
    net = make(controller=Mine(), max_epochs=1).fit(X, Y)
    assert f"{__name__}.Mine" in types_of(net)
    with pytest.raises(Exception, match="Mine"):
        through_skops(net)
    goes_on(through_skops(net, [*SKOPS_TRUSTED, f"{__name__}.Mine"]), net)


class Mine(Controller):
    """Counts the steps."""

    def adjust(self, record, gradients):
        self.n_ = getattr(self, "n_", 0) + 1
        return {}
