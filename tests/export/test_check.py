"""What `mfagan-export check` says, beside ONNX Runtime's own checker and about what that misses."""

import json
import random
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export import cli, providers
from export.check import PROVIDERS, check
from export.depth_to_space import to_dcr
from export.onnx_export import to_onnx
from latency.onnx_model import load_onnx
from mfagan.model import open_network

SIZE = (24, 20)
BRANCHES = "mfa_x4_w8_c1-2_s1-2"


def node(kind, given, target, **attributes):
    return helper.make_node(kind, given.split(), [target], **attributes)


def graph(nodes, *, size=SIZE, opset=18, constants=None):
    """A model of these nodes from `lr` to `sr`."""
    rng = np.random.default_rng(0)
    given = {
        "weight": rng.standard_normal((12, 3, 3, 3)).astype(np.float32),
        "deep": rng.standard_normal((12, 12, 1, 1)).astype(np.float32),
        "repeat": np.repeat(np.arange(3), 4),
        "slope": np.full((12, 1, 1), 0.2, np.float32),
        "zero": np.zeros((), np.float32),
        "one": np.ones((), np.float32),
        "pads": np.array([0, 0, 0, 0, 0, 0, 1, 1]),
        **(constants or {}),
    }
    read = {name for one in nodes for name in one.input}
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, (1, 3, *(size or ("h", "w"))))],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v, n) for n, v in given.items() if n in read],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


CONV = node("Conv", "lr weight", "a", pads=[1, 1, 1, 1])
GENERATOR = [
    CONV,
    node("Relu", "a", "b"),
    node("Conv", "b deep", "c"),
    node("Gather", "lr repeat", "skip", axis=1),
    node("Add", "c skip", "sum"),
    node("DepthToSpace", "sum", "sr", blocksize=2, mode="CRD"),
]
ISLANDS = [
    CONV,
    node("Sign", "a", "b"),
    node("Conv", "b deep", "c"),
    node("Hardmax", "c", "d"),
    node("Relu", "d", "e"),
    node("Add", "e a", "sr"),
]


def quantized(pixels, weights, opset=21):
    constants = {
        "scale": np.array(1 / 255, np.float32),
        "point": np.zeros((), pixels),
        "stored": np.ones((12, 3, 3, 3), weights),
        "stored_point": np.zeros((), weights),
    }
    nodes = [
        node("QuantizeLinear", "lr scale point", "q"),
        node("DequantizeLinear", "q scale point", "dq"),
        node("DequantizeLinear", "stored scale stored_point", "w"),
        node("Conv", "dq w", "a", pads=[1, 1, 1, 1]),
        node("QuantizeLinear", "a scale point", "q2"),
        node("DequantizeLinear", "q2 scale point", "sr"),
    ]
    return graph(nodes, opset=opset, constants=constants)


def stock(model):
    """What ONNX Runtime's own checker says of NNAPI: nodes taken and partitions."""
    from onnxruntime.tools.mobile_helpers.usability_checker import check_nnapi_partitions

    found = check_nnapi_partitions(model, require_fixed_input_sizes=False)
    return found.num_supported_nodes, found.num_partitions


def said(report):
    return "\n".join(map(str, report.findings))


@pytest.mark.parametrize("nodes", [GENERATOR, ISLANDS])
def test_partitions_are_those_of_the_stock_checker_where_it_knows_all(nodes):
    model = graph(nodes)
    shuffles = any(one.op_type == "DepthToSpace" for one in nodes)
    model = to_dcr(model) if shuffles else model
    report = check(model, "nnapi")
    assert (report.taken, report.partitions) == stock(model)
    assert report.nodes == len(nodes)
    assert report.verdict == ("all 6 nodes in 1 part" if shuffles else "4 of 6 nodes in 3 parts")


def test_crd_is_not_for_nnapi_though_the_stock_checker_says_so():
    model = graph(GENERATOR)
    assert stock(model) == (6, 1)
    report = check(model, "nnapi")
    assert (report.taken, report.partitions) == (5, 1)
    assert "1 x DepthToSpace: NNAPI has depth-to-space in DCR order only" in said(report)
    assert "deprecated since Android 15" in said(report)


def test_dynamic_sizes_are_for_the_cpu_alone_and_the_rest_is_said_too():
    model = graph(GENERATOR, size=None)
    taken = {provider: check(model, provider).taken for provider in PROVIDERS}
    assert taken == {"cpu": 6, "xnnpack": 0, "nnapi": 0, "qnn": 0}
    report = check(model, "nnapi")
    assert "6 x Conv, Relu, Gather, Add, DepthToSpace: its sizes are dynamic" in said(report)
    assert "in DCR order only" in said(report)
    assert report.short == "nnapi: nothing runs there (its sizes are dynamic)"
    assert check(model, "qnn").findings[0].change == "export with --input HxW"


