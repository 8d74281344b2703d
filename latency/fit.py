"""Fit the laws of latency to measured networks, and measure how well they predict unseen ones.

Least squares of the relative error, coefficients at least 0. Every family of networks is then left
out once, which gives the error that a profile states and the width of its interval. The terms of a
typed law are given, not chosen here: chosen anew without each family, on five or on eighty
networks, they predict that family worse than the law of MACs does (docs/latency.md).
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from latency import law, op_law
from latency.commandline import nearest
from latency.op_law_fit import LEAST_NETWORKS as LEAST_FOR_OPS
from latency.op_law_fit import OpLawFit, Settings
from latency.ops import WEIGHTED, OpList
from latency.terms import TERMS, terms

LEAST_NETWORKS = 4
_STARTS = {"floor_ms": (0.3, 3.0), "gmac_per_s": (20.0, 250.0), "gb_per_s": (5.0, 30.0)}
"""Starting points of the roofline: a range in which phones of this decade lie."""

_MANY_GROUPS, _FOLDS = 40, 12
"""Families, above which so many folds of them are left out instead of each alone."""

Coefficients = dict[str, Any]
Fitter = Callable[[Sequence["Sample"]], Coefficients]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One network's measurements on one target.

    Attributes:
        network: its name.
        ops: its ops at the size at which it was measured.
        times_ms: every measurement, above 0; their median is fitted.
        family: what is left out together with it; empty means itself.
    """

    network: str
    ops: OpList
    times_ms: tuple[float, ...]
    family: str = ""

    def __post_init__(self) -> None:
        if not self.times_ms or not all(0 < t < math.inf for t in self.times_ms):
            raise ValueError(f"'{self.network}' must have measured times above 0")

    @property
    def ms(self) -> float:
        """The median."""
        return statistics.median(self.times_ms)

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return sum(op.macs for op in self.ops.ops)

    @property
    def group(self) -> str:
        """What is left out together."""
        return self.family or self.network


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A law fitted to networks.

    Attributes:
        law: one of `latency.law.LAWS`.
        coefficients: of the law.
        errors: relative error of each network, by the law fitted on all.
        left_out: relative error of each network, by the law fitted without its family.
        unpredictable: networks with a kind of convolution or product that no other family has;
            they are in the fit and not in `left_out`.
    """

    law: str
    coefficients: Coefficients
    errors: dict[str, float]
    left_out: dict[str, float]
    unpredictable: tuple[str, ...] = ()

    @property
    def left_out_percent(self) -> float:
        """Mean absolute error on networks left out, percent."""
        return mean_percent(self.left_out)


def merge_twins(samples: Sequence[Sample]) -> list[Sample]:
    """Join samples of one network under several names.

    Two networks of the same input, MACs, parameters and tensors are one: it must never be in the
    fit and in the test at once.
    """
    groups: dict[tuple[object, ...], list[Sample]] = {}
    for sample in samples:
        weights = sum(op.parameters for op in sample.ops.ops)
        # Not all tensors: exporters of one network differ in additions and reshapes.
        tensors = sum(op.elements for op in sample.ops.ops if op.kind in WEIGHTED)
        key = (sample.ops.input_shape, sample.macs, weights, tensors)
        groups.setdefault(key, []).append(sample)
    return [
        replace(
            group[0],
            network=" = ".join(dict.fromkeys(sample.network for sample in group)),
            times_ms=tuple(itertools.chain.from_iterable(s.times_ms for s in group)),
        )
        for group in groups.values()
    ]


def fit(
    samples: Sequence[Sample],
    law_name: str,
    precision: str,
    *,
    names: Sequence[str] = (),
    settings: Settings | None = None,
) -> Fit:
    """Fit one law to networks, and to all but one family in turn.

    Args:
        samples: at least 4 networks of at least 2 families, no twins.
        law_name: one of `latency.law.LAWS`.
        precision: a key of `latency.law.BYTES_PER_ELEMENT`.
        names: terms of a typed law, of `latency.terms.TERMS`, and `floor_ms`.
        settings: of the law `ops`; None finds them.

    Raises:
        ValueError: too few networks or families, or a term is not known.
    """
    needed = {"roofline": len(law.ROOFLINE) + 1, "ops": LEAST_FOR_OPS, "typed": len(names) + 1}
    least = max(LEAST_NETWORKS, needed.get(law_name, 0))
    if len(samples) < least:
        raise ValueError(
            f"the law '{law_name}' needs at least {least} different networks, got "
            f"{len(samples)}; measure more, of different sizes"
        )
    if law_name == "typed":
        _check_terms(names)
    if len({sample.group for sample in samples}) < 2:
        raise ValueError("all networks are of one family; measure networks of another one too")
    if law_name == "ops":
        return _fit_ops(samples, settings)
    fitter = _fitter(law_name, precision, names)
    coefficients = fitter(samples)
    errors = relative_errors(samples, law_name, coefficients, precision)
    left_out, unpredictable = leave_out(samples, law_name, precision, fitter)
    return Fit(
        law=law_name,
        coefficients=coefficients,
        errors=errors,
        left_out=left_out,
        unpredictable=unpredictable,
    )


def fit_best(samples: Sequence[Sample], precision: str) -> list[Fit]:
    """Fit every law that has enough networks, but the typed; the first predicts best.

    Raises:
        ValueError: fewer than 4 networks, or one family.
    """
    fits = [fit(samples, "macs", precision)]
    if len(samples) > len(law.ROOFLINE):
        fits.append(fit(samples, "roofline", precision))
    if len(samples) >= LEAST_FOR_OPS:
        fits.append(fit(samples, "ops", precision))
    return sorted(fits, key=lambda one: one.left_out_percent)


def relative_errors(
    samples: Sequence[Sample], law_name: str, coefficients: Coefficients, precision: str
) -> dict[str, float]:
    """Return predicted / measured - 1 by network."""
    return {
        s.network: law.network_ms(s.ops, law_name, coefficients, precision) / s.ms - 1
        for s in samples
    }


def leave_out(
    samples: Sequence[Sample], law_name: str, precision: str, fitter: Fitter
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return each network's error by the law fitted without its family, and who cannot have one.

    Of many families, several are left out at once.
    """
    errors: dict[str, float] = {}
    unpredictable: list[str] = []
    groups = list(dict.fromkeys(sample.group for sample in samples))
    folds = len(groups) if len(groups) <= _MANY_GROUPS else _FOLDS
    for fold in range(folds):
        out = set(groups[fold::folds])
        rest = [sample for sample in samples if sample.group not in out]
        known = set().union(*(_classes(sample.ops) for sample in rest))
        mine = [sample for sample in samples if sample.group in out]
        unpredictable += [s.network for s in mine if not _classes(s.ops) <= known]
        mine = [sample for sample in mine if _classes(sample.ops) <= known]
        if mine:
            errors |= relative_errors(mine, law_name, fitter(rest), precision)
    if not errors:
        raise ValueError("no network has only kinds of convolutions that another family has too")
    return errors, tuple(unpredictable)


