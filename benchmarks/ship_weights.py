"""Put a trained network, or an ONNX file made of it, among those that come with the package.

python benchmarks/ship_weights.py large runs/large/pixel.safetensors --photographs 206 \
    --description "the best PSNR" --test Set5 Set14
mfagan-export large --out exported
python benchmarks/ship_weights.py large exported/mfa_x4_..._int8.onnx --kind int8 --test Set5 Set14

Weights of the adversarial stage may be moved towards those of the pixel stage that they were
trained from (network interpolation, ESRGAN, section 3.4): less noise, less detail. The two
convolutions behind the modules have a share of their own; a small one keeps the detail.

python benchmarks/ship_weights.py large-gan runs/large-gan/gan.safetensors \
    --towards runs/large/pixel.safetensors --share 0.4 \
    --last-share 0.05 --test Set5 Set14

The weights are rounded to half precision, so that all of them are small enough; of the paths in
their configuration only the last part stays.
New weights take the figures and the ONNX files of those that they replace away.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from latency.commandline import FailureError, Parser, add_common_flags, positive_int, run
from latency.files import write_bytes, write_text
from latency.progress import Progress
from latency.terminal import warn
from mfagan import shipped
from mfagan.about import About
from mfagan.checkpoint import load_network, save_network
from mfagan.model import load
from mfagan.model_card import PRECISIONS
from mfagan.shipped import (
    DEFAULT_SUPERNET,
    KINDS,
    LIST,
    MOST_BYTES,
    WEIGHTS,
    ShippedFile,
    ShippedModel,
)

PROGRAM = "ship_weights.py"
HEAD = "# The weights that come with the package; benchmarks/ship_weights.py writes this list.\n"
_LAST = ("body.", "tail.")
"""Of a generator, the two convolutions behind the modules."""
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = Parser(prog=PROGRAM, description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("name", metavar="NAME", help="what the network is called, e.g. large-gan")
    parser.add_argument("file", metavar="FILE", type=Path, help=".safetensors or .onnx")
    parser.add_argument("--kind", choices=KINDS, default=WEIGHTS, help="of the file")
    parser.add_argument(
        "--test",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="HR photographs that the file is measured on as it is shipped; figures are kept "
        "without it, of a file that is the same",
    )
    parser.add_argument("--description", metavar="LINE", help="kept when not given again")
    parser.add_argument(
        "--photographs", type=positive_int, metavar="N", help="trained on; kept likewise"
    )
    parser.add_argument(
        "--towards", type=Path, metavar="FILE", help="weights of the same network to move towards"
    )
    parser.add_argument(
        "--share",
        type=share,
        metavar="X",
        help="of --towards in all weights up to the last module's, above 0, below 1",
    )
    parser.add_argument(
        "--last-share",
        type=share,
        metavar="X",
        help="of --towards in the two convolutions behind the modules; 0 without it",
    )
    add_common_flags(parser)
    return run(parser, _ship, argv)


def share(text: str) -> float:
    """Parse a number above 0 and below 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and below 1, got {text}")
    return value


def _ship(arguments: argparse.Namespace) -> int:
    name, kind = arguments.name, arguments.kind
    if not _NAME.fullmatch(name):
        raise ValueError(f"a name is small letters, digits and single hyphens, got '{name}'")
    if arguments.description is not None and not arguments.description.isprintable():
        raise ValueError("--description must be one line that can be printed")
    if (arguments.towards is None) != (arguments.share is None):
        raise ValueError("--towards and --share belong together")
    if arguments.share is None and arguments.last_share is not None:
        raise ValueError("--last-share belongs to --share")
    models = {each: shipped.shipped(each) for each in shipped.names()}
    told = {"description": arguments.description, "photographs": arguments.photographs}
    told = {key: value for key, value in told.items() if value is not None}
    if kind == WEIGHTS:
        data, about = anonymous(
            arguments.file, arguments.towards, arguments.share or 0.0, arguments.last_share or 0.0
        )
        wanted = "supernet" if name == DEFAULT_SUPERNET else "generator"
        if about.kind != wanted:
            raise ValueError(f"'{name}' must be a {wanted}, the file holds a {about.kind}")
        if about.stage == ("pixel" if name.endswith("-gan") else "gan"):
            raise ValueError(f"'{name}' is no name for weights of the {about.stage} stage")
        told |= {"network": about.kind, "architecture": about.architecture, "stage": about.stage}
    else:
        if arguments.towards is not None:
            raise ValueError("--towards is for weights, not for a file made of them")
        if name not in models:
            raise ValueError(f"'{name}' is not shipped yet: its {WEIGHTS} come first")
        load(arguments.file, device="cpu")  # its graph is compared with its metadata
        data = arguments.file.read_bytes()
    figures = measured(data, arguments.file.suffix, arguments.test)
    digest = hashlib.sha256(data).hexdigest()
    file = ShippedFile(path=shipped.FOLDER / _file_name(name, kind), sha256=digest)
    model = _entry(models.get(name), {"name": name, **told}, kind, file, figures)
    if kind != WEIGHTS:
        there = ShippedFile(path=arguments.file, sha256=digest)
        shipped.check_metadata(replace(model, files={**model.files, kind: there}), kind)
    _write(models, model, data, kind)
    print(file.path)
    print(shipped.FOLDER / LIST)
    return 0


