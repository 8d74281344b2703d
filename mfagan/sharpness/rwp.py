"""Random weight perturbation: RWP, ARWP, m-RWP and m-ARWP.

Li et al., "Efficient generalization improvement guided by random weight perturbation" (2022,
arXiv 2211.11489) and "Revisiting random weight perturbation for efficiently improving
generalization" (TMLR 2024, arXiv 2404.00357). The weights are moved at random, filter by filter,
instead of along the gradient, so that no pass has to wait for another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mfagan import processes
from mfagan.processes import Gradients
from mfagan.sharpness import gradients as grads
from mfagan.sharpness.closure import Closure, Losses, Pass
from mfagan.sharpness.limits import check_integer, check_number
from mfagan.sharpness.optimizer import Moves, SharpnessOptimizer
from mfagan.sharpness.randomness import Noise, step_generator
from mfagan.sharpness.two_passes import TwoPasses


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


class OnePass(RandomPerturbation):
    """1. e at random.  2. g = gradient at w + e; w is restored by copy.  3. w <- Base(w, g).

    The adversarial loss is in the one pass that there is, so at w + e too; buffers move in it.
    """

    def _step(self, closures: list[Closure]) -> Losses | None:
        with self._moved(self._random_moves()):
            found = self._main_pass(closures, perturbed=True)
        if found is None:
            return None
        gradients = self._average(found.task)
        self._remember(gradients)
        self._apply(gradients)
        return found.losses


class RWP(OnePass):
    """Random weight perturbation in one pass; see `OnePass` for the rule."""

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer],
        *,
        sigma: float = 0.005,
        **options: Any,
    ) -> None:
        _refuse_fisher(options)
        super().__init__(params, base_optimizer, sigma=sigma, **options)


class ARWP(OnePass):
    """RWP that moves less what had large gradients; see `RandomPerturbation` for eta and beta."""

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


class Mixed(RandomPerturbation, TwoPasses):
    """Gradients of two batches, at the clean and at randomly moved weights.

    1. g0 = task gradient at w on the first batch, a = adversarial gradient there.
    2. g1 = task gradient at w + e on the second batch (`Pass.second`); w is restored by copy.
    3. w <- Base(w, a + lambda * g1 + (1 - lambda) * g0); lambda weighs the perturbed gradient, as
       in the authors' code.

    With `split`, half of the work is done by each of two processes: those of even rank take step 1
    and those of odd rank step 2, on batches of their own, and buffers are those of the first. Every
    process then has one batch per step, and none waits for the other's pass. So closures must not
    communicate then: those of even rank are asked for the adversarial loss and those of odd rank
    are not, and one that gathers logits over the processes would wait for ever.

    Args:
        params: see `RandomPerturbation`.
        base_optimizer: see `SharpnessOptimizer`.
        sigma: see `RandomPerturbation`.
        lambda_: share of the perturbed gradient, from 0 to 1.
        split: over an even number of processes.
        **options: of `RandomPerturbation` and `TwoPasses`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer],
        *,
        sigma: float,
        lambda_: float = 0.5,
        split: bool = False,
        **options: Any,
    ) -> None:
        self._lambda = check_number("lambda_", lambda_, most=1)
        if split and processes.world_size() % 2:
            raise ValueError(
                f"split needs an even number of processes, got {processes.world_size()}"
            )
        super().__init__(params, base_optimizer, sigma=sigma, **options)
        self._split = split
        self.batches = 1 if split else 2

    def _step(self, closures: list[Closure]) -> Losses | None:
        if not self._is_sharp:
            return self._plain_step(closures)
        return self._split_step(closures) if self._split else self._two_passes(closures)

    def _two_passes(self, closures: list[Closure]) -> Losses | None:
        clean = self._main_pass(closures, task_alone=not self._full)
        if clean is None:
            return None
        request = Pass(perturbed=True, second=True, adversarial=self._full)
        with self._moved(self._random_moves()):
            found = self._further_pass(closures, [request] * len(closures))
        if found is None:
            return None
        found = self._average(found)
        direction = _scale_(clean.task, 1 - self._lambda)
        direction = self._average(grads.add_(direction, clean.rest))
        self._remember(found)
        self._apply(grads.add_(direction, found, self._lambda))
        return clean.losses

    def _split_step(self, closures: list[Closure]) -> Losses | None:
        moved = processes.rank() % 2 == 1
        with self._moved(self._random_moves() if moved else []):
            found = self._main_pass(
                closures,
                perturbed=moved,
                adversarial=self._full or not moved,
                task_alone=not self._full,
            )
        if found is None:
            return None
        # Of the mean over all processes, half have one kind of gradient and half the other.
        perturbed: Gradients = [None] * len(found.task)
        if self._eta > 0:
            mine = grads.add_(perturbed, found.task, 2) if moved else perturbed
            perturbed = self._average(mine)
        weight = self._lambda if moved else 1 - self._lambda
        direction = _scale_(found.task, 2 * weight)
        if not moved:
            direction = grads.add_(direction, found.rest, 2)
        direction = self._average(direction)
        self._remember(perturbed)
        self._apply(direction)
        if self._model is not None:
            processes.broadcast(list(self._model.buffers()))
        return found.losses


class MRWP(Mixed):
    """m-RWP: clean and randomly perturbed gradients mixed; see `Mixed` for the rule."""

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer],
        *,
        sigma: float = 0.005,
        **options: Any,
    ) -> None:
        _refuse_fisher(options)
        super().__init__(params, base_optimizer, sigma=sigma, **options)


class MARWP(Mixed):
    """m-RWP that moves less what had large gradients; see `Mixed` and `RandomPerturbation`."""

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


def _scale_(gradients: Gradients, factor: float) -> Gradients:
    for g in gradients:
        if g is not None:
            g.mul_(factor)
    return gradients


def _refuse_fisher(options: dict[str, Any]) -> None:
    for name in ("eta", "beta"):
        if name in options:
            raise TypeError(f"{name} belongs to the adaptive form")
