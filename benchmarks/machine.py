"""What the numbers were measured on."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path


def about() -> dict[str, str]:
    """Date, processor, cores, memory, system and Python."""
    return {
        "date": datetime.date.today().isoformat(),
        "processor": _line_of("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else "?"),
        "memory": _gigabytes(_line_of("/proc/meminfo", "MemTotal")),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def _line_of(path: str, name: str) -> str:
    if not Path(path).exists():
        return ""
    lines = Path(path).read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith(name)), "")


def _gigabytes(kilobytes: str) -> str:
    return f"{int(kilobytes.split()[0]) / 2**20:.0f} GiB" if kilobytes else "?"
