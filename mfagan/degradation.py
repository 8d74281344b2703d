"""Real-world degradation: LR by blur, resizing, noise and JPEG, twice over, as Real-ESRGAN.

The second-order model of arXiv 2107.10833 (section 3) with the figures of its published options
(xinntao/Real-ESRGAN, options/train_realesrgan_x4plus.yml; those of x2plus are the same). Three
things differ, all for the sake of training pairs of a few dozen pixels on a CPU:

- images keep their whole extent when they are resized, so that LR stays aligned with HR; the
  published code resizes by a factor, which cuts off the fraction of a pixel that is left over;
- JPEG is the real codec, with whole quality factors;
- HR is degraded as it is, not sharpened first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from mfagan.images import opencv

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mfagan.images import Image

    Kernel = NDArray[np.float64]
    """(K, K) with an odd K; its sum is 1."""
    Pixels = NDArray[np.float32]
    """(H, W, 3) RGB in units of 8 bits, between operations also below 0 and above 255."""

LEAST_SIZE = 16
"""LR pixels a side of the smallest image that is degraded."""
_INTERPOLATIONS = ("INTER_AREA", "INTER_LINEAR", "INTER_CUBIC")
_LARGE_KERNEL = 13
"""Sinc kernels of this size and more hold enough periods for cutoffs below pi / 3."""

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Order:
    """The ranges of one of the two rounds of blur, resizing, noise and JPEG.

    Attributes:
        blur_probability: of any blur.
        sigma: standard deviations of blur kernels along their two axes, pixels.
        resize_probabilities: of enlarging, of shrinking and of keeping the size.
        resize: least and largest factor; both draw from 1 to it.
        gaussian_probability: of Gaussian noise; otherwise it is Poisson's.
        gaussian_sigma: standard deviation of Gaussian noise, units of 8 bits.
        poisson_scale: factor of Poisson noise.
        gray_probability: of noise that is the same in all channels.
        jpeg_quality: whole quality factors, both included.
    """

    blur_probability: float
    sigma: Range
    resize_probabilities: tuple[float, float, float]
    resize: Range
    gaussian_probability: float = 0.5
    gaussian_sigma: Range
    poisson_scale: Range
    gray_probability: float = 0.4
    jpeg_quality: tuple[int, int] = (30, 95)


FIRST = Order(
    blur_probability=1.0,
    sigma=(0.2, 3.0),
    resize_probabilities=(0.2, 0.7, 0.1),
    resize=(0.15, 1.5),
    gaussian_sigma=(1.0, 30.0),
    poisson_scale=(0.05, 3.0),
)
"""`blur_sigma`, `resize_prob`, `resize_range`, `noise_range`, `poisson_scale_range`, ..."""
SECOND = Order(
    blur_probability=0.8,
    sigma=(0.2, 1.5),
    resize_probabilities=(0.3, 0.4, 0.3),
    resize=(0.3, 1.2),
    gaussian_sigma=(1.0, 25.0),
    poisson_scale=(0.05, 2.5),
)
"""`second_blur_prob`, `blur_sigma2`, `resize_prob2`, `resize_range2`, `noise_range2`, ..."""


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """The ranges that a degradation is drawn from; Real-ESRGAN's published ones by default.

    Attributes:
        first, second: the two rounds; the second's sizes are in units of the LR size.
        kernel_sizes: least and largest, odd (`kernel_range` of realesrgan_dataset.py).
        gaussian, generalized, plateau: probabilities of each shape of kernel, isotropic and
            anisotropic (`kernel_prob`); their sum is 1.
        generalized_beta, plateau_beta: exponents (`betag_range`, `betap_range`), below and above 1
            equally often.
        sinc_probability: of a sinc kernel instead (`sinc_prob`).
        final_sinc_probability: of a sinc kernel at the end (`final_sinc_prob`).
        jpeg_last_probability: of the last JPEG after, not before, the last resizing
            (realesrgan_model.py).
    """

    first: Order = FIRST
    second: Order = SECOND
    kernel_sizes: tuple[int, int] = (7, 21)
    gaussian: Range = (0.45, 0.25)
    generalized: Range = (0.12, 0.03)
    plateau: Range = (0.12, 0.03)
    generalized_beta: Range = (0.5, 4.0)
    plateau_beta: Range = (1.0, 2.0)
    sinc_probability: float = 0.1
    final_sinc_probability: float = 0.8
    jpeg_last_probability: float = 0.5


PUBLISHED = Degradation()


def degrade(
    hr: Image, scale: int, rng: np.random.Generator, ranges: Degradation = PUBLISHED
) -> Image:
    """Return an image at 1/scale, degraded at random and aligned with its original.

    Args:
        hr: (H, W, 3) uint8 RGB; H and W are multiples of the scale, at least 16 times it.
        scale: HR pixels per LR pixel.
        rng: everything random comes from it: equal states give equal images.
        ranges: what is drawn from.

    Returns:
        (H / scale, W / scale, 3) uint8 RGB.

    Raises:
        ValueError: the size is not a multiple of the scale, or too small.
    """
    height, width = hr.shape[:2]
    if height % scale or width % scale or min(height, width) < LEAST_SIZE * scale:
        raise ValueError(
            f"{width}x{height} cannot be degraded to 1/{scale}; its sides must be multiples of "
            f"{scale}, and at least {LEAST_SIZE * scale}"
        )
    lr_height, lr_width = height // scale, width // scale
    image = hr.astype(np.float32)
    for order, rows, columns in (
        (ranges.first, height, width),
        (ranges.second, lr_height, lr_width),
    ):
        if rng.random() < order.blur_probability:
            image = blur(image, draw_kernel(order.sigma, ranges, rng))
        factor = draw_factor(order, rng)
        image = _resize_any(image, int(rows * factor), int(columns * factor), rng)
        image = np.clip(_add_any_noise(image, order, rng), 0, 255)
        if order is ranges.first:
            image = compress(image, _draw_quality(order, rng))
    jpeg_last = rng.random() < ranges.jpeg_last_probability
    if not jpeg_last:
        image = compress(image, _draw_quality(ranges.second, rng))
    image = _resize_any(image, lr_height, lr_width, rng)
    if rng.random() < ranges.final_sinc_probability:
        cutoff = float(rng.uniform(math.pi / 3, math.pi))
        image = blur(image, sinc_kernel(_draw_size(ranges, rng), cutoff))
    if jpeg_last:
        image = compress(image, _draw_quality(ranges.second, rng))
    return _round(image)


def draw_kernel(sigma: Range, ranges: Degradation, rng: np.random.Generator) -> Kernel:
    """Return a random blur kernel, Gaussian-like or sinc, as realesrgan_dataset.py draws it."""
    size = _draw_size(ranges, rng)
    if rng.random() < ranges.sinc_probability:
        least = math.pi / (5 if size >= _LARGE_KERNEL else 3)
        return sinc_kernel(size, float(rng.uniform(least, math.pi)))
    shape = int(rng.choice(6, p=(*ranges.gaussian, *ranges.generalized, *ranges.plateau)))
    family, anisotropic = divmod(shape, 2)
    first = second = float(rng.uniform(*sigma))
    angle = 0.0
    if anisotropic:
        second, angle = float(rng.uniform(*sigma)), float(rng.uniform(-math.pi, math.pi))
    if family == 0:
        return gaussian_kernel(size, first, second, angle)
    if family == 1:
        beta = _draw_beta(ranges.generalized_beta, rng)
        return gaussian_kernel(size, first, second, angle, beta)
    return plateau_kernel(size, first, second, angle, _draw_beta(ranges.plateau_beta, rng))


def draw_factor(order: Order, rng: np.random.Generator) -> float:
    """Return the factor of a random resizing: up, down or none."""
    direction = int(rng.choice(3, p=order.resize_probabilities))
    least, most = order.resize
    return float((rng.uniform(1, most), rng.uniform(least, 1), 1.0)[direction])


def gaussian_kernel(
    size: int, sigma_x: float, sigma_y: float, angle: float, beta: float = 1.0
) -> Kernel:
    """Return a generalized Gaussian: exp(-d**beta / 2) of the squared Mahalanobis distance d.

    Args:
        size: odd.
        sigma_x, sigma_y: standard deviations for beta 1 along the two axes, pixels.
        angle: of the first axis against the horizontal, towards growing rows, radians.
        beta: 1 is the normal distribution, more is flatter.
    """
    kernel = np.exp(-0.5 * _distance(size, sigma_x, sigma_y, angle) ** beta)
    return kernel / kernel.sum()


def plateau_kernel(size: int, sigma_x: float, sigma_y: float, angle: float, beta: float) -> Kernel:
    """Return a plateau, 1 / (1 + d**beta); the arguments are those of `gaussian_kernel`."""
    kernel = 1 / (1 + _distance(size, sigma_x, sigma_y, angle) ** beta)
    return kernel / kernel.sum()


def sinc_kernel(size: int, cutoff: float) -> Kernel:
    """Return a circular low-pass filter, cutoff * J1(cutoff r) / (2 pi r).

    Args:
        size: odd.
        cutoff: angular frequency, at most pi.
    """
    from scipy.special import j1

    radii, places = _radii(size)
    values = np.full(len(radii), cutoff**2 / (4 * math.pi))  # the limit at the center
    values[1:] = cutoff * j1(cutoff * radii[1:]) / (2 * math.pi * radii[1:])
    kernel: Kernel = values[places]
    return kernel / kernel.sum()


def blur(image: Pixels, kernel: Kernel) -> Pixels:
    """Return an image filtered by a kernel; beyond its border it is mirrored."""
    cv2 = opencv()
    blurred: Pixels = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    return blurred


def add_gaussian_noise(
    image: Pixels, sigma: float, rng: np.random.Generator, *, gray: bool
) -> Pixels:
    """Return an image with normal noise of a standard deviation in units of 8 bits."""
    shape = (*image.shape[:2], 1 if gray else image.shape[2])
    return image + np.float32(sigma) * rng.standard_normal(shape, np.float32)


def add_poisson_noise(
    image: Pixels, scale: float, rng: np.random.Generator, *, gray: bool
) -> Pixels:
    """Return an image with shot noise, whose variance grows with the brightness.

    A sample of brightness b (0 to 1) counts b * n photons, n being the number of levels in the
    image rounded up to a power of two (as scikit-image's `random_noise` does).

    Args:
        image: (H, W, 3), 0 to 255.
        scale: factor of the noise.
        rng: source of the noise.
        gray: count the photons of the gray image, and add the same noise to all channels.
    """
    cv2 = opencv()
    source = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] if gray else image
    levels = _round(source)
    count = (
        1 << (int(np.count_nonzero(np.bincount(levels.ravel(), minlength=256))) - 1).bit_length()
    )
    expected = (np.arange(256) * (count / 255))[levels]
    noise = rng.poisson(expected) * (255 / count) - levels
    return image + np.float32(scale) * noise.astype(np.float32)


def compress(image: Pixels, quality: int) -> Pixels:
    """Return an image after JPEG at a quality factor of 0 to 100; it is rounded to 8 bits."""
    cv2 = opencv()
    pixels = cv2.cvtColor(_round(image), cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    compressed: Pixels = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.float32)
    return compressed


def _add_any_noise(image: Pixels, order: Order, rng: np.random.Generator) -> Pixels:
    gaussian = rng.random() < order.gaussian_probability
    gray = bool(rng.random() < order.gray_probability)
    if gaussian:
        return add_gaussian_noise(image, float(rng.uniform(*order.gaussian_sigma)), rng, gray=gray)
    return add_poisson_noise(image, float(rng.uniform(*order.poisson_scale)), rng, gray=gray)


def _resize_any(image: Pixels, height: int, width: int, rng: np.random.Generator) -> Pixels:
    """Resize by area, bilinear or bicubic interpolation, none of which smooths beforehand."""
    cv2 = opencv()
    interpolation = getattr(cv2, _INTERPOLATIONS[int(rng.integers(3))])
    if image.shape[:2] == (height, width):
        return image
    resized: Pixels = cv2.resize(image, (width, height), interpolation=interpolation)
    return resized


def _draw_size(ranges: Degradation, rng: np.random.Generator) -> int:
    least, most = ranges.kernel_sizes
    return least + 2 * int(rng.integers((most - least) // 2 + 1))


def _draw_beta(beta: Range, rng: np.random.Generator) -> float:
    below = rng.random() < 0.5
    return float(rng.uniform(beta[0], 1) if below else rng.uniform(1, beta[1]))


def _draw_quality(order: Order, rng: np.random.Generator) -> int:
    return int(rng.integers(*order.jpeg_quality, endpoint=True))


def _distance(size: int, sigma_x: float, sigma_y: float, angle: float) -> Kernel:
    """Return the squared Mahalanobis distance of every pixel from the center."""
    at = np.arange(size) - size // 2
    x, y = at[None, :], at[:, None]
    cosine, sine = math.cos(angle), math.sin(angle)
    along, across = (cosine * x + sine * y) / sigma_x, (cosine * y - sine * x) / sigma_y
    distance: Kernel = along**2 + across**2
    return distance


@lru_cache(maxsize=16)
def _radii(size: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the different distances from the center, and for every pixel which is its own."""
    at = np.arange(size) - size // 2
    squares, places = np.unique(at[:, None] ** 2 + at[None, :] ** 2, return_inverse=True)
    return np.sqrt(squares), places.reshape(size, size)


def _round(image: Pixels) -> Image:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
