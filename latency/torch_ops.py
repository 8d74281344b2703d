"""Read the ops of a torch module by running it once on the meta device: shapes, no arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from latency.canonical import canonical
from latency.ops import OpList, OpListBuilder, Shape

if TYPE_CHECKING:
    from torch import nn

_ELEMENTWISE = {
    "relu": "relu",
    "leaky_relu": "leaky_relu",
    "_prelu_kernel": "prelu",
    "clamp": "clip",
    "clamp_min": "clip",
    "clamp_max": "clip",
    "hardtanh": "clip",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "gelu": "gelu",
    "hardswish": "hardswish",
    "hardsigmoid": "hardsigmoid",
    "add": "add",
    "sub": "sub",
    "mul": "mul",
    "div": "div",
    "exp": "exp",
    "sqrt": "sqrt",
    "pow": "pow",
    "neg": "neg",
    "softmax": "softmax",
    "_softmax": "softmax",
}
_MOVES = {
    "cat": "concat",
    "upsample_nearest2d": "resize",
    "_upsample_nearest_exact2d": "resize",
    "upsample_bilinear2d": "resize",
    "_upsample_bilinear2d_aa": "resize",
    "upsample_bicubic2d": "resize",
    "_upsample_bicubic2d_aa": "resize",
    "pixel_shuffle": "depth_to_space",
    "pixel_unshuffle": "space_to_depth",
    "replication_pad2d": "pad",
    "reflection_pad2d": "pad",
    "constant_pad_nd": "pad",
    "slice": "slice",
    "split": "slice",
    "split_with_sizes": "slice",
    "narrow": "slice",
    "index_select": "gather",
    "index": "gather",
    "expand": "gather",
    "repeat": "gather",
    "repeat_interleave": "gather",
    "permute": "transpose",
    "transpose": "transpose",
    "t": "transpose",
    "view": "reshape",
    "_unsafe_view": "reshape",
    "reshape": "reshape",
    "squeeze": "reshape",
    "unsqueeze": "reshape",
}
_POOLS = {
    "avg_pool2d": "avg_pool",
    "max_pool2d_with_indices": "max_pool",
    "_adaptive_avg_pool2d": "global_avg_pool",
    "mean": "reduce_mean",
}
_TRANSPARENT = frozenset(
    {"detach", "alias", "clone", "contiguous", "_to_copy", "dropout", "native_dropout"}
    | {"lift_fresh", "lift_fresh_copy"}
)
# These do something even where they leave the shape as it was.
_REORDERS = frozenset({"index_select", "index", "repeat_interleave", "permute", "transpose", "t"})


def from_torch(module: nn.Module, input_size: tuple[int, int], channels: int = 3) -> OpList:
    """Return the ops of a torch module, in evaluation mode, at one input size.

    Args:
        module: maps (1, channels, H, W) to one tensor; its weights are neither read nor changed.
        input_size: LR height and width.
        channels: of the input.

    Raises:
        ValueError: the module does not take such an input, does not return one tensor that depends
            on it, or has ops of no known class (all are listed).
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    if min(input_size) < 1:
        raise ValueError(f"the input size must be positive, got {input_size[0]}x{input_size[1]}")
    recorder = _Recorder((channels, *input_size))

    class Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            recorder.record(func, args, kwargs or {}, result)
            return result

    lr = torch.empty((1, channels, *input_size), device="meta")
    recorder.start(lr)
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    meta = {name: torch.empty_like(tensor, device="meta") for name, tensor in state.items()}
    training = [one for one in module.modules() if one.training]
    module.eval()
    try:
        with torch.no_grad(), torch.device("meta"), Mode():  # type: ignore[no-untyped-call]
            output = torch.func.functional_call(module, meta, (lr,))
    except RuntimeError as error:
        raise ValueError(
            f"the module cannot be run on {channels}x{input_size[0]}x{input_size[1]}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    finally:
        for one in training:
            one.training = True
    return recorder.finish(output)


class _Recorder:
    """Maps the aten ops of one run to an op list."""

    def __init__(self, input_shape: Shape) -> None:
        self.builder = OpListBuilder(input_shape)
        self.numbers: dict[int, int] = {}
        # An id is only unique while its tensor lives.
        self.alive: list[Any] = []
        self.unknown: set[str] = set()

    def start(self, lr: Any) -> None:
        self._set(lr, 0)

    def finish(self, output: Any) -> OpList:
        if self.unknown:
            raise ValueError(
                f"the module has ops of no known class: {', '.join(sorted(self.unknown))}"
            )
        number = self.numbers.get(id(output))
        if number is None:
            raise ValueError(
                f"the module must return one tensor made from its input, got "
                f"{type(output).__name__}"
            )
        built = self.builder.build()
        return canonical(OpList(built.input_shape, built.ops, number))

    def record(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        tensors = [one for one in _flat((args, list(kwargs.values()))) if id(one) in self.numbers]
        if not tensors:
            return
        name = func.overloadpacket.__name__.removesuffix("_")
        if name in _TRANSPARENT:
            self._set(_first(result), self.numbers[id(tensors[0])])
        elif name == "silu":
            # ONNX and the phones' runtimes have no op for it.
            gate = self._add("sigmoid", tensors, result)
            inputs = (self.numbers[id(tensors[0])], gate)
            self._set(result, self.builder.add("mul", inputs, _shape(result)))
        elif name in ("split", "split_with_sizes"):
            for part in result:
                self._move(name, tensors, part)
        elif name in _MOVES:
            self._move(name, tensors, result)
        elif name in _ELEMENTWISE:
            weights = args[1].numel() if name == "_prelu_kernel" else 0
            self._set(result, self._add(_ELEMENTWISE[name], tensors, result, parameters=weights))
        elif name in _POOLS:
            self._pool(name, tensors, args, result)
        elif handler := self._weighted().get(name):
            handler(name, tensors, args, result)
        else:
            self.unknown.add(f"aten.{name}")
            # Whatever follows is still looked at, so that every unknown op is listed.
            for one in _flat(result):
                self._set(one, self.numbers[id(tensors[0])])

    def _weighted(self) -> dict[str, Callable[[str, list[Any], Any, Any], None]]:
        products = dict.fromkeys(("addmm", "mm", "bmm"), self._product)
        norms = ("native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit_no_training")
        return {"convolution": self._convolution} | products | dict.fromkeys(norms, self._norm)

    def _convolution(self, _: str, tensors: list[Any], args: Any, result: Any) -> None:
        x, weight, bias, stride, _, _, transposed, _, groups = args[:9]
        if weight.dim() != 4:
            self.unknown.add(f"aten.convolution over {weight.dim() - 2} axes")
            return
        learned = id(weight) not in self.numbers
        number = self._add(
            "conv_transpose" if transposed else "conv",
            tensors,
            result,
            kernel=tuple(weight.shape[2:]),
            stride=_pair(stride),
            groups=groups,
            in_channels=x.shape[1],
            parameters=_elements(bias) + (weight.numel() if learned else 0),
        )
        self._set(result, number)

    def _product(self, name: str, tensors: list[Any], args: Any, result: Any) -> None:
        left = args[1] if name == "addmm" else args[0]
        learned = [one for one in args if hasattr(one, "numel") and id(one) not in self.numbers]
        number = self._add(
            "matmul",
            tensors,
            result,
            in_channels=left.shape[-1],
            parameters=sum(map(_elements, learned)),
        )
        self._set(result, number)

    def _norm(self, _: str, tensors: list[Any], args: Any, result: Any) -> None:
        weights = _elements(args[1]) + _elements(args[2])
        self._set(result[0], self._add("batch_norm", tensors, result[0], parameters=weights))

    def _pool(self, name: str, tensors: list[Any], args: Any, result: Any) -> None:
        kind, source, output = _POOLS[name], tensors[0], _first(result)
        if kind in ("avg_pool", "max_pool"):
            kernel = _pair(args[1])
            stride = _pair(args[2]) if len(args) > 2 and args[2] else kernel
            self._set(output, self._add(kind, tensors, output, kernel=kernel, stride=stride))
            return
        if name == "_adaptive_avg_pool2d" and tuple(output.shape[-2:]) != (1, 1):
            self.unknown.add("aten._adaptive_avg_pool2d to more than 1x1")
        if name == "mean" and len(args) > 1 and source.dim() == 4:
            axes = sorted(axis % 4 for axis in args[1] or range(4))
            kind = "global_avg_pool" if axes == [2, 3] else kind
        self._set(output, self._add(kind, tensors, output))

    def _move(self, name: str, tensors: list[Any], result: Any) -> None:
        if tensors[0].shape == result.shape and name not in _REORDERS:
            self._set(result, self.numbers[id(tensors[0])])
        else:
            self._set(result, self._add(_MOVES[name], tensors, result))

    def _add(self, kind: str, tensors: list[Any], result: Any, **fields: Any) -> int:
        inputs = tuple(self.numbers[id(one)] for one in tensors)
        return self.builder.add(kind, inputs, _shape(result), **fields)

    def _set(self, tensor: Any, number: int) -> None:
        self.alive.append(tensor)
        self.numbers[id(tensor)] = number


def _shape(tensor: Any) -> Shape:
    """Return a shape without the batch, which a product of matrices may not have."""
    shape = tuple(tensor.shape)
    return shape[1:] if shape and shape[0] == 1 else shape


def _elements(tensor: Any) -> int:
    return 0 if tensor is None else math.prod(tensor.shape)


def _pair(value: Any) -> tuple[int, int]:
    sides = (value, value) if isinstance(value, int) else tuple(value)
    return (sides[0], sides[-1])


def _first(result: Any) -> Any:
    return result[0] if isinstance(result, (tuple, list)) else result


def _flat(value: Any) -> list[Any]:
    """Return the tensors in nested arguments, in order."""
    if isinstance(value, (tuple, list)):
        return [one for item in value for one in _flat(item)]
    return [value] if hasattr(value, "dim") and hasattr(value, "shape") else []
