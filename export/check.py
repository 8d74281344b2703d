"""Say how much of an ONNX file an execution provider runs, in how many parts, and what to change.

from export.check import check
print(check(load_onnx("model.onnx"), "nnapi"))
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from export.graph_view import FLOAT16, INT16, UINT16, GraphView
from export.providers import RULES, Refusal
from latency.commandline import nearest
from latency.model_file import shown

if TYPE_CHECKING:
    from onnx import ModelProto

PROVIDERS = tuple(RULES)

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_LEAST_RUNTIME = {15: "1.10", 16: "1.11", 17: "1.12", 18: "1.14", 19: "1.15", 20: "1.17"}
_LATER_RUNTIME = "1.18"
_OPSET_16_BIT = 21
_INT64 = 7


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a provider makes of a graph.

    Attributes:
        ops: that it concerns, the most frequent first; empty of the whole graph.
        nodes: how many they are.
        what: stands in the way, or is to be known.
        change: what helps.
    """

    ops: tuple[str, ...] = ()
    nodes: int = 0
    what: str
    change: str

    def __str__(self) -> str:
        named = f"{self.nodes} x {shown(', '.join(self.ops), 120)}: " if self.ops else ""
        return f"{named}{self.what}; {self.change}"


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """How an execution provider takes a graph.

    Attributes:
        provider: of `PROVIDERS`.
        opset: of the graph.
        fixed: all sides of its inputs are known.
        nodes: that compute something of the image.
        taken: of those, what the provider runs; the CPU provider runs the rest.
        partitions: parts that what it runs falls into; between them data goes back and forth.
        ops: by name, how many there are and how many of them the provider runs.
        findings: what stands in the way, and what to know, the largest first.
    """

    provider: str
    opset: int
    fixed: bool
    nodes: int
    taken: int
    partitions: int
    ops: dict[str, tuple[int, int]]
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> str:
        """Say in a few words how much runs there."""
        if not self.taken:
            return "nothing runs there"
        parts = f"{self.partitions} part{'' if self.partitions == 1 else 's'}"
        if self.taken == self.nodes:
            return f"all {self.nodes} nodes in {parts}"
        return f"{self.taken} of {self.nodes} nodes in {parts}"

    @property
    def short(self) -> str:
        """Return provider, verdict and the first finding's reason, for a table."""
        reason = f" ({self.findings[0].what})" if self.taken < self.nodes else ""
        return f"{self.provider}: {self.verdict}{reason}"

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {**asdict(self), "verdict": self.verdict}

    def __str__(self) -> str:
        sizes = "fixed sizes" if self.fixed else "dynamic sizes"
        runtime = _LEAST_RUNTIME.get(self.opset, _LATER_RUNTIME if self.opset > 20 else "")
        needs = f", ONNX Runtime {runtime} or later" if runtime else ""
        lines = [f"{self.provider}: {self.verdict}; opset {self.opset}{needs}; {sizes}"]
        left = {op: count - taken for op, (count, taken) in self.ops.items() if taken < count}
        if left and self.provider != "cpu":
            named = ", ".join(f"{count} x {op}" for op, count in left.items())
            lines.append(f"  left to the CPU provider: {shown(named, 300)}")
        return "\n".join([*lines, *(f"  - {finding}" for finding in self.findings)])


def check(model: ModelProto, provider: str) -> CheckReport:
    """Return how an execution provider takes a model; nothing of it is run.

    Args:
        model: of `latency.onnx_model.load_onnx`.
        provider: of `PROVIDERS`.

    Raises:
        ValueError: there is no such provider, or the graph is damaged.
    """
    if provider not in RULES:
        raise ValueError(
            f"a provider must be {', '.join(PROVIDERS)}, got '{provider}'"
            f"{nearest(provider, PROVIDERS)}"
        )
    try:
        return _check(GraphView(model), provider)
    except (LookupError, TypeError, ArithmeticError, AttributeError) as error:
        # Whatever a damaged node lacks or has too much of; its attributes come in any combination.
        raise ValueError("the model is damaged: a node lacks what its op needs") from error


def _check(view: GraphView, provider: str) -> CheckReport:
    refusals = [RULES[provider](view, node) for node in view.nodes]
    taken = _taken(view, refusals, provider)
    found = _refused(view, refusals)
    if not view.fixed:
        found += [one for one in _once_fixed(view, provider) if one not in found]
    counts = Counter(node.op_type for node in view.nodes)
    run = Counter(view.nodes[number].op_type for number, there in enumerate(taken) if there)
    return CheckReport(
        provider=provider,
        opset=view.opset,
        fixed=view.fixed,
        nodes=len(view.nodes),
        taken=sum(taken),
        partitions=_partitions(view, taken),
        ops={shown(op): (count, run[op]) for op, count in counts.most_common()},
        findings=(*found, *_remarks(view, provider)),
    )


