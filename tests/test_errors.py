"""What goes wrong says so in one line (value, what is allowed, what next) and loses nothing."""

import pickle
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from mtlsk import SCORERS, MultiTaskRegressor

RNG = np.random.default_rng(3)
X = RNG.normal(size=(40, 4)).astype(np.float32)
Y = np.c_[X @ [1.0, -1.0, 0.5, 0.0], X[:, 0] ** 2, np.sin(2 * X[:, 1])].astype(np.float32)
FRAME = pd.DataFrame(X, columns=["length", "width", "mass", "charge"])
TARGETS = pd.DataFrame(Y, columns=["load", "tau 1", "sin"])


def make(**params):
    small = {"hidden_layer_sizes": (8,), "max_epochs": 2, "random_state": 0}
    return MultiTaskRegressor(**{**small, **params})


def with_value(array, row, column, value):
    """Return a copy of an array or frame with one cell replaced."""
    changed = array.copy()
    if isinstance(array, pd.DataFrame):
        changed.iloc[row, column] = value
    else:
        changed[row, column] = value
    return changed


def one_line(error):
    message = str(error.value)
    assert message.strip()
    assert "\n" not in message, message
    return message


def says(message, *parts):
    """Assert that a message holds every part; a tuple is a choice."""
    for part in parts:
        choice = part if isinstance(part, tuple) else (part,)
        assert any(p in message for p in choice), f"{part!r} not in: {message}"


# ---- parameters


