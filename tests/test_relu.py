"""Shallow ReLU interpolation: the dots, what ties with them, the convex program, the kernel."""

import pickle
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import validate_data

import mtlsk
from mtlsk import (
    MultiTaskRegressor,
    ReLUInterpolator,
    convex_interpolant,
    neuron_sharing,
)
from mtlsk.modules import HardSharing
from mtlsk.regularizers import multitask_path_norm
from mtlsk.relu import kernel_approximation, relu_dictionary
from mtlsk.relu.piecewise import PiecewiseLinear, ambiguous_intervals


def drawn(n, tasks, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 1)), rng.standard_normal((n, tasks))


# ---- connect the dots


@pytest.mark.parametrize("tasks", [1, 2, 5])
def test_the_dots_cost_what_the_convex_program_costs(tasks):
    X, Y = drawn(8, tasks)
    x = X[:, 0]
    dots = ReLUInterpolator().fit(X, Y)
    both_signs = np.r_[np.ones(8), -np.ones(8)][:, None], np.r_[-x, x]
    for dictionary in (both_signs, None):
        solved = convex_interpolant(X, Y, dictionary)
        assert dots.norm_ == pytest.approx(solved.cost, rel=1e-7)
        assert solved.lower_bound <= dots.norm_ * (1 + 1e-12)
        assert solved.gap < 1e-6
        assert solved.residual < 1e-9
    if dots.unique_:
        at = np.linspace(-3, 3, 200)[:, None]
        np.testing.assert_allclose(solved(at), dots.predict(at).reshape(200, -1), atol=1e-4)


def test_neurons_of_the_attributes_are_the_function():
    X, Y = drawn(9, 3)
    X, Y = np.r_[X, X[:2]], np.r_[Y, Y[:2]]  # repeated, and not sorted
    dots = ReLUInterpolator().fit(X, Y)
    np.testing.assert_allclose(dots.predict(X), Y, atol=1e-12)
    assert dots.n_neurons_ == len(dots.knots_) == 7
    at = np.linspace(-4, 4, 50)
    first, slope = dots.function_.x[0], dots.function_.slopes[0]
    affine = dots.function_.y[0] + np.subtract.outer(at, [first]) * slope
    hidden = np.maximum(np.subtract.outer(at, dots.knots_), 0)
    network = affine + hidden @ dots.output_weights_
    np.testing.assert_allclose(dots.predict(at[:, None]), network, atol=1e-10)
    assert np.linalg.norm(dots.output_weights_, axis=1).sum() == pytest.approx(dots.norm_)
    assert neuron_sharing(dots.output_weights_) < 1


def test_points_on_a_line_need_no_neuron():
    x = np.array([0.1, 0.2, 0.3, 0.7, 12.3])
    dots = ReLUInterpolator().fit(x[:, None], 3 * x - 0.4)
    assert (dots.n_neurons_, dots.unique_) == (0, True)
    assert dots.norm_ < 1e-12
    assert dots.predict([[20.0]]) == pytest.approx([59.6])
    shifted = ReLUInterpolator().fit(1e6 + x[:, None], 3 * x)  # x known to 1e-10 only
    assert shifted.n_neurons_ == 0


def test_one_and_two_points():
    assert ReLUInterpolator().fit([[2.0]], [5.0]).predict([[0.0], [9.0]]).tolist() == [5, 5]
    two = ReLUInterpolator().fit([[1.0], [0.0]], [[3.0], [1.0]])
    assert two.predict([[2.0], [-1.0]]).tolist() == [[5.0], [-1.0]]
    assert (two.n_neurons_, two.norm_, two.unique_) == (0, 0.0, True)


# ---- uniqueness


@pytest.mark.parametrize(("n", "share"), [(4, 0.25), (5, 0.48), (8, 0.83)])
def test_how_often_it_is_not_unique(n, share):
    draws = 1500
    rng = np.random.default_rng(n)
    many = {1: 0, 2: 0, 3: 0}
    for _ in range(draws):
        x = np.sort(rng.standard_normal(n))
        y = rng.standard_normal((n, 3))
        for tasks in many:
            many[tasks] += len(ambiguous_intervals(PiecewiseLinear(x, y[:, :tasks]))) > 0
    error = np.sqrt(share * (1 - share) / draws)
    assert abs(many[1] / draws - share) < 3.5 * error + 0.005  # the shares have two digits
    assert many[2] == many[3] == 0


