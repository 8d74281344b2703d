"""What static int8 does to a SubGenerator, simulated while torch runs it: no export, no runtime.

The rules are those of `export.quantize`: weights symmetric by output channel, activations in 8 bits
by tensor with the range (MinMax) that calibration crops gave them, pixels exact, and everything
after the last convolution in float. A tensor is rounded where an op reads it, so that a convolution
and its activation are one, as in the exported file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from export.fake_quantization import quantize_activation, quantize_kernel
from export.quantize import Range

if TYPE_CHECKING:
    from mfagan.architecture import MfaArchitecture
    from mfagan.generator import Generator
    from mfagan.images import Image

CROP = 64
"""LR pixels of a side of a calibration crop, at most."""
MOST_CROPS = 16

_RESIZED = (F.avg_pool2d, F.interpolate)


class SimulatedInt8:
    """Runs SubGenerators of one network as if they were quantized.

    Args:
        network: a generator, or a supernet.
        crops: (H, W, 3) uint8 RGB, LR, to find the ranges on; at least one.
    """

    def __init__(self, network: Generator, crops: Sequence[Image]) -> None:
        self._network = network
        self._crops = crops

    def ranges(self, architecture: MfaArchitecture | None = None) -> dict[int, Range]:
        """Return the least and the most of every tensor that an op reads, by its number."""
        found: dict[int, Range] = {}

        def watch(number: int, value: Tensor) -> Tensor:
            least, most = (float(each) for each in torch.aminmax(value))
            before = found.get(number, (0.0, 0.0))  # 0 is in every range
            found[number] = min(before[0], least), max(before[1], most)
            return value

        for crop in self._crops:
            self._run(crop, architecture, watch, kernels=False)
        found[0] = (0.0, 1.0)  # pixels, which are exact in 8 bits
        return found

    def restore(
        self, images: Sequence[Image], architecture: MfaArchitecture | None = None
    ) -> list[Image]:
        """Return the SR images of LR images, uint8 RGB in and out.

        Args:
            images: (H, W, 3) uint8 RGB.
            architecture: a SubGenerator of a supernet.
        """
        from mfagan.evaluation import to_image

        device = next(self._network.parameters()).device
        ranges = self.ranges(architecture)
        limits = {number: torch.tensor(each, device=device) for number, each in ranges.items()}

        def quantize(number: int, value: Tensor) -> Tensor:
            return quantize_activation(value, limits[number])

        return [to_image(self._run(lr, architecture, quantize, kernels=True)) for lr in images]

    def _run(
        self,
        lr: Image,
        architecture: MfaArchitecture | None,
        read: Callable[[int, Tensor], Tensor],
        *,
        kernels: bool,
    ) -> Tensor:
        from mfagan.evaluation import to_tensor

        device = next(self._network.parameters()).device
        with torch.inference_mode(), _Reading(read, kernels=kernels):
            x = to_tensor(lr, device)
            result: Tensor = (
                self._network(x) if architecture is None else self._network(x, architecture)
            )
            return result


class _Reading(TorchFunctionMode):
    """Passes every tensor that a quantized op reads to a function, once, with its number."""

    def __init__(self, read: Callable[[int, Tensor], Tensor], *, kernels: bool) -> None:
        super().__init__()
        self._read = read
        self._kernels = kernels
        self._count = 0
        # By tensor, for as long as there is one.
        self._known = WeakTensorKeyDictionary()
        self._numbers = WeakTensorKeyDictionary()
        self._in_float = WeakTensorKeyDictionary()

    def __torch_function__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        given, keywords = list(arguments), keywords or {}
        if function is torch.conv2d:
            given[0] = self._quantized(given[0])
            if self._kernels:
                given[1] = quantize_kernel(given[1])
            return function(*given, **keywords)
        if function is Tensor.add:
            skips = [each in self._in_float for each in given]
            given = [
                each if skip else self._quantized(each)
                for each, skip in zip(given, skips, strict=True)
            ]
            return function(*given, **keywords)
        if function in _RESIZED:
            source = given[0]
            result = function(self._quantized(source), *given[1:], **keywords)
            self._numbers[result] = self._numbers[source]  # these ops keep their input's range
            return result
        result = function(*given, **keywords)
        if function is Tensor.index_select:  # the LR on its way to the picture
            self._in_float[result] = True
        return result

    def _quantized(self, value: Tensor) -> Tensor:
        if value not in self._known:
            if value not in self._numbers:
                self._numbers[value] = self._count
                self._count += 1
            self._known[value] = self._read(self._numbers[value], value)
        found: Tensor = self._known[value]
        return found
