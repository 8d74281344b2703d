"""Make every shipped profile from the published figures, and print how well each predicts.

A law is shipped where it predicts what was left out better than the law of MACs does; otherwise
that one is. `--check` writes nothing and exits 1 if a shipped profile is not what comes out.

python benchmarks/latency_fit.py
python benchmarks/latency_fit.py --only snapdragon-865/gpu snapdragon-888/gpu
python benchmarks/latency_fit.py --check
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from latency.fit import Fit, Sample, fit, merge_twins
from latency.op_law import op_ms, signatures
from latency.op_law_fit import OpLawFit, Settings
from latency.ops import OpList
from latency.profile import Profile, Source
from latency.profile_making import error_range, make_profile
from latency.published import Published, read_latencies, read_networks, read_timed_ops
from latency.target import PROFILE_FOLDER, Target

FLOATS = ("floor_ms", "pointwise.gmac", "dense.gmac", "depthwise.gmac", "grouped.gmac", "elements")
FLOATS += ("weights", "dense.patches", "pool.in", "grouped.in")
QUANTIZED = ("floor_ms", "pointwise.gmac", "dense.gmac", "depthwise.gmac", "grouped.gmac")
QUANTIZED += ("elements", "weights", "depthwise.large_gmac", "grouped.out", "depthwise.in")
GPU = ("floor_ms", "pointwise.gmac", "dense.gmac", "depthwise.gmac", "grouped.gmac", "matmul.gmac")
GPU += ("elements", "weights", "dense.in", "depthwise.large_gmac")
FORMS: dict[str, tuple[str, ...]] = {  # by the start of a target
    "snapdragon-865/gpu": ("roofline",),
    "snapdragon-865/cpu": ("gmac", "patches", "unfused.out"),
    "snapdragon-855/gpu": GPU,
    "snapdragon-855/cpu@tflite:fp32": FLOATS,
    "snapdragon-855/cpu@tflite:int8": QUANTIZED,
    "snapdragon-888/gpu@qnn": ("gmac", "prelu.out", "pixels"),
    "snapdragon-8-gen-1/npu": ("gmac", "transposed.in", "layout.in", "depth_to_space.out"),
    "snapdragon-8-gen-2/npu@qnn-dlc:int8": ("floor_ms", "elements", "dense.patches"),
    "snapdragon-8-gen-3/npu@qnn-dlc:int8": ("floor_ms", "elements", "dense.patches"),
    "snapdragon-8-elite/npu@qnn-dlc:int8": ("floor_ms", "elements", "dense.patches"),
}
"""Terms of a typed law, or the name of another; the roofline for all others."""
DEFAULTS = ("snapdragon-855/cpu@tflite:fp32#1large", "snapdragon-888/gpu@qnn:fp16")
DEFAULTS += ("snapdragon-8-gen-2/npu@qnn-dlc:fp16", "snapdragon-8-gen-2/npu@qnn-dlc:int8")
DEFAULTS += ("snapdragon-8-gen-3/npu@qnn-dlc:fp16", "snapdragon-8-gen-3/npu@qnn-dlc:int8")
DEFAULTS += ("snapdragon-8-elite/npu@qnn:fp16", "snapdragon-8-elite/npu@qnn-dlc:int8")
DEFAULTS += ("snapdragon-8-gen-2/cpu@ncnn:fp16#4threads",)
DEFAULTS += ("snapdragon-855-plus/cpu@ncnn:fp16#4threads",)
MOST_PERCENT = 25.0
"""Error on what was left out, above which a profile is not shipped."""
LEAST_RANK = 0.75
"""Rank correlation of what was left out with its measurements, below which none is shipped."""
NOTES = {
    "snapdragon-865/gpu": "Measured on the 865's twin board (QCS8250), not on a phone.",
    "snapdragon-865/cpu": "Measured on the 865's twin board (QCS8250), default threads. ReLU and "
    "LeakyReLU count as free; other activations between quantized tensors are slow.",
    "snapdragon-855": "Classification networks at 224x224; their lists name no activation that a "
    "convolution absorbs.",
    "snapdragon-888/gpu@qnn": "Super-resolution at 360x640 with AI Benchmark's QNN GPU driver; the "
    "source does not state the precision.",
    "snapdragon-8-gen-1/npu": "Super-resolution at 360x640. Transposed convolutions leave the NPU.",
    "snapdragon-8-gen-2/npu": "Valid for inputs of 128x128 only: no other size was measured.",
    "snapdragon-8-gen-3/npu": "Valid for inputs of 128x128 only: no other size was measured.",
    "snapdragon-8-elite/npu": "Valid for inputs of 128x128 only: no other size was measured.",
}
NCNN_NOTE = "Ten classification networks, matched by name to lists of ops from other sources."
OPS = Settings(block=4, length=2.5, class_spread=0.5, spread=0.6, noise=0.01)
"""Of the process over the timed ops of the Pixel 4's GPU."""
OP_FOLDS = 12
OPS_TARGET = "snapdragon-855/gpu@tflite:fp16"


