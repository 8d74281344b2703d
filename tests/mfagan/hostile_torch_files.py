"""Files of `torch.save` that are damaged, of other networks or made to harm."""

import io
import os
import pickle
import struct
import zipfile

import torch
from published_files import Net2018, named_2018, named_2019, saved, weights
from torch import nn

STATE = weights()
ZIP = saved(STATE)
LEGACY = saved(STATE, legacy=True)


class Runs:
    """What a reader that runs a pickle would run."""

    def __reduce__(self):
        return os.system, ("touch hostile-code-ran",)


def packed(change=None, *, data=ZIP, method=zipfile.ZIP_STORED, more=()):
    """A zip file of torch's, entry by entry, with its pickle or others changed."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as source,
        zipfile.ZipFile(buffer, "w", method) as target,
    ):
        for entry in source.infolist():
            inside = source.read(entry)
            kept = inside if change is None else change(entry.filename, inside)
            if kept is not None:
                target.writestr(entry.filename, kept)
        for name, inside in more:
            target.writestr(name, inside)
    return buffer.getvalue()


def of_pickle(code):
    """A zip file of torch's whose pickle is this."""
    return packed(lambda name, inside: code if name.endswith("data.pkl") else inside)


def replaced(old, new, data=ZIP):
    def change(name, inside):
        if not name.endswith("data.pkl"):
            return inside
        assert old in inside
        return inside.replace(old, new)

    return packed(change, data=data)


def changed(name, change, **options):
    return saved({**STATE, name: change(STATE[name])}, **options)


def filled(tensor, value=torch.nan):
    tensor = tensor.clone()
    tensor.view(-1)[-1] = value
    return tensor


def widened(first):
    """Weights whose first convolution has other input channels."""
    return {**STATE, "conv_first.weight": torch.zeros(8, first, 3, 3)}


def text(word):
    return b"X" + struct.pack("<I", len(word)) + word


def number(value):
    return b"\x8a\x07" + value.to_bytes(7, "little")


