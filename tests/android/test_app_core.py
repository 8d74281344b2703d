"""The app's core in Java computes what the Python code does, on the same vectors."""

from __future__ import annotations

import io
import random
import re

import numpy as np
import onnx
import pytest
from PIL import Image, ImageOps

from latency.costs import peak_elements
from mfagan.architecture import op_list, parse
from mfagan.model_card import ModelCard
from mfagan.model_tensors import from_output, to_input
from mfagan.tiling import fixed_tiles, tiles

pytestmark = pytest.mark.debian
NO_END = re.compile("truncated|broken|cannot identify")
NETWORKS = ("mfa_x4_w48_c4-4-4-4_s0-0-0-0", "mfa_x4_w24_c4-3_s0-0", "mfa_x2_w8_c1_s2",
            "mfa_x4_w32_c3-3-2-4_s0-1-1-0", "mfa_x3_w1_c9_s1", "mfa_x4_w256_c1_s0")  # fmt: skip


def spans(plan):
    return [[getattr(rectangle, side) for rectangle in (tile.window, tile.core)
             for side in ("top", "left", "height", "width")] for tile in plan]  # fmt: skip


def outcome(function, *given):
    """Return the plan, or None where the arguments are refused."""
    try:
        return spans(function(*given))
    except ValueError:
        return None


def test_tiles_are_pythons(jvm):
    rng = random.Random(0)
    asked, right = [], []
    for _ in range(300):
        height, width = rng.randint(0, 300), rng.randint(1, 300)
        radius, alignment = rng.randint(0, 40), rng.choice((1, 2, 4, 4, 4))
        given = {"height": height, "width": width, "radius": radius, "alignment": alignment}
        tile = rng.choice((0, 1, 7, 16, 64, 256, 2**31 - 4))
        asked.append({"ask": "tiles", "tile": tile, **given})
        right.append(outcome(tiles, height, width, tile, radius, alignment))
        size = rng.randint(1, 40) * 4, rng.randint(1, 160)
        asked.append({"ask": "fixed", "size": list(size), **given})
        right.append(outcome(fixed_tiles, height, width, size, radius, alignment))
    answers = [None if isinstance(a, dict) else a for a in jvm.ask(*asked)]
    assert answers == right
    assert None in right
    assert sum(plan is not None for plan in right) > 300


STRINGS = (*NETWORKS, "rrdb_x4_w64_b23_g32", "mfa_x4_w257_c1_s0", "mfa_x5_w8_c1_s0", "mfa_x4_w8_c1",
           "mfa_x4_w8_c1-1_s0", "mfa_x4_w8_c9-9-9-9-9-9-9_s0-0-0-0-0-0-0", "mfa_x4_w08_c1_s0",
           "mfa_x4_w8_c1-1-1-1-1-1-1-1-1_s0-0-0-0-0-0-0-0-0", "rrdb_x4_w64_b65_g32", "",
           "x" * 300, "mfa_x4_w8_c1_s0\n", "mfa_x4_w٨_c1_s0", "rrdb_x4_w300_b1_g1",
           "MFA_x4_w8_c1_s0")  # fmt: skip


def test_architectures_are_pythons(jvm):
    answers = jvm.ask(*({"ask": "architecture", "text": text} for text in STRINGS))
    for text, answer in zip(STRINGS, answers, strict=True):
        try:
            a = parse(text)
        except ValueError:
            assert "refused" in answer, text
            continue
        pools = any(getattr(a, "branches", ()))
        assert answer[:4] == [a.scale, a.receptive_radius, a.alignment, pools], text
        peak = peak_elements(op_list(a, 64, 64)) / 64**2
        assert peak <= answer[4], text  # never less than is needed
        assert answer[4] <= 1.7 * peak, text


