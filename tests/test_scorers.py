"""SCORERS against the explicit float64 Jacobian, and through what may be around a net."""

import pickle
import re
import warnings
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.optimize import nnls
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.metrics import log_loss, r2_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from torch import nn
from torch.func import functional_call, jacrev

import mtlsk
from mtlsk import SCORERS, MultiTaskClassifier, MultiTaskNet, MultiTaskRegressor
from mtlsk.curvature import hessian_shares
from mtlsk.estimators import r2_per_task
from mtlsk.scorers import make_certificate_scorer, per_task_scorer

README = Path(__file__).parent.parent / "README.md"
RNG = np.random.default_rng(2)
X = RNG.normal(size=(60, 4))
Y = np.c_[X @ [1.0, -1.0, 0.5, 0.0], X[:, 0] ** 2 - X[:, 1], np.sin(2 * X[:, 1])]
MISSING = Y.copy()
MISSING[:35, 0] = np.nan  # whole chunks without a label of the task
MISSING[::3, 2] = np.nan


def make(**params):
    small = {"hidden_layer_sizes": (16,), "max_epochs": 4, "lr": 0.01, "random_state": 0}
    return MultiTaskRegressor(**{**small, **params})


def oracle(net, X, y, shared="trunk."):
    """Return (G, L) by jacrev through a float64 copy of the net's module, as numpy."""
    names = [n for n, _ in net.module_.named_parameters() if n.startswith(shared)]
    state = {
        n: t.double() if t.is_floating_point() else t for n, t in net.module_.state_dict().items()
    }
    features = torch.tensor(np.asarray(X, dtype=np.float32)).double()
    targets = torch.tensor(np.asarray(y, dtype=np.float32)).double().reshape(len(features), -1)

    def losses(*chosen):
        output = functional_call(
            net.module_, {**state, **dict(zip(names, chosen, strict=True))}, features
        )
        per_task = []
        for k in range(targets.shape[1]):
            there = ~torch.isnan(targets[:, k])
            per_task.append(((output[there, k] - targets[there, k]) ** 2).mean())
        return torch.stack(per_task)

    values = tuple(state[n] for n in names)
    blocks = jacrev(losses, argnums=tuple(range(len(names))))(*values)
    J = torch.cat([b.reshape(targets.shape[1], -1) for b in blocks], 1)
    return (J @ J.T).numpy(), losses(*values).numpy()


def by_hand(name, model, inner, X, y, inner_X, inner_y):
    """Return the score of ``model`` whose net ``inner`` sees ``inner_X`` and ``inner_y``."""
    if name in ("worst_r2", "worst_score"):
        return r2_score(y, model.predict(X), multioutput="raw_values").min()
    G, L = oracle(inner, inner_X, inner_y)
    if name == "neg_condition_number":
        return -np.linalg.cond(G)
    if name == "neg_h":
        return -np.mean(L**2)
    eigenvalues = np.linalg.eigvalsh(G)
    if name == "neg_ridge_condition_number":
        ridge = 0.01 * np.trace(G) / len(G)
        return -(eigenvalues[-1] + ridge) / (eigenvalues[0] + ridge)
    if name == "pl_constant":
        return 2 * eigenvalues[0] / len(G)
    if name == "neg_pl_bound":  # |grad h|^2 = (4/K^2) L'GL
        return -(L @ G @ L) / len(G) / eigenvalues[0]
    if name == "neg_pl_bound_sqrt":  # grad h = g0, G_Phi = D G D
        d = 1 / (2 * np.sqrt(L))
        return -len(G) * G.mean() / (4 * np.linalg.eigvalsh(d[:, None] * G * d)[0])
    if name == "critical_cone":
        root = np.linalg.cholesky(G).T
        w0 = np.full(len(G), 1 / len(G))
        return nnls(root, -root @ w0)[1] / np.linalg.norm(root @ w0)
    norms = np.sqrt(np.diag(G))
    cosine = G / norms[:, None] / norms
    if name == "neg_cosine_condition_number":
        return -np.linalg.cond(cosine)
    if name == "effective_tasks":
        p = np.linalg.eigvalsh(cosine) / len(G)
        return np.exp(-(p * np.log(p)).sum())
    assert name == "min_cosine"
    return cosine[~np.eye(len(G), dtype=bool)].min()


