"""`mfagan-train`: photographs in, a trained supernet (or one generator) out.

mfagan-train --data photos --out runs/mine
mfagan-train --recipe smoke --data photos --out runs/smoke
mfagan-train --recipe smoke --data photos --out runs/smoke --dry-run
mfagan-train --resume --out runs/smoke
torchrun --nproc-per-node 2 --no-python mfagan-train --data photos --out runs/mine
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from latency.commandline import Parser, add_common_flags, run
from latency.terminal import warn
from mfagan import distributed
from mfagan.config import TrainConfig, Values, components, field_type
from mfagan.config_file import read_toml
from mfagan.config_layers import differences, resolve, to_values
from mfagan.option_checks import (
    refuse_contradictions,
    refuse_moved_inputs,
    refuse_shared_photographs,
    undistilled,
    without_effect,
)
from mfagan.recipes import DEFAULT, RECIPES

PROGRAM = "mfagan-train"


def build_parser() -> Parser:
    """Return the command's parser: one group of flags per component of the configuration."""
    parser = Parser(
        PROGRAM,
        description="Train an MFAGAN on photographs: a teacher, then the supernet (or one "
        "architecture) on pixels, then adversarially under WSAM or another sharpness-aware method, "
        "distilled from the teacher. The same command on the same --out goes on where it stopped.",
    )
    parser.add_argument(
        "--recipe", choices=tuple(RECIPES), help=f"named set of values (default: {DEFAULT})"
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
        "--resume",
        action="store_true",
        help="go on with the run in --out by its own configuration; what else is given must agree",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, print the resolved configuration and an estimate of time, memory "
        "and disk, and write nothing",
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
                type=_tuple_of(kind) if many else _number(kind, field.metadata.get("refused", {})),
                **_bare(field.metadata),
                choices=field.metadata.get("choices"),
                default=argparse.SUPPRESS,
                metavar=None if "choices" in field.metadata else _metavar(kind, many),
                help=f"{field.metadata['help']} (default: {_shown(field.default)})".replace(
                    "%", "%%"
                ),
            )
    add_common_flags(parser, "device", "threads", "json")
    parser.set_defaults(threads=distributed.thread_share())
    return parser


def command(arguments: argparse.Namespace) -> int:
    """Train as the arguments say and print the paths written."""
    if arguments.resume and arguments.force:
        raise ValueError("--resume goes on with a run and --force starts it anew; give one of them")
    flags: dict[str, dict[str, Any]] = {}
    for name, value in vars(arguments).items():
        table, dot, key = name.partition(".")
        if dot:
            flags.setdefault(table, {})[key] = value
    file = read_toml(arguments.config) if arguments.config else {}
    if arguments.resume:
        config = _resumed(arguments, RECIPES.get(arguments.recipe, {}), file, flags=flags)
    else:
        config = resolve(RECIPES[arguments.recipe or DEFAULT], file, flags=flags)
    _check(arguments, config)
    if not arguments.resume:
        _warn(arguments, config, file, flags)

    if arguments.dry_run and distributed.rank() > 0:
        return 0  # the first process tells what each will take
    from mfagan.device import prepare_torch

    if arguments.dry_run:
        from mfagan.dry_run import plan_training

        device = prepare_torch(arguments.device, arguments.threads)
        plan = plan_training(
            config,
            arguments.out,
            device=device,
            force=arguments.force,
            tensorboard=arguments.tensorboard,
            silent=arguments.json,
        )
        for text in plan.warnings():
            warn(PROGRAM, text)
        print(json.dumps(plan.to_json(), indent=2) if arguments.json else plan)
        return 0

    with distributed.sharing_failures(PROGRAM):
        from mfagan.training import train

        device = prepare_torch(arguments.device, arguments.threads)
        distributed.join(device)
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


def _resumed(arguments: argparse.Namespace, *given: Values, flags: Values) -> TrainConfig:
    """Return the configuration of the run in `--out`, with which everything given must agree."""
    from mfagan.existing_run import stored_config

    out: Path = arguments.out
    if not (out / "config.toml").exists():
        raise ValueError(
            f"--resume: '{out}' holds no run (there is no '{out / 'config.toml'}'); give the "
            "folder of one, or leave --resume out to start it"
        )
    stored = stored_config(out)
    wanted = resolve(to_values(stored), *given, flags=flags)
    changed = [
        text
        for text in differences(wanted, stored)
        if not text.endswith("-> 'auto'")  # what this machine makes of it is compared later
    ]
    if changed:
        raise ValueError(
            f"--resume goes on with the run in '{out}' as it was configured, and what is given "
            f"beside differs ({'; '.join(changed)}); leave that out, or give another --out "
            "without --resume"
        )
    return wanted


