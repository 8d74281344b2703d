"""The command: files and folders, misuse, and what fails while it runs."""

import errno
import json
import shutil

import numpy as np
import pytest
import torch
from failing_disk import failing_disk

import mfagan
from export import cli as export_cli
from export.pipeline import export_files
from latency.commandline import FailureError
from mfagan import upscale_cli
from mfagan.about import About
from mfagan.architecture import parse
from mfagan.checkpoint import build_network, save_network
from mfagan.images import read_image, write_image

PLAIN = "mfa_x3_w5_c2_s0"
FIXED = "mfa_x2_w4_c1_s1"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Weights and fp32 ONNX of a network that takes any size and of one that does not."""
    folder = tmp_path_factory.mktemp("models")
    paths = {}
    for name, size in ((PLAIN, None), (FIXED, (32, 28))):
        weights = folder / f"{name}.safetensors"
        about = About(kind="generator", architecture=name)
        save_network(weights, build_network(parse(name)), about)
        result = export_files(weights, folder, size=size, threads=1)
        paths[name] = {"torch": weights, "onnx": result.files[0].path}
    return paths


def picture(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def command(*arguments):
    return upscale_cli.main(list(map(str, arguments)))


def test_command_upscales_a_file(models, tmp_path, capsys):
    write_image(tmp_path / "in.png", picture(11, 13))
    out = tmp_path / "new" / "out.png"
    model = models[PLAIN]["onnx"]
    assert command(tmp_path / "in.png", out, "--model", model, "--tile", 8, "--threads", 1) == 0
    assert capsys.readouterr().out.splitlines() == [str(out)]
    assert np.array_equal(read_image(out), mfagan.upscale(picture(11, 13), mfagan.load(model)))
    write_image(out, picture(2, 2))
    assert command(tmp_path / "in.png", out, "--model", model, "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["written"] == [str(out)]
    assert captured.err == ""
    assert read_image(out).shape == (33, 39, 3)
    assert [p.name for p in out.parent.iterdir()] == ["out.png"]


def test_command_upscales_a_folder_past_an_unreadable_image(models, tmp_path, capsys):
    write_image(tmp_path / "in" / "a.png", picture(5, 6))
    write_image(tmp_path / "in" / "sub" / "b.bmp", picture(6, 5))
    (tmp_path / "in" / "aa.png").write_text("no image")
    out = tmp_path / "out"
    assert command(tmp_path / "in", out, "--model", models[PLAIN]["onnx"]) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [str(out / "a.png"), str(out / "sub" / "b.bmp")]
    assert captured.err.count("aa.png' cannot be read as an image") == 1
    assert read_image(out / "sub" / "b.bmp").shape == (18, 15, 3)
    assert not (out / "aa.png").exists()


def test_command_refuses_misuse(models, tmp_path, capsys):
    model = models[PLAIN]["onnx"]
    write_image(tmp_path / "in" / "a.png", picture(5, 6))
    (tmp_path / "empty").mkdir()
    shutil.copy(tmp_path / "in" / "a.png", tmp_path / "b.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "b.png")
    before = (tmp_path / "b.png").read_bytes()
    for arguments, sentence in (
        ((tmp_path / "missing.png", tmp_path / "o.png"), "does not exist"),
        ((tmp_path / "empty", tmp_path / "o"), "holds no image"),
        ((tmp_path / "b.png", tmp_path / "b.png"), "would replace"),
        ((tmp_path / "b.png", tmp_path / "link.png"), "would replace"),
        ((tmp_path / "in", tmp_path / "in"), "would replace"),
        ((tmp_path / "in", tmp_path / "in" / "out"), "must not be inside"),
        ((tmp_path / "in", tmp_path / "b.png"), "must be one too"),
        ((tmp_path / "b.png", tmp_path / "o.txt"), "must end in one of"),
        ((tmp_path / "b.png", tmp_path / "o.png", "--tile", "0"), "at least 1"),
        ((tmp_path / "b.png", tmp_path / "o.png", "--tiel", "8"), "did you mean '--tile'"),
    ):
        assert command(*arguments, "--model", model) == 2
        captured = capsys.readouterr()
        assert sentence in captured.err
        assert "Traceback" not in captured.err
        assert len(captured.err.splitlines()) == 1
    assert (tmp_path / "b.png").read_bytes() == before
    assert not (tmp_path / "o.png").exists()


def test_a_model_that_fails_when_it_runs_is_one_sentence(models, tmp_path, capfd, monkeypatch):
    import onnxruntime

    def fail(*_, **__):
        raise Exception("[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned")

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", fail)
    model = models[PLAIN]["onnx"]
    write_image(tmp_path / "in" / "a.png", picture(5, 6))
    for source, target in (("in/a.png", "o.png"), ("in", "out")):
        assert command(tmp_path / source, tmp_path / target, "--model", model) == 1
        error = capfd.readouterr().err
        assert f"ONNX Runtime cannot run '{model}': Non-zero status code returned" in error
    assert len(list(tmp_path.rglob("*.png"))) == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), "torch"),
        (MemoryError(), "torch"),
        (Exception("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc"), "onnx"),
        (Exception("[ONNXRuntimeError] : 1 : FAIL : Failed to allocate memory for r"), "onnx"),
    ],
)
def test_too_little_memory_is_one_sentence(models, tmp_path, capsys, monkeypatch, error, kind):
    def fail(*_, **__):
        raise error

    import onnxruntime

    from mfagan.generator import Generator

    if kind == "torch":
        monkeypatch.setattr(Generator, "forward", fail)
    else:
        monkeypatch.setattr(onnxruntime.InferenceSession, "run", fail)
    write_image(tmp_path / "in.png", picture(9, 8))
    model = models[PLAIN][kind]
    assert (
        command(tmp_path / "in.png", tmp_path / "o.png", "--model", model, "--device", "cpu") == 1
    )
    assert capsys.readouterr().err == (
        "mfagan-upscale: out of memory at a window of 9x8 LR pixels, and smaller tiles are not "
        "tried; free memory, or use a smaller network\n"
    )
    if kind == "onnx":
        fixed = mfagan.load(models[FIXED][kind], threads=1)
        with pytest.raises(FailureError, match="32x28 LR pixels; export the model with a smaller"):
            mfagan.upscale(picture(40, 40), fixed)


def test_a_result_too_large_for_its_format_is_refused_before_it_is_computed(
    models, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(
        upscale_cli, "upscale_picture", lambda *_, **__: pytest.fail("it was computed")
    )
    write_image(tmp_path / "in" / "a.webp", picture(1, 5462))
    for source, target, status in (("in/a.webp", "o.webp", 2), ("in", "out", 1)):
        argv = (tmp_path / source, tmp_path / target, "--model", models[PLAIN]["onnx"])
        assert command(*argv) == status
        assert "would be 3x16386, and .webp holds at most 16383" in capsys.readouterr().err


def test_command_says_that_tile_has_no_effect_on_a_fixed_size(models, tmp_path, capsys):
    write_image(tmp_path / "in.png", picture(40, 40))
    model = models[FIXED]["onnx"]
    assert command(tmp_path / "in.png", tmp_path / "o.png", "--model", model, "--tile", 64) == 0
    assert "--tile has no effect, the model takes 32x28 only" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_found_before_the_model_is_loaded(
    models, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(upscale_cli, "load", None)
    write_image(tmp_path / "in.png", picture(9, 8))
    given = (tmp_path / "in.png", "--model", models[PLAIN]["torch"])
    (tmp_path / "file").touch()
    assert command(*given, tmp_path / "file" / "a.png") == 2
    assert "is a file, not a folder" in capsys.readouterr().err
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    assert command(*given, tmp_path / "new" / "a.png") == 1
    assert capsys.readouterr().err.endswith("cannot be written into\n")
    assert not (tmp_path / "new").exists()


def test_a_full_disk_ends_the_work_on_a_folder(models, tmp_path, capsys):
    for name in "abc":
        write_image(tmp_path / "in" / f"{name}.png", picture(9, 8))
    given = (tmp_path / "in", tmp_path / "out", "--model", models[PLAIN]["torch"], "--json")
    with failing_disk(tmp_path / "out", 3, errno.ENOSPC):  # a file is opened, then written
        assert command(*given) == 1
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert "b.png' cannot be written: No space left on device; 1 more is not begun" in shown.err
    result = json.loads(shown.out)
    assert result["written"] == [str(tmp_path / "out" / "a.png")]
    assert list(result["failed"]) == [str(tmp_path / "in" / "b.png")]


def test_an_output_that_is_not_finite_is_no_picture(tmp_path, capsys):
    network = build_network(parse(PLAIN))
    with torch.no_grad():
        network.body.weight.flatten()[:100] = 3e38
    model = tmp_path / "large.safetensors"
    save_network(model, network, About(kind="generator", architecture=PLAIN))
    write_image(tmp_path / "in.png", picture(9, 8))
    assert command(tmp_path / "in.png", tmp_path / "o.png", "--model", model) == 1
    error = capsys.readouterr().err
    assert error.endswith("the network's output is not finite; its weights are bad\n")
    assert not (tmp_path / "o.png").exists()


def test_one_photograph_is_shown_by_its_name(models, tmp_path, capsys):
    write_image(tmp_path / "in.png", picture(17, 9))
    given = (tmp_path / "in.png", tmp_path / "o.png", "--model", models[PLAIN]["onnx"])
    assert command(*given, "--tile", 8) == 0
    error = capsys.readouterr().err
    assert error.startswith("in.png, tiles: 6/6, ")
    assert "percent" not in error


def test_a_run_folder_is_no_model_but_its_generator_is_named(models, tmp_path, capsys):
    write_image(tmp_path / "in.png", picture(5, 6))
    run = tmp_path / "run1"
    run.mkdir()
    upscaling = (tmp_path / "in.png", tmp_path / "o.png", "--model", run)
    exporting = [str(run), "--out", str(tmp_path / "onnx")]
    for hint in ("", f"; did you mean '{run / 'gan.safetensors'}'?"):
        sentence = f"the model '{run}' is not a file but a folder{hint}\n"
        assert command(*upscaling) == 2
        assert capsys.readouterr().err == f"mfagan-upscale: {sentence}"
        assert export_cli.main(exporting) == 2
        assert capsys.readouterr().err == f"mfagan-export: {sentence}"
        shutil.copy(models[PLAIN]["torch"], run / "gan.safetensors")


def test_json_is_json_in_any_encoding_and_any_name_is_read(models, tmp_path, capsys):
    for name in ("café 写", "latin\udce9"):
        write_image(tmp_path / "in" / f"{name}.png", picture(4, 5))
    given = (tmp_path / "in", tmp_path / "out", "--model", models[PLAIN]["torch"], "--json")
    assert command(*given) == 0
    shown = capsys.readouterr()
    assert shown.out.isascii()
    assert not shown.err
    written = json.loads(shown.out)["written"]
    assert written == [str(tmp_path / "out" / f"{n}.png") for n in ("café 写", "latin\udce9")]
    single = tmp_path / "in" / "latin\udce9.png"
    given = (single, tmp_path / "b\udce9.png", "--model", models[PLAIN]["onnx"], "--json")
    assert command(*given) == 0
    assert (tmp_path / "b\udce9.png").is_file()
