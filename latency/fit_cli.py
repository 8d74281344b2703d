"""`mfagan-latency fit`: a device profile from published results or from one's own measurements."""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from latency import fusion
from latency.commandline import Parser, add_common_flags, existing_path
from latency.fit import LEAST_NETWORKS, Fit, Sample, fit, fit_best, merge_twins
from latency.law import LAWS
from latency.measurement import Measurement, read_measurements
from latency.ops import OpList
from latency.profile import Profile, Source, shipped_profiles
from latency.profile_making import make_profile, scaled_profile
from latency.target import UNITS, Target
from latency.terminal import warn

# model or architecture, folder of the measurement file, LR size -> ops
Reader = Callable[[str, Path, tuple[int, int]], OpList]

EMULATED = "EMULATED: made from times that are no latency."
"""What a profile says of itself that --allow-emulated made."""
_RUNTIMES = {"onnx": "onnxruntime"}
_MOST_OUTLIERS = 5
_EPILOG = """examples:
  mfagan-latency fit pixel.jsonl --target snapdragon-855/cpu --out pixel.json
  mfagan-latency fit --aihub aihub_sr.csv.gz --layers sr_model_layers.json.gz \\
    --published-device "RB5 (Proxy)" --runtime tflite --unit GPU \\
    --target snapdragon-865/gpu --out gpu.json
"""


@dataclass(frozen=True, kw_only=True)
class _Data:
    """What a profile is made from."""

    samples: list[Sample]
    target: Target
    device: str
    runtime_versions: tuple[str, ...]
    source: Source
    fusions: tuple[fusion.Fusion, ...] = ()
    emulated: bool = False


def add_fit_parser(subparsers: argparse._SubParsersAction[Parser]) -> Parser:
    """Add `fit` to the command's subparsers and return its parser."""
    parser = subparsers.add_parser(
        "fit",
        help="make a device profile from measurements",
        description="Make a device profile from measurement files, or from AI Hub's published "
        "results; print its error on the networks fitted and on networks left out.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "measurements",
        nargs="*",
        type=existing_path,
        metavar="MEASUREMENTS.jsonl",
        help="files that `mfagan-latency profile` wrote; networks by architecture, or by the .onnx "
        "beside the file",
    )
    parser.add_argument(
        "--target", required=True, help="soc/unit[@runtime][:precision][#cores] of the profile"
    )
    parser.add_argument("--out", type=Path, required=True, help="profile to write, .json")
    parser.add_argument(
        "--law",
        choices=("auto", *LAWS),
        default="auto",
        help="law to fit; auto (the default) takes the one of macs, roofline and ops with the "
        "least error on networks left out",
    )
    parser.add_argument(
        "--terms",
        metavar="TERM,TERM...",
        help="of the law 'typed', e.g. floor_ms,gmac,elements (docs/latency.md lists them)",
    )
    parser.add_argument("--notes", default="", help="what a reader of a figure should know")
    parser.add_argument(
        "--allow-emulated",
        action="store_true",
        help="fit measurements of an emulator too, to try the way: the profile says that its "
        "times are no latency",
    )
    published = parser.add_argument_group("published results")
    published.add_argument("--aihub", type=existing_path, metavar="CSV", help="results, .csv[.gz]")
    published.add_argument(
        "--layers", type=existing_path, metavar="JSON", help="layer lists, .json[.gz]"
    )
    published.add_argument("--published-device", help="device as published, e.g. 'RB5 (Proxy)'")
    published.add_argument("--runtime", help="runtime as published, e.g. tflite or onnx")
    published.add_argument(
        "--unit",
        type=str.lower,
        choices=UNITS,
        help="unit on which ALL layers ran, of any case; the default is the target's",
    )
    published.add_argument(
        "--published-precision", help="as published, e.g. w8a8; needed where there are several"
    )
    published.add_argument("--licence", help="licence of the results (default: BSD-3-Clause)")
    add_common_flags(parser, "json")
    return parser


