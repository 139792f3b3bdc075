"""An aggregator of one's own: a class, its domains, and one line of test."""

# %% The whole contribution: (Gramian, losses) -> task weights
from torch import Tensor

from mtlsk import Aggregator, MultiTaskRegressor
from mtlsk.datasets import make_arm
from mtlsk.domains import Interval
from mtlsk.testing import check_aggregator


class InverseNorm(Aggregator):
    """Weight each task by a power of its inverse gradient norm."""

    domains = {"power": Interval(0.0, 2.0)}

    def __init__(self, power: float = 1.0) -> None:
        self.power = power

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        assert gramian is not None
        squared_norms = gramian.diagonal()
        floor = squared_norms.max() * 1e-12 + 1e-300  # a zero gradient must not get all the weight
        weights = squared_norms.clamp_min(floor) ** (-self.power / 2)
        return weights / weights.sum()


# %% Its test: clone, pickle, hostile Gramians, permuted tasks, state
check_aggregator(InverseNorm())
check_aggregator(InverseNorm(power=2.0))

# %% It is then a parameter like any other; in a study file it is "own_aggregator:InverseNorm"
arm = make_arm(600, random_state=0)
net = MultiTaskRegressor((32,), InverseNorm(power=1.0), max_epochs=5, random_state=0)
net.fit(arm.data, arm.target / arm.target.std())
print(net.set_params(aggregator__power=0.5).aggregator_)
print("weights of the last epoch:", [round(w, 3) for w in net.history_[-1, "task_weights"]])

# %% A value outside its domain is one clear line
try:
    MultiTaskRegressor(aggregator=InverseNorm(power=3.0)).fit(arm.data, arm.target)
except ValueError as error:
    print(error)
