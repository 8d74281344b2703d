"""Fit a device profile to measured networks, and measure how well it predicts unseen ones.

Least squares of the relative error, positive coefficients. Every network is then left out once,
which gives the error that the profile states and the width of its interval.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from latency import law
from latency.ops import OpList
from latency.predict import CONFIDENCE
from latency.profile import Profile, Source
from latency.target import Target

LEAST_NETWORKS = 4
# Starting points of the coefficients: a range in which phones of this decade lie.
_STARTS = {
    "floor_ms": (0.3, 3.0),
    "gmac_per_s": (20.0, 250.0),
    "gb_per_s": (5.0, 30.0),
    "unfused_ns": (0.5, 5.0),
}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One network's measurements on one target.

    Attributes:
        network: its name.
        ops: its ops at the size at which it was measured.
        times_ms: every measurement, above 0; their median is fitted.
    """

    network: str
    ops: OpList
    times_ms: tuple[float, ...]

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


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A law fitted to networks.

    Attributes:
        law: a key of `latency.law.COEFFICIENTS`.
        coefficients: by name.
        errors: relative error of each network, by the law fitted on all.
        left_out: relative error of each network, by the law fitted on the others.
    """

    law: str
    coefficients: dict[str, float]
    errors: dict[str, float]
    left_out: dict[str, float]

    @property
    def left_out_percent(self) -> float:
        """Mean absolute error on networks left out, percent."""
        return _mean_percent(self.left_out)


def merge_twins(samples: Sequence[Sample]) -> list[Sample]:
    """Join samples of one network under several names.

    Two networks of the same input, MACs and parameters are one: it must never be in the fit and in
    the test at once.
    """
    groups: dict[tuple[object, ...], list[Sample]] = {}
    for sample in samples:
        parameters = sum(op.parameters for op in sample.ops.ops)
        groups.setdefault((sample.ops.input_shape, sample.macs, parameters), []).append(sample)
    return [
        replace(
            group[0],
            network=" = ".join(dict.fromkeys(sample.network for sample in group)),
            times_ms=tuple(itertools.chain.from_iterable(s.times_ms for s in group)),
        )
        for group in groups.values()
    ]


def fit(samples: Sequence[Sample], law_name: str, precision: str) -> Fit:
    """Fit one law to networks, and to all but one in turn.

    Args:
        samples: at least 4 networks, more than the law has coefficients, no twins.
        law_name: a key of `latency.law.COEFFICIENTS`.
        precision: a key of `latency.law.BYTES_PER_ELEMENT`.

    Raises:
        ValueError: too few networks.
    """
    needed = max(LEAST_NETWORKS, len(law.COEFFICIENTS[law_name]) + 1)
    if len(samples) < needed:
        raise ValueError(
            f"the law '{law_name}' needs at least {needed} different networks, got {len(samples)}; "
            f"measure more, of different sizes"
        )
    works = [
        tuple(Counter(law.work(op, s.ops, precision) for op in s.ops.ops).items()) for s in samples
    ]
    times = [sample.ms for sample in samples]
    coefficients = _least_squares(works, times, law_name)
    errors = {
        sample.network: law.total_ms(one, coefficients) / sample.ms - 1
        for sample, one in zip(samples, works, strict=True)
    }
    left_out = {}
    for index, sample in enumerate(samples):
        others = works[:index] + works[index + 1 :]
        rest = _least_squares(others, times[:index] + times[index + 1 :], law_name)
        left_out[sample.network] = law.total_ms(works[index], rest) / sample.ms - 1
    return Fit(law=law_name, coefficients=coefficients, errors=errors, left_out=left_out)


def fit_best(samples: Sequence[Sample], precision: str) -> list[Fit]:
    """Fit every law that has enough networks; the first predicts left-out networks best.

    Raises:
        ValueError: fewer than 4 networks.
    """
    # Without an op that does not fuse, the coefficient of such ops cannot be known.
    unfused = any(op.kind in law.UNFUSED for sample in samples for op in sample.ops.ops)
    allowed = [
        name
        for name, coefficients in law.COEFFICIENTS.items()
        if name == "macs"
        or (len(samples) > len(coefficients) and (unfused or "unfused_ns" not in coefficients))
    ]
    fits = [fit(samples, name, precision) for name in allowed]
    return sorted(fits, key=lambda one: one.left_out_percent)


def interval(left_out: Mapping[str, float]) -> float:
    """Return the half-width of the 90 % interval of the logarithm of a latency.

    Student's t for as many degrees of freedom as there are networks less one, times the root mean
    square of the logarithms of the left-out ratios.
    """
    from scipy.stats import t

    logs = [math.log1p(error) for error in left_out.values()]
    rms = math.sqrt(math.fsum(x * x for x in logs) / len(logs))
    quantile = float(t.ppf((1 + CONFIDENCE) / 2, len(logs) - 1))
    # A handful of networks can agree by luck; runs of one network scatter by a percent at best.
    return max(rms, 0.01) * quantile


def make_profile(
    samples: Sequence[Sample],
    fitted: Fit,
    target: Target,
    *,
    device: str,
    runtime_versions: Sequence[str],
    sources: Sequence[Source],
    notes: str = "",
) -> Profile:
    """Return the profile of a fit.

    Raises:
        ValueError: the target leaves out the runtime or the precision.
    """
    if target.runtime is None or target.precision is None:
        raise ValueError(f"the target of a profile needs runtime and precision, got '{target}'")
    gmacs = [sample.macs / 1e9 for sample in samples]
    sizes = {(s.ops.input_shape[-2], s.ops.input_shape[-1]) for s in samples}
    return Profile(
        device=device,
        soc=target.soc,
        unit=target.unit,
        runtime=target.runtime,
        runtime_versions=tuple(sorted(set(runtime_versions))),
        precision=target.precision,
        cores=target.cores,
        law=fitted.law,
        coefficients={name: _round(value) for name, value in fitted.coefficients.items()},
        networks=tuple(sample.network for sample in samples),
        measurements=sum(len(sample.times_ms) for sample in samples),
        sizes=tuple(sorted(sizes)),
        gmacs=(_round(min(gmacs)), _round(max(gmacs))),
        ops=tuple(sorted({op.kind for sample in samples for op in sample.ops.ops})),
        fit_error_percent=_round(_mean_percent(fitted.errors)),
        left_out_error_percent=_round(fitted.left_out_percent),
        left_out_worst_percent=_round(max(abs(e) for e in fitted.left_out.values()) * 100),
        interval=_round(interval(fitted.left_out)),
        date=max(source.last_date for source in sources),
        sources=tuple(sources),
        notes=notes,
    )


def _least_squares(
    works: Sequence[tuple[tuple[law.Work, int], ...]], times: Sequence[float], law_name: str
) -> dict[str, float]:
    """Return the coefficients of least relative squared error, the best of several starts."""
    import numpy as np
    from scipy.optimize import least_squares

    names = law.COEFFICIENTS[law_name]

    def residuals(logarithms: Sequence[float]) -> list[float]:
        coefficients = dict(zip(names, map(math.exp, logarithms), strict=True))
        return [
            law.total_ms(one, coefficients) / ms - 1 for one, ms in zip(works, times, strict=True)
        ]

    # Logarithms keep every coefficient above 0; the bounds keep one that the data do not determine
    # (a floor that tends to 0, an endless bandwidth) from overflowing.
    best = None
    for start in itertools.product(*(_STARTS[name] for name in names)):
        result = least_squares(residuals, np.log(start), bounds=(-14.0, 14.0), max_nfev=200)
        if best is None or result.cost < best.cost:
            best = result
    assert best is not None
    return dict(zip(names, map(float, np.exp(best.x)), strict=True))


def _mean_percent(errors: Mapping[str, float]) -> float:
    return statistics.fmean(abs(error) for error in errors.values()) * 100


def _round(value: float) -> float:
    return float(f"{value:.5g}")
