"""Tasks of classes, tasks of several kinds in one net, and what becomes of their labels."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from torch.func import functional_call, jacrev

from mtlsk import MultiTaskClassifier, MultiTaskNet, MultiTaskRegressor
from mtlsk.aggregators import MGDA
from mtlsk.estimators.targets import listed
from mtlsk.modules import CRITERIA

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 4))
TWO = np.where(X[:, 0] > 0, "yes", "no")
THREE = np.digitize(X[:, 1], [-0.5, 0.5])
PRICE = 2 * X[:, 2] + X[:, 0]
MIXED = pd.DataFrame({"price": PRICE, "sold": TWO, "size": THREE})
TASKS = {"size": "classification"}
QUICK = {"hidden_layer_sizes": (16,), "max_epochs": 30, "lr": 0.02, "random_state": 0}


def classifier(**params):
    return MultiTaskClassifier(**{**QUICK, **params})


def mixed(**params):
    return MultiTaskNet(**{**QUICK, "tasks": TASKS, **params})


# ---- labels of every type


CLASSES = {
    "strings": (TWO, ["no", "yes"]),
    "objects": (TWO.astype(object), ["no", "yes"]),
    "booleans": (X[:, 0] > 0, [False, True]),
    "integers": (THREE, [0, 1, 2]),
    "integers far apart": (THREE * 1000 - 7, [-7, 993, 1993]),
    "whole floats": (THREE.astype(float), [0.0, 1.0, 2.0]),
    "a list": (TWO.tolist(), ["no", "yes"]),
    "a Series": (pd.Series(TWO, name="sold"), ["no", "yes"]),
    "categories": (pd.Series(pd.Categorical(TWO)), ["no", "yes"]),
    "nullable integers": (pd.Series(THREE).astype("Int64"), [0, 1, 2]),
    "pandas strings": (pd.Series(TWO, dtype="string"), ["no", "yes"]),
    "strings of two types": ([np.str_(v) if v == "no" else v for v in TWO.tolist()], ["no", "yes"]),
    "numpy strings": (TWO.astype(np.dtypes.StringDType()), ["no", "yes"]),
}


@pytest.mark.parametrize(("y", "classes"), CLASSES.values(), ids=CLASSES.keys())
def test_labels_come_back_as_they_went_in(y, classes):
    net = classifier(max_epochs=60).fit(X, y)
    assert net.classes_.tolist() == classes
    assert type(net.classes_.tolist()[0]) is type(classes[0])
    prediction = net.predict(X)
    assert prediction.shape == (90,)
    assert np.mean(prediction == np.asarray(y)) > 0.9
    assert net.score(X, y) == np.mean(prediction == np.asarray(y))
    probability = net.predict_proba(X)
    assert probability.shape == (90, len(classes))
    np.testing.assert_allclose(probability.sum(1), 1.0, rtol=1e-12)
    assert (net.classes_[probability.argmax(1)] == prediction).all()


def test_a_date_may_be_a_class():
    days = np.where(X[:, 0] > 0, np.datetime64("2020-01-02"), np.datetime64("NaT"))
    days[:40] = np.datetime64("2020-01-01")
    net = classifier(max_epochs=1).fit(X, days)
    assert net.classes_.astype(str).tolist() == ["2020-01-01", "2020-01-02"]
    there = ~np.isnat(days)
    assert net.score(X, days) == np.mean(net.predict(X[there]) == days[there])


def test_whole_numbers_with_gaps_stay_integers():
    gaps = pd.Series(pd.Categorical([*THREE[:-1], None]))
    for y in (gaps, gaps.astype("Int64")):
        assert classifier(max_epochs=1).fit(X, y).classes_.dtype.kind == "i"


def test_booleans_and_the_integers_that_they_equal_are_the_same_classes():
    """Of numpy or, with a gap, objects."""
    yes = X[:, 0] > 0
    forms = [yes, yes.astype(int), yes.astype(float)]
    forms += [np.array([*form[:-1].tolist(), None], dtype=object) for form in forms]
    for y in forms:
        net = classifier(max_epochs=60).fit(X, y)
        for other in forms:
            assert net.score(X, other) > 0.9


def test_columns_of_classes_give_a_list_of_probabilities():
    y = np.c_[THREE, X[:, 0] > 0]
    net = classifier().fit(X, y)
    assert [c.tolist() for c in net.classes_] == [[0, 1, 2], [0, 1]]
    assert net.predict(X).dtype == y.dtype
    assert [p.shape for p in net.predict_proba(X)] == [(90, 3), (90, 2)]
    assert [task.kind for task in net.tasks_] == ["multiclass", "binary"]
    assert [task.slice for task in net.tasks_] == [slice(0, 3), slice(3, 4)]
    assert net.module_.head.out_features == 4
    assert not hasattr(net, "decision_function")
    assert net.score(X, y) == pytest.approx(np.mean(net.predict(X) == y))
    np.testing.assert_allclose(net.task_scores(X, y), (net.predict(X) == y).mean(0))


def test_a_sparse_matrix_of_labels_is_multi_label():
    y = np.c_[X[:, 0] > 0, X[:, 1] > 0].astype(int)
    net = classifier().fit(X, sparse.csr_matrix(y))
    assert np.array_equal(net.predict(X), classifier().fit(X, y).predict(X))


def test_mixed_types_of_columns_give_objects():
    y = pd.DataFrame({"sold": TWO, "size": THREE})
    prediction = classifier().fit(X, y).predict(X)
    assert prediction.dtype == object
    assert type(prediction[0, 0]) is str
    assert type(prediction[0, 1]) is int


def test_probabilities_are_those_of_the_logits():
    net = classifier().fit(X, TWO)
    logits = net.decision_function(X)
    assert logits.shape == (90,)
    np.testing.assert_allclose(net.predict_proba(X)[:, 1], 1 / (1 + np.exp(-logits)), rtol=1e-9)
    net = classifier().fit(X, THREE)
    odds = np.exp(net.decision_function(X))
    np.testing.assert_allclose(net.predict_proba(X), odds / odds.sum(1, keepdims=True), rtol=1e-9)


def test_a_tie_is_the_first_class_s():
    for y in (TWO, THREE):
        net = classifier(max_epochs=1).fit(X, y)
        with torch.no_grad():
            for parameter in net.module_.head.parameters():
                parameter.zero_()
        assert (net.predict(X) == net.classes_[net.predict_proba(X).argmax(1)]).all()
        assert (net.predict(X) == net.classes_[0]).all()


def test_probabilities_of_sure_predictions_do_not_overflow():
    net = classifier(max_epochs=1).fit(X, TWO)
    with torch.no_grad():
        net.module_.head.weight.mul_(1e6)
    probability = net.predict_proba(X)
    assert np.isfinite(probability).all()
    np.testing.assert_allclose(probability.sum(1), 1.0)


def test_a_linear_net_is_logistic_regression():
    """Without hidden layers and penalty, full batches: the maximum-likelihood estimate."""
    flipped = np.where(RNG.random(90) < 0.25, 2 - THREE, THREE)
    y = np.c_[np.where(RNG.random(90) < 0.2, TWO == "no", TWO == "yes"), flipped]
    net = classifier(
        hidden_layer_sizes=(),
        batch_size=-1,
        max_epochs=600,
        optimizer="SGD",
        optimizer__momentum=0.9,
        lr=1.0,
        dtype="float64",
    ).fit(X, y)
    for k, probability in enumerate(net.predict_proba(X)):
        oracle = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(X, y[:, k])
        np.testing.assert_allclose(probability, oracle.predict_proba(X), atol=1e-4)


# ---- tasks of several kinds


def test_mixed_tasks_come_back_as_a_frame():
    net = mixed(max_epochs=80).fit(X, MIXED)
    assert [task.kind for task in net.tasks_] == ["regression", "binary", "multiclass"]
    prediction = net.predict(pd.DataFrame(X, index=range(7, 97)))
    assert list(prediction.columns) == ["price", "sold", "size"]
    assert list(prediction.index) == list(range(7, 97))
    assert prediction["price"].dtype == np.float64
    assert prediction["size"].dtype == MIXED["size"].dtype
    assert (prediction["sold"].to_numpy() == TWO).mean() > 0.9
    nothing, two, three = net.predict_proba(X)
    assert nothing is None
    assert (two.shape, three.shape) == ((90, 2), (90, 3))
    r2 = 1 - ((PRICE - prediction["price"]) ** 2).sum() / ((PRICE - PRICE.mean()) ** 2).sum()
    wanted = [r2, (prediction["sold"] == TWO).mean(), (prediction["size"] == THREE).mean()]
    np.testing.assert_allclose(net.task_scores(X, MIXED), wanted, rtol=1e-6)
    assert net.score(X, MIXED) == pytest.approx(np.mean(wanted), rel=1e-6)


def test_kinds_are_guessed_where_they_are_plain_and_asked_for_where_not():
    net = MultiTaskNet(**QUICK)
    net.initialize_for(X, MIXED[["price", "sold"]])
    assert [task.kind for task in net.tasks_] == ["regression", "binary"]
    with pytest.raises(ValueError, match=r"task 'size' holds integers.*'regression'"):
        net.fit(X, MIXED)
    net.set_params(tasks="multiclass").initialize_for(X, MIXED[["sold", "size"]])
    assert [task.kind for task in net.tasks_] == ["multiclass", "multiclass"]
    assert net.module_.head.out_features == 5


def test_two_classes_with_two_logits_give_the_same_kind_of_answer():
    net = classifier(tasks={"sold": "multiclass"}, max_epochs=60).fit(X, MIXED[["sold"]])
    assert net.predict_proba(X)[0].shape == (90, 2)
    assert net.score(X, MIXED[["sold"]]) > 0.9


def explicit_gradients(net, y_losses):
    """Return J (K, M) over the shared parameters at the net's own, by torch.func."""
    module = net.module_
    state = dict(module.named_parameters())
    shared = {n: p for n, p in state.items() if n.startswith("trunk")}

    def losses(parameters):
        return y_losses(functional_call(module, {**state, **parameters}, (torch.tensor(X),)))

    jacobian = jacrev(losses)({n: p.detach() for n, p in shared.items()})
    return torch.cat([j.reshape(len(j), -1) for j in jacobian.values()], dim=1), losses(shared)


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("by_hand", [True, False])
def test_a_step_on_mixed_tasks_is_that_of_the_explicit_jacobian(missing, by_hand):
    """One full-batch SGD step moves the trunk by -lr J'w with w from MGDA on J J'."""
    y = MIXED.astype({"size": object}).mask(np.random.default_rng(1).random((90, 3)) < missing)
    there = torch.tensor(y.notna().to_numpy())
    sold = torch.tensor((TWO == "yes").astype(float))
    size, price = torch.tensor(THREE), torch.tensor(PRICE)
    net = mixed(
        aggregator="MGDA",
        optimizer="SGD",
        lr=0.1,
        batch_size=-1,
        max_epochs=1,
        dtype="float64",
        criterion="auto" if by_hand else {"sold": OwnCriterion()},
    )
    net.initialize_for(X, y)

    def losses(f):
        each = torch.stack(
            [
                (f[:, 0] - price) ** 2,
                torch.log1p(torch.exp(f[:, 1])) - sold * f[:, 1],
                torch.logsumexp(f[:, 2:], 1) - f[torch.arange(90), 2 + size],
            ],
            dim=1,
        )
        return torch.where(there, each, 0.0).sum(0) / there.sum(0)

    J, L = explicit_gradients(net, losses)
    G, got = net.task_gramian(X, y)
    torch.testing.assert_close(G, J @ J.T, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(got, L.detach(), rtol=1e-12, atol=0)
    before = torch.cat([p.detach().reshape(-1) for p in net.module_.shared_parameters()])
    net.set_params(warm_start=True).fit(X, y)
    after = torch.cat([p.detach().reshape(-1) for p in net.module_.shared_parameters()])
    weights = MGDA().task_weights(J @ J.T, L.detach())
    torch.testing.assert_close(before - after, 0.1 * (J.T @ weights), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(net.history_[-1, "train_losses"], L.detach(), rtol=1e-9)


class OwnCriterion:
    """The binary log-loss as a callable that the library does not know."""

    def __call__(self, prediction, label):
        assert prediction.shape == (len(label), 1)
        return CRITERIA["binary"]["log_loss"](prediction, label)


@pytest.mark.parametrize("one_label", [False, True])
def test_engines_agree_on_columns_of_several_widths(one_label):
    """Rows with one label each take a route of their own."""
    y = MIXED.astype({"size": object})
    if one_label:
        y = y.where(np.arange(3) == np.arange(90)[:, None] % 3)
    after = []
    for module in (None, "opaque"):
        net = mixed(aggregator="CAGrad", max_epochs=2, dtype="float64")
        if module:
            net.set_params(callbacks=[("hook", None)], module=Opaque, hidden_layer_sizes=(64, 64))
        net.fit(X, y)
        after.append(net.module_.state_dict())
    for name, value in after[0].items():
        torch.testing.assert_close(after[1]["inner." + name], value, rtol=1e-7, atol=1e-9)


class Opaque(torch.nn.Module):
    """HardSharing with a hook: no route by hand is taken."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        from mtlsk.modules import HardSharing

        self.inner = HardSharing(n_features, n_outputs, (16,))
        self.inner.head.register_full_backward_hook(lambda module, inputs, outputs: None)

    def forward(self, X):
        return self.inner(X)

    def shared_parameters(self):
        return self.inner.shared_parameters()

    def task_parameters(self, k):
        return self.inner.task_parameters(k)


# ---- criteria by task


def test_criteria_by_task():
    seen = []

    def own(prediction, label):
        seen.append((tuple(prediction.shape), label.dtype))
        return torch.nn.functional.cross_entropy(prediction, label, reduction="none")

    net = mixed(criterion={"price": "absolute_error", "size": own}, max_epochs=1).fit(X, MIXED)
    assert [task.criterion.__name__ for task in net.tasks_] == [
        "absolute_error",
        "binary_log_loss",
        "own",
    ]
    assert seen[0] == ((64, 3), torch.int64)
    regressions = MIXED[["price", "price"]].set_axis(["a", "b"], axis=1)
    params = {"criterion": {"b": "absolute_error"}, "lr": 0.0, "max_epochs": 1}
    net = mixed(**params, tasks="regression").fit(X, regressions)
    residual = (regressions - net.predict(X)).to_numpy()
    wanted = [(residual[:, 0] ** 2).mean(), np.abs(residual[:, 1]).mean()]
    np.testing.assert_allclose(net.history_[-1, "train_losses"], wanted, rtol=1e-5)
    named = mixed(criterion="huber", max_epochs=1).fit(X, MIXED)
    assert named.tasks_[0].criterion.__name__ == "huber"


MISSING_LABELS = {
    "strings in a list": ([np.nan, *TWO[1:].tolist()], ["no", "yes"]),
    "integers of two types": ([None, np.int8(THREE[1]), *THREE[2:].tolist()], [0, 1, 2]),
    "integers and floats": ([None, 1.0, *THREE[2:].tolist()], [0, 1, 2]),
    "booleans of two types": ([None, np.True_, *(X[2:, 0] > 0).tolist()], [False, True]),
}


@pytest.mark.parametrize(
    ("y", "classes"), MISSING_LABELS.values(), ids=list(map(str, MISSING_LABELS))
)
@pytest.mark.parametrize("make", [list, lambda y: np.array(y, dtype=object)])
def test_a_missing_label_is_no_class(y, classes, make):
    assert classifier(max_epochs=1).fit(X, make(y)).classes_.tolist() == classes


def test_numbers_beside_text_in_a_list_stay_numbers():
    net = mixed(tasks=None, max_epochs=1).fit(X, list(zip(TWO, PRICE, strict=True)))
    assert [task.kind for task in net.tasks_] == ["binary", "regression"]


@pytest.mark.parametrize("labels", [[0, 1], [0.0, 1.0], [False, True]], ids=str)
@pytest.mark.parametrize("score_labels", [[0, 1], [0.0, 1.0], [False, True]], ids=str)
@pytest.mark.parametrize("hole", [False, True])
def test_true_is_one(labels, score_labels, hole):
    net = classifier(max_epochs=2).fit(X, np.array(labels)[(X[:, 0] > 0).astype(int)])
    y = [score_labels[int(v)] for v in X[:, 0] > 0]
    rows = slice(1, None) if hole else slice(None)
    expected = np.mean((net.predict(X) == (X[:, 0] > 0))[rows])
    assert net.score(X, [None, *y[1:]] if hole else y) == pytest.approx(expected)


@pytest.mark.parametrize("hole", [False, True])
def test_kinds_are_guessed_alike_with_missing_labels(hole):
    price = pd.array(PRICE, dtype="Float64")
    size = pd.array(THREE, dtype="Int64")
    if hole:
        price[0] = size[0] = pd.NA
    net = mixed(tasks=None, max_epochs=1).fit(X, pd.DataFrame({"p": price, "q": PRICE}))
    assert [task.kind for task in net.tasks_] == ["regression"] * 2
    with pytest.raises(ValueError, match="'size' holds integers"):
        mixed(tasks=None).fit(X, pd.DataFrame({"size": size}))


def test_columns_may_be_named_by_numbers():
    y = pd.DataFrame({0: PRICE, 1: THREE})
    words = {"criterion": {0: "huber"}, "class_weight": {1: "balanced"}}
    net = mixed(tasks={0: "regression", 1: "classification"}, **words, max_epochs=1).fit(X, y)
    assert [task.kind for task in net.tasks_] == ["regression", "multiclass"]
    assert net.tasks_[0].criterion is CRITERIA["regression"]["huber"]


def test_columns_in_another_order_are_refused():
    net = mixed(max_epochs=1).fit(X, MIXED)
    swapped = MIXED[["sold", "size", "price"]]
    for act in (net.score, net.partial_fit, net.task_gramian):
        with pytest.raises(ValueError, match=r"give y\[\['price', 'sold', 'size'\]\]"):
            act(X, swapped)
    assert net.score(X, MIXED.rename(columns={"size": "other"})) == net.score(X, MIXED)


def test_two_logits_make_one_decision():
    net = classifier(tasks="multiclass", max_epochs=2).fit(X, TWO)
    probability = net.predict_proba(X)
    expected = np.log(probability[:, 1] / probability[:, 0])
    np.testing.assert_allclose(net.decision_function(X), expected, atol=1e-6)


# ---- parameters set on a fitted net


def test_another_dtype_waits_for_the_next_fit():
    net = classifier(max_epochs=2).fit(X, TWO)
    before = net.predict_proba(X)
    net.set_params(dtype="float64")
    np.testing.assert_array_equal(net.predict_proba(X), before)
    net.partial_fit(X, TWO, sample_weight=np.arange(90) + 1.0)
    assert net.module_.head.weight.dtype == torch.float32
    net.fit(X, TWO)
    assert net.module_.head.weight.dtype == torch.float64


def test_another_criterion_acts_in_the_next_epoch():
    net = mixed(max_epochs=2).fit(X, MIXED)
    other = mixed(max_epochs=2).fit(X, MIXED).set_params(criterion={"price": "absolute_error"})
    net.partial_fit(X, MIXED)
    other.partial_fit(X, MIXED)
    assert other.history_[-1, "train_losses"][0] != net.history_[-1, "train_losses"][0]
    before = other.predict(X)
    with pytest.raises(ValueError, match="'hinge' is not allowed"):
        other.set_params(criterion="hinge").partial_fit(X, MIXED)
    pd.testing.assert_frame_equal(other.predict(X), before)


# ---- labels that a fit did not see


def test_a_class_that_was_not_there_is_a_wrong_prediction_but_cannot_be_learned():
    net = mixed().fit(X, MIXED)
    strange = MIXED.copy()
    strange.loc[1, "sold"] = "perhaps"
    right = (net.predict(X)["sold"] == TWO).to_numpy().copy()
    right[1] = False
    assert net.task_scores(X, strange)[1] == pytest.approx(right.mean())
    before = net.predict(X)
    for act in (net.partial_fit, net.task_gramian):
        with pytest.raises(ValueError, match=r"class 'perhaps' of task 'sold'.*'no', 'yes'"):
            act(X, strange)
    pd.testing.assert_frame_equal(net.predict(X), before)


def test_classes_of_a_stream_are_named_in_the_first_call():
    net = classifier()
    net.partial_fit(X[:5], ["a"] * 5, classes=["c", "a", "b"])
    assert net.classes_.tolist() == ["a", "b", "c"]
    net.partial_fit(X[:3], ["c", "b", "a"], classes=["a", "b", "c"])
    assert net.predict_proba(X).shape == (90, 3)
    with pytest.raises(ValueError, match="not the same as on last call"):
        net.partial_fit(X[:3], ["c", "b", "a"], classes=["a", "b"])
    two = classifier().partial_fit(
        X[:4], np.c_[[0, 1, 0, 1], [1, 1, 1, 1]], classes=[[0, 1], [0, 1, 2]]
    )
    assert [len(c) for c in two.classes_] == [2, 3]
    two.partial_fit(X[:4], np.ones((4, 2)), classes=[[1, 0], [2, 0, 1]])
    classes = [["no", "yes"], [0, 1, 2]]
    several = mixed().partial_fit(X, MIXED, classes=[None, *classes])
    with pytest.raises(ValueError, match="not the same as on last call"):
        several.partial_fit(X, MIXED, classes=[[0, 1], *classes])
    with pytest.raises(ValueError, match=r"not allowed for 2 tasks"):
        classifier().partial_fit(X[:4], np.ones((4, 2)), classes=[[0, 1]])


def test_a_task_of_one_class_says_so_and_is_predicted():
    with pytest.warns(UserWarning, match=r"task 'sold' has one class only, 'no'"):
        net = mixed(aggregator="MGDA", max_epochs=2).fit(X, MIXED.assign(sold="no"))
    assert (net.predict(X)["sold"] == "no").all()
    assert net.predict_proba(X)[1].shape == (90, 1)


def test_parameters_set_on_a_fitted_net_act_when_they_can():
    net = mixed().fit(X, MIXED)
    net.set_params(criterion={"price": "huber"}).partial_fit(X, MIXED)
    assert net.tasks_[0].criterion.__name__ == "huber"
    with pytest.raises(ValueError, match="'prise'"):
        net.set_params(criterion={"prise": "huber"})
    assert net.tasks_[0].criterion.__name__ == "huber"
    # the kinds of task and the precision are those of the fit until the next one
    net.set_params(dtype="float64", tasks={"size": "regression"})
    before = net.predict(X)
    assert net.partial_fit(X, MIXED).module_.head.weight.dtype == torch.float32
    assert before["size"].dtype == MIXED["size"].dtype
    net.fit(X, MIXED)
    assert net.module_.head.weight.dtype == torch.float64
    assert net.tasks_[2].kind == "regression"


# ---- missing labels


@pytest.mark.parametrize("aggregator", ["LinearScalarization", "MGDA", "FAMO"])
def test_missing_labels_drop_out(aggregator):
    y = MIXED.astype({"size": object}).mask(np.random.default_rng(2).random((90, 3)) < 0.3)
    y["sold"] = y["sold"].where(y["sold"].notna(), None)
    net = mixed(aggregator=aggregator, max_epochs=60).fit(X, y)
    assert [len(c) if c is not None else None for c in net.classes_] == [None, 2, 3]
    assert net.task_scores(X, MIXED)[1:].min() > 0.8
    labelled = y["sold"].notna().to_numpy()
    hits = (net.predict(X)["sold"].to_numpy() == TWO)[labelled]
    assert net.task_scores(X, y)[1] == pytest.approx(hits.mean())


def test_missing_labels_are_like_rows_that_only_the_others_have():
    """A net without a trunk: tasks share nothing, so each must be as if trained alone."""
    y = MIXED.astype({"size": object}).where(np.arange(3) == np.arange(90)[:, None] % 3)
    params = {"hidden_layer_sizes": (), "batch_size": -1, "dtype": "float64", "max_epochs": 40}
    params |= {"optimizer": "SGD", "lr": 0.1}
    together = mixed(**params).fit(X, y)
    for k, task in enumerate(together.tasks_):
        rows = np.arange(90) % 3 == k
        alone = MultiTaskNet(tasks={task.name: task.kind}, **{**QUICK, **params, "lr": 0.1 / 3})
        alone.initialize_for(X[rows], MIXED.loc[rows, [task.name]])
        with torch.no_grad():
            start = mixed(**params).initialize_for(X, y).module_.head
            alone.module_.head.weight.copy_(start.weight[task.slice])
            alone.module_.head.bias.copy_(start.bias[task.slice])
        alone.set_params(warm_start=True).fit(X[rows], MIXED.loc[rows, [task.name]])
        torch.testing.assert_close(
            together.module_.head.weight[task.slice], alone.module_.head.weight, rtol=1e-9, atol=0
        )


def test_a_regressor_and_a_net_of_regressions_are_the_same_net():
    y = np.c_[PRICE, X[:, 1]]
    one = MultiTaskRegressor(**QUICK).fit(X, y)
    other = MultiTaskNet(**QUICK).fit(X, y)
    assert np.array_equal(one.predict(X), other.predict(X))
    assert one.score(X, y) == other.score(X, y)


# ---- errors


ERRORS = {
    "numbers as classes": (lambda: classifier().fit(X, PRICE), "Unknown label type: continuous"),
    "mixed types": (
        lambda: classifier().fit(X, np.array(["a", 1] * 45, dtype=object)),
        "Unknown label type: mixed types",
    ),
    "infinity": (lambda: classifier().fit(X, np.where(X[:, 0] > 0, np.inf, 0)), "infinity"),
    "too large to be whole": (
        lambda: classifier().fit(X, np.where(X[:, 0] > 0, 2.0**60, 0)),
        "Unknown label type: continuous",
    ),
    "only missing": (lambda: classifier().fit(X, np.full(90, np.nan)), "no label at all"),
    "no columns": (
        lambda: classifier().fit(X, pd.DataFrame(index=range(90))),
        r"\(n_samples, K\), got \(90, 0\)",
    ),
    "another name": (lambda: mixed(tasks={"sise": "binary"}).fit(X, MIXED), "did you mean 'size'"),
    "another kind": (lambda: mixed(tasks={"size": "clas"}).fit(X, MIXED), "'clas' is no kind"),
    "no kind": (lambda: mixed(tasks=3).fit(X, MIXED), "tasks=3 is not allowed"),
    "too many classes": (lambda: mixed(tasks={"size": "binary"}).fit(X, MIXED), "has 3 classes"),
    "a regression here": (
        lambda: classifier(tasks={"y": "regression"}).fit(X, TWO),
        "MultiTaskNet",
    ),
    "classes there": (
        lambda: MultiTaskRegressor(tasks="binary").fit(X, PRICE),
        "use MultiTaskNet",
    ),
    "text as numbers": (lambda: mixed(tasks="regression").fit(X, MIXED), "'yes'|'no'"),
    "names twice": (
        lambda: classifier().fit(X, pd.DataFrame(np.c_[THREE, THREE], columns=["a", "a"])),
        "two columns of y are named 'a'",
    ),
    "criterion": (lambda: mixed(criterion="hinge").fit(X, MIXED), "'hinge' is not allowed"),
    "criterion of a task": (
        lambda: mixed(criterion={"sold": "huber"}).fit(X, MIXED),
        r"'huber' is not allowed for task 'sold' \(binary\)",
    ),
    "criterion of no task": (lambda: mixed(criterion={"prise": "huber"}).fit(X, MIXED), "'price'"),
    "criterion that reduces": (
        lambda: mixed(criterion={"price": lambda f, y: (f[:, 0] - y).pow(2).mean()}).fit(X, MIXED),
        r"task 'price' returned shape \(\)",
    ),
    "a missing class": (
        lambda: classifier().partial_fit(X, THREE, classes=[0, 1, 2, np.nan]),
        "none of them missing",
    ),
    "no class": (lambda: classifier().partial_fit(X, THREE, classes=[]), "array of all its cl"),
    "one class, no list": (lambda: classifier().partial_fit(X, THREE, classes=3), "classes=3"),
    "classes of any number": (
        lambda: classifier().partial_fit(X, THREE, classes=[0, 1, 2, 2.5]),
        "Unknown label type: continuous",
    ),
    "classes of two types": (
        lambda: classifier().partial_fit(X, TWO, classes=["yes", "no", 3]),
        "Unknown label type: mixed types",
    ),
    "classes by name": (
        lambda: mixed().partial_fit(X, MIXED, classes={"sold": ["yes", "no"]}),
        "not allowed for 3 tasks",
    ),
    "classes of a regression": (
        lambda: mixed().partial_fit(X, MIXED, classes=[[1, 2], ["yes", "no"], [0, 1, 2]]),
        "'price' is a regression",
    ),
    "times": (
        lambda: mixed(tasks=None).fit(X, pd.DataFrame({"t": pd.to_datetime(THREE)})),
        "'t' holds times",
    ),
    "rows to score": (lambda: classifier().fit(X, TWO).score(X[:40], TWO), r"\[40, 90\]"),
    "one criterion that reduces": (
        lambda: classifier(criterion=lambda f, y: (f[:, 0] - y).mean()).fit(X, np.c_[TWO, TWO]),
        r"losses have shape \(\) for labels of shape \(64, 2\)",
    ),
    "dtype": (lambda: mixed(dtype="float16").fit(X, MIXED), "'float32' or 'float64'"),
}


@pytest.mark.parametrize(("act", "message"), ERRORS.values(), ids=ERRORS.keys())
def test_errors_are_one_clear_line(act, message):
    with pytest.raises(ValueError, match=message) as caught:
        act()
    assert "\n" not in str(caught.value)


def test_messages_name_ten_classes():
    assert listed(np.arange(10)).endswith("8, 9")
    assert listed(np.arange(11)).endswith("8, 9, ... (11)")
