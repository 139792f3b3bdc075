"""How K task gradients become one update: one algorithm a file, ``__all__`` is the registry."""

from mtlsk.aggregators.alignedmtl import AlignedMTL
from mtlsk.aggregators.base import AGGREGATORS, PROPERTIES, Aggregator
from mtlsk.aggregators.cagrad import CAGrad
from mtlsk.aggregators.config import ConFIG
from mtlsk.aggregators.conicgrad import ConicGrad
from mtlsk.aggregators.dualproj import DualProj
from mtlsk.aggregators.fairgrad import FairGrad
from mtlsk.aggregators.imtlg import IMTLG
from mtlsk.aggregators.linear_scalarization import LinearScalarization
from mtlsk.aggregators.mgda import MGDA
from mtlsk.aggregators.nashmtl import NashMTL
from mtlsk.aggregators.online_dual import OnlineDual
from mtlsk.aggregators.pcgrad import PCGrad
from mtlsk.aggregators.sdmgrad import SDMGrad
from mtlsk.aggregators.torchjd import Torchjd
from mtlsk.aggregators.upgrad import UPGrad

__all__ = [
    "AGGREGATORS",
    "IMTLG",
    "MGDA",
    "PROPERTIES",
    "Aggregator",
    "AlignedMTL",
    "CAGrad",
    "ConFIG",
    "ConicGrad",
    "DualProj",
    "FairGrad",
    "LinearScalarization",
    "NashMTL",
    "OnlineDual",
    "PCGrad",
    "SDMGrad",
    "Torchjd",
    "UPGrad",
]
