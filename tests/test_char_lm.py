"""CharLM through the estimators: it learns, composes, and is pickled, searched and certified."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold
from torch import nn

from mtlsk import MultiTaskClassifier, MultiTaskNet, certify
from mtlsk.curvature import hessian_shares
from mtlsk.datasets import load_text
from mtlsk.descent import split_parameters
from mtlsk.modules import CharLM

SUBJECTS = ("The cat", "A dog", "My bird", "Our fish")
VERBS = ("sees", "hears", "finds", "likes")
SENTENCES = 250


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    rng = np.random.default_rng(0)
    sentences = (
        f"{rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(SUBJECTS).lower()}. "
        for _ in range(SENTENCES)
    )
    path = tmp_path_factory.mktemp("text") / "made.txt"
    path.write_text("".join(sentences))
    return load_text(path, context=8, stride=3)


def make(text, **params):
    small = {
        "module": CharLM,
        "module__n_characters": len(text.vocabulary),
        "module__width": 16,
        "module__n_layers": 1,
        "module__n_heads": 2,
        "lr": 0.01,
        "max_epochs": 1,
        "random_state": 0,
    }
    return MultiTaskClassifier(**{**small, **params})


def parts(text):
    train = text.split == "train"
    return text.data[train], text.target[train], text.data[~train], text.target[~train]


def cross_entropies(probabilities, classes, y):
    """Return the mean of -log p(label) of each task, in nats."""
    found = []
    for p, own, k in zip(probabilities, classes, range(y.shape[1]), strict=True):
        places = np.searchsorted(own, y.iloc[:, k])
        found.append(-np.log(p[np.arange(len(y)), places]).mean())
    return np.array(found)


@pytest.mark.parametrize("aggregator", ["LinearScalarization", "ConicGrad"])
def test_it_beats_the_unigram_cross_entropy_on_every_task(text, aggregator):
    X, y, X_test, y_test = parts(text)
    net = make(text, aggregator=aggregator, max_epochs=6, batch_size=32).fit(X, y)
    found = cross_entropies(net.predict_proba(X_test), net.classes_, y_test)
    unigram = [
        np.bincount(np.searchsorted(own, y.iloc[:, k]), minlength=len(own)) / len(y)
        for k, own in enumerate(net.classes_)
    ]
    base = cross_entropies([np.tile(p, (len(y_test), 1)) for p in unigram], net.classes_, y_test)
    assert (found < 0.6 * base).all()


def test_every_character_matters_and_so_does_its_place(text):
    X, y, *_ = parts(text)
    net = make(text).initialize_for(X, y)
    rows = X.to_numpy()[:20].copy()
    outputs = net.forward(rows)
    for column in range(rows.shape[1]):
        other = rows.copy()
        other[:, column] = (other[:, column] + 1) % len(text.vocabulary)
        assert not torch.isclose(net.forward(other), outputs).all(1).any()
    moved = rows[:, [1, 2, 0, 3, 4, 5, 6, 7]]  # the last one stays
    assert not torch.isclose(net.forward(moved), outputs).all(1).any()


def test_attention_is_torch_s(text):
    torch.manual_seed(0)
    module = CharLM(5, 3, n_characters=7, width=8, n_layers=1, n_heads=2).double()
    block = module.blocks[0]
    theirs = nn.MultiheadAttention(8, 2, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(block.query_key_value.weight)
        theirs.in_proj_bias.copy_(block.query_key_value.bias)
        theirs.out_proj.load_state_dict(block.mix.state_dict())
    z = torch.randn(4, 5, 8, dtype=torch.float64)
    normed = block.norm(z)
    mixed = z + theirs(normed, normed, normed)[0]
    torch.testing.assert_close(block(z), mixed + block.mlp(mixed))


def test_shared_and_own_parameters_are_all_there_are(text):
    module = CharLM(5, 3, n_characters=7, width=8)
    shared, own = split_parameters(module, 2)
    assert len(shared) + len(own) == len(list(module.parameters()))
    assert {id(p) for p in own} == {id(p) for p in module.head.parameters()}
    assert {id(p) for p in module.task_parameters(1)} == {id(p) for p in own}


@pytest.mark.parametrize("gramian", ["exact", "budget", "features", "online"])
@pytest.mark.parametrize("controller", [None, "APT"])
def test_engines_and_controllers(text, gramian, controller):
    X, y, *_ = parts(text)
    net = make(text, aggregator="MGDA", gramian=gramian, controller=controller, batch_size=200)
    losses = [net.partial_fit(X[:400], y[:400]).history_[-1, "train_loss"] for _ in range(4)]
    assert losses[-1] < losses[0]


def test_gramian_is_that_of_autograd(text):
    X, y, *_ = parts(text)
    net = make(text, dtype="float64", aggregator="MGDA").fit(X[:100], y[:100])
    gramian, losses = net.task_gramian(X[:60], y[:60])
    codes = torch.tensor(X[:60].to_numpy().copy(), dtype=torch.float64)
    outputs, shared = net.module_(codes), list(net.module_.shared_parameters())
    rows = []
    for k, task in enumerate(net.tasks_):
        label = torch.tensor(np.searchsorted(task.classes, y.iloc[:60, k]))
        label = label if task.kind == "multiclass" else label.double()
        loss = task.criterion(outputs[:, task.slice], label).mean()
        assert float(loss.detach()) == pytest.approx(float(losses[k]))
        grads = torch.autograd.grad(loss, shared, retain_graph=True)
        rows.append(torch.cat([g.reshape(-1) for g in grads]))
    J = torch.stack(rows)
    torch.testing.assert_close(gramian, J @ J.T)


def test_muon_takes_the_matrices_of_the_blocks(text):
    X, y, *_ = parts(text)
    net = make(text, optimizer="Muon", lr=0.02, max_epochs=3).fit(X, y)
    assert net.history_[-1, "train_loss"] < net.history_[0, "train_loss"]
    groups = net.optimizer_.param_groups
    taken = {id(p) for group in groups if group["use_muon"] for p in group["params"]}
    block = net.module_.blocks[0]
    mine = (block.query_key_value, block.mix, block.mlp[1], block.mlp[3])
    assert taken == {id(layer.weight) for layer in mine}


def test_grid_search_clone_and_pickle(text):
    X, y, X_test, _ = parts(text)
    grid = {"aggregator": ["LinearScalarization", "MGDA"], "module__width": [8, 16]}
    search = GridSearchCV(make(text), grid, cv=KFold(2)).fit(X[:300], y[:300])
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    net = search.best_estimator_
    again = pickle.loads(pickle.dumps(net))
    np.testing.assert_array_equal(again.predict(X_test), net.predict(X_test))
    twin = clone(net).fit(X[:300], y[:300])
    np.testing.assert_array_equal(twin.predict(X_test), net.predict(X_test))


def test_certificates_and_curvature(text):
    X, y, *_ = parts(text)
    net = make(text, max_epochs=2).fit(X, y)
    report = certify(net, X[:200], y[:200])
    assert report["critical_cone"].applicable
    assert report["pl_bound"].value >= report["pl_constant"].value
    shares = hessian_shares(net, X[:20], y[:20], probes=2)
    assert 0 < shares.residual_share < 1


def test_numbers_beside_classes(text):
    X, y, *_ = parts(text)
    y = y[["vowel", "space"]].assign(code=y["next"] / len(text.vocabulary))
    net = make(text).get_params() | {"tasks": {"vowel": "binary", "space": "binary"}}
    mixed = MultiTaskNet(**net).fit(X, y)
    assert [task.kind for task in mixed.tasks_] == ["binary", "binary", "regression"]


def test_export(text, tmp_path):
    X, y, X_test, _ = parts(text)
    net = make(text).fit(X[:100], y[:100])
    net.export(tmp_path / "net.pt2")
    rows = torch.tensor(X_test.to_numpy()[:7].copy(), dtype=torch.float32)
    found = torch.export.load(tmp_path / "net.pt2").module()(rows)
    expected = np.concatenate(net.predict_proba(X_test[:7]), axis=1)
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("value", [-1.0, 0.5, 7.0])
def test_what_is_no_code_is_refused(value):
    module = CharLM(3, 2, n_characters=7, width=8)
    with pytest.raises(ValueError, match=f"X holds {value:g}.*from 0 to 6.*n_characters"):
        module(torch.tensor([[0.0, value, 1.0]]))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"width": 10, "n_heads": 4}, "width=10 is no multiple of n_heads=4.*12"),
        ({"width": 0}, "width=0.*>= 1"),
        ({"n_layers": -1}, "n_layers=-1.*>= 0"),
        ({"n_characters": 0}, "n_characters=0.*>= 1"),
    ],
)
def test_sizes_are_checked(params, words):
    with pytest.raises(ValueError, match=words):
        CharLM(3, 2, **params)
