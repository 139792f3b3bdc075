"""ConicGrad's toy problem at full length: who reaches the minimum of the mean loss, by what way.

python studies/conicgrad_toy.py             50,000 steps a trajectory, half an hour; goes on where
                                             an earlier run was interrupted
python studies/conicgrad_toy.py --report    the report again, from ends.csv and paths.npz
python studies/conicgrad_toy.py --quick     150 steps, fewer settings

Claims of arXiv 2502.00217. Five starts, Adam at .001, two losses of a point in the plane. Many
trajectories are stepped together; the tests hold each step against that of mtlsk.Descent.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch
from common import parser, write
from conicgrad_toy_report import page
from conicgrad_toy_settings import (
    CLOSED,
    FAMO_BELOW,
    LR,
    NEAR,
    OTHERS,
    STEPS,
    Setting,
    grouped,
    settings,
    starts,
    usual,
)
from joblib import Parallel, delayed

from mtlsk.aggregators import AGGREGATORS
from mtlsk.datasets import toy_losses, toy_minimum
from mtlsk.optimizers import Adam

EPS = torch.finfo(torch.float64).eps


def built(setting):
    """Return the aggregator of a setting."""
    if setting.method in OTHERS:
        return AGGREGATORS.build(OTHERS[setting.method])
    made = {"name": "ConicGrad", "c": setting.c}
    if setting.method in CLOSED:
        made |= {"solver": setting.method, "gamma": setting.gamma_or_rate}
    return AGGREGATORS.build(made)


def below(setting):
    """Return what is added to the losses (2,): FAMO's come as how far they are above the least."""
    if setting.method != "FAMO":
        return 0.0
    return FAMO_BELOW * torch.tensor([setting.scale, 1.0], dtype=torch.float64)


def weights(aggregator, setting, gramian):
    """Return the weights (2,) of the update J^T w, with |J^T w| = |g0| where it has a length."""
    w0 = torch.full((2,), 0.5, dtype=torch.float64)
    s0 = max(0.0, float(w0 @ gramian @ w0))  # below it is rounding
    if setting.method == "online":  # the same step as the engine's, from an exact Gramian
        dual = aggregator.dual_weights(2)
        slopes = gramian @ dual
        squared = max(0.0, float(dual @ slopes))
        alpha, beta = aggregator.coefficients(s0, float(w0 @ slopes), squared)
        w = alpha * w0 + beta * dual
        aggregator.advance(gramian @ w, setting.gamma_or_rate)
    else:  # by the Gramian alone
        w = aggregator.task_weights(gramian, torch.ones(2, dtype=torch.float64))
    square = float(w @ gramian @ w)
    return w * math.sqrt(s0 / square) if square > 1e-28 * s0 and s0 > 0 else w


class Logits:
    """Dual weights w = softmax(logits) of N trajectories, (N, 2), and their Adam."""

    def __init__(self, n, lr, decay=0.0):
        self.values = torch.zeros(n, 2, dtype=torch.float64)
        self.moments = (torch.zeros_like(self.values),) * 2
        self.taken = torch.zeros(n, 1, dtype=torch.float64)
        self.lr, self.decay = lr, decay

    def weights(self):
        """Return w (N, 2)."""
        return torch.softmax(self.values, 1)

    def move(self, gradient, still):
        """Move down a gradient in w (N, 2), but for the trajectories that stand ``still`` (N,)."""
        w, still = self.weights(), still[:, None]
        slope = w * (gradient - (w * gradient).sum(1, keepdim=True)) + self.decay * self.values
        taken, (m, v) = self.taken + 1, self.moments
        first, second = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
        size = (second / (1 - 0.999**taken)).sqrt() + 1e-8
        values = self.values - self.lr * first / (1 - 0.9**taken) / size
        self.values = torch.where(still, self.values, values)
        self.taken = torch.where(still, self.taken, taken)
        self.moments = torch.where(still, m, first), torch.where(still, v, second)


