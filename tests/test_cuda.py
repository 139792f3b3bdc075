"""On a GPU: no step waits for it but for one transfer of (G, L), and the numbers are the CPU's."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from mtlsk import MultiTaskRegressor
from mtlsk.aggregators import MGDA, CAGrad, ConicGrad
from mtlsk.descent import Descent
from mtlsk.engines import Forward
from mtlsk.estimators.loop import TrainingLoop
from mtlsk.linear_graph import Columns
from mtlsk.modules import HardSharing
from mtlsk.taskmap import TaskMap

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no CUDA device that torch can use"
)

DEVICE = "cuda"
D, K, N = 6, 5, 24
ENGINES = {
    "auto": "auto",
    "autograd": {"name": "Exact", "route": "autograd"},
    "budget": {"name": "Budget", "rows": 8},
    "features": "features",
    "online": "online",
    "every": {"name": "Exact", "every": 2},
}
ONLINE = {
    "MGDA": MGDA,
    "CAGrad": CAGrad,
    "ConicGrad": ConicGrad,
    "wide-ConicGrad": lambda: ConicGrad(0.1),
}


def linear():
    return HardSharing(D, K, (8, 7), "tanh", skip=True)


def conv():
    return HardSharing(D, K, (8,), "tanh", trunk="conv", input_shape=(1, 2, 3))


class Heads(nn.Module):
    """Heads side by side on a shared trunk."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(D, 8), nn.Tanh())
        self.heads = nn.ModuleList([nn.Linear(8, 1) for _ in range(K)])

    def forward(self, x):
        z = self.trunk(x)
        return torch.cat([head(z) for head in self.heads], 1)

    def shared_parameters(self):
        return self.trunk.parameters()


MODULES = {"linear": linear, "conv": conv, "heads": Heads}


@pytest.fixture(autouse=True)
def full_precision():
    """Let convolutions be those of float32, as matrix products are unless told otherwise."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
    torch.cuda.set_sync_debug_mode("default")


@contextlib.contextmanager
def waits(mode):
    """Raise (``"error"``) wherever the CPU waits for the GPU, or let it (``"default"``)."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.fixture
def transfers(monkeypatch):
    """Count the transfers of (G, L), the only place where a step may wait."""
    found, to_host = [], Descent._to_host

    def counted(self, gradients, gramian):
        found.append(gramian)
        if gramian:  # what the one transfer waits for is computed without waiting
            gradients.gramian()
        with waits("default"):
            return to_host(self, gradients, gramian)

    monkeypatch.setattr(Descent, "_to_host", counted)
    return found


