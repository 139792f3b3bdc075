"""MultiTaskRegressor: several numeric targets, one network, a word for how their gradients join."""

from __future__ import annotations

from sklearn.base import RegressorMixin

from mtlsk.estimators.net import MultiTaskNet


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
    regularizer : None, str, dict, class or instance
        ``"path_norm"``, of one hidden layer of ReLUs: unneeded neurons become exactly zero; its
        parameter as ``regularizer__strength=...``. The aggregator does not see it.
    module : torch module class or instance
        Any module that maps (B, d) to (B, K); ``n_features`` and ``n_outputs`` are passed to a
        class that takes them. ``shared_parameters()`` says what the tasks share; without it, all.
    criterion : "auto", "squared_error", "absolute_error", "huber", callable, or dict
        ``"auto"`` is the first. A callable takes (prediction (B, 1), label (B,)) and returns the
        loss of each row (B,). A dict has one of these for each task it names.
    dtype : "float32" or "float64"
        Of data, parameters and training; predictions are float64 always.
    tasks, class_weight
        Of no use here: they belong to :class:`MultiTaskNet` and :class:`MultiTaskClassifier`.
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

    _preset = "regression"
    score = MultiTaskNet.score  # not RegressorMixin's, which refuses missing labels
