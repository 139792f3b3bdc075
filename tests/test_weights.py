"""Weights of rows, of labels and of classes."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.utils import compute_sample_weight
from skorch.callbacks import Callback, EpochScoring
from skorch.dataset import ValidSplit

from mtlsk import MultiTaskClassifier, MultiTaskNet, MultiTaskRegressor
from mtlsk.estimators.weights import check_sample_weight, label_weights
from mtlsk.modules import Task

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 3))
Y = np.c_[X @ [1.0, -1.0, 0.5], X[:, 0] ** 2]
COUNTS = RNG.integers(0, 4, 50)
WHOLE = {
    "hidden_layer_sizes": (8,),
    "aggregator": "MGDA",
    "batch_size": -1,
    "max_epochs": 20,
    "dtype": "float64",
    "random_state": 0,
}


def regressor(**params):
    return MultiTaskRegressor(**{**WHOLE, **params})


def same(one, other, rtol=1e-8):
    np.testing.assert_allclose(one.predict(X), other.predict(X), rtol=rtol, atol=1e-10)


# ---- rows


def test_weights_are_repetitions():
    repeated = regressor().fit(X.repeat(COUNTS, axis=0), Y.repeat(COUNTS, axis=0))
    same(regressor().fit(X, Y, sample_weight=COUNTS), repeated)


def test_only_ratios_matter_and_equal_weights_are_none():
    plain = regressor().fit(X, Y)
    assert np.array_equal(
        regressor().fit(X, Y, sample_weight=np.full(50, 3)).predict(X), plain.predict(X)
    )
    assert np.array_equal(regressor().fit(X, Y, sample_weight=2.0).predict(X), plain.predict(X))
    weights = RNG.uniform(0.5, 2, 50)
    same(regressor().fit(X, Y, weights), regressor().fit(X, Y, 10 * weights))


def test_a_weight_a_label():
    """Column k of (n, K) weights acts on task k alone: with 0 a label is as if missing."""
    weights = np.c_[np.ones(50), COUNTS]
    gone = Y.copy()
    gone[COUNTS == 0, 1] = np.nan
    zeros = regressor().fit(X, Y, sample_weight=np.c_[np.ones(50), COUNTS > 0])
    assert np.array_equal(zeros.predict(X), regressor().fit(X, gone).predict(X))
    net = regressor(hidden_layer_sizes=(), aggregator="LinearScalarization").fit(X, Y, weights)
    rows = np.repeat(np.arange(50), COUNTS)
    alone = regressor(hidden_layer_sizes=(), aggregator="LinearScalarization", lr=3e-3)
    # Adam does not see the factor 1/K of a task's own gradient, but for eps
    alone.initialize_for(X[rows], Y[rows, 1:])
    start = regressor(hidden_layer_sizes=()).initialize_for(X, Y).module_.head
    with torch.no_grad():
        alone.module_.head.weight.copy_(start.weight[1:])
        alone.module_.head.bias.copy_(start.bias[1:])
    alone.set_params(warm_start=True).fit(X[rows], Y[rows, 1:])
    torch.testing.assert_close(
        net.module_.head.weight[1:], alone.module_.head.weight, rtol=1e-5, atol=0
    )


def test_the_loss_of_the_history_is_the_weighted_mean():
    weights = RNG.uniform(0, 2, (50, 2))
    net = regressor(lr=0.0, max_epochs=1, batch_size=16).fit(X, Y, weights)
    wanted = np.average((Y - net.predict(X)) ** 2, axis=0, weights=weights)
    np.testing.assert_allclose(net.history_[-1, "train_losses"], wanted, rtol=1e-9)


def test_batches_of_heavy_rows_count_for_more():
    """One row a batch: weights must not cancel in each batch."""
    heavy = np.where(np.arange(50) < 25, 10.0, 0.1)
    params = {"batch_size": 1, "max_epochs": 3, "optimizer": "SGD", "lr": 1e-6}
    params |= {"iterator_train__shuffle": False, "aggregator": "LinearScalarization"}
    net = regressor(**params).fit(X, Y, heavy)
    start = regressor(**params).initialize_for(X, Y)
    moved = torch.cat([p.reshape(-1) for p in net.module_.parameters()])
    moved = moved - torch.cat([p.reshape(-1) for p in start.module_.parameters()])
    gradient = torch.zeros_like(moved)
    share = torch.tensor(heavy / heavy.mean())
    loss = ((start.module_(torch.tensor(X)) - torch.tensor(Y)) ** 2).mean(1) @ share
    loss.backward()
    gradient = torch.cat([p.grad.reshape(-1) for p in start.module_.parameters()])
    torch.testing.assert_close(moved.detach(), -3e-6 * gradient, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("engine", ["exact", "budget", "online", "features"])
def test_engines_see_the_weights(engine):
    """With weights 0 and 1 every engine does what it does without the rows."""
    keep = np.arange(50) % 2 == 0
    params = {"gramian": engine, "batch_size": -1}
    zeros = regressor(**params).fit(X, Y, keep.astype(float))
    same(zeros, regressor(**params).fit(X[keep], Y[keep]))
    doubled = np.where(np.arange(50) < 10, 3.0, 1.0)
    a, b = regressor(**params).fit(X, Y, doubled), regressor(**params).fit(X, Y)
    assert not np.allclose(a.predict(X), b.predict(X))


def test_online_takes_the_weights_into_its_second_look():
    module = {"hidden_layer_sizes": (64, 64), "module": Unread, "gramian": "online"}
    weights = RNG.uniform(0.2, 3, 50)
    one = regressor(**module, max_epochs=3).fit(X, Y, weights)
    read = regressor(gramian="online", hidden_layer_sizes=(8,), max_epochs=3)
    read.initialize_for(X, Y)
    read.module_.load_state_dict(
        {n.removeprefix("inner."): v for n, v in one_start(module).items()}
    )
    read.set_params(warm_start=True).fit(X, Y, weights)
    same(one, read, rtol=1e-3)


def one_start(module):
    return regressor(**module, max_epochs=3).initialize_for(X, Y).module_.state_dict()


class Unread(torch.nn.Module):
    """HardSharing with a hook: no route by hand is taken, the online engine looks again."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        from mtlsk.modules import HardSharing

        self.inner = HardSharing(n_features, n_outputs, (8,))
        self.inner.head.register_full_backward_hook(lambda module, inputs, outputs: None)

    def forward(self, X):
        return self.inner(X)

    def shared_parameters(self):
        return self.inner.shared_parameters()

    def task_parameters(self, k):
        return self.inner.task_parameters(k)


