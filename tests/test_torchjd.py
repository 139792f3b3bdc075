"""TorchJD as a peer: the same directions where it solves the same problem, and one adapter.

The other methods that it also has (NashMTL, PCGrad for more than two tasks) are tested by their
optimality conditions, or against the printed algorithm, in their own files.
"""

from __future__ import annotations

import math
import sys

import pytest
import torch
import torchjd.aggregation as jd
from torchjd.linalg import QuadprogProjector

from mtlsk.aggregators import (
    IMTLG,
    MGDA,
    AlignedMTL,
    CAGrad,
    ConFIG,
    DualProj,
    FairGrad,
    LinearScalarization,
    PCGrad,
    SDMGrad,
    Torchjd,
    UPGrad,
)
from mtlsk.aggregators.torchjd import NOT_ON_A_GRAMIAN
from mtlsk.testing import check_aggregator, gradients

EXACT = QuadprogProjector(reg_eps=1e-12, norm_eps=0.0)


def ours(aggregator, j):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return aggregator.task_weights(j @ j.T, torch.ones(len(j), dtype=torch.float64)) @ j


def direction(d):
    return d / d.norm()


def well_scaled(seed, k=None):
    """Return J (K, 12) of full rank, K 2 to 6, norms within a factor of 3."""
    return gradients(seed, k=k or 2 + seed % 5, m=12, ratio=3.0)


def weighted(weighting):
    return lambda j: weighting(j @ j.T).detach() @ j


SAME = [
    (UPGrad(), weighted(jd.UPGradWeighting(projector=EXACT))),
    (DualProj(), weighted(jd.DualProjWeighting(projector=EXACT))),
    (CAGrad(c=0.5), weighted(jd.CAGradWeighting(c=0.5, norm_eps=0.0))),
    (CAGrad(c=1.5), weighted(jd.CAGradWeighting(c=1.5, norm_eps=0.0))),
    (AlignedMTL("min"), weighted(jd.AlignedMTLWeighting(scale_mode="min"))),
    (AlignedMTL("median"), weighted(jd.AlignedMTLWeighting(scale_mode="median"))),
    (AlignedMTL("rmse"), weighted(jd.AlignedMTLWeighting(scale_mode="rmse"))),
    (ConFIG(), jd.ConFIG()),
    (FairGrad(alpha=0.5), weighted(jd.FairGradWeighting(alpha=0.5, max_iters=2000))),
    (FairGrad(alpha=1.0), weighted(jd.FairGradWeighting(alpha=1.0, max_iters=2000))),
    (FairGrad(alpha=2.0), weighted(jd.FairGradWeighting(alpha=2.0, max_iters=2000))),
    (LinearScalarization(), weighted(jd.MeanWeighting())),
    (LinearScalarization(), weighted(jd.SumWeighting())),
]


@pytest.mark.parametrize(("mine", "theirs"), SAME, ids=[repr(mine) for mine, _ in SAME])
def test_the_same_direction_on_well_scaled_gradients(mine, theirs):
    for seed in range(15):
        j = well_scaled(seed)
        torch.testing.assert_close(
            direction(ours(mine, j)), direction(theirs(j)), rtol=0, atol=1e-4
        )


LENGTHS = [
    (UPGrad(), weighted(jd.UPGradWeighting(projector=EXACT)), 1),
    (DualProj(), weighted(jd.DualProjWeighting(projector=EXACT)), 1),
    (CAGrad(c=0.5), weighted(jd.CAGradWeighting(c=0.5, norm_eps=0.0)), 1),
    (AlignedMTL("median"), weighted(jd.AlignedMTLWeighting(scale_mode="median")), 1),
    (ConFIG(), jd.ConFIG(), "K"),  # they sum over the tasks
]


@pytest.mark.parametrize(("mine", "theirs", "factor"), LENGTHS, ids=[repr(x[0]) for x in LENGTHS])
def test_the_same_length_but_for_means_instead_of_sums(mine, theirs, factor):
    for seed in range(8):
        j = well_scaled(seed)
        times = len(j) if factor == "K" else factor
        torch.testing.assert_close(times * ours(mine, j), theirs(j), rtol=1e-3, atol=1e-3)


def test_fixed_weights():
    weights = [0.5, 2.0, 0.0, 1.0]
    theirs = weighted(jd.ConstantWeighting(torch.tensor(weights, dtype=torch.float64)))
    j = well_scaled(2)
    torch.testing.assert_close(ours(LinearScalarization(weights), j), theirs(j))


