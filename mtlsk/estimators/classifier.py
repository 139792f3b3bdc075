"""MultiTaskClassifier: several columns of classes, one network."""

from __future__ import annotations

from sklearn.base import ClassifierMixin

from mtlsk.estimators.net import MultiTaskNet


class MultiTaskClassifier(ClassifierMixin, MultiTaskNet):  # type: ignore[misc]
    """Multi-output classification with one network: binary, multiclass and multi-label columns.

    Every column of y is a task, of its own classes: integers, booleans or strings; NaN or None is
    a missing label. A task of two classes has one logit and the loss log(1 + exp(f)) - y f, one of
    C classes has C logits and log sum_c exp(f_c) - f_y. A matrix of zeros and ones is multi-label:
    K binary tasks. Where y has missing labels or columns of several types, cross-validate with
    ``cv=KFold(5)``: scikit-learn looks for strata in the y of a classifier unless told otherwise,
    and such a y it refuses.

    Parameters
    ----------
    class_weight : None, "balanced", dict or list
        ``"balanced"`` weights each class by n / (C n_c), in every task. ``{class: weight}`` for a
        single task, ``{task: "balanced" or {class: weight}}`` or a list with an entry a task for
        several.
    criterion : "auto", "log_loss", callable, or dict of task to one of these
        A callable takes (logits (B, width), label (B,)), the label an int64 index for a task of C
        logits and 0. or 1. for one logit, and returns the loss of each row (B,).
    tasks : None, or dict of task to "binary" or "multiclass"
        ``"multiclass"`` gives two classes two logits.
    **kwargs
        All other parameters are those of :class:`MultiTaskRegressor`.

    Attributes
    ----------
    classes_ : array of shape (C,), or list of K arrays where y has columns
    tasks_ : list of Task
        Names, kinds, classes, criteria and columns of the outputs.
    history_, aggregator_, controller_, optimizer_, module_, task_names_, n_features_in_
        As in :class:`MultiTaskRegressor`.

    Raises
    ------
    ValueError
        For wrong input or parameters, in one line; in ``partial_fit`` for a class that the first
        call neither had nor named.
    DivergenceError
        When training diverges.

    Examples
    --------
    >>> import numpy as np
    >>> from mtlsk import MultiTaskClassifier
    >>> X = np.random.default_rng(0).normal(size=(100, 3))
    >>> y = np.c_[X[:, 0] > 0, np.digitize(X[:, 1], [-0.5, 0.5])]  # two classes, three classes
    >>> net = MultiTaskClassifier((16,), max_epochs=5, random_state=0).fit(X, y)
    >>> [proba.shape for proba in net.predict_proba(X)]
    [(100, 2), (100, 3)]
    """

    _preset = "classification"
    score = MultiTaskNet.score  # not ClassifierMixin's, which refuses several columns of classes
