"""Make a profile of a fit: with its error, how sure that error is, and what was measured.

A device with fewer networks than a fit needs starts from the shipped profile whose predictions are
most nearly proportional to its measurements.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from latency import law
from latency.chains import PREFIX
from latency.fit import Fit, Sample, mean_percent, relative_errors
from latency.ops import WEIGHTED
from latency.profile import CONFIDENCE, Profile, Source
from latency.target import Target
from latency.terms import conv_class

MANY = 20
"""Networks left out, from which on the interval is read off their errors."""
LEAST_OF_FEW = 0.15
"""Half-width, in the logarithm, of what fewer networks are taken to know."""
SCALED_BY_TWO = math.log(2)
"""Half-width at least of a shipped profile that one or two networks scaled."""
_BOOTSTRAPS = 1000


def interval(left_out: Mapping[str, float], noise: float = 0.0) -> float:
    """Return the half-width of the 90 % interval of the logarithm of a latency.

    Of 20 networks or more: the error that nine of ten do not exceed (with one more counted as
    exceeding it, as in conformal prediction). Of fewer: Student's t for as many degrees of freedom
    as there are networks less one, times the root mean square of the logarithms; with the noise of
    repeated measurements, and at least `LEAST_OF_FEW`, because the form of a law was chosen on the
    same few.

    Args:
        left_out: relative errors by network.
        noise: of repeated measurements, relative.
    """
    from scipy.stats import t

    # A prediction of nothing would be an endless error; a thousandth is as wrong.
    logs = sorted(abs(math.log(max(1 + error, 1e-3))) for error in left_out.values())
    if len(logs) >= MANY:
        width = logs[min(math.ceil(CONFIDENCE * (len(logs) + 1)), len(logs)) - 1]
    else:
        rms = math.sqrt(math.fsum(x * x for x in logs) / len(logs))
        width = rms * float(t.ppf((1 + CONFIDENCE) / 2, max(1, len(logs) - 1)))
        width = max(math.hypot(width, noise), LEAST_OF_FEW)
    # Runs of one network scatter by a percent at best.
    return min(max(width, 0.02), math.log(1000) * 0.99)


def error_range(left_out: Mapping[str, float], groups: Mapping[str, str]) -> tuple[float, float]:
    """Return the 90 % bootstrap interval of the mean absolute error, percent.

    Args:
        left_out: relative errors by network.
        groups: by network, what was left out together: whole groups are drawn.
    """
    by_group: dict[str, list[float]] = {}
    for network, error in left_out.items():
        by_group.setdefault(groups[network], []).append(abs(error) * 100)
    drawn, rng = [], random.Random(0)
    for _ in range(_BOOTSTRAPS):
        errors = [e for one in rng.choices(list(by_group.values()), k=len(by_group)) for e in one]
        drawn.append(statistics.fmean(errors))
    drawn.sort()
    return drawn[int(0.05 * _BOOTSTRAPS)], drawn[int(0.95 * _BOOTSTRAPS) - 1]


def noise_percent(samples: Sequence[Sample]) -> float | None:
    """Return how far repeated measurements of a network lie from their median, percent."""
    repeated = [sample for sample in samples if len(sample.times_ms) > 2]
    if not repeated:
        return None
    return 100 * statistics.fmean(
        statistics.fmean(abs(t / sample.ms - 1) for t in sample.times_ms) for sample in repeated
    )


def make_profile(
    samples: Sequence[Sample],
    fitted: Fit,
    target: Target,
    *,
    device: str,
    runtime_versions: Sequence[str],
    sources: Sequence[Source],
    macs: Fit | None = None,
    default: bool = False,
    notes: str = "",
) -> Profile:
    """Return the profile of a fit.

    Args:
        samples: the networks that were fitted.
        fitted: the fit.
        target: with runtime and precision.
        device: as it is called.
        runtime_versions: those measured.
        sources: of the measurements.
        macs: the law of MACs fitted to the same networks, for comparison.
        default: it is what `soc/unit` alone means.
        notes: what a reader of a figure should know.

    Raises:
        ValueError: the target leaves out the runtime or the precision.
    """
    groups = {sample.network: sample.group for sample in samples}
    families = len(set(groups.values())) < len(groups)
    judged = _whole_networks(fitted.left_out)
    noise = noise_percent(samples) or 0.0
    return _profile(
        samples,
        target,
        device=device,
        runtime_versions=runtime_versions,
        sources=sources,
        default=default,
        notes=notes,
        law=fitted.law,
        coefficients=_rounded(fitted.coefficients),
        fit_error_percent=_round(mean_percent(fitted.errors)),
        left_out_error_percent=_round(mean_percent(judged)),
        left_out_range_percent=tuple(map(_round, error_range(judged, groups))),
        left_out_worst_percent=_round(max(abs(e) for e in judged.values()) * 100),
        macs_error_percent=_round(mean_percent(_whole_networks(macs.left_out))) if macs else None,
        left_out="family" if families else "network",
        interval=_round(interval(judged, noise / 100)),
    )


def scaled_profile(
    samples: Sequence[Sample],
    target: Target,
    shipped: Sequence[Profile],
    *,
    device: str,
    runtime_versions: Sequence[str],
    sources: Sequence[Source],
) -> Profile:
    """Return the nearest shipped profile, scaled to a few measurements.

    Nearest is, of the same unit, precision and runtime as far as there are such, the one whose
    ratios of measured to predicted differ least; of one network, the one whose ratio is nearest to
    1. Their median is the scale.

    Raises:
        ValueError: no profile of this unit is shipped.
    """
    alike = [one for one in shipped if one.unit == target.unit]
    for name in ("precision", "runtime"):
        same = [one for one in alike if getattr(one, name) == getattr(target, name)]
        alike = same or alike
    ratios = {
        str(one.target): [1 / (1 + e) for e in _errors(samples, one).values()] for one in alike
    }
    if not ratios:
        raise ValueError(
            f"too few networks to fit, and no profile of a {target.unit} is shipped to start from"
        )

    def distance(name: str) -> float:
        logs = [math.log(ratio) for ratio in ratios[name]]
        return statistics.pstdev(logs) if len(logs) > 1 else abs(logs[0])

    nearest = min(ratios, key=distance)
    start = next(one for one in shipped if str(one.target) == nearest)
    scale = statistics.median(ratios[nearest])
    coefficients = _scaled(start.coefficients, start.law, scale)
    errors = {
        s.network: 1 / (ratio / scale) - 1
        for s, ratio in zip(samples, ratios[nearest], strict=True)
    }
    percent = _round(mean_percent(errors))
    return _profile(
        samples,
        target,
        device=device,
        runtime_versions=runtime_versions,
        sources=[*sources, *start.sources],
        default=False,
        notes=f"{len(samples)} networks were measured, too few for a fit: the profile of {nearest} "
        f"times {scale:.3g}.",
        law=start.law,
        coefficients=_rounded(coefficients),
        fit_error_percent=percent,
        left_out_error_percent=percent,
        left_out_range_percent=(percent, percent),
        left_out_worst_percent=_round(max(abs(e) for e in errors.values()) * 100),
        macs_error_percent=None,
        left_out="nothing",
        # What the other device's profile is unsure of, and what these networks disagree by.
        interval=_round(
            max(SCALED_BY_TWO, min(6.9, math.hypot(start.interval, interval(errors)) * 1.5))
        ),
    )


def _whole_networks(left_out: Mapping[str, float]) -> Mapping[str, float]:
    """Return the errors of networks that are no chains, where there are enough.

    Chains are measured to tell ops apart; what is predicted are networks.
    """
    whole = {name: error for name, error in left_out.items() if not name.startswith(PREFIX)}
    return whole if len(whole) >= MANY else left_out


def kinds(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Return the kinds of ops in networks; convolutions by their class too."""
    found = set()
    for sample in samples:
        for op in sample.ops.ops:
            found.add(op.kind)
            if op.kind in WEIGHTED and op.kind != "matmul":
                found.add(f"conv {conv_class(op)}")
    return tuple(sorted(found))


