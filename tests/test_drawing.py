"""Text that matplotlib draws as it is, axes, and when an axis is logarithmic."""

import sys

import matplotlib as mpl
import numpy as np
import pytest

from mtlsk.drawing import axes, escaped, log_axis, plain, short

mpl.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.mark.parametrize("name", ["$x$", "a $ b", "$x_{$", "100 $/m^2 and 3 $/kg", "no dollar"])
def test_names_are_drawn_and_not_read_as_formulas(name):
    panel = axes(None, (2, 2))[0, 0]
    text = panel.set_title(escaped(name))
    panel.figure.canvas.draw()  # a broken formula would raise here
    assert text._preprocess_math(text.get_text()) == (name, False)


def test_long_names_lose_their_middle_and_keep_their_ends():
    name = "the concentration of nitrate in mg/l"
    assert short(name, 12) == "the con…mg/l"
    assert short(name, 100) == name
    assert plain(name, 20).splitlines() == ["the concentration of", "nitrate in mg/l"]


@pytest.mark.parametrize(
    ("values", "log", "scale"),
    [
        ([1.0, 20.0], "auto", "log"),
        ([1.0, np.nan, 20.0], "auto", "log"),
        ([1.0, 2.0], "auto", "linear"),
        ([0.0, 20.0], "auto", "linear"),
        ([-1.0, 20.0], "auto", "linear"),
        ([np.nan], "auto", "linear"),
        ([], "auto", "linear"),
        ([1.0, 2.0], True, "log"),
        ([1.0, 20.0], False, "linear"),
    ],
)
def test_when_an_axis_is_logarithmic(values, log, scale):
    panel = axes(None, (2, 2))[0, 0]
    log_axis(panel, "y", values, log)
    assert panel.get_yscale() == scale
    assert panel.get_xscale() == "linear"


def test_wrong_words_and_numbers_of_axes_are_named():
    panel = axes(None, (2, 2))[0, 0]
    with pytest.raises(ValueError, match="log='yes' is not allowed"):
        log_axis(panel, "y", [1.0], "yes")
    with pytest.raises(ValueError, match="ax holds 1 axes, but 2 are drawn"):
        axes(panel, (2, 2), 1, 2)


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(
        ImportError, match=r'^plots need matplotlib: run pip install "mtlsk\[plot\]"$'
    ):
        axes(None, (2, 2))
