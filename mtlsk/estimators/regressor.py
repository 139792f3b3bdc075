"""MultiTaskRegressor: several numeric targets, one network, a word for how their gradients join."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from skorch.utils import is_dataset

from mtlsk.estimators.net import MultiTaskNet
from mtlsk.estimators.validation import check_features


def r2_per_task(y: ArrayLike, prediction: ArrayLike) -> NDArray[np.float64]:
    """Return R^2 = 1 - sum (y - f)^2 / sum (y - mean y)^2 of each task, shape (K,).

    Over the labelled rows of each task (NaN in y is a missing label), in float64. A constant
    target gives 1 where it is predicted exactly and 0 otherwise, as in scikit-learn; a task with
    fewer than two labels gives NaN.
    """
    truth = np.asarray(y, dtype=np.float64)
    truth = truth.reshape(len(truth), -1)
    fit = np.asarray(prediction, dtype=np.float64).reshape(len(truth), -1)
    if fit.shape != truth.shape:
        raise ValueError(f"y has {truth.shape[1]} tasks, but the prediction has {fit.shape[1]}")
    scores = np.full(truth.shape[1], np.nan)
    for k, (t, f) in enumerate(zip(truth.T, fit.T, strict=True)):
        there = ~np.isnan(t)
        if there.sum() < 2:
            continue
        residual = float(((t[there] - f[there]) ** 2).sum())
        spread = float(((t[there] - t[there].mean()) ** 2).sum())
        scores[k] = 1 - residual / spread if spread > 0 else float(residual == 0)
    return scores


class MultiTaskRegressor(RegressorMixin, MultiTaskNet):  # type: ignore[misc]
    """Multi-output regression with one network whose task gradients are joined by an aggregator.

    The loss of a task is the mean of its criterion over the labelled rows of a batch. In each step
    the ``aggregator`` turns the Gramian of the K task gradients over the shared parameters into
    task weights, the ``controller`` may change what is live (momentum, cone angle), and the
    optimizer steps. It is a skorch net: callbacks, ``module__...``, ``optimizer__...`` parameters
    and ``history_`` are skorch's.

    Parameters
    ----------
    hidden_layer_sizes : sequence of int
        Widths of the shared trunk of the default module.
    aggregator : str, dict, class or instance
        ``"LinearScalarization"``, ``"MGDA"``, ``"CAGrad"``, ``"ConicGrad"``, ``"module:Class"``;
        its parameters as ``aggregator__c=...`` or ``{"name": "ConicGrad", "c": .25}``.
    controller : None, str, dict, class or instance
        ``"APT"`` or your own; parameters as ``controller__beta_max=...``.
    optimizer : str, dict or class
        ``"AdamW"`` (without weight decay unless told), ``"Adam"``, ``"NAdam"``, ``"RAdam"``,
        ``"SGD"``, ``"Muon"`` for the matrices of the shared trunk, or a name of ``torch.optim``;
        parameters as ``optimizer__...``, where ``optimizer__momentum`` means ``betas[0]`` for the
        Adam family.
    lr : float
        Learning rate. ``"Muon"`` wants a larger one, about 0.02, for its matrices; heads and
        biases have ``optimizer__adamw_lr``.
    max_epochs : int
        Passes over the data in one ``fit``.
    batch_size : int
        Rows in a batch; -1 for all.
    activation : str
        Of the trunk: "relu", "tanh", "gelu", "silu", "elu", "softplus", "logistic", "identity".
    task_scale : list of K floats, or None
        Factor of each task's loss, seen by the aggregator too.
    update_norm : "native" or "mean"
        ``"mean"`` gives the shared update the length of the mean gradient, so that aggregators
        are compared by direction at one learning rate.
    random_state : int, RandomState or None
        Seeds initial weights and shuffling; torch's global generators are left as they were.
    device : str
        ``"cpu"``, ``"cuda"``, or ``"auto"`` (CUDA where there is one).
    verbose : int
        1 prints a table with a row an epoch and a column a task.
    gramian : str, dict, class or instance
        Engine of the Gramian of the task gradients (``mtlsk list engines`` has costs and errors):
        ``"auto"`` and ``"exact"`` take the cheapest exact route (by hand on linear layers, one
        cotangent a row where each row has one label, K backward passes for other modules);
        ``"budget"`` estimates it from a few rows, ``"features"`` over the shared features;
        ``"online"`` does without it: two gradients a step for any K (ConicGrad, MGDA, CAGrad).
        ``{"name": "budget", "every": 4}`` keeps the task weights for four steps.
    module : torch module class or instance
        Any module that maps (B, d) to (B, K); ``n_features`` and ``n_outputs`` are passed to a
        class that takes them. ``shared_parameters()`` says what the tasks share; without it, all.
    criterion : "squared_error", "absolute_error", "huber" or callable
        A callable takes (prediction (B, 1), label (B,)) and returns the loss of each row (B,).
    train_split : None or skorch split
        Internal validation split; none by default.
    **kwargs
        Other parameters of ``skorch.NeuralNet``.

    Attributes
    ----------
    history_ : skorch History
        A row an epoch: ``train_loss``, ``train_losses`` (K), ``task_weights`` (K, mean over the
        steps), and the mean of what a controller set; where the steps have a Gramian of the task
        gradients also ``min_cosine`` (mean over the steps of the smallest cosine between two of
        them, as the aggregator sees them) and ``cosines`` (K, K), the mean over the steps of
        cos(g_i, g_j) of the tasks' own gradients over the shared parameters, neither scaled nor
        grouped: each pair over the steps in which both had a label and a gradient that is not
        zero, NaN where none was.
    aggregator_, controller_, optimizer_, module_ : the live objects.
    task_names_ : list of str
    n_features_in_ : int

    Raises
    ------
    ValueError
        For wrong input or parameters, in one line.
    DivergenceError
        When training diverges: names epoch, task and learning rate.

    Examples
    --------
    >>> from mtlsk import MultiTaskRegressor
    >>> from mtlsk.datasets import make_arm
    >>> arm = make_arm(200, random_state=0)
    >>> net = MultiTaskRegressor(aggregator="ConicGrad", max_epochs=2, random_state=0)
    >>> net.fit(arm.data, arm.target).predict(arm.data).shape
    (200, 7)
    """

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return predictions of shape (n, K), or (n,) where y was one-dimensional."""
        check_is_fitted(self)
        # callbacks ask about the datasets of the fit itself
        output = self.forward(X if is_dataset(X) else check_features(self, X, reset=False))
        if isinstance(output, tuple):
            output = output[0]
        prediction: NDArray[np.float64] = output.detach().double().numpy()
        return prediction[:, 0] if self.one_dimensional_ else prediction

    def score(self, X: Any, y: Any, sample_weight: None = None) -> float:
        """Return the mean over the tasks of R^2, each over its labelled rows."""
        if sample_weight is not None:
            raise ValueError("score takes no sample_weight yet; leave it out")
        scores = r2_per_task(y, self.predict(X))
        if np.isnan(scores).all():
            raise ValueError("y has no task with two labels or more: there is no R2 to score")
        return float(np.nanmean(scores))

    @property
    def predict_proba(self) -> NoReturn:
        """Raise AttributeError: a regressor has no probabilities."""
        raise AttributeError(f"{type(self).__name__} has no predict_proba: it is a regressor")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