CHANGES = [
    {}, {"layout": "nhwc"}, {"layout": "nhwc", "shape": "1x48x64x3"}, {"shape": "1x3x48x64"},
    {"shape": "1x3x048x64"}, {"shape": "1x3x-1x64"}, {"shape": "1x3x100000x64"}, {"shape": ""},
    {"layout": "nhwc", "shape": "1x3x48x64"}, {"dtype": "uint8"}, {"precision": "int4"},
    {"dtype": "uint8", "range": "0..255"}, {"range": "0..255"}, {"scale": "2"}, {"scale": "04"},
    {"scale": "4.0"}, {"scale": "9" * 40}, {"scale": "٤"}, {"receptive_radius": "12"},
    {"alignment": "1"}, {"producer": "other 1.0"}, {"producer": "mfagan "}, {"producer": "mfagan"},
    {"checkpoint_sha256": "A" * 64}, {"checkpoint_sha256": "0" * 63}, {"more": "kept"},
    {"architecture": "mfa_x4_w8_c1_s0"}, {"architecture": "a.pth"}, {"layout": "NCHW"},
    {"precision": "int8-a16"}, {"precision": ""}, {"shape": "1x3x48x64\n"},
]  # fmt: skip


def test_cards_are_accepted_and_refused_as_by_python(jvm, metadata):
    cases = [metadata() | change for change in CHANGES]
    cases += [{k: v for k, v in metadata().items() if k != name} for name in metadata()] + [{}]
    answers = jvm.ask(*({"ask": "card", "metadata": case} for case in cases))
    accepted = 0
    for case, answer in zip(cases, answers, strict=True):
        try:
            card = ModelCard.from_metadata(case)
        except ValueError:
            assert answer.get("kind") == "RefusedException", case
            continue
        accepted += 1
        assert answer.get("architecture") == card.architecture, (case, answer)
        told = (answer["precision"], answer["layout"], answer["dtype"], answer["size"])
        size = list(card.size) if card.size else None
        assert told == (card.precision, card.layout, card.dtype, size)
    assert 5 < accepted < len(cases) - 20


def test_what_a_phone_cannot_tile_is_refused(jvm, metadata):
    teacher, small, odd, whole, plain = jvm.ask(
        {"ask": "card", "metadata": metadata("rrdb_x4_w8_b10_g4")},
        {"ask": "card", "metadata": metadata(size=(32, 64))},
        {"ask": "card", "metadata": metadata(size=(50, 64))},
        {"ask": "card", "metadata": metadata(size=(36, 64))},
        {"ask": "card", "metadata": metadata("mfa_x2_w8_c2_s0", size=(11, 13))},
    )
    assert "sees 154 pixels around each pixel, too many" in teacher["refused"]
    assert "multiples of 4 of at least 36" in small["refused"]
    assert "its fixed size of 50x64 cannot tile" in odd["refused"]
    assert (whole["size"], plain["size"]) == ([36, 64], [11, 13])


def test_plans_are_the_models_own(jvm, metadata):
    from mfagan.model import Model

    asked, right = [], []
    for name, size in ((NETWORKS[0], None), (NETWORKS[3], (64, 96)), (NETWORKS[0], (55, 77))):
        model = Model(architecture=parse(name), precision="fp32", size=size, run=lambda lr: lr)
        for height, width in ((300, 41), (64, 200), (1, 1)):
            asked.append({"ask": "plan", "metadata": metadata(name, size=size), "tile": 60,
                          "height": height, "width": width})  # fmt: skip
            right.append(spans(model.plan(height, width, 60)))
    assert jvm.ask(*asked) == right


def pixels_of(image):
    """Return (H, W, 3) bytes as Java's ints, their upper byte at chance."""
    rng = np.random.default_rng(1)
    alpha = rng.integers(0, 256, image.shape[:2]).astype(np.int64) << 24
    values = alpha | (image.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1]))
    return np.where(values >= 1 << 31, values - (1 << 32), values).ravel().tolist()


KINDS = ({}, {"layout": "nhwc"}, {"layout": "nhwc", "dtype": "uint8", "range": "0..255"},
         {"dtype": "uint8", "range": "0..255"})  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(kind.values()) or "nchw")