def test_loaders_of_torch_and_validation_parts_bring_the_weights_too():
    weights = RNG.uniform(0.2, 3, 50)
    sliced = regressor().fit(X, Y, weights)
    loader = regressor(iterator_train=torch.utils.data.DataLoader).fit(X, Y, weights)
    same(sliced, loader)
    split = ValidSplit(5)
    net = regressor(train_split=split, max_epochs=2, lr=0.0).fit(X, Y, weights)
    valid = slice(0, 10)  # the first of five folds
    wanted = np.average((Y - net.predict(X))[valid] ** 2, axis=0, weights=weights[valid])
    shares = weights[valid].sum() / 10 / weights.mean()  # normalised over all rows
    np.testing.assert_allclose(net.history_[-1, "valid_losses"], wanted * shares, rtol=1e-9)


def test_callbacks_see_labels_and_not_weights():
    seen = []

    class Look(Callback):
        def on_batch_begin(self, net, batch, training, **kwargs):
            seen.append(batch[1].shape)

        def on_train_begin(self, net, X, y, **kwargs):
            seen.append(y.shape)

    scoring = EpochScoring("r2", on_train=True)
    net = regressor(callbacks=[Look(), scoring], max_epochs=1).fit(X, Y, RNG.uniform(1, 2, 50))
    assert [tuple(shape) for shape in seen] == [(50, 2), (50, 2)]
    assert net.history_[-1, "r2"] <= 1


def test_partial_fit_and_stratified_splits_take_weights():
    weights = RNG.uniform(0.2, 3, 50)
    a, b = regressor(max_epochs=1).fit(X, Y, weights), regressor().partial_fit(X, Y, None, weights)
    assert np.array_equal(a.predict(X), b.predict(X))
    y = np.where(X[:, 0] > 1, "rare", "usual")
    split = ValidSplit(2, stratified=True)
    net = MultiTaskClassifier(**{**WHOLE, "aggregator": "MGDA"}, train_split=split)
    net.fit(X, y, sample_weight=weights)
    assert len(net.history_) == 20


# ---- classes


LABELS = np.where(X[:, 0] > 0.9, "rare", "usual")
THREE = np.digitize(X[:, 1], [-0.5, 0.5])


def classifier(**params):
    return MultiTaskClassifier(**{**WHOLE, **params})


