"""`mfagan-latency`: predict, list devices, fit a profile, measure on this machine.

The one back door of the rooms: nobody imports this file, so it may import `mfagan.architecture`
and `mfagan.space` (lazily) to take an architecture's string where a model is asked for, and to draw
architectures that are measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from latency import chains
from latency.collect_cli import add_collect_parser, run_collect
from latency.commandline import Parser, add_common_flags, image_size, run
from latency.costs import Costs, costs
from latency.fit_cli import add_fit_parser, run_fit
from latency.law import BYTES_PER_ELEMENT
from latency.ops import OpList
from latency.phone.build import add_build_parser, run_build
from latency.predict import Prediction, predict
from latency.profile import Profile, load_profile, shipped_profiles
from latency.profile_cli import add_profile_parser, run_profile
from latency.target import Target

DEFAULT_SIZE = (128, 128)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `mfagan-latency` and return its exit status."""
    return run(build_parser(), _dispatch, argv)


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(
        prog="mfagan-latency",
        description="Predict how long a network takes on a phone, with an interval; list the "
        "devices known; measure on this machine; fit a device's profile to measurements.",
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_predict_parser(subparsers)
    devices = subparsers.add_parser(
        "devices",
        help="list the device profiles that are shipped",
        description="List the device profiles that are shipped, with their errors.",
    )
    add_common_flags(devices, "json")
    add_fit_parser(subparsers)
    add_profile_parser(subparsers)
    add_collect_parser(subparsers)
    add_build_parser(subparsers)
    add_common_flags(parser)
    return parser


def _dispatch(arguments: argparse.Namespace) -> int:
    if arguments.command == "predict":
        return _predict(arguments)
    if arguments.command == "devices":
        return _devices(arguments)
    if arguments.command == "fit":
        return run_fit(arguments, _measured_ops)
    if arguments.command == "collect":
        return run_collect(arguments, _sampler, _named_ops)
    if arguments.command == "build-runner":
        return run_build(arguments)
    return run_profile(arguments)


def _add_predict_parser(subparsers: argparse._SubParsersAction[Parser]) -> None:
    parser = subparsers.add_parser(
        "predict",
        help="predict a network's latency on a target",
        description="Predict a network's latency on a target, with a 90 %% interval, its costs "
        "and where the time goes.",
    )
    parser.add_argument(
        "model", help="an .onnx file, or an architecture such as mfa_x4_w24_c4-3_s0-0"
    )
    parser.add_argument(
        "--target", help="soc/unit[@runtime][:precision][#cores], e.g. snapdragon-865/gpu"
    )
    parser.add_argument(
        "--profile",
        type=Path,
        help="profile that `mfagan-latency fit` wrote, instead of a shipped one",
    )
    parser.add_argument(
        "--input",
        type=image_size,
        metavar="HxW",
        help="LR size; an .onnx file of fixed size has its own, an architecture takes 128x128",
    )
    parser.add_argument("--ops", action="store_true", help="show every op, not sums by kind")
    add_common_flags(parser, "json")


def _predict(arguments: argparse.Namespace) -> int:
    profile = _chosen_profile(arguments.target, arguments.profile)
    ops = _ops(arguments.model, arguments.input)
    main_prediction = predict(ops, profile)
    beside = predict(ops, cpu) if (cpu := _cpu_beside(profile)) else None
    figures = costs(ops, BYTES_PER_ELEMENT["fp32"])
    if arguments.json:
        result = {
            "model": arguments.model,
            "input": list(ops.input_shape),
            "prediction": main_prediction.to_json(),
            "onnxruntime_cpu": beside.to_json() if beside else None,
            "costs": dataclasses.asdict(figures),
        }
        print(json.dumps(result, indent=2))
        return 0
    _, height, width = ops.input_shape
    print(f"{arguments.model} at {height}x{width}")
    _print_prediction(main_prediction)
    if beside:
        _print_prediction(beside)
    _print_costs(figures)
    _print_breakdown(main_prediction, arguments.ops)
    return 0


def _chosen_profile(target: str | None, path: Path | None) -> Profile:
    if path is None:
        if target is None:
            known = ", ".join(str(profile.target) for profile in shipped_profiles())
            raise ValueError(f"give --target (known are {known}) or --profile")
        return load_profile(Target.parse(target))
    profile = load_profile(path)
    if target is not None and not Target.parse(target).accepts(profile.target):
        raise ValueError(f"the profile '{path}' is for '{profile.target}', not for '{target}'")
    return profile


def _cpu_beside(profile: Profile) -> Profile | None:
    """Return ONNX Runtime's CPU profile of the SoC of a GPU profile: what the app itself runs."""
    if profile.unit != "gpu":
        return None
    wanted = Target(soc=profile.soc, unit="cpu", runtime="onnxruntime")
    return next((one for one in shipped_profiles() if wanted.accepts(one.target)), None)


def _ops(model: str, size: tuple[int, int] | None) -> OpList:
    """Return the ops of an .onnx file or an architecture string."""
    if model.endswith(".onnx") or Path(model).exists():
        from latency.onnx_model import load_onnx
        from latency.onnx_ops import from_onnx

        loaded = load_onnx(Path(model))
        return from_onnx(loaded, size)
    try:
        return _named_ops(model, size or DEFAULT_SIZE)
    except ValueError as error:
        raise ValueError(f"{error}; nor is it an .onnx file that exists") from error


def _named_ops(name: str, size: tuple[int, int]) -> OpList:
    """Return the ops of an architecture's or a chain's string."""
    if name.startswith(chains.PREFIX):
        return chains.op_list(chains.parse(name), *size)
    from mfagan.architecture import op_list, parse

    return op_list(parse(name), *size)


def _sampler(scale: int) -> Callable[[random.Random], str]:
    """Return what draws architectures of the default search space of a scale."""
    from mfagan.space import SearchSpace

    space = SearchSpace(scale=scale)
    return lambda rng: str(space.sample(rng))


def _measured_ops(model: str, folder: Path, size: tuple[int, int]) -> OpList:
    """Return the ops of a measured network: an architecture, or a file beside the measurements."""
    beside = folder / model
    return _ops(str(beside) if beside.is_file() else model, size)


def _devices(arguments: argparse.Namespace) -> int:
    profiles = shipped_profiles()
    if arguments.json:
        fields = [{"target": str(one.target)} | dataclasses.asdict(one) for one in profiles]
        print(json.dumps(fields, indent=2))
        return 0
    for one in profiles:
        sizes = ", ".join(f"{rows}x{columns}" for rows, columns in one.sizes)
        print(
            f"{one.target}{' (default)' if one.default else ''}\n"
            f"  measured on {one.device}, {one.measurements} measurements of {len(one.networks)} "
            f"networks, LR {sizes}, {one.gmacs[0]:.3g} to {one.gmacs[1]:.3g} GMAC"
            f"{f', to {one.date}' if one.date else ''}\n"
            f"  law {one.law}: error {one.fit_error_percent:.1f} % on these networks, "
            f"{one.left_out_error_percent:.1f} % on a {one.left_out} left out (worst "
            f"{one.left_out_worst_percent:.0f} %)\n"
            f"  from {'; '.join(f'{s.name} ({s.licence})' for s in one.sources)}"
        )
        if one.notes:
            print(f"  {one.notes}")
    return 0


def _print_prediction(prediction: Prediction) -> None:
    quantized = " once quantized" if prediction.precision.startswith("int8") else ""
    print(f"  {prediction.target}: {prediction}{quantized}")
    for reason in prediction.extrapolates:
        print(f"    extrapolates: {reason}")
    if not prediction.extrapolates:
        print(f"    interpolates: {prediction.measured}")
    if prediction.notes:
        print(f"    {prediction.notes}")
    for kind, count in prediction.moved.items():
        print(
            f"    {prediction.runtime} moves {count} x {kind} to another unit, which this figure "
            f"does not hold"
        )


def _print_costs(figures: Costs) -> None:
    print(
        f"costs, fp32: {figures.macs / 1e9:.3f} GMAC, {figures.parameters:,} parameters, "
        f"{figures.activations / 1e6:.1f} M activations, "
        f"peak {figures.peak_bytes / 2**20:.2f} MiB, "
        f"memory access {figures.access_bytes / 2**30:.3f} GiB"
    )


def _print_breakdown(prediction: Prediction, every_op: bool) -> None:
    total = prediction.ms or 1.0  # ops that are all free have no share of nothing
    if every_op:
        print(f"{'op':>5} {'kind':16} {'output':>16} {'ms':>9} {'share':>6}")
        for part in prediction.breakdown:
            shape = "x".join(map(str, part.shape))
            share = part.ms / total
            print(f"{part.op:5} {part.kind:16} {shape:>16} {part.ms:9.3f} {share:6.1%}")
        return
    sums: dict[str, tuple[int, float]] = {}
    for part in prediction.breakdown:
        count, ms = sums.get(part.kind, (0, 0.0))
        sums[part.kind] = (count + 1, ms + part.ms)
    print(f"{'kind':16} {'ops':>5} {'ms':>9} {'share':>6}")
    for kind, (count, ms) in sorted(sums.items(), key=lambda item: -item[1][1]):
        print(f"{kind:16} {count:5} {ms:9.3f} {ms / total:6.1%}")


if __name__ == "__main__":
    sys.exit(main())