def test_the_dict_is_what_the_readme_says():
    table = re.search(r"\| scorer \|.*\n\| --- .*\n((?:\|.*\n)+)", README.read_text())
    assert list(SCORERS) == re.findall(r"^\| `(\w+)`", table[1], flags=re.M)
    assert mtlsk.scorers.SCORERS is SCORERS


# ---- the Gramian


@pytest.mark.parametrize("y", [Y, MISSING, Y[:, 0]], ids=["all", "missing", "1d"])
@pytest.mark.parametrize("chunk", [7, 60, 4096])
def test_task_gramian_is_the_explicit_jacobian_s(y, chunk):
    net = make().fit(X, y)
    G, L = net.task_gramian(X, y, chunk=chunk)
    wanted, losses = oracle(net, X, y)
    assert G.dtype == L.dtype == torch.float64
    np.testing.assert_allclose(G.numpy(), wanted, rtol=1e-4, atol=1e-6 * np.trace(wanted))
    np.testing.assert_allclose(L.numpy(), losses, rtol=1e-5)


@pytest.mark.parametrize("chunk", [1, 13, 59])
def test_chunks_add_up(chunk):
    net = make().fit(X, MISSING)
    G, L = net.task_gramian(X, MISSING)
    chunked, losses = net.task_gramian(X, MISSING, chunk=chunk)
    torch.testing.assert_close(chunked, G, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(losses, L, rtol=1e-5, atol=1e-8)


def test_every_parameter_of_a_module_without_protocol_is_shared():
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    net = make(module=module, hidden_layer_sizes=(64, 64)).fit(X, Y)
    wanted, _ = oracle(net, X, Y, shared="")
    np.testing.assert_allclose(net.task_gramian(X, Y)[0].numpy(), wanted, rtol=1e-4)


def test_it_is_taken_in_evaluation_mode():
    module = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.BatchNorm1d(6), nn.Linear(6, 3))
    net = make(module=module, hidden_layer_sizes=(64, 64)).fit(X, Y)
    first, again = (net.task_gramian(X, Y)[0] for _ in range(2))
    assert torch.equal(first, again)
    wanted, _ = oracle(net, X, Y, shared="")  # the module is in evaluation mode now
    assert net.module_.training is False
    np.testing.assert_allclose(first.numpy(), wanted, rtol=1e-3)
    assert int(net.module_[2].num_batches_tracked) == 4


def test_looking_changes_nothing():
    looked, blind = make(aggregator="ConicGrad").fit(X, Y), make(aggregator="ConicGrad").fit(X, Y)
    for scorer in SCORERS.values():
        scorer(looked, X, Y)
    assert np.array_equal(looked.predict(X), blind.predict(X))
    assert len(looked.history_) == 4
    looked.partial_fit(X, Y)
    blind.partial_fit(X, Y)
    assert np.array_equal(looked.predict(X), blind.predict(X))


# ---- each scorer, in everything that may be around a net


def fit_pipeline():
    model = make_pipeline(StandardScaler(), MinMaxScaler(), make()).fit(X, Y)
    return model, model[-1], model[:-1].transform(X), Y


def fit_bare_pipeline():
    model = Pipeline([("net", make())]).fit(X, Y)
    return model, model[-1], X, Y


def fit_target():
    model = TransformedTargetRegressor(make(), transformer=StandardScaler()).fit(X, 5 * Y + 1)
    return model, model.regressor_, X, StandardScaler().fit_transform(5 * Y + 1)


def fit_both():
    pipeline = make_pipeline(StandardScaler(), make())
    model = TransformedTargetRegressor(pipeline, transformer=StandardScaler()).fit(X, 5 * Y + 1)
    inner = model.regressor_
    return model, inner[-1], inner[:-1].transform(X), StandardScaler().fit_transform(5 * Y + 1)


def fit_target_in_pipeline():
    target = TransformedTargetRegressor(make(), transformer=StandardScaler())
    model = make_pipeline(StandardScaler(), target).fit(X, 5 * Y + 1)
    scaled = StandardScaler().fit_transform(X)
    return model, model[-1].regressor_, scaled, StandardScaler().fit_transform(5 * Y + 1)