def _entry(
    before: ShippedModel | None,
    told: Mapping[str, Any],
    kind: str,
    file: ShippedFile,
    figures: Mapping[str, float],
) -> ShippedModel:
    """Return a network's entry with one file more, or another one."""
    fields = {"files": {}, "figures": {}} if before is None else vars(before)
    files, kept = fields["files"], fields["figures"]
    if kind == WEIGHTS and files and files[WEIGHTS].sha256 != file.sha256:
        if kept and not figures:
            warn(PROGRAM, "these are other weights: the figures of those before are gone")
        files, kept = {}, {}
    if figures:
        others = {key: value for key, value in kept.items() if _measured_on(key) != kind}
        suffix = "" if kind == WEIGHTS else f"_{kind}"
        kept = {**others, **{f"{key}{suffix}": value for key, value in figures.items()}}
    fields = {**fields, **told, "files": {**files, kind: file}, "figures": kept}
    if missing := {"description", "photographs"} - fields.keys():
        raise ValueError(f"'{told['name']}' is new: give --{' and --'.join(sorted(missing))}")
    return ShippedModel(**fields)


def anonymous(
    file: Path, towards: Path | None, share: float, last_share: float = 0.0
) -> tuple[bytes, About]:
    """Return a weights file as it is shipped, and what it says: no folder of anyone's machine.

    Args:
        file: `.safetensors` of mfagan-train or mfagan-search.
        towards: another one of the same network, or None.
        share: of `towards` in every weight up to the last module's, 0 to 1.
        last_share: of `towards` in the two convolutions behind the modules, 0 to 1.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no network that can be rebuilt, or `towards` holds another one.
    """
    network, about = load_network(file)
    about = replace(about, configuration=last_parts(about.configuration))
    if towards is not None:
        other, its = load_network(towards)
        if its.architecture != about.architecture:
            raise ValueError(f"'{towards}' holds {its.architecture}, not {about.architecture}")
        theirs = other.state_dict()
        network.load_state_dict(
            {
                name: weight.lerp(theirs[name], last_share if name.startswith(_LAST) else share)
                for name, weight in network.state_dict().items()
            }
        )
        shares = {"share": share, "last_share": last_share}
        about = replace(
            about, metrics={f"{name}_of_{its.stage}_stage": value for name, value in shares.items()}
        )
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.safetensors"
        save_network(copy, network, about, half=True)
        return copy.read_bytes(), about


def last_parts(value: Any) -> Any:
    """Return nested values in which every text with folders is its last part."""
    if isinstance(value, Mapping):
        return {key: last_parts(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [last_parts(each) for each in value]
    return PurePath(value).name if isinstance(value, str) and "/" in value else value


def measured(data: bytes, suffix: str, tests: Sequence[Path]) -> dict[str, float]:
    """Return the mean measures of a model file on folders of photographs.

    Args:
        data: the file, as it is shipped.
        suffix: of its name.
        tests: folders; the figures of `Set5` are named as `set5_psnr_y_crop4`.

    Raises:
        FileNotFoundError, ValueError: a folder or a photograph cannot be used.
    """
    from mfagan.quality.evaluate import evaluate
    from mfagan.quality.measures import Measures
    from mfagan.quality.subjects import model
    from mfagan.quality.truths import Truths

    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"shipped{suffix}"
        file.write_bytes(data)
        for test in tests:
            subject = model(str(file))
            truths = Truths(test, subject.scale or 4)
            with Progress(test.name, len(truths)) as progress:
                found = evaluate(
                    [subject],
                    truths,
                    Measures(crop=truths.scale),
                    lambda truth, _, progress=progress: progress.update(truth.name),
                )
            means = found.means()[subject.name]
            name = test.resolve().name.lower()
            figures |= {
                f"{name}_{measure}": round(value, 4)
                for measure, value in means.items()
                if math.isfinite(value)
            }
    return figures


def to_toml(models: Mapping[str, ShippedModel]) -> str:
    """Return the list, by name, that `mfagan.shipped` reads; equal networks give equal text."""
    lines = [HEAD]
    for name, model in sorted(models.items()):
        keys = ("description", "network", "architecture", "stage", "photographs")
        lines += _table(f"model.{name}", {key: getattr(model, key) for key in keys})
        for kind, file in sorted(model.files.items()):
            values = {"file": file.path.name, "sha256": file.sha256}
            lines += _table(f"model.{name}.files.{kind}", values)
        if model.figures:
            lines += _table(f"model.{name}.figures", dict(sorted(model.figures.items())))
    return "\n".join(lines)


def _table(name: str, values: Mapping[str, str | int | float]) -> list[str]:
    return [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in values.items()), ""]


def _toml(value: str | int | float) -> str:
    # A JSON text is a TOML text but for DEL, which is not printable and was refused.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _file_name(name: str, kind: str) -> str:
    return f"{name}.safetensors" if kind == WEIGHTS else f"{name}_{kind}.onnx"


def _measured_on(figure: str) -> str:
    """Return the kind of file that a figure of the list belongs to."""
    return next((kind for kind in PRECISIONS if figure.endswith(f"_{kind}")), WEIGHTS)


def _write(models: Mapping[str, ShippedModel], model: ShippedModel, data: bytes, kind: str) -> None:
    """Write a file and the list, and remove what the list named before and names no more."""
    after = {**models, model.name: model}
    text = to_toml(after)
    target = model.files[kind].path
    kept = {file.path for each in after.values() for file in each.files.values()} - {target}
    total = len(data) + len(text.encode()) + sum(path.stat().st_size for path in kept)
    if total > MOST_BYTES:
        raise FailureError(f"all shipped files would have {total:,} bytes, of {MOST_BYTES:,}")
    write_bytes(target, data)
    write_text(shipped.FOLDER / LIST, text)
    former = models.get(model.name)
    for old in () if former is None else former.files.values():
        if old.path not in kept | {target}:
            warn(PROGRAM, f"{old.path.name} was made of other weights and is removed")
            old.path.unlink(missing_ok=True)
    if faults := shipped.verify():
        raise FailureError("; ".join(faults))


if __name__ == "__main__":
    sys.exit(main())
