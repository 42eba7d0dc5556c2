"""Compiling a network by torch.compile, where there is a compiler for it."""

import os
import shutil

import torch
from torch import nn


def compiled(model: nn.Module, device: torch.device) -> nn.Module:
    """Return a network that computes what `model` does, from its very parameters, but compiled.

    It compiles when it is first called.

    Raises:
        ValueError: `device` is a CPU, and there is no C++ compiler.
    """
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise ValueError(
            f"--compile finds no C++ compiler {compiler!r}: expected one, for the CPU, on the PATH "
            "or in the environment variable CXX"
        )
    return torch.compile(model)