def fit_search():
    pipeline = make_pipeline(StandardScaler(), make())
    grid = {"multitaskregressor__lr": [0.01]}
    model = GridSearchCV(pipeline, grid, cv=KFold(2), error_score="raise").fit(X, Y)
    return model, model.best_estimator_[-1], StandardScaler().fit_transform(X), Y


def fit_search_in_pipeline():
    search = GridSearchCV(make(), {"lr": [0.01]}, cv=KFold(2), error_score="raise")
    model = make_pipeline(StandardScaler(), search).fit(X, Y)
    return model, model[-1].best_estimator_, StandardScaler().fit_transform(X), Y


def fit_functions():
    model = TransformedTargetRegressor(
        make(), func=np.cbrt, inverse_func=lambda t: t**3, check_inverse=False
    ).fit(X, Y)
    return model, model.regressor_, X, np.cbrt(Y)


def fit_alone():
    net = make().fit(X, Y)
    return net, net, X, Y


WRAPPED = {f.__name__.removeprefix("fit_"): f for f in (
    fit_alone, fit_pipeline, fit_bare_pipeline, fit_target, fit_both, fit_target_in_pipeline,
    fit_search, fit_search_in_pipeline, fit_functions,
)}  # fmt: skip


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize("fit", WRAPPED.values(), ids=WRAPPED.keys())
def test_scorer_by_hand(fit, name):
    model, inner, inner_X, inner_y = fit()
    y = 5 * Y + 1 if fit in (fit_target, fit_both, fit_target_in_pipeline) else Y
    score = SCORERS[name](model, X, y)
    assert type(score) is float
    wanted = by_hand(name, model, inner, X, y, inner_X, inner_y)
    assert score == pytest.approx(wanted, rel=2e-3, abs=1e-5)


@pytest.mark.parametrize("name", SCORERS)
def test_scorers_take_frames(name):
    frame, targets = pd.DataFrame(X, columns=list("abcd")), pd.DataFrame(Y, columns=list("uvw"))
    model = TransformedTargetRegressor(
        make_pipeline(StandardScaler(), make()), transformer=StandardScaler()
    ).fit(frame, targets)
    plain = TransformedTargetRegressor(
        make_pipeline(StandardScaler(), make()), transformer=StandardScaler()
    ).fit(X, Y)
    scored = SCORERS[name](model, frame, targets)
    assert scored == pytest.approx(SCORERS[name](plain, X, Y), rel=1e-5)


@pytest.mark.parametrize("name", SCORERS)
def test_single_task_has_scores(name):
    for y in (Y[:, 0], Y[:, :1]):
        net = make().fit(X, y)
        wanted = {
            "worst_r2": r2_score(y, net.predict(X)),
            "worst_score": r2_score(y, net.predict(X)),
            "neg_condition_number": -1.0,
            "neg_h": -(np.mean((y - net.predict(X)) ** 2) ** 2),
            "min_cosine": 1.0,
            "neg_cosine_condition_number": -1.0,
            "neg_ridge_condition_number": -1.0,
            "effective_tasks": 1.0,
            "critical_cone": 1.0,
            "pl_constant": 2 * float(net.task_gramian(X, y)[0]),
            "neg_pl_bound": -(np.mean((y - net.predict(X)) ** 2) ** 2),  # of one task h itself
            "neg_pl_bound_sqrt": -np.mean((y - net.predict(X)) ** 2),
        }
        assert SCORERS[name](net, X, y) == pytest.approx(wanted[name], rel=1e-4)
        target = TransformedTargetRegressor(make(), transformer=StandardScaler()).fit(X, y)
        assert np.isfinite(SCORERS[name](target, X, y))


def test_opposed_and_equal_tasks():
    net = make().fit(X, np.c_[Y[:, 0], Y[:, 0]])
    with torch.no_grad():
        net.module_.head.weight[1] = net.module_.head.weight[0]
        net.module_.head.bias[1] = net.module_.head.bias[0]
    equal = np.c_[Y[:, 0], Y[:, 0]]
    assert SCORERS["min_cosine"](net, X, equal) == pytest.approx(1.0)
    assert SCORERS["neg_condition_number"](net, X, equal) < -1e10
    opposed = np.c_[Y[:, 0], 2 * net.predict(X)[:, 0] - Y[:, 0]]  # residuals of opposite sign
    assert SCORERS["min_cosine"](net, X, opposed) == pytest.approx(-1.0, abs=1e-4)


