"""Latency and cost of convolutional networks on phones: op lists, costs, profiles, profilers.

The lowest room: it imports none of `mfagan`, `export` and `nas`, and neither torch nor onnx when
it is imported. It also holds what every command shares (`commandline`, `files`, `progress`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from latency.costs import Costs
from latency.ops import Op, OpList

if TYPE_CHECKING:
    from latency.onnx_ops import from_onnx
    from latency.torch_ops import from_torch

__all__ = ["Costs", "Op", "OpList", "from_onnx", "from_torch"]


def __getattr__(name: str) -> Any:
    """Import the two readers of networks when they are asked for: they need onnx or torch."""
    if name == "from_onnx":
        from latency.onnx_ops import from_onnx

        return from_onnx
    if name == "from_torch":
        from latency.torch_ops import from_torch

        return from_torch
    raise AttributeError(f"module 'latency' has no attribute '{name}'")