SGD = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
OWN = {"hidden_layer_sizes": (64, 64)}
# parameters -> what the message says: the value, what is allowed, what to do
PARAMETERS = {
    "aggregator, misspelt": ({"aggregator": "ConicGard"}, "'ConicGard'", "'ConicGrad'", "MGDA"),
    "aggregator, no word at all": ({"aggregator": "zzz"}, "'zzz'", "CAGrad", "module:Class"),
    "aggregator, no such module": ({"aggregator": "nowhere:A"}, "'nowhere'", "PYTHONPATH"),
    "aggregator, not in module": ({"aggregator": "mtlsk:Agregator"}, "'Aggregator'", "mtlsk"),
    "aggregator, not one": ({"aggregator": "mtlsk:SCORERS"}, "'mtlsk:SCORERS'", "Aggregator"),
    "aggregator=5": ({"aggregator": 5}, "aggregator=5", "name", "instance"),
    "aggregator=None": ({"aggregator": None}, "aggregator=None", "name"),
    "aggregator without name": ({"aggregator": {"c": 0.5}}, "'c'", "name"),
    "aggregator, controller's class": (
        {"aggregator": "mtlsk.controllers:APT"},
        "APT",
        "Aggregator",
    ),
    "c too large": (
        {"aggregator": "ConicGrad", "aggregator__c": 2.0},
        ("c=2.0", "c = 2.0"),
        "ConicGrad",
        "(0, 1]",
    ),
    "c is NaN": ({"aggregator": {"name": "ConicGrad", "c": float("nan")}}, "c=nan", "(0, 1]"),
    "c is text": ({"aggregator": "CAGrad", "aggregator__c": "half"}, "c='half'", "a number"),
    "solver": (
        {"aggregator": "ConicGrad", "aggregator__solver": "exakt"},
        "'exakt'",
        "'exact', 'flip', 'printed'",
    ),
    "another's parameter": ({"aggregator": "MGDA", "aggregator__c": 0.5}, "MGDA", "'c'", "valid"),
    "misspelt parameter": ({"aggregator": "ConicGrad", "aggregator__solvr": "exact"}, "'solver'"),
    "weights, wrong length": ({"aggregator__weights": [1, 2]}, "weights", "2", "3", "one"),
    "weights, negative": ({"aggregator__weights": [1, 2, -3]}, "[1, 2, -3]", "non-negative"),
    "weights, all zero": ({"aggregator__weights": [0, 0, 0]}, "[0, 0, 0]", "not all zero"),
    "controller, misspelt": ({"controller": "APR"}, "'APR'", "'APT'"),
    "controller=5": ({"controller": 5}, "controller=5", "Controller"),
    "controller's parameter": ({"controller": "APT", "controller__beta": 0.5}, "APT", "beta_max"),
    "controller's domain": ({"controller": "APT", "controller__beta_max": 0.1}, "0.1", "[0.5, 1)"),
    "no controller": ({"controller__beta_max": 0.5}, "controller=None", "beta_max"),
    "APT without momentum": ({"controller": "APT", "optimizer": "Adagrad"}, "Adagrad", "AdamW"),
    "APT with Adamax": ({"controller": "APT", "optimizer": "Adamax"}, "Adamax", "AdamW"),
    "update_norm": ({"update_norm": "unit"}, "update_norm='unit'", "'native'", "'mean'"),
    "activation": ({"activation": "rely"}, "activation='rely'", "relu"),
    "activation, a list": ({"activation": ["relu"]}, "activation=['relu']", "tanh"),
    "criterion": ({"criterion": "mse"}, "criterion='mse'", "squared_error"),
    "criterion, a class": ({"criterion": nn.MSELoss}, "MSELoss is a class", "a function"),
    "criterion=5": ({"criterion": 5}, "criterion=5", "squared_error"),
    "device": ({"device": "gpu"}, "device='gpu'", "'cpu'", "'auto'"),
    "gramian": ({"gramian": "exakt"}, "'exakt'", ("Exact", "auto")),
    "batch_size=0": ({"batch_size": 0}, "batch_size=0", "integer >= 1"),
    "batch_size=-2": ({"batch_size": -2}, "batch_size=-2", "integer >= 1"),
    "batch_size=2.5": ({"batch_size": 2.5}, "batch_size=2.5", "integer >= 1"),
    "batch_size=True": ({"batch_size": True}, "batch_size=True", "integer >= 1"),
    "max_epochs=-1": ({"max_epochs": -1}, "max_epochs=-1", "integer >= 0"),
    "max_epochs='ten'": ({"max_epochs": "ten"}, "max_epochs='ten'", "integer >= 0"),
    "lr='fast'": ({"lr": "fast"}, "lr='fast'", "number"),
    "lr=-1": ({"lr": -1.0}, "-1", ("lr", "learning rate")),
    "hidden_layer_sizes=5": ({"hidden_layer_sizes": 5}, "hidden_layer_sizes=5", "(5,)"),
    "hidden_layer_sizes, zero": ({"hidden_layer_sizes": (0,)}, "hidden_layer_sizes=(0,)"),
    "hidden_layer_sizes, negative": ({"hidden_layer_sizes": (-3,)}, "hidden_layer_sizes=(-3,)"),
    "hidden_layer_sizes, text": ({"hidden_layer_sizes": ("a",)}, "hidden_layer_sizes=('a',)"),
    "hidden_layer_sizes with a module": (
        {"hidden_layer_sizes": (8,), "module": nn.Linear(4, 3)},
        "hidden_layer_sizes",
        "module__",
    ),
    "activation with a module": (
        {"activation": "tanh", "module": nn.Linear(4, 3), **OWN},
        "activation",
        "module__activation",
    ),
    "module of the wrong width": ({"module": nn.Linear(4, 2), **OWN}, "(40, 2)", "(40, 3)"),
    "module that is too wide": ({"module": nn.Linear(4, 4), **OWN}, "(40, 4)", "(40, 3)"),
    "module of one dimension": (
        {"module": nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), **OWN},
        "(40,)",
        "(40, 3)",
    ),
    "module's parameter": ({"module__skipp": True}, "'skipp'", "'skip'", "input_shape"),
    "module=None": ({"module": None, **OWN}, "module=None"),
    "optimizer, misspelt": ({"optimizer": "AdmW"}, "'AdmW'", "'AdamW'", "SGD"),
    "optimizer=7": ({"optimizer": 7}, "optimizer=7", "name"),
    "optimizer, an instance": ({"optimizer": SGD}, "SGD", "instance", "optimizer='SGD'"),
    "optimizer's parameter": ({"optimizer__momentun": 0.5}, "'momentun'", "AdamW", "betas"),
    "optimizer's domain": ({"optimizer__momentum": 7.0}, "7.0"),
    "task_scale, wrong length": ({"task_scale": [1, 2]}, "task_scale", "2", "3"),
    "task_scale, negative": ({"task_scale": [1, 2, -1]}, "[1, 2, -1]", "non-negative"),
    "task_scale, NaN": ({"task_scale": [1, 2, np.nan]}, "nan", "non-negative"),
    "task_scale=3": ({"task_scale": 3}, "task_scale=3", "list"),
    "task_scale, text": ({"task_scale": "abc"}, "task_scale='abc'", "list"),
    "random_state": ({"random_state": "a"}, "'a'", "seed"),
    "train_split": ({"train_split": 0.2}, "train_split=0.2", "ValidSplit"),
    "prefix, misspelt": ({"agregator__c": 0.5}, "agregator__c", "typo"),
}