# ---- R^2


def test_worst_r2_is_scikit_learn_s():
    net = make().fit(X, Y)
    raw = r2_score(Y, net.predict(X), multioutput="raw_values")
    assert SCORERS["worst_r2"](net, X, Y) == pytest.approx(raw.min(), rel=1e-12)
    np.testing.assert_allclose(r2_per_task(Y, net.predict(X)), raw, rtol=1e-12)
    assert raw.min() < raw.max()


def test_worst_r2_over_labelled_rows():
    net = make().fit(X, MISSING)
    prediction = net.predict(X)
    there = ~np.isnan(MISSING)
    raw = [r2_score(Y[there[:, k], k], prediction[there[:, k], k]) for k in range(3)]
    assert SCORERS["worst_r2"](net, X, MISSING) == pytest.approx(min(raw), rel=1e-12)


def test_worst_r2_needs_no_net():
    model = Ridge().fit(X, Y)
    raw = r2_score(Y, model.predict(X), multioutput="raw_values")
    assert SCORERS["worst_r2"](model, X, Y) == pytest.approx(raw.min())


def test_r2_of_a_constant_target_and_of_too_few_labels():
    truth = np.array([[2.0, 2.0, np.nan, 1.0], [2.0, 2.0, 1.0, 2.0], [2.0, 2.0, np.nan, 3.0]])
    fit = np.array([[2.0, 2.0, 5.0, 1.0], [2.0, 2.0, 5.0, 2.0], [2.0, 3.0, 5.0, 4.0]])
    scores = r2_per_task(truth, fit)
    for k in (0, 1, 3):
        assert scores[k] == pytest.approx(r2_score(truth[:, k], fit[:, k]))
    assert np.isnan(scores[2])
    none_but_one = np.array([[0.0], [0.0], [1.0]])  # labels of weight 0 are none
    assert np.isnan(r2_per_task(truth[:, 3:], fit[:, 3:], none_but_one))


# ---- what they are not for


CERTIFICATES = [name for name in SCORERS if not name.startswith("worst_")]


@pytest.mark.parametrize("name", CERTIFICATES)
@pytest.mark.parametrize(
    "model",
    [
        Ridge(),
        make_pipeline(StandardScaler(), Ridge()),
        TransformedTargetRegressor(Ridge()),
        GridSearchCV(Ridge(), {"alpha": [1.0]}, cv=KFold(2)),
    ],
    ids=["alone", "pipeline", "target", "search"],
)
def test_other_estimators_are_refused_by_name(name, model):
    with pytest.raises(TypeError, match="Ridge holds no mtlsk net") as caught:
        SCORERS[name](model.fit(X, Y), X, Y)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize(
    "model",
    [make(), make_pipeline(StandardScaler(), make()), TransformedTargetRegressor(make())],
    ids=["alone", "pipeline", "target"],
)
def test_unfitted_is_said(name, model):
    with pytest.raises(NotFittedError):
        SCORERS[name](model, X, Y)


# ---- scorers made to measure


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("neg_ridge_condition_number", {"ridge": 0.5}),
        ("neg_pl_bound", {"rounding": 1e-9}),
        ("neg_residual_share", {"objective": "h", "max_rows": 20}),
        ("neg_curvature", {}),
        ("neg_reachable_zero", {"lipschitz": 1e-6}),
    ],
)
def test_a_scorer_with_options_can_be_pickled_and_says_what_it_is(name, options):
    scorer = make_certificate_scorer(name, **options)
    words = "".join(f", {k}={v!r}" for k, v in options.items())
    assert repr(scorer) == f"make_certificate_scorer({name!r}{words})"
    again = pickle.loads(pickle.dumps(scorer))
    assert repr(again) == repr(scorer)
    assert scorer.__doc__.startswith("Minus ")
    net = make(activation="tanh", hidden_layer_sizes=(16,)).fit(X, Y)
    found = again(net, X[:8], Y[:8])
    assert type(found) is float
    assert found == scorer(net, X[:8], Y[:8]) < 0


