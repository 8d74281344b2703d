"""Simplify an ONNX model with onnxsim, and keep the result only if it is as good."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from export.onnx_export import tidy
from export.onnx_session import runner

if TYPE_CHECKING:
    from onnx import ModelProto

    from export.onnx_session import Tensor


def simplify(model: ModelProto, samples: list[Tensor], *, threads: int = 1) -> ModelProto:
    """Return the simplified model, or the model itself with a warning when that is no better.

    On what the exporter makes today onnxsim changes little; it is there for what it makes tomorrow.
    Metadata are carried over.

    Args:
        model: from `to_onnx`.
        samples: inputs, (1, 3, H, W), on which the outputs must be equal to 1e-6.
        threads: CPU threads of ONNX Runtime.
    """
    import onnxsim

    try:
        simplified, _ = onnxsim.simplify(model)
    except Exception as error:  # a C++ library: it raises RuntimeError and plain Exception alike
        warnings.warn(f"onnxsim failed and is passed over: {error}", stacklevel=2)
        return model
    del simplified.metadata_props[:]
    simplified.metadata_props.extend(model.metadata_props)
    tidy(simplified)
    reason = worse(model, simplified, samples, threads)
    if reason:
        warnings.warn(f"the result of onnxsim is discarded: {reason}", stacklevel=2)
        return model
    return simplified


def worse(
    model: ModelProto, simplified: ModelProto, samples: list[Tensor], threads: int
) -> str | None:
    """Return why a simplified model must not replace the model, or None."""
    import numpy as np

    if len(simplified.graph.node) > len(model.graph.node):
        return f"it has {len(simplified.graph.node)} nodes instead of {len(model.graph.node)}"
    for name in ("input", "output"):
        before, after = getattr(model.graph, name), getattr(simplified.graph, name)
        if list(before) != list(after):
            return f"its {name} differs"
    try:
        run, run_simplified = runner(model, threads), runner(simplified, threads)
        pairs = [(run(lr), run_simplified(lr)) for lr in samples]
    except Exception as error:  # whatever ONNX Runtime raises on a broken graph
        return f"it does not run ({error})"
    if any(a.shape != b.shape for a, b in pairs):
        return "its output has another shape"
    difference = max(float(np.abs(a - b).max()) for a, b in pairs)
    return f"its output differs by {difference:.2g}" if not difference <= 1e-6 else None
