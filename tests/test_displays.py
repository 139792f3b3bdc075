"""The displays: what is drawn is what the history holds, in every form of net and data."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.dataset import ValidSplit

import mtlsk
from mtlsk import (
    ConflictDisplay,
    ConflictLog,
    LossesDisplay,
    MultiTaskRegressor,
    TrajectoryDisplay,
    WeightsDisplay,
    plot_conflict,
    plot_losses,
    plot_trajectory,
    plot_weights,
)
from mtlsk.displays.heat import heat_map, rounded, span_of
from mtlsk.gramian import cosines

mpl.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 5)).astype(np.float32)
PLOTS = [plot_losses, plot_weights, plot_conflict, plot_trajectory]


def targets(k):
    names = [f"_{i} in $/m^2$" if i % 3 == 0 else f"y{i}" for i in range(k)]
    y = np.tanh(X @ np.random.default_rng(k).normal(size=(5, k)))
    return pd.DataFrame(y, columns=names)


def make(**params):
    small = {"hidden_layer_sizes": (8,), "max_epochs": 3, "batch_size": 20, "random_state": 0}
    return MultiTaskRegressor(**{**small, "aggregator": "MGDA", **params})


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def fitted():
    """Nets of K tasks with validation losses, and y with missing labels."""
    found = {}
    for k in (1, 2, 3, 7, 14, 40):
        y = targets(k)
        some = y.mask(np.random.default_rng(k).random(y.shape) < 0.3)
        found[k] = make(train_split=ValidSplit(5)).fit(X, some), some
    return found


def drawn(display):
    """Draw all there is: labels that are broken formulas and the like would raise."""
    display.figure_.canvas.draw()
    return display


def column(net, key):
    return np.array(net.history_[:, key], dtype=float)


# ---- losses and weights


@pytest.mark.parametrize("k", [1, 2, 7, 14, 40])
def test_losses_are_those_of_the_history(fitted, k):
    net, _ = fitted[k]
    display = drawn(plot_losses(net))
    assert isinstance(display, LossesDisplay)
    assert display.ax_.figure is display.figure_
    for lines, key in ((display.lines_, "train_losses"), (display.valid_lines_, "valid_losses")):
        assert len(lines) == k
        np.testing.assert_array_equal([line.get_ydata() for line in lines], column(net, key).T)
        assert all(list(line.get_xdata()) == [1, 2, 3] for line in lines)
    assert {line.get_linestyle() for line in display.valid_lines_} == {"--"}


@pytest.mark.parametrize("k", [1, 2, 7, 14, 40])
def test_weights_are_those_of_the_history_beside_one_over_k(fitted, k):
    net, _ = fitted[k]
    display = drawn(plot_weights(net))
    assert isinstance(display, WeightsDisplay)
    found = [line.get_ydata() for line in display.lines_]
    np.testing.assert_array_equal(found, column(net, "task_weights").T)
    assert list(display.equal_.get_ydata()) == [1 / k] * 2
    assert display.legend_.get_texts()[-1].get_text() == f"1/K = {1 / k:.3g}"


def look(line):
    return line.get_color(), line.get_marker()


def test_few_tasks_differ_in_colour_and_in_marker(fitted):
    display = plot_losses(fitted[7][0])
    for part in (0, 1):
        assert len({look(line)[part] for line in display.lines_}) == 7
    names = [text.get_text() for text in display.legend_.get_texts()]
    assert names[0] == r"_0 in \$/m^2\$"  # matplotlib would have left it out, and read a formula
    assert names[1:3] == ["y1", "y2"]
    assert names[-2:] == ["training", "validation"]


@pytest.mark.parametrize("k", [14, 40])
def test_of_many_tasks_the_extremes_are_coloured_and_the_median_is_drawn(fitted, k):
    net, _ = fitted[k]
    display = plot_losses(net)
    last = column(net, "valid_losses")[-1]
    order = np.argsort(-last, kind="stable")
    bold = {i for i, line in enumerate(display.lines_) if line.get_color() != "0.75"}
    assert bold == {*order[:3].tolist(), *order[-3:].tolist()}
    texts = [text.get_text() for text in display.legend_.get_texts()]
    assert f"the other {k - 6} tasks" in texts
    medians = [line.get_ydata() for line in display.ax_.lines if line.get_linewidth() == 3]
    np.testing.assert_array_equal(medians, [np.median(column(net, "train_losses"), axis=1)])


def test_tasks_asked_for_are_the_coloured_ones(fitted):
    net, _ = fitted[40]
    for display in (plot_losses(net, tasks=["y4", -1]), plot_weights(net, tasks=["y4", -1])):
        bold = [i for i, line in enumerate(display.lines_) if line.get_color() != "0.75"]
        assert bold == [4, 39]


def test_rows_given_are_marked_with_their_losses(fitted):
    net, y = fitted[7]
    display = drawn(plot_losses(net, X, y))
    expected = net.task_gramian(X, y)[1].numpy()
    np.testing.assert_allclose(display.given_.get_offsets(), np.c_[np.full(7, 3), expected])
    display = plot_losses(fitted[40][0], X, fitted[40][1], tasks=[5])
    assert len(display.given_.get_offsets()) == 1
    assert plot_losses(net).given_ is None


def test_a_loss_that_is_not_there_leaves_a_gap():
    train = [[1.0, 2.0], [np.nan, 1.5], [0.8, 1.0]]
    display = drawn(LossesDisplay([1, 2, 3], train, task_names=["a", "b"]).plot())
    np.testing.assert_array_equal(display.lines_[0].get_ydata(), [1.0, np.nan, 0.8])
    assert display.valid_lines_ is None
    never = LossesDisplay([1], np.full((1, 9), np.nan), task_names="abcdefghi")
    drawn(never.plot())


def test_weights_below_zero_and_of_steps_without_any():
    weights = [[-0.5, 1.5], [np.nan, np.nan], [0.5, 0.5]]
    drawn(WeightsDisplay([1, 2, 3], weights, task_names=["a", "b"]).plot())


# ---- conflict


def image_of(display, i=0):
    return np.ma.filled(display.images_[i].get_array().astype(float), np.nan)


@pytest.mark.parametrize("k", [1, 2, 7, 14, 40])
def test_the_matrix_on_rows_is_that_of_the_fitted_net(fitted, k):
    net, y = fitted[k]
    display = drawn(ConflictDisplay.from_estimator(net, X, y))
    expected = cosines(net.task_gramian(X, y)[0]).numpy()
    np.testing.assert_allclose(image_of(display), expected, atol=1e-12)
    assert display.axes_.shape == (1, 1)
    assert display.ax_ is display.axes_[0, 0]
    texts = [text.get_text() for text in display.texts_]
    if k > 15:
        assert not texts  # they could not be read
    else:
        np.testing.assert_allclose([float(t) for t in texts], expected.ravel(), atol=0.00501)
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert len(labels) == k
    assert labels[0] == r"_0 in \$/m^2\$"
    low, high = display.images_[0].get_clim()
    assert low == -high
    off = np.abs(expected[~np.eye(k, dtype=bool)])
    assert k == 1 or off.max() <= high <= max(0.2, off.max() + 0.1)


@pytest.mark.parametrize(("annotate", "n"), [(True, 1600), (False, 0)])
def test_numbers_on_demand(fitted, annotate, n):
    net, y = fitted[40]
    assert len(plot_conflict(net, X, y, annotate=annotate).texts_) == n


@pytest.mark.parametrize(("k", "n_lines"), [(2, 1), (3, 3)])
def test_few_pairs_over_the_epochs_are_lines(fitted, k, n_lines):
    net, _ = fitted[k]
    display = drawn(plot_conflict(net))
    stack = column(net, "cosines")
    assert len(display.lines_) == n_lines
    for line, (i, j) in zip(display.lines_, display.pairs_, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), stack[:, i, j])
    assert not display.images_


@pytest.mark.parametrize(("k", "n"), [(7, 21), (14, 30), (40, 30)])
def test_many_pairs_over_the_epochs_are_a_map_sorted_by_their_mean(fitted, k, n):
    net, _ = fitted[k]
    display = drawn(plot_conflict(net))
    stack = column(net, "cosines")
    expected = np.array([stack[:, i, j] for i, j in display.pairs_])
    np.testing.assert_array_equal(image_of(display), expected)
    assert len(display.pairs_) == n
    upper = stack.mean(0)[np.triu_indices(k, 1)]
    np.testing.assert_allclose(expected.mean(1), np.sort(upper)[:n])
    label = display.ax_.get_yticklabels()[0].get_text()
    assert label.endswith(f" {expected[0].mean():.2f}")
    assert ("in most conflict" in display.ax_.get_title(loc="left")) == (n < k * (k - 1) / 2)
    assert len(plot_conflict(net, n_pairs=5).pairs_) == 5


@pytest.mark.parametrize("k", [1, 2, 7, 40])
def test_chosen_epochs_are_small_multiples(fitted, k):
    net, _ = fitted[k]
    display = drawn(plot_conflict(net, epochs=[1, 3]))
    assert len(display.images_) == 2
    for i, epoch in enumerate((1, 3)):
        np.testing.assert_array_equal(image_of(display, i), net.history_[epoch - 1, "cosines"])
        assert display.axes_.flat[i].get_title() == f"epoch {epoch}"
    one = plot_conflict(net, epochs=2)
    np.testing.assert_array_equal(image_of(one), net.history_[1, "cosines"])
    clims = {image.get_clim() for image in display.images_}
    assert len(clims) == 1


def test_five_epochs_in_two_rows_leave_one_place_empty(fitted):
    net = make(max_epochs=5).fit(X, targets(4))
    display = drawn(plot_conflict(net, kind="matrix"))
    assert display.axes_.shape == (2, 3)
    assert len(display.images_) == 5
    assert not display.axes_[1, 2].axison


def test_pairs_never_seen_together_are_hatched_and_last():
    y = targets(4).to_numpy().copy()
    y[::2, 0] = np.nan
    y[1::2, 1] = np.nan
    net = make(batch_size=1, max_epochs=2).fit(X, y)
    display = drawn(plot_conflict(net))
    assert display.pairs_[-1] == (0, 1)
    assert np.isnan(image_of(display)[-1]).all()
    assert display.ax_.patch.get_hatch()
    label = display.ax_.get_yticklabels()[-1].get_text()
    assert label.endswith("nan")
    numbers = plot_conflict(net, epochs=[2], annotate=True).texts_
    assert len(numbers) == 14  # of 16


def test_what_is_clearly_below_zero_bears_a_bar():
    values = np.array([[-0.5, -0.06, 0.3, -0.04], [0.1, np.nan, -0.2, 0.0]])
    ends = []
    for square in (False, True):
        panel = plt.figure().subplots()
        heat_map(panel, values, 0.5, False, square=square)
        (bars,) = panel.collections
        ends.append([(p[0][1], p[0][0], p[1][0]) for p in bars.get_segments()])
    assert ends[0] == [(0, -0.25, 1.25), (1, 1.75, 2.25)]  # neighbours share one
    assert ends[1] == [(0, -0.25, 0.25), (0, 0.75, 1.25), (1, 1.75, 2.25)]


def test_span_and_rounding():
    assert span_of(np.array([0.01, np.nan])) == 0.2
    assert span_of(np.array([0.31, -0.62])) == pytest.approx(0.7)
    assert span_of(np.array([np.nan])) == 1.0
    assert [rounded(v) for v in (-0.001, 0.001, -0.234)] == ["0.00", "0.00", "-0.23"]


def test_a_log_stands_in_where_the_steps_have_no_gramian():
    net = make(aggregator="LinearScalarization", callbacks=[ConflictLog(every=2)])
    net.fit(X, targets(4))
    display = drawn(plot_conflict(net))
    expected = [net.history_[i, "logged_cosines"] for i in (0, 2)]
    found = [[stack[i][j] for stack in expected] for i, j in display.pairs_]
    np.testing.assert_array_equal(image_of(display), found)
    assert display.epochs.tolist() == [1, 3]
    with pytest.raises(ValueError, match=r"epochs=\[2\] is not allowed: .* epochs \[1, 3\]"):
        plot_conflict(net, epochs=[2])
    both = make(callbacks=[ConflictLog()]).fit(X, targets(4))
    np.testing.assert_array_equal(plot_conflict(both).cosines, column(both, "cosines"))
    logged = plot_conflict(both, key="logged_cosines").cosines
    np.testing.assert_array_equal(logged, column(both, "logged_cosines"))


# ---- trajectories


def test_a_trajectory_runs_through_the_losses_of_two_tasks(fitted):
    net, y = fitted[7]
    display = drawn(plot_trajectory(net, X, y, tasks=["y5", 2]))
    assert isinstance(display, TrajectoryDisplay)
    for lines, key in ((display.lines_, "train_losses"), (display.valid_lines_, "valid_losses")):
        (line,) = lines.values()
        np.testing.assert_array_equal(line.get_xydata(), column(net, key)[:, [5, 2]])
    assert display.ax_.get_xlabel() == "loss of y5"
    assert display.ax_.get_ylabel() == "loss of y2"
    rings = [line for line in display.ax_.lines if line.get_markerfacecolor() == "white"]
    start = column(net, "train_losses")[0, [5, 2]]
    assert any(np.array_equal(ring.get_xydata(), [start]) for ring in rings)
    ends = [
        line.get_xydata() for line in display.ax_.lines if line.get_markeredgecolor() == "black"
    ]
    assert any(np.array_equal(end, [column(net, "train_losses")[-1, [5, 2]]]) for end in ends)
    (star,) = display.ax_.collections
    np.testing.assert_allclose(star.get_offsets(), [net.task_gramian(X, y)[1][[5, 2]].numpy()])
    assert not plot_trajectory(net, valid=False).valid_lines_


def test_several_estimators_are_overlaid_by_name(fitted):
    other = make(aggregator="ConicGrad").fit(X, fitted[7][1])
    display = drawn(plot_trajectory({"MGDA in $": fitted[7][0], "_conic": other}))
    assert list(display.lines_) == ["MGDA in $", "_conic"]
    a, b = display.lines_.values()
    assert look(a)[0] != look(b)[0]
    assert look(a)[1] != look(b)[1]
    np.testing.assert_array_equal(b.get_xydata(), column(other, "train_losses")[:, :2])
    assert list(display.valid_lines_) == ["MGDA in $"]
    texts = [text.get_text() for text in display.legend_.get_texts()]
    assert texts[:2] == [r"MGDA in \$", "_conic"]


# ---- what is around a net, and how it was trained


@pytest.mark.parametrize("plot", PLOTS)
def test_nets_are_found_in_what_is_around_them(plot):
    y = targets(4).to_numpy()
    ttr = TransformedTargetRegressor(make(), transformer=StandardScaler())
    pipe = make_pipeline(StandardScaler(), ttr)
    search = GridSearchCV(pipe, {}, cv=2).fit(X, y)
    inner = search.best_estimator_[-1].regressor_
    data = lambda d: [line.get_xydata() for line in d.ax_.lines if len(line.get_xydata())]  # noqa: E731
    for a, b in zip(data(plot(search)), data(plot(inner)), strict=True):
        np.testing.assert_array_equal(a, b)
    scaled = StandardScaler().fit_transform(X), StandardScaler().fit_transform(y)
    if plot is plot_conflict:
        found, expected = plot(search, X, y), plot(inner, *scaled)
        np.testing.assert_allclose(image_of(found), image_of(expected), atol=1e-6)
    elif plot is plot_losses:
        found, expected = plot(search, X, y), plot(inner, *scaled)
        np.testing.assert_allclose(found.given, expected.given, rtol=1e-5)


@pytest.mark.parametrize("plot", PLOTS)
def test_one_epoch_and_more_of_them_by_partial_fit(plot):
    net = make().partial_fit(X, targets(4))
    drawn(plot(net))
    for _ in range(3):
        net.partial_fit(X, targets(4))
    display = drawn(plot(net))
    n = (
        image_of(display).shape[1]
        if plot is plot_conflict
        else len(display.ax_.lines[0].get_xydata())
    )
    assert n == 4


@pytest.mark.parametrize("plot", PLOTS)
def test_an_axes_of_one_s_own_is_drawn_on(fitted, plot):
    figure, panel = plt.subplots()
    display = plot(fitted[7][0], ax=panel)
    assert display.ax_ is panel
    assert display.figure_ is figure
    assert plt.get_fignums() == [figure.number]


def test_several_axes_of_one_s_own(fitted):
    _, panels = plt.subplots(1, 2)
    display = drawn(plot_conflict(fitted[7][0], epochs=[1, 2], ax=panels))
    assert list(display.axes_.flat) == list(panels)
    with pytest.raises(ValueError, match="ax holds 1 axes, but 2 are drawn"):
        plot_conflict(fitted[7][0], epochs=[1, 2], ax=panels[0])


@pytest.mark.parametrize("plot", PLOTS)
def test_what_cannot_be_drawn_is_said(plot):
    with pytest.raises(NotFittedError):
        plot(make())
    with pytest.raises(ValueError, match=r"holds no epoch yet; call fit\(X, y\) first"):
        plot(make().initialize_for(X, targets(3)))
    with pytest.raises(TypeError, match="Ridge holds no mtlsk net"):
        plot(Ridge().fit(X, targets(3)))


@pytest.mark.parametrize(
    ("plot", "options", "message"),
    [
        (plot_losses, {"tasks": ["y44"]}, r"no task 'y44' \(did you mean 'y4'\?\); the tasks are"),
        (plot_losses, {"tasks": [7]}, "there is no task 7"),
        (plot_losses, {"tasks": "y1"}, "use a list of names or indices"),
        (plot_losses, {"tasks": [1, "y1"]}, "name each task once"),
        (plot_losses, {"log": "no"}, "log='no' is not allowed"),
        (plot_weights, {"tasks": [True]}, "there is no task True"),
        (plot_trajectory, {"tasks": [1]}, "name two tasks"),
        (plot_trajectory, {"tasks": [0, 1, 2]}, "name two tasks"),
        (plot_conflict, {"kind": "graph"}, "kind='graph' is not allowed; use one of auto"),
        (plot_conflict, {"n_pairs": 0}, "n_pairs=0 is not allowed"),
        (plot_conflict, {"epochs": [9]}, r"epochs=\[9\] is not allowed: .* epochs \[1, 2, 3\]"),
        (plot_conflict, {"epochs": []}, r"epochs=\[\] is not allowed"),
        (plot_conflict, {"key": "train_losses"}, "holds no matrices"),
        (plot_conflict, {"key": "other"}, "holds no 'other'"),
        (plot_conflict, {"X": X, "y": targets(7), "epochs": [1]}, "leave out X and y"),
    ],
)
def test_wrong_words_are_named(fitted, plot, options, message):
    with pytest.raises(ValueError, match=message):
        plot(fitted[7][0], **options)


def test_errors_of_their_own(fitted):
    with pytest.raises(ValueError, match="conflict is between two"):
        plot_conflict(fitted[1][0])
    with pytest.raises(ValueError, match="there is no task 1"):
        plot_trajectory(fitted[1][0])
    with pytest.raises(ValueError, match="at most 7 can be told apart"):
        plot_losses(fitted[40][0], tasks=range(8))
    with pytest.raises(ValueError, match=r"LinearScalarization .* callbacks=\[ConflictLog\(\)\]"):
        plot_conflict(make(aggregator="LinearScalarization").fit(X, targets(3)))
    with pytest.raises(ValueError, match="has the tasks"):
        plot_trajectory({"a": fitted[7][0], "b": make().fit(X, targets(7).to_numpy())})
    with pytest.raises(ValueError, match="the dict of estimators is empty"):
        plot_trajectory({})
    with pytest.raises(ValueError, match="8 trajectories are too many"):
        plot_trajectory({str(i): fitted[7][0] for i in range(8)})
    with pytest.raises(ValueError, match=r"valid has shape \(2, 2\), it must be \(1, 2\)"):
        LossesDisplay([1], [[1, 2]], [[1, 2], [3, 4]], task_names="ab")


def test_drawing_leaves_the_net_as_it_was(fitted):
    net, y = fitted[7]
    before = {name: value.clone() for name, value in net.module_.state_dict().items()}
    n = len(net.history_)
    for plot in PLOTS:
        plot(net, X, y)
    assert len(net.history_) == n
    assert all(torch.equal(before[name], v) for name, v in net.module_.state_dict().items())


def test_names_are_exported():
    for name in ("ConflictDisplay", "LossesDisplay", "TrajectoryDisplay", "WeightsDisplay"):
        assert getattr(mtlsk, name).__name__ == name