def test_affine_copies_of_one_task_tie_where_it_does():
    found = set()
    for seed in range(20):
        X, Y = drawn(7, 1, seed)
        one = ReLUInterpolator().fit(X, Y)
        copies = ReLUInterpolator().fit(X, np.c_[Y, 2 * Y - 1, 0.3 * X - 0.7 * Y])
        assert one.ambiguous_.tolist() == copies.ambiguous_.tolist()
        found.add(one.unique_)
    assert found == {True, False}


@pytest.mark.parametrize("copies", [1, 3])
def test_the_two_minimizers_differ_interpolate_and_cost_the_same(copies):
    seen = 0
    for seed in range(12):
        X, Y = drawn(8, 1, seed)
        Y = np.hstack([Y * (k + 1) for k in range(copies)])
        dots = ReLUInterpolator().fit(X, Y)
        for i in dots.ambiguous_:
            seen += 1
            one, other = dots.minimizers(int(i))
            for function in (one, other):
                np.testing.assert_allclose(function(X[:, 0]), Y, atol=1e-9)
                assert function.cost == pytest.approx(dots.norm_, rel=1e-9)
            middle = one.x[i : i + 2].mean(keepdims=True)
            assert np.abs(one(middle) - other(middle)).max() > 1e-6
            assert len(other.x) == len(one.x) - 1
    assert seen > 8


def test_minimizers_refuses_where_there_is_one_only():
    X, Y = drawn(6, 2)
    with pytest.raises(ValueError, match="the interpolant is unique"):
        ReLUInterpolator().fit(X, Y).minimizers()
    tied = ReLUInterpolator().fit([[0.0], [1.0], [2.0], [3.0]], [0.0, 0.0, 1.0, 3.0])
    assert tied.ambiguous_.tolist() == [1]
    assert tied.minimizers()[1].x.tolist() == [0.0, 1.5, 3.0]
    with pytest.raises(ValueError, match="interval=2 is not ambiguous; use one of 1"):
        tied.minimizers(2)


# ---- the kernel


@pytest.mark.parametrize("tasks", [1, 4])
def test_the_kernel_interpolant_connects_the_dots_up_to_the_ends(tasks):
    X, Y = drawn(10, tasks)
    dots = ReLUInterpolator().fit(X, Y)
    at = np.linspace(X.min(), X.max(), 300)[:, None]
    np.testing.assert_allclose(dots.predict_kernel(at), dots.predict(at), rtol=0, atol=1e-10)
    u = (X[:, 0] - X.min()) / np.ptp(X)  # and it is the kernel's: a dense solve says the same
    v = (at[:, 0] - X.min()) / np.ptp(X)
    dense = np.linalg.solve(1 - np.abs(np.subtract.outer(u, u)), Y)
    dense = (1 - np.abs(np.subtract.outer(v, u))) @ dense
    np.testing.assert_allclose(dense, dots.predict(at).reshape(300, -1), rtol=0, atol=1e-10)
    beyond = [[X.max() + 1.0]]
    assert np.abs(dots.predict_kernel(beyond) - dots.predict(beyond)).max() > 1e-3


# ---- scikit-learn


class OfFirstColumn(ReLUInterpolator):
    """Leaves all columns but the first aside, so that the checks' tables can be fitted."""

    def _numbers(self, X, *, reset):
        return validate_data(self, X, reset=reset, dtype=np.float64)[:, 0]


REPEATS = {
    "check_positive_only_tag_during_fit": "has one x with different y",
    "check_estimators_dtypes": "has one x with different y",
}


@parametrize_with_checks([OfFirstColumn()], expected_failed_checks=lambda estimator: REPEATS)
def test_all_checks_of_a_first_column(estimator, check):
    check(estimator)


@parametrize_with_checks([ReLUInterpolator()])
def test_all_checks_that_fit_one_feature(estimator, check):
    try:
        check(estimator)
    except (ValueError, AssertionError) as error:
        causes = f"{error} {error.__cause__} {error.__context__}"
        if "features and ReLUInterpolator takes 1" not in causes:
            raise
        pytest.xfail("the check fits a table of several features")


