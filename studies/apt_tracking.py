"""How well momentum follows a gradient that changes: a constant one against APT's.

python studies/apt_tracking.py             the report, in studies/apt_tracking/report.md
python studies/apt_tracking.py --quick     one seed

The true gradient F_t has length 1 in 1000 dimensions; a step sees g_t = F_t + noise and keeps
m_t = beta_t m_{t-1} + (1 - beta_t) g_t, here SGD's own buffer, driven by a Descent. The error is
the mean of |m_t - F_t|, without the first 50 steps. The best constant beta is chosen in hindsight.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from common import parser, rows_of, with_spread, write
from torch import Tensor, nn

from mtlsk import Descent
from mtlsk.controllers import APT
from mtlsk.optimizers import SGD

SIZE, STEPS, SKIPPED = 1000, 450, 50
LOW, HIGH, FIXED = APT().beta_min, APT().beta_max, 0.9
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


def measured(seeds: int) -> dict[str, dict[str, list[float]]]:
    """Return the error of each method in each scene, an entry a seed; constants by their beta."""
    found: dict[str, dict[str, list[float]]] = {}
    for name, (signal, noise) in SCENES.items():
        runs = [observed(signal, noise, seed) for seed in range(seeds)]
        found[name] = {f"{b:g}": [error_of_constant(b, *run) for run in runs] for b in CONSTANTS}
        for method, controller in METHODS.items():
            found[name][method] = [error_of(controller, *run) for run in runs]
    return found


def rows(found: dict[str, dict[str, list[float]]]) -> list[list[str]]:
    """Return a row a scene: the usual constant, the best one in hindsight, and APT."""
    table = []
    for name, errors in found.items():
        best = min((f"{b:g}" for b in CONSTANTS), key=lambda b: np.mean(errors[b]))
        cells = [with_spread(errors[method], 3) for method in (f"{FIXED:g}", *METHODS)]
        cells.insert(1, f"{with_spread(errors[best], 3)} at {best}")
        table.append([name, *cells])
    return table


def verdict(found: dict[str, dict[str, list[float]]]) -> str:
    """Return where APT, as it comes, is nearer than the constant in every seed."""
    parts = []
    for kind, constant in (("the gradient changes", False), ("it is constant", True)):
        names = [name for name, (signal, _) in SCENES.items() if (signal is still) == constant]
        words: dict[str, list[str]] = {}
        for name in names:
            apart = np.subtract(found[name][next(iter(METHODS))], found[name][f"{FIXED:g}"])
            word = "nearer" if (apart < 0).all() else "farther" if (apart > 0).all() else "neither"
            words.setdefault(word, []).append(f"*{name}*")
        said = "; ".join(f"{word} in {', '.join(own)}" for word, own in words.items())
        often = f"{len(words.get('nearer', []))} of {len(names)}"
        parts.append(f"in {often} scenes in which {kind} ({said})")
    return (
        f"beside a constant momentum of {FIXED} APT as it comes is nearer, in all seeds, "
        f"{' and '.join(parts)}."
    )


def main() -> None:
    """Write the report."""
    arguments = parser(__doc__, "apt_tracking", seeds=10).parse_args()
    seeds = 1 if arguments.quick else arguments.seeds
    found = measured(seeds)
    titles = ["gradient", f"constant {FIXED}", "best constant", *METHODS]
    paragraphs = [
        "**Asked** (ours, after arXiv 2604.08939: in Adam and Muon the instant gradient is a "
        "marginal share of the update, a simple adaptive momentum augments aggregators): does "
        "momentum that adapts by the cosine of successive gradients follow a gradient that changes "
        "better than a constant one, and is it worse where nothing changes? No formula is public; "
        f"APT is our reading, beta in [{LOW}, {HIGH}]; (gradient, affine) is as it comes.",
        f"**Run**: a gradient F_t of length 1 in {SIZE} dimensions, seen with noise, {STEPS} "
        f"steps; the mean of |m_t - F_t| without the first {SKIPPED}; smaller is better. The best "
        f"constant is chosen in hindsight from {', '.join(f'{b:g}' for b in CONSTANTS)}.",
        "**Found**:",
        rows_of(titles, rows(found)),
        f"**Verdict**: {verdict(found)}",
    ]
    how = f"{seeds} seed{'s' * (seeds > 1)} (mean ± standard deviation over them);"
    write(arguments.out, "How momentum follows a changing gradient", paragraphs, how)


if __name__ == "__main__":
    main()
