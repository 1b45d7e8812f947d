"""Where something ran and how it was called, in words that may be published."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# The folders whose modules are commands; a notebook or a script of somebody's is none of them.
COMMANDS = ("hf_distilhubert", "conversion", "finetune")


def processor() -> str:
    """The model name that Linux gives; elsewhere what Python knows."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hardware(device: torch.device) -> dict[str, Any]:
    """What a model was trained on: processor, cores, kind and name of the device, number of processes."""
    import torch

    found: dict[str, Any] = {"processor": processor(), "cores": cores(), "device": device.type}
    if device.type == "cuda":
        found["device_name"] = torch.cuda.get_device_name(device)
    return found | {"processes": int(os.environ.get("WORLD_SIZE", "1"))}


def command_line() -> str | None:
    """The command of ours that is running, absolute paths cut down to their names; None in other programs."""
    specification = getattr(sys.modules["__main__"], "__spec__", None)
    if Path(sys.argv[0]).stem == "distilhubert":
        words = ["distilhubert"]
    elif specification is None or specification.name.split(".")[0] not in COMMANDS:
        return None
    elif specification.name == "hf_distilhubert.__main__":
        words = ["distilhubert"]
    else:
        words = ["python", "-m", specification.name]
    return shlex.join([*words, *map(_published, sys.argv[1:])])


def _published(word: str) -> str:
    """`/home/me/speech` -> `speech`, `--data=/home/me/speech` -> `--data=speech`."""
    if Path(word).is_absolute():
        return Path(word).name
    flag, equals, value = word.partition("=")
    return flag + equals + _published(value) if equals else word
