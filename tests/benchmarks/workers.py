"""What a study costs above its fits, and what workers gain that share the cores.

``python -m tests.benchmarks.workers cost`` runs a study whose fits sleep for two seconds, and
``... threads`` the same fits by N workers with the threads they are given and with two each.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import mtlsk.study
from mtlsk import Study
from mtlsk.aggregators import LinearScalarization
from mtlsk.trials import cores, load_study, open_storage

SECONDS = 2.0

FILE = """
[study]
name = "cost"
trials = {trials}
sampler = "{sampler}"
models = "none"
[data]
name = "arm"
options = {{ n_samples = {rows}, random_state = 0 }}
split = "random"
[estimator]
hidden_layer_sizes = [{width}, {width}]
max_epochs = {epochs}
batch_size = {batch}
[search]
aggregator = ["{aggregator}"]
lr = {{ low = 1e-3, high = 3e-2, log = true }}
optimizer__weight_decay = {{ low = 1e-6, high = 1e-3, log = true }}
task_scale = {{ simplex = true }}
[baselines]
scalarization = 0
equal_weights = 0
single_task = 0
"""


class Slow(LinearScalarization):
    """Equal weights, in time: a step sleeps."""

    def task_weights(self, gramian: Any, losses: Any) -> Any:
        """Sleep, and weigh."""
        time.sleep(SECONDS)
        return super().task_weights(gramian, losses)


def run(folder: Path, workers: int, **options: Any) -> tuple[float, float, float]:
    """Run a study: its wall clock, its workers' seconds from first to last trial, its fits'."""
    path = folder / "cost.toml"
    path.write_text(FILE.format(**options))
    study = Study.from_toml(path, out=folder / "out")
    begun = time.time()
    study.run(workers)
    wall = time.time() - begun
    trials = load_study(open_storage(study.storage_url), "cost").get_trials()
    by_worker: dict[int, list[float]] = {}
    for t in trials:
        assert t.datetime_start is not None
        assert t.datetime_complete is not None
        times = by_worker.setdefault(t.user_attrs["owner"]["pid"], [])
        times += [t.datetime_start.timestamp(), t.datetime_complete.timestamp()]
    busy = sum(max(times) - min(times) for times in by_worker.values())
    return wall, busy, sum(t.user_attrs["measured"]["seconds"] for t in trials)


def cost(sampler: str, trials: int, workers: int = 2) -> None:
    """Print workers' seconds over their fits', and wall clock x workers, which has the start."""
    with tempfile.TemporaryDirectory() as folder:
        wall, running, fits = run(
            Path(folder),
            workers,
            trials=trials,
            sampler=sampler,
            rows=300,
            width=8,
            epochs=1,
            batch=-1,
            aggregator="tests.benchmarks.workers:Slow",
        )
    print(
        f"{sampler}, {trials} trials of {fits / trials:.2f} s, {workers} workers: "
        f"{100 * (running / fits - 1):.1f} % above the fits, "
        f"{100 * (wall * workers / fits - 1):.1f} % with the start",
        flush=True,
    )


def threads(repeats: int, counts: tuple[int, ...] = (2, 4)) -> None:
    """Print trials a second of N workers, shared threads over two each, interleaved."""
    share = mtlsk.study.cores
    for workers in counts:
        rates: dict[str, list[float]] = {"shared": [], "two each": []}
        for _ in range(repeats):
            for how, found in rates.items():
                n = share() if how == "shared" else 2 * workers
                mtlsk.study.cores = lambda n=n: n
                with tempfile.TemporaryDirectory() as folder:
                    _, running, _ = run(
                        Path(folder),
                        workers,
                        trials=3 * workers,
                        sampler="random",
                        rows=4000,
                        width=256,
                        epochs=3,
                        batch=256,
                        aggregator="ConicGrad",
                    )
                found.append(3 * workers * workers / running)
        mtlsk.study.cores = share
        ratios = [a / b for a, b in zip(rates["shared"], rates["two each"], strict=True)]
        print(
            f"{workers} workers on {cores()} cores: "
            + ", ".join(f"{how} {' '.join(f'{r:.2f}' for r in x)}/s" for how, x in rates.items())
            + f"; ratios {' '.join(f'{r:.2f}' for r in ratios)}",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1] == "cost":
        for each in ("random", "TPE"):
            cost(each, int(sys.argv[2]))
    else:
        threads(int(sys.argv[2]))
