"""From a weights file to checked ONNX files: export, simplify, quantize, verify, write.

from export.pipeline import export_files
result = export_files("gan.safetensors", "onnx", ("fp32", "int8"), calibration="photographs")
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from export.measuring import Draft, measure
from export.metadata import write_card
from export.onnx_export import to_onnx
from export.ort_format import OPERATORS, ORT_PRECISIONS, check_ort, to_ort
from export.prediction import DEFAULT_TARGET
from export.preparation import QUANTIZED, Job, prepare
from export.result import ExportedFile, ExportResult
from export.writing import write_together
from latency.commandline import FailureError

if TYPE_CHECKING:
    from export.onnx_session import Tensor
    from export.passes import PassReport


def export_files(
    weights: str | os.PathLike[str],
    out: str | os.PathLike[str],
    precisions: Sequence[str] = ("fp32",),
    calibration: str | os.PathLike[str] | None = None,
    evaluation: str | os.PathLike[str] | None = None,
    *,
    architecture: str | None = None,
    size: tuple[int, int] | None = None,
    as_bytes: bool = False,
    ort: bool = False,
    target: str = DEFAULT_TARGET,
    opset: int | None = None,
    threads: int | None = None,
    seed: int = 0,
    qat_steps: int = 0,
    max_loss_db: float | None = None,
    half_weights: bool = False,
    on_step: Callable[[str], None] = lambda _: None,
) -> ExportResult:
    """Export a weights file in one or more precisions; nothing is written unless all are right.

    Args:
        weights: `.safetensors` of a generator, teacher or supernet, or ESRGAN's published `.pth`.
        out: folder for `<architecture>_<precision>.onnx` and `export.json`.
        precisions: of `PRECISIONS`.
        calibration: folder of photographs for int8.
        evaluation: folder of photographs to judge by; the calibration folder's last fifth, held
            out, when not given.
        architecture: which SubGenerator of a supernet; its largest when not given.
        size: height and width of the only input, LR pixels; None for any.
        as_bytes: the files take and give bytes, (1, H, W, 3), instead of floats.
        ort: write each file in ONNX Runtime's own format too, with its list of operators.
        target: which latencies are predicted for, e.g. `snapdragon-865/gpu`.
        opset: of the ONNX files, 18 or more, int8-a16 21; the least of the two when not given.
        threads: CPU threads; all cores of this process when not given.
        seed: places the calibration crops and draws the noise of the comparison.
        qat_steps: of fine-tuning int8 on the calibration photographs, under quantization.
        max_loss_db: that int8 may lose, by calibration photographs held out; activations are raised
            to 16 bits, below opset 21 to float, until it holds. None for no limit.
        half_weights: store the weights of fp32 files as halves where these hold them exactly.
        on_step: called with a few words before every step.

    Raises:
        FileNotFoundError, ValueError: see `export.preparation.prepare`.
        FailureError: fp32 differs from torch by more than 1e-5, or fp16 by more than 4e-3, an
            output is not finite, `max_loss_db` cannot be held, or the disk is full; nothing new is
            left there.
    """
    on_step("read")
    job = prepare(
        weights, out, precisions, calibration, evaluation, architecture=architecture, size=size,
        as_bytes=as_bytes, ort=ort, target=target, opset=opset, threads=threads, seed=seed,
        qat_steps=qat_steps, max_loss_db=max_loss_db, half_weights=half_weights,
    )  # fmt: skip
    drafts, passes = _make(job, on_step)
    on_step("measure")
    files = measure(job, drafts)
    wanted = [one for one in zip(drafts, files, strict=True) if one[1].precision in job.precisions]
    return _write(job, wanted, passes, Path(out))


def _make(job: Job, on_step: Callable[[str], None]) -> tuple[list[Draft], tuple[PassReport, ...]]:
    """Return the models, fp32 first, asked for or not, and what the passes did."""
    import numpy as np

    from export.byte_images import byte_card, to_bytes
    from export.fp16 import to_fp16
    from export.onnx_session import runner
    from export.passes import run_passes
    from export.quantization import quantize_for
    from export.verify import check_bytes, differences, noise, photograph_inputs

    inputs = noise(job.size, np.random.default_rng(job.seed))
    on_step("export")
    fp32 = to_onnx(job.network, size=job.size, opset=job.opset)
    on_step("simplify")
    fp32, passes = run_passes(fp32, inputs, job.threads)
    write_card(fp32, job.card)
    on_step("compare with torch")
    found = differences(job.network, runner(fp32, job.threads), inputs)
    _hold(job, found, "fp32")
    drafts = [Draft(fp32, job.card, found)]
    if "fp16" in job.precisions:
        on_step("halve")
        fp16 = to_fp16(fp32)
        card = replace(job.card, precision="fp16")
        write_card(fp16, card)
        found = differences(job.network, runner(fp16, job.threads), inputs)
        _hold(job, found, "fp16")
        drafts.append(Draft(fp16, card, found))
    for precision in filter(QUANTIZED.__contains__, job.precisions):
        on_step(f"quantize {precision}")
        int8, done = quantize_for(job, fp32, precision, on_step)
        passes += done
        card = replace(job.card, precision=precision)
        write_card(int8, card)
        found = differences(
            job.network, runner(int8, job.threads), photograph_inputs(job.pairs, job.size)
        )
        drafts.append(Draft(int8, card, found))
    if job.half_weights and "fp32" in job.precisions:
        drafts[0], report = _with_half_weights(drafts[0], inputs, job.threads)
        passes += (report,)
    if not job.as_bytes:
        return drafts, passes
    on_step("bytes")
    dressed = []
    for draft in drafts:
        model, card = to_bytes(draft.model), byte_card(draft.card)
        write_card(model, card)
        check_bytes(draft.model, model, card, inputs, job.threads)
        dressed.append(Draft(model, card, draft.differences))
    return dressed, passes


def _with_half_weights(
    draft: Draft, inputs: Sequence[Tensor], threads: int
) -> tuple[Draft, PassReport]:
    """Return the fp32 model with its weights stored as halves, as far as that changes nothing."""
    import numpy as np

    from export.half_weights import halve_weights
    from export.onnx_session import runner
    from export.passes import PassReport

    before = len(draft.model.graph.node)
    model, halved = halve_weights(draft.model)
    run, run_halved = runner(draft.model, threads), runner(model, threads)
    equal = all(np.array_equal(run(lr), run_halved(lr)) for lr in inputs)
    kept = halved > 0 and equal
    report = PassReport(
        name="weights stored as halves",
        nodes_before=before,
        nodes_after=len(model.graph.node) if kept else before,
        kept=kept,
        why=f"kept, {halved} tensors, outputs are the same"
        if kept
        else "discarded: outputs differ"
        if halved
        else "no weights are whole halves",
    )
    return (draft._replace(model=model) if kept else draft), report


def _hold(job: Job, found: Mapping[str, float], precision: str) -> None:
    """Refuse a model that differs from torch by more than its precision may."""
    from export.verify import beyond_tolerance

    if reason := beyond_tolerance(found, precision):
        raise FailureError(
            f"the {precision} export of {job.architecture} is wrong, nothing was written: {reason}"
        )


def _write(
    job: Job,
    made: Sequence[tuple[Draft, ExportedFile]],
    passes: tuple[PassReport, ...],
    out: Path,
) -> ExportResult:
    files, contents = [], {}
    for draft, measured in made:
        file = replace(measured, path=out / measured.path)
        # Deterministic: protobuf may otherwise order maps by chance.
        contents[file.path] = draft.model.SerializeToString(deterministic=True)
        if job.ort and file.precision in ORT_PRECISIONS:
            data, operators = to_ort(draft.model, job.threads)
            check_ort(data, draft, job.threads)
            beside = (file.path.with_suffix(".ort"), file.path.with_suffix(OPERATORS))
            contents.update(zip(beside, (data, operators), strict=True))
            file = replace(file, beside=beside)
        files.append(file)
    result = ExportResult(
        architecture=str(job.architecture),
        scale=job.architecture.scale,
        shape=job.card.shape,
        opset=job.opset,
        threads=job.threads,
        checkpoint_sha256=job.card.checkpoint_sha256,
        photographs=tuple(pair.name for pair in job.pairs),
        passes=passes,
        files=tuple(files),
        report=out / "export.json",
    )
    text = json.dumps(result.to_json(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    # The report first: the last one written is the first one moved.
    write_together({result.report: text.encode(errors="backslashreplace"), **contents})
    return result
