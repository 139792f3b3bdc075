"""RAdam whose first momentum may change from step to step."""

from __future__ import annotations

import torch

from mtlsk.optimizers.adam import VaryingBeta1


class RAdam(VaryingBeta1, torch.optim.RAdam):
    """``torch.optim.RAdam`` that stays exact when its first momentum changes during training.

    Both of its kinds of step, with and without the second moment (the first five have none), are
    lr m_t / (1 - beta_1^t) times something that knows no beta_1, so scaling lr corrects both. On a
    constant gradient g a step without the second moment is lr |g| long, at any momenta: longer
    than lr where |g| > 1, as in torch's own.

    Takes the parameters of ``torch.optim.RAdam`` and is bit for bit equal to it at a constant
    ``betas[0]``.

    **Reference** Liu et al., "On the variance of the adaptive learning rate and beyond", ICLR
    2020, algorithm 2.
    """
