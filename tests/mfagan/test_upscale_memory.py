"""Too little memory: smaller tiles, said once, with the same result; or one sentence."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from mutated_images import pattern

import mfagan
from export.pipeline import export_files
from latency.commandline import FailureError
from mfagan import model as model_module
from mfagan import upscale_cli, upscaling
from mfagan.about import About
from mfagan.architecture import parse
from mfagan.checkpoint import build_network, save_network
from mfagan.images import read_image, write_image
from mfagan.model import Model, WindowMemoryError, torch_model

NAME = "mfa_x2_w6_c1-2-1_s1-0-2"  # receptive radius 15


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = build_network(parse(NAME))
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    return network


@pytest.fixture(scope="module")
def onnx(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    weights = folder / "m.safetensors"
    save_network(weights, network, About(kind="generator", architecture=NAME))
    return export_files(weights, folder, threads=1).files[0].path


def limited(model, most, *, error=None):
    """A model whose windows may be at most so many LR pixels a side."""

    def run(lr):
        if max(lr.shape[2:]) > most:
            raise error or WindowMemoryError(lr.shape[2:], fixed=False)
        return model.run(lr)

    return Model(architecture=model.architecture, precision="fp32", run=run)


def test_the_tile_is_halved_until_it_fits_and_the_result_is_the_same(network):
    model, image = torch_model(network, parse(NAME), device="cpu"), pattern(130, 90)
    expected = mfagan.upscale(image, model)
    said = []
    got = mfagan.upscale(image, limited(model, 70), on_smaller_tile=said.append)
    assert said == [32]
    assert np.array_equal(got, expected)
    with pytest.warns(UserWarning, match="lowered to 65 LR pixels; the result is the"):
        got = mfagan.upscale(image, limited(model, 110))
    assert np.array_equal(got, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mfagan.upscale(image, limited(model, 200))


def test_at_the_least_tile_it_fails_with_one_sentence(network):
    model, said = torch_model(network, parse(NAME), device="cpu"), []
    with pytest.raises(FailureError, match=r"window of \d+x\d+ LR pixels, and smaller tiles") as e:
        mfagan.upscale(pattern(130, 90), limited(model, 20), on_smaller_tile=said.append)
    assert said == []
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"
        ),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
    ],
)
def test_what_torch_says_is_understood(network, monkeypatch, error):
    forward = network.forward

    def fail_on_large(lr):
        if max(lr.shape[2:]) > 80:
            raise error
        return forward(lr)

    model, image = torch_model(network, parse(NAME), device="cpu"), pattern(80, 90)
    expected = mfagan.upscale(image, model)
    monkeypatch.setattr(network, "forward", fail_on_large)
    with pytest.warns(UserWarning, match="lowered to 45 LR pixels"):
        assert np.array_equal(mfagan.upscale(image, model), expected)


def test_a_window_whose_tensors_alone_do_not_fit_is_not_begun(network, monkeypatch):
    model, image = torch_model(network, parse(NAME), device="cpu"), pattern(130, 90)
    expected = mfagan.upscale(image, model)
    windows = []
    counted = Model(
        architecture=model.architecture,
        precision="fp32",
        run=lambda lr: windows.append(lr.shape[2:]) or model.run(lr),
    )
    # Contract 7's peak of a 96x90 window: five tensors of width 6 and the rest, near 1 MB.
    monkeypatch.setattr(model_module, "available_bytes", lambda: 400_000)
    said = []
    got = mfagan.upscale(image, counted, on_smaller_tile=said.append)
    assert said
    assert max(max(window) for window in windows) < 130
    assert np.array_equal(got, expected)
    monkeypatch.setattr(model_module, "available_bytes", lambda: 1000)
    with pytest.raises(FailureError, match="smaller tiles are not tried"):
        mfagan.upscale(image, counted, on_smaller_tile=said.append)
    elsewhere = Model(
        architecture=model.architecture, precision="fp32", on_host=False, run=model.run
    )
    assert np.array_equal(mfagan.upscale(image, elsewhere), expected)


def test_a_result_larger_than_memory_is_refused_before_it_is_computed(network, monkeypatch):
    model = torch_model(network, parse(NAME), device="cpu")
    monkeypatch.setattr(upscaling, "available_bytes", lambda: 10_000)
    with pytest.raises(FailureError, match=r"the result, 260x180, takes 0.0 GiB; upscale"):
        mfagan.upscale(pattern(130, 90), limited(model, 0, error=AssertionError("it was begun")))


def test_the_command_says_it_once_for_a_folder_and_goes_on(onnx, tmp_path, capsys, monkeypatch):
    import onnxruntime

    for index in range(3):
        write_image(tmp_path / "in" / f"{index}.png", pattern(100, 90 + index))
    argv = [str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(onnx), "--threads", "1"]
    assert upscale_cli.main(argv) == 0
    expected = [read_image(tmp_path / "out" / f"{index}.png") for index in range(3)]
    run = onnxruntime.InferenceSession.run

    def fail_on_large(self, names, feeds, *rest):
        if max(feeds["lr"].shape) > 90:
            raise MemoryError
        return run(self, names, feeds, *rest)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", fail_on_large)
    capsys.readouterr()
    assert upscale_cli.main(argv) == 0
    errors = capsys.readouterr().err.splitlines()
    assert [line for line in errors if "memory" in line] == [
        "mfagan-upscale: warning: out of memory: tiles were lowered to 50 LR pixels; the result is "
        "the same"
    ]
    for index, image in enumerate(expected):
        assert np.array_equal(read_image(tmp_path / "out" / f"{index}.png"), image)


def test_the_command_refuses_what_memory_does_not_hold(onnx, tmp_path, capsys, monkeypatch):
    write_image(tmp_path / "a.png", pattern(100, 90))
    monkeypatch.setattr(upscale_cli, "available_bytes", lambda: 200_000)
    argv = [str(tmp_path / "a.png"), str(tmp_path / "o.png"), "--model", str(onnx)]
    assert upscale_cli.main(argv) == 1
    error = capsys.readouterr().err
    assert "out of memory: " in error
    assert "a.png' enlarged is 200x180" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "o.png").exists()


LIMITED = """
import resource, sys
import numpy as np
import mfagan, mfagan.upscale_cli
from mfagan.images import opencv
opencv()
model = mfagan.load(sys.argv[1], threads=1)
mfagan.upscale(np.zeros((8, 8, 3), np.uint8), model)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
mib = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (used + (mib << 20), -1))
image = np.load(sys.argv[3])
np.save(sys.argv[4], mfagan.upscale(image, model, tile=1024))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_under_a_real_limit_of_memory(onnx, tmp_path):
    """A photograph of 1024x1024 under a limit that its whole frame does not fit into."""
    image = pattern(1024, 1024)
    np.save(tmp_path / "in.npy", image)
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, str(onnx), "96", tmp_path / "in.npy", tmp_path / "out.npy"],
        capture_output=True,
        text=True,
        check=False,
        env={"OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"},
    )
    assert result.returncode == 0, result.stderr
    said = re.findall(r"out of memory: tiles were lowered to (\d+) LR pixels", result.stderr)
    assert len(said) == 1
    assert 16 <= int(said[0]) <= 512
    assert "Traceback" not in result.stderr
    expected = mfagan.upscale(image, mfagan.load(onnx, threads=1))
    assert np.array_equal(np.load(tmp_path / "out.npy"), expected)
