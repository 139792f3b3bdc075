"""Fit a seven-target network, see the conflict, and put it in a pipeline."""

# %% Data: the inverse dynamics of a simulated seven-joint arm
from sklearn.compose import TransformedTargetRegressor
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mtlsk import SCORERS, MultiTaskRegressor
from mtlsk.datasets import make_arm

arm = make_arm(2000, random_state=0)
X_train, X_test, y_train, y_test = train_test_split(arm.data, arm.target, random_state=0)

# %% One network, seven tasks, and a word for how their gradients join
net = MultiTaskRegressor(
    hidden_layer_sizes=(32, 32),
    aggregator="ConicGrad",
    aggregator__c=0.5,
    controller="APT",
    max_epochs=15,
    random_state=0,
    verbose=1,  # a row an epoch, a column a task
)
scaled = TransformedTargetRegressor(net, transformer=StandardScaler())
model = make_pipeline(StandardScaler(), scaled).fit(X_train, y_train)

# %% How good is it, and do its tasks conflict?
print(f"mean test R2 {model.score(X_test, y_test):.3f}")
for name, scorer in SCORERS.items():
    print(f"{name:>22} {scorer(model, X_test, y_test):9.3f}")

# %% What the history holds: means over the steps of each epoch
history = model[-1].regressor_.history_
print("smallest cosine between two task gradients, by epoch:")
print([round(c, 2) for c in history[:, "min_cosine"]])
print("task weights in the last epoch:", [round(w, 2) for w in history[-1, "task_weights"]])
