"""`mfagan-train`: photographs in, a trained supernet (or one generator) out.

mfagan-train --data photos --out runs/mine
mfagan-train --recipe smoke --data photos --out runs/smoke
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from latency.commandline import Parser, add_common_flags, run
from mfagan.config import TrainConfig, Values, components, field_type, read_toml, resolve
from mfagan.recipes import DEFAULT, RECIPES


def build_parser() -> Parser:
    """Return the command's parser: one group of flags per component of the configuration."""
    parser = Parser(
        "mfagan-train",
        description="Train an MFAGAN on photographs: a teacher, then the supernet (or one "
        "architecture) on pixels, then adversarially under WSAM, distilled from the teacher. The "
        "same command on the same --out goes on where it stopped.",
    )
    parser.add_argument(
        "--recipe", choices=tuple(RECIPES), default=DEFAULT, help="named set of values"
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file of values, over the recipe"
    )
    parser.add_argument("--out", type=Path, required=True, help="run folder, made when missing")
    parser.add_argument(
        "--force",
        action="store_true",
        help="when --out holds a run with another configuration, move it aside and start anew",
    )
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="write the figures for TensorBoard too (pip install 'mfagan[tensorboard]')",
    )
    for table, component in components().items():
        group = parser.add_argument_group(f"[{table}]", str(component.__doc__))
        for field in fields(component):
            kind, many = field_type(component, field.name)
            group.add_argument(
                "--" + field.name.replace("_", "-"),
                dest=f"{table}.{field.name}",
                type=_tuple_of(kind) if many else kind,
                choices=field.metadata.get("choices"),
                default=argparse.SUPPRESS,
                metavar=None if "choices" in field.metadata else _metavar(kind, many),
                help=f"{field.metadata['help']} (default: {_shown(field.default)})".replace(
                    "%", "%%"
                ),
            )
    add_common_flags(parser, "device", "threads", "json")
    return parser


def command(arguments: argparse.Namespace) -> int:
    """Train as the arguments say and print the paths written."""
    flags: dict[str, dict[str, Any]] = {}
    for name, value in vars(arguments).items():
        table, dot, key = name.partition(".")
        if dot:
            flags.setdefault(table, {})[key] = value
    file = read_toml(arguments.config) if arguments.config else {}
    config = resolve(RECIPES[arguments.recipe], file, flags)
    if not config.data.data:
        raise ValueError("--data is needed: a folder of photographs to train on")
    for name, reason in without_effect(config, flags):
        flag = "--" + name.replace("_", "-")
        print(f"mfagan-train: warning: {flag} has no effect {reason}", file=sys.stderr)

    from mfagan.device import prepare_torch
    from mfagan.training import train

    device = prepare_torch(arguments.device, arguments.threads)
    paths = train(
        config,
        arguments.out,
        device=device,
        silent=arguments.json,
        force=arguments.force,
        tensorboard=arguments.tensorboard,
    )
    if arguments.json:
        print(json.dumps({"written": [str(path) for path in paths]}))
    else:
        print("\n".join(map(str, paths)))
    return 0


_SPACE = {"widths", "modules", "convolutions", "branches", "inplace_weight"}
_DISTILLATION = {"output_weight", "feature_weight"}
_TEACHER = {"teacher_steps", "teacher_lr"}
_ADVERSARIAL = {"teacher", "discriminator", "gan_lr", "adversarial_weight", "generator_optimizer"}
_SHARPNESS = {"rho", "gamma"}


def without_effect(config: TrainConfig, given: Values) -> Iterator[tuple[str, str]]:
    """Yield the given options that change nothing in this configuration, and why."""
    names = {name for values in given.values() for name in values}
    cases = [
        (config.network.architecture != "supernet", _SPACE, "with one --architecture"),
        (
            config.schedule.gan_steps == 0,
            _ADVERSARIAL | _DISTILLATION | _TEACHER | _SHARPNESS,
            "without an adversarial stage (--gan-steps 0)",
        ),
        (config.network.teacher == "none", _DISTILLATION | _TEACHER, "with --teacher none"),
        (
            config.network.teacher.endswith(".safetensors"),
            _TEACHER,
            "with a teacher from a file",
        ),
        (
            config.optimizer.generator_optimizer == "adam",
            _SHARPNESS,
            "with --generator-optimizer adam",
        ),
    ]
    for applies, options, reason in cases:
        if applies:
            for name in sorted(names & options):
                names.remove(name)
                yield name, reason


def main(argv: Sequence[str] | None = None) -> int:
    """Run `mfagan-train` and return its exit status."""
    return run(build_parser(), command, argv)


def _tuple_of(kind: type) -> Any:
    def convert(text: str) -> tuple[Any, ...]:
        return tuple(kind(part) for part in text.split(","))

    convert.__name__ = f"{kind.__name__}, {kind.__name__}, ..."
    return convert


def _metavar(kind: type, many: bool) -> str:
    name = {int: "N", float: "X", str: "TEXT"}[kind]
    return f"{name},{name}" if many else name


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return repr(value) if value == "" else str(value)