def tensor_code(count, *, key=b"0", kind=b"FloatStorage", shape=(8,), stride=(1,), offset=0):
    """The opcodes of one tensor, whose sizes may be anything."""
    sides = b"".join(b"(" + b"".join(map(number, sizes)) + b"t" for sizes in (shape, stride))
    storage = b"(" + text(b"storage") + b"ctorch\n" + kind + b"\n" + text(key) + text(b"cpu")
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n((" + storage[1:] + number(count) + b"tQ"
        + number(offset) + sides + b"\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip


def one(*arguments, name=b"w", **options):
    code = tensor_code(*arguments, **options)
    return of_pickle(b"\x80\x02}" + text(name) + code + b"s.")


def entries(code):
    return of_pickle(b"\x80\x02}" + code + b".")


FIRST = len(zipfile.ZipFile(io.BytesIO(ZIP)).read("archive/data/0")) // 4
LOCATOR = ZIP.rindex(b"PK\6\7")
LONG = b"\x80\x02" + b"(" * 400_000 + b"."
DOUBLING = b")" + b"".join(b"q\0h\0\x86" for _ in range(200))
SELF = b"}q\0" + text(b"a") + b"h\0s"
LAUGHS = b"}q\0(" + b"".join(text(b"%d" % k) + b"N" for k in range(2000)) + b"u0"
COLLIDING = b"".join(
    b"\x8a\x0a" + ((k + 1) * (2**61 - 1)).to_bytes(10, "little") + b"N" for k in range(100_000)
)
"""Entries whose keys all have one hash: minutes of work for a dictionary."""
PAIRS = b"]q\1(" + text(b"a") + b"N\x86q\2" + b"h\2" * 50_000 + b"e0"
COPIES = b"ccollections\nOrderedDict\nq\0" + b"h\0h\1\x85R0" * 20_000
"""A dictionary made of one long list, again and again."""
BOMB = b"\x80\x02c__builtin__\nbytearray\n" + number(2**36) + b"\x85R."
HUGE_ENTRY = b"\x80\x02X" + struct.pack("<I", 2**31) + b"a"
COMPACT = {
    **{"body.0.weight": torch.zeros(4, 3, 3, 3), "body.0.bias": torch.zeros(4)},
    **{"body.1.weight": torch.zeros(4), "body.2.weight": torch.zeros(48, 4, 3, 3)},
}
JUDGE = {
    **{"features.0.weight": torch.zeros(64, 3, 3, 3), "classifier.0.weight": torch.zeros(100, 32)},
    **{"classifier.2.weight": torch.zeros(1, 100)},
}
ADAM = torch.optim.Adam([nn.Parameter(torch.zeros(2))])

PTH = {
    "empty": (b"", "it is empty"),
    "html": (b"<!DOCTYPE html><html><body>Sign in</body></html>", "it is a web page"),
    "page": (b"\n<HTML>\n" + b" " * 100, "it is a web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
    "text": (b"not a model, but some text\n", "neither a .safetensors file nor one of torch.save"),
    "zeros": (b"\0" * 1000, "neither a .safetensors file nor one of torch.save"),
    "cut-zip": (ZIP[: len(ZIP) // 2], "it is cut short: the directory at its end is missing"),
    "cut-end": (ZIP[:-10], "it is cut short: the directory"),
    "disks": (ZIP[: LOCATOR + 16] + b"\2" + ZIP[LOCATOR + 17 :], "it is cut short or damaged"),
    "cut-pickle": (LEGACY[:3000], "it is cut short"),
    "cut-numbers": (LEGACY[:-5], "it is cut short: its tensors need"),
    "cut-start": (LEGACY[:20], "it is cut short"),
    # Code
    "code": (saved({**STATE, "x": Runs()}), "it holds the Python object posix.system beside its"),
    "code-legacy": (saved({**STATE, "x": Runs()}, legacy=True), "posix.system beside its weights"),
    "code-alone": (pickle.dumps(Runs()), "it is a pickle that torch.save has not written"),
    "code-saved": (saved(Runs()), "it holds one Python object (posix.system) instead of named"),
    "code-inside": (saved({"params": {"a": Runs()}}), "it holds no tensors, but posix.system"),
    "module": (saved(Net2018(2, 1, 2)), "it holds one Python object (published_files.Net2018)"),
    "module-old": (saved(Net2018(2, 1, 2), legacy=True), "one Python object (published_files.Net2"),
    "stack-global": (
        of_pickle(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R."),
        "(os.system)",
    ),
    "instance": (of_pickle(b"\x80\x02(i__builtin__\neval\n."), "INST is nothing that torch.save"),
    "extension": (of_pickle(b"\x80\x02\x82\x01."), "EXT1 is nothing that torch.save writes"),
    # Memory and time
    "bytearray": (of_pickle(BOMB), "it holds one Python object (__builtin__.bytearray)"),
    "string": (of_pickle(HUGE_ENTRY), "cannot be followed"),
    "string-legacy": (LEGACY[:14] + HUGE_ENTRY, "cannot be followed"),
    "steps": (of_pickle(LONG), "it has more than 300,000 steps"),
    "doubling": (entries(DOUBLING + b"Ns"), "it holds no tensors"),
    "itself": (of_pickle(b"\x80\x02" + SELF + b"."), "it holds no tensors"),
    "laughs": (
        entries(LAUGHS + b"".join(text(b"k%d" % k) + b"h\0s" for k in range(2000))),
        "its dictionaries repeat themselves",
    ),
    "hashes": (entries(b"(" + COLLIDING + b"u"), "it holds no tensors"),
    "copies": (of_pickle(b"\x80\2" + PAIRS + COPIES + b"."), "more than 300,000 entries"),
    "names": (
        entries(
            text(b"n" * 1_000_000)
            + b"}q\0("
            + text(b"w")
            + tensor_code(FIRST)
            + b"q\1"
            + b"".join(text(b"%d" % k) + b"h\1" for k in range(9_000))
            + b"us"
        ),
        "one of its names has 1,000,000 letters",
    ),
    "deflated": (packed(method=zipfile.ZIP_DEFLATED), "it is compressed, as torch.save never"),
    "bomb": (
        packed(more=[("archive/data/x", b"\0" * 300_000_000)], method=zipfile.ZIP_DEFLATED),
        "it is compressed",
    ),
    "tensors": (
        entries(
            b"".join(
                text(b"%d" % k) + (b"h\0s" if k else tensor_code(FIRST) + b"q\0s")
                for k in range(10_002)
            )
        ),
        "it has more than 10,000 tensors",
    ),
    # Numbers that are not there
    "huge": (one(2**40), "should have 1099511627776 numbers, F32, and has"),
    "huge-shape": (one(FIRST, shape=(2**40,)), "its tensor 'w' reaches beyond its numbers"),
    "offset": (one(FIRST, offset=FIRST), "its tensor 'w' reaches beyond its numbers"),
    "expanded": (one(FIRST, shape=(9999, 8), stride=(0, 1)), "its tensor 'w' is expanded"),
    "expanded-saved": (changed("conv_body.weight", lambda w: w[:1].expand(8, 8, 3, 3)), "expanded"),
    "expanded-huge": (one(FIRST, shape=(2**47, 2**47), stride=(0, 0)), "'w' is expanded"),
    "key": (one(FIRST, key=b"../../x"), "the numbers of its tensor 'w' are missing"),
    "gone": (
        packed(lambda name, inside: None if name.endswith("data/3") else inside),
        "are missing",
    ),
    "short": (
        packed(lambda name, inside: inside[:-4] if name.endswith("data/3") else inside),
        "should have",
    ),
    "type": (one(FIRST, kind=b"ComplexFloatStorage"), "type torch.ComplexFloatStorage"),
    "shape": (one(FIRST, shape=(2**50,)), "a tensor of impossible shape"),
    "dimensions": (one(FIRST, shape=(1,) * 9, stride=(1,) * 9), "a tensor of impossible shape"),
    "shared": (saved(dict.fromkeys("ab", STATE["conv_first.bias"])), "2 tensors of"),
    "tied": (
        saved({**STATE, "conv_up1.weight": STATE["conv_up2.weight"]}),
        "shares its numbers with another",
    ),
    "crc": (ZIP.replace(STATE["conv_hr.weight"].numpy().tobytes(), b"\0" * 2304), "it is damaged"),
    "big-endian": (
        packed(lambda name, inside: b"big" if name.endswith("byteorder") else inside),
        "its numbers are big-endian",
    ),
    # Other containers
    "zip": (packed(lambda *_: None, more=[("a.txt", b"a")]), "zip file that torch.save has not"),
    "script": (packed(more=[("archive/constants.pkl", b"")]), "it is a TorchScript program"),
    "pickle": (pickle.dumps({"a": 1}), "it is a pickle that torch.save has not written"),
    "list": (saved([STATE]), "it holds one Python object (list) instead of named tensors"),
    "tensor": (saved(torch.zeros(3)), "(Place) instead of named tensors"),
    # Other networks
    "x2plus": (saved({"params_ema": widened(12)}), "an RRDBNet for x2: it takes 12 channels, pix"),
    "x1": (saved(widened(48)), "it is an RRDBNet for x1: it takes 48 channels"),
    "grey": (saved(widened(1)), "it is an RRDBNet for images of 1 channels"),
    "x2-2018": (saved(Net2018(4, 1, 2, 1).state_dict()), "it is an RRDBNet for x2 or x3"),
    "x8-2018": (saved(Net2018(4, 1, 2, 3).state_dict()), "it is an RRDBNet for x8"),
    "x1-2018": (saved(Net2018(4, 1, 2, 0).state_dict()), "it is an RRDBNet for x1"),
    "x2-2019": (
        saved({n: t for n, t in named_2019(STATE).items() if "upconv2" not in n}),
        "it is an RRDBNet for x2; of published files",
    ),
    "srvgg": (saved({"params": COMPACT}), "it is a compact network, SRVGG (realesr-general"),
    "srresnet": (
        saved({"conv_first.weight": torch.zeros(4, 3, 3, 3), "body.0.conv1.weight": torch.ones(1)}),
        "it is an SRResNet",
    ),
    "vgg": (saved({"features.0.weight": torch.zeros(64, 3, 3, 3)}), "it is a VGG network, which"),
    "judge-2018": (saved(JUDGE), "it is a discriminator"),
    "judge": (
        saved({"params": {"conv0_0.weight": torch.ones(1), "linear1.weight": torch.ones(1)}}),
        "it is a discriminator",
    ),
    "judge-unet": (
        saved({"params": {"conv0.weight": torch.ones(1), "conv1.weight_orig": torch.ones(1)}}),
        "it is a discriminator with spectral norm",
    ),
    "other": (saved({"layers.0.x": torch.ones(1)}), "1 tensors of another network, the first is '"),
    "optimizer": (saved(ADAM.state_dict()), "it is an optimizer's state"),
    "state": (saved({"epoch": 1, "iter": 5, "optimizers": [], "schedulers": []}), "training state"),
    "nothing": (saved({}), "it holds no tensors"),
    "escape": (saved({"\x1b[31m\nred": torch.ones(1)}), "the first is '�[31m�red'"),
    # ESRGAN's network, but for one thing
    "missing": (saved({n: t for n, t in STATE.items() if n != "conv_hr.bias"}), "'conv_hr.bias'"),
    "missing-block": (
        saved({n: t for n, t in STATE.items() if not n.startswith("body.0.")}),
        "its first block, 'body.0.rdb1.conv1.weight', is missing",
    ),
    "more": (
        saved({**STATE, "body.0.rdb1.conv1x1.weight": torch.ones(1)}),
        "but has a tensor 'body.0.rdb1.conv1x1.weight' too",
    ),
    "twice": (saved({**STATE, **named_2018(STATE)}), "it has two tensors for one layer"),
    "wide": (
        saved(weights("rrdb_x4_w8_b1_g4") | {"body.70.rdb1.conv1.weight": torch.ones(1)}),
        "blocks must be 1 to 64, got 71",
    ),
    "shapes": (changed("conv_up1.weight", lambda w: w[:4].clone()), "is F32 4x8x3x3, that of"),
    "flat": (changed("conv_first.weight", torch.flatten), "its first convolutions are no convol"),
    "integers": (changed("conv_hr.weight", torch.Tensor.int), "'conv_hr.weight' is I32 8x8x3x3"),
    "nan": (changed("body.1.rdb2.conv3.weight", filled), "'body.1.rdb2.conv3.weight' holds values"),
    "infinite": (changed("conv_hr.bias", lambda t: filled(t, torch.inf), legacy=True), "'conv_hr"),
    "overflow": (
        changed("conv_hr.bias", lambda t: filled(t.double(), 1e300)),
        "'conv_hr.bias' holds values that are not finite",
    ),
}