def mean_percent(errors: Mapping[str, float]) -> float:
    """Return the mean absolute error, percent."""
    return statistics.fmean(abs(error) for error in errors.values()) * 100


def _classes(ops: OpList) -> set[str]:
    return {op.kind for op in ops.ops if op.kind in WEIGHTED}


def _check_terms(names: Sequence[str]) -> None:
    known = ("floor_ms", *sorted(TERMS))
    if not names:
        raise ValueError(f"the law 'typed' needs terms; known are {', '.join(known)}")
    for name in names:
        if name not in known:
            raise ValueError(
                f"'{name}' is not a term{nearest(name, known)}; known are {', '.join(known)}"
            )


def _fitter(law_name: str, precision: str, names: Sequence[str]) -> Fitter:
    if law_name == "roofline":
        return lambda samples: _fit_roofline(samples, precision)
    chosen = law.MACS if law_name == "macs" else names
    return lambda samples: _non_negative(_asked(samples), _times(samples), chosen)


def _fit_ops(samples: Sequence[Sample], settings: Settings | None) -> Fit:
    """Fit the law of single ops; networks without relatives are left out in closed form."""

    def fitter(some: Sequence[Sample]) -> Coefficients:
        times = [sample.ms for sample in some]
        return OpLawFit([s.ops for s in some], times, settings=whole.settings).coefficients

    whole = OpLawFit([s.ops for s in samples], [s.ms for s in samples], settings=settings)
    unpredictable: tuple[str, ...] = ()
    if len({sample.group for sample in samples}) == len(samples):
        left_out = {s.network: e for s, e in zip(samples, whole.left_out, strict=True)}
    else:
        left_out, unpredictable = leave_out(samples, "ops", "fp32", fitter)
    return Fit(
        law="ops",
        coefficients=whole.coefficients,
        errors={
            s.network: op_law.network_ms(s.ops, whole.coefficients) / s.ms - 1 for s in samples
        },
        left_out=left_out,
        unpredictable=unpredictable,
    )


def _asked(samples: Sequence[Sample]) -> list[dict[str, float]]:
    """Return what each network asks for, summed over its ops, and a floor of 1."""
    found = []
    for sample in samples:
        total = {"floor_ms": 1.0}
        for op in sample.ops.ops:
            for name, value in terms(op, sample.ops).items():
                total[name] = total.get(name, 0.0) + value
        found.append(total)
    return found


def _times(samples: Sequence[Sample]) -> Any:
    import numpy as np

    return np.array([sample.ms for sample in samples])


def _non_negative(
    asked: Sequence[Mapping[str, float]], times: Any, names: Sequence[str]
) -> Coefficients:
    """Return coefficients of least relative squared error, without those that are 0."""
    import numpy as np

    matrix = np.array([[one.get(name, 0.0) for name in names] for one in asked])
    found = _solve(matrix, times)
    return {n: float(x) for n, x in zip(names, found, strict=True) if x > 0 or n == "floor_ms"}


def _solve(matrix: Any, times: Any) -> Any:
    import numpy as np
    from scipy.optimize import nnls

    return nnls(matrix / times[:, None], np.ones(len(times)))[0]


def _fit_roofline(samples: Sequence[Sample], precision: str) -> Coefficients:
    """Return the roofline of least relative squared error, the best of several starts."""
    import numpy as np
    from scipy.optimize import least_squares

    work = [
        np.array(
            [
                (op.macs / 1e6, law.moved_bytes(op, s.ops, precision) / 1e6)
                for op in s.ops.ops
                if not law.is_fused(op)
            ]
        ).reshape(-1, 2)
        for s in samples
    ]
    times = _times(samples)

    # Logarithms keep every coefficient above 0; the bounds keep one that the data do not determine
    # (a floor that tends to 0, an endless bandwidth) from overflowing.
    def residuals(logarithms: Any) -> Any:
        floor, rate, bandwidth = np.exp(logarithms)
        sums = [np.maximum(one[:, 0] / rate, one[:, 1] / bandwidth).sum() for one in work]
        return (np.array(sums) + floor) / times - 1

    best = None
    for start in itertools.product(*(_STARTS[name] for name in law.ROOFLINE)):
        result = least_squares(residuals, np.log(start), bounds=(-14.0, 14.0), max_nfev=200)
        if best is None or result.cost < best.cost:
            best = result
    assert best is not None
    return dict(zip(law.ROOFLINE, map(float, np.exp(best.x)), strict=True))