def run_fit(arguments: argparse.Namespace, reader: Reader) -> int:
    """Fit, write the profile, print the errors and the path."""
    target = Target.parse(arguments.target)
    if arguments.out.suffix != ".json":
        raise ValueError(f"--out must end in .json, got '{arguments.out}'")
    if arguments.out.is_dir():
        raise ValueError(f"--out must be a file, '{arguments.out}' is a folder")
    _check_flags(arguments)
    if arguments.aihub:
        data = _published(arguments, target)
    else:
        data = _measured(arguments.measurements, target, reader, emulated=arguments.allow_emulated)
    fits, profile = _fitted(arguments, data)
    if data.emulated:
        profile = replace(profile, notes=f"{EMULATED} {profile.notes}".strip())
    profile.save(arguments.out)
    if arguments.json:
        print(json.dumps(_as_json(data, fits, profile, arguments.out), indent=2))
    else:
        _print(data, fits, profile)
        print(arguments.out)
    return 0


def _fitted(arguments: argparse.Namespace, data: _Data) -> tuple[list[Fit], Profile]:
    """Return the fits, best first, and the profile; no fit where a shipped profile was scaled."""
    assert data.target.precision is not None
    described: dict[str, Any] = {
        "device": data.device,
        "runtime_versions": data.runtime_versions,
        "sources": (data.source,),
    }
    if arguments.law == "auto" and len(data.samples) < LEAST_NETWORKS:
        scaled = scaled_profile(data.samples, data.target, shipped_profiles(), **described)
        return [], replace(scaled, notes=f"{scaled.notes} {arguments.notes}".strip())
    if arguments.law == "auto":
        fits = fit_best(data.samples, data.target.precision)
    else:
        names = tuple(filter(None, (arguments.terms or "").split(",")))
        fits = [fit(data.samples, arguments.law, data.target.precision, names=names)]
    macs = next((one for one in fits if one.law == "macs"), None)
    profile = make_profile(
        data.samples, fits[0], data.target, macs=macs, notes=arguments.notes, **described
    )
    return fits, profile


