"""A whole ``fit`` against the shortest torch loop, at the shape of the SARCOS data."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from skorch import NeuralNetRegressor
from torch import nn

from mtlsk import MultiTaskRegressor
from mtlsk.datasets import make_arm
from mtlsk.modules import HardSharing
from tests.benchmarks.measure import Case, Effort, Results, interleave
from tests.benchmarks.report import Table, ratios, short

SECTION = "fit"
N_ROWS = 44484
SETTINGS = ((64, 256), (64, 1024), (256, 256), (256, 1024))
LR = 1e-3
BARE = "bare torch loop"
SCALARIZED = "MultiTaskRegressor(LinearScalarization)"
MLP = "scikit-learn MLPRegressor"

Rows = NDArray[np.float32]


def table(n_rows: int) -> tuple[Rows, Rows]:
    """Return standardised float32 features (n, 21) and targets (n, 7)."""
    arm = make_arm(n_rows, random_state=0)
    X, y = (
        np.ascontiguousarray((part - part.mean(0)) / part.std(0), dtype=np.float32)
        for part in (arm.data.to_numpy(), arm.target.to_numpy())
    )
    return X, y


def bare_loop(X: Rows, y: Rows, width: int, batch: int, epochs: int) -> nn.Module:
    """Train by the shortest loop: gather once an epoch, slice, one backward, fused AdamW."""
    module = HardSharing(X.shape[1], y.shape[1], (width, width))
    optimizer = torch.optim.AdamW(module.parameters(), lr=LR, weight_decay=0.0, fused=True)
    features, labels = torch.from_numpy(X), torch.from_numpy(y)
    for _ in range(epochs):
        order = torch.randperm(len(features))
        a, b = features[order], labels[order]
        for start in range(0, len(a), batch):
            rows = slice(start, start + batch)
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(module(a[rows]), b[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return module


def estimators(width: int, batch: int, epochs: int) -> dict[str, Callable[[], Any]]:
    """Return the makers of estimators of one net, batch size and number of epochs."""

    def ours(aggregator: str, gramian: str = "auto") -> Any:
        return MultiTaskRegressor(
            (width, width),
            aggregator,
            lr=LR,
            max_epochs=epochs,
            batch_size=batch,
            gramian=gramian,
            random_state=0,
        )

    def skorch() -> Any:
        return NeuralNetRegressor(
            HardSharing,
            module__n_features=21,
            module__n_outputs=7,
            module__hidden_layer_sizes=(width, width),
            optimizer=torch.optim.AdamW,
            optimizer__weight_decay=0.0,
            lr=LR,
            max_epochs=epochs,
            batch_size=batch,
            iterator_train__shuffle=True,
            train_split=None,
            verbose=0,
        )

    def sklearn() -> Any:
        return MLPRegressor(
            hidden_layer_sizes=(width, width),
            alpha=0.0,
            learning_rate_init=LR,
            max_iter=epochs,
            batch_size=batch,
            tol=0.0,
            n_iter_no_change=10**6,
            early_stopping=False,
            random_state=0,
        )

    return {
        SCALARIZED: lambda: ours("LinearScalarization"),
        "MultiTaskRegressor(ConicGrad), online": lambda: ours("ConicGrad", "online"),
        "MultiTaskRegressor(ConicGrad), exact": lambda: ours("ConicGrad", "exact"),
        MLP: sklearn,
        "skorch NeuralNetRegressor as it comes": skorch,
    }


def cases(X: Rows, y: Rows, width: int, batch: int, epochs: int) -> list[Case]:
    """Return the fits, each checked to learn as much as the bare loop does."""
    truth = torch.from_numpy(y)

    def loss(prediction: Any) -> float:
        return float((torch.as_tensor(prediction) - truth).square().mean())

    torch.manual_seed(0)
    bare = bare_loop(X, y, width, batch, epochs)
    with torch.no_grad():
        wanted = loss(bare(torch.from_numpy(X)))
    found = [Case(BARE, lambda _: bare_loop(X, y, width, batch, epochs), BARE)]

    def again(make: Callable[[], Any], _: int) -> None:
        quietly(make, X, y)

    for name, make in estimators(width, batch, epochs).items():
        got = loss(quietly(make, X, y).predict(X))
        assert 0.5 * wanted < got < 2 * wanted, f"{name}: loss {got}, bare loop {wanted}"
        found.append(Case(name, partial(again, make), BARE))
    return found


def quietly(make: Callable[[], Any], X: Rows, y: Rows) -> Any:
    """Fit, without being told that so few epochs do not converge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make().fit(X, y)


def run(results: Results, quick: bool) -> list[Table]:
    """Measure all settings."""
    n_rows, epochs = (8192, 1) if quick else (N_ROWS, 2)
    X, y = table(n_rows)
    effort = Effort(4.0, 60.0, least=3) if quick else Effort(60.0, 60.0, least=5, most=20)
    settings = SETTINGS[:2] if quick else SETTINGS
    for width, batch in settings:
        found = cases(X, y, width, batch, epochs)
        results.add(interleave(SECTION, f"H{width} b{batch}", found, effort, n_warm=1))
    names = [f"H{width} b{batch}" for width, batch in settings]
    bare = [results.of(SECTION, name, BARE) for name in names]
    epoch = ", ".join(short(r.median / epochs) for r in bare if r is not None)
    return [
        ratios(
            results,
            SECTION,
            "fit()",
            f"{n_rows} x 21 -> 7 in float32, two layers (H, H), {epochs} epoch(s), the same net, "
            "batch size and learning rate: ratio to a torch loop that gathers once an epoch and "
            f"slices, with fused AdamW, which takes {epoch} s an epoch.",
            names,
        )
    ]
