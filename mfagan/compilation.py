"""torch.compile of a stage's networks, in place: weights and their names stay as they are."""

from __future__ import annotations

import shutil

import torch
from torch import nn

from latency.commandline import FailureError
from mfagan.generator import Generator
from mfagan.stages import Stage

_COMPILERS = ("g++", "c++", "clang++")
"""Of which torch.compile needs one, to turn what it makes for the CPU into machine code."""


def check_compiler(device: torch.device) -> None:
    """Refuse `--compile on` where nothing can be compiled, before the first step.

    Raises:
        FailureError: there is no C++ compiler.
    """
    import os

    compilers = (os.environ["CXX"],) if os.environ.get("CXX") else _COMPILERS
    if device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise FailureError(
            f"--compile on needs a C++ compiler, and there is none of {', '.join(compilers)}; "
            "install one (apt-get install g++), or leave --compile out"
        )


def compile_networks(stage: Stage) -> None:
    """Compile what a stage runs at every step; what is not trained on, as validation, is not.

    A supernet is left as it is: each of its SubGenerators would be compiled on its own.
    """
    for network in _compilable(stage):
        # The methods, and not the modules: a module around them would change the weights' names.
        # Sizes are taken as they come: --accumulate may have a smaller last part.
        for name in ("forward_features", "forward"):
            method = getattr(network, name, None)
            if method is not None and name not in vars(network):
                setattr(network, name, torch.compile(method))
                break


def _compilable(stage: Stage) -> list[nn.Module]:
    networks = [stage.generator, getattr(stage, "teacher", None)]
    return [
        network
        for network in networks
        if network is not None and not (isinstance(network, Generator) and network.space)
    ]
