"""Model files that are damaged, foreign or made to harm: one sentence, no memory, nothing run.

Run as a program it opens every file of a folder and says what came of it, so that one process tells
how much memory all of them took.
"""

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile_models import FILES, GOOD, LENGTH, WHOLE
from hostile_torch_files import LEGACY, ZIP
from published_files import saved, weights

import mfagan
from latency.commandline import FailureError
from mfagan import upscale_cli
from mfagan.about import About
from mfagan.checkpoint import load_discriminator, load_network, read_about, save_network
from mfagan.discriminator import PatchDiscriminator, PatchGanArchitecture
from mfagan.images import write_image

MOST_MEMORY = 64 * 2**20
SMALL = saved(weights("rrdb_x4_w2_b1_g1"))
SMALL_LEGACY = saved(weights("rrdb_x4_w2_b1_g1"), legacy=True)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What one process said of every file, what it opened besides, and how much memory it took."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, (data, _) in FILES.items():
        (folder / name).write_bytes(data)
    (folder / "good.safetensors").write_bytes(GOOD)
    (folder / "good.onnx").write_bytes(WHOLE)
    (folder / "good.pth").write_bytes(ZIP)
    for name, start in (("sparse.safetensors", b""), ("sparse.onnx", b""), ("sparse.pth", LEGACY)):
        with (folder / name).open("wb") as file:
            file.write(start)
            file.truncate(2**40)
    run = subprocess.run(
        [sys.executable, __file__, folder], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return json.loads(run.stdout)


@pytest.mark.parametrize("name", FILES)
def test_every_hostile_file_gets_its_sentence(outcome, name):
    sentence = outcome["told"][name]
    assert FILES[name][1] in sentence
    assert name in sentence
    assert sentence.isprintable()
    assert len(sentence) < 700


def test_they_take_no_memory_and_nothing_beside_them_is_read(outcome):
    assert outcome["memory"] < MOST_MEMORY
    assert outcome["opened"] == []
    assert "neither a .safetensors file" in outcome["told"]["sparse.safetensors"]
    assert "it has 1024.0 GiB, at most 1 GiB is read" in outcome["told"]["sparse.pth"]
    assert "more than the 2 GiB" in outcome["told"]["sparse.onnx"]


def test_the_whole_files_open(tmp_path):
    for name, data in (
        *(("a.safetensors", GOOD), ("a.onnx", WHOLE), ("A.ONNX", WHOLE)),
        *(("a.pth", ZIP), ("A.PT", LEGACY)),
    ):
        (tmp_path / name).write_bytes(data)
        model = mfagan.load(tmp_path / name, threads=1)
        scale = 4 if data in (ZIP, LEGACY) else 2
        assert model(np.zeros((1, 3, 5, 6), np.float32)).shape == (1, 3, 5 * scale, 6 * scale)


def test_onnx_runtime_never_learns_where_a_file_is(tmp_path, monkeypatch):
    import onnxruntime

    given = []

    class Session(onnxruntime.InferenceSession):
        def __init__(self, model, *arguments, **options):
            given.append(type(model))
            super().__init__(model, *arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    (tmp_path / "a.onnx").write_bytes(WHOLE)
    mfagan.load(tmp_path / "a.onnx", threads=1)
    assert given == [bytes]


def test_discriminators_are_checked_as_well(tmp_path):
    path = tmp_path / "d.safetensors"
    network = PatchDiscriminator(PatchGanArchitecture(layers=1, features=4))
    for architecture, sentence in (
        ("patchgan_n5_f400", "do not fit the network"),
        ("patchgan_n9_f9\n", "'patchgan_n9_f9�' is not a discriminator"),
    ):
        save_network(path, network, About(kind="discriminator", architecture=architecture))
        with pytest.raises(ValueError, match=sentence) as caught:
            load_discriminator(path)
        assert str(path) in str(caught.value)


def test_special_files_are_no_models(tmp_path):
    for suffix in ("safetensors", "onnx", "pth"):
        os.mkfifo(tmp_path / f"fifo.{suffix}")
        (tmp_path / f"loop.{suffix}").symlink_to(f"loop.{suffix}")
        (tmp_path / f"folder.{suffix}").mkdir()
        (tmp_path / f"endless.{suffix}").symlink_to("/dev/zero")
        for name in ("fifo", "loop", "folder", "endless", "nul\0"):
            for read in (mfagan.load, read_about):
                with pytest.raises(FileNotFoundError, match="is not a file"):
                    read(tmp_path / f"{name}.{suffix}")


def test_a_file_that_may_not_be_read_is_one_sentence(tmp_path, monkeypatch, capsys):
    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    write_image(tmp_path / "in.png", np.zeros((5, 6, 3), np.uint8))
    for suffix in ("safetensors", "onnx"):
        model = tmp_path / f"m.{suffix}"
        model.write_bytes(GOOD)
        arguments = [str(tmp_path / "in.png"), str(tmp_path / "o.png"), "--model", str(model)]
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", refuse)
            assert upscale_cli.main(arguments) == 1
        error = capsys.readouterr().err
        assert f"'{model}': Permission denied" in error
        assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["w.pth", "w.PT", "w.ckpt", "w.pkl", "w.bin", "w.safetensors"])
def test_no_command_runs_a_pickle(tmp_path, monkeypatch, capsys, name):
    from export import cli as export_cli

    def never(*_, **__):
        pytest.fail("a pickle was run")

    for module in ("torch.load", "pickle.load", "pickle.loads", "pickle.Unpickler", "os.system"):
        monkeypatch.setattr(module, never)
    write_image(tmp_path / "in.png", np.zeros((5, 6, 3), np.uint8))
    file = tmp_path / name
    file.write_bytes(FILES["code.pth"][0])
    out = str(tmp_path / "out")
    for command, words in (
        (upscale_cli.main, [str(tmp_path / "in.png"), f"{out}.png", "--model", str(file)]),
        (export_cli.main, [str(file), "--out", out]),
    ):
        assert command(words) == 2
        error = capsys.readouterr().err
        assert "system beside its weights, which could run code in another reader" in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    file.write_bytes(ZIP)
    assert str(load_network(file)[0].architecture) == "rrdb_x4_w8_b2_g4"


def told(path):
    """Return what is said against a file, or None when it opens."""
    try:
        mfagan.load(path, threads=1, device="cpu")
    except (ValueError, FailureError) as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("suffix", "whole"),
    [("safetensors", GOOD), ("onnx", WHOLE), ("pth", SMALL), ("ckpt", SMALL_LEGACY)],
)
def test_mutated_files_open_or_get_one_sentence(tmp_path, capfd, suffix, whole):
    rng = random.Random(0)
    path = tmp_path / f"m.{suffix}"
    path.write_bytes(whole)
    assert told(path) is None
    refused = 0
    for _ in range(400):
        path.write_bytes(mutated(whole, rng, LENGTH if suffix != "ckpt" else 12_000))
        sentence = told(path)
        refused += sentence is not None
        assert sentence is None or sentence.isprintable()
    assert refused > 200
    assert capfd.readouterr() == ("", "")


