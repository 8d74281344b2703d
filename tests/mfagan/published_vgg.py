"""Random weights in the layout of torchvision's `vgg19-dcbb9e9d.pth`, and VGG19 by plain calls."""

import itertools

import torch
from torch.nn import functional as F

INDICES = {
    "conv1_1": 0,
    "conv1_2": 2,
    "conv2_1": 5,
    "conv2_2": 7,
    "conv3_1": 10,
    "conv3_2": 12,
    "conv3_3": 14,
    "conv3_4": 16,
    "conv4_1": 19,
    "conv4_2": 21,
    "conv4_3": 23,
    "conv4_4": 25,
    "conv5_1": 28,
    "conv5_2": 30,
    "conv5_3": 32,
    "conv5_4": 34,
}
CHANNELS = (3, 64, 64, 128, 128, *(256,) * 4, *(512,) * 8)
POOLINGS = (4, 9, 18, 27)


def published_weights(seed=0):
    """As torchvision names them; the classifier's are there, but small."""
    random = torch.Generator().manual_seed(seed)
    weights = {}
    pairs = itertools.pairwise(CHANNELS)
    for index, (before, after) in zip(INDICES.values(), pairs, strict=True):
        deviation = (2 / (9 * before)) ** 0.5
        weight = torch.randn(after, before, 3, 3, generator=random) * deviation
        weights[f"features.{index}.weight"] = weight
        weights[f"features.{index}.bias"] = torch.randn(after, generator=random) * 0.1
    weights["classifier.0.weight"] = torch.randn(7, 5, generator=random)
    weights["classifier.0.bias"] = torch.randn(7, generator=random)
    return weights


def reference_features(weights, image):
    """Walk through the 37 entries of torchvision's `features` one by one."""
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=image.dtype)
    std = torch.tensor([0.229, 0.224, 0.225], dtype=image.dtype)
    x = ((image.permute(0, 2, 3, 1) - mean) / std).permute(0, 3, 1, 2)
    names = {index: name for name, index in INDICES.items()}
    found = {}
    for index in range(35):
        if index in names:
            weight, bias = (weights[f"features.{index}.{k}"] for k in ("weight", "bias"))
            x = F.conv2d(x, weight.to(x), bias.to(x), padding=1)
            found[names[index]] = x
        elif index in POOLINGS:
            x = F.max_pool2d(x, 2, 2)
        else:
            x = torch.relu(x)
    return found
