"""What task gradients say about a training, in plain sentences with the parameters to try."""

from mtlsk.findings.balance import COLLAPSED, HARM, SCALES, STATIONARY
from mtlsk.findings.conflicts import CONFLICT
from mtlsk.findings.measured import Finding, Measured
from mtlsk.findings.summary import findings

__all__ = [
    "COLLAPSED",
    "CONFLICT",
    "HARM",
    "SCALES",
    "STATIONARY",
    "Finding",
    "Measured",
    "findings",
]