class ClosedForm:
    """ConicGrad's closed form and its dual weights, of many trajectories at once.

    Those of the aggregator, which the tests hold it against: one call a trajectory and step would
    take hours for the grid of c and gamma.
    """

    def __init__(self, chosen, n):
        def column(values):
            return torch.tensor(values, dtype=torch.float64).repeat_interleave(n)

        self.c = column([s.c for s in chosen])
        self.sign = column([1.0 if s.method == "flip" else -1.0 for s in chosen])
        decay = column([s.gamma_or_rate for s in chosen])[:, None]
        self.dual = Logits(len(self.c), built(chosen[0]).dual_lr, decay)

    def weights(self, gramians, losses):
        """Return the weights (N, 2) for Gramians (N, 2, 2), and move the dual weights."""
        w, half = self.dual.weights(), torch.full((1, 2), 0.5, dtype=torch.float64)
        lengths = gramians.diagonal(dim1=1, dim2=2).sqrt().sum(1) / 2
        s0 = gramians.sum((1, 2)) / 4
        mean = s0 <= 8 * EPS * lengths**2  # no g0 but for rounding: no cone
        along = ((gramians.sum(2) / 2) * w).sum(1)  # <g0, g_w>
        a = w + (self.sign * along / ((1 - self.c**2) * s0) / 2)[:, None]
        square = (a * times(gramians, a)).sum(1)
        mean |= square <= 1e-28 * s0
        a = a * (s0 / square).sqrt()[:, None]
        self.dual.move(times(gramians, a) / s0[:, None], mean)
        return torch.where(mean[:, None], half, a)

    def observe(self, after):
        """Nothing is learnt from the losses after a step."""


class Famo:
    """FAMO of many trajectories at once, at the length of the mean gradient; tested likewise."""

    def __init__(self, chosen, n):
        one = built(chosen[0])
        self.below = below(chosen[0])
        self.dual = Logits(len(chosen) * n, one.lr, one.gamma)

    def weights(self, gramians, losses):
        """Return the weights (N, 2) and keep the losses (N, 2)."""
        self.before = losses + self.below
        w = torch.softmax(self.dual.values - self.before.log(), 1)
        s0, square = gramians.sum((1, 2)) / 4, (w * times(gramians, w)).sum(1)
        there = (square > 1e-28 * s0) & (s0 > 0)
        return w * torch.where(there, s0 / square, 1.0).sqrt()[:, None]

    def observe(self, after):
        """Move the logits by the losses (N, 2) after the step."""
        fall = self.before.log() - (after + self.below).log()
        self.dual.move(fall, torch.zeros(len(fall), dtype=torch.bool))


BATCHED = {"printed": ClosedForm, "flip": ClosedForm, "FAMO": Famo}


def times(matrices, vectors):
    """Return the products (N, 2) of matrices (N, 2, 2) and vectors (N, 2)."""
    return (matrices @ vectors[..., None])[..., 0]


def followed(chosen, begin, steps):
    """Return (points (steps + 1, S, N, 2), mean losses (steps + 1, S, N)) of S settings.

    ``begin`` (S, N, 2) are their starts. All have one scale and one kind (see ``grouped``).
    """
    torch.set_num_threads(1)
    begin = np.asarray(begin, dtype=float)
    n, scale = begin.shape[1], chosen[0].scale
    x = torch.tensor(begin.reshape(-1, 2), requires_grad=True)
    optimizer = Adam([x], lr=LR)
    made = BATCHED.get(chosen[0].method)
    batch = made(chosen, n) if made else None
    live = [(built(s), s) for s in chosen for _ in range(n)]
    points, means = np.empty((steps + 1, len(x), 2)), np.empty((steps + 1, len(x)))
    for step in range(steps + 1):
        losses = toy_losses(x, scale)
        points[step], means[step] = x.detach(), losses.detach().mean(1)
        if step == steps:
            break
        rows = [torch.autograd.grad(losses[:, k].sum(), x, retain_graph=k == 0)[0] for k in (0, 1)]
        jacobian = torch.stack(rows, dim=1)  # (S N, 2 tasks, 2 coordinates)
        gramians, values = jacobian @ jacobian.mT, losses.detach()
        if batch:
            w = batch.weights(gramians, values)
        else:
            asked = zip(live, gramians, strict=True)
            w = torch.stack([weights(*one, g) for one, g in asked])
        x.grad = (w.unsqueeze(2) * jacobian).sum(1)
        optimizer.step()
        if batch:
            batch.observe(toy_losses(x.detach(), scale))
    shape = (steps + 1, *begin.shape[:2])
    return points.reshape(*shape, 2), means.reshape(shape)