def test_options_count():
    net = make().fit(X, Y)
    G, _ = oracle(net, X, Y)
    e, mean = np.linalg.eigvalsh(G), np.trace(G) / 3
    scorer = make_certificate_scorer("neg_ridge_condition_number", ridge=0.5)
    assert scorer(net, X, Y) == pytest.approx(-(e[-1] + 0.5 * mean) / (e[0] + 0.5 * mean), rel=1e-4)
    shares = hessian_shares(net, X, Y, objective="h")
    for name, value in (
        ("neg_residual_share", -shares.residual_share),
        ("neg_curvature", -abs(shares.hessian.top)),
    ):
        scorer = make_certificate_scorer(name, objective="h")
        assert scorer(net, X, Y) == pytest.approx(value)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (
            "neg_pl_bond",
            {},
            "unknown certificate scorer 'neg_pl_bond' .did you mean 'neg_pl_bound'",
        ),
        ("worst_r2", {}, "allowed: neg_condition_number"),
        ("gram_step", {}, "unknown certificate scorer"),  # no step is better for being longer
        ("neg_h", {"ridge": 1.0}, "neg_h has no option 'ridge'; its options: none"),
        ("neg_curvature", {"object": "h"}, "did you mean 'objective'"),
    ],
)
def test_what_cannot_be_made_says_why(name, options, words):
    with pytest.raises(ValueError, match=words):
        make_certificate_scorer(name, **options)


def dependent():
    """Return a net and y of which two task gradients are the same."""
    y = np.c_[Y[:, 0], Y[:, 0]]
    net = make().fit(X, y)
    with torch.no_grad():
        net.module_.head.weight[1] = net.module_.head.weight[0]
        net.module_.head.bias[1] = net.module_.head.bias[0]
    return net, y


def test_no_number_outside_the_assumptions():
    net, y = dependent()
    with pytest.raises(ValueError, match="linearly dependent"):
        SCORERS["neg_pl_bound"](net, X, y)
    with pytest.raises(ValueError, match="kinks"):
        make_certificate_scorer("neg_reachable_zero")(make().fit(X, Y), X[:2], Y[:2])
    with pytest.warns(UserWarning, match="is not applicable, so NaN: the tasks") as caught:
        scores = SCORERS(net, X, y)
    assert len(caught) == 3
    assert {n for n, v in scores.items() if np.isnan(v)} == {
        "neg_pl_bound",
        "neg_pl_bound_sqrt",
        "pl_constant",
    }


def test_asked_together_they_take_one_gramian(monkeypatch):
    net = make().fit(X, Y)
    alone = {name: scorer(net, X, Y) for name, scorer in SCORERS.items()}
    calls = []
    original = type(net).task_gramian

    def counted(self, *args, **options):
        calls.append(1)
        return original(self, *args, **options)

    monkeypatch.setattr(type(net), "task_gramian", counted)
    assert SCORERS(net, X, Y) == alone
    assert len(calls) == 1
    found = cross_validate(make(), X, Y, scoring=SCORERS, cv=KFold(2), error_score="raise")
    assert len(calls) == 3
    assert {f"test_{name}" for name in SCORERS} <= set(found)


def test_scores_with_more_of_the_user_s():
    found = cross_validate(make(), X, Y, scoring={**SCORERS, "r2": "r2"}, cv=KFold(2))
    together = cross_validate(make(), X, Y, scoring=SCORERS, cv=KFold(2))
    assert "test_r2" in found
    for name in SCORERS:
        np.testing.assert_array_equal(found[f"test_{name}"], together[f"test_{name}"])


def test_scorers_say_that_they_take_no_weights():
    search = GridSearchCV(make(), {"lr": [0.01]}, scoring=dict(SCORERS), refit=False)
    with pytest.warns(UserWarning, match="does not support sample_weight"):
        assert search._check_scorers_accept_sample_weight() is False


# ---- metrics a task


def error(truth, prediction):
    return -float(np.abs(truth - prediction).max())


