"""The config grammar: what may be written, what is built, and what an error says."""

from __future__ import annotations

import sys
import textwrap

import numpy as np
import pytest
import torch
from sklearn.base import clone

from mtlsk.aggregators import (
    AGGREGATORS,
    MGDA,
    Aggregator,
    CAGrad,
    ConicGrad,
    LinearScalarization,
    UPGrad,
)
from mtlsk.component import Component, closest, describe, import_object, parameter_names
from mtlsk.controllers import APT, CONTROLLERS
from mtlsk.domains import Interval
from mtlsk.engines import ENGINES, Exact, build_engine
from mtlsk.optimizers import OPTIMIZERS

REGISTRIES = (AGGREGATORS, CONTROLLERS, ENGINES)
MEMBERS = [(r, n) for r in REGISTRIES for n in sorted(r.members())]
CONFIGURED = [
    (AGGREGATORS, CAGrad(c=2.5)),
    (AGGREGATORS, ConicGrad(c=1)),  # an int where the default is a float
    (AGGREGATORS, ConicGrad(c=0.25, solver="flip", gamma=0.0, dual_lr=0.1)),
    (AGGREGATORS, LinearScalarization(weights=[0.25, 0.75])),
    (CONTROLLERS, APT(beta_min=0.0, beta_max=0.0)),
]


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    """A module and a package of somebody else, importable for one test."""
    source = """
        from mtlsk.aggregators import Aggregator
        from mtlsk.domains import Interval

        __all__ = ["InverseNorm"]

        class InverseNorm(Aggregator):
            domains = {"power": Interval(0.0, 2.0)}

            def __init__(self, power=1.0):
                self.power = power

            def task_weights(self, gramian, losses):
                return gramian.diagonal() ** (-self.power / 2)

        class Box:
            class Inner(InverseNorm):
                pass

        class Abstract(Aggregator):
            pass
        """
    listed, plain = textwrap.dedent(source), textwrap.dedent(source).replace("__all__", "names")
    (tmp_path / "mine_plain.py").write_text(plain)
    (tmp_path / "mine_listed.py").write_text(listed)
    (tmp_path / "mine_package").mkdir()
    (tmp_path / "mine_package" / "inverse.py").write_text(plain)
    (tmp_path / "mine_package" / "__init__.py").write_text(
        'from mine_package.inverse import InverseNorm\n\n__all__ = ["InverseNorm"]\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("mine_"):
            del sys.modules[name]


def message(action, *args, **kwargs) -> str:
    """Return the text of the ValueError, which must be one line."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        action(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text, text
    return text


def test_the_members_are_those_of_the_packages():
    assert {"CAGrad", "ConicGrad", "LinearScalarization", "MGDA"} <= set(AGGREGATORS.members())
    assert "Aggregator" not in AGGREGATORS.members()  # abstract
    assert "APT" in CONTROLLERS.members()
    assert "Exact" in ENGINES.members()
    assert {"SGD", "Adam", "AdamW"} <= set(OPTIMIZERS.members())
    for registry in REGISTRIES:
        for name, cls in registry.members().items():
            assert cls.__name__ == name
            assert issubclass(cls, registry.base)


@pytest.mark.parametrize(("registry", "name"), MEMBERS)
def test_every_way_to_write_a_member_builds_it(registry, name):
    cls = registry.members()[name]
    path = f"{cls.__module__}:{cls.__name__}"
    for spec in (name, name.lower(), name.upper(), path, {"name": name}, {"name": path}, cls):
        built = registry.build(spec)
        assert type(built) is cls
        assert built.get_params() == cls().get_params()


@pytest.mark.parametrize(("registry", "name"), MEMBERS)
def test_describe_is_the_inverse_of_build_for_every_member(registry, name):
    assert describe(registry.build(name)) == {"name": name}
    assert type(registry.build(describe(registry.build(name)))) is registry.members()[name]


@pytest.mark.parametrize(("registry", "component"), CONFIGURED, ids=repr)
def test_describe_keeps_what_is_not_default(registry, component):
    built = registry.build(describe(component))
    params, expected = built.get_params(), component.get_params()
    assert params == expected
    assert [type(v) for v in params.values()] == [type(v) for v in expected.values()]


def test_describe_is_plain_and_short():
    assert describe(CAGrad()) == {"name": "CAGrad"}
    assert describe(CAGrad(c=0.25)) == {"name": "CAGrad", "c": 0.25}
    assert describe(ConicGrad(c=1, solver="exact")) == {"name": "ConicGrad", "c": 1}


def test_a_dict_gives_parameters_and_is_left_alone():
    spec = {"name": "conicgrad", "c": 0.9, "solver": "flip"}
    built = AGGREGATORS.build(spec)
    assert (built.c, built.solver) == (0.9, "flip")
    assert spec == {"name": "conicgrad", "c": 0.9, "solver": "flip"}


def test_parameters_given_apart_win():
    assert AGGREGATORS.build({"name": "CAGrad", "c": 0.1}, {"c": 0.2}).c == 0.2
    assert AGGREGATORS.build(CAGrad(c=0.1), {"c": 0.2}).c == 0.2
    assert AGGREGATORS.build(CAGrad, {"c": 0.2}).c == 0.2


def test_an_instance_is_never_touched():
    mine = ConicGrad(c=0.9, solver="flip")
    mine.task_weights(torch.eye(2, dtype=torch.float64), torch.ones(2))
    before = {n: v.clone() for n, v in mine.state_dict().items() if isinstance(v, torch.Tensor)}
    live = AGGREGATORS.build(mine, {"c": 0.5})
    assert live is not mine
    assert (mine.c, live.c) == (0.9, 0.5)
    assert live.state_dict() == {}  # a fresh one: what the user's has learned is not taken along
    live.task_weights(4 * torch.eye(2, dtype=torch.float64), torch.ones(2))
    assert all(torch.equal(mine.state_dict()[n], v) for n, v in before.items())


@pytest.mark.parametrize("inner", [ConicGrad(c=0.9), {"name": "ConicGrad", "c": 0.9}])
def test_what_stands_under_name_keeps_its_parameters_or_is_refused(inner):
    try:
        built = AGGREGATORS.build({"name": inner})
    except ValueError:
        return
    assert built.c == 0.9


@pytest.mark.usefixtures("third_party")
def test_a_third_partys_class_goes_by_its_path():
    path = "mine_plain:InverseNorm"
    built = AGGREGATORS.build({"name": path, "power": 2.0})
    assert built.power == 2.0
    assert describe(built) == {"name": path, "power": 2.0}
    assert type(AGGREGATORS.build(describe(built))) is type(built)
    assert "[0, 2]" in message(AGGREGATORS.build, {"name": path, "power": 3.0})


@pytest.mark.usefixtures("third_party")
@pytest.mark.parametrize(
    "path", ["mine_listed:InverseNorm", "mine_package:InverseNorm", "mine_plain:Box.Inner"]
)
def test_a_third_partys_class_is_described_by_what_builds_it(path):
    built = AGGREGATORS.build(path)
    assert type(AGGREGATORS.build(describe(built))) is type(built)


@pytest.mark.parametrize(
    ("registry", "wrong", "near"),
    [
        (AGGREGATORS, "ConcGrad", "ConicGrad"),
        (AGGREGATORS, "cagrd", "CAGrad"),
        (CONTROLLERS, "atp", "APT"),
        (ENGINES, "exakt", "Exact"),
        (OPTIMIZERS, "Adma", "Adam"),
    ],
)
def test_an_unknown_name(registry, wrong, near):
    text = message(registry.build, wrong)
    assert f"unknown {registry.kind} {wrong!r}" in text
    assert f"did you mean {near!r}?" in text
    assert all(name in text for name in registry.members())
    assert "did you mean" not in message(registry.build, "zzzzzzzzzzzz")


@pytest.mark.parametrize("wrong", [3, None, ["ConicGrad"], APT(), APT, Aggregator, object(), b"x"])
def test_a_wrong_type(wrong):
    text = message(AGGREGATORS.build, wrong)
    assert repr(wrong) in text
    assert "Aggregator" in text
    assert "'module:Class'" in text


@pytest.mark.parametrize(
    "spec",
    [
        np.eye(3),
        torch.nn.Sequential(torch.nn.ReLU()),
        {"name": "LinearScalarization", "weights": np.ones(100)},
        {"weights": np.ones(100)},
    ],
    ids=["array", "module", "parameter", "dict"],
)
def test_a_value_whose_repr_has_many_lines_still_makes_one(spec):
    assert message(AGGREGATORS.build, spec)


@pytest.mark.parametrize("wrong", [{}, {"c": 0.5}, {"name": None}, {"Name": "CAGrad"}])
def test_a_dict_without_a_name(wrong):
    text = message(AGGREGATORS.build, wrong)
    assert repr(wrong) in text
    assert "no 'name'" in text


def test_an_unknown_parameter():
    text = message(AGGREGATORS.build, {"name": "ConicGrad", "solvr": "exact"})
    assert "ConicGrad has no parameter 'solvr'" in text
    assert "did you mean 'solver'?" in text
    assert "valid parameters: c, dual_lr, gamma, rho, solver" in text
    for spec in ("ConicGrad", ConicGrad, ConicGrad()):
        assert message(AGGREGATORS.build, spec, {"solvr": "exact"}) == text


def test_a_parameter_that_is_no_text():
    assert "3" in message(AGGREGATORS.build, {"name": "ConicGrad", 3: 4})


def test_a_parameter_of_another_aggregator():
    text = message(AGGREGATORS.build, {"name": "UPGrad", "c": 0.5})
    assert "UPGrad has no parameter 'c'" in text
    assert "it takes no parameters" in text
    assert "CAGrad has no parameter 'solver'" in message(
        AGGREGATORS.build, "CAGrad", {"solver": "exact"}
    )


@pytest.mark.parametrize(
    ("registry", "spec", "words"),
    [
        (AGGREGATORS, {"name": "ConicGrad", "c": 1.5}, ["c=1.5", "(0, 1]"]),
        (AGGREGATORS, {"name": "ConicGrad", "c": 0}, ["c=0 ", "(0, 1]"]),
        (AGGREGATORS, {"name": "ConicGrad", "c": True}, ["c=True", "(0, 1]"]),
        (AGGREGATORS, {"name": "ConicGrad", "c": float("nan")}, ["c=nan", "(0, 1]"]),
        (AGGREGATORS, {"name": "ConicGrad", "c": "0.5"}, ["c='0.5'", "(0, 1]"]),
        (AGGREGATORS, {"name": "ConicGrad", "solver": "Flip"}, ["'Flip'", "'exact', 'flip'"]),
        (AGGREGATORS, {"name": "ConicGrad", "gamma": -1.0}, ["gamma=-1.0", "[0, inf)"]),
        (AGGREGATORS, {"name": "CAGrad", "c": -0.1}, ["c=-0.1", "[0, inf)"]),
        (AGGREGATORS, {"name": "LinearScalarization", "weights": [-1, 2]}, ["weights=[-1, 2]"]),
        (AGGREGATORS, {"name": "LinearScalarization", "weights": 3}, ["weights=3", "None"]),
        (CONTROLLERS, {"name": "APT", "beta_min": 1.0}, ["beta_min=1.0", "[0, 1)"]),
        (CONTROLLERS, {"name": "APT", "beta_min": 0.9, "beta_max": 0.5}, ["=0.5", "[0.9, 1)"]),
    ],
    ids=str,
)
def test_out_of_domain(registry, spec, words):
    text = message(registry.build, spec)
    assert spec["name"] in text
    for word in words:
        assert word in text
    # the same for an instance, which stored the value verbatim
    cls = registry.members()[spec["name"]]
    instance = cls(**{k: v for k, v in spec.items() if k != "name"})
    assert message(registry.build, instance) == text


def test_the_printed_cone_is_refused_at_one():
    text = message(AGGREGATORS.build, ConicGrad(c=1, solver="printed"))
    assert "c=1" in text
    assert "exact" in text
    AGGREGATORS.build(ConicGrad(c=0.999, solver="printed"))


@pytest.mark.usefixtures("third_party")
def test_paths_that_lead_nowhere():
    assert "PYTHONPATH" in message(AGGREGATORS.build, "no_such_module_here:X")
    text = message(AGGREGATORS.build, "mine_plain:InversNorm")
    assert "mine_plain" in text
    assert "did you mean 'InverseNorm'?" in text
    for path in ("mine_plain:Box", "mine_plain:Abstract", "mtlsk.controllers:APT", "math:pi"):
        text = message(AGGREGATORS.build, path)
        assert path in text
        assert "Aggregator" in text


@pytest.mark.parametrize("path", [".relative:X", ":X"])
def test_paths_without_a_module(path):
    assert repr(path) in message(AGGREGATORS.build, path)


def test_the_closest_name():
    assert closest("beta_mx", ["beta_min", "beta_max"]) == " (did you mean 'beta_max'?)"
    assert closest("CONICGRAD", ["ConicGrad"]) == " (did you mean 'ConicGrad'?)"
    assert closest("q", ["ConicGrad"]) == ""


def test_small_helpers():
    assert parameter_names(ConicGrad) == ["c", "dual_lr", "gamma", "rho", "solver"]
    assert parameter_names(UPGrad) == []
    assert parameter_names(torch.optim.SGD)[:2] == ["params", "lr"]
    assert import_object("mtlsk.aggregators:MGDA") is MGDA
    assert isinstance(build_engine("auto"), Exact)
    assert isinstance(build_engine({"name": "exact"}), Exact)
    assert "exakt" in message(build_engine, "exakt")


class Counter(Component):
    """Remembers in underscore attributes; private and plain ones are none of the memory."""

    domains = {"step": Interval(1, 9, integer=True)}

    def __init__(self, step=1):
        self.step = step

    def count(self):
        self.total_ = getattr(self, "total_", 0) + self.step
        self.trace_ = [*getattr(self, "trace_", []), self.total_]
        self._private = self.plain = 7
        return self.total_


def test_memory_is_saved_loaded_and_forgotten():
    counter = Counter(step=2)
    assert counter.state_dict() == {}
    assert [counter.count() for _ in range(3)] == [2, 4, 6]
    assert counter.state_dict() == {"total_": 6, "trace_": [2, 4, 6]}
    other = Counter(step=5)
    other.count()
    other.load_state_dict(counter.state_dict())
    assert other.count() == 11
    assert counter.count() == 8  # its own memory
    assert counter.reset() is counter
    assert counter.state_dict() == {}
    assert (counter.step, counter.plain) == (2, 7)
    assert counter.count() == 2
    assert clone(counter).state_dict() == {}


def test_a_loaded_memory_is_not_shared():
    gramian = torch.tensor([[1.0, 0.2], [0.2, 3.0]], dtype=torch.float64)
    first, second = ConicGrad(solver="flip"), ConicGrad(solver="flip")
    first.task_weights(gramian, torch.ones(2))
    state = first.state_dict()
    kept = state["logits_"].clone()
    second.load_state_dict(state)
    for _ in range(3):
        first.task_weights(gramian, torch.ones(2))
    assert torch.equal(second.logits_, kept)


def test_describe_compares_types_too():
    path = f"{Counter.__module__}:Counter"
    assert describe(Counter(step=1)) == {"name": path}
    assert type(describe(Counter(step=1.0))["step"]) is float  # equal to the default, but no int


def test_check_domains_looks_at_the_present_value_and_returns_self():
    counter = Counter(step=1)
    assert counter.check_domains() is counter
    counter.step = 10
    assert "Counter: step=10" in message(counter.check_domains)
