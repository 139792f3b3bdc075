"""MGDA's normalisations: by hand, in J space, and what each keeps of a common descent direction."""

from __future__ import annotations

import pytest
import torch

from mtlsk.aggregators import MGDA
from mtlsk.simplex import min_norm_point
from mtlsk.testing import gradients

NORMALIZATIONS = ["none", "l2", "loss", "loss+"]


def weights(normalization, j, losses):
    return MGDA(normalization).task_weights(j @ j.T, losses)


def scales(normalization, j, losses):
    norms = j.norm(dim=1)
    return {"none": 0 * norms + 1, "l2": norms, "loss": losses, "loss+": losses * norms}[
        normalization
    ]


@pytest.mark.parametrize(
    ("normalization", "expected"),
    [
        # orthogonal gradients of lengths 1 and 2, losses 3 and 1: v is proportional to 1/|g/s|^2
        ("none", [4 / 5, 1 / 5]),
        ("l2", [2 / 3, 1 / 3]),  # v = (1, 1)/2, over s = (1, 2)
        ("loss", [12 / 13, 1 / 13]),  # g/s = 1/3, 2: v = (36, 1)/37, over s = (3, 1)
        ("loss+", [6 / 7, 1 / 7]),  # g/s = 1/3, 1: v = (9, 1)/10, over s = (3, 2)
    ],
)
def test_by_hand(normalization, expected):
    j = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    w = weights(normalization, j, torch.tensor([3.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(w, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_the_update_is_the_min_norm_point_of_the_normalised_gradients(normalization):
    losses = torch.tensor([0.3, 2.0, 5.0], dtype=torch.float64)
    for seed in range(30):
        j = gradients(seed)
        rows = j / scales(normalization, j, losses)[:, None]
        v = torch.from_numpy(min_norm_point((rows @ rows.T).numpy()))
        d = weights(normalization, j, losses) @ j
        other = v @ rows
        torch.testing.assert_close(d / d.norm(), other / other.norm(), rtol=0, atol=1e-9)
        # and a common descent direction of the gradients as they are
        assert bool((j @ d >= -1e-12 * j.norm(dim=1) * d.norm()).all())


def test_weights_of_the_normalised_problem_need_not_descend():
    """Why v is divided by s: applied to the gradients as they are, v can hurt a task."""
    hurt = 0
    for seed in range(30):
        j = gradients(seed)
        rows = j / j.norm(dim=1)[:, None]
        v = torch.from_numpy(min_norm_point((rows @ rows.T).numpy()))
        hurt += bool((j @ (v @ j) < -1e-3 * j.norm(dim=1) * (v @ j).norm()).any())
    assert hurt > 3


@pytest.mark.parametrize("normalization", ["loss", "loss+"])
def test_a_negative_loss_is_refused_by_its_own_number(normalization):
    live = MGDA(normalization)
    live.active_ = (0, 4)
    losses = torch.tensor([1.0, -0.5], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"that of task 4 is -0\.5; it must not be negative"):
        live.task_weights(torch.eye(2, dtype=torch.float64), losses)
    w = MGDA("l2").task_weights(torch.eye(2).double(), losses)
    assert w.tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("normalization", ["loss", "loss+"])
@pytest.mark.parametrize("small", [0.0, 1e-300, 1e-14])
def test_a_loss_of_zero_leaves_its_task_out(normalization, small):
    j = gradients(4)
    losses = torch.tensor([2.0, small, 1.0], dtype=torch.float64)
    w = weights(normalization, j, losses)
    assert w[1] == 0
    torch.testing.assert_close(w[[0, 2]], weights(normalization, j[[0, 2]], losses[[0, 2]]))
    nothing = weights(normalization, j, torch.zeros(3, dtype=torch.float64))
    assert nothing.tolist() == [1 / 3] * 3


def test_only_the_plain_one_has_an_online_dual():
    assert [MGDA(n).has_online_dual for n in NORMALIZATIONS] == [True, False, False, False]


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_the_support_is_remembered_by_task(normalization):
    j, losses = gradients(2, k=5, m=9), torch.linspace(1, 3, 5, dtype=torch.float64)
    live = MGDA(normalization)
    live.task_weights(j @ j.T, losses)
    live.active_ = (1, 3, 4)
    part = j[[1, 3, 4]]
    w = live.task_weights(part @ part.T, losses[[1, 3, 4]])
    torch.testing.assert_close(w, weights(normalization, part, losses[[1, 3, 4]]))
    # the support is that of v, which has the zeros of w
    assert {t for t in live.support_ if t in (1, 3, 4)} == {
        t for t, value in zip((1, 3, 4), w.tolist(), strict=True) if value > 1e-13
    }


def test_an_unknown_normalization_is_an_error():
    with pytest.raises(ValueError, match=r"normalization='l1' is not allowed; .* one of 'none'"):
        MGDA("l1").check_domains()
