"""Networks that are ready to run, whatever runs them: from `.onnx`, weights files or torch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from latency.commandline import FailureError, default_threads, out_of_memory
from latency.costs import peak_elements
from latency.memory import available_bytes
from mfagan.architecture import Architecture, MfaArchitecture, op_list, parse
from mfagan.checkpoint import cut_subnet, is_weights_file, load_network, read_about
from mfagan.shipped import DEFAULT_MODEL, names, resolve_model
from mfagan.tiling import Tile, fixed_tiles, tiles

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    FloatImage = NDArray[np.float32]

TILE = 256
"""Side of a tile's core, LR pixels, unless said otherwise."""


class WindowMemoryError(FailureError):
    """There is too little memory for a window of this size; `upscale` tries smaller ones.

    Args:
        window: height and width, LR pixels.
        fixed: the model takes no other size.
    """

    def __init__(self, window: tuple[int, ...], *, fixed: bool) -> None:
        advice = "; export the model with a smaller --input" if fixed else ""
        super().__init__(
            f"out of memory at a window of {'x'.join(map(str, window))} LR pixels{advice}"
        )


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network that is ready to run, whatever runs it.

    Attributes:
        architecture: what it is.
        precision: of its weights and arithmetic, of `mfagan.model_card.PRECISIONS`.
        size: height and width of the only input that it takes, or None when it takes any.
        on_host: it runs in this machine's own memory, not in a CUDA device's.
        run: maps LR (1, 3, H, W) float32 in [0, 1], RGB, to SR, scale times larger, not clipped.
    """

    architecture: Architecture
    precision: str
    size: tuple[int, int] | None = None
    on_host: bool = True
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

    def check_memory(self, height: int, width: int) -> None:
        """Refuse a window whose tensors alone need more memory than there is.

        Linux promises more memory than it has, and then ends the process instead of refusing.

        Raises:
            WindowMemoryError: the live tensors of contract 7 do not fit; what a runtime needs
                besides is not counted.
        """
        sample = 1 if self.precision == "int8" else 4
        needed = peak_elements(op_list(self.architecture, height, width)) * sample
        if self.on_host and needed > available_bytes():
            raise WindowMemoryError((height, width), fixed=self.size is not None)

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
    path: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    architecture: str | None = None,
    threads: int | None = None,
    device: str = "auto",
) -> Model:
    """Return a shipped network, or that of an `.onnx` file of `mfagan-export` or a weights file.

    ESRGAN's published weights (`.pth`, see `published_weights`) are read as well; nothing in them
    is run.

    Args:
        path: the file, or the name of a shipped network (see `mfagan.shipped`).
        architecture: which SubGenerator of a supernet; its largest when not given.
        threads: CPU threads; all cores of this process when not given.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        FileNotFoundError: there is no such file, and no shipped network of that name.
        ValueError: it is not such a file, is damaged, holds no generator, or the device is not
            there.
    """
    file = resolve_model(path)
    _refuse_folder(file)
    if not file.is_file():
        raise FileNotFoundError(f"the model '{file}' is not a file")
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, got '{device}'")
    threads = threads or default_threads()
    suffix = file.suffix.lower()
    if suffix == ".onnx":
        if architecture is not None:
            raise ValueError(
                f"'{file}' holds one architecture; only a supernet (.safetensors) lets you choose "
                f"'{architecture}'"
            )
        from mfagan.onnx_model import load_onnx

        return load_onnx(file, threads, device)
    if is_weights_file(str(file)):
        return _load_weights(file, architecture, threads, device)
    raise ValueError(f"a model must end in .onnx, .safetensors or .pth, got '{file}'")


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
                        raise WindowMemoryError(lr.shape[2:], fixed=False) from error
                    raise

    return Model(architecture=architecture, precision="fp32", on_host=chosen == "cpu", run=run)


def open_network(
    file: str | os.PathLike[str], architecture: str | None = None
) -> tuple[nn.Module, Architecture]:
    """Return the network of a weights file, in eval mode; of a supernet, one SubGenerator.

    Args:
        file: `.safetensors` with a generator, a teacher or a supernet, or a published `.pth`.
        architecture: which SubGenerator of a supernet; its largest when not given.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no generator, or not this architecture.
    """
    _refuse_folder(Path(file))
    about = read_about(file)
    chosen = parse(architecture or about.architecture) if about.kind != "discriminator" else None
    if about.kind == "supernet" and isinstance(chosen, MfaArchitecture):
        return cut_subnet(file, chosen)[0], chosen
    network, about = load_network(file)
    if chosen is None or str(chosen) != about.architecture or about.kind == "supernet":
        raise ValueError(f"'{file}' holds {about.architecture}, not '{chosen}'")
    return network, chosen


def _refuse_folder(path: Path) -> None:
    """Refuse a folder where a model is wanted; of a run's, name the generator in it."""
    if path.is_dir():
        trained = path / "gan.safetensors"
        hint = f"; did you mean '{trained}'?" if trained.is_file() else ""
        if str(path) in names():
            hint += "; it hides the shipped network of that name"
        raise FileNotFoundError(f"the model '{path}' is not a file but a folder{hint}")


def _load_weights(file: Path, chosen: str | None, threads: int, device: str) -> Model:
    import torch

    torch.set_num_threads(threads)
    network, architecture = open_network(file, chosen)
    return torch_model(network, architecture, device=device)
