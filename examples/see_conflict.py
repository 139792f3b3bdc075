"""See which tasks conflict, when they do, and what an aggregator makes of it."""

# %% Data: 21 features, 7 targets
from pathlib import Path
from tempfile import mkdtemp

from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.dataset import ValidSplit

from mtlsk import (
    ConflictLog,
    MultiTaskRegressor,
    plot_conflict,
    plot_losses,
    plot_trajectory,
    plot_weights,
)
from mtlsk.datasets import make_arm

arm = make_arm(1000, random_state=0)
y = (arm.target - arm.target.mean()) / arm.target.std()
X_train, X_test, y_train, y_test = train_test_split(arm.data, y, random_state=0)


# %% Two nets that differ in one word
def fitted(aggregator, callbacks=None):
    net = MultiTaskRegressor(
        (32, 32),
        aggregator,
        max_epochs=15,
        train_split=ValidSplit(5),
        callbacks=callbacks,
        random_state=0,
    )
    return make_pipeline(StandardScaler(), net).fit(X_train, y_train)


mgda = fitted("MGDA")
# equal weights never look at the conflict: a callback does, after each epoch
equal = fitted("LinearScalarization", [ConflictLog()])

# %% Pictures, in a notebook shown as they are made
pictures = {
    "conflict_on_test": plot_conflict(mgda, X_test, y_test),
    "conflict_mgda": plot_conflict(mgda),
    "conflict_equal": plot_conflict(equal),
    "conflict_early_and_late": plot_conflict(equal, epochs=[1, 5, 15]),
    "losses": plot_losses(mgda),
    "weights": plot_weights(mgda),
    "trajectory": plot_trajectory({"MGDA": mgda, "equal weights": equal}, tasks=[0, 3]),
}
folder = Path(mkdtemp())
for name, display in pictures.items():
    display.figure_.savefig(folder / f"{name}.png")
print(f"{len(pictures)} pictures in {folder}")

# %% The same in numbers
pairs = pictures["conflict_equal"].pairs_
print("in most conflict:", [tuple(arm.target.columns[k] for k in pair) for pair in pairs[:3]])
