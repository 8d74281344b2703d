"""Model files with hostile fields: valid protobuf or safetensors, and what is damaged by the byte.

Every case follows from its number alone, so that one that fails can be made again.
"""

from __future__ import annotations

import json
import random
import struct

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

KINDS = ("onnx-fields", "safetensors-fields", "onnx-bytes", "safetensors-bytes")
HUGE = (0, 1, -1, 2**15, 2**31 - 1, 2**31, 2**40, 2**63 - 1, -(2**63))
TEXTS = (
    "",
    "\0",
    "lr",
    "sr",
    "/etc/passwd",
    "../outside/secret.bin",
    "\x1b[31mred\n\r",
    "‮left",
    "a" * 300_000,
    "%s%n{0}${x}",
    "9" * 5000,
    "NaN",
    "mfa_x4_w99999_c9-9_s0-0",
    "mfa_x4_w8_c1-2_s1-2\n",
    "mfa_x0_w0_c0_s0",
    "rrdb_x4_w64_b23_g32",
    "patchgan_n3_f16",
)
OPS = (
    *("If", "Loop", "Scan", "Evil", "", "ConstantOfShape", "Expand", "Tile", "RandomNormal"),
    *("Resize", "Pad", "Conv", "DepthToSpace", "Gather", "QuantizeLinear", "Range", "Einsum"),
    *("Concat", "Mod", "Div", "Reshape", "SequenceAt", "StringConcat", "DequantizeLinear"),
)
LOCATIONS = (
    "/etc/passwd",
    "../outside/secret.bin",
    "./../outside/secret.bin",
    "inside/../../outside/secret.bin",
    "link.bin",
    "secret.bin",
    "/dev/zero",
    "*/_ORT_MEM_ADDR_/*",
)


