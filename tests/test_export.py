"""An exported net predicts the same where there is no mtlsk."""

import json
import os
import random
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import nn

import mtlsk.estimators.export as exporting
from mtlsk import MultiTaskNet, MultiTaskRegressor

RNG = np.random.default_rng(5)
X = RNG.normal(size=(50, 6)).astype(np.float32)
Y = np.c_[X[:, 0] - X[:, 1], X[:, 2] ** 2, np.sin(X[:, 3])].astype(np.float32)


def make(**params):
    small = {"max_epochs": 2, "batch_size": 16, "random_state": 0}
    own = {} if "module" in params else {"hidden_layer_sizes": (8, 7)}
    return MultiTaskRegressor(**{**small, **own, **params})


class Normed(nn.Module):
    """A module that is another in training, and returns more than predictions."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(n_features, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(0.5)
        )
        self.head = nn.Linear(8, n_outputs)

    def forward(self, x):
        z = self.body(x)
        return self.head(z), z


CONV = {"module__trunk": "conv", "module__input_shape": (1, 2, 3), "module__skip": True}
NETS = {
    "plain": {},
    "conv": {**CONV, "activation": "silu"},
    "normed": {"module": Normed},
    "one": {},
}


@pytest.fixture(scope="module")
def fitted():
    nets = {name: make(**p).fit(X, Y if name != "one" else Y[:, 0]) for name, p in NETS.items()}
    nets["normed"].module_.train()  # the export is of the mode of prediction all the same
    return nets


READS = """
import json, sys
import numpy as np, torch
folder, *names = sys.argv[1:]
X = np.load(f"{folder}/X.npy")
found = {}
for name in names:
    files = {"mtlsk.json": ""}
    program = torch.export.load(f"{folder}/{name}.pt2", extra_files=files).module()
    with torch.no_grad():
        parts = [program(torch.tensor(X[:n])) for n in (1, 2, 50)]
    found[name] = [[p.tolist() for p in parts], json.loads(files["mtlsk.json"])]
print(json.dumps([found, [m for m in sys.modules if m.split(".")[0] in ("mtlsk", "skorch")]]))
"""


def predicted(net, n):
    return net.predict(X[:n]).reshape(n, -1)


def test_pt2_in_a_process_without_mtlsk(fitted, tmp_path):
    np.save(tmp_path / "X.npy", X)
    for name, net in fitted.items():
        net.export(tmp_path / f"{name}.pt2")
    done = subprocess.run(
        [sys.executable, "-c", READS, str(tmp_path), *fitted],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found, imported = json.loads(done.stdout)
    assert imported == []
    for name, net in fitted.items():
        parts, facts = found[name]
        for part, n in zip(parts, (1, 2, 50), strict=True):
            assert np.abs(np.array(part) - predicted(net, n)).max() <= 1e-5
        assert facts["tasks"] == numbered(net.task_names_)


def test_onnx_in_its_runtime(fitted, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} of the extra onnx is not installed")
    import onnxruntime

    for name in ("conv", "normed"):  # seconds each
        net = fitted[name]
        net.export(tmp_path / f"{name}.onnx")
        session = onnxruntime.InferenceSession(str(tmp_path / f"{name}.onnx"))
        for n in (1, 2, 50):
            (found,) = session.run(None, {"X": X[:n]})
            assert np.abs(found - predicted(net, n)).max() <= 1e-5
        facts = json.loads(session.get_modelmeta().custom_metadata_map["mtlsk"])
        assert facts == {"tasks": numbered(net.task_names_), "features": None}
        assert session.get_inputs()[0].shape == ["rows", 6]
        assert session.get_outputs()[0].shape == ["rows", len(net.task_names_)]


def test_names_go_along_and_the_net_is_left_alone(tmp_path):
    frame = pd.DataFrame(X, columns=list("abcdef"))
    net = make(module=Normed).fit(frame, pd.DataFrame(Y, columns=["u", "v", "w"]))
    net.module_.train()
    before = {k: v.clone() for k, v in net.module_.state_dict().items()}
    net.export(str(tmp_path / "net.pt2"))
    files = {"mtlsk.json": ""}
    torch.export.load(tmp_path / "net.pt2", extra_files=files)
    facts = json.loads(files["mtlsk.json"])
    assert facts == {"tasks": numbered(["u", "v", "w"]), "features": list("abcdef")}
    assert net.module_.training
    assert all(torch.equal(v, before[k]) for k, v in net.module_.state_dict().items())


def numbered(names):
    """Return the tasks of a regression as the file lists them."""
    return [{"name": name, "columns": [k, k + 1]} for k, name in enumerate(names)]


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_classes_are_exported_as_their_probabilities(suffix, tmp_path):
    y = pd.DataFrame(
        {"sold": X[:, 0] > 0, "price": Y[:, 0], "size": np.digitize(X[:, 1], [-0.5, 0.5])}
    )
    tasks = {"size": "classification"}
    net = MultiTaskNet((8,), tasks=tasks, max_epochs=3, random_state=0).fit(X, y)
    path = tmp_path / f"net{suffix}"
    net.export(path)
    if suffix == ".pt2":
        files = {"mtlsk.json": ""}
        found = torch.export.load(path, extra_files=files).module()(torch.tensor(X)).detach()
        facts = json.loads(files["mtlsk.json"])
    else:
        onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
        session = onnxruntime.InferenceSession(str(path))
        (found,) = session.run(None, {"X": X})
        facts = json.loads(session.get_modelmeta().custom_metadata_map["mtlsk"])
    assert facts["tasks"] == [
        {"name": "sold", "columns": [0, 2], "classes": [False, True]},
        {"name": "price", "columns": [2, 3]},
        {"name": "size", "columns": [3, 6], "classes": [0, 1, 2]},
    ]
    sold, _, size = net.predict_proba(X)
    wanted = np.c_[sold, net.predict(X)["price"], size]
    np.testing.assert_allclose(np.asarray(found), wanted, atol=1e-5)


class Counts(nn.Module):
    """Asks Python about values."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.layer = nn.Linear(n_features, n_outputs)

    def forward(self, x):
        return self.layer(x) if float(x.sum()) > 0 else 2 * self.layer(x)


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_module_that_cannot_be_exported(tmp_path, suffix):
    if suffix == ".onnx":
        pytest.importorskip("onnxscript")
    net = make(module=Counts).fit(X, Y)
    with pytest.raises(ValueError, match=f"Counts cannot be exported to {suffix}") as error:
        net.export(tmp_path / f"net{suffix}")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_predicts_something_else_is_not_written(tmp_path):
    class Chance(nn.Module):
        def __init__(self, n_features, n_outputs):
            super().__init__()
            self.layer = nn.Linear(n_features, n_outputs)

        def forward(self, x):
            return self.layer(x) + random.random()

    net = make(module=Chance).fit(X, Y)
    with pytest.raises(ValueError, match="predicts something else"):
        net.export(tmp_path / "net.pt2")
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_is_said(tmp_path, monkeypatch):
    with pytest.raises(NotFittedError):
        make().export(tmp_path / "net.pt2")
    net = make().fit(X, Y)
    for path in ("net.pt", "net", "net.PT2x"):
        with pytest.raises(ValueError, match=r"suffix must be \.pt2 or \.onnx"):
            net.export(tmp_path / path)
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"needs onnx and onnxscript: pip install 'mtlsk\[onnx\]'"
    ):
        net.export(tmp_path / "net.onnx")
