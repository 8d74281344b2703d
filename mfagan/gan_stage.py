"""The adversarial stage: a PatchGAN against the generator, distilled from a teacher.

The generator's optimizer is any of `mfagan.sharpness`; what must not move between its passes is
seen to here for D, and by the optimizer itself for the generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Adam, Optimizer

from mfagan import processes
from mfagan.architecture import MfaArchitecture
from mfagan.checkpoint import About
from mfagan.config import LossConfig
from mfagan.discriminator import PatchDiscriminator
from mfagan.distillation import FeatureAdaptors
from mfagan.generator import Generator
from mfagan.generator_optimizers import BETAS, OptimizerChoice
from mfagan.losses import (
    JointLogits,
    relativistic_discriminator_loss,
    relativistic_generator_loss,
)
from mfagan.rrdb import RRDBNet
from mfagan.sharpness import Closure, Losses, Pass
from mfagan.stages import (
    Batch,
    Figures,
    MicroBatch,
    Stage,
    Terms,
    is_finite,
    per_sample_l1,
)


@dataclass(frozen=True, kw_only=True)
class Taught:
    """The teacher's output and features for one micro-batch."""

    output: Tensor
    features: list[Tensor]

    def select(self, positions: Tensor | None) -> Taught:
        """Return those of the samples at some positions, (K,) int64; None for all."""
        if positions is None:
            return self
        return Taught(output=self.output[positions], features=[x[positions] for x in self.features])


