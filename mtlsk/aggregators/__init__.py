"""How K task gradients become one update: one algorithm a file, ``__all__`` is the registry."""

from mtlsk.aggregators.base import AGGREGATORS, PROPERTIES, Aggregator
from mtlsk.aggregators.cagrad import CAGrad
from mtlsk.aggregators.conicgrad import ConicGrad
from mtlsk.aggregators.linear_scalarization import LinearScalarization
from mtlsk.aggregators.mgda import MGDA
from mtlsk.aggregators.online_dual import OnlineDual

__all__ = [
    "AGGREGATORS",
    "MGDA",
    "PROPERTIES",
    "Aggregator",
    "CAGrad",
    "ConicGrad",
    "LinearScalarization",
    "OnlineDual",
]
