"""What adapts while training: one controller a file, ``__all__`` is the registry."""

from mtlsk.controllers.apt import APT
from mtlsk.controllers.base import CONTROLLERS, Change, Controller, Live

__all__ = ["APT", "CONTROLLERS", "Change", "Controller", "Live"]
