"""CANON's certificate controller against none: a language model of seven tasks, and the arm.

python studies/certificate_controller.py --data FOLDER    with tinyshakespeare.txt.gz in it
python studies/certificate_controller.py                  a made-up text instead
python studies/certificate_controller.py --quick          less than a minute
"""

from __future__ import annotations

import gzip
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from common import parser, rows_of, standardised, with_spread, write
from scipy.stats import t as student
from sklearn.metrics import mean_squared_error

from mtlsk import MultiTaskClassifier, MultiTaskRegressor
from mtlsk.datasets import load_text, make_arm
from mtlsk.modules import CharLM

CONTROLLERS = {
    "none": None,
    "escalation": {"name": "CertificateController", "period": 10},
    "groups": {"name": "CertificateController", "form": "groups", "cooldown": 100},
}
CLAIM = 17  # % of validation cross-entropy
RATES = (0.003, 0.01)


def made_up(rng, sentences):
    """Return a text of sentences drawn from few words."""
    who, does = ["The cat", "A dog", "My bird", "Our fish"], ["sees", "hears", "finds", "likes"]
    picks = [(rng.choice(who), rng.choice(does), rng.choice(who)) for _ in range(sentences)]
    return " ".join(f"{a} {b} {c.lower()}." for a, b, c in picks)


def seven_tasks(text, quick):
    """Return (X, y, vocabulary, training rows): the library's five tasks and two of our own."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "text.txt"
        file.write_text(text[: 6000 if quick else 60000])
        read = load_text(file, context=16, stride=3 if quick else 4, min_count=30)
    y = read.target.copy()
    after = np.array([read.vocabulary[code] for code in y["next_but_one"]])
    y["vowel after"] = np.isin(after, list("aeiouyAEIOUY")).astype(int)
    y["space after"] = np.char.isspace(after).astype(int)
    return read.data, y, len(read.vocabulary), np.asarray(read.split == "train")


def language(text, quick, seed, lr, controller):
    """Return (validation cross-entropy, changes, steps) of one language model."""
    X, y, n_characters, train = seven_tasks(text, quick)
    net = MultiTaskClassifier(
        module=CharLM, module__n_characters=n_characters, module__width=32, module__n_layers=1,
        controller=controller, lr=lr, max_epochs=1 if quick else 4, batch_size=128,
        random_state=seed,
    ).fit(X[train], y[train])  # fmt: skip
    held = np.flatnonzero(~train)[:2000]
    losses = net.task_gramian(X.iloc[held], y.iloc[held])[1]
    return float(losses.mean()), changed(net), net.n_steps_


def arm(quick, seed, lr, controller):
    """Return (validation mean squared error, changes, steps) of one net on the simulated arm."""
    made = make_arm(1000, random_state=seed)
    train, valid = slice(0, 700), slice(700, 1000)
    X, y = (standardised(table, train) for table in (made.data, made.target))
    net = MultiTaskRegressor(
        (32, 32), controller=controller, lr=lr, max_epochs=3 if quick else 30, batch_size=64,
        random_state=seed,
    ).fit(X[train], y[train])  # fmt: skip
    return mean_squared_error(y[valid], net.predict(X[valid])), changed(net), net.n_steps_


def changed(net):
    """Return how many changes a controller made."""
    return sum(len(row.get("changes") or []) for row in net.history_)


def compared(title, measure, run, seeds):
    """Return the paragraphs of one data set, and whether the claimed gain is inside an interval."""
    found = {n: np.empty((seeds, len(RATES), 3)) for n in CONTROLLERS}
    for name, controller in CONTROLLERS.items():
        for seed in range(seeds):
            for j, lr in enumerate(RATES):
                found[name][seed, j] = run(seed, lr, controller)
        print(title, name, with_spread(found[name][..., 0].min(1)), flush=True)
    chosen = {n: own[..., 0].mean(0).argmin() for n, own in found.items()}
    base, rows, said = found["none"][:, chosen["none"], 0], [], []
    for name, own in found.items():
        picked = own[:, chosen[name]]
        change = 100 * (picked[:, 0] / base - 1)
        cells = [name, f"{RATES[chosen[name]]:g}", with_spread(picked[:, 0])]
        cells += [with_spread(picked[:, 1], 1), f"{picked[0, 2]:.0f}"]
        if name == "none":
            rows.append([*cells, ""])
            continue
        half = student.ppf(0.975, seeds - 1) * change.std(ddof=1) / np.sqrt(seeds)
        low, high = change.mean() - half, change.mean() + half
        rows.append([*cells, f"{change.mean():+.2f} [{low:+.2f}, {high:+.2f}]"])
        word = "lower" if high < 0 else "higher" if low > 0 else "not told apart"
        claim = "inside" if low <= -CLAIM <= high else "outside"
        if np.abs(change).max() < 0.01:
            said.append(f"{name}: changes nothing")
            continue
        said.append(
            f"{name}: {word} ({change.mean():+.2f} %; {CLAIM} % less is {claim} the interval)"
        )
    heads = ["controller", "rate", measure, "changes", "steps", "change in % [95 % by t]"]
    return [f"## {title}", rows_of(heads, rows), f"**Verdict**: {'; '.join(said)}."]


def main():
    arguments = parser(__doc__, "certificate_controller").parse_args()
    quick, file = arguments.quick, None
    if arguments.data is not None:
        file = arguments.data / "tinyshakespeare.txt.gz"
        with gzip.open(file, "rt") as opened:
            text = opened.read()
    else:
        text = made_up(np.random.default_rng(0), 3000)
    source = "the start of tinyshakespeare" if file else "a made-up text of four sentences' words"
    paragraphs = [
        f"**Claimed**: the controller lowers the validation cross-entropy of a language model of "
        f"seven tasks by {CLAIM} %.",
        "**Run**: `CertificateController` in both its forms (a look every 10 steps; 100 steps to "
        "cool down) on equal weights and AdamW, rates "
        f"{', '.join(f'{r:g}' for r in RATES)}, the best on average chosen for each alike; "
        f"{arguments.seeds} seeds. The language model: {source}, a transformer of one layer of 32, "
        "16 characters of context; the next character, the one after it, and five questions about "
        "them. Far smaller than the source's. The arm: 1000 rows, a net of 32, 32.",
        *compared(
            "A language model of seven tasks",
            "validation cross-entropy",
            lambda *a: language(text, quick, *a),
            arguments.seeds,
        ),
        *compared(
            "The simulated arm", "validation error", lambda *a: arm(quick, *a), arguments.seeds
        ),
        "With equal weights merged tasks count as much as before, so that groups change nothing "
        "here by construction: of the actions only scales and the learning rate can.",
        "Intervals are of paired differences over seeds, uncorrected for their number (four); the "
        "rate was chosen on the same validation rows, for all alike.",
    ]
    title = "The certificate controller against none"
    write(arguments.out, title, paragraphs, f"{arguments.seeds} seeds.")


if __name__ == "__main__":
    main()