def _check_flags(arguments: argparse.Namespace) -> None:
    if (arguments.law == "typed") != (arguments.terms is not None):
        raise ValueError("--law typed needs --terms, and --terms has a meaning only with it")
    published = ("layers", "published_device", "runtime", "unit", "published_precision", "licence")
    if arguments.aihub and arguments.allow_emulated:
        raise ValueError("--allow-emulated has no meaning with --aihub")
    if not arguments.aihub:
        for name in published:
            if getattr(arguments, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')} has a meaning only with --aihub")
        if not arguments.measurements:
            raise ValueError("give measurement files, or --aihub with --layers")
        return
    if arguments.measurements:
        raise ValueError("give measurement files or --aihub, not both")
    for name in ("layers", "published_device", "runtime"):
        if getattr(arguments, name) is None:
            raise ValueError(f"--aihub needs --{name.replace('_', '-')} too")


def _published(arguments: argparse.Namespace, target: Target) -> _Data:
    from latency.aihub import read_published

    unit = arguments.unit or target.unit
    if unit != target.unit:
        raise ValueError(f"--unit {unit} contradicts the target '{target}'")
    found = read_published(
        arguments.aihub,
        arguments.layers,
        device=arguments.published_device,
        runtime=arguments.runtime,
        unit=unit,
        precision=arguments.published_precision,
        licence=arguments.licence or "BSD-3-Clause",
    )
    runtime = target.runtime or _RUNTIMES.get(arguments.runtime, arguments.runtime)
    quantized = "w8a8" in found.source.detail
    # The GPU delegate computes quantized models in fp16.
    precision = {"gpu": "fp16", "cpu": "int8" if quantized else "fp32"}.get(
        unit, "int8" if quantized else "fp16"
    )
    return _Data(
        samples=list(found.samples),
        target=Target(
            soc=target.soc,
            unit=unit,
            runtime=runtime,
            precision=target.precision or precision,
            cores=target.cores,
        ),
        device=arguments.published_device,
        runtime_versions=found.runtime_versions,
        source=found.source,
    )


def _measured(paths: Sequence[Path], target: Target, reader: Reader, *, emulated: bool) -> _Data:
    found: list[tuple[Measurement, Path]] = []
    for path in paths:
        found += [(one, path.parent) for one in read_measurements(path)]
    real = [(one, folder) for one, folder in found if emulated or not one.emulated]
    if found and not real:
        raise ValueError(
            f"all {len(found)} measurements are emulated: their times are no latency; "
            "--allow-emulated fits them all the same, to try the way"
        )
    if len(real) < len(found):
        warn("mfagan-latency", f"{len(found) - len(real)} emulated measurements are left out")
    wanted = [(m, folder) for m, folder in real if target.accepts(_target_of(m, target.cores))]
    if not wanted:
        known = sorted({str(_target_of(one, None)) for one, _ in real})
        raise ValueError(
            f"no measurement is for '{target}'; there are {', '.join(known) or 'none'}"
        )
    targets = {_target_of(one, target.cores) for one, _ in wanted}
    devices = {one.device for one, _ in wanted}
    kinds = {f"{m.device} {_target_of(m, None)} {m.threads} threads" for m, _ in wanted}
    if len(kinds) > 1:
        raise ValueError(
            f"a profile is for one device, runtime, precision and number of threads; there are "
            f"{', '.join(sorted(kinds))}"
        )
    from latency.collect import steady_ms

    steady = steady_ms([one for one, _ in wanted])
    samples = [
        Sample(
            network=one.architecture or one.model,
            ops=reader(one.architecture or one.model, folder, one.input_size),
            times_ms=(ms,),
        )
        for (one, folder), ms in zip(wanted, steady, strict=True)
    ]
    dates = sorted(one.date for one, _ in wanted)
    return _Data(
        samples=merge_twins(samples),
        fusions=tuple(
            fusion.detect(
                {(m.model, m.input_size): ms for (m, _), ms in zip(wanted, steady, strict=True)},
                statistics.median([m.noise or 0.0 for m, _ in wanted]),
            )
        ),
        target=targets.pop(),
        device=devices.pop(),
        runtime_versions=tuple({one.runtime_version for one, _ in wanted}),
        emulated=any(one.emulated for one, _ in wanted),
        source=Source(
            name=", ".join(sorted(path.name for path in paths)),
            licence="own",
            detail="medians of measurement files",
            first_date=dates[0],
            last_date=dates[-1],
        ),
    )


def _target_of(one: Measurement, cores: str | None) -> Target:
    return Target(
        soc=one.soc, unit=one.unit, runtime=one.runtime, precision=one.precision, cores=cores
    )


def _print(data: _Data, fits: Sequence[Fit], profile: Profile) -> None:
    print(f"{data.target}, measured on {data.device}; law {profile.law}:")
    if profile.law != "ops":
        for name, value in profile.coefficients.items():
            print(f"  {name:12} {value:.4g}")
    if not fits:
        print(f"  {profile.notes}")
    for best in fits[:1]:
        print(
            f"{'network':40} {'LR':>9} {'GMAC':>8} {'measured ms':>12} {'fit':>7} {'left out':>9}"
        )
        for sample in sorted(data.samples, key=lambda s: s.macs):
            _, height, width = sample.ops.input_shape
            left = best.left_out.get(sample.network)
            print(
                f"{sample.network:40} {f'{height}x{width}':>9} {sample.macs / 1e9:8.3f} "
                f"{sample.ms:12.2f} {best.errors[sample.network]:+7.1%} "
                + (f"{left:+9.1%}" if left is not None else "not judged".rjust(10))
            )
    for one in fits:
        print(f"mean absolute error on networks left out, {one.law}: {one.left_out_percent:.1f} %")
    odd = _outliers(fits)
    for name in odd[:_MOST_OUTLIERS]:
        print(f"outlier: {name} is off by {fits[0].left_out[name]:+.0%}; measure it again")
    if more := odd[_MOST_OUTLIERS:]:
        print(f"and {len(more)} outliers more")
    for found in data.fusions:
        print(found)
    print(f"90 % interval: a factor of {math.exp(profile.interval):.2f} either way")


def _outliers(fits: Sequence[Fit]) -> list[str]:
    """Return networks, worst first, off by a quarter and five times what is usual."""
    if not fits:
        return []
    errors = {name: abs(error) for name, error in fits[0].left_out.items()}
    usual = statistics.median(errors.values())
    odd = [name for name, error in errors.items() if error > max(5 * usual, 0.25)]
    return sorted(odd, key=lambda name: -errors[name])


def _as_json(data: _Data, fits: Sequence[Fit], profile: Profile, out: Path) -> dict[str, object]:
    return {
        "profile": str(out),
        "target": str(data.target),
        "law": profile.law,
        "coefficients": profile.coefficients,
        "fit_errors": fits[0].errors if fits else {},
        "left_out_errors": fits[0].left_out if fits else {},
        "left_out_percent": {one.law: one.left_out_percent for one in fits},
        "outliers": _outliers(fits),
        "fusions": [asdict(found) | {"verdict": found.verdict} for found in data.fusions],
        "notes": profile.notes,
    }
