"""How K task gradients become one update: one algorithm a file, ``__all__`` is the registry."""

from mtlsk.aggregators.alignedmtl import AlignedMTL
from mtlsk.aggregators.base import AGGREGATORS, PROPERTIES, Aggregator
from mtlsk.aggregators.cagrad import CAGrad
from mtlsk.aggregators.config import ConFIG
from mtlsk.aggregators.conicgrad import ConicGrad
from mtlsk.aggregators.dualproj import DualProj
from mtlsk.aggregators.dynamic_weight_average import DynamicWeightAverage
from mtlsk.aggregators.excessmtl import ExcessMTL
from mtlsk.aggregators.fairgrad import FairGrad
from mtlsk.aggregators.famo import FAMO
from mtlsk.aggregators.geometric_mean import GeometricMean
from mtlsk.aggregators.gradnorm import GradNorm
from mtlsk.aggregators.gradvac import GradVac
from mtlsk.aggregators.imtlg import IMTLG
from mtlsk.aggregators.linear_scalarization import LinearScalarization
from mtlsk.aggregators.mgda import MGDA
from mtlsk.aggregators.nashmtl import NashMTL
from mtlsk.aggregators.online_dual import OnlineDual
from mtlsk.aggregators.pcgrad import PCGrad
from mtlsk.aggregators.random_weighting import RandomWeighting
from mtlsk.aggregators.sdmgrad import SDMGrad
from mtlsk.aggregators.smooth_tchebycheff import SmoothTchebycheff
from mtlsk.aggregators.tchebycheff import Tchebycheff
from mtlsk.aggregators.torchjd import Torchjd
from mtlsk.aggregators.uncertainty_weighting import UncertaintyWeighting
from mtlsk.aggregators.upgrad import UPGrad

__all__ = [
    "AGGREGATORS",
    "FAMO",
    "IMTLG",
    "MGDA",
    "PROPERTIES",
    "Aggregator",
    "AlignedMTL",
    "CAGrad",
    "ConFIG",
    "ConicGrad",
    "DualProj",
    "DynamicWeightAverage",
    "ExcessMTL",
    "FairGrad",
    "GeometricMean",
    "GradNorm",
    "GradVac",
    "LinearScalarization",
    "NashMTL",
    "OnlineDual",
    "PCGrad",
    "RandomWeighting",
    "SDMGrad",
    "SmoothTchebycheff",
    "Tchebycheff",
    "Torchjd",
    "UPGrad",
    "UncertaintyWeighting",
]