def numbers(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def started(name, device, gramian, aggregator="MGDA", **options):
    """Return a descent, and a step (quiet or not, which tasks) that returns its record."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = MODULES[name]()
    module.to(device)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, fused=True)
    live = Descent(module, optimizer, aggregator, n_tasks=K, gramian=gramian, **options)
    columns = Columns([slice(k, k + 1) for k in range(K)], K)
    x, y = numbers(N, D, seed=1).to(device), numbers(N, K, seed=2).to(device)

    def again(rows):
        some = slice(None) if rows is None else rows
        outputs = module(x[some])
        return (outputs - y[some]).square().mean(0), outputs

    def step(present=None, place=None):
        losses, outputs = again(None)
        record = live.backward(losses, present, Forward(outputs, columns, place, again))
        optimizer.step()
        return record

    return live, step


def parameters(live):
    return torch.cat([p.detach().flatten().cpu() for p in (*live.shared, *live.own)])


def near(a, b):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


# ---- one step


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("gramian", ENGINES.values(), ids=ENGINES)
def test_a_step_waits_for_one_transfer_only(transfers, name, gramian):
    live, step = started(name, DEVICE, gramian)
    for _ in range(2):  # the first checks the net, and with it whether it may be trusted
        step()
    transfers.clear()
    with waits("error"):
        for _ in range(4):
            step()
    assert len(transfers) == (0 if gramian == "online" else 4)
    assert bool(parameters(live).isfinite().all())


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("aggregator", ONLINE.values(), ids=ONLINE)
@pytest.mark.parametrize("update_norm", ["native", "mean"])
def test_an_online_step_waits_for_nothing(transfers, name, aggregator, update_norm):
    for task_map in (
        None,
        TaskMap(K, [0.5, 2.0, 1.0, 0.5, 1.0]),
        TaskMap(K, groups=[[0, 3], [1, 2, 4]]),
    ):
        options = {"aggregator": aggregator(), "update_norm": update_norm, "task_map": task_map}
        live, step = started(name, DEVICE, "online", **options)
        step()
        with waits("error"):
            for _ in range(3):
                record = step()
        assert transfers == []
        assert record.losses.is_cuda
        assert live.aggregator.dual_.is_cuda


def test_losses_only_wait_for_the_transfer_of_the_losses(transfers):
    _, step = started("linear", DEVICE, "auto", "LinearScalarization")
    step()
    with waits("error"):
        step()
    assert transfers == [False, False]


@pytest.mark.parametrize("gramian", ENGINES.values(), ids=ENGINES)
def test_a_step_without_some_tasks_waits_for_one_transfer_only(transfers, gramian):
    present = [True, False, True, True, False]
    _, step = started("linear", DEVICE, gramian)
    for _ in range(2):
        step(present)
    transfers.clear()
    with waits("error"):
        for _ in range(2):
            step(present)
    assert len(transfers) == (0 if gramian == "online" else 2)


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("gramian", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize("present", [None, [True, False, True, True, False]], ids=["all", "some"])
def test_steps_are_those_of_the_cpu(name, gramian, present):
    if (name, gramian) == ("conv", "online"):
        pytest.skip("a loss difference in float32 is as exact as the losses' rounding")
    found = []
    for device in (DEVICE, "cpu"):
        live, step = started(name, device, gramian, "ConicGrad")
        records = [step(present) for _ in range(4)]
        found.append((parameters(live), records[-1].losses.cpu(), records[-1].weights.cpu()))
    for mine, cpu in zip(*found, strict=True):
        torch.testing.assert_close(mine, cpu, rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("aggregator", ONLINE.values(), ids=ONLINE)
def test_dual_weights_are_those_of_the_cpu(aggregator):
    duals = []
    for device in (DEVICE, "cpu"):
        live, step = started("linear", device, "online", aggregator())
        for _ in range(6):
            step()
        duals.append(live.aggregator.dual_.cpu())
    near(*duals)
    state = live.aggregator.state_dict()  # of the CPU, goes on on the GPU
    live, step = started("linear", DEVICE, "online", aggregator().load_state_dict(state))
    step()
    assert live.aggregator.dual_.is_cuda


# ---- a fit

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, D)).astype(np.float32)
Y = np.c_[X @ [1, -1, 0.5, 0, 0, 0], X[:, 0] ** 2, np.sin(2 * X[:, 1])].astype(np.float32)
SOME = np.where(RNG.random(Y.shape) < 0.2, np.nan, Y).astype(np.float32)
SOME[:, 0] = Y[:, 0]
ONE = np.where(np.arange(3) == np.arange(50)[:, None] % 3, Y, np.nan).astype(np.float32)
LABELS = {"all-labels": Y, "some-labels": SOME, "one-label-a-row": ONE}


def net(**params):
    small = {"hidden_layer_sizes": (8,), "max_epochs": 3, "batch_size": 16, "random_state": 0}
    return MultiTaskRegressor(
        **{**small, "aggregator": "MGDA", "optimizer": "SGD", "lr": 0.05, **params}
    )


@pytest.mark.parametrize(
    "options",
    [{}, {"module__trunk": "conv", "module__input_shape": (1, 2, 3)}],
    ids=["linear", "conv"],
)
@pytest.mark.parametrize("y", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("gramian", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_the_steps_of_a_fit_wait_for_one_transfer_only(
    monkeypatch, transfers, options, y, gramian, optimizer
):
    steps, train_step = [], TrainingLoop.train_step

    def watched(self, batch, **fit_params):
        assert batch[0].is_cuda
        assert batch[1].is_cuda
        steps.append(len(batch[0]))
        # the first of each size checks the net or makes memory
        with waits("error" if len(steps) > 4 else "default"):
            return train_step(self, batch, **fit_params)

    monkeypatch.setattr(TrainingLoop, "train_step", watched)
    net(device=DEVICE, gramian=gramian, optimizer=optimizer, **options).fit(X, y)
    assert steps == [16, 16, 16, 2] * 3
    assert len(transfers) == (0 if gramian == "online" else 12)


@pytest.mark.parametrize("y", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("gramian", ENGINES.values(), ids=ENGINES)
def test_a_fit_is_that_of_the_cpu(gramian, y):
    mine, cpu = (net(device=device, gramian=gramian).fit(X, y) for device in (DEVICE, "cpu"))
    for name in ("train_loss", "train_losses", "task_weights"):
        for a, b in zip(mine.history_[:, name], cpu.history_[:, name], strict=True):
            near(torch.tensor(a), torch.tensor(b))
    np.testing.assert_allclose(mine.predict(X), cpu.predict(X), rtol=1e-3, atol=1e-3)


def test_the_generators_of_the_gpu_are_left_as_they_were():
    class Drops(HardSharing):
        def forward(self, X):
            return self.head(nn.functional.dropout(self.trunk(X), 0.3, self.training))

    before = torch.cuda.get_rng_state()
    options = {"module": Drops, "hidden_layer_sizes": (64, 64), "gramian": "online"}
    nets = [net(device=DEVICE, **options).fit(X, Y) for _ in range(2)]
    assert torch.equal(torch.cuda.get_rng_state(), before)
    first, second = ([p.cpu() for p in n.module_.parameters()] for n in nets)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


GOING_ON = {
    "memory": {"aggregator": {"name": "ConicGrad", "solver": "flip"}, "controller": "APT"},
    "GradNorm": {"aggregator": "GradNorm", "task_scale": [1.0, 2.0, 0.5]},
    "online": {"aggregator": "ConicGrad", "gramian": {"name": "online", "every": 3}},
    "Muon": {"aggregator": "MGDA", "controller": "APT", "optimizer": "Muon"},
}


@pytest.mark.parametrize("options", GOING_ON.values(), ids=GOING_ON)
def test_a_net_goes_on_from_pickles_and_files(options, tmp_path):
    whole = net(device=DEVICE, max_epochs=4, **options).fit(X, Y)
    half = net(device=DEVICE, max_epochs=2, **options).fit(X, Y)
    half.save_params(f_training=tmp_path / "t")
    loaded = net(device=DEVICE, **options).initialize_for(X, Y)
    loaded.load_params(f_training=tmp_path / "t")
    for twin in (pickle.loads(pickle.dumps(half)), loaded, half):
        twin.partial_fit(X, Y).partial_fit(X, Y)
        np.testing.assert_allclose(twin.predict(X), whole.predict(X), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("options", GOING_ON.values(), ids=GOING_ON)
def test_a_net_of_the_gpu_goes_on_without_one(options, tmp_path):
    here = net(device=DEVICE, max_epochs=2, **options).fit(X, Y)
    (tmp_path / "net").write_bytes(pickle.dumps((here, X, Y)))
    here.save_params(f_training=tmp_path / "t")
    np.save(tmp_path / "before", here.predict(X))
    np.save(tmp_path / "after", here.partial_fit(X, Y).predict(X))
    script = """
import pickle, sys, warnings
import numpy as np, torch
from sklearn.base import clone
assert not torch.cuda.is_available()
folder = sys.argv[1]
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    net, X, Y = pickle.load(open(folder + "/net", "rb"))
assert any("cpu" in str(w.message) for w in said), said
other = clone(net).set_params(device="cpu").initialize_for(X, Y)
other.load_params(f_training=folder + "/t")
for loaded in (net, other):
    assert loaded.device == "cpu"
    for name in ("before", "after"):
        wanted = np.load(f"{folder}/{name}.npy")
        np.testing.assert_allclose(loaded.predict(X), wanted, rtol=1e-3, atol=1e-3)
        loaded.partial_fit(X, Y)
"""
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_a_net_of_the_cpu_goes_on_on_the_gpu(tmp_path):
    options = GOING_ON["memory"]
    cpu = net(device="cpu", max_epochs=2, **options).fit(X, Y)
    cpu.save_params(f_training=tmp_path / "t")
    gpu = net(device=DEVICE, **options).initialize_for(X, Y)
    gpu.load_params(f_training=tmp_path / "t")
    wanted = cpu.partial_fit(X, Y).predict(X)
    np.testing.assert_allclose(gpu.partial_fit(X, Y).predict(X), wanted, rtol=1e-3, atol=1e-3)


def test_a_task_without_labels_in_an_epoch_is_no_divergence():
    some = net(device=DEVICE, gramian="online").fit(X, Y)
    missing = Y.copy()
    missing[:, 0] = np.nan
    some.partial_fit(X, missing)
    assert np.isfinite(some.predict(X)).all()


def test_a_loss_that_is_not_finite_shows():
    for gramian in ("auto", "online"):
        with pytest.raises(ArithmeticError, match="training diverged"):
            net(device=DEVICE, gramian=gramian, lr=1e8, max_epochs=30).fit(X, Y)