def test_balanced_classes_are_scikit_learn_s_sample_weights():
    own = compute_sample_weight("balanced", LABELS)
    same_probability(
        classifier(class_weight="balanced").fit(X, LABELS),
        classifier().fit(X, LABELS, sample_weight=own),
    )
    y = pd.DataFrame({"often": LABELS, "size": THREE})
    each = np.c_[own, compute_sample_weight("balanced", THREE)]
    same_probability(classifier(class_weight="balanced").fit(X, y), classifier().fit(X, y, each))


def same_probability(one, other):
    pair = one.predict_proba(X), other.predict_proba(X)
    pair = pair if isinstance(pair[0], list) else tuple([p] for p in pair)
    for a, b in zip(*pair, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8)


@pytest.mark.parametrize(
    "word",
    [
        {"often": {"rare": 5.0}},
        [{"rare": 5.0}, None],
        {"often": {"rare": 10, "usual": 2}, "size": {0: 1.0, 1: 1.0, 2: 1.0}},
    ],
)
def test_class_weights_of_tasks(word):
    y = pd.DataFrame({"often": LABELS, "size": THREE})
    own = np.c_[np.where(LABELS == "rare", 5.0, 1.0), np.ones(50)]
    same_probability(classifier(class_weight=word).fit(X, y), classifier().fit(X, y, own))


def test_class_weights_of_one_task_and_times_those_of_rows():
    rows = RNG.uniform(0.5, 2, 50)
    own = np.where(LABELS == "rare", 5.0, 1.0) * rows
    net = classifier(class_weight={"rare": 5.0}).fit(X, LABELS, rows)
    same_probability(net, classifier().fit(X, LABELS, own))


def test_balanced_counts_weights_of_rows():
    task = Task("y", "binary", lambda f, y: f, slice(0, 1), np.array([0, 1]))
    labels = np.array([[0.0], [0.0], [1.0]])
    _, weights = label_weights(labels, [task], np.array([1.0, 1.0, 2.0]), "balanced")
    assert weights is None or np.allclose(weights[:2].sum(), weights[2:].sum())
    _, weights = label_weights(labels, [task], None, "balanced")
    np.testing.assert_allclose(weights[:, 0], [0.75, 0.75, 1.5])


@pytest.mark.parametrize("size", [5e-324, 1e-300, 1e300, 1.7e308])
def test_weights_of_any_size(size):
    weights = np.where(X[:, 0] > 0, size, 0.0)
    plain = regressor().fit(X, Y, np.where(X[:, 0] > 0, 1.0, 0.0))
    same(regressor().fit(X, Y, weights), plain)
    assert plain.score(X, Y, weights) == pytest.approx(plain.score(X, Y, weights > 0))
    twice = classifier(class_weight={"rare": size}).fit(X, LABELS, np.full(50, size))
    assert np.isfinite(twice.predict_proba(X)).all()


@pytest.mark.parametrize("weight", [None, np.arange(50) + 1.0])
def test_a_part_of_a_stream_may_lack_a_task_s_labels_or_weights(weight):
    net = MultiTaskNet(**WHOLE, class_weight={"often": "balanced"}).fit(X, MIXED, weight)
    heads = net.module_.head.weight.detach().clone()
    net.partial_fit(X, MIXED.assign(often=None), sample_weight=weight)
    net.partial_fit(X, MIXED, sample_weight=np.c_[np.ones(50), np.zeros(50)])
    assert torch.isnan(torch.tensor(net.history_[-1, "train_losses"])).tolist() == [False, True]
    assert not torch.equal(net.module_.head.weight[0], heads[0])
    with pytest.raises(ValueError, match="zero for every label"):
        net.partial_fit(X, MIXED, sample_weight=np.zeros(50))


def test_a_fold_may_lack_a_class_that_has_a_weight():
    words = {"rare": 2.0, "usual": 1.0, "never": 5.0}
    with_it = classifier(class_weight=words).fit(X, LABELS)
    del words["never"]
    same_net = classifier(class_weight=words).fit(X, LABELS)
    np.testing.assert_array_equal(with_it.predict_proba(X), same_net.predict_proba(X))