@pytest.mark.parametrize("fit", WRAPPED.values(), ids=WRAPPED.keys())
def test_per_task_scores_by_hand(fit):
    model, *_ = fit()
    y = 5 * Y + 1 if fit in (fit_target, fit_both, fit_target_in_pipeline) else Y
    scorer = per_task_scorer(["r2", "neg_mean_absolute_error", error])
    found = scorer(model, X, y)
    assert list(found)[:4] == ["r2 y0", "r2 y1", "r2 y2", "neg_mean_absolute_error y0"]
    prediction = model.predict(X)
    for k in range(3):
        assert found[f"r2 y{k}"] == pytest.approx(r2_score(y[:, k], prediction[:, k]))
        away = np.abs(y[:, k] - prediction[:, k])
        assert found[f"neg_mean_absolute_error y{k}"] == pytest.approx(-away.mean())
        assert found[f"error y{k}"] == pytest.approx(-away.max())


def test_missing_labels_drop_out_of_each_task():
    net = make().fit(X, MISSING)
    found = per_task_scorer("neg_mean_squared_error")(net, X, MISSING)
    there = ~np.isnan(MISSING)
    for k in range(3):
        wanted = (MISSING[there[:, k], k] - net.predict(X)[there[:, k], k]) ** 2
        assert found[f"neg_mean_squared_error y{k}"] == pytest.approx(-wanted.mean())
    none = MISSING.copy()
    none[:, 1] = np.nan
    assert np.isnan(per_task_scorer()(net, X, none)["r2 y1"])


def test_names_are_y_s_or_the_net_s():
    frame = pd.DataFrame(Y, columns=["price", "demand", "stock"])
    target = TransformedTargetRegressor(make(), transformer=StandardScaler()).fit(X, frame)
    assert list(per_task_scorer()(target, X, frame)) == ["r2 price", "r2 demand", "r2 stock"]
    assert list(per_task_scorer()(make().fit(X, frame), X, Y)) == [
        "r2 price",
        "r2 demand",
        "r2 stock",
    ]
    assert list(per_task_scorer()(Ridge().fit(X, Y), X, Y)) == ["r2 y0", "r2 y1", "r2 y2"]
    assert list(per_task_scorer()(make().fit(X, Y[:, 0]), X, Y[:, 0])) == ["r2 y"]
    twice = frame.set_axis(["a", "a", "b"], axis=1)
    with pytest.raises(ValueError, match="two columns of y are named 'a'"):
        per_task_scorer()(make().fit(X, Y), X, twice)


def test_classes_by_any_metric():
    labels = (np.median(Y, axis=0) < Y).astype(int)[:, :2]
    forest = RandomForestClassifier(5, random_state=0).fit(X, labels)
    found = per_task_scorer(["accuracy", "roc_auc", "neg_log_loss"])(forest, X[:30], labels[:30])
    for k in range(2):
        truth, probability = labels[:30, k], forest.predict_proba(X[:30])[k]
        accuracy = np.mean(truth == forest.predict(X[:30])[:, k])
        assert found[f"accuracy y{k}"] == pytest.approx(accuracy)
        assert found[f"roc_auc y{k}"] == pytest.approx(roc_auc_score(truth, probability[:, 1]))
        assert found[f"neg_log_loss y{k}"] == pytest.approx(-log_loss(truth, probability))


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ("mean_squared_error", "did you mean 'neg_mean_squared_error'"),
        ("r3", "unknown metric 'r3'"),
        ([], "empty"),
        ([3], "neither a name nor a function"),
    ],
)
def test_wrong_metrics_are_refused_at_once(metrics, words):
    with pytest.raises(ValueError, match=words):
        per_task_scorer(metrics)


def test_per_task_scores_in_a_search_over_processes():
    some = Y.copy()
    some[::3, 2] = np.nan
    scorer = per_task_scorer(["r2", error])
    assert repr(pickle.loads(pickle.dumps(scorer))) == "per_task_scorer(['r2', 'error'])"
    options = {"scoring": scorer, "refit": "r2 y1", "cv": KFold(2), "error_score": "raise"}
    search = GridSearchCV(make(), {"lr": [0.01, 0.03]}, **options, n_jobs=2).fit(X, some)
    assert np.isfinite(search.cv_results_["mean_test_error y2"]).all()
    best = search.cv_results_["mean_test_r2 y1"].argmax()
    assert search.best_index_ == best


def scores_of(found):
    return np.stack([found[n] for n in sorted(found) if n.startswith("test_")])


