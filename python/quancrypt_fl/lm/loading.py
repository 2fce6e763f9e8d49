"""Models, tokenizers and adapters from a local folder or, where there is a network, a hub.

No code comes with a model: ``trust_remote_code`` is never set, and weights are safetensors alone,
as pickles run what they hold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from quancrypt_fl.errors import FederatedError
from quancrypt_fl.lm.classes import model_class, task_of_type

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "INT8_WEIGHTS",
    "ModelError",
    "adapter_config",
    "has_tokenizer",
    "is_adapter",
    "load_config",
    "load_config_of",
    "load_model",
    "load_tokenizer",
    "model_folder",
    "quietly",
    "read_json",
    "weight_files",
]

_Config = TypeVar("_Config", bound=PreTrainedConfig)

INT8_WEIGHTS = "model-int8.safetensors"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_CONFIG, _WEIGHTS, _INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_UNKNOWN_TO_A_CLASS = re.compile(
    r"Unrecognized configuration class .*\.(\w+)Config'> for this kind of AutoModel: (\w+)"
)
_FILES_OF_A_MODEL = ("*.json", "*.safetensors", "*.model", "*.txt")
_LARGEST_JSON = 64 << 20  # bytes: tokenizers have the largest


class ModelError(FederatedError, ValueError):
    """A model, a tokenizer or an adapter cannot be used as asked."""


def model_folder(name: str | Path) -> Path:
    """The local folder of a model: ``name`` itself, or what a hub has under that name.

    Raises
    ------
    ModelError
        If it is neither, or the hub is out of reach.
    """
    text, folder = str(name), Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ModelError(f"{text}: is a file; allowed: a folder that save_pretrained wrote")
    if not _HUB_NAME.fullmatch(text):
        raise ModelError(f"{text}: there is no such folder")
    from huggingface_hub import snapshot_download

    try:
        with _quiet():
            return Path(snapshot_download(text, allow_patterns=list(_FILES_OF_A_MODEL)))
    except Exception as error:  # the client's own types and those of its HTTP library
        raise ModelError(
            f"{text}: is no local folder, and the hub did not give a model of that name "
            f"({_first_line(error)}); without network give a local folder, one that "
            "save_pretrained wrote: config.json, safetensors and the tokenizer's files"
        ) from error


def adapter_config(folder: Path) -> Mapping[str, Any]:
    """The configuration of a LoRA adapter whose files need no code of their own.

    Raises
    ------
    ModelError
        If the folder is another thing, or has no safetensors.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: there is no such folder; allowed: one that peft wrote")
    if not is_adapter(folder):
        raise ModelError(f"{folder}: has no {ADAPTER_CONFIG}; allowed: a folder that peft wrote")
    config = read_json(folder / ADAPTER_CONFIG)
    if (kind := config.get("peft_type")) != "LORA":
        raise ModelError(f"{folder}: is an adapter of type {str(kind)[:40]!r}; allowed: LORA")
    if config.get("megatron_config") is not None:
        raise ModelError(
            f"{folder}: its megatron_config names a Python module to import; remove that entry"
        )
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise ModelError(_no_safetensors(folder, ADAPTER_WEIGHTS))
    return config


def is_adapter(path: Path) -> bool:
    """Whether a folder is one that peft wrote."""
    return (path / ADAPTER_CONFIG).is_file()


def load_config(folder: Path) -> PreTrainedConfig:
    """The configuration of a model in a local folder."""
    if not (folder / _CONFIG).is_file():
        raise ModelError(
            f"{folder}: has no {_CONFIG}; allowed: a folder that save_pretrained wrote"
        )
    with quietly(folder):
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    return config


def load_config_of(folder: Path, kind: type[_Config], task: str) -> _Config:
    """:func:`load_config` where a task needs models of one type."""
    known = load_config(folder)
    if not isinstance(known, kind):
        raise ModelError(
            f"{folder}: is a model of type {known.model_type}; task {task} needs {kind.model_type}"
        )
    return known