class GanStage(Stage):
    """PatchGAN against the generator, which is distilled from the teacher.

    One SubGenerator a step, in the order of the sandwich rule, so that every step costs the same.
    """

    def __init__(
        self,
        name: str,
        generator: Generator,
        *,
        teacher: RRDBNet | None,
        discriminator: PatchDiscriminator,
        optimizer: OptimizerChoice,
        losses: LossConfig,
        learning_rate: float,
        seed: int,
        autocast: bool,
        accumulate: int = 1,
    ) -> None:
        super().__init__(
            name,
            generator,
            learning_rate=learning_rate,
            seed=seed,
            autocast=autocast,
            accumulate=accumulate,
        )
        self.discriminator = discriminator
        self.networks["discriminator"] = discriminator
        self.companions["discriminator"] = About(
            kind="discriminator", architecture=str(discriminator.architecture)
        )
        groups: list[dict[str, object]] = [{"params": list(generator.named_parameters())}]
        self.teacher = None if teacher is None else teacher.eval().requires_grad_(False)
        if teacher is not None:
            shape = teacher.architecture
            self.adaptors = FeatureAdaptors(
                generator.head.out_channels, shape.width, shape.blocks
            ).to(generator.head.weight.device)
            self.networks["adaptors"] = self.adaptors
            # Sharpness is a property of the generator: its adaptors are not moved.
            named = [(f"adaptors.{n}", p) for n, p in self.adaptors.named_parameters()]
            groups.append({"params": named, "perturb": False})
        self.generator_optimizer = optimizer.make(groups, generator, learning_rate)
        self._discriminator_optimizer = Adam(
            discriminator.parameters(), lr=learning_rate, betas=BETAS, foreach=True
        )
        self.optimizers = {
            "generator": self.generator_optimizer,
            "discriminator": self._discriminator_optimizer,
        }
        self._losses = losses

    def step(self, batch: Batch, step: int) -> Figures:
        """Train D, then G on one step's data; return losses and gradient norm, see `Stage.step`."""
        subnets = self.subnets(step)
        subnet = subnets[step % len(subnets)]
        parts = self.micro_batches(batch)
        fakes = self._generate(parts, subnet)
        # D moves before G's losses are known, so it must be able to go back.
        undo = _remember(self.discriminator, self._discriminator_optimizer)
        figures = self._train_discriminator(parts, fakes)
        self.discriminator.eval().requires_grad_(False)
        try:
            with parametrize.cached():
                closures = self._closures(parts, fakes, subnet, figures)
                if is_finite(figures):
                    self.take_step(closures, figures)
                else:
                    with torch.no_grad():
                        for closure in closures:  # G's terms too are reported
                            closure(Pass(main=True))
        finally:
            self.discriminator.train().requires_grad_(True)
        if not is_finite(figures):
            undo()
        return figures

    def _train_discriminator(self, parts: Sequence[MicroBatch], fakes: Sequence[Tensor]) -> Figures:
        """Train D unless a figure is not finite; return its figures."""
        parameters = list(self.discriminator.parameters())
        self._discriminator_optimizer.zero_grad()
        joint = None
        if self._has_parts(parts):
            # Spectral norm advances once a step, however many forward passes there are.
            _advance_spectral_norm(self.discriminator)
            self.discriminator.eval()
            joint = self._judge(parts, fakes)
        figures: Figures = {}
        for part, fake in zip(parts, fakes, strict=True):
            # Real and fake go through together, for the same reason.
            with self.precision(part.first):
                logits = self.discriminator(torch.cat((part.first.hr, fake)))
            real_logits, fake_logits = logits.float().chunk(2)
            loss = relativistic_discriminator_loss(real_logits, fake_logits, joint)
            terms = {"d": loss, "d_real": real_logits.mean(), "d_fake": fake_logits.mean()}
            Terms(figures, part.weight).record(Pass(main=True), terms)
            if is_finite(figures):
                torch.autograd.backward(part.weight * loss)
        gradients = processes.average([p.grad for p in parameters], parameters)
        present = [g for g in gradients if g is not None]
        norm = torch.nn.utils.get_total_norm(present).item()
        finite = is_finite(figures)
        if processes.all_agree(finite and math.isfinite(norm), parameters[0].device):
            for p, g in zip(parameters, gradients, strict=True):
                p.grad = g
            self._discriminator_optimizer.step()
        elif finite:  # the norm is not, or another process's figures
            figures["d_gradient_norm"] = math.nan if math.isfinite(norm) else norm
        self._discriminator_optimizer.zero_grad()
        return figures

    def _judge(self, parts: Sequence[MicroBatch], fakes: Sequence[Tensor]) -> JointLogits:
        """Return D's logits of the whole step, of every process, without gradient."""
        real, fake = [], []
        for part, image in zip(parts, fakes, strict=True):
            with torch.no_grad(), self.precision(part.first):
                real.append(self.discriminator(part.first.hr).float())
                fake.append(self.discriminator(image).float())
        return JointLogits(
            real=processes.gather(torch.cat(real)), fake=processes.gather(torch.cat(fake))
        )

    def _closures(
        self,
        parts: Sequence[MicroBatch],
        fakes: Sequence[Tensor],
        subnet: MfaArchitecture | None,
        figures: Figures,
    ) -> list[Closure]:
        """Return the closures of G's step; D stays as it is now."""
        joints: dict[bool, JointLogits] = {}

        def joint(perturbed: bool) -> JointLogits | None:
            """Return the logits of the whole step at the weights of a pass, as they are now."""
            if not self._has_parts(parts):
                return None
            if perturbed not in joints:
                images = self._generate(parts, subnet) if perturbed else fakes
                joints[perturbed] = self._judge(parts, images)
            return joints[perturbed]

        return [self._closure(part, subnet, figures, joint) for part in parts]

    def _generate(
        self, parts: Sequence[MicroBatch], subnet: MfaArchitecture | None
    ) -> list[Tensor]:
        """Return SR of every part, without gradient."""
        fakes = []
        for part in parts:
            with torch.no_grad(), self.precision(part.first):
                fakes.append(self.run_generator(part.first.lr, subnet).float())
        return fakes

    def _has_parts(self, parts: Sequence[MicroBatch]) -> bool:
        """Tell whether no forward pass sees the logits of the whole step."""
        return len(parts) > 1 or processes.world_size() > 1

    @torch.no_grad()
    def _judge_real(self, part: MicroBatch) -> Tensor:
        with self.precision(part.first):
            return self.discriminator(part.first.hr).float()

    def _teach(self, batch: Batch) -> Taught | None:
        if self.teacher is None:
            return None
        with torch.no_grad(), self.precision(batch):
            output, features = self.teacher.forward_features(batch.lr)
        return Taught(output=output.float(), features=features)

    def _closure(
        self,
        part: MicroBatch,
        subnet: MfaArchitecture | None,
        figures: Figures,
        joint: Callable[[bool], JointLogits | None],
    ) -> Closure:
        assert isinstance(self.generator, Generator)
        generator, weights = self.generator, self._losses
        real = self._judge_real(part)
        noted = Terms(figures, part.weight)
        lessons: dict[bool, Taught | None] = {}

        def run(request: Pass) -> Losses:
            batch = part.of(request)
            if request.second not in lessons:  # the teacher works once for all passes
                whole = part.second if request.second else part.first
                lessons[request.second] = self._teach(whole)
            taught = lessons[request.second]
            with self.precision(batch):
                sr, features = generator.forward_features(batch.lr, subnet)
            sr = sr.float()
            if request.outputs_only:
                return Losses(task=sr.new_zeros(()), outputs=sr, epoch=batch.epoch)
            terms = {"l1": per_sample_l1(sr, batch.hr)}
            task = weights.pixel_weight * terms["l1"]
            if taught is not None:
                taught = taught.select(request.selection)
                terms["distill_output"] = per_sample_l1(sr, taught.output)
                with self.precision(batch):
                    terms["distill_features"] = self.adaptors(features, taught.features)
                task = task + weights.output_weight * terms["distill_output"]
                task = task + weights.feature_weight * terms["distill_features"]
            found = {"task": task.mean(), **{name: term.mean() for name, term in terms.items()}}
            losses = Losses(
                task=found["task"],
                per_sample=task,
                outputs=sr,
                samples=batch.samples,
                epoch=batch.epoch,
                weight=part.weight,
            )
            if request.adversarial and not request.second:
                with self.precision(batch):
                    fake = self.discriminator(sr).float()
                judged = real if request.selection is None else real[request.selection]
                loss = relativistic_generator_loss(judged, fake, joint(request.perturbed))
                found["adversarial"] = loss
                adversarial = weights.adversarial_weight * found["adversarial"]
                losses = replace(losses, adversarial=adversarial)
            noted.record(request, found)
            return losses

        return run


@torch.no_grad()
def _advance_spectral_norm(network: nn.Module) -> None:
    """Make the one power iteration that a forward pass in training mode makes."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and parametrize.is_parametrized(module, "weight"):
            _ = module.weight


def _remember(network: nn.Module, optimizer: Optimizer) -> Callable[[], None]:
    """Return a function that puts a network and its optimizer back to what they are now."""
    tensors = [*network.parameters(), *network.buffers()]
    known = set(optimizer.state)
    for values in optimizer.state.values():
        tensors += [value for value in values.values() if isinstance(value, Tensor)]
    with torch.no_grad():
        copies = [tensor.detach().clone() for tensor in tensors]

    @torch.no_grad()
    def undo() -> None:
        for tensor, copy in zip(tensors, copies, strict=True):
            tensor.copy_(copy)
        for parameter in optimizer.state.keys() - known:  # Adam makes its state at its first step
            del optimizer.state[parameter]

    return undo
