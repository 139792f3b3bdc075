"""Made-up results of a study with all its baselines, for the tests of its report."""

import numpy as np
import pandas as pd

from mtlsk.outcome import SEARCH, SINGLE_TASK, STUDIES, Results


def make_full(K=3, n=30, repeats=1, tasks=None, objectives=None, seed=0, epochs=6, **changes):
    """Search, scalarization, equal weights and single-task trials; the search is the best."""
    rng = np.random.default_rng(seed)
    tasks = tasks or [f"task {k}" for k in range(K)]
    objectives = objectives or [f"loss {t}" for t in tasks]
    rows, repeated, estimators, traces = [], [], {}, {}
    for study in STUDIES:
        for number in range(n if study in STUDIES[:2] else 5):
            row = {"study": study, "number": number, "state": "COMPLETE", "reason": ""}
            row |= {"seconds": 2.0, "param: lr": float(10 ** rng.uniform(-3, -1))}
            estimator = {"hidden_layer_sizes": [8, 8], "lr": row["param: lr"], "controller": None}
            w = rng.dirichlet(np.ones(len(tasks)))
            if study == SEARCH:
                row["param: aggregator"] = ["ConicGrad", "MGDA"][number % 2]
                estimator["aggregator"] = row["param: aggregator"]
                if number % 2 == 0:
                    row["param: aggregator[ConicGrad]__c"] = estimator["aggregator__c"] = 0.5 + w[0]
            losses = 0.2 + 0.1 / (w + 0.2) + (0.1 if study != SEARCH else 0.0)
            if study == SINGLE_TASK:
                losses = 0.4 + 0.1 * rng.uniform(size=len(tasks))
            for part, x in (("validation", losses), ("test", losses * 1.02)):
                row |= {f"{part} loss: {t}": v for t, v in zip(tasks, x, strict=True)}
                if study != SINGLE_TASK:
                    row |= {f"{part}: {o}": v for o, v in zip(objectives, x, strict=False)}
            rows.append(row)
            estimators[study, number] = estimator
            for repeat in range(repeats if repeats > 1 else 0):
                noise = 1 + 0.01 * rng.normal()
                values = {k: v * noise for k, v in row.items() if k.startswith(("valid", "test"))}
                repeated.append({"study": study, "number": number, "repeat": repeat, **values})
            if study != SINGLE_TASK:
                trace = {"train_losses": np.tile(losses, (epochs, 1)).tolist()}
                trace["task_weights"] = np.tile(w, (epochs, 1)).tolist()
                if study == SEARCH:
                    trace["cosines"] = np.tile(np.eye(len(tasks)) * 1.25 - 0.25, (epochs, 1, 1))
                    trace["cosines"] = trace["cosines"].tolist()
                traces[study, number] = trace
    wanted = {study: sum(r["study"] == study for r in rows) for study in STUDIES}
    given = {
        "name": "made",
        "date": "2026-07-01",
        "data_name": "table.csv",
        "data_sha256": "c0ffee" * 10,
        "n_rows": {"train": 60, "validation": 20, "test": 20},
        "notes": ["a note"],
        "objectives": objectives,
        "maximise": [False] * len(objectives),
        "task_names": tasks,
        "trials": pd.DataFrame(rows),
        "seed": 7,
        "wanted": wanted,
        "machine": {"cpu": "Example CPU"},
        "versions": {"mtlsk": "0.1"},
        "n_repeats": repeats,
        "repeats": pd.DataFrame(repeated) if repeated else None,
        "file": {
            "study": {"name": "made", "objectives": None, "seed": 7, "repeats": repeats},
            "data": {"name": "table.csv", "sha256": "c0ffee", "targets": tasks, "path": None},
        },
        "estimators": estimators,
        "traces": traces,
    }
    return Results(**{**given, **changes})
