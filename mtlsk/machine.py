"""What a result was computed on and with: processor, system and library versions, never a name."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["machine", "versions"]

PACKAGES = ("mtlsk", "torch", "skorch", "scikit-learn", "optuna", "moocore", "numpy")


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return " ".join(value.split())
    if platform.system() == "Darwin":  # platform.processor() says only "arm" there
        found = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
        if found:
            return found
    return platform.processor() or platform.machine() or "unknown"


def _cores() -> str:
    total = os.cpu_count() or 1
    # Batch systems and containers often leave a process fewer cores than the machine has.
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    return str(total) if usable == total else f"{usable} of {total}"


def machine() -> dict[str, str]:
    """Describe the machine without naming it: no host, user or path is read.

    Returns
    -------
    "cpu" (its model), "cores" (usable logical ones), "gpu" (only where CUDA is available),
    "python" and "system" (its family), in this order.
    """
    import torch  # seconds to import; `versions` needs none of it

    found = {"cpu": _cpu(), "cores": _cores()}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    found["python"] = platform.python_version()
    found["system"] = platform.system()
    return found


def versions() -> dict[str, str]:
    """Versions of mtlsk and of the libraries its numbers depend on, "unknown" where not installed.

    Returns
    -------
    Distribution name -> version.
    """
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