def test_loky_and_dask_give_the_very_scores_of_the_serial_run():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as the workers have
    try:
        model = make_pipeline(StandardScaler(), make(aggregator="ConicGrad"))
        options = {"cv": KFold(2), "error_score": "raise"}
        runs = [(model, SCORERS), (model, per_task_scorer())]
        serial = [scores_of(cross_validate(m, X, Y, scoring=s, **options)) for m, s in runs]
        aggregators = {"aggregator": ["LinearScalarization", "MGDA", "CAGrad", "ConicGrad"]}
        search = GridSearchCV(make(), aggregators, cv=2, error_score="raise")
        searched = clone(search).fit(X, Y)
        loky = [scores_of(cross_validate(m, X, Y, scoring=s, **options, n_jobs=2)) for m, s in runs]
        distributed = pytest.importorskip("distributed")
        with (
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
            ) as cluster,
            distributed.Client(cluster),
            joblib.parallel_config(backend="dask"),
        ):
            spread = search.set_params(n_jobs=2).fit(X, Y)
            dask = [
                scores_of(cross_validate(m, X, Y, scoring=s, **options, n_jobs=2)) for m, s in runs
            ]
    finally:
        torch.set_num_threads(before)
    for a, b, c in zip(serial, loky, dask, strict=True):
        assert np.isfinite(a).all()
        assert np.array_equal(a, b)
        assert np.array_equal(a, c)
    for i in range(2):
        scores = f"split{i}_test_score"
        assert len(set(searched.cv_results_[scores])) == 4
        assert np.array_equal(spread.cv_results_[scores], searched.cv_results_[scores])
    assert spread.best_params_ == searched.best_params_


# ---- classes, and tasks of several kinds

TWO = np.where(X[:, 0] > 0, "yes", "no")
THREE = np.digitize(X[:, 1], [-0.5, 0.5])
MIXED = pd.DataFrame({"price": Y[:, 0], "sold": TWO, "size": THREE})
SMALL = {"hidden_layer_sizes": (16,), "max_epochs": 10, "lr": 0.02, "random_state": 0}


def mixed(**params):
    net = MultiTaskNet(**{**SMALL, **params}, tasks={"size": "classification"})
    return make_pipeline(StandardScaler(), net)


def test_worst_scores_of_several_kinds():
    y = MIXED.astype({"size": object}).mask(np.random.default_rng(0).random((60, 3)) < 0.2)
    model = mixed().fit(X, y)
    prediction = model.predict(X)
    there = y.notna().to_numpy()
    r2 = r2_score(y["price"][there[:, 0]].astype(float), prediction["price"][there[:, 0]])
    hits = [(prediction[c] == MIXED[c]).to_numpy()[there[:, k]].mean() for k, c in enumerate(y)][1:]
    assert SCORERS["worst_r2"](model, X, y) == pytest.approx(r2)
    assert SCORERS["worst_score"](model, X, y) == pytest.approx(min(r2, *hits))
    found = per_task_scorer()(model, X, y)
    assert found == pytest.approx(
        {"r2 price": r2, "accuracy sold": hits[0], "accuracy size": hits[1]}
    )


def test_metrics_by_kind():
    model = mixed().fit(X, MIXED)
    metrics = {"regression": ["r2", "neg_max_error"], "classification": "neg_log_loss"}
    found = per_task_scorer(metrics)(model, X, MIXED)
    assert list(found) == [
        "r2 price",
        "neg_max_error price",
        "neg_log_loss sold",
        "neg_log_loss size",
    ]
    wanted = -log_loss(THREE, model.predict_proba(X)[2])
    assert found["neg_log_loss size"] == pytest.approx(wanted)
    only = per_task_scorer({"classification": "accuracy"})(model, X, MIXED)
    assert list(only) == ["accuracy sold", "accuracy size"]
    assert repr(per_task_scorer("r2")) == "per_task_scorer(['r2'])"
    with pytest.raises(ValueError, match=r"'regresion' \(did you mean 'regression'\?\)"):
        per_task_scorer({"regresion": "r2"})


