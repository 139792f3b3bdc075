"""How long solving for the task weights takes, against a plain training step and TorchJD.

Run ``python tests/benchmarks/solve_times.py``. The Gramians are those of consecutive batches of one
training run, everything is timed in turn, step by step, and the median over the steps is shown:
only the ratios mean something. "cold" forgets the memory before each call, "warm" keeps it; both
follow another call, so that code and data are in the processor's caches. "warm after a step"
follows a training step, which pushes them out.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from mtlsk.aggregators import MGDA, CAGrad, ConicGrad, LinearScalarization
from mtlsk.engines import Exact

AGGREGATORS = {
    "LinearScalarization()": (LinearScalarization(), None),
    "MGDA()": (MGDA(), lambda j: j.MGDAWeighting()),
    "CAGrad(c=0.5)": (CAGrad(c=0.5), lambda j: j.CAGradWeighting(c=0.5)),
    "CAGrad(c=1)": (CAGrad(c=1.0), lambda j: j.CAGradWeighting(c=1.0)),
    "ConicGrad(c=0.5)": (ConicGrad(c=0.5), None),
    "ConicGrad(c=0.9)": (ConicGrad(c=0.9), None),
}


def training(n_tasks: int, seed: int = 0) -> tuple[Callable[[], None], Callable[[], Any]]:
    """Return (a plain step, the Gramian and losses of the next batch) of one small regression."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    x = torch.randn(8192, 21, generator=generator)
    hidden = torch.tanh(x @ torch.randn(21, 30, generator=generator) / 3)
    y = hidden @ torch.randn(30, n_tasks, generator=generator)
    y = y / y.std(0) + 0.3 * torch.randn(y.shape, generator=generator)
    widths = [21, 64, 64, 64]
    layers: list[torch.nn.Module] = []
    for i, o in itertools.pairwise(widths):
        layers += [torch.nn.Linear(i, o), torch.nn.ReLU()]
    module = torch.nn.Sequential(*layers, torch.nn.Linear(64, n_tasks))
    shared = [p for layer in module[:-1] for p in layer.parameters()]
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, fused=True)
    batch = torch.randint(8192, (256,), generator=generator)

    def losses() -> torch.Tensor:
        return ((module(x[batch]) - y[batch]) ** 2).mean(0)

    def step() -> None:
        optimizer.zero_grad()
        losses().mean().backward()
        optimizer.step()

    def gramian() -> tuple[torch.Tensor, torch.Tensor]:
        batch.copy_(torch.randint(8192, (256,), generator=generator))
        gradients = Exact().differentiate(losses(), shared)
        return gradients.gramian().double(), gradients.losses.detach().double()

    return step, gramian


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def torchjd_weightings() -> dict[str, Any]:
    """Return name -> TorchJD's weighting, or the reason why there is none."""
    try:
        import torchjd.aggregation as torchjd
    except ImportError:
        return {n: "not installed" for n, (_, make) in AGGREGATORS.items() if make is not None}
    found: dict[str, Any] = {}
    for name, (_, make) in AGGREGATORS.items():
        if make is not None:
            try:
                found[name] = make(torchjd)
            except Exception as error:
                found[name] = type(error).__name__
    return found


def table(n_tasks: int, n_steps: int) -> None:
    """Print one line an aggregator and kind of call."""
    step, next_gramian = training(n_tasks)
    theirs = torchjd_weightings()
    times: dict[tuple[str, str], list[float]] = {}
    for t in range(20 + n_steps):
        gramian, losses = next_gramian()
        now = {("plain", ""): seconds(step)}
        for name, (aggregator, _) in AGGREGATORS.items():

            def solve(aggregator: Any = aggregator) -> Any:
                return aggregator.task_weights(gramian, losses)  # noqa: B023

            before = aggregator.state_dict()
            step()
            now[name, "warm after a step"] = seconds(solve)
            after = aggregator.state_dict()
            aggregator.load_state_dict(before)
            now[name, "warm"] = seconds(solve)
            aggregator.reset()
            now[name, "cold"] = seconds(solve)
            aggregator.load_state_dict(after)
            weighting = theirs.get(name)
            if weighting is not None and not isinstance(weighting, str):
                try:
                    now[name, "TorchJD"] = seconds(lambda: weighting(gramian))  # noqa: B023
                except Exception as error:
                    theirs[name] = type(error).__name__
        if t >= 20:
            for key, value in now.items():
                times.setdefault(key, []).append(value)
    unit = float(np.median(times["plain", ""]))
    print(f"\nK = {n_tasks}: a plain step takes {1e3 * unit:.2f} ms (median of {n_steps})")
    print(f"{'':24}{'':18}{'ms':>8}{'/ plain':>9}{'p90':>8}{'TorchJD ms':>14}")
    for name in AGGREGATORS:
        other = theirs.get(name, "-")
        if not isinstance(other, str):
            other = f"{1e3 * float(np.median(times[name, 'TorchJD'])):.2f}"
        for kind in ("cold", "warm", "warm after a step"):
            own = np.array(times[name, kind])
            print(
                f"{name:24}{kind:18}{1e3 * np.median(own):8.3f}{np.median(own) / unit:9.3f}"
                f"{np.quantile(own, 0.9) / unit:8.3f}{other:>14}"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--tasks", type=int, nargs="*", default=[7, 40])
    options = parser.parse_args()
    torch.set_num_threads(1)
    for tasks in options.tasks:
        table(tasks, options.steps)
