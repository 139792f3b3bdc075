"""Linear multi-task models x'W a_i of rank q: closed forms, and what scalarization can reach.

Everything but the fit is a function of the Gram matrix G = Yhat'Yhat (K, K) of the least squares
fits: a model is a projector P of rank q, and v_i = |P yhat_i|^2 what it explains of task i.
"""

from mtlsk.linear_mtl.exploration import Exploration, exploration_test, exploration_test_gram
from mtlsk.linear_mtl.fit import LinearFit, fit_linear, least_squares
from mtlsk.linear_mtl.flips import sign_flips
from mtlsk.linear_mtl.gram import as_gram, check_rank
from mtlsk.linear_mtl.highest import Balanced, balanced_solution
from mtlsk.linear_mtl.optimum import Optimum, as_task_weights, scalarization_optimum
from mtlsk.linear_mtl.reach import REACHED, Reach, reachability, reachability_gap

__all__ = [
    "REACHED",
    "Balanced",
    "Exploration",
    "LinearFit",
    "Optimum",
    "Reach",
    "as_gram",
    "as_task_weights",
    "balanced_solution",
    "check_rank",
    "exploration_test",
    "exploration_test_gram",
    "fit_linear",
    "least_squares",
    "reachability",
    "reachability_gap",
    "scalarization_optimum",
    "sign_flips",
]
