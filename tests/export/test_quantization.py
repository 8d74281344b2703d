import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from export import cli
from export.calibration import Pair, hold_out
from export.quantization import quantize_for
from latency.commandline import FailureError
from mfagan.architecture import parse
from mfagan.images import list_images, read_image
from mfagan.resize import downscale

PLAIN = "mfa_x2_w8_c2_s0"


def main(*arguments):
    return cli.main(list(map(str, arguments)))


@pytest.fixture(scope="module")
def fp32(graph_of):
    """A network whose tail is strong enough for the rounding before it to be seen."""
    model = graph_of(PLAIN, opset=21)
    for tensor in model.graph.initializer:
        if tensor.name == "tail.weight":
            values = numpy_helper.to_array(tensor) * 4
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    return model


@pytest.fixture
def job(photographs, fp32):
    """A job whose held-out photograph is what fp32 makes of it, and a little noise."""
    from export.onnx_session import runner
    from mfagan.model import Model
    from mfagan.upscaling import upscale

    network = Model(architecture=parse(PLAIN), precision="fp32", size=None, run=runner(fp32, 1))
    crops = [downscale(read_image(path)[:96, :96], 2) for path in list_images(photographs)]
    rng = np.random.default_rng(0)
    pairs = []
    for lr in crops[:1]:
        hr = upscale(lr, network).astype(int) + rng.integers(-4, 5, (96, 96, 3))
        pairs.append(Pair(name="p", hr=np.clip(hr, 0, 255).astype(np.uint8), lr=lr))
    return SimpleNamespace(
        architecture=parse(PLAIN), size=None, opset=21, threads=1, seed=0, qat_steps=0,
        max_loss_db=None, calibration=tuple(crops[1:]), held_out=tuple(pairs),
    )  # fmt: skip


def wide(model):
    """How many activations are in 16 bits, and how many are quantized."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    kinds = [
        constants[n.input[2]].data_type for n in model.graph.node if n.op_type == "QuantizeLinear"
    ]
    return kinds.count(TensorProto.UINT16), len(kinds)


def test_nothing_is_done_unasked(fp32, job):
    model, reports = quantize_for(job, fp32, "int8")
    assert reports == ()
    assert wide(model)[0] == 0


def test_layers_are_raised_until_the_loss_holds(fp32, job):
    job.max_loss_db = 100.0
    plain, (report,) = quantize_for(job, fp32, "int8")
    assert wide(plain)[0] == 0
    assert not report.kept
    assert "0 activations in 16 bits, 100.0% of the MACs in 8 bits" in report.why
    lost = float(report.why.split(" dB lost")[0].split()[-1])
    assert lost > 0.01

    job.max_loss_db = lost / 2
    model, reports = quantize_for(job, fp32, "int8")
    raised, quantized = wide(model)
    assert 0 < raised < quantized
    assert [one.name for one in reports] == [
        "int8 cross-layer equalisation", "int8 bias correction", "int8 mixed precision",
    ]  # fmt: skip
    assert float(reports[-1].why.split(" dB lost")[0].split()[-1]) <= lost / 2
    onnx.checker.check_model(model, full_check=True)

    job.max_loss_db = 1e-9
    with pytest.raises(FailureError, match="even with every activation raised, more than"):
        quantize_for(job, fp32, "int8")


def test_fine_tuning_that_does_not_help_is_not_used(fp32, job, monkeypatch):
    from export import fine_tuning

    plain, _ = quantize_for(job, fp32, "int8")
    monkeypatch.setattr(fine_tuning, "WEIGHT_RATE", 1.0)
    job.qat_steps = 2
    model, (report,) = quantize_for(job, fp32, "int8")
    assert not report.kept
    assert report.why.startswith("not used, ")
    assert model == plain


def test_every_eighth_photograph_is_held_out():
    paths = tuple(f"{k}" for k in range(17))
    kept, held_out = hold_out(paths)
    assert held_out == ("7", "15")
    assert len(kept) == 15
    assert hold_out(paths[:3]) == (("0", "1"), ("2",))
    assert hold_out(paths[:1]) == (("0",), ("0",))


def test_the_command_fine_tunes_and_reports(weights, photographs, tmp_path, capsys):
    arguments = ["--precision", "int8", "--calibration", photographs, "--threads", 1]
    arguments += ["--qat-steps", 2, "--max-loss-db", 50, "--out", tmp_path]
    assert main(weights(PLAIN), *arguments) == 0
    printed = capsys.readouterr().out
    assert "int8 fine-tuning, 2 steps: " in printed
    assert "100.0% of the MACs in 8 bits" in printed
    report = json.loads((tmp_path / "export.json").read_text())
    assert report["passes"][-1]["name"] == "int8 mixed precision"


def test_options_of_int8_warn_without_it_and_have_limits(weights, tmp_path, capsys):
    assert main(weights(PLAIN), "--qat-steps", 5, "--out", tmp_path, "--dry-run") == 0
    assert "--qat-steps has no effect without int8" in capsys.readouterr().err
    for text in ("0", "-1", "nan", "inf"):
        assert main(weights(PLAIN), f"--max-loss-db={text}", "--out", tmp_path) == 2
        assert "above 0" in capsys.readouterr().err
