"""CANON's certificate controller against none: a language model of seven tasks, and the arm.

python studies/certificate_controller.py --data FOLDER    with tinyshakespeare.txt.gz in it
python studies/certificate_controller.py                  a made-up text instead
python studies/certificate_controller.py --report         the report again, from trials.csv
python studies/certificate_controller.py --quick          less than a minute

The controller acts on the scales and groups of tasks, of which equal weights see little and other
aggregators much: it is put on three of them. Trials that are in trials.csv are not run again.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from common import append, holm, parser, rows_of, standardised, tested, with_spread, write
from joblib import Parallel, delayed
from sklearn.metrics import mean_squared_error

from mtlsk import DivergenceError, MultiTaskClassifier, MultiTaskRegressor
from mtlsk.datasets import load_text, make_arm
from mtlsk.modules import CharLM

CONTROLLERS = {
    "none": None,
    "escalation": {"name": "CertificateController", "period": 10},
    "groups": {"name": "CertificateController", "form": "groups", "cooldown": 100},
}
AGGREGATORS = ("LinearScalarization", "MGDA", "ConicGrad")
LANGUAGE, ARM = "A language model of seven tasks", "The simulated arm"
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


def language(text, quick, seed, lr, aggregator, controller):
    """Return (losses on rows to choose by and to report, changes, steps) of a language model."""
    X, y, n_characters, train = seven_tasks(text, quick)
    net = MultiTaskClassifier(
        module=CharLM, module__n_characters=n_characters, module__width=32, module__n_layers=1,
        aggregator=aggregator, controller=controller, lr=lr, max_epochs=1 if quick else 4,
        batch_size=128, random_state=seed,
    ).fit(X[train], y[train])  # fmt: skip
    held = np.flatnonzero(~train)  # the end of the text, in its order
    parts = held[: len(held) // 3], held[len(held) // 3 :][:2000]
    losses = [float(net.task_gramian(X.iloc[p], y.iloc[p])[1].mean()) for p in parts]
    return *losses, changed(net), net.n_steps_


def arm(quick, seed, lr, aggregator, controller):
    """Return (errors on rows to choose by and to report, changes, steps) of a net of the arm."""
    made = make_arm(1000, random_state=seed)
    train, *parts = slice(0, 600), slice(600, 800), slice(800, 1000)
    X, y = (standardised(table, train) for table in (made.data, made.target))
    net = MultiTaskRegressor(
        (32, 32), aggregator, controller, lr=lr, max_epochs=3 if quick else 60, batch_size=64,
        random_state=seed,
    ).fit(X[train], y[train])  # fmt: skip
    errors = [mean_squared_error(y[p], net.predict(X[p])) for p in parts]
    return *errors, changed(net), net.n_steps_


def changed(net):
    """Return how many changes a controller made."""
    return sum(len(row.get("changes") or []) for row in net.history_)


KEYS = ["data", "aggregator", "controller", "lr", "seed", "text"]


def ran(text, quick, *key):
    """Return the row of one trial, without numbers if it diverged."""
    data, aggregator, controller, lr, seed, _ = key
    run = (lambda *a: language(text, *a)) if data == LANGUAGE else arm
    try:
        found = run(quick, seed, lr, aggregator, CONTROLLERS[controller])
    except DivergenceError:
        found = (np.nan,) * 4
    return dict(zip((*KEYS, "valid", "held", "changes", "steps"), (*key, *found), strict=True))


def missing(file, seeds, quick, source):
    """Return the keys of the trials that are not in a file."""
    wanted = [
        (data, aggregator, controller, lr, seed, source)
        for data in (LANGUAGE, ARM)
        for seed in range(seeds)
        for aggregator in (AGGREGATORS[:2] if quick else AGGREGATORS)
        for controller in CONTROLLERS
        for lr in RATES
    ]
    there = pd.read_csv(file)[KEYS] if file.exists() else pd.DataFrame(columns=KEYS)
    known = set(there.itertuples(index=False, name=None))
    return [key for key in wanted if key not in known]


def compared(trials):
    """Return a table with a row a data set, aggregator and controller: its change against none.

    The rate of each is the best on average over the seeds, on the rows to choose by; one at which
    a seed diverged is not chosen.
    """
    keys, rows = ["data", "aggregator", "controller"], []
    means = trials.fillna({"valid": np.inf}).groupby([*keys, "lr"], sort=False).valid.mean()
    best = means.groupby(level=keys, sort=False).idxmin()
    runs = {key: own.set_index("seed").sort_index() for key, own in trials.groupby([*keys, "lr"])}
    for data, aggregator, controller, lr in best:
        picked = runs[data, aggregator, controller, lr]
        d = (100 * (picked.held / runs[best[data, aggregator, "none"]].held - 1)).dropna()
        rows.append((data, aggregator, controller, lr, picked, d.abs().max(), *tested(d)))
    table = pd.DataFrame(rows, columns=[*keys, "lr", "runs", "most", "change", "half", "p"])
    against = table.controller != "none"
    table.loc[against, "p"] = holm(table.p[against].fillna(1).to_numpy())
    return table


def said(row, claimed):
    """Return what a controller did to an aggregator's loss, in words."""
    if (row.runs.changes == 0).all():
        return f"{row.controller} on {row.aggregator}: never acted"
    if row.most < 0.01:
        return f"{row.controller} on {row.aggregator}: acted without any effect"
    word = "not told apart" if row.p >= 0.05 else "lower" if row.change < 0 else "higher"
    low, high = row.change - row.half, row.change + row.half
    inside = f"; {CLAIM} % less is {'in' if low <= -CLAIM <= high else 'out'}side the interval"
    return (
        f"{row.controller} on {row.aggregator}: {word} "
        f"({row.change:+.2f} %{inside if claimed and np.isfinite(row.half) else ''})"
    )


