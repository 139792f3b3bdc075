"""3 + 3 epochs are 6, to the bit: in one process, through files, and after a kill."""

import copy
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from skorch.callbacks import Callback, Checkpoint, LoadInitState, TrainEndCheckpoint
from skorch.dataset import ValidSplit
from skorch.exceptions import NotInitializedError
from torch import nn

from mtlsk import Aggregator, MultiTaskRegressor

RNG = np.random.default_rng(5)
X = RNG.normal(size=(70, 4)).astype(np.float32)
Y = np.c_[X @ [1.0, -1.0, 0.5, 0.0], X[:, 0] ** 2, np.sin(2 * X[:, 1])].astype(np.float32)
Y[::7, 1] = np.nan


class Dropping(nn.Module):
    """A module with running statistics and chance of its own."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Linear(n_features, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3)
        )
        self.head = nn.Linear(8, n_outputs)

    def forward(self, x):
        return self.head(self.trunk(x))

    def shared_parameters(self):
        return self.trunk.parameters()


def make(**params):
    small = {"max_epochs": 2, "batch_size": 16, "random_state": 0}
    own = {} if "module" in params else {"hidden_layer_sizes": (8, 7)}
    return MultiTaskRegressor(**{**small, **own, **params})


def same(a, b):
    """Say whether two nested states are equal to the bit."""
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return torch.equal(a, b) or ((a.isnan() == b.isnan()).all() and same_but_nan(a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b or (a != a and b != b)


def same_but_nan(a, b):
    return torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))


def rows(net, *less):
    """The history without what a clock says."""
    left_out = {"dur", *less}
    return [{k: v for k, v in row.items() if k not in left_out} for row in net.history_]


def everything(net, *less):
    parts = {"module": net.module_, "optimizer": net.optimizer_, "aggregator": net.aggregator_}
    if net.controller_ is not None:
        parts["controller"] = net.controller_
    states = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
    params = net.aggregator_.get_params(deep=False)
    task_map = net.task_map_.state_dict()
    more = {"params": params, "map": task_map, "steps": net.n_steps_, "seed": net.seed_}
    return {**states, **more, "history": rows(net, *less)}


def equal(net, other, *less):
    mine, theirs = everything(net, *less), everything(other, *less)
    return [name for name in theirs if not same(mine[name], theirs[name])] == []


CONTROLLED = {"aggregator": "ConicGrad"}
SGD = {"optimizer": "SGD", "optimizer__momentum": 0.9, "lr": 0.02}
CASES = {
    "MGDA": {"aggregator": "MGDA"},
    "CAGrad": {"aggregator": "CAGrad"},
    "ConicGrad": {"aggregator": "ConicGrad"},
    "ConicGrad with memory": {"aggregator": {"name": "ConicGrad", "solver": "flip"}},
    "FAMO": {"aggregator": "FAMO"},
    "GradNorm": {"aggregator": "GradNorm"},
    "PCGrad": {"aggregator": "PCGrad"},
    "UncertaintyWeighting": {"aggregator": "UncertaintyWeighting"},
    "DynamicWeightAverage": {"aggregator": "DynamicWeightAverage"},
    "RandomWeighting": {"aggregator": "RandomWeighting"},
    "APT": {**CONTROLLED, "controller": "APT"},
    "APT a tensor": {**CONTROLLED, **SGD, "controller": {"name": "APT", "scope": "tensor"}},
    "ConeAngle": {**CONTROLLED, "controller": "ConeAngle"},
    "ConeAngle by schedule": {
        **CONTROLLED,
        "controller": {"name": "ConeAngle", "schedule": "cosine", "n_steps": 15},
    },
    "certificate": {
        **CONTROLLED,
        "controller": {
            "name": "CertificateController",
            "kappa_max": 1.1,
            "window": 2,
            "period": 1,
        },
    },
    "groups": {
        **CONTROLLED,
        "controller": {
            "name": "CertificateController",
            "form": "groups",
            "threshold": 0.05,
            "patience": 1,
            "cooldown": 2,
        },
    },
    "SafeStep": {**CONTROLLED, "controller": "SafeStep", "optimizer": "SGD", "lr": 0.05},
    "Chain": {**CONTROLLED, "controller": {"name": "Chain", "controllers": ["APT", "ConeAngle"]}},
    "budget": {**CONTROLLED, "gramian": {"name": "budget", "rows": 5}},
    "online": {**CONTROLLED, "gramian": "online"},
    "features": {**CONTROLLED, "gramian": "features"},
    "every": {**CONTROLLED, "gramian": {"name": "exact", "every": 4}},
    "online, every": {**CONTROLLED, "gramian": {"name": "online", "every": 4}},
    "SGD": {**CONTROLLED, **SGD},
    "Muon": {
        **CONTROLLED,
        "controller": "APT",
        "optimizer": "Muon",
        "optimizer__direction_preservation": 0.1,
        "lr": 0.02,
    },
    "no seed of one's own": {"aggregator": "PCGrad", "random_state": np.random.RandomState(3)},
    "dropout": {**CONTROLLED, "module": Dropping, "train_split": ValidSplit(5)},
}
FILES = ("params", "optimizer", "history", "aggregator", "controller")


@pytest.mark.parametrize("params", CASES.values(), ids=CASES.keys())
def test_halves_are_a_whole(params, tmp_path):
    whole = make(**copy.deepcopy({**params, "max_epochs": 4})).fit(X, Y)
    half = make(**copy.deepcopy({**params, "warm_start": True})).fit(X, Y)
    assert not same(everything(half)["module"], everything(whole)["module"])
    half.save_params(**{f"f_{part}": tmp_path / part for part in FILES})
    half.save_params(f_training=tmp_path / "training")
    joblib.dump(half, tmp_path / "net")
    ways = {"copy": copy.deepcopy(half), "joblib": joblib.load(tmp_path / "net")}
    loads = {
        "files": {f"f_{part}": tmp_path / part for part in FILES},
        "one file": {"f_training": tmp_path / "training"},
    }
    for name, files in loads.items():  # another seed: that of the file counts
        ways[name] = make(**{**params, "random_state": 9}).initialize_for(X, Y)
        ways[name].load_params(**files)
        assert equal(ways[name], half), name
    ways["warm start"] = half.fit(X, Y)
    for name, net in ways.items():
        while len(net.history_) < 4:
            net.partial_fit(X, Y)
        assert equal(net, whole), name


def test_the_memories_of_aggregator_and_controller_count(tmp_path):
    params = {"aggregator": {"name": "ConicGrad", "solver": "flip"}, "controller": "APT"}
    half = make(**params).fit(X, Y)
    half.save_params(f_training=tmp_path / "training")
    twins = []
    for forgets in ("aggregator_", "controller_", "task_map_"):
        net = make(**params).initialize_for(X, Y)
        net.load_params(f_training=tmp_path / "training")
        if forgets == "task_map_":
            net.task_map_.scale = [1, 2, 3]
        else:
            getattr(net, forgets).reset()
        twins.append(net.partial_fit(X, Y))
    half.partial_fit(X, Y)
    assert not any(same(everything(t)["module"], everything(half)["module"]) for t in twins)


def test_a_state_of_the_aggregator_alone_is_loaded_alone(tmp_path):
    one = make(aggregator="GradNorm").fit(X, Y)
    one.save_params(f_aggregator=tmp_path / "a", f_controller=tmp_path / "c")
    two = make(aggregator="GradNorm", random_state=4).fit(X, Y)
    before = everything(two)
    two.load_params(f_aggregator=tmp_path / "a", f_controller=tmp_path / "c")
    assert same(two.aggregator_.state_dict(), one.aggregator_.state_dict())
    assert not same(two.aggregator_.state_dict(), before["aggregator"])
    assert same({**everything(two), "aggregator": 0}, {**before, "aggregator": 0})


def test_new_parameters_forget_the_weights_kept_for_some_steps():
    params = {"aggregator": "ConicGrad", "gramian": {"name": "exact", "every": 100}}
    net, other = make(**params).fit(X, Y), make(**params).fit(X, Y)
    net.partial_fit(X, Y)
    other.set_params(aggregator="MGDA").partial_fit(X, Y)
    weights = [n.history_[-1, "task_weights"] for n in (net, other)]
    assert weights[0] != weights[1]


# ---- skorch's Checkpoint


def checkpointed(folder, cp=None, **params):
    cp = cp or Checkpoint(monitor=None, dirname=str(folder))
    flip = {"name": "ConicGrad", "solver": "flip"}
    return make(aggregator=flip, controller="APT", callbacks=[cp, LoadInitState(cp)], **params)


def plain_whole(epochs, **params):
    return make(
        aggregator={"name": "ConicGrad", "solver": "flip"},
        controller="APT",
        callbacks=[Watches()],
        max_epochs=epochs,
        **params,
    ).fit(X, Y)


class Watches(Callback):
    """Makes the history keep batches, as a Checkpoint does."""


LESS = ("event_cp",)


def test_a_plain_checkpoint_goes_on_to_the_bit(tmp_path):
    first = checkpointed(tmp_path, module=Dropping).fit(X, Y)
    second = checkpointed(tmp_path, module=Dropping, random_state=7).fit(X, Y)
    assert len(first.history_) == 2
    assert equal(second, plain_whole(4, module=Dropping), *LESS)
    names = {"params.pt", "optimizer.pt", "history.json"}
    assert {p.name for p in tmp_path.iterdir()} == names  # and nothing of a criterion or else


@pytest.mark.parametrize(
    "files",
    [
        {"f_history": None},
        {"f_params": "p_{last_epoch[epoch]}.pt", "f_optimizer": "o_{last_epoch[epoch]}.pt"},
        {"f_params": None, "f_optimizer": None, "f_history": None, "f_training": "all.pt"},
        {"f_aggregator": "a.pt", "f_controller": "c.pt", "fn_prefix": "my_"},
    ],
    ids=["no history", "names of epochs", "one file", "all files"],
)
def test_checkpoints_with_other_files(files, tmp_path):
    def cp():
        return Checkpoint(monitor=None, dirname=str(tmp_path), f_criterion=None, **files)

    checkpointed(tmp_path, cp()).fit(X, Y)
    again = checkpointed(tmp_path, cp()).fit(X, Y)
    assert equal(again, plain_whole(4), *LESS)


def test_a_checkpoint_at_the_end_of_training(tmp_path):
    def net():
        cp = TrainEndCheckpoint(dirname=str(tmp_path))
        return checkpointed(tmp_path, cp)

    net().fit(X, Y)
    assert equal(net().fit(X, Y), plain_whole(4), *LESS)


def test_the_best_epoch_comes_back_whole(tmp_path):
    third = lambda net: len(net.history) == 3  # noqa: E731
    cp = Checkpoint(monitor=third, dirname=str(tmp_path), load_best=True)
    net = make(aggregator="GradNorm", callbacks=[cp], max_epochs=5).fit(X, Y)
    wanted = make(aggregator="GradNorm", callbacks=[Watches()], max_epochs=3).fit(X, Y)
    assert equal(net, wanted, *LESS)
    other = make(aggregator="GradNorm", callbacks=[Watches()]).initialize_for(X, Y)
    other.load_params(checkpoint=cp)
    assert equal(other.partial_fit(X, Y), wanted.partial_fit(X, Y), *LESS)


def test_what_was_best_is_known_after_loading(tmp_path):
    """A checkpoint of the best epoch is not overwritten by the first epoch after it."""
    cp = Checkpoint(monitor="valid_loss_best", dirname=str(tmp_path))
    split = {"train_split": ValidSplit(5), "callbacks": [cp, LoadInitState(cp)]}
    make(**split).fit(X, Y)
    worse = make(**split, optimizer="AdamW", lr=0.003).initialize_for(X, Y)
    worse.fit(X, np.where(np.isnan(Y), Y, 100 * Y))
    assert worse.history_[-1, "valid_loss_best"] is False


def test_a_checkpoint_that_cannot_be_written_is_said(tmp_path):
    class Keeps(Aggregator):
        needs = "losses"

        def task_weights(self, gramian, losses):
            self.seen_ = {1, 2}
            return torch.ones_like(losses) / len(losses)

    cp = Checkpoint(monitor=None, dirname=str(tmp_path))
    with pytest.warns(UserWarning, match=r"not saved: Keeps\.seen_|not saved: .*seen_ holds a set"):
        make(aggregator=Keeps, callbacks=[cp]).fit(X, Y)
    net = make(aggregator=Keeps).fit(X, Y)
    with pytest.raises(TypeError, match="seen_ holds a set"):
        net.save_params(f_training=tmp_path / "t")
    assert not (tmp_path / "t").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.partial_fit(X, Y)


# ---- killed


MOMENTS = {"in an epoch": 0, "first file": 1, "second file": 2, "history": 3}


def victim(folder, moment):
    """Train with a checkpoint an epoch, and be killed in the fourth at a moment of ``MOMENTS``."""
    replace, calls = os.replace, []

    def killing(source, target):
        if moment != "in an epoch" and len(calls) == 9 + MOMENTS[moment] - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        calls.append(target)
        replace(source, target)

    class Kills(Callback):
        def on_batch_end(self, net, batch=None, training=False, **kwargs):
            if len(net.history) == 4 and len(net.history[-1, "batches"]) == 3:
                os.kill(os.getpid(), signal.SIGKILL)

    os.replace = killing
    net = killed_net(folder)
    if moment == "in an epoch":
        net.set_params(callbacks=[*net.callbacks, Kills()])
    net.set_params(max_epochs=6).fit(X, Y)
    raise AssertionError("it was to be killed")


def killed_net(folder):
    return checkpointed(folder, module=Dropping, gramian={"name": "exact", "every": 3})


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Folders that processes killed at each moment left behind."""
    folders = {moment: tmp_path_factory.mktemp("killed") for moment in MOMENTS}
    here = str(Path(__file__).parent)
    path = os.pathsep.join([here, str(Path(here).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", VICTIMS, *(f"{folder}={m}" for m, folder in folders.items())],
        # as many threads as here: another number adds in another order
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.split() == ["9"] * len(folders), done.stderr
    return folders


# one process imports, and forks before it has trained anything
VICTIMS = """
import os, sys, test_persistence as t
for argument in sys.argv[1:]:
    child = os.fork()
    if not child:
        t.victim(*argument.split("="))
    print(os.WTERMSIG(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize("moment", MOMENTS)
def test_after_a_kill_the_whole_is_the_same(killed, moment, tmp_path):
    folder = shutil.copytree(killed[moment], tmp_path / "copy")
    cp = Checkpoint(monitor=None, dirname=str(folder))
    net = killed_net(folder).set_params(callbacks=[cp]).initialize_for(X, Y)
    torn = moment in ("second file", "history")
    with pytest.warns(UserWarning, match="is whole") if torn else contextless():
        net.load_params(checkpoint=cp)
    assert len(net.history_) == (4 if torn else 3)
    while len(net.history_) < 6:
        net.partial_fit(X, Y)
    whole = plain_whole(6, module=Dropping, gramian={"name": "exact", "every": 3})
    assert equal(net, whole, *LESS)


def test_the_same_script_run_again_goes_on(killed, tmp_path):
    """LoadInitState alone, after a kill between two files: one warning, and every epoch counts."""
    folder = shutil.copytree(killed["history"], tmp_path / "copy")
    with pytest.warns(UserWarning, match="of epoch 4, the history of epoch 3.*is whole"):
        net = killed_net(folder).fit(X, Y)
    whole = plain_whole(6, module=Dropping, gramian={"name": "exact", "every": 3})
    assert equal(net, whole, *LESS)


class contextless:  # noqa: N801
    def __enter__(self):
        return None

    def __exit__(self, *args):
        return False


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    net = make().fit(X, Y)
    file = tmp_path / "t"
    net.save_params(f_training=file)
    old = file.read_bytes()
    net.partial_fit(X, Y)

    def fails(*args):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="no space"):
        net.save_params(f_training=file)
    assert file.read_bytes() == old
    assert list(tmp_path.iterdir()) == [file]


# ---- what does not fit


@pytest.fixture
def saved(tmp_path):
    net = make(aggregator="MGDA", controller="APT").fit(X, Y)
    net.save_params(**{f"f_{part}": tmp_path / part for part in FILES})
    net.save_params(f_training=tmp_path / "training")
    return tmp_path


def refused(net, match, **files):
    """Assert that a load is refused in one line, and changes nothing."""
    before = everything(net)
    with pytest.raises(ValueError, match=match) as error:
        net.load_params(**files)
    assert "\n" not in str(error.value)
    assert same(everything(net), before)


OTHERS = {
    "width": ({"hidden_layer_sizes": (9, 7)}, r"trunk.0.weight is \(8, 4\) there and \(9, 4\)"),
    "depth": ({"hidden_layer_sizes": (8, 7, 6)}, "it has no trunk.4.weight"),
    "shallow": ({"hidden_layer_sizes": (8,)}, "head.weight is"),
    "aggregator": ({"aggregator": "CAGrad"}, "aggregator='MGDA', this one has 'CAGrad'"),
    "controller": ({"controller": None}, "controller='APT', this one has 'none'"),
    "optimizer": ({"optimizer": "SGD", "lr": 0.01}, "optimizer='AdamW', this one has 'SGD'"),
}


@pytest.mark.parametrize("part", ["training", "optimizer"])
@pytest.mark.parametrize("case", OTHERS)
def test_another_net_s_state(saved, case, part):
    params, words = OTHERS[case]
    net = make(**{"aggregator": "MGDA", "controller": "APT", **params}).fit(X, Y)
    refused(net, words, **{f"f_{part}": saved / part})


def test_another_net_s_module(saved):
    net = make(hidden_layer_sizes=(9, 7)).fit(X, Y)
    refused(
        net, "params is of another module.*parameters and the shapes", f_params=saved / "params"
    )
    net = make().fit(X, Y[:, :2])
    refused(net, r"head.weight is \(3, 7\) there and \(2, 7\)", f_params=saved / "params")


def test_other_tasks(saved, tmp_path):
    net = make(aggregator="MGDA", controller="APT").fit(X, Y[:, :2])
    refused(net, "of 3 tasks .y0, y1, y2., and this net has 2", f_training=saved / "training")
    frame = pd.DataFrame(Y, columns=["a", "b", "c"])
    make().fit(X, frame).save_params(f_training=tmp_path / "abc")
    turned = make().fit(X, frame[["b", "a", "c"]])
    refused(turned, "another order, a, b, c, than this net, b, a, c", f_training=tmp_path / "abc")


def test_files_of_different_moments(saved):
    net = make(aggregator="MGDA", controller="APT").fit(X, Y).partial_fit(X, Y)
    files = {"f_params": saved / "new", "f_optimizer": saved / "optimizer"}
    net.save_params(f_params=saved / "new", f_history=saved / "later")
    refused(net, "new is of epoch 3, .*optimizer of epoch 2", **files)
    later = {"f_params": saved / "params", "f_history": saved / "later"}
    refused(net, "params is of epoch 2, the history of epoch 3", **later)
    for name, file in files.items():  # one after the other is the user's word
        net.load_params(**{name: file})
    twin = make(aggregator="MGDA", controller="APT", random_state=5).fit(X, Y)
    twin.save_params(f_params=saved / "twin")
    both = {"f_params": saved / "twin", "f_optimizer": saved / "optimizer"}
    refused(net, "of different trainings", **both)


WRONG = {
    "half a file": lambda data: data[: len(data) // 2],
    "nothing": lambda data: b"",
    "text": lambda data: b"hello",
    "a pickle": lambda data: pickle.dumps(make()),
    "an object": lambda data: in_torch(make()),
    "a list": lambda data: in_torch([1, 2]),
    "other numbers": lambda data: in_torch({"a": 1}),
}


def in_torch(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("part", ["params", "optimizer", "training", "history"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_file_that_is_none(saved, wrong, part):
    file = saved / part
    file.write_bytes(WRONG[wrong](file.read_bytes()))
    net = make(aggregator="MGDA", controller="APT").fit(X, Y)
    refused(net, f"/{part} ", **{f"f_{part}": file})
    if part != "history":
        more = {"f_history": saved / "history", "f_aggregator": saved / "aggregator"}
        refused(net, f"/{part} ", **more, **{f"f_{part}": file})


def test_code_in_a_file_is_not_run(saved, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (saved / "training").write_bytes(in_torch({"state": {}, "param_groups": [], "x": Bomb()}))
    net = make(aggregator="MGDA", controller="APT").fit(X, Y)
    refused(net, "more than tensors and numbers", f_training=saved / "training")
    assert not (tmp_path / "ran").exists()


def test_what_fails_half_way_is_put_back(saved):
    state = torch.load(saved / "training", weights_only=True)
    state["mtlsk.stamp"]["task_map"] = {"scale": [-1, 0, 1], "groups": None}
    torch.save(state, saved / "bad")
    net = make(aggregator="MGDA", controller="APT", random_state=3).fit(X, Y)
    refused(net, "do not fit this net", f_training=saved / "bad")
    assert equal(net.partial_fit(X, Y), partial(saved))


def partial(folder):
    return make(aggregator="MGDA", controller="APT", random_state=3).fit(X, Y).partial_fit(X, Y)


def test_a_state_of_another_version(saved):
    state = torch.load(saved / "training", weights_only=True)
    state["mtlsk.stamp"]["version"] = 99
    torch.save(state, saved / "new")
    net = make(aggregator="MGDA", controller="APT").fit(X, Y)
    refused(net, "another version of mtlsk.*99", f_training=saved / "new")


def test_a_missing_file_is_a_missing_file(saved):
    net = make(aggregator="MGDA", controller="APT").fit(X, Y)
    before = everything(net)
    with pytest.raises(FileNotFoundError):
        net.load_params(f_params=saved / "params", f_history=saved / "nowhere")
    assert same(everything(net), before)


def test_an_unfitted_net_says_what_to_do(saved):
    with pytest.raises(NotInitializedError, match=r"initialize_for\(X, y\)"):
        make().load_params(f_params=saved / "params")
    with pytest.raises(NotInitializedError, match=r"fit\(X, y\)"):
        make().save_params(f_params=saved / "other")
    with pytest.raises(TypeError, match="unexpected argument 'training'"):
        make().fit(X, Y).save_params(training=saved / "other")
    with pytest.raises(AttributeError, match="no part 'parms'"):
        make().fit(X, Y).save_params(f_parms=saved / "other")


def test_files_hold_tensors_and_numbers_and_torch_reads_them(saved):
    for part in ("params", "optimizer", "training", "aggregator", "controller"):
        torch.load(saved / part, weights_only=True)
    net = make(aggregator="MGDA", controller="APT").fit(X, Y)
    module = copy.deepcopy(net.module_)
    module.load_state_dict(torch.load(saved / "params", weights_only=True))
    assert same(module.state_dict(), net.module_.state_dict())
    optimizer = torch.optim.AdamW(module.parameters())
    optimizer.load_state_dict(torch.load(saved / "optimizer", weights_only=True))
    assert same(optimizer.state_dict()["state"], net.optimizer_.state_dict()["state"])
    json.loads((saved / "history").read_text())


def test_numbers_of_numpy_are_saved(tmp_path):
    class Notes(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.history.record("mine", np.float32(0.1))

    net = make(lr=np.float64(0.01), callbacks=[Notes()]).fit(X, Y)
    net.save_params(f_training=tmp_path / "t", f_history=tmp_path / "h")
    other = make().initialize_for(X, Y)
    other.load_params(f_training=tmp_path / "t")
    assert other.history_[:, "mine"] == [float(np.float32(0.1))] * 2


def test_open_files_and_safetensors(tmp_path):
    net, other = make().fit(X, Y), make(random_state=1).fit(X, Y)
    buffer = io.BytesIO()
    net.save_params(f_training=buffer)
    buffer.seek(0)
    other.load_params(f_training=buffer)
    assert equal(other, net)
    pytest.importorskip("safetensors")
    net.save_params(f_params=tmp_path / "p", use_safetensors=True)
    other = make(random_state=1).fit(X, Y)
    other.load_params(f_params=tmp_path / "p", use_safetensors=True)
    assert np.array_equal(other.predict(X), net.predict(X))
    (tmp_path / "p").write_bytes(b"no")
    refused(other, "no safetensors file", f_params=tmp_path / "p", use_safetensors=True)


def test_a_criterion_with_parameters_is_saved(tmp_path):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.log_scale = nn.Parameter(torch.zeros(()))

        def forward(self, prediction, label):
            return (prediction[:, 0] - label) ** 2 * self.log_scale.exp() - self.log_scale

    net = make(criterion=Scaled(), max_epochs=4).fit(X, Y)
    half = make(criterion=Scaled()).fit(X, Y)
    half.save_params(f_training=tmp_path / "t")
    other = make(criterion=Scaled()).initialize_for(X, Y)
    other.load_params(f_training=tmp_path / "t")
    other.partial_fit(X, Y).partial_fit(X, Y)
    assert equal(other, net)


# ---- a stream


def stream():
    """Parts of changing sizes, some without labels of a task."""
    sizes = np.random.default_rng(1).integers(1, 40, 12)
    for i, n in enumerate(sizes):
        rng = np.random.default_rng(100 + i)
        x = rng.normal(size=(n, 4)).astype(np.float32)
        y = np.c_[x @ [1.0, -1.0, 0.5, 0.0], x[:, 0] ** 2, np.sin(2 * x[:, 1])].astype(np.float32)
        if i % 3 == 1:
            y[:, i % 2] = np.nan
        yield x, y


@pytest.mark.parametrize("name", ["FAMO", "GradNorm", "MGDA", "every", "groups", "online", "Muon"])
def test_a_stream_of_parts_with_pickles_between(name):
    one, two = make(**CASES[name]), make(**CASES[name])
    for i, (x, y) in enumerate(stream()):
        one.partial_fit(x, y)
        two = pickle.loads(pickle.dumps(two)) if i % 2 else two
        two.partial_fit(x, y)
        absent = np.isnan(y).all(0)
        assert np.array_equal(np.isnan(one.history_[-1, "train_losses"]), absent)
        assert np.isfinite(one.history_[-1, "train_loss"])
    assert equal(two, one)
    assert len(one.history_) == 12
    assert np.isfinite(one.predict(X)).all()


def test_a_part_without_any_label_and_a_first_without_one():
    net = make().fit(X, Y)
    before = everything(net)
    with pytest.raises(ValueError, match="no task has a label"):
        net.partial_fit(X, np.full_like(Y, np.nan))
    assert same(everything(net), before)
    missing = Y.copy()
    missing[:, 1] = np.nan
    for call in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match="'y1': it has no label at all"):
            getattr(make(), call)(X, missing)
    with pytest.raises(ValueError, match="'y1'"):
        make(warm_start=True).fit(X, Y).fit(X, missing)
    net.partial_fit(X, missing)
