"""Make the int8 file that was asked for: fine-tuned, and exact enough, by measurement.

Every step is kept only if held-out calibration photographs say that it helps, and is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from export.calibration import to_tensor
from export.passes import PassReport
from export.preparation import Job
from latency.commandline import FailureError

if TYPE_CHECKING:
    from onnx import ModelProto

    from export.onnx_session import Tensor

LEAST_GAIN = 0.002
"""dB; less is chance."""
TOLD_EVERY = 50
"""Steps of fine-tuning between two words of progress."""


def quantize_for(
    job: Job, fp32: ModelProto, precision: str, on_step: Callable[[str], None] = lambda _: None
) -> tuple[ModelProto, tuple[PassReport, ...]]:
    """Return the quantized model of a job, and what was done to it beyond static quantization.

    Args:
        job: with calibration photographs.
        fp32: simplified, and compared with torch.
        precision: `int8`, or `int8-a16`, which loses too little for anything to be mended.
        on_step: called with a few words while fine-tuning.

    Raises:
        FailureError: the job's largest loss cannot be held.
    """
    from export.quantize import quantize_int8

    samples = [to_tensor(lr, job.size) for lr in job.calibration]
    if precision == "int8-a16":
        return quantize_int8(fp32, samples, activation_bits=16), ()
    plain = quantize_int8(fp32, samples)
    if not job.qat_steps and job.max_loss_db is None:
        return plain, ()
    work = _Work(job, fp32, samples, plain)
    if job.qat_steps:
        work.fine_tune(on_step)
    if job.max_loss_db is not None:
        if work.loss > job.max_loss_db and not job.qat_steps:
            work.equalize()
            work.correct_biases()
        work.raise_layers(job.max_loss_db)
    return work.best, tuple(work.reports)


class _Work:
    """The best model so far, the fp32 graph and ranges that it came from, and its loss."""

    def __init__(
        self, job: Job, fp32: ModelProto, samples: Sequence[Tensor], plain: ModelProto
    ) -> None:
        import numpy as np

        from export.fine_tuning import patches
        from export.quantize import activation_ranges, preprocess

        self.job, self.samples, self.best = job, samples, plain
        self.graph = preprocess(fp32)
        self.ranges = activation_ranges(plain)
        self.reports: list[PassReport] = []
        self.reference = self._quality(fp32)
        self.loss = self.reference - self._quality(plain)
        rng = np.random.default_rng(job.seed)
        self.patches = np.concatenate([patches(job.calibration, rng).numpy() for _ in range(3)])

    def fine_tune(self, on_step: Callable[[str], None]) -> None:
        from export.fine_tuning import fine_tune
        from export.quantize import quantize_int8

        steps = self.job.qat_steps

        def tell(step: int) -> None:
            if step % TOLD_EVERY == 0:
                on_step(f"fine-tune int8, step {step} of {steps}")

        graph, ranges = fine_tune(
            self.graph, self.best, self.job.calibration, steps, seed=self.job.seed, on_step=tell
        )
        model = quantize_int8(graph, self.samples[:1], ranges=ranges)
        self._judge(f"fine-tuning, {steps} steps", model, graph)

    def equalize(self) -> None:
        from export.equalization import channel_peaks, equalize
        from export.quantize import quantize_int8

        graph = equalize(self.graph, channel_peaks(self.graph, self.patches))
        self._judge("cross-layer equalisation", quantize_int8(graph, self.samples), graph)

    def correct_biases(self) -> None:
        from export.bias_correction import correct_biases
        from export.quantize import quantize_int8

        graph = correct_biases(self.graph, self.best, self.patches)
        model = quantize_int8(graph, self.samples[:1], ranges=self.ranges)
        self._judge("bias correction", model, graph)

    def raise_layers(self, most: float) -> None:
        """Keep the fewest of the most sensitive activations more exactly that hold the loss."""
        from export.mixed_precision import fewest, sensitivities, share_of_8_bit_macs
        from export.quantize import LEAST_OPSET_16_BIT, quantize_int8

        tried: dict[int, tuple[ModelProto, float]] = {0: (self.best, self.loss)}

        def good(raised: Sequence[str]) -> bool:
            if len(raised) not in tried:
                model = quantize_int8(
                    self.graph, self.samples[:1], ranges=self.ranges, raised=raised
                )
                tried[len(raised)] = model, self.reference - self._quality(model)
            return tried[len(raised)][1] <= most

        worst_first: list[str] = []
        if not good([]):
            worst_first = list(sensitivities(self.graph, self.best, self.patches))
        raised = fewest(worst_first, good)
        if raised is None:
            raise FailureError(
                f"int8 loses {tried[len(worst_first)][1]:.3f} dB on held-out photographs even with "
                f"every activation raised, more than --max-loss-db {most:g}; nothing was written"
            )
        model, loss = tried[len(raised)]
        kind = "16 bits" if self.job.opset >= LEAST_OPSET_16_BIT else "float"
        names = f" ({', '.join(raised)})" if raised else ""
        share = share_of_8_bit_macs(model)
        self._report(
            "mixed precision",
            model,
            bool(raised),
            f"{len(raised)} activations in {kind}{names}, {share:.1%} of the MACs in 8 bits, "
            f"{loss:.3f} dB lost on held-out photographs, {most:g} allowed",
        )
        self.best, self.loss = model, loss

    def _judge(self, name: str, model: ModelProto, graph: ModelProto) -> None:
        from export.quantize import activation_ranges

        loss = self.reference - self._quality(model)
        kept = loss < self.loss - LEAST_GAIN
        verdict = "kept" if kept else "not used"
        why = f"{verdict}, {loss:.3f} dB lost on held-out photographs instead of {self.loss:.3f}"
        self._report(name, model, kept, why)
        if kept:
            self.best, self.graph, self.loss = model, graph, loss
            self.ranges = activation_ranges(model)

    def _report(self, name: str, model: ModelProto, kept: bool, why: str) -> None:
        before, after = len(self.best.graph.node), len(model.graph.node)
        self.reports.append(
            PassReport(
                name=f"int8 {name}",
                nodes_before=before,
                nodes_after=after if kept else before,
                kept=kept,
                why=why,
            )
        )

    def _quality(self, model: ModelProto) -> float:
        from export.onnx_session import runner
        from export.verify import mean_psnr_y

        job = self.job
        return mean_psnr_y(runner(model, job.threads), job.architecture, job.size, job.held_out)
