"""What studies/apt.py measures inside training."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import r2_score
from skorch.callbacks import Callback

from mtlsk import MultiTaskRegressor
from mtlsk.controllers import APT
from mtlsk.gramian import effective_rank
from mtlsk.optimizers import orthogonalize

BASE = "LinearScalarization"
KINDS = {"sarcos": "numbers", "arm": "numbers", "digits": "classes", "tox21": "classes"}
LAYERS = (32, 32)
CONSTANT = (APT().beta_min + APT().beta_max) / 2  # what APT takes at a cosine of 0
RATIO = 2.5
SHARES = ("coefficient", "share", "cosine", "length")
PRESERVATION = ("gradient noise", "effective rank", "mean cosine", "worst task's cosine", "test R2")
RHOS, BATCHES = (0.0, 0.05, 0.2, 0.5), (16, 64, 256)
HOSTS = {  # the optimizer's own options, what its momentum is called, the least learning rate
    "SGD": ({"momentum": 0.9, "dampening": 0.9}, ("momentum", "dampening"), 0.24),
    "Adam": ({}, ("beta1",), 0.0024),
    "AdamW": ({"weight_decay": 0.01}, ("beta1",), 0.0024),
    "RAdam": ({}, ("beta1",), 0.0064),
    "Muon": ({}, ("momentum", "beta1"), 0.004),  # APT drives its AdamW part too
}


def rates(name, optimizer):
    """Return an optimizer's four learning rates on a data set, each RATIO times the last.

    Where they lie was looked up beforehand, on validation rows of one seed or two. SGD's are larger
    for Tox21: its gradients, of sparse zeros and ones, are small.
    """
    moved = 2 if (name, optimizer) == ("tox21", "SGD") else 0
    return [float(f"{HOSTS[optimizer][2] * RATIO ** (moved + i):.3g}") for i in range(4)]


def options_of(optimizer, arm):
    """Return the words for an estimator with a host optimizer's options in an arm."""
    options, words, _ = HOSTS[optimizer]
    if arm == "constant":
        options = {**options, **dict.fromkeys(words, CONSTANT)}
        if "beta1" in options:
            options["betas"] = (options.pop("beta1"), 0.999)
    return {f"optimizer__{k}": v for k, v in options.items()}


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


def shared(data, epochs, name, optimizer, arm, seed):
    """Return the instant gradient's share of the update, in the mean of a run."""
    X, y, (train, *_) = data
    log = Shares()
    net = MultiTaskRegressor(
        LAYERS, BASE, "APT" if arm == "APT" else None, optimizer, rates(name, optimizer)[1],
        epochs, random_state=seed, callbacks=[log], **options_of(optimizer, arm),
    )  # fmt: skip
    net.fit(X[train], y[train])
    return dict(zip(SHARES, np.mean(log.found, axis=0), strict=True))


def preserved(data, steps, name, batch, rho, seed):
    """Return what Muon's direction preservation does, in the mean of a run."""
    X, y, (train, _, test) = data
    log = Directions(X[train], y[train])
    epochs = max(1, round(steps / np.ceil(train.sum() / batch)))
    net = MultiTaskRegressor(
        LAYERS, BASE, None, "Muon", rates(name, "Muon")[1], epochs, batch, random_state=seed,
        callbacks=[log], optimizer__direction_preservation=rho,
    )  # fmt: skip
    net.fit(X[train], y[train])
    score = r2_score(y[test], net.predict(X[test]))
    return dict(zip(PRESERVATION, (*np.mean(log.found, axis=0), score), strict=True))
