"""SCORERS against the explicit float64 Jacobian, and through what may be around a net."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from torch import nn
from torch.func import functional_call, jacrev

import mtlsk
from mtlsk import SCORERS, MultiTaskRegressor
from mtlsk.estimators import r2_per_task

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
    if name == "worst_r2":
        return r2_score(y, model.predict(X), multioutput="raw_values").min()
    G, L = oracle(inner, inner_X, inner_y)
    if name == "neg_condition_number":
        return -np.linalg.cond(G)
    if name == "neg_h":
        return -np.mean(L**2)
    norms = np.sqrt(np.diag(G))
    cosine = G / norms[:, None] / norms
    return cosine[~np.eye(len(G), dtype=bool)].min()


def test_the_dict_is_what_the_readme_says():
    assert list(SCORERS) == ["worst_r2", "neg_condition_number", "neg_h", "min_cosine"]
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
            "neg_condition_number": -1.0,
            "neg_h": -(np.mean((y - net.predict(X)) ** 2) ** 2),
            "min_cosine": 1.0,
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


# ---- what they are not for


CERTIFICATES = [name for name in SCORERS if name != "worst_r2"]


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