def part(title, measure, table):
    """Return the paragraphs of one data set; a verdict names what is told apart."""
    rows = []
    for row in table.itertuples():
        cells = [row.aggregator, row.controller, f"{row.lr:g}", with_spread(row.runs.held)]
        cells += [with_spread(row.runs.changes, 1), f"{row.runs.steps.iloc[0]:.0f}", "", ""]
        if row.controller != "none":
            ends = ", ".join(f"{row.change + sign * row.half:+.2f}" for sign in (-1, 1))
            one = np.isnan(row.half)  # a single seed has no interval
            cells[-2:] = f"{row.change:+.2f}{'' if one else f' [{ends}]'}", f"{row.p:.2g}"
        rows.append(cells)
    heads = ["aggregator", "controller", "rate", measure, "changes", "steps"]
    heads += ["change in % [95 % by t]", "p (Holm)"]
    words = [said(row, title == LANGUAGE) for row in table.itertuples() if row.controller != "none"]
    return [f"## {title}", rows_of(heads, rows), f"**Verdict**: {'; '.join(words)}."]


def main():
    options = parser(__doc__, "certificate_controller")
    options.add_argument("--report", action="store_true", help="run nothing, write the report")
    arguments = options.parse_args()
    quick, file = arguments.quick, arguments.out / "trials.csv"
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not arguments.report:
        if arguments.data is not None:
            with gzip.open(arguments.data / "tinyshakespeare.txt.gz", "rt") as opened:
                text = opened.read()
        else:
            text = made_up(np.random.default_rng(0), 3000)
        source = "given" if arguments.data else "made up"
        keys = missing(file, arguments.seeds, quick, source)
        work = Parallel(n_jobs=arguments.jobs, return_as="generator_unordered")
        for row in work(delayed(ran)(text, quick, *key) for key in keys):
            append(file, [row])
            print(*row.values(), flush=True)
    trials = pd.read_csv(file)
    given = "given" in set(trials.text)  # those of a made-up text are left out then
    trials = trials[trials.text == ("given" if given else "made up")]
    seeds, table = trials.seed.nunique(), compared(trials)
    source = "the start of tinyshakespeare" if given else "sentences drawn from eight phrases"
    n = (table.controller != "none").sum()
    paragraphs = [
        "**Claimed** (CANON, doi 10.5281/zenodo.19454888): the controller lowers the validation "
        f"cross-entropy of a language model of seven tasks by {CLAIM} %.",
        "**Run**: `CertificateController` in both its forms (a look every 10 steps; 100 steps to "
        f"cool down) on {', '.join(table.aggregator.unique())}, AdamW, rates "
        f"{', '.join(f'{r:g}' for r in RATES)}, the best on average chosen for each alike on rows "
        f"of their own; {seeds} seeds. The language model: {source}, a transformer of one layer of "
        "32, 16 characters of context; the next character, the one after it, and five questions "
        "about them; the end of the text is held out. Far smaller than the source's. The arm: "
        "1000 rows, 600 to train, a net of 32, 32.",
        *part(LANGUAGE, "cross-entropy held out", table[table.data == LANGUAGE]),
        *part(ARM, "squared error held out", table[table.data == ARM]),
        "With equal weights merged tasks count as much as before, so that groups change nothing "
        "there by construction: of the actions only scales and the learning rate can. Watching "
        "takes another route to the same step there, so that one that never acted differs by "
        "rounding, which a training enlarges.",
        f"Changes are paired by seed, with the same aggregator without controller; p is of a "
        f"t-test, by Holm for all {n}.",
    ]
    title = "The certificate controller against none"
    write(arguments.out, title, paragraphs, f"{seeds} seeds.")


if __name__ == "__main__":
    main()