def mutated(data, rng, header=LENGTH):
    """Flip bits, most of them where the header is; cut, splice or remove."""
    out = bytearray(data)
    kind = rng.randrange(4)
    reach = min(len(data), rng.choice((len(data), header)))
    a, b = sorted(rng.randrange(reach) for _ in range(2))
    if kind == 0:
        for _ in range(rng.choice((1, 1, 2, 8))):
            out[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del out[a:]
    elif kind == 2:
        out[a : a + 8] = out[b : b + 8]
    else:
        del out[a : min(b, a + 30)]
    return bytes(out)


def test_a_mutated_file_that_opens_holds_the_network_it_names(tmp_path):
    path = tmp_path / "m.safetensors"
    rng, opened = random.Random(1), 0
    for _ in range(200):
        path.write_bytes(mutated(GOOD, rng))
        try:
            network, described = load_network(path)
        except ValueError:
            continue
        opened += 1
        assert str(network.architecture) == described.architecture
        assert all(torch.isfinite(value).all() for value in network.state_dict().values())
    assert opened


def main(folder):
    """Open every file of a folder; print what was said, opened and taken as JSON."""
    import onnxruntime

    folder = Path(folder)
    assert told(folder / "good.safetensors") is None  # imports what reading needs
    assert told(folder / "good.onnx") is None
    assert told(folder / "good.pth") is None
    tempfile.gettempdir()  # what imports something late may try it out
    opened = []

    def watch(event, arguments):
        # Modules that Python loads late are none of a file's doing.
        if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
            path = Path(os.fsdecode(arguments[0]))
            if path.parent != folder and not str(path).startswith(tuple(sys.path[1:])):
                opened.append(str(path))
        elif event in ("pickle.find_class", "os.system", "subprocess.Popen"):
            opened.append(event)

    def never(*_, **__):
        raise AssertionError("ONNX Runtime got a hostile file")

    onnxruntime.InferenceSession = never
    sys.addaudithook(watch)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    files = [path for path in sorted(folder.iterdir()) if path.stem != "good"]
    said = {path.name: told(path) for path in files}
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"told": said, "opened": opened, "memory": (after - before) * 1024}))


if __name__ == "__main__":
    main(sys.argv[1])
