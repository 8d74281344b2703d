"""`mfagan-export check MODEL.onnx`: what execution providers make of an ONNX file, without a phone.

Any ONNX file: nothing in it is run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from latency.commandline import Parser, add_common_flags, run

PROGRAM = "mfagan-export check"
_PROVIDERS = ("cpu", "xnnpack", "nnapi", "qnn")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run(build_parser(), _check, argv)


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(prog=PROGRAM, description=__doc__)
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="any ONNX file")
    parser.add_argument(
        "--provider",
        choices=_PROVIDERS,
        help="execution provider of ONNX Runtime; all of them if not given",
    )
    add_common_flags(parser, "json")
    return parser


def _check(arguments: argparse.Namespace) -> int:
    from export.check import check
    from latency.onnx_model import load_onnx

    path = arguments.model
    model = load_onnx(path)
    chosen = [arguments.provider] if arguments.provider else _PROVIDERS
    try:
        reports = [check(model, provider) for provider in chosen]
    except ValueError as error:
        raise ValueError(f"'{path}': {error}") from error
    if arguments.json:
        found = {"model": str(path), "providers": [report.to_json() for report in reports]}
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(map(str, reports)))
    return 0