def test_a_class_may_be_named_like_its_task():
    yes_or_no = np.where(X[:, 0] > 0, "y", "n")
    net = classifier(class_weight={"y": 3.0}).fit(X, yes_or_no)
    same_weights = np.where(X[:, 0] > 0, 3.0, 1.0)
    np.testing.assert_allclose(
        net.predict_proba(X), classifier().fit(X, yes_or_no, same_weights).predict_proba(X)
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_matrix_of_weights_by_hand(dtype):
    """Three tasks with gaps: (n, K) weights, "balanced", a class (2) without a label."""
    rng = np.random.default_rng(3)
    labels = np.c_[rng.normal(size=30), rng.integers(0, 2, (30, 2))].astype(dtype)
    labels[rng.random((30, 3)) < 0.3] = np.nan
    given = rng.integers(0, 4, (30, 3)).astype(float)
    tasks = [
        Task("price", "regression", lambda f, y: f, slice(0, 1)),
        Task("sold", "binary", lambda f, y: f, slice(1, 2), np.array([0, 1])),
        Task("size", "multiclass", lambda f, y: f, slice(2, 5), np.array([0, 1, 2])),
    ]
    left, weights = label_weights(labels, tasks, given, "balanced")
    assert left.dtype == dtype
    assert np.array_equal(np.isnan(left), np.isnan(labels) | (given == 0))
    for k in range(3):
        rows = np.flatnonzero(~np.isnan(left[:, k]))
        wanted = given[rows, k].copy()
        if k > 0:
            y, own = left[rows, k].astype(int), wanted.astype(int)
            repeated = compute_sample_weight("balanced", np.repeat(y, own))
            wanted *= repeated[np.cumsum(own) - 1]
        np.testing.assert_allclose(weights[rows, k], wanted / wanted.mean(), rtol=1e-12)


def test_weights_are_left_out_only_where_they_are_equal():
    tasks = [Task("y", "regression", lambda f, y: f, slice(0, 1))]
    labels = np.array([[1.0], [2.0], [np.nan]])
    assert label_weights(labels, tasks, [3, 3, 1], None)[1] is None
    assert label_weights(labels, tasks, [1, 1.0001, 1], None)[1] is not None


def test_balanced_is_of_the_tasks_that_have_classes():
    own = np.c_[np.ones(50), compute_sample_weight("balanced", LABELS)]
    nets = MultiTaskNet(**WHOLE, class_weight="balanced"), MultiTaskNet(**WHOLE)
    one, other = nets[0].fit(X, MIXED), nets[1].fit(X, MIXED, own)
    np.testing.assert_allclose(one.predict_proba(X)[1], other.predict_proba(X)[1], rtol=1e-8)


def test_the_only_task_may_be_named():
    y = pd.DataFrame({"often": LABELS})
    one = classifier(class_weight={"often": "balanced"}).fit(X, y)
    same_probability(one, classifier(class_weight=["balanced"]).fit(X, y))


MIXED = pd.DataFrame({"price": Y[:, 0], "often": LABELS})
ERRORS = {
    "no classes": (lambda: regressor(class_weight="balanced").fit(X, Y), "all tasks are regress"),
    "a word": (lambda: classifier(class_weight="balance").fit(X, LABELS), "'balance' is not allow"),
    "a class": (
        lambda: classifier(class_weight={"rarer": 2}).fit(X, LABELS),
        "'rarer' is no class",
    ),
    "a task": (
        lambda: MultiTaskNet(**WHOLE, class_weight={"oftn": "balanced"}).fit(X, MIXED),
        "did you mean 'often'",
    ),
    "a regression": (
        lambda: MultiTaskNet(**WHOLE, class_weight={"price": "balanced"}).fit(X, MIXED),
        "task 'price' is a regression",
    ),
    "a negative weight": (
        lambda: classifier(class_weight={"rare": -1}).fit(X, LABELS),
        "-1 of class 'rare'",
    ),
    "infinity": (
        lambda: classifier(class_weight={"rare": np.inf}).fit(X, LABELS),
        "inf of class 'rare'",
    ),
    "entries": (
        lambda: MultiTaskNet(**WHOLE, class_weight=["balanced"]).fit(X, MIXED),
        "a list with an entry a task",
    ),
    "an entry": (
        lambda: MultiTaskNet(**WHOLE, class_weight=[None, "b"]).fit(X, MIXED),
        "'b' of task 'often'",
    ),
    "nothing left": (
        lambda: classifier(class_weight={"rare": 0, "usual": 0}).fit(X, LABELS),
        "zero for every label of task 'y'",
    ),
}


@pytest.mark.parametrize(("act", "message"), ERRORS.values(), ids=ERRORS.keys())
def test_errors_are_one_clear_line(act, message):
    with pytest.raises(ValueError, match=message) as caught:
        act()
    assert "\n" not in str(caught.value)


def test_weights_that_are_given_are_not_written_to():
    weights = np.ones((50, 2))
    found = check_sample_weight(weights, (50, 2))
    found[:] = 7
    assert (weights == 1).all()
