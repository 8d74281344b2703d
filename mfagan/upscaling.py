"""Load an exported or trained network and enlarge photographs with it, tile by tile.

import mfagan
model = mfagan.load("mfa_x4_w32_c3-3-2-4_s0-1-1-0_fp32.onnx")
large = mfagan.upscale(image, model)  # (H, W, 3) uint8 RGB in, scale times larger out
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency.commandline import FailureError, available_cores, out_of_memory
from mfagan.architecture import Architecture, MfaArchitecture, parse
from mfagan.model_card import ModelCard
from mfagan.tiling import Tile, fixed_tiles, tiles

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from mfagan.images import Image

    FloatImage = NDArray[np.float32]

TILE = 256
"""Side of a tile's core, LR pixels, unless said otherwise."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network that is ready to run, whatever runs it.

    Attributes:
        architecture: what it is.
        precision: `fp32` or `int8`.
        size: height and width of the only input that it takes, or None when it takes any.
        run: maps LR (1, 3, H, W) float32 in [0, 1], RGB, to SR, scale times larger, not clipped.
    """

    architecture: Architecture
    precision: str
    size: tuple[int, int] | None = None
    run: Callable[[FloatImage], FloatImage] = field(repr=False)

    @property
    def scale(self) -> int:
        """Upscaling factor."""
        return self.architecture.scale

    @property
    def receptive_radius(self) -> int:
        """LR pixels on each side that can change one LR pixel's output block."""
        return self.architecture.receptive_radius

    @property
    def alignment(self) -> int:
        """Multiple of which tile origins must be, in LR pixels."""
        return self.architecture.alignment

    def __call__(self, lr: FloatImage) -> FloatImage:
        """Map LR (1, 3, H, W) float32 in [0, 1], RGB, to SR (1, 3, H * scale, W * scale)."""
        return self.run(lr)

    def plan(self, height: int, width: int, tile: int = TILE) -> list[Tile]:
        """Return the tiles of an LR image; a model of fixed size goes by its size, not by `tile`.

        Raises:
            ValueError: the tile is below 1, or the model's fixed size is too small for the image.
        """
        if self.size is None:
            return tiles(height, width, tile, self.receptive_radius, self.alignment)
        # Without pooled branches there is no grid, and the network pads nothing at the bottom and
        # the right: the last window must end exactly where the image ends.
        pools = isinstance(self.architecture, MfaArchitecture) and any(self.architecture.branches)
        alignment = self.alignment if pools else 1
        return fixed_tiles(height, width, self.size, self.receptive_radius, alignment)


def load(
    path: str | os.PathLike[str],
    *,
    architecture: str | None = None,
    threads: int | None = None,
    device: str = "auto",
) -> Model:
    """Return the network of an `.onnx` file of `mfagan-export` or of a `.safetensors` file.

    Args:
        path: the file.
        architecture: which SubGenerator of a supernet; its largest when not given.
        threads: CPU threads; all cores of this process when not given.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such a file, holds no generator, or the device is not there.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"the model '{file}' is not a file")
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, got '{device}'")
    threads = threads or available_cores()
    if file.suffix == ".onnx":
        if architecture is not None:
            raise ValueError(
                f"'{file}' holds one architecture; only a supernet (.safetensors) lets you choose "
                f"'{architecture}'"
            )
        return _load_onnx(file, threads, device)
    if file.suffix == ".safetensors":
        return _load_weights(file, architecture, threads, device)
    raise ValueError(f"a model must end in .onnx or .safetensors, got '{file}'")


def upscale(
    image: Image, model: Model, *, tile: int = TILE, on_tile: Callable[[], None] | None = None
) -> Image:
    """Return an image enlarged by the model's scale.

    The result does not depend on the tile size; memory does.

    Args:
        image: (H, W, 3) uint8, RGB.
        model: from `load` or `torch_model`.
        tile: side of a tile's core, LR pixels, at least 1.
        on_tile: called after every tile.

    Returns:
        (H * scale, W * scale, 3) uint8, RGB.

    Raises:
        ValueError: the image is not (H, W, 3) uint8, or cannot be tiled.
        FailureError: there is too little memory, or the network cannot be run.
    """
    import numpy as np

    _check_image(image)
    scale = model.scale
    height, width = image.shape[0] * scale, image.shape[1] * scale
    try:
        result = np.empty((height, width, 3), np.uint8)
    except MemoryError as error:
        raise FailureError(
            f"out of memory: the result, {height}x{width}, takes "
            f"{height * width * 3 / 2**30:.1f} GiB; upscale the image in parts"
        ) from error
    for part, sr in upscale_tiles(image, model, tile=tile):
        rounded = np.floor(np.clip(sr, 0, 1) * np.float32(255) + np.float32(0.5))
        result[part.core.scaled(scale)] = rounded.astype(np.uint8).transpose(1, 2, 0)
        if on_tile is not None:
            on_tile()
    return result


def upscale_tiles(
    image: Image, model: Model, *, tile: int = TILE
) -> Iterator[tuple[Tile, FloatImage]]:
    """Yield every tile and the SR of its core, (3, h * scale, w * scale) float32, not clipped.

    Raises:
        ValueError: the image is not (H, W, 3) uint8, or cannot be tiled.
        FailureError: there is too little memory, or the network cannot be run.
    """
    import numpy as np

    _check_image(image)
    height, width = image.shape[:2]
    for part in model.plan(height, width, tile):
        window = part.window
        pixels = image[window.slices]
        missing = (window.height - pixels.shape[0], window.width - pixels.shape[1])
        if any(missing):
            pixels = np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
        lr = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]).astype(np.float32)
        rows, columns = part.core.inside(window).scaled(model.scale)
        yield part, model(lr / np.float32(255))[0, :, rows, columns]


def torch_model(network: nn.Module, architecture: Architecture, *, device: str = "auto") -> Model:
    """Return a Model of a torch generator or teacher, put into eval mode and onto the device.

    Raises:
        ValueError: CUDA is asked for and not there.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("there is no CUDA device; use --device cpu or auto")
    chosen = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    network = network.to(chosen).eval()
    # oneDNN picks its algorithm by the shape, so that a pixel's last bits depend on the tile it is
    # in; torch's own convolution does not, but unfolds its input, which is too much for a teacher.
    onednn = not isinstance(architecture, MfaArchitecture)

    def run(lr: FloatImage) -> FloatImage:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.filterwarnings("ignore", message="TF32 acceleration")
            with (
                torch.backends.mkldnn.flags(enabled=onednn),
                torch.backends.cudnn.flags(
                    enabled=True, benchmark=False, deterministic=True, allow_tf32=False
                ),
            ):
                try:
                    return network(torch.from_numpy(lr).to(chosen)).cpu().numpy()
                except (RuntimeError, MemoryError) as error:
                    if out_of_memory(error):
                        raise _no_memory(lr.shape[2:], fixed=False) from error
                    raise

    return Model(architecture=architecture, precision="fp32", run=run)