def case(kind: str, number: int, bases: dict[str, bytes]) -> bytes:
    """Return the bytes of a hostile file.

    Args:
        kind: of `KINDS`.
        number: of the case.
        bases: intact files by name; those of the kind's format are changed.
    """
    rng = random.Random(f"{kind} {number}")
    form, way = kind.split("-")
    base = bases[rng.choice(sorted(name for name in bases if name.endswith(f".{form}")))]
    if way == "bytes":
        return damaged(base, rng)
    return hostile_onnx(base, rng) if form == "onnx" else hostile_safetensors(base, rng)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Flip, overwrite, cut, splice, repeat or swap bytes, half of them where the structure is."""
    out = bytearray(data)
    reach = min(len(out), rng.choice((len(out), 4096, 64)))
    a, b, c = sorted(rng.randrange(reach) for _ in range(3))
    match rng.randrange(8):
        case 0:
            for _ in range(rng.choice((1, 1, 3, 30))):
                out[rng.randrange(reach)] ^= 1 << rng.randrange(8)
        case 1:
            del out[a:]
        case 2:
            out[a : a + 8] = out[b : b + 8]
        case 3:
            del out[a:b]
        case 4:
            out[a:a] = out[a:b] * rng.choice((1, 2, 50))
        case 5:
            out[a:c] = out[b:c] + out[a:b]
        case 6:
            out[a : a + 10] = rng.choice((b"\xff" * 10, bytes(10), b"\x80" * 10, rng.randbytes(10)))
        case _:
            out += rng.choice((bytes(9), rng.randbytes(99), data[:a]))
    return bytes(out)


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


def hostile_safetensors(base: bytes, rng: random.Random) -> bytes:
    """Return a file of the format's structure, with a hostile header."""
    length = struct.unpack("<Q", base[:8])[0]
    header, data = json.loads(base[8 : 8 + length]), base[8 + length :]
    for _ in range(rng.choice((1, 1, 2))):
        data = rng.choice(HEADER_HARMS)(header, data, rng)
    text = json.dumps(header, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    match rng.randrange(12):
        case 0:
            text = text[:-1] + b"," + text[1:]  # everything twice
        case 1:
            text += b" " * rng.choice((1, 8, 2_000_000))
        case 2:
            told = rng.choice((0, 1, len(text) - 1, len(text) + 1, *HUGE[3:8], 2**64 - 1))
            return struct.pack("<Q", told % 2**64) + text + data
    return struct.pack("<Q", len(text)) + text + data


def _about(header: dict, data: bytes, rng: random.Random) -> bytes:
    metadata = header.get("__metadata__", {})
    key = rng.choice(sorted(metadata) or ["architecture"])
    match rng.randrange(6):
        case 0:
            metadata[key] = rng.choice(TEXTS)
        case 1:
            metadata[key] = rng.choice((1, None, [], {"a": {}}, 1e999, True))
        case 2:
            metadata.pop(key, None)
        case 3:
            metadata["architecture"] = rng.choice(
                ("mfa_x4_w256_c9-9-9_s0-0-0", "mfa_x2_w8_c1-2_s1-2", "rrdb_x4_w8_b2_g4", *TEXTS)
            )
        case 4:
            metadata["kind"] = rng.choice(("supernet", "teacher", "discriminator", *TEXTS))
        case _:
            metadata[rng.choice(("space", "metrics", "configuration"))] = rng.choice(
                ("[" * 5000, "{}", "null", '{"a":1e999}', "[1,2]", '{"scale":-1}', *TEXTS)
            )
    header["__metadata__"] = metadata
    return data


def _tensor(header: dict, rng: random.Random) -> tuple[str, dict]:
    name = rng.choice(sorted(key for key in header if key != "__metadata__"))
    return name, header[name]


def _offsets(header: dict, data: bytes, rng: random.Random) -> bytes:
    _, entry = _tensor(header, rng)
    if not isinstance(entry, dict):
        return data
    begin, end = (*entry.get("data_offsets", ()), 0, 0)[:2]
    entry["data_offsets"] = rng.choice(
        (
            [end, begin], [begin - 1, end - 1], [begin + 4, end + 4], [0, end], [begin],
            [begin, end, end], [rng.choice(HUGE), rng.choice(HUGE)], [0.5, 4], "0,4", None,
            [[0], [4]], {},
        )
    )  # fmt: skip
    return data


def _entry(header: dict, data: bytes, rng: random.Random) -> bytes:
    name, entry = _tensor(header, rng)
    if not isinstance(entry, dict):
        return data
    shape = entry.get("shape", [])
    match rng.randrange(8):
        case 0:
            entry["dtype"] = rng.choice(("F64", "F16", "BF16", "I8", "BOOL", "Q4", "", 1, None))
        case 1:
            entry["shape"] = [rng.choice(HUGE) for _ in range(rng.choice((0, 1, 4, 99)))]
        case 2 if isinstance(shape, list):
            entry["shape"] = shape[::-1]
        case 3:
            entry["shape"] = rng.choice((None, {}, "4", [True], [1.0], [[4]], [10**400]))
        case 4:
            entry["more"] = rng.choice(TEXTS)
        case 5:
            header[name] = rng.choice((None, [], 0, "F32", {}))
        case 6:
            header[rng.choice((*TEXTS, "tail.weight"))] = header.pop(name)
        case _:
            del header[name]
    return data


def _gap(header: dict, data: bytes, rng: random.Random) -> bytes:
    """Move everything behind a place, or let two tensors be one."""
    place, by = rng.randrange(max(1, len(data))), rng.choice((-4, -1, 1, 4, 400))
    for entry in header.values():
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if isinstance(offsets, list) and all(type(n) is int for n in offsets):
            entry["data_offsets"] = [n + by if n > place else n for n in offsets]
    return data[:place] + bytes(max(0, by)) + data[place - min(0, by) :]


def _weights(_header: dict, data: bytes, rng: random.Random) -> bytes:
    """Numbers that are none, or far too large."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 5))):
        at = rng.randrange(max(1, len(out) // 4)) * 4
        out[at : at + 4] = struct.pack("<f", rng.choice((np.nan, np.inf, 3e38, -3e38)))
    return bytes(out[: len(data)])


def _many(header: dict, data: bytes, rng: random.Random) -> bytes:
    for k in range(rng.choice((1, 500, 20_000))):
        header[f"extra.{k}"] = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return data


HEADER_HARMS = (_about, _about, _about, _offsets, _entry, _entry, _gap, _weights, _many)