def has_tokenizer(folder: Path) -> bool:
    """Whether there is a file with a tokenizer's words."""
    return any((folder / name).is_file() for name in _TOKENIZERS)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a model's folder.

    Raises
    ------
    ModelError
        If there is none, or it is damaged.
    """
    if not has_tokenizer(folder):
        raise ModelError(f"{folder}: has no tokenizer; needed: one of {', '.join(_TOKENIZERS)}")
    with quietly(folder, "its tokenizer: "):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    return tokenizer


def load_model(
    folder: Path,
    task: str = "causal",
    dtype: torch.dtype | None = None,
    *,
    labels: int | None = None,
    given: Collection[str] = (),
    **quantization: Any,
) -> PreTrainedModel:
    """A model in evaluation mode, on the CPU.

    Parameters
    ----------
    folder
        See :func:`model_folder`.
    task
        See :attr:`.FinetuneConfig.task`.
    dtype
        Of the weights; None: as in the file.
    labels
        Classes of a classifier; None: as in its configuration.
    given
        Modules whose weights the caller has: the folder need not have them.
    **quantization
        See :func:`.quantized.quantization`.

    Raises
    ------
    ModelError
        If it has no safetensors, is damaged, or is no model for the task.
    """
    kind = load_config(folder).model_type
    if (own := task_of_type(kind)) not in (None, task):
        raise ModelError(f"{folder}: is a model of type {kind}, for task {own}, not {task}")
    weight_files(folder)
    options: dict[str, Any] = dict(quantization)
    if labels is not None:
        options |= {"num_labels": labels, "ignore_mismatched_sizes": True}
    with quietly(folder):
        model, report = model_class(task).from_pretrained(
            folder,
            dtype="auto" if dtype is None else dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    absent = {*report["missing_keys"], *(entry[0] for entry in report["mismatched_keys"])}
    missing = sorted(key for key in absent if key.rpartition(".")[0] not in given)
    if missing:
        raise ModelError(
            f"{folder}: has no weights for {', '.join(missing[:3])} of {type(model).__name__}; "
            "allowed: a model that was trained for this task"
        )
    loaded: PreTrainedModel = model.eval()
    return loaded


def weight_files(folder: Path) -> Mapping[str, Path]:
    """The file of each tensor of a model, from its index or its only file.

    Raises
    ------
    ModelError
        If there are no safetensors, or the index names a file outside of the folder.
    """
    index = folder / _INDEX
    if index.is_file():
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict) or not names:
            raise ModelError(f"{index}: has no weight_map")
        for name in set(names.values()):
            if not isinstance(name, str) or PurePosixPath(name).name != name:
                raise ModelError(f"{index}: names a file outside of its folder: {str(name)[:80]!r}")
            if not (folder / name).is_file():
                raise ModelError(f"{folder}: has no {name[:80]}, which its index names")
        return {tensor: folder / name for tensor, name in names.items()}
    only = folder / _WEIGHTS
    if not only.is_file():
        raise ModelError(_no_safetensors(folder, _WEIGHTS))
    try:
        with safe_open(only, framework="pt") as file:
            return dict.fromkeys(file.keys(), only)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{only}: is cut short, damaged, or no safetensors ({_first_line(error)})"
        ) from error


def _no_safetensors(folder: Path, name: str) -> str:
    if (folder / INT8_WEIGHTS).is_file():
        return (
            f"{folder}: has weights in int8, which quancrypt lm generate and evaluate read; "
            "allowed here: floating-point weights"
        )
    pickles = sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
    if pickles:
        return (
            f"{folder}: has {pickles[0].name}, a pickle, which runs what is in it, and no {name}; "
            "allowed: safetensors (save_pretrained writes them)"
        )
    return f"{folder}: has no {name}; allowed: a folder with safetensors"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of limited size.

    Raises
    ------
    ModelError
        If it is none.
    """
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ModelError(f"{path}: has more than {_LARGEST_JSON:,} bytes")
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {_first_line(error)}") from error
    if not isinstance(document, dict):
        raise ModelError(f"{path}: is no JSON object")
    return document


@contextmanager
def quietly(folder: Path, what: str = "") -> Iterator[None]:
    """Put the folder in front of what transformers and peft raise, and keep them quiet."""
    try:
        with _quiet():
            yield
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder}: {what}{_first_line(error)}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, no advice: a command's output is its own."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _first_line(error: BaseException) -> str:
    """What an error says, shortened; two lines where the first one only announces the second."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if unknown := _UNKNOWN_TO_A_CLASS.match(lines[0]):
        return f"is a model of type {unknown[1]}; allowed: one that {unknown[2]} loads"
    return " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])