def open_network(
    file: str | os.PathLike[str], architecture: str | None = None
) -> tuple[nn.Module, Architecture]:
    """Return the network of a weights file, in eval mode; of a supernet, one SubGenerator.

    Args:
        file: `.safetensors` with a generator, a teacher or a supernet.
        architecture: which SubGenerator of a supernet; its largest when not given.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no generator, or not this architecture.
    """
    from mfagan.checkpoint import cut_subnet, load_network, read_about

    about = read_about(file)
    chosen = parse(architecture or about.architecture) if about.kind != "discriminator" else None
    if about.kind == "supernet" and isinstance(chosen, MfaArchitecture):
        return cut_subnet(file, chosen)[0], chosen
    network, about = load_network(file)
    if chosen is None or str(chosen) != about.architecture or about.kind == "supernet":
        raise ValueError(f"'{file}' holds {about.architecture}, not '{chosen}'")
    return network, chosen


def _load_weights(file: Path, chosen: str | None, threads: int, device: str) -> Model:
    import torch

    torch.set_num_threads(threads)
    network, architecture = open_network(file, chosen)
    return torch_model(network, architecture, device=device)


def _load_onnx(file: Path, threads: int, device: str) -> Model:
    session = _session(file, threads, device)
    try:
        card = ModelCard.from_metadata(session.get_modelmeta().custom_metadata_map)
        _check_signature(session, card)
    except ValueError as error:
        raise ValueError(
            f"'{file}' is not an ONNX file of mfagan: {error}; make one with mfagan-export"
        ) from error

    def run(lr: FloatImage) -> FloatImage:
        nhwc = card.layout == "nhwc"
        try:
            sr = session.run(None, {"lr": lr.transpose(0, 2, 3, 1) if nhwc else lr})[0]
        except Exception as error:  # onnxruntime's own have no base class but this
            if out_of_memory(error):
                raise _no_memory(lr.shape[2:], fixed=card.size is not None) from error
            reason = str(error).split(" : ")[-1].strip()
            raise FailureError(f"ONNX Runtime cannot run '{file}': {reason}") from error
        return sr.transpose(0, 3, 1, 2) if nhwc else sr

    return Model(
        architecture=parse(card.architecture), precision=card.precision, size=card.size, run=run
    )


def _session(file: Path, threads: int, device: str) -> Any:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device == "cuda" and not cuda:
        raise ValueError(
            "this onnxruntime has no CUDA; use --device cpu, a .safetensors model, or install "
            "onnxruntime-gpu"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised, and said once
    providers: list[Any] = ["CPUExecutionProvider"]
    if cuda and device != "cpu":
        providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": 0}))
    unreadable = (states.InvalidProtobuf, states.InvalidArgument, states.InvalidGraph)
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=providers)
    except (*unreadable, states.Fail, states.NotImplemented) as error:
        reason = str(error).split(" : ")[-1].strip()
        raise ValueError(f"'{file}' is not an ONNX file that can be run: {reason}") from error


def _no_memory(window: tuple[int, ...], *, fixed: bool) -> FailureError:
    """Return the error of a window that is too large; a model of fixed size has no other."""
    advice = "export the model with a smaller --input" if fixed else "lower --tile"
    return FailureError(
        f"out of memory at a window of {'x'.join(map(str, window))} LR pixels; {advice}"
    )


def _check_signature(session: Any, card: ModelCard) -> None:
    inputs = [(i.name, i.type) for i in session.get_inputs()]
    outputs = [(o.name, o.type) for o in session.get_outputs()]
    if inputs != [("lr", "tensor(float)")] or outputs != [("sr", "tensor(float)")]:
        raise ValueError(f"it must map float 'lr' to float 'sr', got {inputs} and {outputs}")
    shape = session.get_inputs()[0].shape
    size = tuple(shape[2:] if card.layout == "nchw" else shape[1:3])
    fixed = size if all(isinstance(n, int) for n in size) else None
    if fixed != card.size:
        raise ValueError(f"its metadata say shape {card.shape}, its input is {shape}")


def _check_image(image: Image) -> None:
    if image.dtype.name != "uint8" or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f"an image must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype.name}"
        )