@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        ([[1.0], [2.0], [1.0]], [1, 2, 3], "rows 0 and 2 have the same x = 1 and different y"),
        ([[1.0, 2.0]], [1.0], "X has 2 features and ReLUInterpolator takes 1"),
        ([[1.0], [np.nan]], [1.0, 2.0], "Input X contains NaN"),
        ([[1.0], [2.0]], [1.0, np.nan], "Input y contains NaN"),
        ([[0.0], [5e-324]], [0.0, 1.0], "overflows"),
    ],
)
def test_bad_input_is_refused_in_one_line(X, y, words):
    with pytest.raises(ValueError, match=words) as caught:
        ReLUInterpolator().fit(X, y)
    assert len(str(caught.value).splitlines()[0]) > 10
    with pytest.raises(ValueError, match="tol=2 is not allowed"):
        ReLUInterpolator(tol=2).fit([[1.0]], [1.0])


def test_it_is_cloned_and_pickled():
    X, Y = drawn(6, 2)
    dots = ReLUInterpolator(tol=1e-9).fit(X, Y)
    assert clone(dots).tol == 1e-9
    assert (pickle.loads(pickle.dumps(dots)).predict(X) == dots.predict(X)).all()
    assert dots.score(X, Y) == pytest.approx(1.0)


# ---- neurons of a net


def test_sharing_of_output_weights():
    assert neuron_sharing(np.eye(4)) == 1
    assert neuron_sharing(np.ones((3, 5))) == pytest.approx(1 / 5)
    assert neuron_sharing([[1.0, -1.0], [1e-5, 0.0]]) == 0.5  # the second is not active
    assert neuron_sharing([[1.0, -1.0], [1e-5, 0.0]], tol=0) == 0.75
    for bad, words in (
        (np.zeros((2, 2)), "all neurons are zero"),
        (np.ones(3), "shape"),
        ([[np.nan]], "not finite"),
    ):
        with pytest.raises(ValueError, match=words):
            neuron_sharing(bad)


def test_the_path_norm_of_a_net():
    torch.manual_seed(0)
    net = HardSharing(3, 2, (5,))
    with torch.no_grad():
        net.head.weight[:, 0] = 0  # nor is a neuron active that nothing reads
        net.trunk[0].weight[1] = 0  # or that reads nothing
        net.head.weight[1, 1] = 0
    inner, outer = net.trunk[0].weight.detach().numpy(), net.head.weight.detach().numpy()
    norm = multitask_path_norm(net)
    wanted = sum(
        np.sqrt(outer[0, k] ** 2 + outer[1, k] ** 2) * np.sqrt((inner[k] ** 2).sum())
        for k in range(5)
    )
    assert norm.item() == pytest.approx(wanted, rel=1e-6)
    norm.backward()  # a penalty's gradient
    assert net.trunk[0].weight.grad.abs().sum() > 0
    assert neuron_sharing(net) == pytest.approx(neuron_sharing(outer.T[2:]), rel=1e-6)
    with torch.no_grad():  # the network is the same, and so is its norm
        net.trunk[0].weight *= 4
        net.head.weight /= 4
    assert multitask_path_norm(net).item() == pytest.approx(wanted, rel=1e-6)


def test_a_fitted_estimator_will_do_and_other_nets_are_refused():
    X, Y = drawn(20, 3)
    quick = {"max_epochs": 2, "random_state": 0}
    fitted = MultiTaskRegressor((6,), **quick).fit(X, Y)
    assert multitask_path_norm(fitted).item() > 0
    assert 1 / 3 <= neuron_sharing(fitted) <= 1
    deep = MultiTaskRegressor((6, 6), **quick).fit(X, Y)
    with pytest.raises(ValueError, match="Linear, ReLU, Linear, ReLU; the path norm is that of"):
        multitask_path_norm(deep)
    with pytest.raises(ValueError, match="hidden_layer_sizes"):
        neuron_sharing(HardSharing(3, 2, (5,), activation="tanh"))
    with pytest.raises(ValueError, match="Linear is not a HardSharing net"):
        multitask_path_norm(torch.nn.Linear(2, 2))


