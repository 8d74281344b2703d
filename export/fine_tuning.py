"""Quantization-aware fine-tuning: an int8 network learns to give what the fp32 network gives.

The graph that will be quantized is trained with its rounding simulated: weights, biases and the
ranges of the activations all move, towards the output of the untouched fp32 graph (no HR images,
so that nothing but the loss of quantization is unlearnt).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from export.quantize import Range, network_image

if TYPE_CHECKING:
    import numpy as np
    import torch
    from onnx import ModelProto

    from export.torch_graph import TorchGraph
    from mfagan.images import Image

PATCH = 48
"""LR pixels of a square patch; smaller where the photographs are."""

BATCH = 4
WEIGHT_RATE = 5e-4
RANGE_RATE = 5e-3
"""Adam's, of weights and of ranges, the latter in parts of a range's width; both fall to zero."""


def fine_tune(
    model: ModelProto,
    quantized: ModelProto,
    crops: Sequence[Image],
    steps: int,
    *,
    seed: int = 0,
    on_step: Callable[[int], None] = lambda _: None,
) -> tuple[ModelProto, dict[str, Range]]:
    """Return the graph with its trained weights, and the learnt ranges, to be quantized with them.

    Args:
        model: fp32, from `export.quantize.preprocess`.
        quantized: the same, quantized: what is quantized, and the ranges to begin with.
        crops: (H, W, 3) uint8 RGB, LR.
        steps: of `BATCH` patches each.
        seed: draws the patches.
        on_step: called with the number of every step done.
    """
    import numpy as np
    import torch

    from export.fake_quantization import FakeQuantization
    from export.torch_graph import TorchGraph

    reference, graph = TorchGraph(model), TorchGraph(model)
    hook = FakeQuantization(quantized)
    for weight in graph.weights.values():
        weight.requires_grad_()
    # In parts of their width, so that one rate serves narrow and wide ranges.
    widths = {name: limits[1] - limits[0] for name, limits in hook.limits.items()}
    del widths[network_image(model)]  # of pixels, which are exact in 8 bits
    parts = {name: (hook.limits[name] / width).requires_grad_() for name, width in widths.items()}
    optimizer = torch.optim.Adam(
        [
            {"params": list(graph.weights.values()), "lr": WEIGHT_RATE},
            {"params": list(parts.values()), "lr": RANGE_RATE},
        ]
    )
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        lr = patches(crops, rng)
        with torch.no_grad():
            wanted = reference.run(lr)
        hook.limits.update({name: parts[name] * width for name, width in widths.items()})
        loss = torch.nn.functional.mse_loss(graph.run(lr, hook), wanted)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        falling.step()
        on_step(step + 1)
    hook.limits.update({name: (parts[name] * width).detach() for name, width in widths.items()})
    return with_weights(model, graph), hook.ranges()


def patches(crops: Sequence[Image], rng: np.random.Generator) -> torch.Tensor:
    """Return (`BATCH`, 3, side, side) float in [0, 1], turned and mirrored at random."""
    import numpy as np
    import torch

    side = min(PATCH, *(min(crop.shape[:2]) // 4 * 4 for crop in crops))
    chosen = []
    for _ in range(BATCH):
        crop = crops[int(rng.integers(len(crops)))]
        top, left = (int(rng.integers(n - side + 1)) for n in crop.shape[:2])
        patch = crop[top : top + side, left : left + side]
        patch = np.rot90(patch, int(rng.integers(4)))
        chosen.append(patch[:, :: -1 if rng.integers(2) else 1].transpose(2, 0, 1))
    return torch.from_numpy(np.stack(chosen).astype(np.float32) / np.float32(255))


def with_weights(model: ModelProto, graph: TorchGraph) -> ModelProto:
    """Return a copy of the model that holds the graph's weights."""
    import onnx
    from onnx import numpy_helper

    result = onnx.ModelProto()
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        if tensor.name in graph.weights:
            values = graph.weights[tensor.name].detach().numpy()
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return result
