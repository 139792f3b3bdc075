"""How K task gradients become one update: one algorithm a file, ``__all__`` is the registry."""

from mtlsk.aggregators.base import AGGREGATORS, PROPERTIES, Aggregator
from mtlsk.aggregators.cagrad import CAGrad
from mtlsk.aggregators.conicgrad import ConicGrad
from mtlsk.aggregators.dynamicweightaverage import DynamicWeightAverage
from mtlsk.aggregators.excessmtl import ExcessMTL
from mtlsk.aggregators.famo import FAMO
from mtlsk.aggregators.geometricmean import GeometricMean
from mtlsk.aggregators.gradnorm import GradNorm
from mtlsk.aggregators.gradvac import GradVac
from mtlsk.aggregators.linear_scalarization import LinearScalarization
from mtlsk.aggregators.mgda import MGDA
from mtlsk.aggregators.online_dual import OnlineDual
from mtlsk.aggregators.randomweighting import RandomWeighting
from mtlsk.aggregators.smoothtchebycheff import SmoothTchebycheff
from mtlsk.aggregators.tchebycheff import Tchebycheff
from mtlsk.aggregators.uncertaintyweighting import UncertaintyWeighting

__all__ = [
    "AGGREGATORS",
    "FAMO",
    "MGDA",
    "PROPERTIES",
    "Aggregator",
    "CAGrad",
    "ConicGrad",
    "DynamicWeightAverage",
    "ExcessMTL",
    "GeometricMean",
    "GradNorm",
    "GradVac",
    "LinearScalarization",
    "OnlineDual",
    "RandomWeighting",
    "SmoothTchebycheff",
    "Tchebycheff",
    "UncertaintyWeighting",
]