def test_mgda_where_frank_wolfe_converges():
    """Its rate is linear only where all tasks have a weight: elsewhere it takes for ever."""
    theirs = weighted(jd.MGDAWeighting(epsilon=1e-12, max_iters=3000))
    compared = 0
    for seed in range(40):
        j = well_scaled(seed)
        w = MGDA().task_weights(j @ j.T, torch.ones(len(j)))
        if float(w.min()) > 0.05:
            d = direction(theirs(j))
            torch.testing.assert_close(direction(w @ j), d, rtol=0, atol=1e-4)
            compared += 1
    assert compared >= 8


def test_imtlg_where_its_weights_do_not_sum_to_less_than_zero():
    theirs = weighted(jd.IMTLGWeighting())
    for seed in range(15):
        j = well_scaled(seed)
        sign = torch.linalg.solve(j @ j.T, j.norm(dim=1)).sum().sign()
        d = sign * direction(theirs(j))
        torch.testing.assert_close(direction(ours(IMTLG(), j)), d, rtol=0, atol=1e-4)


def test_pcgrad_of_two_tasks():
    theirs = weighted(jd.PCGradWeighting())
    for seed in range(15):
        j = well_scaled(seed, k=2)
        torch.testing.assert_close(2 * ours(PCGrad(), j), theirs(j))


@pytest.mark.parametrize("lam", [0.3, 2.0])
def test_sdmgrad_on_one_batch_run_to_convergence(lam):
    for seed in range(6):
        j = well_scaled(seed)
        theirs = weighted(jd.SDMGradWeighting(lr=0.2, momentum=0.0, n_iter=4000, lambda_=lam))
        torch.testing.assert_close(ours(SDMGrad(lam), j), theirs(j), rtol=0, atol=1e-4)


# where we differ on purpose


def conflicts(j, d):
    return bool((j @ d < -1e-6 * j.norm(dim=1) * d.norm()).any())


def test_unequal_gradients():
    """Their ridge of 1e-4 of the trace outweighs a gradient a hundred times shorter: it is hurt."""
    theirs = weighted(jd.UPGradWeighting())
    hurt = 0
    for seed in range(30):
        j = gradients(seed, ratio=100.0)
        assert not conflicts(j, ours(UPGrad(), j))
        hurt += conflicts(j, theirs(j))
    assert hurt > 5


def test_small_gradients():
    """Their normalisation takes |J| < .01 for zero: UPGrad becomes the mean, CAGrad stops.

    Late in training, or with losses in small units, that is every step. Ours know no unit.
    """
    j = torch.tensor([[1.0, 0.0], [-1.0, 0.5]], dtype=torch.float64)
    small = 1e-3 * j
    torch.testing.assert_close(weighted(jd.UPGradWeighting())(small), small.mean(0))
    assert weighted(jd.CAGradWeighting(c=0.5))(small).tolist() == [0, 0]
    for mine in (UPGrad(), CAGrad(c=0.5)):
        torch.testing.assert_close(ours(mine, small), 1e-3 * ours(mine, j))


def test_a_task_without_a_gradient():
    """A task that has converged, or is away, stops their MGDA and drags their CAGrad to zero.

    In the min over tasks its progress is 0 whatever the direction. Ours leave it out.
    """
    j = torch.cat([gradients(0), torch.zeros(1, 8, dtype=torch.float64)])
    assert float(weighted(jd.MGDAWeighting())(j).norm()) < 1e-3 * float(ours(MGDA(), j).norm())
    assert weighted(jd.CAGradWeighting(c=0.5))(j).tolist() == [0] * 8
    assert float(ours(CAGrad(c=0.5), j).norm()) > 0.1 * float(j.mean(0).norm())


def test_weights_whose_sum_is_negative():
    """Divided by a negative sum IMTL-G's weights lead uphill for every task: ours by sum |v|."""
    theirs = weighted(jd.IMTLGWeighting())
    uphill = 0
    for seed in range(60):
        j = gradients(seed, k=4, ratio=100.0)
        assert bool((j @ ours(IMTLG(), j) > 0).all())
        uphill += bool((j @ theirs(j) < 0).all())
    assert uphill > 3


def test_mgda_on_a_face():
    """Frank-Wolfe stops early: ours is exact, however the weights lie."""
    gaps = []
    for seed in range(20):
        j = gradients(seed)
        d = weighted(jd.MGDAWeighting())(j)
        exact = ours(MGDA(), j)
        gaps.append(float(d.norm() / exact.norm()) - 1)
    assert max(gaps) > 1e-3
    assert min(gaps) > -1e-9