def ran(chosen, steps):
    """Return for each setting (a row a start, x1, x2 and mean loss of some steps (T, N, 3))."""
    points, means = followed(chosen, [starts(s.seed) for s in chosen], steps)
    found = []
    for i, setting in enumerate(chosen):
        way, mean = points[:, i], means[:, i]
        lengths = np.linalg.norm(np.diff(way, axis=0), axis=2).sum(0)
        above = mean - toy_minimum(setting.scale)[1]
        near = above <= NEAR
        rows = [
            {
                **setting._asdict(), "start": n, "x1": way[-1, n, 0], "x2": way[-1, n, 1],
                "above": above[-1, n], "length": lengths[n],
                "straight": np.linalg.norm(way[-1, n] - way[0, n]),
                "arrived": near[:, n].argmax() if near[:, n].any() else math.nan,
            }
            for n in range(way.shape[1])
        ]  # fmt: skip
        way = np.concatenate([way, mean[..., None]], axis=2)[:: max(1, steps // 200)]
        found.append((setting, rows, way.astype(np.float32)))
    return found


def angle(text):
    """Return c as it is in a setting: a number, or "auto"."""
    return text if text == "auto" else float(text or "nan")


def by_setting(ends):
    """Return the rows of each setting, whose name is what a run would print."""
    rows = zip(*(ends[name].tolist() for name in Setting._fields), strict=True)
    return dict(list(ends.groupby([str(Setting(*row)) for row in rows], sort=False)))


def keep(out, ends, ways):
    """Write both tables, each whole: what is in ends.csv counts as done, so it comes last."""
    np.savez_compressed(out / "new.npz", **ways)
    (out / "new.npz").replace(out / "paths.npz")
    ends.to_csv(out / "new.csv", index=False, float_format="%.6g")
    (out / "new.csv").replace(out / "ends.csv")


def main():
    options = parser(__doc__, "conicgrad_toy")
    options.add_argument("--report", action="store_true", help="run nothing, write the report")
    arguments = options.parse_args()
    steps, out = 150 if arguments.quick else STEPS, arguments.out
    out.mkdir(parents=True, exist_ok=True)
    ends, ways = {}, {}
    if (out / "ends.csv").exists():
        ends = by_setting(pd.read_csv(out / "ends.csv", converters={"c": angle, "scale": float}))
        with np.load(out / "paths.npz") as known:
            ways = dict(known)
    wanted = [] if arguments.report else settings(arguments.quick, arguments.seeds)
    missing, drawn = [s for s in wanted if str(s) not in ends], {str(s) for s in usual()}
    work = Parallel(n_jobs=arguments.jobs, return_as="generator_unordered")
    for group in work(delayed(ran)(chosen, steps) for chosen in grouped(missing)):
        for setting, rows, way in group:
            ends[str(setting)] = pd.DataFrame(rows)
            if str(setting) in drawn:
                ways[setting.method] = way
            print(*setting, [round(float(row["above"]), 3) for row in rows], flush=True)
        keep(out, pd.concat(ends.values()), ways)
    text = page(pd.read_csv(out / "ends.csv"), ways, steps, out)
    how = f"Adam at {LR}, {steps} steps, float64, updates of the mean gradient's length;"
    write(out, "ConicGrad's toy problem at full length", text, how)


if __name__ == "__main__":
    main()
