"""ESRGAN's generator as others name its layers, and files of it as they are published."""

import io

import torch
from torch import nn

from mfagan.architecture import parse
from mfagan.rrdb import RRDBNet

NAME = "rrdb_x4_w8_b2_g4"


class Block2018(nn.Module):
    """Five convolutions, each with its activation in a Sequential but for the last."""

    def __init__(self, width, growth):
        super().__init__()
        for k in range(5):
            conv = nn.Conv2d(width + k * growth, growth if k < 4 else width, 3, padding=1)
            layers = [conv, nn.LeakyReLU(0.2)] if k < 4 else [conv]
            self.add_module(f"conv{k + 1}", nn.Sequential(*layers))

    def forward(self, x):
        joined = x
        for k in range(1, 5):
            joined = torch.cat([joined, getattr(self, f"conv{k}")(joined)], 1)
        return self.conv5(joined) * 0.2 + x


class Trio2018(nn.Module):
    def __init__(self, width, growth):
        super().__init__()
        self.RDB1 = Block2018(width, growth)
        self.RDB2 = Block2018(width, growth)
        self.RDB3 = Block2018(width, growth)

    def forward(self, x):
        return self.RDB3(self.RDB2(self.RDB1(x))) * 0.2 + x


class Shortcut2018(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.sub = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.sub(x)


class Net2018(nn.Module):
    """The network as its authors first wrote it: one Sequential, whose places are the names."""

    def __init__(self, width, blocks, growth, doublings=2):
        super().__init__()
        layers = [nn.Conv2d(3, width, 3, padding=1)]
        trunk = [Trio2018(width, growth) for _ in range(blocks)]
        layers.append(Shortcut2018(*trunk, nn.Conv2d(width, width, 3, padding=1)))
        for _ in range(doublings):
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1)]
            layers.append(nn.LeakyReLU(0.2))
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.2)]
        self.model = nn.Sequential(*layers, nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, lr):
        return self.model(lr)


def weights(name=NAME, seed=0):
    """The state dict of an RRDBNet, whose names are BasicSR's."""
    torch.manual_seed(seed)
    return RRDBNet(parse(name)).state_dict()


def named_2018(state):
    """Ours by the names that `Net2018` has, in the same order of layers."""
    blocks = 1 + max(int(n.split(".")[1]) for n in state if n.startswith("body."))
    tail = {"conv_first": 0, "conv_up1": 3, "conv_up2": 6, "conv_hr": 8, "conv_last": 10}
    names = {f"{ours}.{kind}": f"model.{k}.{kind}" for ours, k in tail.items() for kind in KINDS}
    names |= {f"conv_body.{kind}": f"model.1.sub.{blocks}.{kind}" for kind in KINDS}
    names |= {
        f"body.{b}.rdb{r}.conv{c}.{kind}": f"model.1.sub.{b}.RDB{r}.conv{c}.0.{kind}"
        for b in range(blocks)
        for r in (1, 2, 3)
        for c in range(1, 6)
        for kind in KINDS
    }
    return {names[ours]: tensor for ours, tensor in state.items()}


def named_2019(state):
    """Ours by the names of ESRGAN's repository since 2019."""
    tail = {"conv_body": "trunk_conv", "conv_up1": "upconv1", "conv_up2": "upconv2"}
    tail |= {"conv_hr": "HRconv", "conv_first": "conv_first", "conv_last": "conv_last"}
    named = {}
    for ours, tensor in state.items():
        layer, _, kind = ours.rpartition(".")
        theirs = tail.get(layer) or layer.replace("body", "RRDB_trunk").replace("rdb", "RDB")
        named[f"{theirs}.{kind}"] = tensor
    return named


def named_basicsr(state):
    return state


KINDS = ("weight", "bias")
NAMINGS = {"2018": named_2018, "2019": named_2019, "basicsr": named_basicsr}


def saved(value, *, legacy=False, protocol=2):
    """What torch.save writes, in the format before torch 1.6 or in that since then."""
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)
    return buffer.getvalue()


def prefixed(state, prefix="module."):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}
