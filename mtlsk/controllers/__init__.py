"""What adapts while training: one controller a file, ``__all__`` is the registry."""

from mtlsk.controllers.apt import APT
from mtlsk.controllers.base import CONTROLLERS, Change, Controller, Live
from mtlsk.controllers.certificate import CertificateController
from mtlsk.controllers.chain import Chain
from mtlsk.controllers.cone_angle import ConeAngle
from mtlsk.controllers.safe_step import SafeStep

__all__ = [
    "APT",
    "CONTROLLERS",
    "CertificateController",
    "Chain",
    "Change",
    "ConeAngle",
    "Controller",
    "Live",
    "SafeStep",
]
