"""Natural scene statistics: how the local contrasts of an image's blocks are distributed.

Undistorted photographs have much the same distributions, whatever they show; blur, noise and
compression change them. NIQE (Mittal, Soundararajan and Bovik, IEEE SPL 2013) measures by how much.
What the paper leaves open is taken as the code that its authors published takes it: the first fit
is asymmetric too and its two widths are averaged, and neighbours wrap around within their block.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from mfagan.resize import resize_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

BLOCK = 96
"""Side of a block, pixels; at half the size it is 48."""
FEATURES = 36
"""A block's: 18 at each of the two scales."""

_RADIUS, _DEVIATION = 3, 7 / 6
"""The Gaussian window is 7x7."""
_ROUNDING = 1e-9
"""Grey levels; a smaller difference from the local mean is arithmetic's, and none in the image."""
_SHAPES = np.linspace(0.2, 10, 9801)
"""The published table of shapes; between its values we interpolate, to 1e-6."""
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Rows and columns away: horizontal, vertical and both diagonals."""


def block_statistics(plane: Array) -> tuple[Array, Array]:
    """Return the features and the sharpness of every whole block, row by row from the top left.

    What exceeds whole blocks is cut off before anything is computed.

    Args:
        plane: grey values, (H, W), peak 255, at least a block.

    Returns:
        (blocks, 36): per scale the shape and width of the contrasts' distribution, then for each of
        the four neighbours the shape, mean, left and right width of the products' one. NaN where
        the contrasts of a block have one sign only, as in flat ones.
        (blocks,): the mean local standard deviation, grey levels.
    """
    rows, columns = (length // BLOCK for length in plane.shape)
    plane = plane[: rows * BLOCK, : columns * BLOCK]
    contrast, deviation = local_contrast(plane)
    coarse, _ = local_contrast(halve(plane))
    features = np.hstack([_features(contrast, BLOCK), _features(coarse, BLOCK // 2)])
    return features, deviation.reshape(rows, BLOCK, columns, BLOCK).mean((1, 3)).ravel()


def local_contrast(plane: Array) -> tuple[Array, Array]:
    """Return a plane less its local mean, over its local deviation plus 1, and that deviation.

    The paper's equations 1 to 3; edges are replicated. (H, W) each.
    """
    from scipy.ndimage import correlate1d

    weights = np.exp(-(np.arange(-_RADIUS, _RADIUS + 1) ** 2) / (2 * _DEVIATION**2))
    weights /= weights.sum()

    def blur(values: Array) -> Array:
        across = correlate1d(values, weights, axis=1, mode="nearest")
        return correlate1d(across, weights, axis=0, mode="nearest")

    mean = blur(plane)
    deviation = np.sqrt(np.abs(blur(plane * plane) - mean * mean))
    difference = plane - mean
    # Flat places must be flat on every machine: signs of rounding errors are not statistics.
    difference[np.abs(difference) < _ROUNDING] = 0
    return difference / (deviation + 1), deviation


def halve(plane: Array) -> Array:
    """Return a plane of even sides at half the size, by MATLAB's bicubic rule and not rounded."""
    from scipy.ndimage import correlate1d

    # Every row of the matrix has the same taps; at the edges they read the nearest pixel.
    taps = resize_matrix(16, 8)[4, 5:13]
    rows = correlate1d(plane, taps, axis=0, mode="nearest", origin=-1)[::2]
    return correlate1d(rows, taps, axis=1, mode="nearest", origin=-1)[:, ::2]


def fit_asymmetric_gaussian(samples: Array) -> tuple[Array, Array, Array]:
    """Fit zero-mode asymmetric generalised Gaussians by their moments (the paper's equation 7).

    Args:
        samples: (distributions, samples); zeros count on neither side.

    Returns:
        Shape, from 0.2 to 10, left width and right width, (distributions,) each; NaN for samples
        that have no negative or no positive value.
    """
    ratios, width_ratios, _ = _shape_tables()
    left, right = np.minimum(samples, 0), np.maximum(samples, 0)
    left_squares, right_squares = (np.einsum("ij,ij->i", side, side) for side in (left, right))
    with np.errstate(divide="ignore", invalid="ignore"):
        left_deviation = np.sqrt(left_squares / np.count_nonzero(left, axis=1))
        right_deviation = np.sqrt(right_squares / np.count_nonzero(right, axis=1))
        skew = left_deviation / right_deviation
        absolute = (right.sum(1) - left.sum(1)) / samples.shape[1]
        ratio = absolute**2 / ((left_squares + right_squares) / samples.shape[1])
        ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = np.interp(ratio, ratios, _SHAPES)
    widths = np.interp(shape, _SHAPES, width_ratios)
    return shape, left_deviation * widths, right_deviation * widths


def _features(contrast: Array, side: int) -> Array:
    """Return one scale's features, (blocks, 18)."""
    columns = contrast.shape[1] // side
    found = []
    # A row of blocks at a time stays in the processor's cache.
    for top in range(0, contrast.shape[0], side):
        row = contrast[top : top + side].reshape(side, columns, side)
        found.append(_features_of_blocks(np.ascontiguousarray(row.swapaxes(0, 1))))
    return np.concatenate(found)


def _features_of_blocks(blocks: Array) -> Array:
    """Return (blocks, 18) features of (blocks, side, side) contrasts."""
    mean_ratios = _shape_tables()[2]
    shape, left, right = fit_asymmetric_gaussian(blocks.reshape(len(blocks), -1))
    found = [shape, (left + right) / 2]
    for shift in _NEIGHBOURS:
        product = blocks * np.roll(blocks, shift, axis=(1, 2))
        shape, left, right = fit_asymmetric_gaussian(product.reshape(len(blocks), -1))
        mean = (right - left) * np.interp(shape, _SHAPES, mean_ratios)
        found += [shape, mean, left, right]
    return np.stack(found, axis=1)


@cache
def _shape_tables() -> tuple[Array, Array, Array]:
    """Return three ratios per shape, the latter two those of one side of the distribution.

    The square of mean |x| to the mean of x^2; the width to the deviation; the mean to the width.
    """
    from scipy.special import gammaln

    one, two, three = (gammaln(k / _SHAPES) for k in (1, 2, 3))
    return np.exp(2 * two - one - three), np.exp((one - three) / 2), np.exp(two - one)