def _check(arguments: argparse.Namespace, config: TrainConfig) -> None:
    """Refuse what contradicts itself, before anything is loaded."""
    data, validation = config.data.data, config.data.validation
    if not data:
        raise ValueError("--data is needed: a folder of photographs to train on")
    if arguments.recipe == "finetune" and not config.network.start:
        raise ValueError("--recipe finetune needs --start, the weights that are tuned")
    refuse_contradictions(config)
    distributed.refuse_uneven(config, distributed.world())
    for folder in (data, validation) if arguments.resume else ():
        if folder and not Path(folder).is_dir():
            where = "" if Path(folder).is_absolute() else f", seen from '{Path.cwd()}'"
            raise FileNotFoundError(
                f"the photographs '{folder}' of the run in '{arguments.out}' are not there{where}; "
                "put them back, or a link to them"
            )
    if validation:
        refuse_shared_photographs(Path(data), Path(validation))
    if arguments.force:
        refuse_moved_inputs(config, arguments.out)


def _warn(arguments: argparse.Namespace, config: TrainConfig, file: Values, flags: Values) -> None:
    """Warn of every option that changes nothing."""
    # A file that says everything is the configuration of a run, which nobody wrote to change it.
    whole = to_values(config)
    complete = all(whole[table].keys() <= file.get(table, {}).keys() for table in whole)
    layers = (flags,) if complete else (file, flags)
    given = {table: {k: v for x in layers for k, v in x.get(table, {}).items()} for table in whole}
    for name, reason in without_effect(config, given):
        table = next(table for table, values in given.items() if name in values)
        said = f"{table}.{name} in '{arguments.config}'"
        if name in flags.get(table, {}):
            said = f"--{name.replace('_', '-')}"
        warn(PROGRAM, f"{said} has no effect {reason}")
    if reason := undistilled(config):
        warn(PROGRAM, reason)
    if arguments.config and not any(file.values()):
        warn(PROGRAM, f"--config has no effect: '{arguments.config}' sets no value")
    recipe = RECIPES.get(arguments.recipe, {})
    if recipe and config == resolve(file, flags):
        warn(PROGRAM, "--recipe has no effect: the file and the flags say all that it would")
    if arguments.force and not (arguments.out / "config.toml").exists():
        warn(PROGRAM, f"--force has no effect: '{arguments.out}' holds no run")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `mfagan-train` and return its exit status."""
    with distributed.only_the_first_speaks():
        return run(build_parser(), command, argv)


def _bare(limits: Mapping[str, Any]) -> dict[str, Any]:
    return {"nargs": "?", "const": limits["bare"]} if "bare" in limits else {}


def _number(kind: type, refused: Mapping[str, str] | None = None) -> Any:
    """Return a parser of one int, float or str; of a str that is refused it says why."""
    if kind is str:

        def check(text: str) -> str:
            if reason := (refused or {}).get(text):
                raise argparse.ArgumentTypeError(f"it must not be {text}: {reason}")
            return text

        return check
    wanted = "a whole number" if kind is int else "a number"

    def convert(text: str) -> Any:
        try:
            return kind(text)
        except ValueError as error:
            shown = text if len(text) <= 60 else text[:57] + "..."
            raise argparse.ArgumentTypeError(f"{wanted} is needed, got '{shown}'") from error

    return convert


def _tuple_of(kind: type) -> Any:
    one = _number(kind)

    def convert(text: str) -> tuple[Any, ...]:
        try:
            return tuple(one(part) for part in text.split(","))
        except argparse.ArgumentTypeError as error:
            shown = text if len(text) <= 60 else text[:57] + "..."
            raise argparse.ArgumentTypeError(
                f"whole numbers joined by commas are needed, e.g. 16,24, got '{shown}'"
            ) from error

    return convert


def _metavar(kind: type, many: bool) -> str:
    name = {int: "N", float: "X", str: "TEXT"}[kind]
    return f"{name},{name}" if many else name


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return repr(value) if value == "" else str(value)


if __name__ == "__main__":
    sys.exit(main())
