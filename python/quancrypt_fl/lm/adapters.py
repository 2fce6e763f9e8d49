"""LoRA adapters in four modes: what is trained and sent, what is frozen, and when.

An adapter adds ``s B A`` to a weight, with ``s = alpha / rank``, B of shape (out, rank) and A of
shape (rank, in). A server that adds ciphertexts can average factors, not products; modes differ in
what they freeze so that the average is right (docs/language-models.md):

- ``ffa``: B is trained, A stays as it began, the same for all (FFA-LoRA, arXiv 2403.12313).
- ``sb``: R of shape (rank, rank) is trained in ``s B R A``, B and A stay (Fed-SB, arXiv 2502.15436,
  with the start of LoRA-XS, arXiv 2405.17604: singular vectors of the weight, and R = 0).
- ``alternate``: B is trained in even rounds, A in odd ones (RoLoRA).
- ``both``: B and A are trained and averaged one by one (FedIT), which is inexact.

Modules that the model did not come with, such as a classifier's head, and the connector of a
multimodal model are trained whole and travel in every round.
"""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, TaskType, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.numpy import save
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from quancrypt_fl.atomic_files import write_atomically
from quancrypt_fl.lm.loading import ModelError
from quancrypt_fl.lm.quantized import floating_weight
from quancrypt_fl.lm.small_factor import SmallFactor, orthonormal_factors
from quancrypt_fl.lm.turns import turns_of
from quancrypt_fl.method.roles import Tensors
from quancrypt_fl.seeds import derive_seed

__all__ = ["Adapter", "AdapterOptions", "Factors"]

_NAME = "default"  # peft's name of an only adapter
_TYPES = {"causal": TaskType.CAUSAL_LM, "classify": TaskType.SEQ_CLS}  # peft's; others have none


@dataclass(frozen=True)
class AdapterOptions:
    """Mode, rank, scale, adapted modules (None: the usual ones), and how ``sb`` begins."""

    mode: str
    rank: int
    alpha: float
    targets: Sequence[str] | str | None
    sb_init: str = "svd"


@dataclass(frozen=True)
class Factors:
    """The factors of one adapted weight, ``B`` (out, rank) and ``A`` (rank, in), in float64."""

    layer: str
    b: NDArray[np.float64]
    a: NDArray[np.float64]


