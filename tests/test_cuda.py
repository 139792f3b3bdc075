"""On a GPU a step waits for nothing but the one transfer of (G, L)."""

import numpy as np
import pytest
import torch

from mtlsk import Descent, MultiTaskRegressor
from mtlsk.engines import Forward
from mtlsk.linear_graph import Columns
from mtlsk.modules import HardSharing

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device, and there is none here"
)
TRANSFERS = {"exact": 1, "budget": 1, "features": 1, "online": 0}


@pytest.mark.parametrize("engine", TRANSFERS)
def test_a_step_synchronises_for_the_one_transfer_only(monkeypatch, engine):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = HardSharing(6, 4, (16, 16)).cuda()
        x, y = torch.randn(64, 6).cuda(), torch.randn(64, 4).cuda()
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    descent = Descent(module, optimizer, "ConicGrad", n_tasks=4, gramian=engine)
    columns = Columns([slice(k, k + 1) for k in range(4)], 4)
    transfers = []
    original = Descent._to_host

    def allowed(*args):
        transfers.append(1)
        torch.cuda.set_sync_debug_mode("default")
        try:
            return original(*args)
        finally:
            torch.cuda.set_sync_debug_mode("error")

    def step():
        outputs = module(x)
        descent.backward(((outputs - y) ** 2).mean(0), None, Forward(outputs, columns))
        optimizer.step()

    for _ in range(2):  # the first step checks the graph
        step()
    monkeypatch.setattr(Descent, "_to_host", allowed)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(transfers) == 3 * TRANSFERS[engine]


@pytest.mark.parametrize("engine", TRANSFERS)
def test_a_fit_on_the_gpu_is_the_fit_on_the_cpu(engine):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 5))
    y = np.tanh(x @ rng.standard_normal((5, 3)))
    nets = [
        MultiTaskRegressor(
            (16,), "ConicGrad", gramian=engine, max_epochs=2, random_state=0, device=device
        ).fit(x, y)
        for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(nets[0].predict(x), nets[1].predict(x), atol=1e-3)
