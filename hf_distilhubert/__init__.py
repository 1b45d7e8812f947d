"""Make, adapt and ship small speech models: DistilHuBERT for Hugging Face Transformers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hf_distilhubert.errors import UserError
    from hf_distilhubert.heads import HubertForLayerDistillation
    from hf_distilhubert.objective import distillation_loss
    from hf_distilhubert.settings import DistillConfig
    from hf_distilhubert.students import student_from_teacher
    from hf_distilhubert.transcribe import Transcriber

# torch and transformers take seconds to import, so every name is fetched when it is first used (PEP 562).
_HOME_OF = {
    "DistillConfig": "settings",
    "HubertForLayerDistillation": "heads",
    "Transcriber": "transcribe",
    "UserError": "errors",
    "distillation_loss": "objective",
    "student_from_teacher": "students",
}

__all__ = [
    "DistillConfig",
    "HubertForLayerDistillation",
    "Transcriber",
    "UserError",
    "distillation_loss",
    "student_from_teacher",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
