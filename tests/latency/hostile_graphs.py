"""ONNX files made to exhaust memory or to read elsewhere, and a clause of what is said of each."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from latency.onnx_wire import MOST_FIELDS


def sizes(*values):
    return np.array(values, np.int64)


def model(nodes=(), constants=(), *, shape=(1, 3, "h", "w"), source="x", opset=18, functions=()):
    """A convolution of the image, after any other nodes."""
    weights = [("weight", np.ones((4, 3, 3, 3), np.float32)), *constants]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    last = helper.make_node("Conv", [source, "weight"], ["y"], pads=[1] * 4)
    tensors = [
        value if isinstance(value, TensorProto) else numpy_helper.from_array(value, name)
        for name, value in weights
    ]
    graph = helper.make_graph([*nodes, last], "g", [image], [output], tensors)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10)


def external(name="secret", where="/etc/passwd"):
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", where
    return tensor


def node(kind, *inputs, out="z", **attributes):
    return helper.make_node(kind, inputs, [out], **attributes)


def subgraph(*nodes, tensors=()):
    output = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    return helper.make_graph(list(nodes), "inner", [], [output], tensors)


def looped(inner):
    return node("Loop", "", "true", body=subgraph(inner))


def function(name, *nodes):
    return helper.make_function(
        "own", name, ["a"], ["z"], list(nodes), [helper.make_opsetid("", 18)]
    )


def lying(**fields):
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "c")
    for field, value in fields.items():
        if field == "dims":
            del tensor.dims[:]
            tensor.dims.extend(value)
        else:
            setattr(tensor, field, value)
    return model(constants=[("c", tensor)])


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def amplified(body):
    """A file whose bytes become many times as many in memory."""
    return b"\x08\x0a" + field(7, body)


def deep(levels):
    """A branch in a branch in a branch."""
    body = field(1, b"")
    for _ in range(levels):
        body = field(1, field(5, field(6, body)))
    return amplified(body)


def unnamed(change):
    made = model([node("Relu", "x")], source="z")
    change(made)
    return made


def doubled(step):
    before = f"z{step}" if step else "weight"
    return node("Concat", before, before, axis=0, out=f"z{step + 1}")


def laughs():
    """Functions of ten calls of the next one, twelve deep: 10^12 nodes."""
    functions = [function("f12", node("Relu", "a"))]
    for level in range(11, -1, -1):
        calls = [
            helper.make_node(f"f{level + 1}", ["a"], [f"b{i}"], domain="own") for i in "012345678"
        ]
        last = helper.make_node(f"f{level + 1}", ["a"], ["z"], domain="own")
        functions.append(function(f"f{level}", *calls, last))
    return model([node("f0", "x", domain="own")], source="z", functions=functions)


BILLION = sizes(10**6, 10**6)
TOO_MUCH = "make far more values"
ENLARGED = np.array([1, 1, 1e7, 1e7], np.float32)
NUMBERS = [("a", np.array(0)), ("b", np.array(10**12)), ("c", np.array(1))]
WHOLE = model().SerializeToString()
TRUE = ("true", np.array(True))
COLUMN = ("column", np.ones((2**14, 1), np.float32))
ROW = ("row", np.ones((1, 2**14), np.float32))

SENTENCES = {
    # What is no ONNX file
    "empty": (b"", "it is empty"),
    "text": (b"not a model\n", "is not an ONNX file, or is damaged"),
    "zeros": (b"\0" * 4096, "is not an ONNX file, or is damaged"),
    "safetensors": (b"\x40" + b"\0" * 7 + b'{"a":1}' + b" " * 57, "it is a .safetensors file"),
    "pickle": (b"\x80\x04\x95\x10\0\0\0", "it is a PyTorch file or another pickle"),
    "picture": (b"\x89PNG\r\n\x1a\n" + b"\0" * 20, "it is a picture"),
    "utf-8": (
        WHOLE.replace(field(2, b"g"), field(2, b"\xff")),
        "is not an ONNX file, or is damaged",
    ),
    "no-graph": (b"\x08\x0a", "it holds no graph"),
    # Weights elsewhere
    "external": (model(constants=[("", external())]), "external data"),
    "external-parent": (model(constants=[("", external(where="../x"))]), "external data"),
    "external-constant": (model([node("Constant", value=external())]), "external data"),
    "external-branch": (
        model(
            [node("If", "true", then_branch=subgraph(node("Identity", "x"), tensors=[external()]))],
            [TRUE],
        ),
        "external data",
    ),
    "external-loop": (model([looped(node("Constant", value=external()))], [TRUE]), "external data"),
    "external-function": (
        model(functions=[function("f", node("Constant", value=external()))]),
        "external data",
    ),
    "external-sparse": (
        unnamed(
            lambda m: m.graph.sparse_initializer.add(
                values=external(), indices=numpy_helper.from_array(sizes(0)), dims=[9]
            )
        ),
        "external data",
    ),
    # Tensors that lie
    "huge": (lying(dims=[10**6, 10**6]), r"says 1000000x1000000 FLOAT and holds 16 bytes"),
    "negative": (lying(dims=[-4]), "negative dimension"),
    "short": (lying(raw_data=b"123"), "says 4 FLOAT and holds 3 bytes"),
    "long": (lying(raw_data=b"1" * 99), "says 4 FLOAT and holds 99 bytes"),
    "type": (lying(data_type=77), "unknown type, 77"),
    "axes": (lying(dims=[1] * 99), "99 dimensions"),
    # Graphs that are none
    "cycle": (model([node("Relu", "b"), node("Relu", "z", out="b")], source="b"), "reads 'b'"),
    "twice": (model([node("Relu", "x"), node("Relu", "x")], source="z"), "written twice"),
    "nul": (model([node("Relu", "a\0b")], source="z"), "reads 'a�b', which nothing writes"),
    "no-inputs": (model([helper.make_node("Relu", [], ["z"])], source="z"), "Relu"),
    "opset-high": (model(opset=9999), "needs opset 9999, the installed onnx knows 1 to"),
    "opset-low": (model(opset=-1), "needs opset -1"),
    "foreign-op": (model([node("Evil", "x", domain="evil")], source="z"), "evil.Evil"),
    "random": (model([node("RandomNormal", shape=[10**6, 10**6])]), "RandomNormal"),
    "endless": (
        model([looped(node("Identity", "x"))], [TRUE]),
        "no known class: Loop",
    ),
    # Graphs of a few bytes that ask for terabytes as soon as they are loaded
    "fields": (amplified(b"\x0a\x00" * (MOST_FIELDS + 9)), "500,000 fields"),
    "attributes": (amplified(field(1, b"\x2a\x00" * (MOST_FIELDS + 9))), "500,000 fields"),
    "integers": (
        amplified(field(1, field(5, field(8, b"\x01" * 20 * MOST_FIELDS)))),
        "500,000 fields",
    ),
    "deep": (deep(500), "is not an ONNX file, or is damaged"),
    "recursion": (
        model(
            [node("f", "x", domain="own")],
            source="z",
            functions=[function("f", node("f", "a", domain="own"))],
        ),
        "functions that call themselves",
    ),
    "laughs": (laughs(), "functions that call themselves, or more than 50,000 nodes"),
    "fill": (model([node("ConstantOfShape", "n")], [("n", BILLION)]), TOO_MUCH),
    "range": (
        model([node("Range", "a", "b", "c")], NUMBERS),
        TOO_MUCH,
    ),
    "expand": (model([node("Expand", "weight", "n")], [("n", sizes(10**9, 1, 1, 1, 1))]), TOO_MUCH),
    "tile": (model([node("Tile", "weight", "n")], [("n", sizes(10**9, 1, 1, 1))]), TOO_MUCH),
    "pad": (model([node("Pad", "weight", "n")], [("n", sizes(*[10**4] * 8))]), TOO_MUCH),
    "resize": (
        model([node("Resize", "weight", "", "s")], [("s", ENLARGED)]),
        TOO_MUCH,
    ),
    "product": (model([node("Mul", "column", "row")], [COLUMN, ROW]), TOO_MUCH),
    "gather": (
        model([node("Gather", "row", "n", axis=0)], [ROW, ("n", np.zeros(2**14, np.int64))]),
        TOO_MUCH,
    ),
    "doubling": (model([doubled(i) for i in range(40)]), TOO_MUCH),
    "enlarged": (
        model([node("Resize", "x", "", "s")], [("s", ENLARGED)], source="z"),
        "more than any machine holds",
    ),
    "input": (model(shape=(1, 3, 10**9, 10**9)), "at most 16384x16384, got 1000000000x"),
    "channels": (model(shape=(1, 10**9, 8, 8)), "at most 1024 channels"),
}