@pytest.mark.parametrize("params", PARAMETERS.values(), ids=PARAMETERS.keys())
def test_wrong_parameter(params):
    chosen, *parts = params
    net = make(**chosen)  # stored verbatim: checked in fit
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((ValueError, TypeError)) as caught:
            net.fit(X, Y)
    says(one_line(caught), *parts)


def test_a_device_that_is_not_there():
    if torch.cuda.is_available():
        pytest.skip("CUDA is there")
    with pytest.raises(
        ValueError, match="device='cuda' is not available here; use 'cpu'"
    ) as caught:
        make(device="cuda").fit(X, Y)
    one_line(caught)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("agregator", "aggregator"),
        ("hidden_layers", "hidden_layer_sizes"),
        ("n_epochs", "max_epochs"),
        ("zzzzzz", None),
    ],
)
def test_unknown_constructor_parameter(word, meant):
    with pytest.raises(TypeError) as caught:
        MultiTaskRegressor(**{word: 1})
    message = one_line(caught)
    says(message, repr(word), "valid parameters", "update_norm", "task_scale")
    says(message, f"did you mean {meant!r}" if meant else "MultiTaskRegressor")
    assert not re.search(r"\bkwargs\b", message)


@pytest.mark.parametrize("fitted", [False, True])
def test_unknown_parameter_in_set_params(fitted):
    net = make().fit(X, Y) if fitted else make()
    with pytest.raises(ValueError, match="'agregator'") as caught:
        net.set_params(agregator="MGDA")
    says(one_line(caught), "'agregator'", "aggregator")


# ---- data


