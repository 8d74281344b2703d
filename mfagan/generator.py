"""The MFAGAN generator: multi-scale feature aggregation, elastic so that it is its own supernet.

A reconstruction from the abstract of arXiv 2107.12679, not the paper's exact layers. A head,
modules that aggregate once by a running sum of 1x1 projections, one body convolution, and
upsampling last:

    module:  h_k = relu(conv3x3_k(h_{k-1})),  out = x + branch(x) + sum_k conv1x1_k(h_k)
    branch:  average pool to half or quarter, conv3x3, relu, nearest-neighbour resize
    output:  pixel_shuffle(tail(body(...) + head) + LR repeated scale^2 times along channels)
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfagan.architecture import ALIGNMENT, MfaArchitecture
from mfagan.convolution import ExpandedConv2d, conv
from mfagan.space import SearchSpace


class AggregationModule(nn.Module):
    """A chain of 3x3 convolutions, its outputs projected and summed, with optional branches."""

    def __init__(self, width: int, convolutions: int, branches: Iterable[int]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1) for _ in range(convolutions)
        )
        self.projections = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(convolutions))
        self.branches = nn.ModuleDict(
            {str(s): nn.Conv2d(width, width, 3, padding=1) for s in branches if s}
        )

    def forward(self, x: Tensor, convolutions: int, branch: int) -> Tensor:
        """Map (N, C, H, W) to the same shape; H and W are multiples of 2**branch."""
        width = x.shape[1]
        aggregate = None
        if branch:
            # Nothing is padded, but phones' runtimes refuse pools that would count it.
            low = F.avg_pool2d(x, 2**branch, count_include_pad=False)
            low = F.relu(conv(self.branches[str(branch)], low, width))
            aggregate = F.interpolate(low, scale_factor=float(2**branch), mode="nearest")
        h = x
        for k in range(convolutions):
            h = F.relu(conv(self.convolutions[k], h, width))
            projected = conv(self.projections[k], h, width)
            aggregate = projected if aggregate is None else aggregate + projected
        assert aggregate is not None
        return aggregate + x


class Generator(nn.Module):
    """An MFAGAN generator, or a supernet of them.

    Args:
        architecture: what the network is when no other architecture is given to `forward`. For a
            supernet, the largest of its space.
        space: when given, the network holds the weights of every member of the space, and `forward`
            takes any of them.
    """

    def __init__(self, architecture: MfaArchitecture, space: SearchSpace | None = None) -> None:
        super().__init__()
        self.architecture = architecture
        self.space = space
        if space is None:
            width = architecture.width
            modules = list(zip(architecture.convolutions, architecture.branches, strict=True))
            shapes: list[tuple[int, tuple[int, ...]]] = [(c, (s,)) for c, s in modules]
        else:
            width = space.widths[-1]
            shapes = [(space.convolutions[-1], space.branches)] * space.modules[-1]
        scale = architecture.scale
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.modules_ = nn.ModuleList(AggregationModule(width, c, s) for c, s in shapes)
        self.body = nn.Conv2d(width, width, 3, padding=1)
        self.tail = nn.Conv2d(width, 3 * scale**2, 3, padding=1)
        repeated = torch.arange(3).repeat_interleave(scale**2)
        self.register_buffer("lr_channels", repeated, persistent=False)
        self.lr_channels: Tensor
        self._initialise()

    @staticmethod
    def supernet(space: SearchSpace) -> Generator:
        """Return the supernet of a space, its architecture being the largest member."""
        return Generator(space.largest, space)

    def forward(self, lr: Tensor, architecture: MfaArchitecture | None = None) -> Tensor:
        """Map LR (N, 3, H, W) float in [0, 1], RGB, to SR (N, 3, H * scale, W * scale).

        The output is not clipped. `architecture` chooses a SubGenerator of a supernet.
        """
        return self.forward_features(lr, architecture)[0]

    def forward_features(
        self, lr: Tensor, architecture: MfaArchitecture | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return SR and every module's output, (N, width, H, W) each, for distillation."""
        a = architecture or self.architecture
        height, width = lr.shape[-2:]
        pads = any(a.branches)
        if pads:
            lr = pad_to_alignment(lr)
        head = x = conv(self.head, lr, a.width)
        features = []
        for module, c, s in zip(self.modules_, a.convolutions, a.branches, strict=False):
            x = module(x, c, s)
            features.append(x)
        x = conv(self.body, x, a.width) + head
        x = conv(self.tail, x, self.tail.out_channels) + lr.index_select(1, self.lr_channels)
        x = F.pixel_shuffle(x, a.scale)
        if pads:
            x = x[..., : height * a.scale, : width * a.scale]
        return x, features

    def cut(self, architecture: MfaArchitecture) -> Generator:
        """Return a plain network with copies of the weights that `architecture` uses.

        Raises:
            ValueError: the architecture is not a member of the supernet's space.
        """
        if self.space is None:
            raise ValueError(f"{self.architecture} is no supernet, and in no space of one")
        if not self.space.contains(architecture):
            raise ValueError(
                f"{architecture} is not in the space of this supernet: {_in_words(self.space)}"
            )
        if any(isinstance(layer, ExpandedConv2d) for layer in self.modules()):
            raise ValueError("branches are to be folded away before a SubGenerator is cut out")
        plain = Generator(architecture)
        ours = self.state_dict()
        sliced = {
            name: ours[name][tuple(slice(n) for n in tensor.shape)].clone()
            for name, tensor in plain.state_dict().items()
        }
        plain.load_state_dict(sliced)
        return plain

    def _initialise(self) -> None:
        # The last layer of every residual path starts small, so that training starts near
        # nearest-neighbour upsampling.
        quiet = {self.tail, self.body}
        for module in self.modules_:
            assert isinstance(module, AggregationModule)
            quiet.update(module.projections)  # type: ignore[arg-type]
            quiet.update(module.branches.values())  # type: ignore[arg-type]
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
                if layer in quiet:
                    with torch.no_grad():
                        layer.weight.mul_(0.1)


def _in_words(space: SearchSpace) -> str:
    widths, modules, convolutions, branches = (
        " or ".join(map(str, values))
        for values in (space.widths, space.modules, space.convolutions, space.branches)
    )
    return (
        f"scale {space.scale}, width {widths}, {modules} modules of {convolutions} convolutions "
        f"and branch {branches}, small enough for the reductions against ESRGAN"
    )


def pad_to_alignment(lr: Tensor) -> Tensor:
    """Pad (N, C, H, W) at the bottom and the right, by repeating the edge, to multiples of 4."""
    height, width = lr.shape[-2:]
    bottom, right = -height % ALIGNMENT, -width % ALIGNMENT
    # An export with dynamic sizes has symbols here, and must keep the padding for sizes to come.
    if isinstance(bottom, int) and isinstance(right, int) and not (bottom or right):
        return lr
    return F.pad(lr, (0, right, 0, bottom), mode="replicate")