def test_gradients_that_are_not_numbers():
    """Their Mean and PCGrad weigh NaN as if nothing were wrong: ours names the task."""
    g = torch.eye(3, dtype=torch.float64)
    g[1, :] = g[:, 1] = math.nan
    for theirs in (jd.MeanWeighting(), jd.PCGradWeighting()):
        with torch.random.fork_rng(devices=[]):
            assert bool((theirs(g) > 0).all())  # so the update is NaN
    for mine in (UPGrad(), Torchjd(), Torchjd("Mean")):
        with pytest.raises(ValueError, match="the gradient of task 1 is not finite"):
            mine.task_weights(g, torch.ones(3))


# the adapter


@pytest.mark.parametrize(
    ("method", "options", "theirs"),
    [
        ("UPGrad", None, jd.UPGradWeighting()),
        ("UPGradWeighting", None, jd.UPGradWeighting()),
        ("MGDA", {"max_iters": 7}, jd.MGDAWeighting(max_iters=7)),
        ("CAGrad", {"c": 0.5}, jd.CAGradWeighting(c=0.5)),
        ("Constant", {"weights": [1.0, 0.0, 2.0]}, jd.ConstantWeighting(torch.tensor([1, 0, 2]))),
        ("Krum", {"n_byzantine": 0}, jd.KrumWeighting(n_byzantine=0)),
        (jd.UPGrad(), None, jd.UPGradWeighting()),
        (jd.DualProjWeighting(), None, jd.DualProjWeighting()),
        (jd.Mean(), None, jd.MeanWeighting()),
    ],
    ids=lambda x: str(x)[:30],
)  # fmt: skip
def test_its_weights_are_those_of_torchjd(method, options, theirs):
    live = Torchjd(method, options).check_domains()
    for seed in range(3):
        g = gradients(seed) @ gradients(seed).T
        w = live.task_weights(g, torch.ones(3))
        torch.testing.assert_close(w, theirs(g).double(), rtol=1e-12, atol=0)
        assert w.dtype == torch.float64
    assert live.state_dict() == {}


def test_every_method_of_its_names_is_had_or_refused_with_a_reason():
    needs = {"CAGrad": {"c": 0.5}, "FairGrad": {"alpha": 1.0}, "Krum": {"n_byzantine": 0}}
    needs["Constant"] = {"weights": [1.0, 1.0, 1.0]}
    needs["CRMOGM"] = {"weighting": jd.MeanWeighting()}
    j = gradients(0)
    had, refused = set(), set()
    for name in jd.__all__:
        plain = name.removesuffix("Weighting")
        if plain in ("", "Aggregator", "WeightedAggregator", "GramianWeightedAggregator"):
            continue
        try:
            live = Torchjd(name, needs.get(plain)).check_domains()
        except ValueError as error:
            refused.add((plain, "does not work on a Gramian: it" in str(error)))
        else:
            assert bool(live.task_weights(j @ j.T, torch.ones(3)).isfinite().all())
            had.add(plain)
    assert refused == {(name, True) for name in NOT_ON_A_GRAMIAN}
    assert had == {
        *("AlignedMTL", "CAGrad", "CRMOGM", "Constant", "DualProj", "FairGrad", "GradVac"),
        *("IMTLG", "Krum", "MGDA", "Mean", "PCD", "PCGrad", "Random", "Sum", "UPGrad"),
    }


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("UPGard", None, r"unknown method 'UPGard' \(did you mean 'UPGrad'\?\); allowed: Aligned"),
        ("ConFIG", None, r"ConFIG does not work on a Gramian: .* take aggregator='ConFIG'"),
        ("GradDrop", None, "it looks at single coordinates of the gradients"),
        (jd.TrimmedMean(1), None, "TrimmedMean does not work on a Gramian"),
        (jd.NashMTL, None, "is neither a name nor a weighting"),
        (jd.MoDoWeighting(), None, "it needs gradients of two independent batches"),
        (3, None, "method=3 is neither a name nor a weighting or an aggregator of TorchJD"),
        ("CAGrad", None, "options=None are not understood: .*missing 1 required .* 'c'"),
        ("MGDA", {"n": 3}, r"options=\{'n': 3\} are not understood: .*unexpected keyword"),
        ("MGDA", {"max_iters": -3}, "max_iters must be a positive integer, but got -3"),
        (jd.MGDA(), {"max_iters": 3}, "options are those of a method given by name"),
    ],
)
def test_what_it_cannot_make_is_an_error_that_says_why(method, options, said):
    with pytest.raises(ValueError, match=said) as raised:
        Torchjd(method, options).check_domains()
    assert "\n" not in str(raised.value)


