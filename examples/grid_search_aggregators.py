"""Search over aggregators, and over one's own parameter, as over any other parameter."""

# %% Data
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mtlsk import SCORERS, MultiTaskRegressor
from mtlsk.datasets import make_arm

arm = make_arm(1000, random_state=0)
targets = StandardScaler().fit_transform(arm.target)

# %% update_norm="mean" gives every update the length of the mean gradient: at one learning rate
# the grid then compares directions, not step sizes
net = MultiTaskRegressor(
    hidden_layer_sizes=(32,), max_epochs=10, update_norm="mean", random_state=0
)
pipeline = make_pipeline(StandardScaler(), net)
at = "multitaskregressor__"
grid = [
    {f"{at}aggregator": ["LinearScalarization", "MGDA", "CAGrad"]},
    {f"{at}aggregator": ["ConicGrad"], f"{at}aggregator__c": [0.25, 0.5, 0.75]},
]

# %% Several scores at once: the mean R2 decides, the certificates say why
scoring = {"r2": "r2", **SCORERS}
search = GridSearchCV(pipeline, grid, scoring=scoring, refit="r2", cv=3, n_jobs=2)
if __name__ == "__main__":
    search.fit(arm.data, targets)
    columns = ["r2", "worst_r2", "min_cosine", "neg_condition_number"]
    print(f"{'':42}" + "".join(f"{c:>22}" for c in columns))
    for i, params in enumerate(search.cv_results_["params"]):
        words = ", ".join(f"{k.removeprefix(at)}={v}" for k, v in params.items())
        scores = [search.cv_results_[f"mean_test_{c}"][i] for c in columns]
        print(f"{words:42}" + "".join(f"{s:22.3f}" for s in scores))
    print("best:", {k.removeprefix(at): v for k, v in search.best_params_.items()})
