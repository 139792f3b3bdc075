"""A character language model with five heads: which of its tasks conflict, and what they learn.

usage: python examples/char_lm.py [--text FILE] [--epochs 8] [--out char_lm.png]

Without a file it writes itself a text of made-up sentences.
"""

# %% A text, and five questions about its next characters
import argparse
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from matplotlib.figure import Figure

from mtlsk import MultiTaskClassifier, plot_conflict
from mtlsk.datasets import load_text
from mtlsk.modules import CharLM

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--text", type=Path)
parser.add_argument("--epochs", type=int, default=8)
parser.add_argument("--out", default="char_lm.png")
options = parser.parse_args()

if options.text is None:
    rng = np.random.default_rng(0)
    who, does = ["The cat", "A dog", "My bird", "Our fish"], ["sees", "hears", "finds", "likes"]
    made = [f"{rng.choice(who)} {rng.choice(does)} {rng.choice(who).lower()}." for _ in range(300)]
    options.text = Path(mkdtemp()) / "made.txt"
    options.text.write_text(" ".join(made))
text = load_text(options.text, context=12, stride=3, min_count=5)
print(text.DESCR)
train = text.split == "train"  # the end of the text is the test part
parts = [(text.data[rows], text.target[rows]) for rows in (train, ~train)]
(X, y), (X_test, y_test) = parts

# %% One net, its gradients joined by ConicGrad
net = MultiTaskClassifier(
    module=CharLM,
    module__n_characters=len(text.vocabulary),
    module__width=32,
    module__n_layers=1,
    aggregator="ConicGrad",
    lr=0.005,
    max_epochs=options.epochs,
    random_state=0,
).fit(X, y)

# %% Cross-entropy on the test part, beside that of the classes' own frequencies
unigram = []
for k, classes in enumerate(net.classes_):
    shares = np.array([(y.iloc[:, k] == c).mean() for c in classes])
    places = np.searchsorted(classes, y_test.iloc[:, k])
    unigram.append(-np.log(shares[places]).mean())
found = net.task_gramian(X_test, y_test)[1].numpy()
for name, loss, base in zip(text.target_names, found, unigram, strict=True):
    print(f"{name:>13}: {loss:.3f} nats, unigram {base:.3f}")

# %% Pictures: the losses over the epochs, and which tasks conflict on the test part
figure = Figure(figsize=(10, 4), layout="constrained")
left, right = figure.subplots(1, 2)
for name, losses, base in zip(
    text.target_names, np.transpose(net.history_[:, "train_losses"]), unigram, strict=True
):
    left.plot(np.arange(1, len(losses) + 1), losses / base, label=name)
left.set(title="training loss / unigram cross-entropy", xlabel="epoch", ylim=(0, None))
left.legend()
plot_conflict(net, X_test, y_test, ax=right)
figure.savefig(options.out, dpi=120)
print("picture in", options.out)
