"""The classes of transformers that models for a task have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    CLIPModel,
    LlavaForConditionalGeneration,
)

__all__ = ["TASKS", "model_class", "task_of_class", "task_of_type"]

TASKS = ("causal", "classify")
"""What models of text are for; ``clip`` and ``multimodal`` are for pictures too."""

_CLASSES: Mapping[str, Any] = {
    "causal": AutoModelForCausalLM,
    "classify": AutoModelForSequenceClassification,
    "clip": CLIPModel,
    "multimodal": LlavaForConditionalGeneration,
}
_CLASSIFIERS = "ForSequenceClassification"
_TYPES = {"clip": "clip", "llava": "multimodal"}  # in config.json


def model_class(task: str) -> Any:
    """The class that makes models for a task."""
    return _CLASSES[task]


def task_of_class(name: str) -> str:
    """What a class of that name is for; ``causal`` if its name does not tell."""
    if name.endswith(_CLASSIFIERS):
        return "classify"
    return next((task for task, made in _CLASSES.items() if made.__name__ == name), "causal")


def task_of_type(kind: str) -> str | None:
    """What models of a type are for that serve one task alone; None for others."""
    return _TYPES.get(kind)
