"""certify on fitted nets, alone and in what may be around them, and its report."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mtlsk import SCORERS, ConflictLog, MultiTaskRegressor, certify
from mtlsk.certificates import GRAM_CERTIFICATES, gram_certificates
from mtlsk.curvature import hessian_shares, moment_correlation, reachable_zero

RNG = np.random.default_rng(2)
X = RNG.normal(size=(60, 4))
Y = np.c_[X @ [1.0, -1.0, 0.5, 0.0], X[:, 0] ** 2 - X[:, 1], np.sin(2 * X[:, 1])]
FRAME = pd.DataFrame(Y, columns=["price", "demand", "<b>stock</b>"])


def make(**params):
    small = {"hidden_layer_sizes": (6,), "max_epochs": 3, "lr": 0.01, "random_state": 0}
    return MultiTaskRegressor(**{**small, "activation": "tanh", **params})


def test_values_are_those_of_the_functions():
    net = make().fit(X, Y)
    report = certify(net, X, Y)
    G, L = net.task_gramian(X, Y)
    wanted = {c.name: c for c in gram_certificates(G, L, rounding=1e-5)}
    assert {c.name: c for c in report.certificates} == wanted
    assert [c.name for c in report.certificates] == list(GRAM_CERTIFICATES)
    np.testing.assert_allclose(report.tasks["loss"], L)
    np.testing.assert_allclose(report.tasks["gradient_norm"] ** 2, G.diagonal())
    np.testing.assert_allclose(report.tasks["min_norm_weight"].sum(), 1)
    assert report["min_cosine"].value == pytest.approx(SCORERS["min_cosine"](net, X, Y))
    np.testing.assert_allclose(np.diag(report.cosines), 1)
    g0 = G.numpy().mean(1) / np.sqrt(G.numpy().mean() * np.diag(G))
    np.testing.assert_allclose(report.tasks["cosine_with_mean"], g0)


def test_beta_gives_the_self_bounding_step():
    net = make().fit(X, Y)
    assert not certify(net, X, Y)["self_bounding_step"].applicable
    value = certify(net, X, Y, beta=4.0)["self_bounding_step"].value
    assert value == pytest.approx(1 / (36 * math.sqrt(certify(net, X, Y)["h"].value)))


def wrapped():
    """Return (name, estimator fitted on X and FRAME, its net, X and y as the net sees them)."""
    scaled = StandardScaler().fit_transform(X)
    pipeline = make_pipeline(StandardScaler(), make()).fit(X, FRAME)
    yield "pipeline", pipeline, pipeline[-1], scaled, Y
    target = TransformedTargetRegressor(make(), transformer=StandardScaler()).fit(X, FRAME)
    yield "target", target, target.regressor_, X, StandardScaler().fit_transform(Y)
    search = GridSearchCV(make(), {"lr": [0.01]}, cv=KFold(2)).fit(X, FRAME)
    yield "search", search, search.best_estimator_, X, Y


@pytest.mark.parametrize("case", list(wrapped()), ids=lambda case: case[0])
def test_it_goes_through_what_is_around_a_net(case):
    _, model, net, inner_X, inner_y = case
    report, inner = certify(model, X, FRAME), certify(net, inner_X, inner_y)
    assert list(report.tasks.index) == list(FRAME.columns)  # a transformed target loses them
    for a, b in zip(report.certificates, inner.certificates, strict=True):
        assert a.applicable == b.applicable
        if a.applicable:
            assert a.value == pytest.approx(b.value, rel=1e-4)


def test_names_are_the_training_s_where_y_has_none():
    net = make().fit(X, FRAME)
    assert list(certify(net, X, Y).tasks.index) == list(FRAME.columns)
    assert list(certify(make().fit(X, Y), X, Y).tasks.index) == ["y0", "y1", "y2"]


def test_missing_labels():
    y = Y.copy()
    y[:35, 0] = np.nan
    y[::3, 2] = np.nan
    report = certify(make().fit(X, y), X, y)
    assert report.tasks["labelled"].tolist() == [25, 60, 40]
    assert "'y0' 25, 'y2' 40" in report.findings[0].sentence
    assert "nan" not in str(report).lower()


@pytest.mark.parametrize("y", [Y[:, 0], Y[:, :1]], ids=["1d", "2d"])
def test_one_task(y):
    report = certify(make().fit(X, y), X, y, curvature=True)
    assert [f.topic for f in report.findings] == ["measured", "conflict"]
    assert str(report).startswith("Certificates of 1 task on 60 rows")
    assert report["condition_number"].value == 1


def test_forty_tasks():
    y = X @ RNG.normal(size=(4, 40)) * 10 ** RNG.uniform(-2, 2, 40)
    report = certify(make(lr=1e-4).fit(X, y), X, y)
    assert len(report.tasks) == 40
    text = str(report)
    assert "... and 20 more in report.tasks" in text
    assert "nan" not in text.lower()


def test_a_net_without_shared_parameters():
    report = certify(make(hidden_layer_sizes=()).fit(X, Y), X, Y, curvature=True)
    assert "share no parameters" in report.findings[1].sentence
    assert not report["condition_number"].applicable
    assert report["residual_share_mean_loss"].value == pytest.approx(0, abs=1e-10)


def test_a_task_with_a_zero_gradient():
    net = make().fit(X, Y)
    net.module_.head.weight.data[1] = 0
    report = certify(net, X, Y)
    assert report.tasks["gradient_norm"].iloc[1] == 0
    assert any("'y1' is zero" in f.sentence for f in report.findings)
    assert not report["pl_bound"].applicable
    assert report["condition_number"].applicable
    assert "nan" not in str(report).lower()


def test_task_scale_is_that_in_force():
    net = make(task_scale=[4.0, 1.0, 1.0]).fit(X, Y)
    report = certify(net, X, Y)
    G = net.task_gramian(X, Y)[0].numpy() * np.outer([4, 1, 1], [4, 1, 1])
    np.testing.assert_allclose(
        report.tasks["cosine_with_mean"], G.mean(1) / np.sqrt(G.mean() * np.diag(G))
    )
    assert report["h"].value == pytest.approx(-SCORERS["neg_h"](net, X, Y))  # not scaled
    assert "task_scale applied" in report.findings[0].sentence


def test_since_when_is_read_from_the_history():
    y = np.c_[Y[:, 0], -Y[:, 0] + 0.1 * Y[:, 2]]
    net = make(max_epochs=4).fit(X, y)
    # one unit that both tasks read alike: their gradients are opposed
    net.module_.head.weight.data[1] = net.module_.head.weight.data[0]
    net.module_.head.bias.data[1] = net.module_.head.bias.data[0]
    for row, cosine in zip(net.history_, (0.5, 0.2, -0.4, -0.5), strict=True):
        row["cosines"] = [[1.0, cosine], [cosine, 1.0]]
    sentences = {f.topic: f.sentence for f in certify(net, X, y).findings}
    assert "(in training since epoch 3)" in sentences["conflict"]


def test_curvature_only_where_asked_for(monkeypatch):
    net = make().fit(X, Y)

    def refuse(*args, **kwargs):
        raise AssertionError("not asked for")

    for name in ("hessian_shares", "moment_correlation", "reachable_zero"):
        monkeypatch.setitem(certify.__globals__, name, refuse)
    certify(net, X, Y)
    with pytest.raises(AssertionError, match="not asked for"):
        certify(net, X, Y, curvature=True)


def test_curvature_is_that_of_the_functions():
    net = make().fit(X, Y)
    x, y = X[:4], Y[:4]
    report = certify(net, x, y, curvature=True, lipschitz="estimated")
    shares = hessian_shares(net, x, y)
    assert report["residual_share_mean_loss"].value == pytest.approx(shares.residual_share)
    assert report["curvature_mean_loss"].value == pytest.approx(shares.hessian.top)
    shares = hessian_shares(net, x, y, objective="h")
    assert report["residual_share_h"].value == pytest.approx(shares.residual_share)
    assert report["moment_correlation"].value == pytest.approx(moment_correlation(net, x, y)[0])
    assert report["reachable_zero"] == reachable_zero(net, x, y, lipschitz="estimated")
    assert report["reachable_zero"].estimated
    without = certify(make(optimizer="SGD").fit(X, Y), x, y, curvature=True)
    assert "SGD keeps no second moment" in without["moment_correlation"].reason


# ---- the report


def test_the_text_fits_100_columns():
    report = certify(make().fit(X, FRAME), X, FRAME, curvature=True)
    text = str(report)
    assert max(map(len, text.splitlines())) <= 100
    for certificate in report.certificates:
        assert certificate.name in text
    for finding in report.findings:
        assert finding.sentence.split()[0] in text
    assert "not applicable: beta" in text
    long = FRAME.rename(columns={"price": "a name\nof " + 100 * "x"})
    assert max(map(len, str(certify(make().fit(X, long), X, long)).splitlines())) <= 100


def test_the_frame_has_a_row_a_certificate():
    report = certify(make().fit(X, Y), X, Y)
    frame = report.to_frame()
    assert list(frame.index) == [c.name for c in report.certificates]
    assert frame.loc["self_bounding_step", "value"] is None
    assert not frame.loc["self_bounding_step", "applicable"]
    assert frame.loc["h", "value"] == report["h"].value
    assert frame.loc["pl_bound", "phi"] == "task losses"
    json.dumps(frame.to_dict("index"), allow_nan=False)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen = [], set()

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_is_well_formed_and_escapes_names():
    page = certify(make().fit(X, FRAME), X, FRAME, curvature=True)._repr_html_()
    parser = Tags()
    parser.feed(page)
    assert parser.open == []
    assert parser.seen <= {"div", "p", "b", "ul", "li", "table", "thead", "tbody", "tr", "td", "th"}
    assert "<b>stock</b>" not in page
    assert page.count("&lt;b&gt;stock&lt;/b&gt;") >= 1
    assert "Phi: task losses" in page
    assert "nan" not in re.sub("<[^>]*>", " ", page).lower().split()


def test_an_unknown_name_is_answered():
    report = certify(make().fit(X, Y), X, Y)
    with pytest.raises(KeyError, match="did you mean 'pl_bound'"):
        report["pl_bond"]


# ---- what it is not for


def test_others_are_refused_by_name():
    with pytest.raises(TypeError, match="Ridge holds no mtlsk net"):
        certify(Ridge().fit(X, Y), X, Y)
    with pytest.raises(NotFittedError):
        certify(make(), X, Y)
    net = make().fit(X, Y)
    with pytest.raises(ValueError, match="2 tasks"):
        certify(net, X, Y[:, :2])
    net.module_.head.weight.data[:] = math.nan
    with pytest.raises(ValueError, match="diverged"):
        certify(net, X, Y)


def test_looking_changes_nothing():
    looked, blind = make().fit(X, Y), make().fit(X, Y)
    certify(looked, X, Y, curvature=True)
    assert np.array_equal(looked.partial_fit(X, Y).predict(X), blind.partial_fit(X, Y).predict(X))


@pytest.mark.parametrize("logged", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 8])
def test_since_when_tasks_conflict_is_read_from_the_training_s_own_record(seed, logged):
    y = pd.DataFrame({"up": Y[:, 0], "down": Y[:, 1]})
    aggregator = "LinearScalarization" if logged else "ConicGrad"
    callbacks = [ConflictLog()] if logged else None
    params = {"hidden_layer_sizes": (3,), "max_epochs": 12, "lr": 0.02, "random_state": seed}
    net = MultiTaskRegressor(aggregator=aggregator, callbacks=callbacks, **params).fit(X, y)
    report = certify(net, X, y)
    column = "logged_cosines" if logged else "cosines"
    below = [matrix[0][1] < -0.1 for matrix in net.history_[:, column]]
    assert below[-1]
    first = 12 - below[::-1].index(False) + 1 if False in below else 1
    sentence = next(f.sentence for f in report.findings if f.topic == "conflict")
    assert ("from the first epoch" if first == 1 else f"since epoch {first})") in sentence
    assert not [f for f in report.findings if f.topic == "record"]