@dataclass(frozen=True, kw_only=True)
class Made:
    """A profile, with the fits that it was chosen from."""

    profile: Profile
    fits: tuple[Fit, ...]
    samples: tuple[Sample, ...]


def main() -> int:
    """Make the profiles, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--only", nargs="+", default=[], help="starts of targets")
    parser.add_argument("--check", action="store_true", help="compare with what is shipped")
    arguments = parser.parse_args()
    wrong = []
    print(
        "| target | networks | law | fitted | left out | 90 % of it | worst | MACs alone | noise |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for made in _make(arguments.only):
        print(_row(made.profile), flush=True)
        rank = rank_of(made)
        print(f"{made.profile.target}: rank correlation of what was left out {rank:.2f}")
        if made.profile.left_out_error_percent > MOST_PERCENT or rank < LEAST_RANK:
            print(f"{made.profile.target}: not shipped")
            continue
        if arguments.check:
            wrong += [] if _is_shipped(made.profile) else [str(made.profile.target)]
        else:
            made.profile.save(_path(made.profile))
    if wrong:
        print(f"shipped profiles that are not what comes out: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def _make(only: Sequence[str]) -> Iterator[Made]:
    networks = read_networks()
    by_target: dict[str, list[Published]] = {}
    for one in read_latencies():
        by_target.setdefault(one.target, []).append(one)
    for target, published in sorted(by_target.items()):
        if not only or target.startswith(tuple(only)):
            yield _made(target, published, networks)


def samples_of(published: Sequence[Published], networks: dict[str, OpList]) -> list[Sample]:
    """Return one sample per network, twins joined."""
    found: dict[str, list[Published]] = {}
    for one in published:
        found.setdefault(one.network, []).append(one)
    return merge_twins(
        [
            Sample(
                network=name,
                ops=networks[name],
                times_ms=tuple(itertools.chain.from_iterable(one.times_ms for one in all_of_it)),
                family=all_of_it[0].family,
            )
            for name, all_of_it in found.items()
        ]
    )


def _made(text: str, published: Sequence[Published], networks: dict[str, OpList]) -> Made:
    target = Target.parse(text)
    samples = samples_of(published, networks)
    assert target.precision is not None
    macs = fit(samples, "macs", target.precision)
    form = next((f for start, f in FORMS.items() if text.startswith(start)), ("roofline",))
    if form == ("roofline",):
        fits = [macs]
        if len(samples) > 4:
            fits.append(fit(samples, "roofline", target.precision))
    else:
        fits = [macs, fit(samples, "typed", target.precision, names=form)]
    best = min(fits, key=lambda one: one.left_out_percent)
    if text == OPS_TARGET:
        fits.append(_fit_timed_ops(samples))
        errors = ", ".join(f"{one.law} {one.left_out_percent:.1f} %" for one in fits)
        print(f"855 GPU, whole networks of families left out: {errors}")
        # Single ops are what it is for, as long as whole networks bear it out.
        best = fits[-1] if fits[-1].left_out_percent < macs.left_out_percent else best
    note = next((one for start, one in NOTES.items() if text.startswith(start)), "")
    if "ncnn" in text:
        note = NCNN_NOTE
    left = f" Not judged, of a kind of its own: {', '.join(best.unpredictable)}."
    profile = make_profile(
        samples,
        best,
        target,
        device=published[0].device,
        runtime_versions=[version for one in published for version in one.versions],
        sources=_sources(published),
        macs=macs,
        default=text in DEFAULTS,
        notes=note + (left if best.unpredictable else ""),
    )
    return Made(profile=profile, fits=tuple(fits), samples=tuple(samples))


def _fit_timed_ops(samples: Sequence[Sample]) -> Fit:
    """Fit the law `ops` to the timed ops; print its error on ops of networks left out.

    Whole networks add the floor, and a scale for what a profiler does not see.
    """
    timed = read_timed_ops()
    unique: dict[OpList, list[tuple[str, str, float]]] = {}
    for one in timed:
        unique.setdefault(one.ops, []).append((one.network, one.family, one.ms))
    errors = _op_errors(unique)
    groups = {name: name.partition(" ")[0] for name in errors}
    low, high = error_range(errors, groups)
    mean = 100 * statistics.fmean(map(abs, errors.values()))
    print(
        f"855 GPU, {len(errors)} convolutions of {len(set(groups.values()))} networks, left "
        f"out in {OP_FOLDS} folds: {mean:.1f} % ({low:.1f} to {high:.1f})"
    )
    families = list(dict.fromkeys(sample.group for sample in samples))
    left_out = {}
    for family in families:
        rest = [sample for sample in samples if sample.group != family]
        kept = {
            ops: [ms for _, other, ms in seen if other != family] for ops, seen in unique.items()
        }
        coefficients = _with_floor({ops: ms for ops, ms in kept.items() if ms}, rest)
        for sample in samples:
            if sample.group == family:
                left_out[sample.network] = _whole(sample.ops, coefficients) / sample.ms - 1
    coefficients = _with_floor({o: [ms for *_, ms in seen] for o, seen in unique.items()}, samples)
    return Fit(
        law="ops",
        coefficients=coefficients,
        errors={s.network: _whole(s.ops, coefficients) / s.ms - 1 for s in samples},
        left_out=left_out,
    )


def _op_errors(unique: dict[OpList, list[tuple[str, str, float]]]) -> dict[str, float]:
    """Return the error of every timed convolution by the law fitted without its network.

    Networks are left out some at a time, which is harder than one by one.
    """
    errors: dict[str, float] = {}
    networks = sorted({name for seen in unique.values() for name, *_ in seen})
    for fold in range(OP_FOLDS):
        out = set(networks[fold::OP_FOLDS])
        kept = {o: [ms for name, _, ms in seen if name not in out] for o, seen in unique.items()}
        kept = {ops: ms for ops, ms in kept.items() if ms}
        fitted = OpLawFit(list(kept), [statistics.fmean(ms) for ms in kept.values()], settings=OPS)
        for number, (ops, seen) in enumerate(unique.items()):
            if ops.ops[0].kind == "conv" and any(name in out for name, *_ in seen):
                predicted = _whole(ops, fitted.coefficients)
                for again, (name, _, ms) in enumerate(seen):
                    if name in out:
                        errors[f"{name} {number} {again}"] = predicted / ms - 1
    return errors


def _with_floor(timed: dict[OpList, list[float]], samples: Sequence[Sample]) -> dict[str, object]:
    """Return the law of single ops, with the floor and the scale that whole networks ask for."""
    import numpy as np
    from scipy.optimize import nnls

    times = [statistics.fmean(ms) for ms in timed.values()]
    coefficients = OpLawFit(list(timed), times, settings=OPS).coefficients | {"floor_ms": 0.0}
    sums = np.array([[1.0, _whole(s.ops, coefficients)] for s in samples])
    measured = np.array([s.ms for s in samples])
    floor, scale = nnls(sums / measured[:, None], np.ones(len(samples)))[0]
    base = {name: [x * scale for x in values] for name, values in coefficients["base"].items()}
    return coefficients | {"floor_ms": float(floor), "base": base}


def _whole(ops: OpList, coefficients: dict[str, object]) -> float:
    times: dict[object, float] = {}
    total = float(str(coefficients["floor_ms"]))
    for one in signatures(ops):
        if one not in times:
            times[one] = op_ms(one, coefficients)
        total += times[one]
    return total


def _sources(published: Sequence[Published]) -> list[Source]:
    found = []
    for name in sorted({one.source for one in published}):
        mine = [one for one in published if one.source == name]
        found.append(
            Source(
                name=name,
                licence=mine[0].licence,
                detail=f"{mine[0].device}, all layers on the {mine[0].target.split('/')[1][:3]}",
                first_date=min(one.first_date for one in mine),
                last_date=max(one.last_date for one in mine),
            )
        )
    return found


def _row(one: Profile) -> str:
    low, high = one.left_out_range_percent
    noise = "" if one.noise_percent is None else f"{one.noise_percent:.1f}"
    macs = "" if one.macs_error_percent is None else f"{one.macs_error_percent:.1f}"
    return (
        f"| `{one.target}` | {len(one.networks)} | {one.law} | {one.fit_error_percent:.1f} | "
        f"{one.left_out_error_percent:.1f} by {one.left_out} | {low:.1f} to {high:.1f} | "
        f"{one.left_out_worst_percent:.0f} | {macs} | {noise} |"
    )


def rank_of(made: Made) -> float:
    """Return the rank correlation of left-out predictions with measurements."""
    from scipy.stats import spearmanr

    best = next(one for one in made.fits if one.law == made.profile.law)
    judged = [s for s in made.samples if s.network in best.left_out]
    predicted = [s.ms * (1 + best.left_out[s.network]) for s in judged]
    return float(spearmanr(predicted, [s.ms for s in judged]).statistic)


def _path(profile: Profile) -> Path:
    name = str(profile.target).replace("/", "-").replace("@", "-").replace(":", "-")
    return PROFILE_FOLDER / f"{name.replace('#', '-')}.json"


def _is_shipped(profile: Profile) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / "profile.json"
        profile.save(again)
        path = _path(profile)
        return path.is_file() and path.read_bytes() == again.read_bytes()


if __name__ == "__main__":
    sys.exit(main())
