"""The adversarial stage: a discriminator against the generator, both distilled from a teacher.

The generator's optimizer is any of `mfagan.sharpness`; what must not move between its passes is
seen to here for D (`mfagan.critic`), and by the optimizer itself for the generator.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mfagan.adversarial_stage import AdversarialStage
from mfagan.architecture import MfaArchitecture
from mfagan.config import LossConfig
from mfagan.critic import has_parts, join
from mfagan.discriminator import Discriminator, PatchDiscriminator
from mfagan.distillation import FeatureAdaptors, Lessons, Taught, critic_distance
from mfagan.generator import Generator
from mfagan.generator_optimizers import OptimizerChoice
from mfagan.losses import JointLogits, generator_loss
from mfagan.rrdb import RRDBNet
from mfagan.sharpness import Closure, Losses, Pass
from mfagan.stages import Batch, Figures, MicroBatch, Terms, is_finite, per_sample_l1


@dataclass(frozen=True, kw_only=True)
class Made:
    """What the generator made of a step's samples, with its graph.

    Attributes:
        sr: (N, 3, H, W).
        features: intermediate ones.
        versions: of the generator's weights.
    """

    sr: Tensor
    features: list[Tensor]
    versions: list[int]

    def serves(self, request: Pass, generator: nn.Module) -> bool:
        """Tell whether a pass would make the same again; weights that moved have lost the graph."""
        return (
            not request.perturbed
            and not request.second
            and request.selection is None
            and self.versions == [p._version for p in generator.parameters()]
        )


class GanStage(AdversarialStage):
    """A discriminator against the generator, which is distilled from the teacher.

    One SubGenerator a step, in the order of the sandwich rule, so that every step costs the same.
    Serves the teacher too, which is a plain network without a teacher.

    Args:
        teacher: frozen; None: no distillation.
        teacher_discriminator: its discriminator, of as many layers as `discriminator`; None: no
            distillation of D, and G is not seen through it.
        perceptual: maps SR and HR, (N, 3, H, W) each, to each sample's loss, (N,).
    """

    def __init__(
        self,
        name: str,
        generator: Generator | RRDBNet,
        *,
        teacher: RRDBNet | None,
        discriminator: Discriminator,
        optimizer: OptimizerChoice,
        losses: LossConfig,
        learning_rate: float,
        seed: int,
        autocast: bool,
        teacher_discriminator: PatchDiscriminator | None = None,
        perceptual: nn.Module | None = None,
        clip: float = 0.0,
        accumulate: int = 1,
    ) -> None:
        super().__init__(
            name,
            generator,
            discriminator=discriminator,
            teacher_discriminator=teacher_discriminator,
            losses=losses,
            learning_rate=learning_rate,
            clip=clip,
            seed=seed,
            autocast=autocast,
            accumulate=accumulate,
        )
        groups: list[dict[str, object]] = [{"params": list(generator.named_parameters())}]
        self.teacher = None if teacher is None else teacher.eval().requires_grad_(False)
        self.perceptual = perceptual
        if teacher is not None:
            assert isinstance(generator, Generator)  # a teacher has none of its own
            shape = teacher.architecture
            self.adaptors = FeatureAdaptors(
                generator.head.out_channels, shape.width, shape.blocks
            ).to(generator.head.weight.device)
            self.networks["adaptors"] = self.adaptors
            # Sharpness is a property of the generator: its adaptors are not moved.
            named = [(f"adaptors.{n}", p) for n, p in self.adaptors.named_parameters()]
            groups.append({"params": named, "perturb": False})
        self.generator_optimizer = optimizer.make(groups, generator, learning_rate)
        self.optimizers = {"generator": self.generator_optimizer, **self.optimizers}
        self._losses = losses

    def step(self, batch: Batch, step: int) -> Figures:
        """Train D, then G on one step's data; return losses and gradient norm, see `Stage.step`."""
        subnets = self.subnets(step)
        subnet = subnets[step % len(subnets)]
        parts = self.micro_batches(batch)
        # Features kept for every part would take what --accumulate is there to save.
        keep = len(parts) == 1
        made = self._made(parts[0].first, subnet) if keep else None
        if made is None:
            fakes = self.generate([part.first for part in parts], subnet)
        else:
            fakes = [made.sr.detach()]
        lessons = [
            None if self.teacher is None else Lessons(self._teach, part, keep=keep)
            for part in parts
        ]
        taught = []
        if self.critic.is_taught:
            taught = [each.of(Pass(main=True)).output for each in lessons if each is not None]
        # D moves before G's losses are known, so it must be able to go back.
        undo = self.critic.remember()
        figures = self.critic.learn(parts, fakes, taught)
        with self.critic.held():
            closures = self._closures(parts, fakes, lessons, subnet, figures, made)
            del made  # its graph must go with the first pass
            if is_finite(figures):
                self.take_step(closures, figures)
            else:
                with torch.no_grad():
                    for closure in closures:  # G's terms too are reported
                        closure(Pass(main=True))
        if not is_finite(figures):
            undo()
        return figures

    def _closures(
        self,
        parts: Sequence[MicroBatch],
        fakes: Sequence[Tensor],
        lessons: Sequence[Lessons | None],
        subnet: MfaArchitecture | None,
        figures: Figures,
        made: Made | None,
    ) -> list[Closure]:
        """Return the closures of G's step; D stays as it is now."""
        reals: dict[bool, list[Tensor]] = {}
        joints: dict[tuple[bool, bool], JointLogits] = {}

        def batches(second: bool) -> list[Batch]:
            return [part.second if second else part.first for part in parts]

        def real(second: bool) -> list[Tensor]:
            """Return the logits of each part's ground truth, which no pass of G changes."""
            if second not in reals:
                reals[second] = self.critic.judge([batch.hr for batch in batches(second)])
            return reals[second]

        def joint(request: Pass) -> JointLogits | None:
            """Return the logits of the whole step at the weights of a pass, as they are now.

            Of selected samples too: compared with means over a selection of its own, each part
            would have another loss than the whole.
            """
            if request.selection is None and not has_parts(parts):
                return None
            key = request.perturbed, request.second
            if key not in joints:
                whole = batches(request.second)
                images = self.generate(whole, subnet) if any(key) else fakes
                joints[key] = join(real(request.second), self.critic.judge(images))
            return joints[key]

        def logits(k: int, request: Pass) -> tuple[Tensor, JointLogits | None]:
            """Return those of a part's ground truth that a pass asks for, and of the whole step."""
            own = real(request.second)[k]
            return own if request.selection is None else own[request.selection], joint(request)

        return [
            self._closure(part, lesson, subnet, figures, functools.partial(logits, k), made)
            for k, (part, lesson) in enumerate(zip(parts, lessons, strict=True))
        ]

    def _made(self, batch: Batch, subnet: MfaArchitecture | None) -> Made:
        """Run the generator once for D's step and for its own first pass."""
        with self.precision(batch):
            sr, features = self.run_features(batch.lr, subnet)
        versions = [p._version for p in self.generator.parameters()]
        return Made(sr=sr.float(), features=features, versions=versions)

    def _teach(self, batch: Batch) -> Taught:
        """Ask the teachers."""
        assert self.teacher is not None
        judged: list[Tensor] = []
        with torch.no_grad(), self.precision(batch):
            output, features = self.teacher.forward_features(batch.lr)
            if self.critic.teacher is not None and self._losses.critic_weight:
                judged = self.critic.teacher.forward_features(output)[1]
        return Taught(output=output.float(), features=features, judged=judged)

    def _closure(
        self,
        part: MicroBatch,
        lesson: Lessons | None,
        subnet: MfaArchitecture | None,
        figures: Figures,
        logits: Callable[[Pass], tuple[Tensor, JointLogits | None]],
        made: Made | None,
    ) -> Closure:
        """Return the closure of one part.

        Args:
            part: of the step's data.
            lesson: what the teachers make of it.
            subnet: that is trained.
            figures: of the step.
            logits: D's of a pass's ground truth, and of the whole step where that is needed.
            made: what the generator made of this part for D; the first pass goes on from there.
        """
        weights = self._losses
        left = [made]
        noted = Terms(figures, part.weight)

        def run(request: Pass) -> Losses:
            batch = part.of(request)
            first = left[0] if request.main else None
            left[0] = None  # so that its graph goes with that pass, whatever becomes of it
            if first is not None and first.serves(request, self.generator):
                sr, features = first.sr, first.features
            else:
                with self.precision(batch):
                    sr, features = self.run_features(batch.lr, subnet)
                sr = sr.float()
            del first
            if request.outputs_only:
                return Losses(task=sr.new_zeros(()), outputs=sr, epoch=batch.epoch)
            taught = None if lesson is None else lesson.of(request)
            terms = self._task_terms(batch, sr, features, taught)
            task = torch.stack([weight * term for weight, term in terms.values()]).sum(0)
            found = {"task": task.mean(), **{name: t.mean() for name, (_, t) in terms.items()}}
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
                    fake = self.critic.network(sr).float()
                real, joint = logits(request)
                found["adversarial"] = generator_loss(weights.gan_loss, real, fake, joint)
                adversarial = weights.adversarial_weight * found["adversarial"]
                losses = replace(losses, adversarial=adversarial)
            noted.record(request, found)
            return losses

        return run

    def _task_terms(
        self, batch: Batch, sr: Tensor, features: list[Tensor], taught: Taught | None
    ) -> dict[str, tuple[float, Tensor]]:
        """Return weight and value per sample, (N,), of every term that is no adversarial one.

        Terms of weight 0 are left out; L1 is always told.
        """
        weights = self._losses
        terms = {"l1": (weights.pixel_weight, per_sample_l1(sr, batch.hr))}
        if taught is not None:
            if weights.output_weight:
                output = per_sample_l1(sr, taught.output)
                terms["distill_output"] = weights.output_weight, output
            with self.precision(batch):
                if weights.feature_weight:
                    adapted = self.adaptors(features, taught.features)
                    terms["distill_features"] = weights.feature_weight, adapted
                if taught.judged:
                    assert self.critic.teacher is not None
                    judged = self.critic.teacher.forward_features(sr)[1]
                    distance = critic_distance(judged, taught.judged)
                    terms["distill_critic"] = weights.critic_weight, distance
        if self.perceptual is not None and weights.perceptual_weight:
            with self.precision(batch):
                perceptual = self.perceptual(sr, batch.hr).float()
            terms["perceptual"] = weights.perceptual_weight, perceptual
        return terms
