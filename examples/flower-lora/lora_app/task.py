"""The adapted model, the texts, local training: nothing here knows of federation or encryption."""

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel

LENGTH = 32  # tokens of a row


def base_model(folder: Path) -> PreTrainedModel:
    """A client's own copy of the base model, in a folder that save_pretrained wrote."""
    return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)


def adapted(model: PreTrainedModel, rank: int) -> PeftModel:
    """The model with a LoRA adapter whose A is the same for all and stays so (FFA-LoRA).

    Averages of B are then exact averages of the products B A.
    """
    torch.manual_seed(1)  # A is drawn from this: the same at every client
    config = LoraConfig(r=rank, target_modules=["c_attn"], fan_in_fan_out=True)
    adapter = get_peft_model(model, config)
    for name, parameter in adapter.named_parameters():
        if "lora_A" in name:
            parameter.requires_grad_(False)
    return adapter


def blank(config: Path, rank: int) -> PeftModel:
    """The same without the base model's weights, for the server: names and shapes, and B = 0."""
    return adapted(AutoModelForCausalLM.from_config(GPT2Config.from_json_file(config)), rank)


def travelling(adapter: PeftModel) -> dict[str, Tensor]:
    """What is averaged: the B of every layer."""
    state = get_peft_model_state_dict(adapter)
    return {name: tensor for name, tensor in state.items() if "lora_B" in name}


def load_rows(text: Path) -> tuple[Tensor, Tensor]:
    """Rows of bytes of a text, shape (rows, LENGTH): the first 90 % to train on, and the rest."""
    data = torch.frombuffer(bytearray(text.read_bytes()), dtype=torch.uint8).long()
    rows = data[: len(data) // LENGTH * LENGTH].view(-1, LENGTH)
    cut = len(rows) * 9 // 10
    return rows[:cut], rows[cut:]


def train(adapter: PeftModel, rows: Tensor, steps: int, lr: float) -> float:
    """Train in place on batches of 8 rows; the mean loss."""
    adapter.train()
    trained = [parameter for parameter in adapter.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=0.0)
    total = 0.0
    for _ in range(steps):
        batch = rows[torch.randint(len(rows), (8,))]
        optimizer.zero_grad()
        loss = adapter(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / steps


@torch.inference_mode()
def test(adapter: PeftModel, rows: Tensor) -> float:
    """Mean loss per token."""
    adapter.eval()
    return float(adapter(input_ids=rows, labels=rows).loss)