DATA = {
    "NaN in X": (lambda net: net.fit(with_value(X, 3, 2, np.nan), Y), "NaN", "row 3", "column 2"),
    "NaN in a frame": (
        lambda net: net.fit(with_value(FRAME, 3, 2, np.nan), Y),
        "NaN",
        "row 3",
        "'mass'",
        "SimpleImputer",
    ),
    "inf in X": (lambda net: net.fit(with_value(X, 5, 1, -np.inf), Y), "inf", "row 5", "column 1"),
    "too large for float32": (
        lambda net: net.fit(with_value(X.astype(float), 5, 1, 1e39), Y),
        "float32",
        "row 5",
        "column 1",
    ),
    "inf in y": (
        lambda net: net.fit(X, with_value(TARGETS, 7, 1, np.inf)),
        "inf",
        "row 7",
        "'tau 1'",
        "missing label",
    ),
    "y too large": (
        lambda net: net.fit(X, with_value(Y.astype(float), 7, 1, 1e39)),
        "float32",
        "row 7",
        "'y1'",
    ),
    "task without labels": (lambda net: net.fit(X, TARGETS.assign(sin=np.nan)), "'sin'", "label"),
    "y is None": (lambda net: net.fit(X, None), "requires y", "None"),
    "y is text": (lambda net: net.fit(X, np.array([["a", "b", "c"]] * 40)), "y holds", "'a'"),
    "y is a list of text": (lambda net: net.fit(X, ["a"] * 40), "y holds", "numeric"),
    "y has three dimensions": (lambda net: net.fit(X, Y[:, :, None]), ("dim 3", "(40, 3, 1)")),
    "y without columns": (lambda net: net.fit(X, Y[:, :0]), ("0 feature", "(40, 0)")),
    "lengths": (lambda net: net.fit(X, Y[:-1]), "40", "39", "samples"),
    "X is empty": (lambda net: net.fit(X[:0], Y[:0]), "0 sample", "(0, 4)"),
    "X without columns": (lambda net: net.fit(X[:, :0], Y), "0 feature", "(40, 0)"),
    "X is text": (lambda net: net.fit(np.array([["a"] * 4] * 40), Y), ("numeric", "float")),
}
FITTED = {
    "features in predict": (lambda net: net.predict(X[:, :3]), "3 features", "4"),
    "features in partial_fit": (lambda net: net.partial_fit(X[:, :3], Y), "3 features", "4"),
    "features in score": (lambda net: net.score(X[:, :3], Y), "3 features", "4"),
    "tasks in partial_fit": (lambda net: net.partial_fit(X, Y[:, :2]), "2 tasks", "3: y0, y1, y2"),
    "tasks in score": (lambda net: net.score(X, Y[:, :2]), "2", "3", "task"),
    "tasks in worst_r2": (lambda net: SCORERS["worst_r2"](net, X, Y[:, :2]), "2", "3", "task"),
    "tasks in task_gramian": (lambda net: net.task_gramian(X, Y[:, :2]), "2 tasks", "3"),
    "NaN in predict": (lambda net: net.predict(with_value(X, 3, 2, np.nan)), "row 3", "column 2"),
    "NaN in partial_fit": (lambda net: net.partial_fit(with_value(X, 3, 2, np.nan), Y), "row 3"),
    "inf in partial_fit": (
        lambda net: net.partial_fit(X, with_value(Y, 3, 2, np.inf)),
        "row 3",
        "'y2'",
    ),
    "length in partial_fit": (lambda net: net.partial_fit(X, Y[:-1]), "40", "39"),
    "empty predict": (lambda net: net.predict(X[:0]), "0 sample"),
    "sample_weight of another length": (
        lambda net: net.fit(X, Y, sample_weight=np.ones(39)),
        "sample_weight",
        "(39,)",
        "(40,)",
        "(40, 3)",
    ),
    "sample_weight below zero": (
        lambda net: net.fit(X, Y, sample_weight=with_value(np.ones((40, 3)), 3, 2, -2.0)),
        "Negative values in sample_weight",
        "-2",
    ),
    "sample_weight NaN": (
        lambda net: net.partial_fit(X, Y, sample_weight=np.full(40, np.nan)),
        "sample_weight contains NaN",
    ),
    "sample_weight text": (
        lambda net: net.fit(X, Y, sample_weight=np.array(["a"] * 40)),
        "sample_weight",
        "no numbers",
    ),
    "sample_weight zero for a task": (
        lambda net: net.fit(X, Y, sample_weight=np.ones((40, 3)) * [1, 0, 1]),
        "zero",
        "'y1'",
    ),
    "sample_weight in score": (lambda net: net.score(X, Y, np.ones(39)), "sample_weight", "(39,)"),
    "all labels missing in partial_fit": (
        lambda net: net.partial_fit(X, np.full_like(Y, np.nan)),
        "no task has a label",
    ),
}


@pytest.mark.parametrize("case", [*DATA.values(), *FITTED.values()], ids=[*DATA, *FITTED])
def test_wrong_data(case):
    act, *parts = case
    net = make().fit(X, Y)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the parts are checked below
        act(net)
    says(one_line(caught), *parts)


def test_unfitted():
    for act in (lambda net: net.predict(X), lambda net: net.score(X, Y)):
        with pytest.raises(ValueError, match=r"not fitted yet.*'fit'") as caught:
            act(make())
        one_line(caught)
    with pytest.raises(ValueError, match="initialize_for") as caught:
        make().initialize()
    one_line(caught)


