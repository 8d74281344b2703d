"""Gaussian noise on weights, filter by filter: what the RWP family moves them by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mfagan.processes import Gradients
from mfagan.sharpness.limits import check_integer, check_number
from mfagan.sharpness.optimizer import SharpnessOptimizer
from mfagan.sharpness.randomness import Noise, step_generator
from mfagan.sharpness.restoration import Moves


class RandomPerturbation(SharpnessOptimizer):
    """Gaussian noise in proportion to the norm of each filter.

    e_j = sigma * |w_j| * z over slice j of the first dimension, which is the output filter of a
    convolution and, as in the authors' code, the input channel of a transposed one. Tensors of one
    dimension or none are one filter, with |w| + eps. With eta above 0, e is divided by
    sqrt(1 + eta * F) from the second step on: F <- beta * F + g^2, of perturbed gradients, summed
    over the filter (element by element for one dimension). The paper's equation has the fourth
    root of a sum per element there; this is the authors' code.

    sigma at step k is sigma * (1 + increase * (1 - cos(pi k / total_steps)) / 2).

    Every process draws its own noise.

    Args:
        params: see `SharpnessOptimizer`; a group may have its own `sigma`.
        base_optimizer: see `SharpnessOptimizer`.
        sigma: strength; 0.002 to 0.01 suits small super-resolution networks (0.01 in the paper).
        increase: sigma ends at (1 + increase) times its start.
        total_steps: over which it rises.
        eta: weight of F, 0 leaves it out.
        beta: how long F remembers.
        eps: added to the norm of biases.
        noise: standard normals by step and parameter name; None draws by `seed`.
        seed: of the noise.
        **options: of `SharpnessOptimizer`, and of the base optimizer.
    """

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer],
        *,
        sigma: float,
        increase: float = 0.0,
        total_steps: int | None = None,
        eta: float = 0.0,
        beta: float = 0.0,
        eps: float = 1e-16,
        noise: Noise | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        self._increase = check_number("increase", increase)
        if total_steps is not None:
            total_steps = check_integer("total_steps", total_steps, int(self._increase > 0))
        elif self._increase > 0:
            raise ValueError("total_steps must be at least 1 with an increase, got None")
        self._total_steps = total_steps
        self._eta = check_number("eta", eta)
        self._beta = check_number("beta", beta, below=1)
        self._eps = check_number("eps", eps)
        self._seed = check_integer("seed", seed)
        self._noise = noise
        super().__init__(params, base_optimizer, group_options={"sigma": sigma}, **options)
        self._fisher: dict[int, Tensor] = {}

    def _check_group(self, group: dict[str, Any]) -> None:
        group["sigma"] = check_number("sigma", group["sigma"])
        if self._noise is not None:
            self._need_names(group, "noise")

    def _random_moves(self) -> Moves:
        """Return e for every parameter."""
        generators: dict[torch.device, torch.Generator] = {}
        rise = 1.0
        if self._increase > 0 and self._total_steps:
            share = min(1.0, self.steps / self._total_steps)
            rise += self._increase * (1 - math.cos(math.pi * share)) / 2
        moves = []
        columns = (self._parameters(), self._of_group("sigma"), self._names(), self._positions())
        with torch.no_grad():
            for p, sigma, name, position in zip(*columns, strict=True):
                if self._noise is not None:
                    z = torch.as_tensor(self._noise(self.steps, name)).to(p, copy=True)
                    if z.shape != p.shape:
                        raise ValueError(
                            f"the noise for '{name}' must be of shape {tuple(p.shape)}, got "
                            f"{tuple(z.shape)}"
                        )
                else:
                    if p.device not in generators:
                        generators[p.device] = step_generator(
                            self._seed, self.steps, p.device, apart=True
                        )
                    z = torch.empty_like(p).normal_(generator=generators[p.device])
                z.mul_(sigma * rise).mul_(self._size(p, self._fisher.get(position)))
                moves.append((p, z))
        return moves

    def _size(self, parameter: Tensor, fisher: Tensor | None) -> Tensor:
        """Return the standard deviation of the noise over sigma, that broadcasts to a parameter."""
        if parameter.ndim <= 1:
            size = torch.linalg.vector_norm(parameter) + self._eps
        else:
            filters = tuple(range(1, parameter.ndim))
            size = torch.linalg.vector_norm(parameter, dim=filters, keepdim=True)
            if fisher is not None:
                fisher = fisher.sum(filters, keepdim=True)
        return size if fisher is None else size / torch.sqrt(1 + self._eta * fisher)

    def _remember(self, gradients: Gradients) -> None:
        """Add the squares of perturbed gradients, averaged over the processes, to F."""
        if self._eta == 0:
            return
        for position, g in zip(self._positions(), gradients, strict=True):
            if g is None:
                continue
            g = g.to_dense()  # an embedding's may be sparse
            if position not in self._fisher:
                self._fisher[position] = torch.zeros_like(g)
            self._fisher[position].mul_(self._beta).addcmul_(g, g)

    def _positions(self) -> list[int]:
        """Return the position of each of `_parameters` among all that were given."""
        everything = [p for group in self.param_groups for p in group["params"]]
        return [k for k, p in enumerate(everything) if p.requires_grad]

    def _own_state(self) -> dict[str, Any]:
        return {**super()._own_state(), "fisher": self._fisher, "seed": self._seed}

    def _load_own_state(self, state: dict[str, Any]) -> None:
        super()._load_own_state(state)
        self._seed = int(state["seed"])
        everything = [p for group in self.param_groups for p in group["params"]]
        self._fisher = {
            int(k): f.to(everything[int(k)], copy=True) for k, f in state["fisher"].items()
        }


class Fixed(RandomPerturbation):
    """The forms in which what was learnt does not damp the noise."""

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer],
        *,
        sigma: float = 0.005,
        **options: Any,
    ) -> None:
        for name in ("eta", "beta"):
            if name in options:
                raise TypeError(f"{name} belongs to the adaptive form")
        super().__init__(params, base_optimizer, sigma=sigma, **options)


class Adaptive(RandomPerturbation):
    """The forms that move less what had large gradients; see `RandomPerturbation`."""

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer],
        *,
        sigma: float = 0.005,
        eta: float = 0.1,
        beta: float = 0.99,
        **options: Any,
    ) -> None:
        super().__init__(params, base_optimizer, sigma=sigma, eta=eta, beta=beta, **options)