class Failing(jd.Weighting):
    def __init__(self, result=None):
        super().__init__()
        self.result = result

    def forward(self, stat, /):
        if self.result is None:
            raise RuntimeError("no solution\nfor this")
        return torch.full((len(stat),), self.result)


def test_where_torchjd_fails_one_line_says_so():
    g = torch.eye(3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"TorchJD's Failing fails on a Gramian of 3 tasks: no"):
        Torchjd(Failing()).task_weights(g, torch.ones(3))
    with pytest.raises(ValueError, match=r"TorchJD's Failing gives weights that are not finite"):
        Torchjd(Failing(math.nan)).task_weights(g, torch.ones(3))
    with pytest.raises(ValueError, match=r"TorchJD's Krum fails on a Gramian of 2 tasks"):
        Torchjd("Krum", {"n_byzantine": 0}).task_weights(g[:2, :2], torch.ones(2))


def test_without_torchjd_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchjd", None)
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    live = Torchjd()  # it can be written down anywhere
    with pytest.raises(ImportError, match=r"pip install 'mtlsk\[torchjd\]'"):
        live.check_domains()


def test_an_object_is_never_touched():
    mine = jd.GradVac()
    live = Torchjd(mine)
    with torch.random.fork_rng(devices=[]):
        live.task_weights(torch.eye(3, dtype=torch.float64) - 0.2, torch.ones(3))
    assert mine.gramian_weighting._phi_t is None
    used = jd.CRMOGMWeighting(jd.UPGradWeighting())
    used(torch.eye(2, dtype=torch.float64))
    before = used._lambda.clone()
    g = gradients(0) @ gradients(0).T  # of another number of tasks: the copy starts afresh
    Torchjd(used).task_weights(g, torch.ones(3))
    assert torch.equal(used._lambda, before)


REMEMBERING = [
    "GradVac",
    "PCD",
    jd.CRMOGMWeighting(jd.UPGradWeighting()),
    jd.GramianWeightedAggregator(jd.CRMOGMWeighting(jd.PCDWeighting())),
]


@pytest.mark.parametrize("method", REMEMBERING, ids=lambda x: str(x)[:30])
def test_the_memory_goes_through_a_state_dict_in_the_middle(method, tmp_path):
    def steps(live, seeds):
        out = []
        for seed in seeds:
            j = gradients(seed)
            torch.manual_seed(seed)
            out.append(live.task_weights(j @ j.T, torch.ones(3)))
        return torch.stack(out)

    with torch.random.fork_rng(devices=[]):
        whole = steps(Torchjd(method), range(6))
        first = Torchjd(method)
        steps(first, range(3))
        torch.save(first.state_dict(), tmp_path / "state.pt")
        second = Torchjd(method)
        second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        torch.testing.assert_close(steps(second, range(3, 6)), whole[3:], rtol=1e-12, atol=0)
        afresh = steps(first.reset(), range(3, 6))
        assert not torch.allclose(afresh, whole[3:])  # there was something to remember
        again = steps(first.reset(), range(6))
        torch.testing.assert_close(again, whole, rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", REMEMBERING, ids=lambda x: str(x)[:30])
def test_other_tasks_than_in_the_step_before_start_it_afresh(method):
    def call(live, active):
        live.active_ = active
        j = gradients(1)[list(active)]
        torch.manual_seed(0)
        return live.task_weights(j @ j.T, torch.ones(len(j)))

    with torch.random.fork_rng(devices=[]):
        live = Torchjd(method)
        call(live, (0, 1, 2))
        torch.testing.assert_close(call(live, (0, 2)), call(Torchjd(method), (0, 2)))
        torch.testing.assert_close(call(live, (1, 2)), call(Torchjd(method), (1, 2)))
        assert live.tasks_ == [1, 2]


def test_other_parameters_make_another_method():
    g = gradients(2) @ gradients(2).T
    live = Torchjd("Mean")
    assert live.task_weights(g, torch.ones(3)).tolist() == pytest.approx([1 / 3] * 3)
    live.set_params(method="Constant", options={"weights": [1.0, 0.0, 2.0]})
    assert live.task_weights(g, torch.ones(3)).tolist() == [1, 0, 2]


@pytest.mark.parametrize("method", ["DualProj", "MGDA", "IMTLG", "AlignedMTL", "PCGrad", "GradVac"])
def test_the_contract_holds_for_other_methods(method):
    check_aggregator(Torchjd(method))


@pytest.mark.parametrize("options", [[1.0], "pref_vector", 0.5])
def test_options_that_are_no_dict(options):
    with pytest.raises(ValueError, match="options must be a dict of keyword arguments"):
        Torchjd(options=options).check_domains()
