"""MFAGAN: a small super-resolution generator, its training and its use.

    import mfagan
    large = mfagan.upscale(image)  # (H, W, 3) uint8 RGB in, 4x larger out
    model = mfagan.load("generator.onnx")  # or .safetensors, ESRGAN's .pth, a shipped "small"
    large = mfagan.upscale(image, model)

Importing this package does not import torch.
"""

from __future__ import annotations

from typing import Any

__all__ = ["load", "upscale"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from mfagan.model import load

        return load
    if name == "upscale":
        from mfagan.upscaling import upscale

        return upscale
    raise AttributeError(f"module 'mfagan' has no attribute '{name}'")
