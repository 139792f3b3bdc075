"""FeasibleDisplay: what is drawn are models' errors, and dots lie where weights lead."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from mtlsk import FeasibleDisplay, ReducedRankRegressor, plot_feasible

mpl.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

RNG = np.random.default_rng(1)
X = RNG.normal(size=(120, 3))
ANGLES = 2 * np.pi * np.arange(3) / 3 + 0.1
MIXING = np.vstack([np.cos(ANGLES), np.sin(ANGLES), np.full(3, 0.4)])
Y = pd.DataFrame(X @ MIXING + 0.2 * RNG.normal(size=(120, 3)), columns=["a_$", "b", "c"])


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.mark.parametrize("rank", [1, 2])
def test_three_tasks_have_four_surfaces_and_a_mixture(rank):
    display = plot_feasible(X, Y, rank)
    assert len(display.surfaces_) == 4
    assert display.surface.shape[-1] == 3
    texts = [text.get_text() for text in display.legend_.get_texts()]
    assert "models, signs + - +" in texts
    display.figure_.canvas.draw()
    assert display.ax_.get_zlabel() == "mse of c"
    # no drawn model is better in every task than a scalarization optimum
    drawn = display.surface.reshape(-1, 3)
    assert not any((drawn < dot - 1e-9).all(axis=1).any() for dot in display.reached)
    if rank == 1:
        assert display.mixture_ is not None
        assert (display.mixture < display.balanced).all()
        assert "balanced model, reached by no weights" in texts
    # no drawn model has a smaller largest error than the balanced one, and some come near
    worst = drawn.max(axis=1).min()
    assert display.balanced.max() - 1e-9 <= worst < display.balanced.max() + 0.02


def test_two_tasks_are_a_closed_curve_on_which_the_dots_lie():
    fig, ax = plt.subplots()
    display = FeasibleDisplay.from_data(X, Y[["a_$", "b"]], ax=ax)
    assert display.ax_ is ax
    assert display.mixture_ is None
    drawn = display.surface[0]
    np.testing.assert_allclose(drawn[0], drawn[-1])
    for dot in display.reached[::20]:
        assert np.abs(drawn - dot).max(axis=1).min() < 0.02
    model = ReducedRankRegressor(1).fit(X, Y[["a_$", "b"]])
    errors = ((model.predict(X) - Y[["a_$", "b"]].to_numpy()) ** 2).mean(axis=0)
    assert np.abs(drawn - errors).max(axis=1).min() < 0.02
    fig.canvas.draw()


def test_what_cannot_be_drawn():
    four = np.column_stack([Y, X[:, 0]])
    with pytest.raises(ValueError, match="Y has 4 tasks; the picture takes 2 or 3"):
        plot_feasible(X, four)
    with pytest.raises(ValueError, match="give a smaller rank"):
        plot_feasible(X, Y, 3)
    with pytest.raises(ValueError, match="ax is flat"):
        plot_feasible(X, Y, ax=plt.subplots()[1])


def test_no_polygon_of_a_surface_needs_filling_up():
    """Where they differ in length matplotlib multiplies what memory it finds: it can overflow."""
    display = plot_feasible(X, Y)
    for sheet in display.surfaces_:
        assert not np.any(sheet._invalid_vertices)
