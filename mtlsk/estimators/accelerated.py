"""Nets under Hugging Face accelerate and mixed precision: the aggregator is never left out."""

from __future__ import annotations

from typing import Any

import torch


def check_autocast(device: torch.device) -> None:
    """Raise ValueError inside ``torch.autocast`` to float16.

    Gradients below 6e-8 would become zero; scaling the losses against that would scale what the
    aggregator sees. bfloat16 has the range of float32 and needs no scaling.
    """
    kind = device.type
    if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16:
        raise ValueError(
            "under torch.autocast with float16 small task gradients become zero; use "
            f"torch.autocast({kind!r}, dtype=torch.bfloat16)"
        )


def check_accelerator(accelerator: Any) -> None:
    """Raise ValueError for an accelerator that would change what the aggregator sees."""
    if accelerator.num_processes > 1:
        raise ValueError(
            f"accelerate runs {accelerator.num_processes} processes, whose gradients nobody would "
            "join after the aggregator: use one process"
        )
    if accelerator.gradient_accumulation_steps > 1:
        raise ValueError(
            f"gradient_accumulation_steps={accelerator.gradient_accumulation_steps} is not "
            "allowed: an aggregator looks at one batch; use a larger batch_size instead"
        )
    if accelerator.scaler is not None:
        raise ValueError(
            f"mixed_precision={accelerator.mixed_precision!r} scales the losses that the "
            "aggregator sees; use mixed_precision='bf16'"
        )


def adopt(cls: type, net: type) -> None:
    """Give a subclass with skorch's ``AccelerateMixin`` the multi-task step back.

    The mixin's own step is one backward pass of the mean loss, which would leave the aggregator
    out without a word; its ``initialize`` builds no aggregator. What takes their place runs
    training passes in the precision and on the device of the ``accelerator``, and leaves
    everything else as it is without it. The module is prepared by accelerate, the optimizer is
    not: its wrapper serves several processes, accumulation and scaling, which are refused.

    Parameters
    ----------
    cls : the new class
    net : MultiTaskNet

    Raises
    ------
    TypeError
        Where the mixin is named after the net.
    """
    order = cls.__mro__
    mixin: Any = next((c for c in order if f"{c.__module__}.{c.__name__}" == MIXIN), None)
    if mixin is None:
        return
    if order.index(mixin) > order.index(net):
        raise TypeError(
            f"name AccelerateMixin before the net: class {cls.__name__}(AccelerateMixin, ...)"
        )

    def initialize(self: Any) -> Any:
        check_accelerator(self.accelerator)
        super(mixin, self).initialize()
        self._wrapped_with_accelerator = False
        return self._initialize_accelerator()

    def _initialize_accelerator(self: Any) -> Any:
        if not self._wrapped_with_accelerator:
            with self._current_init_context("module"):
                for name in self._modules:
                    setattr(self, f"{name}_", self.accelerator.prepare(getattr(self, f"{name}_")))
            self._wrapped_with_accelerator = True
        return self

    def train_step_single(self: Any, batch: Any, **fit_params: Any) -> Any:
        return super(mixin, self).train_step_single(batch, **fit_params)

    def infer(self: Any, x: Any, **fit_params: Any) -> Any:
        if not self.module_.training:
            return super(mixin, self).infer(x, **fit_params)
        with self.accelerator.autocast():
            return super(mixin, self).infer(x, **fit_params)

    own = {
        "initialize": initialize,
        "_initialize_accelerator": _initialize_accelerator,
        "train_step_single": train_step_single,
        "infer": infer,
        "_device": lambda self: self.accelerator.device,
        "_repeats": property(lambda self: self.accelerator.mixed_precision == "no"),
    }
    above = order[: order.index(mixin)]  # what they say themselves stays
    for name, value in own.items():
        if not any(name in vars(c) for c in above):
            setattr(cls, name, value)


MIXIN = "skorch.hf.AccelerateMixin"
