"""The passes over an exported graph, each kept only if the result proves equal, and reported."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from export.constant_folding import fold_constants
from export.depth_to_space import to_dcr
from export.onnx_export import tidy
from export.onnx_session import runner
from export.simplify import simplify

if TYPE_CHECKING:
    from onnx import ModelProto

    from export.onnx_session import Tensor

EQUAL = 1e-6
"""Largest difference of outputs that a pass may make: factors moved into weights round."""


@dataclass(frozen=True, kw_only=True)
class PassReport:
    """What one pass over the graph did.

    Attributes:
        name: of the pass.
        nodes_before: of the graph that it was given.
        nodes_after: of the graph that the next pass was given.
        kept: its result is what was gone on with.
        why: what it did, or why it did nothing or was discarded.
    """

    name: str
    nodes_before: int
    nodes_after: int
    kept: bool
    why: str

    def __str__(self) -> str:
        nodes = f"{self.nodes_before} nodes"
        if self.nodes_after != self.nodes_before:
            nodes = f"{self.nodes_before} to {self.nodes_after} nodes"
        return f"{self.name}: {nodes}, {self.why}"


Change = Callable[["ModelProto"], "ModelProto | str"]
"""A pass: a changed copy of a model, or why there is nothing to change."""

PASSES: dict[str, Change] = {
    "constant folding": fold_constants,
    "onnxsim": simplify,
    "depth-to-space CRD to DCR": to_dcr,
}


def run_passes(
    model: ModelProto, samples: Sequence[Tensor], threads: int
) -> tuple[ModelProto, tuple[PassReport, ...]]:
    """Return the model after all of `PASSES`, and what each did.

    Args:
        model: from `to_onnx`.
        samples: inputs, (1, 3, H, W), on which the outputs must be equal to `EQUAL`.
        threads: CPU threads of ONNX Runtime.
    """
    reports = []
    for name, change in PASSES.items():
        model, report = run_pass(name, change, model, samples, threads)
        reports.append(report)
    return model, tuple(reports)


def run_pass(
    name: str, change: Change, model: ModelProto, samples: Sequence[Tensor], threads: int
) -> tuple[ModelProto, PassReport]:
    """Return the model that a pass makes, or the model itself with a warning when that is worse.

    Metadata are carried over.
    """
    before = len(model.graph.node)

    def unchanged(why: str) -> tuple[ModelProto, PassReport]:
        return model, PassReport(
            name=name, nodes_before=before, nodes_after=before, kept=False, why=why
        )

    try:
        changed = change(model)
    except Exception as error:  # onnxsim is C++: it raises RuntimeError and plain Exception alike
        warnings.warn(f"{name} failed and is passed over: {error}", stacklevel=2)
        return unchanged(f"failed and passed over: {error}")
    if isinstance(changed, str):
        return unchanged(changed)
    del changed.metadata_props[:]
    changed.metadata_props.extend(model.metadata_props)
    tidy(changed)
    found = compare(model, changed, samples, threads)
    if isinstance(found, str):
        warnings.warn(f"the result of {name} is discarded: {found}", stacklevel=2)
        return unchanged(f"discarded: {found}")
    return changed, PassReport(
        name=name,
        nodes_before=before,
        nodes_after=len(changed.graph.node),
        kept=True,
        why=f"kept, outputs differ by {found:.2g}",
    )


def compare(
    model: ModelProto, changed: ModelProto, samples: Sequence[Tensor], threads: int
) -> float | str:
    """Return by how much outputs differ, or why a changed model must not replace the model."""
    import numpy as np

    if len(changed.graph.node) > len(model.graph.node):
        return f"it has {len(changed.graph.node)} nodes instead of {len(model.graph.node)}"
    for name in ("input", "output"):
        before, after = getattr(model.graph, name), getattr(changed.graph, name)
        if list(before) != list(after):
            return f"its {name} differs"
    try:
        run, run_changed = runner(model, threads), runner(changed, threads)
        pairs = [(run(lr), run_changed(lr)) for lr in samples]
    except Exception as error:  # whatever ONNX Runtime raises on a broken graph
        return f"it does not run ({error})"
    if any(a.shape != b.shape for a, b in pairs):
        return "its output has another shape"
    difference = float(np.max([np.abs(a - b).max() for a, b in pairs]))
    return difference if difference <= EQUAL else f"its output differs by {difference:.2g}"
