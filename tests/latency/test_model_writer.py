"""Models written from op lists: read back equal, and they compute what the list says."""

import os
import random

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F

from latency import from_onnx, from_torch
from latency.chain_sampling import sample_chain
from latency.chains import op_list as chain_ops
from latency.chains import parse as parse_chain
from latency.model_writer import write_model
from latency.ops import OpListBuilder
from mfagan.architecture import op_list, parse
from mfagan.space import SearchSpace

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def _run(model, lr):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {"lr": lr})[0]


def _image(ops):
    return np.random.default_rng(0).random((1, *ops.input_shape), dtype=np.float32)


def test_fifty_architectures_are_read_back_equal():
    rng, space = random.Random(0), SearchSpace(widths=(16, 24), modules=(2, 3))
    names = {str(space.sample(rng)) for _ in range(80)}
    names = [*sorted(names)[:48], "mfa_x3_w16_c2-2_s2-1", "rrdb_x4_w16_b1_g8"]
    assert len(names) == 50
    for number, name in enumerate(names):
        ops = op_list(parse(name), 13, 18)  # not a multiple of 4: pads and crops
        model = write_model(ops, precision="int8" if number % 5 == 0 else "fp32", name=name)
        assert from_onnx(model) == ops, name
        if number % 10 == 0:
            onnx.checker.check_model(model)


def test_chains_are_read_back_equal_and_run():
    rng = random.Random(1)
    for number in range(40):
        ops = chain_ops(parse_chain(sample_chain(rng, (16, 20))), 16, 20)
        model = write_model(ops, precision=("fp32", "int8")[number % 2])
        assert from_onnx(model) == ops
        if number % 4 < 2:
            result = _run(model, _image(ops))
            assert result.shape == (1, *ops.shape_of(ops.output))
            assert np.isfinite(result).all()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_every_step_of_a_chain_can_be_written(precision):
    text = (
        "chain_8_conv3o16s2_clip_tconv4o8s2_prelu_gather16_leakyrelu_pad3_slice3_d2s2_s2d2_sigmoid"
        "_tanh_hardswish_hardsigmoid_mul_maxpool2_avgpool2_resize3_gelu_concat18_gap_conv1o4_relu"
    )
    ops = chain_ops(parse_chain(text), 16, 24)
    model = write_model(ops, precision=precision)
    assert from_onnx(model) == ops
    assert np.isfinite(_run(model, _image(ops))).all()


class Classifier(nn.Module):
    """MobileNet-like, with what super-resolution has not: norms, pools, products."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.wide, self.deep = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 16, 3, 2, 1, groups=16)
        self.head = nn.Linear(16, 10)

    def forward(self, lr):
        x = F.max_pool2d(F.hardtanh(self.norm(self.stem(lr)), 0, 6), 3, 2, 1)
        x = F.hardswish(self.deep(F.silu(self.wide(x))))
        return F.softmax(self.head(x.mean((2, 3))), 1)


def test_another_network_is_read_back_equal():
    ops = from_torch(Classifier().eval(), (33, 47))
    assert {"matmul", "max_pool", "batch_norm", "global_avg_pool", "softmax"} <= {
        op.kind for op in ops.ops
    }
    assert from_onnx(write_model(ops)) == ops


def test_the_ops_that_no_chain_has():
    g = OpListBuilder((4, 6, 8))
    x = g.add("reduce_mean", (0,), (4, 6, 1))
    x = g.add("gather", (x,), (4, 12, 8))  # two axes: a tile
    x = g.add("transpose", (x,), (8, 12, 4))
    x = g.add("concat", (x, x), (8, 24, 4))
    x = g.add("resize", (x,), (8, 17, 5))  # no whole factor: linear
    x = g.add("reshape", (x,), (40, 17))
    x = g.add("matmul", (x,), (40, 3), in_channels=17, parameters=51)
    x = g.elementwise("neg", g.elementwise("exp", g.elementwise("sqrt", x)))
    for kind in ("sub", "div", "pow"):
        x = g.elementwise(kind, x)
    ops = g.build(g.elementwise("sub", x, x))
    model = write_model(ops)
    assert from_onnx(model) == ops
    assert _run(model, _image(ops)).shape == (1, 40, 3)


def test_two_crops_of_one_tensor_are_two():
    g = OpListBuilder((4, 8, 8))
    parts = [g.add("slice", (0,), (2, 8, 8)) for _ in range(2)]
    ops = g.build(g.add("concat", tuple(reversed(parts)), (4, 8, 8)))
    lr = _image(ops)
    np.testing.assert_array_equal(_run(write_model(ops), lr)[0], lr[0][[2, 3, 0, 1]])


def test_a_chain_computes_what_torch_does():
    ops = chain_ops(parse_chain("chain_3_conv3o8_leakyrelu_conv1o12_d2s2_avgpool2_add0"), 8, 10)
    model, lr = write_model(ops), _image(ops)
    values = [torch.tensor(numpy_helper.to_array(one)) for one in model.graph.initializer]
    weights = [one for one in values if one.ndim]
    x = torch.from_numpy(lr)
    y = F.leaky_relu(F.conv2d(x, weights[0], weights[1], padding=1), 0.2)
    y = F.avg_pool2d(F.pixel_shuffle(F.conv2d(y, weights[2], weights[3]), 2), 2) + x
    np.testing.assert_allclose(_run(model, lr), y.numpy(), rtol=1e-5, atol=1e-5)


def test_deep_networks_neither_vanish_nor_overflow():
    ops = op_list(parse("mfa_x4_w16_c4-4-4-4-4-4-4-4_s0-0-0-0-0-0-0-0"), 12, 12)
    result = np.abs(_run(write_model(ops), _image(ops)))
    assert 1e-3 < result.mean() < 1e6


def test_seeds_give_other_weights_and_the_same_again():
    ops = chain_ops(parse_chain("chain_3_conv3o4"), 4, 4)
    first, same, other = (write_model(ops, seed=seed) for seed in (0, 0, 1))
    assert first.SerializeToString() == same.SerializeToString() != other.SerializeToString()


def test_what_cannot_be_written():
    g = OpListBuilder((3, 16, 16))
    g.add("conv", (0,), (4, 12, 12), kernel=(3, 3), in_channels=3, parameters=112)  # dilated by 2
    with pytest.raises(ValueError, match="op 1, conv to 4x12x12, cannot be written as ONNX"):
        write_model(g.build())
    with pytest.raises(ValueError, match="precision must be fp32 or int8, got 'fp16'"):
        write_model(chain_ops(parse_chain("chain_3_relu"), 4, 4), precision="fp16")