# ---- bad input loses nothing


@pytest.fixture(scope="module")
def fitted_once():
    return pickle.dumps(make(aggregator="ConicGrad", aggregator__c=0.5).fit(X, Y))


@pytest.fixture
def fitted(fitted_once):
    return pickle.loads(fitted_once)


def words(net):
    return {n: v for n, v in net.get_params().items() if not n.startswith("callbacks__")}


def still_the_same(net, other):
    """Assert that ``net`` is fitted as ``other`` is: predictions, history, and going on."""
    assert np.array_equal(net.predict(X), other.predict(X))
    assert net.history_ == other.history_
    assert (net.n_features_in_, net.task_names_) == (other.n_features_in_, other.task_names_)
    assert hasattr(net, "feature_names_in_") == hasattr(other, "feature_names_in_")
    assert np.array_equal(net.partial_fit(X, Y).predict(X), other.partial_fit(X, Y).predict(X))


WIDE, NARROW = np.c_[X, X[:, :2]], X[:, :3]
BAD_FITS = {
    **{name: act for name, (act, *_) in {**DATA, **FITTED}.items()},
    "NaN in a wider X": lambda net: net.fit(with_value(WIDE, 3, 2, np.nan), Y),
    "NaN in a narrower X": lambda net: net.fit(with_value(NARROW, 3, 2, np.nan), Y),
    "a wider X, inf in y": lambda net: net.fit(WIDE, with_value(Y, 3, 2, np.inf)),
    "a wider X, fewer rows of y": lambda net: net.fit(WIDE, Y[:-1]),
    "a wider X, no y": lambda net: net.fit(WIDE, None),
    "a frame, inf in y": lambda net: net.fit(FRAME, with_value(Y, 3, 2, np.inf)),
    "two tasks, NaN in X": lambda net: net.fit(with_value(X, 3, 2, np.nan), Y[:, :2]),
    "other shapes by initialize_for": lambda net: net.initialize_for(WIDE, Y[:-1, :2]),
}


@pytest.mark.parametrize("act", BAD_FITS.values(), ids=BAD_FITS.keys())
def test_bad_data_loses_nothing(fitted, fitted_once, act):
    with pytest.raises(ValueError):  # noqa: PT011 - the messages are tested above
        act(fitted)
    still_the_same(fitted, pickle.loads(fitted_once))


REPAIRED_FIRST = {"device", "batch_size", "lr"}  # a net predicts and goes on by them


