"""How well momentum follows a gradient that changes: a constant one against APT's.

python studies/apt_tracking.py             the report, in studies/apt_tracking/report.md
python studies/apt_tracking.py --quick     one seed

The true gradient F_t has length 1 in 1000 dimensions; a step sees g_t = F_t + noise and keeps
m_t = beta_t m_{t-1} + (1 - beta_t) g_t, here SGD's own buffer, driven by a Descent. The error is
the mean of |m_t - F_t|, without the first 50 steps. The best constant beta is chosen in hindsight.
"""

from __future__ import annotations

import argparse
import datetime
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mtlsk import Descent
from mtlsk.controllers import APT
from mtlsk.machine import machine, versions
from mtlsk.optimizers import SGD

SIZE, STEPS, SKIPPED = 1000, 450, 50
LOW, HIGH, FIXED = 0.5, 0.95, 0.9
CONSTANTS = [0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99]
Signal = Callable[[int], tuple[float, float]]  # step -> F_t in the plane of two fixed axes


def flips(step: int) -> tuple[float, float]:
    """Return a gradient that turns into its opposite every 20 steps."""
    return (1.0 if step // 20 % 2 else -1.0), 0.0


def rotation(step: int) -> tuple[float, float]:
    """Return a gradient that turns by .35 a step."""
    return math.cos(0.35 * step), math.sin(0.35 * step)


def still(step: int) -> tuple[float, float]:
    """Return a gradient that never changes."""
    return 1.0, 0.0


SCENES: dict[str, tuple[Signal, float]] = {  # signal, length of the noise
    "flips every 20 steps, no noise": (flips, 0.0),
    "flips every 20 steps, noise as long as F": (flips, 1.0),
    "rotation by .35 a step, no noise": (rotation, 0.0),
    "constant, noise as long as F": (still, 1.0),
    "constant, noise 3.3 times as long (SNR .3)": (still, 1 / 0.3),
}
METHODS = {
    "APT (gradient, affine)": APT(LOW, HIGH),
    "APT (momentum, affine)": APT(LOW, HIGH, reference="momentum"),
    "APT (gradient, relu)": APT(LOW, HIGH, map="relu"),
    "APT (momentum, relu)": APT(LOW, HIGH, reference="momentum", map="relu"),
}


def observed(signal: Signal, noise: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return F and g of one run, a row a step."""
    generator = torch.Generator().manual_seed(seed)
    true = torch.zeros(STEPS, SIZE)
    true[:, :2] = torch.tensor([signal(step) for step in range(STEPS)])
    return true, true + torch.randn(STEPS, SIZE, generator=generator) * noise / math.sqrt(SIZE)


def error_of_constant(beta: float, true: Tensor, seen: Tensor) -> float:
    """Return the mean |m_t - F_t| of a constant momentum; m starts from the gradient, as SGD's."""
    m, found = seen[0], []
    for f, g in zip(true, seen, strict=True):
        m = beta * m + (1 - beta) * g
        found.append(float((m - f).norm()))
    return float(np.mean(found[SKIPPED:]))


def error_of(controller: APT, true: Tensor, seen: Tensor) -> float:
    """Return the mean |m_t - F_t| of SGD's own buffer, driven by a controller."""
    module = nn.ParameterList([nn.Parameter(torch.zeros(SIZE))])
    optimizer = SGD(module.parameters(), lr=0.0)
    descent = Descent(module, optimizer, controller=controller.reset(), n_tasks=1)
    found = []
    for f, g in zip(true, seen, strict=True):
        descent.backward((module[0] @ g).reshape(1))
        optimizer.step()
        found.append(float((optimizer.state[module[0]]["momentum_buffer"] - f).norm()))
    return float(np.mean(found[SKIPPED:]))


def table(seeds: int) -> Iterator[str]:
    """Yield the lines of the report's table."""
    yield f"| gradient | constant {FIXED} | best constant | {' | '.join(METHODS)} |"
    yield "|" + " --- |" * (3 + len(METHODS))
    for name, (signal, noise) in SCENES.items():
        runs = [observed(signal, noise, seed) for seed in range(seeds)]
        constant = {b: [error_of_constant(b, *run) for run in runs] for b in CONSTANTS}
        best = min(constant, key=lambda b: np.mean(constant[b]))
        driven = [[error_of(method, *run) for run in runs] for method in METHODS.values()]
        cells = [f"{np.mean(e):.3f} ± {np.std(e):.3f}" for e in (constant[FIXED], *driven)]
        cells.insert(1, f"{np.mean(constant[best]):.3f} at {best:g}")
        yield f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(""))
    arguments = parser.parse_args()
    seeds = 1 if arguments.quick else 10
    used = ", ".join(f"{k} {v}" for k, v in {**machine(), **versions()}.items())
    lines = [
        "# How momentum follows a changing gradient",
        "",
        f"{datetime.date.today()}; seeds: {seeds} (mean ± standard deviation over them); best "
        f"constant of {', '.join(f'{b:g}' for b in CONSTANTS)}; APT with beta in [{LOW}, {HIGH}]. "
        f"{used}.",
        "",
        "Mean |m_t - F_t|, |F_t| = 1: smaller is better.",
        "",
        *table(seeds),
    ]
    arguments.out.mkdir(exist_ok=True)
    (arguments.out / "report.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
