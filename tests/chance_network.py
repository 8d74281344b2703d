"""Networks of chance whose convolutions all have a bias."""

from pathlib import Path

import torch
from torch import nn

from mfagan.about import About
from mfagan.architecture import parse
from mfagan.checkpoint import build_network, save_network


def biased(network: nn.Module, std: float = 0.01) -> None:
    """Give every convolution a bias: the exporter drops those of a fresh network, all zero."""
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=std)


def written(folder: Path, architecture: str, std: float = 0.01) -> Path:
    """Return the weights file of an architecture in a folder, written unless it is there."""
    path = folder / f"{architecture}.safetensors"
    if not path.exists():
        torch.manual_seed(0)
        network = build_network(parse(architecture))
        biased(network, std)
        save_network(path, network, About(kind="generator", architecture=architecture))
    return path
