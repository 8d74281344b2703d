"""Random weights in the layouts of LPIPS's published files, and LPIPS by plain calls."""

import torch
from torch.nn import functional as F

ALEXNET = {
    "features.0.weight": (64, 3, 11, 11),
    "features.0.bias": (64,),
    "features.3.weight": (192, 64, 5, 5),
    "features.3.bias": (192,),
    "features.6.weight": (384, 192, 3, 3),
    "features.6.bias": (384,),
    "features.8.weight": (256, 384, 3, 3),
    "features.8.bias": (256,),
    "features.10.weight": (256, 256, 3, 3),
    "features.10.bias": (256,),
}
VGG16_CHANNELS = {
    **{0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128)},
    **{10: (128, 256), 12: (256, 256), 14: (256, 256)},
    **{17: (256, 512), 19: (512, 512), 21: (512, 512)},
    **{24: (512, 512), 26: (512, 512), 28: (512, 512)},
}
VGG16 = {}
for index, (before, after) in VGG16_CHANNELS.items():
    VGG16[f"features.{index}.weight"] = (after, before, 3, 3)
    VGG16[f"features.{index}.bias"] = (after,)
SHAPES = {"alex": ALEXNET, "vgg": VGG16}
LINS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}
FEATURES_UP_TO = {"alex": (2, 5, 8, 10, 12), "vgg": (4, 9, 16, 23, 30)}
"""Entries of torchvision's `features` after which the authors take theirs."""


def backbone_weights(name, seed=0):
    """As torchvision names them; of the classifier there is a little."""
    random = torch.Generator().manual_seed(seed)
    weights = {}
    for key, shape in SHAPES[name].items():
        values = torch.randn(shape, generator=random)
        fan_in = values[0].numel()
        weights[key] = values * ((2 / fan_in) ** 0.5 if key.endswith("weight") else 0.1)
    return weights | {"classifier.1.weight": torch.randn(7, 5, generator=random)}


def lin_weights(name, seed=1):
    random = torch.Generator().manual_seed(seed)
    return {
        f"lin{k}.model.1.weight": torch.rand(1, width, 1, 1, generator=random)
        for k, width in enumerate(LINS[name])
    }


def plain_features(name, weights, x):
    """Walk through the entries of torchvision's `features` one by one."""
    found = []
    for index in range(FEATURES_UP_TO[name][-1]):
        if f"features.{index}.weight" in weights:
            weight = weights[f"features.{index}.weight"].double()
            bias = weights[f"features.{index}.bias"].double()
            if name == "vgg":
                x = F.conv2d(x, weight, bias, stride=1, padding=1)
            elif index == 0:
                x = F.conv2d(x, weight, bias, stride=4, padding=2)
            else:
                x = F.conv2d(x, weight, bias, stride=1, padding=2 if index == 3 else 1)
        elif (name, index) in {("alex", 2), ("alex", 5)}:
            x = F.max_pool2d(x, kernel_size=3, stride=2)
        elif (name, index) in {("vgg", 4), ("vgg", 9), ("vgg", 16), ("vgg", 23)}:
            x = F.max_pool2d(x, kernel_size=2, stride=2)
        else:
            x = F.relu(x)
        if index + 1 in FEATURES_UP_TO[name]:
            found.append(x)
    return found


def plain_lpips(name, weights, lins, image, truth):
    """LPIPS 0.1 in double precision, of (H, W, 3) uint8 RGB arrays."""
    shift = torch.tensor([-0.030, -0.088, -0.188], dtype=torch.float64)[None, :, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450], dtype=torch.float64)[None, :, None, None]
    both = []
    for array in (image, truth):
        x = torch.tensor(array, dtype=torch.float64).permute(2, 0, 1)[None] / 255
        both.append(plain_features(name, weights, ((2 * x - 1) - shift) / scale))
    value = 0.0
    for k, (a, b) in enumerate(zip(*both, strict=True)):
        a = a / (torch.sqrt(torch.sum(a**2, dim=1, keepdim=True)) + 1e-10)
        b = b / (torch.sqrt(torch.sum(b**2, dim=1, keepdim=True)) + 1e-10)
        lin = lins[f"lin{k}.model.1.weight"].double()
        value += F.conv2d((a - b) ** 2, lin).mean([2, 3]).item()
    return value