def _taken(view: GraphView, refusals: list[Refusal | None], provider: str) -> list[bool]:
    """Return which nodes a provider runs; XNNPACK has quantizers inside other ops only."""
    taken = [refusal is None for refusal in refusals]
    if provider != "xnnpack":
        return taken
    for kind, beside in (("DequantizeLinear", view.targets), ("QuantizeLinear", view.sources)):
        for number, node in enumerate(view.nodes):
            if node.op_type == kind and taken[number]:
                taken[number] = any(taken[other] for other in beside(number))
    return taken


def _partitions(view: GraphView, taken: list[bool]) -> int:
    """Return how many parts ONNX Runtime makes of the nodes that a provider runs.

    As its partitioner does: a part grows with every node whose inputs are all there, and is closed
    when only nodes are left that it does not hold.
    """
    missing = [len(view.sources(number)) for number in range(len(view.nodes))]
    ready = deque(number for number, count in enumerate(missing) if not count)
    waiting: deque[int] = deque()
    border: set[int] = set()
    parts, size = 0, 0
    while ready or waiting:
        if not ready:
            parts, size, border = parts + bool(size), 0, set()
            ready, waiting = waiting, ready
            continue
        number = ready.popleft()
        if not taken[number] and number in border:
            waiting.append(number)
            continue
        targets = set(view.targets(number))
        if taken[number]:
            size += 1
            border.discard(number)
            border |= targets
        for target in targets:
            missing[target] -= 1
            if not missing[target]:
                ready.append(target)
    return parts + bool(size)


def _refused(view: GraphView, refusals: list[Refusal | None]) -> list[Finding]:
    """Return one finding for each reason, that of most nodes first."""
    nodes: dict[Refusal, Counter[str]] = {}
    for node, refusal in zip(view.nodes, refusals, strict=True):
        if refusal is not None:
            nodes.setdefault(refusal, Counter())[node.op_type] += 1
    found = []
    for refusal, ops in sorted(nodes.items(), key=lambda item: -item[1].total()):
        named = tuple(shown(op) for op, _ in ops.most_common())
        found.append(Finding(ops=named, nodes=ops.total(), what=refusal.why, change=refusal.change))
    return found


def _once_fixed(view: GraphView, provider: str) -> list[Finding]:
    """Return what stands in the way of a graph of dynamic sizes besides those."""
    view.fixed = True
    try:
        refusals = [
            None if _INT64 in map(view.kinds.get, node.input) else RULES[provider](view, node)
            for node in view.nodes
        ]
    finally:
        view.fixed = False
    return _refused(view, refusals)


def _remarks(view: GraphView, provider: str) -> list[Finding]:
    """Return what is to be known though every node may run."""
    found = []
    wide = {UINT16, INT16}.intersection(view.kinds[n] for n in view.kinds)
    standard = any(n.op_type in _QUANTIZERS and not n.domain for n in view.nodes)
    if wide and standard and view.opset < _OPSET_16_BIT:
        what = f"16-bit quantization at opset {view.opset}"
        found.append(Finding(what=what, change="export with --opset 21 or later"))
    if provider == "cpu" and wide:
        what = "the CPU has no kernels for 16-bit activations and computes them in float"
        found.append(Finding(what=what, change="give it int8 or fp32; this is for NPUs"))
    if provider == "cpu" and FLOAT16 in view.kinds.values():
        what = "a CPU without fp16 kernels computes in float32 between casts, slower than fp32"
        found.append(Finding(what=what, change="give it fp32 or int8"))
    if provider == "nnapi":
        what = "NNAPI is deprecated since Android 15, and often slower than the CPU"
        found.append(Finding(what=what, change="measure it against xnnpack and qnn"))
    if provider == "qnn":
        found += _floats(view)
    return found


def _floats(view: GraphView) -> list[Finding]:
    """Tell of convolutions in float: the NPU runs them in fp16, if it has that at all."""
    convolutions = [n for n in view.nodes if n.op_type in ("Conv", "ConvTranspose")]
    count = sum(not view.quantized_from(node) for node in convolutions)
    if not count:
        return []
    return [
        Finding(
            ops=("Conv",),
            nodes=count,
            what=f"of {len(convolutions)} are in float, which the NPU runs as fp16",
            change="quantize: --precision int8 or, for quality, int8-a16",
        )
    ]
