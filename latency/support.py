"""What runtimes do not run on the unit that is asked for: kinds of ops, by runtime and unit.

A phone's runtime hands such an op to the CPU and splits the network there. What the transfer takes
is in no profile, so a prediction names the op instead of guessing. Only what was seen is listed:
ONNX Runtime's table of what its XNNPACK provider takes, and NNAPI on the Snapdragon 8 Gen 1, where
the networks with a transposed convolution took ten times as long as others of their MACs
(ECNUSR/ETDS, CVPR 2023, table 2: FSRCNN).
"""

from __future__ import annotations

from collections import Counter

from latency.ops import OpList

_MOVED = {
    ("xnnpack", "cpu"): frozenset({"depth_to_space", "space_to_depth", "prelu", "clip"}),
    ("nnapi", "npu"): frozenset({"conv_transpose"}),
}


def moved(ops: OpList, runtime: str, unit: str) -> dict[str, int]:
    """Return the kinds of ops that a runtime moves to another unit, with how many there are."""
    kinds = _MOVED.get((runtime, unit), frozenset())
    return dict(Counter(op.kind for op in ops.ops if op.kind in kinds))