def test_pixels_become_the_tensors_of_python(jvm, metadata, tmp_path, kind):
    image = np.arange(256 * 3, dtype=np.uint8).reshape(16, 16, 3) ^ 85
    told = metadata(**kind)
    asked = {"ask": "pack", "metadata": told, "pixels": pixels_of(image), "rows": 16,
             "columns": 16, "height": 20, "width": 17, "out": str(tmp_path / "t")}  # fmt: skip
    jvm.ask(asked)
    padded = np.pad(image, ((0, 4), (0, 1), (0, 0)), mode="edge")
    lr = padded.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
    assert (tmp_path / "t").read_bytes() == to_input(lr, ModelCard.from_metadata(told)).tobytes()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(kind.values()) or "nchw")
def test_tensors_become_the_pixels_of_python(jvm, metadata, tmp_path, kind):
    rng = np.random.default_rng(2)
    card = ModelCard.from_metadata(metadata(**kind))
    # Halves between two levels, and their neighbours, are where rounding may differ.
    edges = (np.arange(-3, 259) + np.float32(0.5)).astype(np.float32) / np.float32(255)
    near = np.concatenate([np.nextafter(edges, np.float32(side)) for side in (-9, 9)])
    floats = np.concatenate([edges, near, rng.normal(0.5, 1, 3 * 24 * 32 - 3 * len(edges))])
    sr = floats.astype(np.float32).reshape(1, 3, 24, 32)
    given = to_input(sr, card)
    (tmp_path / "t").write_bytes(given.tobytes())
    (answer,) = jvm.ask({"ask": "unpack", "metadata": card.to_metadata(), "height": 24, "width": 32,
                         "tensor": str(tmp_path / "t"), "part": [3, 5, 20, 27]})  # fmt: skip
    part = from_output(given, card)[0, :, 3:23, 5:32]
    right = np.floor(np.clip(part, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.int64)
    found = np.array(answer, np.int64) & 0xFFFFFFFF
    assert ((found >> 24) == 255).all()
    levels = np.stack([found >> shift & 255 for shift in (16, 8, 0)])
    assert np.array_equal(levels.reshape(3, 20, 27), right)


def test_orientations_are_pillows(jvm):
    rng = np.random.default_rng(3)
    stored = rng.integers(0, 255, (5, 7), np.uint8)
    asked, right = [], []
    for orientation in range(10):
        image = Image.fromarray(stored)
        image.getexif()[274] = orientation
        file = io.BytesIO()
        image.save(file, "png", exif=image.getexif())
        turned = np.array(ImageOps.exif_transpose(Image.open(file)))
        base = {"ask": "turn", "pixels": stored.ravel().tolist(), "height": 5, "width": 7}
        base["orientation"] = orientation
        asked += [base, base | {"part": [1, 2, 3, 2]}]
        right += [[*turned.shape, turned.ravel().tolist()],
                  [*turned.shape, turned[1:4, 2:4].ravel().tolist()]]  # fmt: skip
    assert jvm.ask(*asked) == right


@pytest.mark.parametrize("shape", [(1, 1), (37, 53), (300, 2), (64, 700)])
def test_png_files_are_read_by_pillow(jvm, tmp_path, shape):
    rng = np.random.default_rng(4)
    image = rng.integers(0, 256, (*shape, 3), np.uint8)
    image[: shape[0] // 2] //= 64  # one part noise, one that can be packed
    bands = [shape[0] // 3, 0, shape[0] - shape[0] // 3]
    path = tmp_path / "image.png"
    jvm.ask({"ask": "png", "pixels": pixels_of(image), "height": shape[0], "width": shape[1],
             "bands": bands, "out": str(path)})  # fmt: skip
    with Image.open(path) as opened:
        assert (opened.mode, opened.format) == ("RGB", "PNG")
        assert np.array_equal(np.array(opened), image)
    jvm.ask({"ask": "png", "pixels": pixels_of(image), "height": shape[0], "width": shape[1],
             "bands": bands[:1], "out": str(path)})  # fmt: skip
    with pytest.raises(OSError, match=NO_END), Image.open(path) as opened:
        opened.load()


def test_memory_chooses_the_tile(jvm, metadata):
    wide, much = 4000, 2.0**40
    told = metadata(NETWORKS[0])
    base = {"ask": "budget", "metadata": told, "width": wide}
    powers = (20, 23, 25, 27, 28, 29, 30, 40)
    asked = [base | {"bytes": 2.0**k, "heap": much} for k in powers]
    asked += [base | {"bytes": much, "heap": 2.0**k} for k in powers]
    answers = jvm.ask(*asked)
    for half in (answers[: len(powers)], answers[len(powers) :]):
        chosen = [tile for tile, _, _ in half]
        assert chosen == sorted(chosen)
        assert (chosen[0], chosen[-1]) == (16, 256)
        assert len(set(chosen)) > 2
    for question, (tile, needed, heap) in zip(asked, answers, strict=True):
        assert tile == 16 or (needed <= question["bytes"] and heap <= question["heap"])
    a, side = parse(NETWORKS[0]), 256 + 2 * 20
    assert answers[-1][1] >= 4 * peak_elements(op_list(a, side, side))
    assert answers[-1][2] >= 4 * 16 * 256 * wide + 3 * 4 * 16 * side * side


def test_any_onnx_file_is_read_or_refused(jvm, exported, tmp_path):
    whole = exported["plain"].read_bytes()
    rng = random.Random(5)
    paths = []

    def keep(data):
        path = tmp_path / f"{len(paths)}.onnx"
        path.write_bytes(data)
        paths.append(path)

    for cut in (0, 1, 2, 10, len(whole) // 2, len(whole) - 1, len(whole) - 40):
        keep(whole[:cut])
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 3, 20))):
            data[rng.randrange(len(data) - 900, len(data))] = rng.randrange(256)
        keep(bytes(data))
    keep(b"\x72\xff\xff\xff\xff\x0f")  # an entry that says it has 4 GiB
    keep(b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f")  # a graph that says it has 8 EiB
    keep(b"PK\x03\x04" + bytes(100))
    twice = onnx.load(exported["plain"])
    twice.metadata_props.add(key="scale", value="2")
    keep(twice.SerializeToString())
    bare = onnx.load(exported["plain"])
    del bare.metadata_props[:]
    keep(bare.SerializeToString())
    keep(whole)
    answers = jvm.ask(*({"ask": "card", "path": str(path)} for path in paths))
    accepted = 0
    for path, answer in zip(paths, answers, strict=True):
        try:
            entries = [(e.key, e.value) for e in onnx.load(path).metadata_props]
            assert len(dict(entries)) == len(entries)
            right = ModelCard.from_metadata(dict(entries))
        except Exception:  # onnx's own errors are of many kinds
            right = None
        if "refused" not in answer:
            accepted += 1
            # What Python's reader finds damaged elsewhere, in the graph, is ONNX Runtime's to say.
            assert right is None or answer["architecture"] == right.architecture
        else:
            assert right is None, (path, answer)
            assert answer["kind"] == "RefusedException"
    assert accepted >= 1
    assert "says the same thing twice" in answers[-3]["refused"].replace("say ", "says ")
    assert "carries no mfagan metadata" in answers[-2]["refused"]
    assert answers[-1]["architecture"] == "mfa_x2_w8_c2_s0"


def test_every_shipped_model_is_accepted(jvm):
    from mfagan.shipped import names, shipped

    files = {(name, kind): file.path for name in names() for kind, file in
             shipped(name).files.items() if kind != "weights"}  # fmt: skip
    assert {kind for _, kind in files} >= {"fp32", "int8"}
    answers = jvm.ask(*({"ask": "card", "path": str(path)} for path in files.values()))
    for (name, kind), answer in zip(files, answers, strict=True):
        assert answer.get("architecture") == shipped(name).architecture, answer
        assert answer["precision"] == kind


def test_what_is_exported_for_the_app_is_accepted_by_it(jvm, weights, tmp_path):
    from export import cli

    app = tmp_path / "models"
    for words in (("--uint8",), ("--input", "64x48")):
        argv = [str(weights("mfa_x4_w8_c1-2_s1-2")), *words, "--threads", "1"]
        assert cli.main([*argv, "--out", str(tmp_path / "out"), "--for-app", str(app)]) == 0
        paths = sorted(app.glob("*.onnx"))
        assert paths
        for answer in jvm.ask(*({"ask": "card", "path": str(path)} for path in paths)):
            assert answer["architecture"] == "mfa_x4_w8_c1-2_s1-2"
