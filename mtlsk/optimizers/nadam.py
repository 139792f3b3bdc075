"""NAdam, which needs no correction when its first momentum changes."""

from __future__ import annotations

import torch


class NAdam(torch.optim.NAdam):
    """``torch.optim.NAdam``, driven exactly as it is when its first momentum changes.

    With c_t = 1 - .96^(t psi) / 2, psi the ``momentum_decay``, and mu_t = beta_t c_t, torch steps
    by lr/(sqrt(v_t) + eps) times ::

        (1 - mu_t) / (1 - prod_{i<=t} mu_i) g_t
          + beta_t c_{t+1} / (1 - beta_t c_{t+1} prod_{i<=t} mu_i) m_t

    (v_t corrected by 1 - beta_2^t), m_t = beta_t m_{t-1} + (1 - beta_t) g_t. The momenta mu_t vary
    by design, so torch keeps their product in its state (``mu_product``) and multiplies it by the
    mu_t of the very step: with another ``betas[0]`` in every step the formula above still holds as
    it stands. There is nothing that Adam's 1 - beta_1^t would get wrong: m_t itself is not
    corrected by beta_1, here or there.

    So the coefficients of the gradients do not sum to 1, at a constant beta_1 neither: on a
    constant gradient the first step is 1 + beta_1 (1 - beta_1) c_2 / (1 - beta_1^2 c_1 c_2) times
    lr: 1.06 at .9, at most 1.135 for the default ``momentum_decay``. Steps of a varying beta_1 stay
    within that same bound (found by trying, not proved).

    Takes the parameters of ``torch.optim.NAdam``.

    **Reference** Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop 2016. There m_t
    too is made with mu_t; that torch makes it with beta_1 is torch's choice, kept here.
    """

    corrects_varying_beta1 = True
