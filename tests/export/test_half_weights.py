import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from safetensors.torch import load_file

from export.cli import main
from export.half_weights import LEAST_ELEMENTS, halve_weights
from export.onnx_export import to_onnx
from export.onnx_session import runner
from latency.onnx_ops import from_onnx
from mfagan.architecture import MfaArchitecture, op_list, parse
from mfagan.generator import Generator
from mfagan.model import load
from mfagan.shipped import shipped

PLAIN = MfaArchitecture(scale=2, width=8, convolutions=(2,), branches=(0,))


def test_whole_halves_are_stored_as_halves_and_everything_else_stays():
    network = Generator(PLAIN).eval()
    for parameter in network.parameters():
        parameter.data = parameter.data.half().float()
    first = next(network.parameters())
    first.data[0, 0, 0, 0] = 0.1  # no half holds it
    model = to_onnx(network)
    halved, count = halve_weights(model)
    onnx.checker.check_model(halved, full_check=True)
    kinds = {tensor.name: tensor.data_type for tensor in halved.graph.initializer}
    arrays = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    for name, values in arrays.items():
        whole = values.dtype == np.float32 and values.size >= LEAST_ELEMENTS
        whole &= np.array_equal(values.astype(np.float16).astype(values.dtype), values)
        assert kinds.get(f"{name}_half") == (TensorProto.FLOAT16 if whole else None), name
        assert (name in kinds) != whole
    assert 0 < count < len(arrays)
    lr = np.random.default_rng(0).random((1, 3, 9, 14), np.float32)
    assert np.array_equal(runner(model, 1)(lr), runner(halved, 1)(lr))


def test_the_shipped_weights_are_whole_halves(tmp_path, capsys):
    words = ["small", "--half-weights", "--out", str(tmp_path), "--threads", "1"]
    assert main(words) == 0
    assert "weights stored as halves: " in capsys.readouterr().out
    (file,) = tmp_path.glob("*.onnx")
    parameters = sum(one.numel() for one in load_file(shipped("small").weights).values())
    assert 2 * parameters < file.stat().st_size < 2.5 * parameters
    size = (32, 24)  # a cast of a constant is no work
    assert from_onnx(onnx.load(file), size) == op_list(parse(shipped("small").architecture), *size)
    assert load(file, threads=1).precision == "fp32"  # a reader refuses what its graph is not


def test_the_flag_says_where_it_has_no_effect(tmp_path, capsys):
    words = ["small", "--half-weights", "--precision", "fp16", "--dry-run", "--out", str(tmp_path)]
    assert main(words) == 0
    assert "--half-weights has no effect without fp32" in capsys.readouterr().err
