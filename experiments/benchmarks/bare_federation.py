"""The bare side of federation.py: federated LoRA with peft, transformers and torch.distributed, and nothing else."""

import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from turns import Turns

Client = list[tuple[Tensor, Tensor]]
"""Batches of token ids and labels (n, T); -100 where the loss is not."""


def read_clients(path: Path, batch_size: int) -> list[Client]:
    """Return the batches of every client, of rows that were tokenised before: [[[token ids], [labels]], ...]."""
    clients = []
    for rows in json.loads(path.read_text()):
        ids, labels = (torch.tensor([row[place] for row in rows]) for place in (0, 1))
        clients.append(list(zip(torch.split(ids, batch_size), torch.split(labels, batch_size), strict=True)))
    return clients


def load(parameters: list[Tensor], values: Tensor) -> None:
    """Write one flat vector into the parameters."""
    with torch.no_grad():
        for parameter, value in zip(parameters, torch.split(values, [p.numel() for p in parameters]), strict=True):
            parameter.copy_(value.view_as(parameter))


def flat(parameters: list[Tensor]) -> Tensor:
    """Return the parameters as one vector."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in parameters])


def train(model: Any, parameters: list[Tensor], batches: Client, lr: float, fused: bool | None) -> list[float]:
    """Take one step on each batch with the optimizer that each client begins a round with; return the losses."""
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0, fused=fused)
    losses = []
    for ids, labels in batches:
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def main(folder: Path, shape: dict[str, Any]) -> None:
    """Run rounds, each a turn, until the parent is done."""
    turns = Turns()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, num_processes = dist.get_rank(), dist.get_world_size()
    clients = read_clients(folder / "clients.json", shape["batch_size"])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder / "model"), attn_implementation="sdpa")
    lora = LoraConfig(r=shape["rank"], lora_alpha=16, lora_dropout=0.0, target_modules="all-linear")
    model = get_peft_model(model, lora).train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    server, weight, seen = flat(parameters), 1 / len(clients), 0
    told: dict[str, float] = {}
    while True:
        turns.next(told)
        delta, losses = torch.zeros_like(server), []
        for client in clients[rank::num_processes]:
            steps = [client[(seen + step) % len(client)] for step in range(shape["steps"])]
            load(parameters, server)
            losses += train(model, parameters, steps, shape["lr"], shape["fused"])
            delta += weight * (flat(parameters) - server)
        dist.all_reduce(delta)
        server += delta
        seen += shape["steps"]
        # Summed over the processes by the parent.
        told = {"trained": server.numel() / num_processes, "loss": sum(losses) / len(losses) / num_processes}