# ---- several features

SQUARE = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
TWO_SQUARES = np.r_[SQUARE, SQUARE / 2]  # side 2 -> 0, side 1 -> 1
GRID = np.stack(np.meshgrid(*[np.linspace(-1, 1, 21)] * 2), axis=-1).reshape(-1, 2)


def squares(tasks, seed=0):
    others = np.random.default_rng(seed).standard_normal((8, tasks - 1))
    labels = np.c_[np.repeat([0.0, 1.0], 4), others]
    return convex_interpolant(TWO_SQUARES, labels, relu_dictionary(TWO_SQUARES, 32))


def test_with_many_tasks_one_task_s_part_is_a_kernel_s():
    gaps = {}
    for tasks, largest in ((2, 0.13), (5, 0.02), (20, 0.003)):
        optimum = squares(tasks)
        assert optimum.gap < 1e-6
        assert optimum.residual < 1e-9
        found = kernel_approximation(optimum, 0, GRID)
        at_data = kernel_approximation(optimum, 0, TWO_SQUARES)
        np.testing.assert_allclose(at_data.values, optimum.Y[:, 0], atol=1e-6)
        assert found.function_gap < largest
        assert -1e-6 < found.cost_gap < 0.01
        gaps[tasks] = found.function_gap
    assert gaps[2] > gaps[5] > gaps[20] > 0


def test_the_kernel_s_solution_is_the_cheapest_in_its_own_norm():
    optimum = squares(5)
    found = kernel_approximation(optimum, 2, GRID)
    others = np.linalg.norm(np.delete(optimum.output_weights, 2, axis=1), axis=1)
    used = found.output_weights != 0
    cost = (found.output_weights[used] ** 2 / others[used]).sum()
    own = (optimum.output_weights[used, 2] ** 2 / others[used]).sum()
    assert cost <= own * (1 + 1e-9)
    assert cost > 0.9 * own


def test_more_directions_cost_less_and_scaled_neurons_the_same():
    labels = np.repeat([0.0, 1.0], 4)[:, None]
    weights, biases = relu_dictionary(TWO_SQUARES, 64)
    costs = [
        convex_interpolant(TWO_SQUARES, labels, part).cost
        for part in (relu_dictionary(TWO_SQUARES, 8), (weights, biases), (2 * weights, 2 * biases))
    ]
    assert costs[1] < costs[0]
    assert costs[2] == pytest.approx(costs[1], rel=1e-6)


def test_labels_of_an_affine_map_cost_nothing():
    solved = convex_interpolant(TWO_SQUARES, TWO_SQUARES @ [[1.0], [2.0]] + 3)
    assert solved.cost < 1e-6
    assert solved(np.zeros((1, 2)))[0, 0] == pytest.approx(3, abs=1e-6)


def test_what_cannot_be_solved_is_refused(monkeypatch):
    X, Y = TWO_SQUARES, np.ones((8, 1))
    for arguments, words in (
        ((X, Y[:3]), "do not fit"),
        ((X, Y * np.nan), "not finite"),
        ((X, Y, (np.ones((2, 1)), np.ones(2))), "the dictionary's weights"),
        ((np.r_[X, X[:1]], np.arange(9.0)[:, None]), "no network of these .* interpolates"),
    ):
        with pytest.raises(ValueError, match=words):
            convex_interpolant(*arguments)
    with pytest.raises(ValueError, match="task=3 is not allowed; of two or more tasks, 0 to 1"):
        kernel_approximation(squares(2), 3, GRID)
    alone = convex_interpolant(X, np.c_[np.repeat([0.0, 1.0], 4), X[:, 0]])
    assert kernel_approximation(alone, 1, GRID).function_gap < 1e-6
    with pytest.raises(ValueError, match=r"neurons of the other tasks leave .* take more tasks"):
        kernel_approximation(alone, 0, GRID)
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(ImportError, match=r"pip install 'mtlsk\[convex\]'"):
        convex_interpolant(X, Y)


def test_the_names_are_the_package_s():
    for name in ("ReLUInterpolator", "convex_interpolant", "neuron_sharing"):
        assert name in mtlsk.__all__
        assert getattr(mtlsk, name) is getattr(mtlsk.relu, name)
