"""Fit the law `ops` (`latency.op_law`) to measured networks, and say how sure it is of others.

The base: non-negative least squares of the relative error, first by group of ops, then by class
with a ridge towards the group. The residual: a Gaussian process that
is conditioned on sums. With B[i, u] = count of signature u in network i * base(u) / t(i), the
relative error of the base y = 1 - sum over u of B[i, u] has the covariance B K B' + noise, and

    residual(x) = sum over u of k(x, u) v(u),    v = B' (B K B' + noise)^-1 y

with k(x, u) = class_spread^2 + spread^2 Matern(|x - u|) within a class of ops, 0 across.
The spreads, the lengths, the noise and the runtime's channel block are those of the largest
marginal likelihood on a small grid; each network's error by the process conditioned on all others
has a closed form (Rasmussen and Williams, Gaussian Processes for Machine Learning, 5.4.2).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from latency.op_law import (
    LEAST_SHARE,
    MOST_SHARE,
    Signature,
    base_features,
    base_ms,
    place,
    signatures,
)
from latency.ops import OpList

LEAST_NETWORKS = 8
BLOCKS = (1, 4, 8, 16)
_LENGTHS = (1.5, 3.0)
_SPREADS = ((0.3, 0.2), (0.5, 0.4), (0.7, 0.6))
"""Of a class's mean and of an op around it, relative to the base."""
_NOISES = (0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.08, 0.12)
_FILL_LENGTH = 0.5
"""In shares of a filled block."""
_OUTLIER = 5.0
"""Deviations of a network from what the others say, beyond which it weighs little."""
_LITTLE = 100.0
"""Times the noise that an outlier is given."""
_MOST_SEARCHED = 200
"""Networks that the settings are found on: evenly spaced ones, where there are more."""
_RIDGE = 1e-3
_CLASS_RIDGE = 0.1


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the process assumes.

    Attributes:
        block: channels that the runtime computes at once.
        length: octaves of pixels and of channels over which ops behave alike.
        class_spread: of the mean of a class around the base.
        spread: of an op around its class.
        noise: of a measured network, relative.
    """

    block: int
    length: float
    class_spread: float
    spread: float
    noise: float

    @property
    def lengths(self) -> tuple[float, ...]:
        """Of each coordinate of `latency.op_law.place`: pixels matter less than channels."""
        return (2 * self.length, self.length, self.length, *[_FILL_LENGTH] * 4)


@dataclass(frozen=True, kw_only=True)
class Joint:
    """Predictions, and how their relative errors vary together.

    Attributes:
        times_ms: (n,) array.
        covariance: (n, n) array.
        noise: of a measurement, relative.
    """

    times_ms: Any
    covariance: Any
    noise: float


class OpLawFit:
    """The law fitted to networks.

    Attributes:
        settings: that were found best, or were given.
        coefficients: for `latency.op_law`, as JSON values.
        left_out: relative error (predicted / measured - 1) of each network, by the process
            conditioned on all others.
        outliers: positions of the networks that agree with no others.

    Args:
        networks: op lists, each at the size at which it was measured, at least 8.
        times_ms: of each, above 0.
        settings: to take instead of looking for them.

    Raises:
        ValueError: too few networks.
    """

    def __init__(
        self,
        networks: Sequence[OpList],
        times_ms: Sequence[float],
        *,
        settings: Settings | None = None,
    ) -> None:
        import numpy as np

        if len(networks) < LEAST_NETWORKS:
            raise ValueError(
                f"the law 'ops' needs at least {LEAST_NETWORKS} networks, got {len(networks)}"
            )
        self._np = np
        counts = [Counter(signatures(ops)) for ops in networks]
        self._known = sorted(set().union(*counts))
        self._matrix = np.array([[c[one] for one in self._known] for c in counts], dtype=float)
        self._times = np.asarray(times_ms, dtype=float)
        self._extra = np.ones(len(networks))
        self.settings = settings or self._best_settings()
        deviations = self._condition()
        scale = max(1.0, 1.4826 * float(np.median(deviations)))
        self.outliers = tuple(int(i) for i in np.flatnonzero(deviations > _OUTLIER * scale))
        if self.outliers:
            self._extra[list(self.outliers)] = _LITTLE
            self._condition()
        self.coefficients = self._coefficients()

    def joint(self, networks: Sequence[OpList]) -> Joint:
        """Predict networks, how sure each prediction is, and which would tell of which others."""
        np, block = self._np, self.settings.block
        counts = [Counter(signatures(ops)) for ops in networks]
        names = sorted(set().union(*counts))
        base = np.array([base_ms(one, self._base) for one in names])
        matrix = np.array([[count[one] for one in names] for count in counts], dtype=float)
        places = _Places(names, block)
        across = places.kernel(self._places, self.settings)
        shares = np.clip(1 + across @ self._weights, LEAST_SHARE, MOST_SHARE)
        times = matrix @ (base * shares) + self._base["floor_ms"]
        b = matrix * base / np.maximum(times, 1e-9)[:, None]
        prior = b @ places.kernel(places, self.settings) @ b.T
        solved = np.linalg.solve(self._lower, self._shares @ across.T @ b.T)
        return Joint(
            times_ms=times, covariance=prior - solved.T @ solved, noise=self.settings.noise
        )

    def _best_settings(self) -> Settings:
        """Return the settings of the largest marginal likelihood."""
        np = self._np
        some = slice(None, None, -(-len(self._times) // _MOST_SEARCHED))
        tried = []
        for block in BLOCKS:
            shares, y = (x[some] for x in self._relative(self._fit_base(block)))
            places = _Places(self._known, block)
            for length, (class_spread, spread) in itertools.product(_LENGTHS, _SPREADS):
                one = Settings(
                    block=block, length=length, class_spread=class_spread, spread=spread, noise=1.0
                )
                values, vectors = np.linalg.eigh(shares @ places.kernel(places, one) @ shares.T)
                squares = (vectors.T @ y) ** 2
                for noise in _NOISES:
                    total = np.maximum(values, 0) + noise**2
                    evidence = -0.5 * float((squares / total + np.log(total)).sum())
                    tried.append((evidence, replace(one, noise=noise)))
        return max(tried, key=lambda pair: pair[0])[1]

    def _fit_base(self, block: int) -> dict[str, Any]:
        """Return the floor and the base's coefficients by group and by class."""
        features = self._np.array([base_features(one, block) for one in self._known])
        groups = [one.group for one in self._known]
        floor, by_group = self._non_negative(features, groups, {}, _RIDGE)
        names = [one.name for one in self._known]
        prior = {one.name: by_group[one.group] for one in self._known}
        floor, by_class = self._non_negative(features, names, prior, _CLASS_RIDGE, floor)
        slowest = max(values[2] for values in by_group.values())
        other: dict[str, list[float]] = {"conv": [0.0, 0.0, slowest], "other": [0.0, 0.0, slowest]}
        return {"floor_ms": floor, "block": block, "base": other | by_group | by_class}

    def _non_negative(
        self,
        features: Any,
        keys: Sequence[str],
        prior: dict[str, list[float]],
        ridge: float,
        floor: float = 0.0,
    ) -> tuple[float, dict[str, list[float]]]:
        """Return the floor and three coefficients a key, of least relative squared error."""
        from scipy.optimize import nnls

        np = self._np
        known, which = np.unique(keys, return_inverse=True)
        columns = [np.ones((len(self._times), 1))]
        for number in range(len(known)):
            mine = which == number
            columns.append(self._matrix[:, mine] @ features[mine])
        scaled = np.hstack(columns) / self._times[:, None]
        towards = np.array([floor, *(x for key in known for x in prior.get(str(key), [0.0] * 3))])
        # In units of each column, so that the ridge pulls MACs and elements alike.
        size = np.sqrt((scaled**2).mean(axis=0))
        empty = size < 1e-12  # no network has any of it: additions have no MACs
        size[empty] = 1.0
        weight = ridge * math.sqrt(len(scaled))
        rows = np.vstack([scaled / size, weight * np.eye(len(size))])
        target = np.concatenate([np.ones(len(scaled)), weight * towards * size])
        found = np.where(empty, 0.0, nnls(rows, target)[0] / size)
        each = found[1:].reshape(len(known), 3)
        return float(found[0]), {
            str(key): [float(x) for x in values] for key, values in zip(known, each, strict=True)
        }

    def _relative(self, base: dict[str, Any]) -> tuple[Any, Any]:
        """Return each op's share of each network's time, and what the base leaves unexplained."""
        np = self._np
        each = np.array([base_ms(one, base) for one in self._known])
        shares = self._matrix * each / self._times[:, None]
        return shares, 1 - shares.sum(axis=1) - base["floor_ms"] / self._times

    def _condition(self) -> Any:
        """Condition the process on the networks; return how many deviations each is off."""
        np, settings = self._np, self.settings
        self._base = self._fit_base(settings.block)
        self._shares, y = self._relative(self._base)
        self._places = _Places(self._known, settings.block)
        kernel = self._places.kernel(self._places, settings)
        covariance = self._shares @ kernel @ self._shares.T
        covariance += np.diag(settings.noise**2 * self._extra)
        self._lower = np.linalg.cholesky(covariance)
        inverse = np.linalg.inv(covariance)
        alpha = inverse @ y
        self._weights = self._shares.T @ alpha
        self.left_out = tuple(map(float, -alpha / np.diag(inverse)))
        return np.abs(alpha) / np.sqrt(np.diag(inverse))

    def _coefficients(self) -> dict[str, Any]:
        s = self.settings
        points: dict[str, dict[str, Any]] = {}
        for one, weight in zip(self._known, self._weights, strict=True):
            mine = points.setdefault(one.name, {"mean": 0.0, "points": []})
            mine["mean"] += s.class_spread**2 * float(weight)
            mine["points"].append([*place(one, s.block), s.spread**2 * float(weight)])
        return self._base | {"length": list(s.lengths), "points": points}


class _Places:
    """Where signatures lie, for kernels between two sets of them."""

    def __init__(self, signatures: Sequence[Signature], block: int) -> None:
        import numpy as np

        self._np = np
        self.names = np.array([one.name for one in signatures])
        self.places = np.array([place(one, block) for one in signatures])

    def kernel(self, other: _Places, s: Settings) -> Any:
        """Return the covariance of the residuals of these (rows) and others (columns)."""
        np = self._np
        mine, theirs = self.places / s.lengths, other.places / s.lengths
        squares = (mine**2).sum(axis=1)[:, None] + (theirs**2).sum(axis=1) - 2 * mine @ theirs.T
        distances = np.sqrt(3 * np.maximum(squares, 0))
        near = s.spread**2 * (1 + distances) * np.exp(-distances)
        return (self.names[:, None] == other.names) * (s.class_spread**2 + near)