def _profile(
    samples: Sequence[Sample],
    target: Target,
    *,
    runtime_versions: Sequence[str],
    sources: Sequence[Source],
    **fields: Any,
) -> Profile:
    if target.runtime is None or target.precision is None:
        raise ValueError(f"the target of a profile needs runtime and precision, got '{target}'")
    gmacs = [max(sample.macs / 1e9, 1e-9) for sample in samples]
    sizes = {(s.ops.input_shape[-2], s.ops.input_shape[-1]) for s in samples}
    channels = [op.shape[0] for s in samples for op in s.ops.ops if op.kind in WEIGHTED]
    noise = noise_percent(samples)
    return Profile(
        soc=target.soc,
        unit=target.unit,
        runtime=target.runtime,
        runtime_versions=tuple(sorted(set(runtime_versions))),
        precision=target.precision,
        cores=target.cores,
        gb_per_s=_round(max(_bandwidth(sample, target.precision) for sample in samples)),
        networks=tuple(sample.network for sample in samples),
        measurements=sum(len(sample.times_ms) for sample in samples),
        sizes=tuple(sorted(sizes)),
        gmacs=(_round(min(gmacs)), _round(max(gmacs))),
        channels=(min(channels, default=1), max(channels, default=1)),
        ops=kinds(samples),
        noise_percent=None if noise is None else _round(noise),
        date=max(source.last_date for source in sources),
        sources=tuple(sources),
        **fields,
    )


def _errors(samples: Sequence[Sample], profile: Profile) -> dict[str, float]:
    return relative_errors(samples, profile.law, profile.coefficients, profile.precision)


def _bandwidth(sample: Sample, precision: str) -> float:
    """Return the GB/s at which a network moved the data of all ops that are not fused."""
    moved = sum(
        law.moved_bytes(op, sample.ops, precision) for op in sample.ops.ops if not law.is_fused(op)
    )
    return max(moved / (sample.ms * 1e6), 1e-6)


def _scaled(coefficients: Mapping[str, Any], law_name: str, scale: float) -> dict[str, Any]:
    """Return coefficients with which everything takes `scale` times as long."""
    if law_name == "ops":
        base = {name: [x * scale for x in xs] for name, xs in coefficients["base"].items()}
        return {**coefficients, "floor_ms": coefficients["floor_ms"] * scale, "base": base}
    rates = ("gmac_per_s", "gb_per_s")
    return {n: x / scale if n in rates else x * scale for n, x in coefficients.items()}


def _rounded(value: Any) -> Any:
    """Return coefficients with five digits."""
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return _round(value) if isinstance(value, float) else value


def _round(value: float) -> float:
    return float(f"{value:.5g}")