class Adapter:
    """A model with a LoRA adapter, and which of its tensors travel.

    Parameters
    ----------
    model
        The base model, which is changed in place and frozen.
    task
        One of :attr:`.FinetuneConfig.task`.
    options
        See :class:`AdapterOptions`.
    whole
        Modules that are trained whole; see :class:`.Base`.
    seed
        Decides the initial factors, which all clients share.

    Attributes
    ----------
    model
        The model as peft wraps it.
    turns
        See :attr:`quancrypt_fl.method.fedavg.FedAvg.turns`.

    Raises
    ------
    ModelError
        If the model has no such modules, or modules that the mode cannot adapt.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        task: str,
        options: AdapterOptions,
        whole: Sequence[str],
        seed: int,
    ) -> None:
        self._mode = options.mode
        self._lora = LoraConfig(
            task_type=_TYPES.get(task),
            r=options.rank,
            lora_alpha=options.alpha,  # type: ignore[arg-type]  # any number, in fact
            lora_dropout=0.0,
            target_modules=options.targets if isinstance(options.targets, str | None)
            else list(options.targets),
            modules_to_save=list(whole) or None,
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_seed(seed, "adapter"))
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # advice on gradient checkpointing, Conv1D, ...
                    self.model = get_peft_model(model, self._lora)
            except (ValueError, KeyError, TypeError) as error:
                raise ModelError(
                    f"no adapter for this model: {error}; target_modules names the modules to "
                    "adapt, or is all-linear"
                ) from error
            self._layers = dict(_layers(self.model))
            if options.mode == "sb":
                for name, layer in self._layers.items():
                    _make_small(name, layer, options)
        self._travelling = dict(self._named())
        self.turns = turns_of(options.mode, self._travelling)

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What is ever trained, by the names that peft writes, or ``lora_R`` for a small square."""
        left_out = ".lora_A." if self._mode in ("ffa", "sb") else None
        for name, parameter in self.model.named_parameters():
            if f".{_NAME}." in name and not (left_out and left_out in name):
                yield _written(name), parameter

    def prepare(self, t: int) -> dict[str, nn.Parameter]:
        """Let what travels in round ``t`` be trained, and nothing else; returns it by name."""
        turn = self.turns[t % len(self.turns)] if self.turns else self._travelling.keys()
        self.model.requires_grad_(False)
        chosen = {name: one for name, one in self._travelling.items() if name in turn}
        for parameter in chosen.values():
            parameter.requires_grad_(True)
        return chosen

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """A copy of all that ever travels."""
        return {name: _array(parameter) for name, parameter in self._travelling.items()}

    def load(self, weights: Tensors) -> None:
        """Take over what travels."""
        with torch.no_grad():
            for name, parameter in self._travelling.items():
                parameter.copy_(torch.from_numpy(weights[name]))

    def frozen(self) -> dict[str, Tensor]:
        """The factors that never travel, by their names in the model: its own, no copies."""
        travelling = {id(parameter) for parameter in self._travelling.values()}
        return {
            name: tensor.detach()
            for name, tensor in self.model.state_dict(keep_vars=True).items()
            if ".lora_" in name and id(tensor) not in travelling
        }

    def sizes(self) -> tuple[int, int]:
        """Numbers of values: of model and adapter, and of what travels, the mean over turns."""
        whole = sum(parameter.numel() for parameter in self.model.parameters())
        turns = self.turns or (frozenset(self._travelling),)
        sent = sum(self._travelling[name].numel() for turn in turns for name in turn)
        return whole, round(sent / len(turns))

    def factors(self, weights: Mapping[str, NDArray[np.floating]]) -> Iterator[Factors]:
        """``B`` and ``A`` of every adapted weight, ``B R`` and ``A`` in mode ``sb``.

        Parameters
        ----------
        weights
            What travels; frozen factors are the model's own.
        """
        for name, layer in self._layers.items():
            a = weights.get(f"{name}.lora_A.weight", _array(_weight(layer.lora_A)))
            if self._mode == "sb":
                small = weights[f"{name}.lora_R.weight"].astype(np.float64)
                b = _array(_small(layer).left).astype(np.float64) @ small
            else:
                b = weights[f"{name}.lora_B.weight"].astype(np.float64)
            yield Factors(name, b, a.astype(np.float64))

    def fingerprint(self) -> str:
        """SHA-256 of all that never travels: base model and frozen factors."""
        digest = hashlib.sha256()
        travelling = {id(parameter) for parameter in self._travelling.values()}
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            if id(tensor) not in travelling:
                digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
                digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def save(self, folder: Path, weights: Tensors) -> None:
        """Write the adapter as peft does: ``PeftModel.from_pretrained`` loads it.

        In mode ``sb`` what is written is the equal adapter of ``B R`` and ``A``.
        """
        tensors = {name: tensor for name, tensor in weights.items() if ".lora_R." not in name}
        for factors in self.factors(weights):
            for letter, factor in (("B", factors.b), ("A", factors.a)):
                written = np.ascontiguousarray(factor, dtype=np.float32)
                tensors[f"{factors.layer}.lora_{letter}.weight"] = written
        data = save(dict(tensors), metadata={"format": "pt"})
        write_atomically(folder / "adapter_model.safetensors", data)
        config = copy.copy(self._lora)
        config.inference_mode = True
        if config.target_modules is not None and not isinstance(config.target_modules, str):
            config.target_modules = sorted(config.target_modules)
        mapping = None
        if config.task_type is None:  # as peft writes it then: the class that the adapter is for
            kind = type(self.model.get_base_model())
            mapping = {"base_model_class": kind.__name__, "parent_library": kind.__module__}
        config.save_pretrained(str(folder), auto_mapping_dict=mapping)


def _layers(model: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    """Adapted modules by the names that peft writes."""
    for name, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        if _NAME not in module.lora_A or _weight(module.lora_A).ndim != 2:
            raise ModelError(
                f"{name}: is a {type(module.get_base_layer()).__name__}, whose adapter is no "
                "product of two matrices; allowed: linear modules (--target-modules)"
            )
        yield name, module


def _make_small(name: str, layer: LoraLayer, options: AdapterOptions) -> None:
    """Freeze orthonormal B and A around a square of zeros."""
    base = layer.get_base_layer()
    weight = floating_weight(base)
    left, right = orthonormal_factors(
        weight.T if isinstance(base, Conv1D) else weight, options.rank, options.sb_init, name
    )
    with torch.no_grad():
        _weight(layer.lora_A).copy_(right)
    parametrize.register_parametrization(layer.lora_B[_NAME], "weight", SmallFactor(left))


def _small(layer: LoraLayer) -> SmallFactor:
    return next(module for module in layer.lora_B.modules() if isinstance(module, SmallFactor))


def _weight(factor: nn.ModuleDict) -> Tensor:
    weight = factor[_NAME].weight
    assert isinstance(weight, Tensor)
    return weight


def _written(name: str) -> str:
    """The name of a parameter in the files of peft."""
    name = name.replace(f".lora_B.{_NAME}.parametrizations.weight.original", ".lora_R.weight")
    return name.replace(f".modules_to_save.{_NAME}.", ".").replace(f".{_NAME}.", ".")


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.array(tensor.detach().float().cpu().numpy(), order="C")
