"""Certificate: one number with what it rests on, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Certificate:
    """One certificate of one net on one set of rows.

    Attributes
    ----------
    name : str
        The key under which programs find it.
    value : float or None
        Finite; None where the certificate is not applicable.
    unit : str
        Of the value, ``""`` for a pure number.
    phi : str
        The residuals Phi of h = (1/K) sum Phi_k^2, ``"-"`` where it speaks of gradients only.
    assumptions : tuple of str
        What it rests on, a phrase each.
    reason : str
        Why it is not applicable; ``""`` where it is.
    estimated : bool
        Whether something it needs was estimated: then it is a diagnosis, **no certificate**.
    meaning : str
        What the value says, in one sentence.
    """

    name: str
    value: float | None
    unit: str = ""
    phi: str = "-"
    assumptions: tuple[str, ...] = ()
    reason: str = ""
    estimated: bool = False
    meaning: str = ""

    @property
    def applicable(self) -> bool:
        """Whether there is a value."""
        return self.value is not None

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name}: not applicable: {self.reason}"
        shown = f"{self.name} = {self.value:.4g}{f' {self.unit}' if self.unit else ''}"
        return shown + (" (estimated: no certificate)" if self.estimated else "")