def test_scorers_of_a_classifier_in_a_search():
    y = MIXED[["sold", "size"]]
    net = MultiTaskClassifier(**SMALL, class_weight="balanced")
    grid = {"aggregator": ["LinearScalarization", "MGDA"]}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* is not applicable")
        search = GridSearchCV(net, grid, scoring=SCORERS, refit="worst_score", cv=KFold(2))
        search.fit(X, y)
    assert "mean_test_worst_r2" not in search.cv_results_
    for name in ("worst_score", "min_cosine", "neg_condition_number"):
        assert np.isfinite(search.cv_results_[f"mean_test_{name}"]).all()
    with pytest.raises(ValueError, match="all tasks are classes"):
        SCORERS["worst_r2"](search, X, y)
    scores = SCORERS["worst_score"](search, X, y)
    assert scores == min((search.predict(X)[:, k] == y.iloc[:, k]).mean() for k in (0, 1))


def test_curvature_and_certificates_of_several_kinds():
    """The Gauss-Newton parts of classes agree with the explicit Hessians' traces."""
    model = mixed(activation="tanh", dtype="float64").fit(X, MIXED)
    net, inner = model[-1], model[0].transform(X)
    shares = hessian_shares(net, inner, MIXED)
    state = dict(net.module_.named_parameters())
    features, price = torch.tensor(inner), torch.tensor(Y[:, 0])
    sold, size = torch.tensor((TWO == "yes") * 1.0), torch.tensor(THREE)

    def mean_loss(*values):
        f = functional_call(net.module_, dict(zip(state, values, strict=True)), features)
        each = [
            (f[:, 0] - price) ** 2,
            torch.log1p(torch.exp(f[:, 1])) - sold * f[:, 1],
            torch.logsumexp(f[:, 2:], 1) - f[torch.arange(60), 2 + size],
        ]
        return torch.stack(each).mean()

    values = tuple(p.detach() for p in state.values())
    blocks = jacrev(
        jacrev(mean_loss, argnums=tuple(range(len(values)))), argnums=tuple(range(len(values)))
    )(*values)
    rows = [
        torch.cat([b.reshape(v.numel(), -1) for b in row], 1)
        for row, v in zip(blocks, values, strict=True)
    ]
    hessian = torch.cat(rows)
    top = torch.linalg.eigvalsh((hessian + hessian.T) / 2)
    largest = top[-1] if top[-1] > -top[0] else top[0]
    assert shares.hessian.top == pytest.approx(float(largest), rel=1e-5)
    report = mtlsk.certify(model, X, MIXED, curvature=True)
    assert "regression" in report["reachable_zero"].reason
    assert "sold" in str(report)


def test_a_gramian_is_of_sparse_rows_too():
    rows = sparse.csr_matrix(np.where(np.abs(X) > 0.5, X, 0.0))
    net = make().fit(rows, Y)
    for one, other in zip(
        net.task_gramian(rows, Y, chunk=7), net.task_gramian(rows.toarray(), Y), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_a_gramian_has_no_weights_of_classes():
    y = np.where(X[:, 0] > 0, "a", "b")
    net = MultiTaskClassifier((4,), class_weight={"a": 0.0}, max_epochs=1, random_state=0).fit(X, y)
    _, losses = net.task_gramian(X, y)
    assert losses.item() == pytest.approx(log_loss(y, net.predict_proba(X)), rel=1e-5)


@pytest.mark.parametrize("label", ["c", None], ids=["a class not seen", "no label"])
def test_rows_without_a_gramian_keep_the_other_scores(label):
    y = pd.DataFrame({"turn": np.where(X[:, 0] > 0, "a", "b"), "price": Y[:, 0]})
    net = MultiTaskNet((4,), max_epochs=1, random_state=0).fit(X, y)
    strange = y.assign(turn=label)
    with pytest.warns(UserWarning, match="no Gramian of these rows"):
        scores = SCORERS(net, X, strange)
    assert np.isnan(scores["neg_h"])
    assert scores["worst_r2"] == SCORERS["worst_r2"](net, X, strange)
    with pytest.raises(ValueError, match="turn"):
        SCORERS["neg_h"](net, X, strange)


def test_scores_want_as_many_rows_as_labels():
    for name in ("worst_score", "worst_r2"):
        with pytest.raises(ValueError, match=r"\[40, 60\]"):
            SCORERS[name](make().fit(X, Y), X[:40], Y)
