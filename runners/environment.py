"""What a record says about the machine and the code: library versions, processor, device, git state, memory."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

__all__ = ["describe", "device_memory", "git_state", "peak_memory"]

LIBRARIES = (
    "torch",
    "torchvision",
    "timm",
    "mmengine",
    "numpy",
    "scipy",
    "numba",
    "pot",
    "pandas",
    "crowd-loss-benchmark",
)


def describe(device: torch.device) -> dict[str, Any]:
    """Python, platform, processor, device, threads and library versions."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "libraries": versions,
    }


def git_state() -> dict[str, Any]:
    """Commit of the checkout that this code runs from, and whether it has changes; empty where there is none."""
    folder = Path(__file__).resolve().parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return {}


def peak_memory(device: torch.device) -> dict[str, float | None]:
    """Highest resident memory of this process and, on an accelerator, of its allocator, MiB."""
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    accelerator = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    return {"peak_rss_mib": round(resident, 1), "peak_device_mib": accelerator}


def device_memory(device: torch.device) -> dict[str, float] | None:
    """The memory of an accelerator, MiB, so that whoever deals runs out to it knows how many fit; None for a CPU.

    Returns:
        `total` and `free` of the device, `held` and `peak` by the allocator of this process, now and at its highest.
    """
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    held, peak = torch.cuda.memory_reserved(device), torch.cuda.max_memory_reserved(device)
    found = {"total": total, "free": free, "held": held, "peak": peak}
    return {name: size / 2**20 for name, size in found.items()}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603


def _processor() -> str:
    """The processor's name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
