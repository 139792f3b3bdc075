"""What all of our nets change in skorch's: where state is kept, and which device is meant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from skorch import NeuralNet
from skorch.utils import to_tensor
from torch import Tensor

CPU = torch.device("cpu")


class OnDevice(NeuralNet):  # type: ignore[misc]
    """A skorch net that takes ``device="auto"`` and asks torch for nothing it has already."""

    device: Any
    module_: Any

    # scikit-learn allows no attributes beside the parameters before fit: skorch's are kept under
    # names with an underscore in front

    @property
    def history_(self) -> Any:
        """A row an epoch (skorch's History), None before the first fit."""
        return self._history

    @history_.setter
    def history_(self, value: Any) -> None:
        self._history = value

    @property
    def initialized_(self) -> bool:
        """Whether module, optimizer and components have been built."""
        return self._initialized

    @initialized_.setter
    def initialized_(self, value: bool) -> None:
        self._initialized = value

    @property
    def virtual_params_(self) -> Any:
        """Skorch's table of parameters that live elsewhere."""
        return self._virtual_params

    @virtual_params_.setter
    def virtual_params_(self, value: Any) -> None:
        self._virtual_params = value

    def _device(self) -> torch.device:
        """Return the torch device of ``device``; "auto" is CUDA where there is one."""
        if self.device == "cpu":
            return CPU
        cuda = torch.cuda.is_available()
        if self.device == "auto":
            return torch.device("cuda" if cuda else "cpu")
        try:
            device = torch.device(self.device or "cpu")
        except RuntimeError:
            device = None
        if device is None or (device.type == "cuda" and not cuda):
            raise ValueError(
                f"device={self.device!r} is not available here; use 'cpu' or 'auto'"
                + (", or e.g. 'cuda'" if cuda else "")
            )
        return device

    @contextmanager
    def _concrete_device(self) -> Iterator[None]:
        """Let skorch see a device that torch knows while ``device`` is "auto"."""
        word: str = self.device
        self.device = str(self._device())
        try:
            yield
        finally:
            self.device = word

    @contextmanager
    def _seeded(self, seed: int) -> Iterator[None]:
        """Run with torch's generators seeded, the caller's left as they were."""
        device = self._device()
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            seed_generators(seed, device)
            yield

    def infer(self, x: Any, **fit_params: Any) -> Any:
        """Return the module's output for a batch."""
        if isinstance(x, Tensor) and not fit_params and x.device.type == self._device().type:
            return self.module_(x)
        with self._concrete_device():
            return super().infer(x, **fit_params)

    def _on_device(self, values: Any) -> Tensor:
        device = self._device()
        if isinstance(values, Tensor) and values.device.type == device.type:
            return values
        tensor: Tensor = to_tensor(values, device=device)
        return tensor


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed torch's generators of the CPU and of ``device``; those of other devices are left alone.

    ``torch.manual_seed`` seeds those of every GPU, and formats a stack a call to do it later.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
