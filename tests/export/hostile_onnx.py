"""ONNX files that are valid protobuf with hostile fields."""

from __future__ import annotations

import random

import numpy as np
import onnx
from hostile_values import HUGE, LOCATIONS, OPS, TEXTS
from onnx import TensorProto, helper, numpy_helper


def hostile_onnx(base: bytes, rng: random.Random) -> bytes:
    """Return a model that any protobuf parser reads, with hostile fields."""
    model = onnx.load_model_from_string(base)
    for _ in range(rng.choice((1, 1, 2, 3))):
        rng.choice(ONNX_HARMS)(model, rng)
    return model.SerializeToString()


def _metadata(model: onnx.ModelProto, rng: random.Random) -> None:
    if not model.metadata_props:
        return
    entry = rng.choice(model.metadata_props)
    match rng.randrange(4):
        case 0:
            entry.value = rng.choice(TEXTS)
        case 1:
            entry.key = rng.choice((*TEXTS, "architecture", "scale"))
        case 2:
            model.metadata_props.add(key=entry.key, value=rng.choice(TEXTS))
        case _:
            entry.value = str(rng.choice((*HUGE, 1.5, "1x3x16384x16384", "1x3x1x1", "dynamic")))


def _dims(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(model.graph.initializer)
    if rng.random() < 0.3:
        tensor.dims.extend(rng.choice(HUGE) for _ in range(rng.choice((1, 3, 70))))
    elif tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(HUGE)
    else:
        del tensor.dims[:]


def _shape(model: onnx.ModelProto, rng: random.Random) -> None:
    value = rng.choice((*model.graph.input, *model.graph.output))
    sides = value.type.tensor_type.shape.dim
    match rng.randrange(5):
        case 0:
            for side in sides:
                side.dim_value = rng.choice(HUGE)
        case 1 if sides:
            rng.choice(sides).dim_param = rng.choice(TEXTS)
        case 2:
            del sides[rng.randrange(5) :]
        case 3:
            value.type.tensor_type.elem_type = rng.choice((0, 2, 8, 16, 77, -1, TensorProto.STRING))
        case _:
            sides.add(dim_value=rng.choice(HUGE))


def _nested_type(model: onnx.ModelProto, rng: random.Random) -> None:
    inner = rng.choice((*model.graph.input, *model.graph.output)).type
    for _ in range(rng.choice((1, 3, 90))):
        held = onnx.TypeProto()
        held.CopyFrom(inner)
        if rng.random() < 0.5:
            inner.sequence_type.elem_type.CopyFrom(held)
        else:
            inner.optional_type.elem_type.CopyFrom(held)


def _external(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = TensorProto(name="elsewhere", data_type=TensorProto.FLOAT, dims=[4])
    where = rng.randrange(4)
    if where == 0:
        tensor = rng.choice(model.graph.initializer)
        tensor.ClearField("raw_data")
    tensor.data_location = rng.choice((TensorProto.EXTERNAL, TensorProto.EXTERNAL, 0))
    for key, value in (
        ("location", rng.choice(LOCATIONS)),
        ("offset", str(rng.choice(HUGE))),
        ("length", str(rng.choice((16, *HUGE)))),
    ):
        tensor.external_data.add(key=key, value=value)
    if where == 1:
        model.graph.initializer.append(tensor)
    elif where == 2:
        constant = helper.make_node("Constant", [], ["elsewhere"])
        constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(tensor)
        model.graph.node.insert(0, constant)
    elif where == 3:
        body = helper.make_graph([], "inner", [], [], [tensor])
        node = helper.make_node("If", ["lr"], ["chosen"], then_branch=body, else_branch=body)
        model.graph.node.insert(0, node)


def _cycle(model: onnx.ModelProto, rng: random.Random) -> None:
    first, second = rng.choice(model.graph.node), rng.choice(model.graph.node)
    if first.input and second.output:
        first.input[rng.randrange(len(first.input))] = rng.choice(second.output)


def _op(model: onnx.ModelProto, rng: random.Random) -> None:
    node = rng.choice(model.graph.node)
    node.op_type = rng.choice((*OPS, *TEXTS))
    if rng.random() < 0.3:
        node.domain = rng.choice(("com.microsoft", "ai.onnx", "evil", *TEXTS))


def _attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    nodes = [node for node in model.graph.node if node.attribute]
    if not nodes:
        return
    attribute = rng.choice(rng.choice(nodes).attribute)
    match rng.randrange(5):
        case 0:
            attribute.type = rng.randrange(15)
        case 1:
            attribute.i = rng.choice(HUGE)
            attribute.ints[:] = [rng.choice(HUGE) for _ in range(rng.choice((0, 1, 2, 4, 999)))]
        case 2:
            attribute.s = rng.choice((b"CRD", b"\xff\xfe", b"x" * 99_999))
        case 3:
            attribute.f = rng.choice((float("nan"), float("inf"), -1e30, 0.0))
        case _:
            attribute.name = rng.choice((*TEXTS, "pads", "group", "axis"))


def _names(model: onnx.ModelProto, rng: random.Random) -> None:
    graph = model.graph
    names = [t.name for t in graph.initializer] + [o for n in graph.node for o in n.output]
    match rng.randrange(5):
        case 0:
            rng.choice(graph.initializer).name = rng.choice((*names, *TEXTS))
        case 1:
            node = rng.choice(graph.node)
            node.output[0] = rng.choice((*names, *TEXTS))
        case 2:
            graph.node.append(rng.choice(graph.node))
        case 3:
            rng.choice((*graph.input, *graph.output)).name = rng.choice((*names, *TEXTS))
        case _:
            graph.initializer.append(rng.choice(graph.initializer))


def _dtype(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(model.graph.initializer)
    match rng.randrange(4):
        case 0:
            tensor.data_type = rng.choice((0, 2, 7, 8, 10, 11, 16, 22, 23, 99, -1))
        case 1:
            kind = rng.choice((np.float64, np.int64, np.uint8, np.float16))
            values = np.zeros(tuple(tensor.dims), kind)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        case 2:
            tensor.float_data.extend([1.0, float("nan")])
        case _:
            tensor.string_data.extend([b"x", rng.randbytes(9)])


def _values(model: onnx.ModelProto, rng: random.Random) -> None:
    """Constants that shapes are computed from, and weights that are no numbers."""
    tensor = rng.choice(model.graph.initializer)
    if not tensor.raw_data:
        return
    kinds = {TensorProto.FLOAT: np.float32, TensorProto.INT64: np.int64}
    kind = kinds.get(tensor.data_type, np.uint8)
    values = np.frombuffer(tensor.raw_data, np.uint8).copy()
    width = np.dtype(kind).itemsize
    at = rng.randrange(max(1, len(values) // width)) * width
    number = rng.choice((np.nan, np.inf, 1e30, 0.0) if kind is np.float32 else HUGE)
    with np.errstate(all="ignore"):
        one = np.array([number]).astype(kind)
    values[at : at + width] = one.view(np.uint8)[: len(values[at : at + width])]
    tensor.raw_data = values.tobytes()


def _functions(model: onnx.ModelProto, rng: random.Random) -> None:
    calls = rng.choice((["f0"], ["f1", "f1", "f1"]))
    for name, inner in (("f0", calls), ("f1", ["f0"])):
        nodes = [
            helper.make_node(one, ["a"], [f"b{k}"], domain="own") for k, one in enumerate(inner)
        ]
        ids = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
        model.functions.append(helper.make_function("own", name, ["a"], ["b0"], nodes, ids))
    model.graph.node.append(helper.make_node("f0", ["lr"], ["called"], domain="own"))
    model.opset_import.add(domain="own", version=1)


def _versions(model: onnx.ModelProto, rng: random.Random) -> None:
    match rng.randrange(5):
        case 0:
            model.ir_version = rng.choice((0, 1, 99, *HUGE))
        case 1:
            model.opset_import[0].version = rng.choice((1, 7, 13, 26, 9999, *HUGE))
        case 2:
            model.opset_import[0].domain = rng.choice(TEXTS)
        case 3:
            model.opset_import.add(domain="", version=rng.choice((1, 18, 21)))
        case _:
            del model.opset_import[:]


def _gone(model: onnx.ModelProto, rng: random.Random) -> None:
    part = rng.choice(
        (model.graph.node, model.graph.initializer, model.graph.input, model.graph.output)
    )
    if len(part):
        del part[rng.randrange(len(part))]


def _strange(model: onnx.ModelProto, rng: random.Random) -> None:
    """Parts that no export has: sparse tensors, training, quantization notes, fields unknown."""
    graph = model.graph
    match rng.randrange(5):
        case 0:
            sparse = graph.sparse_initializer.add(dims=[rng.choice(HUGE)])
            sparse.values.CopyFrom(numpy_helper.from_array(np.ones(2, np.float32), "many"))
            sparse.indices.CopyFrom(numpy_helper.from_array(np.array([0, 2**40]), "where"))
        case 1:
            model.training_info.add().initialization.CopyFrom(graph)
        case 2:
            note = graph.quantization_annotation.add(tensor_name="lr")
            note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value=rng.choice(TEXTS))
        case 3:
            # A field that the installed onnx does not know, and another version might.
            raw = model.SerializeToString() + b"\xfa\x7f\x04abcd"
            model.ParseFromString(raw)
        case _:
            graph.value_info.add(name=rng.choice(TEXTS)).type.tensor_type.elem_type = 77


def _bomb(model: onnx.ModelProto, rng: random.Random) -> None:
    """A few bytes that ask for terabytes."""
    sizes = numpy_helper.from_array(np.array([10**6, 10**6]), "sizes")
    model.graph.initializer.append(sizes)
    match rng.randrange(4):
        case 0:
            node = helper.make_node("ConstantOfShape", ["sizes"], ["bomb"])
        case 1:
            scales = np.array([1, 1, 1e5, 1e5], np.float32)
            model.graph.initializer.append(numpy_helper.from_array(scales, "scales"))
            node = helper.make_node("Resize", ["lr", "", "scales"], ["bomb"])
        case 2:
            pads = numpy_helper.from_array(np.array([0] * 6 + [10**6] * 2), "pads")
            model.graph.initializer.append(pads)
            node = helper.make_node("Pad", ["lr", "pads"], ["bomb"])
        case _:
            node = helper.make_node("Expand", ["lr", "sizes"], ["bomb"])
    model.graph.node.insert(0, node)
    if rng.random() < 0.5:
        model.graph.node[1].input[0] = "bomb"


ONNX_HARMS = (
    *(_metadata, _dims, _shape, _nested_type, _external, _external, _cycle, _op, _attribute),
    *(_names, _dtype, _values, _functions, _versions, _gone, _strange, _bomb),
)
