"""What conicgrad_questions.py compares: variants of ConicGrad in arms, and the pairs of these."""

from __future__ import annotations

import numpy as np

RATES = (3e-3, 1e-2, 3e-2)
COSINES = (0.25, 0.5, 0.75, 0.9)  # the paper's grid
GAMMAS = (0.001, 0.003, 0.005, 0.01)  # its grid and a value between
WIDE = (0.001, 0.01, 0.1, 1.0)
CONE = 0.75  # where gammas are compared
HIDDEN = (32, 32)
BATCH = 64
ROWS, FEW_ROWS, FEW_EPOCHS = 1500, 300, 2  # of a table; the others with --quick
EPOCHS = {"sarcos": 40, "arm": 40, "tox21": 15, "wq": 15}  # the last two overfit from there on
KINDS = {"sarcos": "numbers", "arm": "numbers", "tox21": "classes", "wq": "numbers"}
KEYS = ["data", "seed", "variant", "lr"]
MEAN, MGDA, SINGLE = "mean gradient", "MGDA", "single-task nets"


def closed_form(solver, c=CONE, gamma=GAMMAS[0]):
    return f"{solver}, c {c:g}, gamma {gamma:g}"


def drawn(gammas):
    ends = f"{gammas[0]:g} to {gammas[-1]:g}"
    return [f"flip, c {CONE:g}, gammas {ends}, list {i + 1}" for i in range(len(gammas))]


ARMS = {  # arm -> its variants; a variant may serve several arms and is trained once
    "fixed c": [f"exact, c {c:g}" for c in COSINES],
    "dynamic c": ["auto", "critical", "linear", "cosine"],
    "flip": [closed_form("flip", c) for c in COSINES],
    "printed": [closed_form("printed", c) for c in COSINES],
    "shared gamma": [closed_form("flip", gamma=g) for g in GAMMAS],
    "gamma a task": drawn(GAMMAS),
    "shared gamma, wide": [closed_form("flip", gamma=g) for g in WIDE],
    "gamma a task, wide": drawn(WIDE),
    **{name: [name] for name in (MEAN, MGDA, SINGLE)},
}
PAIRS = [  # (number of the question, arm, arm it is compared with)
    (1, "dynamic c", "fixed c"),
    (2, "flip", "fixed c"),
    (2, "printed", "fixed c"),
    (3, "gamma a task", "shared gamma"),
    (3, "gamma a task, wide", "shared gamma, wide"),
]


def variants(seed, n_tasks, n_steps):
    """Return variant -> (aggregator, controller) for one seed, which draws the lists of gammas."""

    def cone(c=CONE, **others):
        return {"name": "ConicGrad", "c": c, **others}

    def angle(schedule, **others):
        return cone(COSINES[-1]), {"name": "ConeAngle", "schedule": schedule, **others}

    ends = {"c_max": COSINES[-1], "c_min": COSINES[0], "n_steps": n_steps}
    made = {
        "auto": (cone("auto"), None),
        "critical": angle("critical"),
        "linear": angle("linear", **ends),
        "cosine": angle("cosine", **ends),
        MEAN: ("LinearScalarization", None),
        MGDA: ("MGDA", None),
        SINGLE: ("LinearScalarization", None),
    }
    for name, c in zip(ARMS["fixed c"], COSINES, strict=True):
        made[name] = cone(c), None
    for solver in ("flip", "printed"):
        for name, c in zip(ARMS[solver], COSINES, strict=True):
            made[name] = cone(c, solver=solver, gamma=GAMMAS[0]), None
    random = np.random.default_rng(seed)
    for end, gammas in (("", GAMMAS), (", wide", WIDE)):
        for name, gamma in zip(ARMS[f"shared gamma{end}"], gammas, strict=True):
            made[name] = cone(solver="flip", gamma=gamma), None
        lists = np.exp(random.uniform(*np.log([gammas[0], gammas[-1]]), (len(gammas), n_tasks)))
        for name, gamma in zip(ARMS[f"gamma a task{end}"], lists.tolist(), strict=True):
            made[name] = cone(solver="flip", gamma=gamma), None
    return made
