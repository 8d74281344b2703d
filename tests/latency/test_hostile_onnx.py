"""ONNX files made to exhaust memory, to read elsewhere, or merely damaged: one sentence each.

Run as a program it loads every file of a folder and says what came of it, so that one process tells
how much memory all of them took.
"""

import io
import json
import os
import random
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hostile_graphs import SENTENCES, TOO_MUCH, WHOLE, function, model, node, sizes
from onnx import helper

from latency import from_onnx, onnx_ops
from latency.host import measure
from latency.onnx_model import load_onnx, model_input
from latency.onnx_ops import check_memory
from latency.onnx_values import TooLargeError

MOST_MEMORY = 64 * 2**20
SIZE = (16, 16)


def told(path):
    """Return what a file's reader says against it, or None."""
    try:
        loaded = load_onnx(path)
        from_onnx(loaded, model_input(loaded).fixed_size or SIZE)
    except ValueError as error:
        return str(error)
    return None


def write(folder, files):
    for name, made in files.items():
        data = made if isinstance(made, bytes) else made.SerializeToString()
        (folder / f"{name}.onnx").write_bytes(data)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What one process said of every file, what it opened besides, and how much memory it took."""
    folder = tmp_path_factory.mktemp("hostile")
    write(folder, {name: made for name, (made, _) in SENTENCES.items()})
    with (folder / "sparse.onnx").open("wb") as file:
        file.truncate(2**31 - 1)
    with (folder / "larger.onnx").open("wb") as file:
        file.truncate(2**33)
    run = subprocess.run(
        [sys.executable, __file__, folder], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return json.loads(run.stdout)


@pytest.mark.parametrize("name", SENTENCES)
def test_every_hostile_file_gets_its_sentence(outcome, name):
    sentence = outcome["told"][f"{name}.onnx"]
    assert SENTENCES[name][1] in sentence
    assert sentence.isprintable()
    assert len(sentence) < 600


def test_they_take_no_memory_and_nothing_beside_them_is_read(outcome):
    assert outcome["memory"] < MOST_MEMORY
    assert outcome["opened"] == []
    assert "is damaged" in outcome["told"]["sparse.onnx"]
    assert "more than the 2 GiB" in outcome["told"]["larger.onnx"]


def test_a_pickle_in_a_zip_and_special_files_are_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02.")
    (tmp_path / "zip.onnx").write_bytes(buffer.getvalue())
    assert "a PyTorch file or another zip file" in told(tmp_path / "zip.onnx")
    (tmp_path / "w.pth").write_bytes(WHOLE)
    assert ".pth files hold PyTorch's weights" in told(tmp_path / "w.pth")
    os.mkfifo(tmp_path / "fifo.onnx")
    (tmp_path / "loop.onnx").symlink_to("loop.onnx")
    for path in (tmp_path / "fifo.onnx", tmp_path / "loop.onnx", tmp_path, Path("/dev/zero")):
        with pytest.raises(FileNotFoundError, match="there is no ONNX file"):
            load_onnx(path)


def test_what_is_no_attack_is_read_as_before(tmp_path):
    called = model(
        [node("f", "x", domain="own")], source="z", functions=[function("f", node("Relu", "a"))]
    )
    small = model([node("ConstantOfShape", "n")], [("n", sizes(8, 8))])
    for made in (model(), called, small):
        write(tmp_path, {"good": made})
        assert told(tmp_path / "good.onnx") is None


@pytest.mark.parametrize(
    "name", ["fill", "range", "expand", "tile", "pad", "resize", "product", "gather", "doubling"]
)
def test_a_runtime_gets_no_bomb_behind_ops_that_nobody_knows(name):
    made = SENTENCES[name][0]
    first = [helper.make_node("Erf", ["x"], ["e"]), node("NonZero", "e", out="n0")]
    nodes = [*first, *made.graph.node]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    with pytest.raises(TooLargeError, match=TOO_MUCH):
        check_memory(made, SIZE)


def test_a_model_that_memory_does_not_hold_is_not_run(tmp_path, monkeypatch):
    write(tmp_path, {"bomb": SENTENCES["fill"][0]})
    monkeypatch.setattr("onnxruntime.InferenceSession", None)
    with pytest.raises(TooLargeError, match=TOO_MUCH):
        measure(tmp_path / "bomb.onnx", size=SIZE, threads=1, silent=True)
    unknown = model([node("Erf", "x")], source="z")
    for made in (model(), unknown):
        check_memory(made, SIZE)
    with pytest.raises(TooLargeError, match="more than any machine holds"):
        check_memory(SENTENCES["enlarged"][0], SIZE)
    monkeypatch.setattr(onnx_ops, "available_bytes", lambda: 2**12)
    with pytest.raises(TooLargeError, match=r"needs 0.0 GiB at 16x16.*give a smaller input size"):
        check_memory(model(), SIZE)


@pytest.mark.parametrize("seed", range(3))
def test_mutated_files_load_or_get_one_sentence(tmp_path, capfd, seed):
    rng = random.Random(seed)
    nodes = [
        node("Shape", "x", out="shape"),
        node("Gather", "shape", "last", out="width"),
        node("Mod", "width", "four", out="rest"),
        node("Pad", "x", "pads", "", "", mode="edge", out="padded"),
        node("QuantizeLinear", "padded", "step", "zero", out="q"),
        node("DequantizeLinear", "q", "step", "zero", out="back"),
        node("Clip", "back", "low", "", out="z"),
    ]
    constants = [
        ("last", np.array(3)),
        ("four", np.array(4)),
        ("pads", sizes(0, 0, 0, 0, 0, 0, 1, 1)),
        ("step", np.array(0.1, np.float32)),
        ("zero", np.array(0, np.uint8)),
        ("low", np.array(0, np.float32)),
    ]
    whole = model(nodes, constants, source="z").SerializeToString()
    path = tmp_path / "m.onnx"
    path.write_bytes(whole)
    assert told(path) is None
    refused = 0
    for _ in range(200):
        path.write_bytes(mutated(whole, rng))
        sentence = told(path)
        refused += sentence is not None
        assert sentence is None or sentence.isprintable()
    assert refused > 100
    assert capfd.readouterr() == ("", "")


def mutated(data, rng):
    """Flip bits, cut, splice or repeat."""
    kind = rng.randrange(4)
    out = bytearray(data)
    a, b = sorted(rng.randrange(len(data)) for _ in range(2))
    if kind == 0:
        for _ in range(rng.choice((1, 1, 2, 8))):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del out[a:]
    elif kind == 2:
        out[a : a + 8] = out[b : b + 8]
    else:
        del out[a : min(b, a + 30)]
    return bytes(out)


def main(folder):
    """Load every file of a folder; print what was said, opened and taken as JSON."""
    folder = Path(folder)
    write(folder, {"good": model([node("ConstantOfShape", "n")], [("n", sizes(8, 8))])})
    assert told(folder / "good.onnx") is None  # imports what reading needs
    opened = []

    def watch(event, arguments):
        # Modules that Python loads late are none of a file's doing.
        if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
            path = Path(os.fsdecode(arguments[0]))
            if path.parent != folder and not str(path).startswith(tuple(sys.path[1:])):
                opened.append(str(path))

    sys.addaudithook(watch)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = {path.name: told(path) for path in sorted(folder.iterdir()) if path.name != "good.onnx"}
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"told": said, "opened": opened, "memory": (after - before) * 1024}))


if __name__ == "__main__":
    main(sys.argv[1])
