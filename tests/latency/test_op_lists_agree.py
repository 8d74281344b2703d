"""One list of ops from three readers; its costs against torch's counter and an allocation."""

import random
import warnings
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from latency import from_onnx, from_torch
from latency.costs import costs
from mfagan.architecture import op_list
from mfagan.generator import Generator
from mfagan.space import SearchSpace

SIZE = (16, 20)


class Srvgg(nn.Module):
    """As Real-ESRGAN's small networks: convolutions with PReLU, a shuffle, a nearest skip."""

    def __init__(self, activation=nn.PReLU):
        super().__init__()
        layers = [nn.Conv2d(3, 12, 3, padding=1), self._of(activation)]
        for _ in range(3):
            layers += [nn.Conv2d(12, 12, 3, padding=1), self._of(activation)]
        self.body = nn.Sequential(*layers, nn.Conv2d(12, 48, 3, padding=1), nn.PixelShuffle(4))

    @staticmethod
    def _of(activation):
        return activation(12) if activation is nn.PReLU else activation(inplace=True)

    def forward(self, lr):
        return self.body(lr).add_(F.interpolate(lr, scale_factor=4, mode="nearest"))


class InvertedResidual(nn.Module):
    def __init__(self, channels, stride):
        super().__init__()
        wide = 4 * channels
        self.body = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            nn.Conv2d(wide, channels, 1),
        )
        self.skips = stride == 1

    def forward(self, x):
        return x + self.body(x) if self.skips else self.body(x)


def _mobilenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.ReLU6(),
        InvertedResidual(8, 1),
        InvertedResidual(8, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


def _fold(network: nn.Module) -> nn.Module:
    """Give biases and statistics values: the exporter drops what has no effect."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.1)
    return network.eval()


def _sums(ops):
    """What a folded batch norm does not change."""
    figures = costs(ops)
    kinds = sorted(op.kind for op in ops.ops if op.kind != "batch_norm")
    return figures.macs, figures.activations, kinds


@pytest.mark.parametrize("make", [Srvgg, _mobilenet], ids=["srvgg", "mobilenet_v2"])
def test_exported_files_equal_the_module(make, tmp_path):
    network = _fold(make())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network, (torch.rand(1, 3, *SIZE),), dynamo=True, external_data=False, verbose=False,
            input_names=["lr"], output_names=["sr"],
        )  # fmt: skip
    program.save(str(tmp_path / "n.onnx"))
    assert _sums(from_onnx(tmp_path / "n.onnx")) == _sums(from_torch(network, SIZE))


@pytest.mark.slow
def test_two_hundred_architectures_equal_their_module():
    rng = random.Random(3)
    spaces = [SearchSpace(scale=scale, branches=(0, 1, 2)) for scale in (2, 3, 4)]
    drawn = [spaces[number % 3].sample(rng) for number in range(200)]
    for architecture in drawn:
        with torch.device("meta"):
            generator = Generator(architecture)
        assert from_torch(generator, (9, 14)) == op_list(architecture, 9, 14), architecture


@pytest.mark.parametrize("make", [Srvgg, _mobilenet], ids=["srvgg", "mobilenet_v2"])
def test_macs_are_half_of_torchs_flops(make):
    network = make().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.rand(1, 3, *SIZE))
    assert 2 * costs(from_torch(network, SIZE)).macs == counter.get_total_flops()


class _Live(TorchDispatchMode):
    """Adds up the bytes of tensors that are alive, as they are made and dropped."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(one, torch.Tensor):
                self.take(one)
        return result

    def take(self, tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.known:
            self.known.add(storage.data_ptr())
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.drop, storage.data_ptr(), storage.nbytes())

    def drop(self, place, count):
        self.known.discard(place)
        self.now -= count


def test_the_peak_is_what_is_allocated():
    """Of a network whose activations work in place, as the figure counts them."""
    network = Srvgg(nn.ReLU).eval()
    lr = torch.rand(1, 3, *SIZE)
    live = _Live()
    live.take(lr)
    with torch.no_grad(), live:
        network(lr)
    assert live.peak == costs(from_torch(network, SIZE)).peak_bytes
