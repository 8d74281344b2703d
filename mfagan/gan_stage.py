"""The adversarial stage: a PatchGAN against the generator, distilled from a teacher.

The generator's optimizer is any of `mfagan.sharpness`; what must not move between its passes is
seen to here for D, and by the optimizer itself for the generator.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.utils import parametrize
from torch.optim import Adam

from mfagan import processes
from mfagan.architecture import MfaArchitecture
from mfagan.checkpoint import About
from mfagan.config import LossConfig
from mfagan.discriminator import PatchDiscriminator, advance_spectral_norm, remember
from mfagan.distillation import FeatureAdaptors, Taught
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
        fakes = self._generate([part.first for part in parts], subnet)
        # D moves before G's losses are known, so it must be able to go back.
        undo = remember(self.discriminator, self._discriminator_optimizer)
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
            advance_spectral_norm(self.discriminator)
            self.discriminator.eval()
            batches = [part.first for part in parts]
            real = self._judge(batches, [batch.hr for batch in batches])
            joint = _join(real, self._judge(batches, fakes))
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

    @torch.no_grad()
    def _judge(self, batches: Sequence[Batch], images: Sequence[Tensor]) -> list[Tensor]:
        """Return D's logits of the images of each batch, without gradient."""
        logits = []
        for batch, image in zip(batches, images, strict=True):
            with self.precision(batch):
                logits.append(self.discriminator(image).float())
        return logits

    def _closures(
        self,
        parts: Sequence[MicroBatch],
        fakes: Sequence[Tensor],
        subnet: MfaArchitecture | None,
        figures: Figures,
    ) -> list[Closure]:
        """Return the closures of G's step; D stays as it is now."""
        reals: dict[bool, list[Tensor]] = {}
        joints: dict[tuple[bool, bool], JointLogits] = {}

        def batches(second: bool) -> list[Batch]:
            return [part.second if second else part.first for part in parts]

        def real(second: bool) -> list[Tensor]:
            """Return the logits of each part's ground truth, which no pass of G changes."""
            if second not in reals:
                whole = batches(second)
                reals[second] = self._judge(whole, [batch.hr for batch in whole])
            return reals[second]

        def joint(request: Pass) -> JointLogits | None:
            """Return the logits of the whole step at the weights of a pass, as they are now.

            Of selected samples too: compared with means over a selection of its own, each part
            would have another loss than the whole.
            """
            if request.selection is None and not self._has_parts(parts):
                return None
            key = request.perturbed, request.second
            if key not in joints:
                whole = batches(request.second)
                images = self._generate(whole, subnet) if any(key) else fakes
                joints[key] = _join(real(request.second), self._judge(whole, images))
            return joints[key]

        def logits(k: int, request: Pass) -> tuple[Tensor, JointLogits | None]:
            """Return those of a part's ground truth that a pass asks for, and of the whole step."""
            own = real(request.second)[k]
            return own if request.selection is None else own[request.selection], joint(request)

        return [
            self._closure(
                part,
                subnet,
                figures,
                functools.partial(logits, k),
                # Features kept for every part would take what --accumulate is there to save.
                keep=len(parts) == 1,
            )
            for k, part in enumerate(parts)
        ]

    def _generate(self, batches: Sequence[Batch], subnet: MfaArchitecture | None) -> list[Tensor]:
        """Return SR of every batch, without gradient."""
        fakes = []
        for batch in batches:
            with torch.no_grad(), self.precision(batch):
                fakes.append(self.run_generator(batch.lr, subnet).float())
        return fakes

    def _has_parts(self, parts: Sequence[MicroBatch]) -> bool:
        """Tell whether no forward pass sees the logits of the whole step."""
        return len(parts) > 1 or processes.world_size() > 1

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
        logits: Callable[[Pass], tuple[Tensor, JointLogits | None]],
        *,
        keep: bool,
    ) -> Closure:
        """Return the closure of one part.

        Args:
            part: of the step's data.
            subnet: that is trained.
            figures: of the step.
            logits: D's of a pass's ground truth, and of the whole step where that is needed.
            keep: let the teacher work once for all passes, and keep what it found until the end.
        """
        assert isinstance(self.generator, Generator)
        generator, weights = self.generator, self._losses
        noted = Terms(figures, part.weight)
        lessons: dict[bool, Taught | None] = {}

        def teach(request: Pass, batch: Batch) -> Taught | None:
            if not keep:
                return self._teach(batch)
            if request.second not in lessons:
                lessons.clear()  # m-RWP does not come back to its first batch
                lessons[request.second] = self._teach(part.of(replace(request, selection=None)))
            lesson = lessons[request.second]
            return None if lesson is None else lesson.select(request.selection)

        def run(request: Pass) -> Losses:
            batch = part.of(request)
            with self.precision(batch):
                sr, features = generator.forward_features(batch.lr, subnet)
            sr = sr.float()
            if request.outputs_only:
                return Losses(task=sr.new_zeros(()), outputs=sr, epoch=batch.epoch)
            taught = teach(request, batch)
            terms = {"l1": per_sample_l1(sr, batch.hr)}
            task = weights.pixel_weight * terms["l1"]
            if taught is not None:
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
            if request.adversarial:
                with self.precision(batch):
                    fake = self.discriminator(sr).float()
                real, joint = logits(request)
                loss = relativistic_generator_loss(real, fake, joint)
                found["adversarial"] = loss
                adversarial = weights.adversarial_weight * found["adversarial"]
                losses = replace(losses, adversarial=adversarial)
            noted.record(request, found)
            return losses

        return run


def _join(real: Sequence[Tensor], fake: Sequence[Tensor]) -> JointLogits:
    """Return the logits of a whole step, over all parts and processes."""
    return JointLogits(
        real=processes.gather(torch.cat(list(real))), fake=processes.gather(torch.cat(list(fake)))
    )
