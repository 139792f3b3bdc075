"""What studies/apt.py measures inside training."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import r2_score
from skorch.callbacks import Callback

from mtlsk import MultiTaskRegressor
from mtlsk.gramian import effective_rank
from mtlsk.optimizers import orthogonalize

BASE = "LinearScalarization"
CONSTANT = 0.725
RHOS, BATCHES = (0.0, 0.05, 0.2, 0.5), (16, 64, 256)
HOSTS = {  # the optimizer's own options, what its momentum is called, two learning rates
    "SGD": ({"momentum": 0.9, "dampening": 0.9}, ("momentum", "dampening"), (0.3, 1.0)),
    "Adam": ({}, ("beta1",), (0.005, 0.015)),
    "AdamW": ({"weight_decay": 0.01}, ("beta1",), (0.005, 0.015)),
    "RAdam": ({}, ("beta1",), (0.03, 0.1)),
    "Muon": ({}, ("momentum",), (0.01, 0.03)),
}


def matrices(net):
    """Return (matrix, its group, its state) of the trunk's weights, before a step."""
    group_of = {id(p): g for g in net.optimizer_.param_groups for p in g["params"]}
    weights = [p for p in net.module_.trunk.parameters() if p.ndim == 2]
    return [(p, group_of[id(p)], net.optimizer_.state.get(p, {})) for p in weights]


def parts(p, group, state):
    """Return (update, the instant gradient's part of it, coefficient) of a matrix's next step.

    Muon's is not orthogonalised yet, Adam's is divided by the root of its second moment.
    """
    if group.get("use_muon"):
        share = 1 - group["momentum"] ** 2  # with the look-ahead
        return (1 - share) * state["momentum_buffer"] + share * p.grad, share * p.grad, share
    beta, beta2 = group["betas"]
    second = beta2 * state["exp_avg_sq"] + (1 - beta2) * p.grad**2
    root = (second / (1 - beta2 ** (float(state["step"]) + 1))).sqrt() + group["eps"]
    own = (1 - beta) * p.grad
    return (beta * state["exp_avg"] + own) / root, own / root, 1 - beta


def cosine(a, b):
    """Return the cosine of two lists of tensors."""
    a, b = (torch.cat([x.reshape(-1) for x in xs]) for xs in (a, b))
    return float(a @ b / (a.norm() * b.norm()).clamp_min(1e-30))


class Shares(Callback):
    """Keeps (coefficient, share, angle, length) of the instant gradient, see the report."""

    def __init__(self):
        self.found, self.steps = [], 0

    def on_grad_computed(self, net, **kwargs):
        self.steps += 1
        if self.steps <= 10:
            return
        with torch.no_grad():
            found = [parts(*entry) for entry in matrices(net)]
            muon = "use_muon" in net.optimizer_.param_groups[0]
            full, own, coefficients = zip(*found, strict=True)
            square = sum(float((u * u).sum()) for u in full)
            share = sum(float((u * g).sum()) for u, g in zip(full, own, strict=True)) / square
            length = (sum(float((g * g).sum()) for g in own) / square) ** 0.5
            rest = [u - g for u, g in zip(full, own, strict=True)]
            if muon:
                full, rest = ([orthogonalize(u) for u in us] for us in (full, rest))
            self.found.append((np.mean(coefficients), share, cosine(full, rest), length))


class Directions(Callback):
    """Keeps (gradient noise, effective rank, mean and worst cosine) of every 20th step of Muon."""

    def __init__(self, X, y):
        self.X, self.y = (torch.as_tensor(a, dtype=torch.float32) for a in (X, y))
        self.found, self.steps = [], 0

    def on_grad_computed(self, net, **kwargs):
        self.steps += 1
        if self.steps % 20:
            return
        entries = matrices(net)
        weights = [p for p, _, _ in entries]
        with torch.enable_grad():
            losses = ((net.module_(self.X) - self.y) ** 2).mean(0)
            of_tasks = [torch.autograd.grad(loss, weights, retain_graph=True) for loss in losses]
        mean = [torch.stack(gs).mean(0) for gs in zip(*of_tasks, strict=True)]
        apart = [p.grad - g for p, g in zip(weights, mean, strict=True)]
        sizes = [torch.cat([g.reshape(-1) for g in gs]).norm() for gs in (apart, mean)]
        with torch.no_grad():
            moved = []
            for p, group, state in entries:
                update = parts(p, group, state)[0]
                rho = group["direction_preservation"]
                if rho:
                    update = update + rho * update.norm() * net.optimizer_.task_directions[p]
                moved.append(update)
            ways = [orthogonalize(u) for u in moved]
            angles = [cosine(ways, gs) for gs in of_tasks]
            rank = np.mean([effective_rank(u) for u in moved])
        self.found.append((float(sizes[0] / sizes[1]), rank, np.mean(angles), min(angles)))


def shares(data, seeds, epochs):
    """Return {(optimizer, arm): [numbers of a run]}: the instant gradient's share of the update."""
    X, y, (train, *_) = data
    found = {}
    for optimizer in ("Adam", "AdamW", "RAdam", "Muon"):
        for arm in ("plain", "APT"):
            options = {f"optimizer__{k}": v for k, v in HOSTS[optimizer][0].items()}
            for seed in range(seeds):
                log = Shares()
                net = MultiTaskRegressor(
                    (32, 32), BASE, "APT" if arm == "APT" else None, optimizer,
                    HOSTS[optimizer][2][0], epochs, random_state=seed, callbacks=[log], **options
                )  # fmt: skip
                net.fit(X[train], y[train])
                found.setdefault((optimizer, arm), []).append(np.mean(log.found, axis=0))
    return found


def preservation(data, seeds, steps):
    """Return {(batch, rho): [numbers of a run]} for Muon's direction preservation."""
    X, y, (train, _, test) = data
    found = {}
    for batch in BATCHES:
        for rho in RHOS:
            for seed in range(seeds):
                log = Directions(X[train], y[train])
                epochs = max(1, round(steps / np.ceil(train.sum() / batch)))
                net = MultiTaskRegressor(
                    (32, 32), BASE, None, "Muon", 0.01, epochs, batch, random_state=seed,
                    callbacks=[log], optimizer__direction_preservation=rho,
                )  # fmt: skip
                net.fit(X[train], y[train])
                score = r2_score(y[test], net.predict(X[test]))
                numbers_of = [*np.mean(log.found, axis=0), score]
                found.setdefault((batch, rho), []).append(numbers_of)
        print("preservation, batch", batch, flush=True)
    return found