def test_xnnpack_has_convolutions_and_what_it_fuses_with_them():
    report = check(graph(GENERATOR), "xnnpack")
    assert report.ops["Conv"] == (2, 2)
    assert report.ops["Relu"] == (1, 1)  # inside the convolution
    assert report.ops["DepthToSpace"] == report.ops["Gather"] == report.ops["Add"] == (1, 0)
    other = [CONV, node("PRelu", "a slope", "b"), node("Clip", "b zero one", "sr")]
    report = check(graph(other), "xnnpack")
    assert report.ops == {"Conv": (1, 1), "PRelu": (1, 0), "Clip": (1, 0)}
    fused = [CONV, node("Clip", "a zero one", "sr")]
    assert check(graph(fused), "xnnpack").taken == 2
    for kind in ("nearest", "linear"):
        scales = {"scales": np.array([1, 1, 2, 2], np.float32)}
        resize = helper.make_node("Resize", ["a", "", "scales"], ["sr"], mode=kind)
        report = check(graph([CONV, resize], constants=scales), "xnnpack")
        assert report.ops["Resize"] == (1, int(kind == "linear"))


@pytest.mark.parametrize(
    ("pixels", "weights", "taken"),
    [
        (np.uint8, np.int8, {"cpu": 5, "xnnpack": 0, "nnapi": 5, "qnn": 5}),
        (np.int8, np.int8, {"cpu": 5, "xnnpack": 3, "nnapi": 5, "qnn": 5}),
        (np.uint16, np.int8, {"cpu": 5, "xnnpack": 0, "nnapi": 0, "qnn": 5}),
    ],
)
def test_types_of_quantized_convolutions(pixels, weights, taken):
    model = quantized(pixels, weights)
    found = {provider: check(model, provider).taken for provider in PROVIDERS}
    assert found == taken
    mixed = "uint8 activations with int8 weights" in said(check(model, "xnnpack"))
    assert mixed == (pixels == np.uint8)


def test_16_bits_need_opset_21_and_floats_are_fp16_on_the_npu():
    for opset in (18, 21):
        report = check(quantized(np.uint16, np.int8, opset), "qnn")
        assert ("16-bit quantization at opset 18" in said(report)) == (opset == 18)
        assert "run it as fp16" not in said(report)
    report = check(graph(GENERATOR), "qnn")
    assert report.taken == 6
    assert "2 x Conv: of 2 are in float, which the NPU runs as fp16" in said(report)
    assert "computes them in float" in said(check(quantized(np.uint16, np.int8), "cpu"))


def test_padding_by_the_edge_is_not_for_nnapi():
    nodes = [node("Pad", "lr pads", "p", mode="edge"), node("Conv", "p weight", "sr")]
    assert check(graph(nodes), "nnapi").ops == {"Pad": (1, 0), "Conv": (1, 1)}
    assert "multiples of 4" in said(check(graph(nodes), "nnapi"))
    assert check(graph(nodes), "qnn").taken == 2


def test_the_ops_of_nnapi_are_those_of_the_installed_runtime():
    from onnxruntime.tools import mobile_helpers

    table = Path(mobile_helpers.__file__).with_name("nnapi_supported_ops.md").read_text("utf-8")
    listed = {
        tuple(word.rsplit(":", 1)) for word in re.findall(r"^\|([\w.]+:\w+)\|", table, re.MULTILINE)
    }
    assert len(listed) > 50
    ours = {("ai.onnx", kind) for kind in providers._NNAPI}
    ours |= {("com.microsoft", kind) for kind in providers._NNAPI_MICROSOFT}
    # In the sources, and not in their table.
    assert ours - listed == {("com.microsoft", "QLinearMul")}
    assert not listed - ours


@pytest.mark.parametrize(
    ("attributes", "taken"),
    [
        ({}, {"nnapi": 1, "xnnpack": 1, "qnn": 1}),
        ({"count_include_pad": 1}, {"nnapi": 0, "xnnpack": 0, "qnn": 1}),
        ({"ceil_mode": 1}, {"nnapi": 0, "xnnpack": 0, "qnn": 1}),
    ],
)
def test_pools_by_their_attributes(attributes, taken):
    pool = node("AveragePool", "lr", "sr", kernel_shape=[2, 2], strides=[2, 2], **attributes)
    assert {one: check(graph([pool]), one).taken for one in taken} == taken


@pytest.mark.parametrize(("same", "taken"), [(True, 5), (False, 4)])
def test_nnapi_averages_8_bits_of_one_scale(same, taken):
    nodes = [
        node("QuantizeLinear", "lr scale point", "q"),
        node("DequantizeLinear", "q scale point", "dq"),
        node("AveragePool", "dq", "a", kernel_shape=[2, 2], strides=[2, 2]),
        node("QuantizeLinear", "a other point", "q2"),
        node("DequantizeLinear", "q2 other point", "sr"),
    ]
    constants = {
        "scale": np.array(1 / 255, np.float32),
        "other": np.array(1 / 255 if same else 1 / 200, np.float32),
        "point": np.zeros((), np.uint8),
    }
    report = check(graph(nodes, constants=constants), "nnapi")
    assert report.taken == taken
    assert ("have one scale" in said(report)) != same
    # XNNPACK: only with the padding counted, of which there is none.
    assert check(graph(nodes, constants=constants), "xnnpack").taken == 0
    nodes[2].attribute.append(helper.make_attribute("count_include_pad", 1))
    assert check(graph(nodes, constants=constants), "xnnpack").taken == 3


