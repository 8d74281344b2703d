"""What all sharpness-aware optimizers share: passes, restoration, processes, saved state."""

from __future__ import annotations

import abc
import contextlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import LBFGS, Optimizer

from mfagan import processes
from mfagan.processes import Gradients
from mfagan.sharpness import gradients as grads
from mfagan.sharpness.closure import Closure, Closures, Losses, Pass, check_returned, total
from mfagan.sharpness.limits import PASSES, check_above, check_base, check_passes
from mfagan.sharpness.precision import check_autocast, check_losses, check_weights
from mfagan.sharpness.randomness import Randomness
from mfagan.sharpness.restoration import put

_OF_GROUPS = {"params", "param_names", "initial_lr"}
"""What a group has beside options; the last one of a schedule that goes on."""


@dataclass(frozen=True, kw_only=True)
class MainPass:
    """What the pass at the clean weights gave, of this process.

    Attributes:
        losses: weighted sums, without graph.
        task: gradient of the task loss, or of all terms where no more is told apart.
        rest: gradient of the adversarial loss, where it is told apart.
        per_sample: of each closure, without graph.
    """

    losses: Losses
    task: Gradients
    rest: Gradients | None
    per_sample: list[Tensor | None]


class SharpnessOptimizer(Optimizer, abc.ABC):
    """A method around any base optimizer of `torch.optim`: `step(closure)` is all there is to call.

    Weights are fp32 or fp64 and activations may be bf16 by autocast, inside the closure or around
    the step. fp16 is refused: weights of it, autocast to it around the step, losses or outputs of
    it and, at the first step, anything of it on the autograd graph of the losses, which autocast
    inside the closure leaves there (the graph shows only the ends of compiled parts).

    Weights are moved in place and restored by copy, bit for bit, whatever happens in between. A
    step whose losses or gradient norms are not finite, in any pass and any process, changes nothing
    but the random streams. Parameters without a gradient are left as they are. `param_groups` and
    `state` are the base optimizer's own, so that schedules act on both. Copies and pickles go on
    bit for bit; make them of the network and its optimizer together.

    In a distributed run the gradients are averaged here, over the default group, and the passes
    themselves run without synchronisation (a `DistributedDataParallel` model inside `no_sync`,
    forward included): every process climbs by the gradient of its own batch (m-sharpness).

    Args:
        params: parameters, (name, parameter) pairs, or groups of either; a group may have its own
            value of every option in `group_options`.
        base_optimizer: a `torch.optim` class, but LBFGS, which runs its closure itself.
        group_options: the method's own, with their defaults.
        model: the network of the parameters. Needed for what is not a parameter: buffers,
            evaluation mode, names, and `no_sync`.
        max_norm: clips the direction that the base optimizer is given.
        **hyper: of the base optimizer, e.g. `lr`. `perturb`, `every` and `batch_norm` are options
            of `TwoPasses`, and warned of elsewhere.

    Attributes:
        base_optimizer: the wrapped one.
        batches: of a step's data: 2 where a second batch is asked for, else 1.
        steps: taken so far; skipped ones are not counted.
        gradient_norm: of the first pass, all terms, before clipping, at the last step; NaN when
            that was skipped before there was one.
        perturbed_gradient_norm: of the second pass, before clipping, at the last step; 0 when there
            was none, or its losses were not finite.

    Raises:
        ValueError: a value is out of its range.
    """

    batches = 1

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer],
        *,
        group_options: dict[str, Any] | None = None,
        model: nn.Module | None = None,
        max_norm: float | None = None,
        **hyper: Any,
    ) -> None:
        if max_norm is not None:
            max_norm = None if max_norm == math.inf else check_above("max_norm", max_norm)
        passes = {name: hyper.pop(name, default) for name, default in PASSES.items()}
        check_passes(**passes)
        for name, value in passes.items():  # of those who make a second pass, it does not come here
            if value != PASSES[name]:
                text = f"{name} has no effect on {type(self).__name__}, which makes one pass"
                warnings.warn(text, UserWarning, stacklevel=3)
        self._model = model
        self._named = _names_in(model)
        check_base(base_optimizer)
        super().__init__(params, {**(group_options or {}), **hyper})
        try:
            self.base_optimizer = base_optimizer(self.param_groups, **hyper)
        except TypeError as error:
            name = type(self).__name__
            raise TypeError(f"neither {name} nor its base optimizer takes this: {error}") from error
        if isinstance(self.base_optimizer, LBFGS):
            raise ValueError("LBFGS runs its closure itself and cannot be a base optimizer")
        self._share()
        self.defaults = {**self.base_optimizer.defaults, **self.defaults}  # for groups added later
        for group in self.param_groups:
            if unknown := group.keys() - self.defaults.keys() - _OF_GROUPS:
                raise ValueError(
                    f"a parameter group has no option {', '.join(sorted(unknown))}; it may have "
                    f"{', '.join(sorted(self.defaults))}"
                )
        self._max_norm = max_norm
        self._checked = False
        self.steps = 0
        self.gradient_norm = 0.0
        self.perturbed_gradient_norm = 0.0

    def step(self, closure: Closures) -> Losses | None:  # type: ignore[override]
        """Take one step; return the weighted sums of the first pass's losses, without their graph.

        Args:
            closure: one, or several whose losses are summed.

        Returns:
            None when the step was skipped.
        """
        closures = list(closure) if isinstance(closure, Sequence) else [closure]
        if not closures or not all(map(callable, closures)):
            raise ValueError("step needs a closure, or several in a list")
        check_autocast(self._parameters())
        self.gradient_norm, self.perturbed_gradient_norm = math.nan, 0.0
        self._random = Randomness(self._parameters())
        self._buffers = [] if self._model is None else list(self._model.buffers())
        self._buffers_before = [buffer.clone() for buffer in self._buffers]
        losses = None
        try:
            losses = self._step(closures)
        finally:
            if losses is None:  # the pass that moved them led to nothing
                self._reset_buffers()
            self._random.finish()
            self.zero_grad()
            torch.clear_autocast_cache()  # it holds the weights as they were
            del self._random, self._buffers, self._buffers_before
        if losses is not None:
            self.steps += 1
            self._checked = True
        return losses

    @abc.abstractmethod
    def _step(self, closures: list[Closure]) -> Losses | None:
        """Take one step, or return None and leave everything as it was."""

    def state_dict(self) -> dict[str, Any]:
        """Return the base optimizer's state, and as `sharpness` what of this one crosses steps."""
        return {**self.base_optimizer.state_dict(), "sharpness": self._own_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, and keep sharing `param_groups` with the base.

        Raises:
            ValueError: it is the state of another optimizer, or of other parameters; nothing has
                been changed.
        """
        state = dict(state_dict)
        own = state.pop("sharpness", None)
        if own is None:
            raise ValueError(f"the state is not of {self._kind()}: it has no `sharpness`")
        self._check_own_state(own)
        self.base_optimizer.load_state_dict(state)
        self._share()
        self._load_own_state(own)

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles have: everything but hooks, as of torch's optimizers."""
        left_out = ("step", "_named")  # a schedule's hook on it; ids of parameters
        return {
            name: value
            for name, value in self.__dict__.items()
            if name not in left_out and not name.endswith("_hooks")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become a copy, which shares with its own base optimizer what this one shares."""
        super().__setstate__(state)
        self._named = _names_in(self._model)

    def _share(self) -> None:
        self.param_groups = self.base_optimizer.param_groups
        self.state = self.base_optimizer.state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to this and to the base optimizer, whose groups are the same."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            check_weights(group["params"])
            self._check_group(group)
        except ValueError:
            self.param_groups.pop()
            raise

    def _check_group(self, group: dict[str, Any]) -> None:
        """Refuse values of a group's options that are out of range."""

    def _own_state(self) -> dict[str, Any]:
        return {"kind": self._kind(), "shapes": self._shapes(), "steps": self.steps}

    def _check_own_state(self, state: dict[str, Any]) -> None:
        """Refuse a state that `_load_own_state` could not load."""
        if state.get("kind") != self._kind():
            raise ValueError(f"the state is of {state.get('kind')}, this is {self._kind()}")
        if state.get("shapes") != self._shapes():
            raise ValueError("the state is of parameters of other shapes, or in other groups")

    def _load_own_state(self, state: dict[str, Any]) -> None:
        self.steps = int(state["steps"])

    def _kind(self) -> str:
        return f"{type(self).__name__} around {type(self.base_optimizer).__name__}"

    def _shapes(self) -> list[list[list[int]]]:
        return [[list(p.shape) for p in group["params"]] for group in self.param_groups]

    def _plain_step(self, closures: Sequence[Closure]) -> Losses | None:
        """Take a step of the base optimizer."""
        clean = self._main_pass(closures)
        if clean is None:
            return None
        self._apply(self._average(clean.task))
        return clean.losses

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"] if p.requires_grad]

    def _of_group(self, option: str) -> list[Any]:
        """Return a group's option for each of `_parameters`."""
        return [
            group[option] for group in self.param_groups for p in group["params"] if p.requires_grad
        ]

    def _need_names(self, group: dict[str, Any], what: str) -> None:
        """Refuse a group whose parameters' names, which something goes by, are not known."""
        if "param_names" not in group and any(id(p) not in self._named for p in group["params"]):
            raise ValueError(
                f"{what} goes by the parameters' names: pass network.named_parameters() instead of "
                "network.parameters(), or model=network"
            )

    def _names(self) -> list[str]:
        """Return the name of each of `_parameters`: as given, in the model, or its position."""
        names, position = [], 0
        for group in self.param_groups:
            given = group.get("param_names", [None] * len(group["params"]))
            for p, name in zip(group["params"], given, strict=True):
                if p.requires_grad:
                    names.append(name or self._named.get(id(p), str(position)))
                position += 1
        return names

    def _main_pass(
        self,
        closures: Sequence[Closure],
        *,
        perturbed: bool = False,
        adversarial: bool = True,
        task_alone: bool = False,
        inputs: Sequence[Tensor] | None = None,
    ) -> MainPass | None:
        """Make the pass that the step's figures are of; return None when it is not finite.

        Args:
            closures: all of the step's.
            perturbed: the weights have been moved.
            adversarial: with the adversarial loss.
            task_alone: the task gradient is needed apart from the adversarial one.
            inputs: parameters whose task gradient is wanted; None for all.
        """
        parameters = self._parameters()
        task: Gradients | None = None
        rest: Gradients | None = None
        seen: list[Losses] = []
        finite = True
        request = Pass(main=True, perturbed=perturbed, adversarial=adversarial)
        with self._passing(main=True):
            for closure in closures:
                losses = self._run(closure, request)
                seen.append(losses.figures())
                finite = finite and losses.finite
                if not finite:  # the rest is only run, so that it can be reported
                    continue
                weighed = losses.weight * losses.task
                other = losses.adversarial if adversarial else None
                if other is not None:
                    other = losses.weight * other
                del losses  # the outputs would be kept for the whole of the backward pass
                if other is None:
                    task = grads.backward(weighed, parameters, task, inputs=inputs)
                elif task_alone:
                    task = grads.backward(weighed, parameters, task, inputs=inputs, retain=True)
                    rest = grads.backward(other, parameters, rest)
                else:
                    task = grads.backward(weighed + other, parameters, task, inputs=inputs)
                del weighed, other  # and with them the graph, before the next forward pass
        norm = math.nan
        if finite:
            assert task is not None
            norm = grads.norm(task)
            self.gradient_norm = norm if rest is None else grads.norm(task, rest)
        if not self._agree(norm, self.gradient_norm):
            return None
        assert task is not None
        return MainPass(
            losses=total(seen), task=task, rest=rest, per_sample=[x.per_sample for x in seen]
        )

    def _run(self, closure: Closure, request: Pass) -> Losses:
        losses = check_returned(closure(request), request)
        check_losses(losses, whole=request.main and not self._checked)
        return losses

    @contextlib.contextmanager
    def _passing(self, *, main: bool, keep: bool = False) -> Iterator[None]:
        """Prepare one pass over all closures, and put back what it must not move.

        Args:
            main: the pass from which random numbers and buffers go on.
            keep: let it move buffers all the same.
        """
        keep = keep or main
        buffers = [] if keep else self._buffers
        copies = [buffer.clone() for buffer in buffers]
        if not keep:  # the network of the first pass again, power iterations included
            self._reset_buffers()
        self._random.rewind()
        torch.clear_autocast_cache()  # it holds the weights of the pass before
        try:
            with self._unsynchronised():
                yield
        finally:
            put(buffers, copies)
            if main:
                self._random.remember()

    def _reset_buffers(self) -> None:
        """Put the buffers back to what the step began with."""
        put(self._buffers, self._buffers_before)

    def _unsynchronised(self) -> contextlib.AbstractContextManager[None]:
        if isinstance(self._model, DistributedDataParallel):
            return self._model.no_sync()
        return contextlib.nullcontext()

    def _agree(self, *values: float) -> bool:
        """Tell whether the values are finite in every process."""
        here = all(map(math.isfinite, values))
        return processes.all_agree(here, self._parameters()[0].device)

    def _average(self, gradients: Gradients) -> Gradients:
        return processes.average(gradients, self._parameters())

    def _apply(self, direction: Gradients) -> None:
        """Give the base optimizer a direction, clipped, at the weights as they are."""
        self._descend(grads.clip(direction, self._max_norm))

    def _descend(self, direction: Gradients) -> None:
        for p, g in zip(self._parameters(), direction, strict=True):
            p.grad = g
        self.base_optimizer.step()


def _names_in(model: nn.Module | None) -> dict[int, str]:
    if model is None:
        return {}
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    return {id(p): name for name, p in inner.named_parameters()}