SHAPES = {"same shapes": (X, Y), "other shapes": (WIDE, Y)}
# skorch swaps the module in set_params already
WRONG = {n: p for n, (p, *_) in PARAMETERS.items() if "module" not in p}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("data", SHAPES.values(), ids=SHAPES.keys())
def test_bad_parameters_lose_nothing(fitted, fitted_once, wrong, data):
    before = fitted.get_params(deep=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((ValueError, TypeError)):
            fitted.set_params(**wrong).fit(*data)
    if not REPAIRED_FIRST & set(wrong):
        assert np.array_equal(fitted.predict(X), pickle.loads(fitted_once).predict(X))
    for name in set(fitted.get_params(deep=False)) - set(before):
        delattr(fitted, name)
    fitted.set_params(**{n: before[n] for n in wrong if n in before})
    assert np.array_equal(fitted.predict(X), pickle.loads(fitted_once).predict(X))


BAD_SETS = {
    "aggregator": {"aggregator": "Foo"},
    "aggregator after another": {"max_epochs": 9, "aggregator": "Foo"},
    "aggregator's parameter": {"aggregator__c": 7.0},
    "unknown beside an aggregator": {"aggregator": "MGDA", "bogus": 1},
    "controller beside an aggregator": {"aggregator": "MGDA", "controller": "foo"},
    "controller": {"controller": "foo"},
    "optimizer": {"optimizer": "Foo"},
    "optimizer beside an aggregator": {"aggregator": "MGDA", "optimizer": "Foo"},
    "optimizer's option": {"optimizer__bogus": 1},
    "optimizer's option beside lr": {"lr": 0.5, "optimizer__bogus": 1},
    "new optimizer's option": {"optimizer": "SGD", "optimizer__bogus": 1},
    "task_scale": {"task_scale": [1, 2]},
    "task_scale beside an aggregator": {"aggregator": "MGDA", "task_scale": [1, 2]},
    "module's parameter": {"module__bogus": 1},
    "unknown": {"bogus": 1},
    "unknown beside lr": {"lr": 0.5, "bogus": 1},
}


@pytest.mark.parametrize("wrong", BAD_SETS.values(), ids=BAD_SETS.keys())
def test_set_params_that_raises_changes_nothing(fitted, fitted_once, wrong):
    before, live = words(fitted), (fitted.aggregator_, fitted.optimizer_, fitted.module_)
    with pytest.raises((ValueError, TypeError)):
        fitted.set_params(**wrong)
    assert words(fitted) == before
    assert fitted.optimizer_.param_groups[0]["lr"] == 3e-3
    after = (fitted.aggregator_, fitted.optimizer_, fitted.module_)
    assert all(a is b for a, b in zip(live, after, strict=True))
    still_the_same(fitted, pickle.loads(fitted_once))


def test_a_wrong_parameter_set_on_a_fitted_net_is_said_by_partial_fit(fitted):
    for wrong in ({"batch_size": 0}, {"update_norm": "unit"}, {"gramian": "exakt"}):
        net = pickle.loads(pickle.dumps(fitted)).set_params(**wrong)
        with pytest.raises(ValueError, match=re.escape(repr(next(iter(wrong.values()))))) as caught:
            net.partial_fit(X, Y)
        one_line(caught)


# engines


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"gramian": "oline"}, "unknown gramian 'oline' (did you mean 'Online'?); allowed: Budget"),
        ({"gramian": {"evry": 2}}, "Exact has no parameter 'evry' (did you mean 'every'?)"),
        ({"gramian": {"every": 0}}, "Exact: every=0 is not allowed; every must be an integer"),
        ({"gramian": {"name": "budget", "rows": 0}}, "Budget: rows=0 is not allowed"),
        ({"gramian": {"name": "online", "dual_lr": -1}}, "Online: dual_lr=-1 is not allowed"),
        (
            {"gramian": "online", "aggregator": {"name": "ConicGrad", "solver": "flip"}},
            "gramian='online' cannot serve ConicGrad(solver='flip'), which has no online dual; "
            "it can use: auto, budget, exact, features",
        ),
        (
            {"gramian": "features", "aggregator": "MGDA", "module": torch.nn.Linear(3, 2)},
            "gramian='features' needs a module with task parameters (heads) on top of shared "
            "features, by shared_parameters() or task_parameters(k); this one can use: auto, "
            "budget, exact, online",
        ),
    ],
)
def test_an_engine_that_does_not_fit_is_refused_before_a_fitted_net_is_touched(params, words):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 3)), rng.standard_normal((20, 2))
    net = MultiTaskRegressor((4,), "MGDA", max_epochs=1, random_state=0).fit(x, y)
    before = net.predict(x)
    with pytest.raises(ValueError, match=re.escape(words)):
        net.__class__(**{"hidden_layer_sizes": (64, 64), "max_epochs": 1, **params}).fit(x, y)
    for name in params:
        setattr(net, name, params[name])
    net.hidden_layer_sizes = (64, 64)
    with pytest.raises(ValueError, match=re.escape(words)):
        net.fit(x, y)
    assert np.array_equal(net.predict(x), before)


def test_an_aggregator_of_losses_takes_any_engine():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 3)), rng.standard_normal((20, 2))
    nets = [
        MultiTaskRegressor((4,), gramian=g, max_epochs=2, random_state=0).fit(x, y).predict(x)
        for g in ("auto", "online", "features", "budget")
    ]
    assert all(np.array_equal(nets[0], other) for other in nets[1:])
