"""Fine detail: how much of it there is, how much of that is the truth's, and noise in flat places.

Bands are of the radial spatial frequency in cycles per pixel: `mid` from 0.125 to 0.25, which a 4x
enlargement by bicubic loses most of, and `high` above it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane = NDArray[np.float64]

BANDS = {"mid": (0.125, 0.25), "high": (0.25, math.inf)}
FLAT_PATCH = 8
"""Side of the patches in which flatness is judged, pixels."""
FLAT_DEVIATION = 2.0
"""A patch of ground truth with at most this standard deviation, in grey levels, is flat."""
LEAST_FLAT = 8
"""Of fewer flat patches nothing is said."""


def spectrum(plane: Plane, truth: Plane) -> dict[str, float]:
    """Return each band's energy relative to ground truth, and its correlation with it.

    Both planes lose their mean and are weighted by a Hann window before the Fourier transform. The
    energy of a band is the sum of its squared magnitudes. Detail that is right raises energy and
    correlation, noise raises the energy alone.

    Args:
        plane, truth: Y, (H, W), of one size.

    Returns:
        `energy_mid` and `energy_high`, 1 for ground truth itself; `correlation_mid` and
        `correlation_high`, from -1 to 1 and 0 without any detail. NaN where ground
        truth has none.

    Raises:
        ValueError: the sizes differ.
    """
    if plane.shape != truth.shape:
        raise ValueError(f"images of {plane.shape} and {truth.shape} cannot be compared")
    radius = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, plane.shape), indexing="ij"))
    ours, theirs = transform(plane), transform(truth)
    found: dict[str, float] = {}
    for name, (low, high) in BANDS.items():
        band = (radius >= low) & (radius < high)
        a, b = ours[band], theirs[band]
        energy, reference = float(np.vdot(a, a).real), float(np.vdot(b, b).real)
        product = float(np.vdot(a, b).real)
        found[f"energy_{name}"] = energy / reference if reference else math.nan
        both = math.sqrt(energy * reference)
        found[f"correlation_{name}"] = product / both if both else 0.0 if reference else math.nan
    return found


def flat_deviation(plane: Plane, truth: Plane) -> float:
    """Return the standard deviation in ground truth's flat patches, relative to ground truth's.

    Above 1 there is noise, or a pattern, where nothing is. A patch is flat when its neighbours are
    flat too, for beside an edge it is ringing that one would measure. The mean is over the patches'
    standard deviations; patches of a single value count in neither.

    Args:
        plane, truth: Y, (H, W), of one size.

    Returns:
        NaN when fewer than `LEAST_FLAT` patches of ground truth are flat.
    """
    from scipy.ndimage import minimum_filter

    ours, theirs = _patches(plane), _patches(truth)
    flat = minimum_filter(theirs <= FLAT_DEVIATION, 3, mode="nearest") & (theirs > 0)
    if flat.sum() < LEAST_FLAT:
        return math.nan
    return float(ours[flat].mean() / theirs[flat].mean())


def transform(plane: Plane) -> NDArray[np.complex128]:
    """Return the Fourier transform of Y, (H, W), mean removed, under a Hann window."""
    rows, columns = map(_hann, plane.shape)
    return np.fft.fft2((plane - plane.mean()) * rows[:, None] * columns)


def _hann(length: int) -> Plane:
    """Return the window without its zeros at the ends."""
    return np.hanning(length + 2)[1:-1]


def _patches(plane: Plane) -> Plane:
    """Return the standard deviation of every whole patch, side by side from the top left."""
    rows, columns = (n // FLAT_PATCH for n in plane.shape)
    whole = plane[: rows * FLAT_PATCH, : columns * FLAT_PATCH]
    parts = whole.reshape(rows, FLAT_PATCH, columns, FLAT_PATCH)
    return parts.std(axis=(1, 3))