@pytest.mark.parametrize(
    ("attributes", "taken"),
    [
        ({"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, 1),
        ({"coordinate_transformation_mode": "asymmetric"}, 0),
        ({"mode": "linear"}, 1),
        ({"mode": "cubic"}, 0),
    ],
)
def test_resizes_that_nnapi_has(attributes, taken):
    resize = helper.make_node("Resize", ["lr", "", "scales"], ["sr"], **attributes)
    scales = {"scales": np.array([1, 1, 2, 2], np.float32)}
    assert check(graph([resize], constants=scales), "nnapi").taken == taken


def test_pooled_branches_of_exports_run_on_phones(weights):
    network, _ = open_network(weights(BRANCHES))
    model = to_onnx(network, size=(16, 16))
    for provider in ("nnapi", "qnn"):
        assert check(to_dcr(model), provider).verdict.startswith("all ")
    report = check(model, "xnnpack")
    assert report.ops["AveragePool"] == (2, 2)


def test_exports_of_any_size_say_so_and_halves_are_named(exported):
    for path in sorted(exported.glob("*.onnx")):
        model = load_onnx(path)
        reports = {provider: check(model, provider) for provider in PROVIDERS}
        assert reports["cpu"].verdict.startswith("all ")
        assert not reports["qnn"].fixed
        half = "fp16 kernels" in said(reports["cpu"])
        assert half == path.stem.endswith("fp16")


def test_the_command(tmp_path, capsys):
    path = tmp_path / "model.onnx"
    onnx.save(graph(GENERATOR), path)
    assert cli.main(["check", str(path), "--provider", "nnapi"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("nnapi: 5 of 6 nodes in 1 part; opset 18, ONNX Runtime 1.14 or later")
    assert "left to the CPU provider: 1 x DepthToSpace" in printed
    assert cli.main(["check", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["providers"]
    assert [one["provider"] for one in found] == list(PROVIDERS)
    assert found[2]["verdict"] == "5 of 6 nodes in 1 part"
    assert found[2]["findings"][0]["ops"] == ["DepthToSpace"]


def test_misuse_is_one_sentence(tmp_path, capsys):
    (tmp_path / "text.onnx").write_text("no model")
    loop = graph(GENERATOR)
    loop.graph.node[0].input[0] = "sr"
    onnx.save(loop, tmp_path / "loop.onnx")
    for words, sentence in (
        (["missing.onnx"], "there is no ONNX file"),
        (["text.onnx"], "not an ONNX file"),
        (["loop.onnx"], "reads what nothing writes before it"),
        (["loop.onnx", "--provider", "nnap"], "nnapi"),
        ([], "MODEL.onnx"),
    ):
        given = [str(tmp_path / one) if one.endswith(".onnx") else one for one in words]
        assert cli.main(["check", *given]) == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert len(error.splitlines()) == 1


def test_graphs_that_no_exporter_makes_are_one_sentence_or_a_report(tmp_path):
    rng = random.Random(0)
    whole = [graph(GENERATOR), graph(ISLANDS, size=None), quantized(np.uint8, np.int8)]
    outcomes = {"report": 0, "refused": 0}
    for number in range(300):
        model = onnx.ModelProto()
        model.CopyFrom(rng.choice(whole))
        for _ in range(rng.randint(1, 3)):
            _harm(model, rng)
        path = tmp_path / "hostile.onnx"
        path.write_bytes(model.SerializeToString())
        reason = ""
        try:
            loaded = load_onnx(path)
            for provider in PROVIDERS:
                report = check(loaded, provider)
                assert 0 <= report.taken <= report.nodes
                assert (report.partitions == 0) == (report.taken == 0)
                assert all(line.isprintable() for line in str(report).splitlines())
                json.dumps(report.to_json())
        except ValueError as error:
            reason = str(error)
        assert len(reason.splitlines()) == bool(reason), (number, reason)
        outcomes["refused" if reason else "report"] += 1
    assert min(outcomes.values()) > 30


def _harm(model, rng):
    one = rng.choice(model.graph.node)
    names = [name for other in model.graph.node for name in (*other.input, *other.output)]
    match rng.randrange(8):
        case 0:
            one.op_type = rng.choice(["", "Cast", "If", "Pad\x1b[31m", "DepthToSpace", "Clip"])
        case 1:
            del one.input[rng.randrange(len(one.input)) :]
        case 2 if one.input:
            one.input[rng.randrange(len(one.input))] = rng.choice(names)
        case 3:
            del one.output[:]
        case 4 if one.attribute:
            attribute = rng.choice(one.attribute)
            attribute.type = rng.randrange(14)
        case 5:
            one.attribute.append(helper.make_attribute("mode", rng.choice([3, "CRD", [1.5], "é"])))
        case 6:
            one.domain = rng.choice(["com.microsoft", "evil\n" * 30])
        case 7 if len(model.graph.input):
            del model.graph.input[0].type.tensor_type.shape.dim[rng.randrange(4) :]
