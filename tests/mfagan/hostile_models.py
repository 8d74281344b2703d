"""Model files that are damaged, foreign or made to harm, and a clause of what is said of each."""

import json
import struct

import numpy as np
import published_files as published
import torch
from hostile_torch_files import PTH
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save

from mfagan.about import About
from mfagan.architecture import ESRGAN, parse
from mfagan.checkpoint import build_network
from mfagan.model_card import ModelCard
from mfagan.space import SearchSpace
from mfagan.weights_header import MOST_HEADER

NAME = "mfa_x2_w4_c1_s0"
WIDE = "mfa_x4_w256_c9-9-9-9-9-9_s0-0-0-0-0-0"
SPACE = SearchSpace(widths=(4, 6), modules=(1, 2), convolutions=(2,), branches=(0, 1))


def weights():
    torch.manual_seed(0)
    return build_network(parse(NAME)).state_dict()


def about(**changes):
    header = About(kind="generator", architecture=NAME).to_metadata() | changes
    return {key: value for key, value in header.items() if value is not None}


def filed(tensors=None, **changes):
    return save(weights() if tensors is None else tensors, about(**changes))


def with_header(header, data=b""):
    """A file of any header: a text, or what JSON is made of."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype="F32", shape=(1,), begin=0, end=4, **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]} | more


def one(entry, data=b"\0" * 4):
    return with_header({"__metadata__": about(), "w": entry}, data)


def changed(name, change):
    tensors = weights()
    tensors[name] = change(tensors[name])
    return filed(tensors)


def filled(value):
    def fill(tensor):
        tensor = tensor.clone()
        tensor.view(-1)[-1] = value
        return tensor

    return fill


GOOD = filed()
LENGTH = struct.unpack("<Q", GOOD[:8])[0]
NEST = "[" * 100_000

SAFETENSORS = {
    "empty": (b"", "it is empty"),
    "seven": (b"\x10" + b"\0" * 6, "it is neither a .safetensors file nor one of"),
    "length-63": (struct.pack("<Q", 2**63) + b"{}", "it is cut short"),
    "length-64": (b"\xff" * 8 + b"{" * 100, "it is cut short"),
    "length-1": (struct.pack("<Q", len(GOOD)) + GOOD[8:], "it is cut short"),
    "cut-header": (GOOD[:100], "it is cut short"),
    "cut-weights": (GOOD[:-9], "it is cut short: its tensors need"),
    "long": (GOOD + b"\0", "1 bytes that belong to no tensor"),
    "spaces": (with_header(b"{" + b" " * 90_000_000), f"at most {MOST_HEADER} are read"),
    "json": (with_header(b'{"a":'), "its header is not JSON"),
    "utf-8": (with_header(b'{"\xff":1}'), "its header is not UTF-8"),
    "list": (with_header(b"[]"), "it is neither a .safetensors file nor one of torch.save"),
    "digits": (with_header(b'{"a":' + b"9" * 10_000 + b"}"), "not a weights file that mfagan"),
    "nested": (with_header(f'{{"a":{NEST}'.encode()), "nested too deeply"),
    "metadata": (with_header({"__metadata__": {"a": 1}}), "its metadata are not text by text"),
    "twice": (
        with_header(b'{"a":{"dtype":"F32"},"a":{"dtype":"F32"}}'),
        "says the same thing twice",
    ),
    "entry": (one("F32"), "its entry 'w' is not a tensor"),
    "dtype": (one(tensor("F3")), "unknown type, F3"),
    "dtype-list": (one(tensor(["F32"])), "unknown type, ['F32']"),
    "negative": (one(tensor(shape=(-1,))), "impossible shape or place"),
    "shape": (one(tensor(shape=(1.5,))), "impossible shape or place"),
    "offsets": (one(tensor(begin=-4, end=0)), "impossible shape or place"),
    "huge": (one(tensor(shape=(10**12,))), "says 1000000000000 F32 and holds 4 bytes"),
    "huge-consistent": (one(tensor(shape=(10**12,), end=4 * 10**12)), "it is cut short"),
    "overlap": (
        with_header({"__metadata__": about(), "a": tensor(), "b": tensor()}, b"\0" * 4),
        "overlap or leave gaps",
    ),
    "gap": (one(tensor(begin=4, end=8), b"\0" * 8), "overlap or leave gaps"),
    # Other programs' files
    "zip": (b"PK\x03\x04" + b"\0" * 40, "it is cut short: the directory"),
    "pickle": (b"\x80\x02}q\x00.", "it is a pickle that torch.save has not written"),
    "onnx": (b"\x08\x0a\x12\x07pytorch", "it is an ONNX file"),
    "foreign": (
        save({"x.y": torch.zeros(1)}, {"format": "pt"}),
        "another network, the first is 'x.y'",
    ),
    "esrgan": (
        save({**published.weights(), "conv_hr.weight": torch.zeros(8, 8, 1, 1)}),
        "its tensor 'conv_hr.weight' is F32 8x8x1x1, that of rrdb_x4_w8_b2_g4 has floating-point",
    ),
    # Metadata that lie
    "newer": (filed(format="7"), "its format is 7, this version reads up to 1; update mfagan"),
    "format": (filed(format="²"), "its format is ², this version reads up to 1"),
    "format-digits": (filed(format="9" * 5000), "its format is 999"),
    "kind": (filed(kind="\x1b[31m\nred"), "its kind is '�[31m�red'"),
    "step": (filed(step="1e9"), "its step must be a whole number"),
    "metrics-nested": (filed(metrics=NEST), "its metrics are not JSON"),
    "metrics-list": (filed(metrics="[1]"), "its metrics are not a JSON object"),
    "metrics-text": (filed(metrics='{"psnr": "high"}'), "its metric 'psnr' is not a number"),
    "metrics-digits": (filed(metrics='{"psnr":' + "9" * 99 + "}"), "'psnr' is not a number"),
    "configuration": (filed(configuration="7"), "its configuration are not a JSON object"),
    "configuration-nested": (
        filed(configuration='{"a":' + "[" * 500 + "]" * 500 + "}"),
        "of at most 16 levels",
    ),
    "supernet-without": (filed(kind="supernet"), "but it has no search space"),
    "space-without": (filed(space=SPACE.to_json()), "but it has a search space"),
    "space-other": (filed(kind="supernet", space=SPACE.to_json()), "does not hold mfa_x2_w4"),
    "space-nested": (filed(kind="supernet", space=NEST), "not a search space"),
    "space-text": (
        filed(kind="supernet", space=SPACE.to_json().replace("[4, 6]", '["4"]')),
        "widths must be whole numbers",
    ),
    "space-wide": (
        filed(
            kind="supernet",
            space=SearchSpace().to_json().replace("[16, 24, 32, 40, 48]", str([*range(1, 257)])),
        ),
        "at most 100,000 are allowed",
    ),
    "supernet-huge": (
        filed(
            kind="supernet",
            architecture="mfa_x4_w4_c1_s0",
            space=json.dumps(
                {"scale": 4, "widths": [4, 256], "modules": [1, 6]}
                | {"convolutions": [1, 9], "branches": [0]}
            ),
        ),
        "do not fit the network",
    ),
    "grammar": (filed(architecture="mfa_x4_w99999_c1_s0"), "the grammar is"),
    "wide": (filed(architecture="mfa_x4_w9999_c1_s0"), "width must be 1 to 256"),
    "modules": (
        filed(architecture=f"mfa_x4_w4_c{'-'.join('1' * 10**5)}_s0"),
        "characters, more than any",
    ),
    "heavy": (filed(architecture=WIDE), "do not fit the network"),
    "teacher": (filed(kind="teacher", architecture=str(ESRGAN)), "do not fit the network"),
    "teachers-tensors": (
        filed(build_network(parse("rrdb_x4_w4_b1_g4")).state_dict()),
        "do not fit the network",
    ),
    "discriminator": (filed(kind="discriminator"), "holds a discriminator"),
    # Weights that lie
    "names": (
        filed({f"{name}x": value for name, value in weights().items()}),
        "'body.bias' and 9 more are missing",
    ),
    "transposed": (changed("head.weight", lambda w: w.transpose(0, 1).contiguous()), "F32 3x4x3x3"),
    "half": (changed("head.weight", torch.Tensor.half), "'head.weight' is F16 4x3x3x3 instead of"),
    "bfloat": (changed("head.weight", torch.Tensor.bfloat16), "is BF16"),
    "integers": (changed("head.weight", torch.Tensor.int), "is I32"),
    "nan": (
        changed("body.bias", filled(torch.nan)),
        "'body.bias' holds values that are not finite",
    ),
    "infinite": (changed("body.bias", filled(-torch.inf)), "holds values that are not finite"),
}


def network_onnx(change=None, *, opset=18, out="sr", size=None):
    """The ONNX file of NAME, node by node as the architecture says."""
    rng = np.random.default_rng(0)

    def conv(name, source, to, channels, kernel=3):
        shape = (channels[1], channels[0], kernel, kernel)
        tensors[name] = rng.normal(0, 0.1, shape).astype(np.float32)
        return helper.make_node("Conv", [source, name], [to], pads=[kernel // 2] * 4)

    tensors = {"channels": np.arange(3).repeat(4)}
    nodes = [
        conv("w0", "lr", "head", (3, 4)),
        conv("w1", "head", "a", (4, 4)),
        helper.make_node("Relu", ["a"], ["h"]),
        conv("w2", "h", "p", (4, 4), 1),
        helper.make_node("Add", ["p", "head"], ["m"]),
        conv("w3", "m", "b", (4, 4)),
        helper.make_node("Add", ["b", "head"], ["c"]),
        conv("w4", "c", "t", (4, 12)),
        helper.make_node("Gather", ["lr", "channels"], ["repeated"], axis=1),
        helper.make_node("Add", ["t", "repeated"], ["s"]),
        helper.make_node("DepthToSpace", ["s"], [out], blocksize=2, mode="CRD"),
    ]
    metadata = ModelCard.of(
        NAME, precision="fp32", size=size, checkpoint_sha256="0" * 64
    ).to_metadata()
    if change is not None:
        change(nodes, tensors, metadata)
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, *sides))
        for name, sides in (("lr", size or ("h", "w")), ("sr", (None, None)))
    ]
    stored = [
        value if isinstance(value, TensorProto) else numpy_helper.from_array(value, name)
        for name, value in tensors.items()
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    helper.set_model_props(made, metadata)
    return made.SerializeToString()


def before_head(kind, *inputs, domain="", constants=(), **attributes):
    """Put a node between the input and the first convolution."""

    def change(nodes, tensors, _):
        for later in nodes:
            later.input[:] = ["z" if name == "lr" else name for name in later.input]
        nodes.insert(0, helper.make_node(kind, ["lr", *inputs], ["z"], domain=domain, **attributes))
        tensors.update(constants)

    return network_onnx(change)


def aside(*new, constants=()):
    """Add nodes that nothing reads."""

    def change(nodes, tensors, _):
        nodes.extend(new)
        tensors.update(constants)

    return network_onnx(change)


def card(**changes):
    return network_onnx(lambda *parts: parts[2].update(changes))


def constant(name, value):
    return network_onnx(lambda *parts: parts[1].update({name: value}))


def external(where):
    tensor = TensorProto(name="w0", data_type=TensorProto.FLOAT, dims=[4, 3, 3, 3])
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", where
    return tensor


INNER = helper.make_graph([helper.make_node("Identity", ["lr"], ["i"])], "inner", [], [])
WHOLE = network_onnx()
HUGE = np.array([10**6, 10**6])

ONNX = {
    "empty": (b"", "it is empty"),
    "text": (b"not a model\n", "is not an ONNX file, or is damaged"),
    "half": (WHOLE[: len(WHOLE) // 2], "is damaged"),
    "safetensors": (GOOD, "it is a .safetensors file"),
    "zip": (b"PK\x03\x04" + b"\0" * 40, "it is a PyTorch file or another zip file"),
    "external": (constant("w0", external("/etc/passwd")), "external data"),
    "external-parent": (constant("w0", external("../secret")), "external data"),
    "fill": (
        aside(helper.make_node("ConstantOfShape", ["n"], ["z"]), constants={"n": HUGE}),
        "its op ConstantOfShape is in no network of mfagan",
    ),
    "expand": (before_head("Expand", "n", constants={"n": HUGE}), "its op Expand is in no"),
    "tile": (before_head("Tile", "n", constants={"n": HUGE}), "its op Tile is in no"),
    "loop": (before_head("Loop", body=INNER), "its op Loop is in no"),
    "branch": (before_head("If", then_branch=INNER), "its op If is in no"),
    "domain": (before_head("Evil", domain="evil.library"), "its op evil.library.Evil is in no"),
    "resize": (
        before_head("Resize", "", "n", constants={"n": np.float32([1, 1, 1e5, 1e5])}),
        "would make",
    ),
    "resize-small": (
        before_head("Resize", "", "n", constants={"n": np.float32([1, 1, 2, 2])}),
        "op 1 is resize (3, 74, 82) instead of conv (4, 37, 41)",
    ),
    "pad": (
        before_head("Pad", "n", constants={"n": np.array([0] * 6 + [10**5] * 2)}),
        "op 1 is pad (3, 100037, 100041) instead of conv",
    ),
    "product": (
        aside(
            helper.make_node("Mul", ["column", "row"], ["z"]),
            constants={
                n: np.ones(s, np.float32) for n, s in (("column", (9999, 1)), ("row", 9999))
            },
        ),
        "make far more values",
    ),
    "other": (card(architecture="mfa_x2_w5_c1_s0"), "its graph is not mfa_x2_w5_c1_s0: op 1 is"),
    "precision": (card(precision="int8"), "its metadata say int8, its graph is not quantized"),
    "size": (card(shape="1x3x8x8"), "its metadata say shape 1x3x8x8, its input is"),
    "opset": (network_onnx(opset=4000), "needs opset 4000"),
    "output": (network_onnx(out="y"), "is not an ONNX file of mfagan"),
    "nan": (constant("w0", np.full((4, 3, 3, 3), np.nan, np.float32)), "'w0' holds values that"),
    "twice": (
        network_onnx(lambda *parts: parts[0].insert(1, parts[0][0])),
        "'head' is written twice",
    ),
    "fixed-huge": (network_onnx(size=(99999, 99999)), "at most 16384x16384"),
}
FILES = {
    f"{name}.{suffix}": made
    for suffix, kinds in (("safetensors", SAFETENSORS), ("onnx", ONNX), ("pth", PTH))
    for name, made in kinds.items()
}
