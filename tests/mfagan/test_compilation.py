import json

import pytest
import torch
from safetensors.torch import load_file

from latency.commandline import FailureError
from mfagan import compilation, engine
from mfagan.architecture import parse
from mfagan.config import OptimizerConfig, TrainConfig
from mfagan.discriminator import PatchDiscriminator, PatchGanArchitecture
from mfagan.ema import AveragedWeights
from mfagan.gan_stage import GanStage
from mfagan.generator import Generator
from mfagan.generator_optimizers import OptimizerChoice
from mfagan.rrdb import RRDBNet
from mfagan.space import SearchSpace
from mfagan.stages import Batch
from mfagan.train_cli import main

SPACE = SearchSpace(widths=(4, 6), modules=(1, 2), convolutions=(2,), branches=(0, 1))
RUN = (
    "--recipe", "smoke", "--patch", "8", "--architecture", "mfa_x4_w4_c2_s0",
    "--pixel-steps", "3", "--gan-steps", "0", "--precision", "fp32", "--device", "cpu",
    "--threads", "1",
)  # fmt: skip


def gan_stage(generator):
    torch.manual_seed(0)
    config = TrainConfig(optimizer=OptimizerConfig(generator_optimizer="wsam"))
    return GanStage(
        "gan",
        generator,
        teacher=RRDBNet(parse("rrdb_x4_w4_b1_g2")),
        discriminator=PatchDiscriminator(PatchGanArchitecture(layers=2, features=4)),
        optimizer=OptimizerChoice(method="wsam", config=config, steps=10),
        losses=config.loss,
        learning_rate=1e-3,
        seed=0,
        autocast=False,
    )


@pytest.fixture
def calls(monkeypatch):
    """What is called of what was compiled, without the compiler."""
    calls = []

    def compile_(method):
        def compiled(*arguments):
            calls.append(method.__self__)
            return method(*arguments)

        return compiled

    monkeypatch.setattr(compilation.torch, "compile", compile_)
    return calls


def test_generator_and_teacher_run_compiled_and_copies_of_before_do_not(calls):
    stage = gan_stage(Generator(parse("mfa_x4_w6_c2_s0")))
    names = {key: list(network.state_dict()) for key, network in stage.networks.items()}
    averaged = AveragedWeights(stage.generator, 0.9)
    compilation.compile_networks(stage)
    compilation.compile_networks(stage)
    stage.step(Batch(lr=torch.rand(2, 3, 8, 8), hr=torch.rand(2, 3, 32, 32)), 0)
    assert {id(network) for network in calls} == {id(stage.generator), id(stage.teacher)}
    stage.generator(torch.rand(1, 3, 8, 8))
    count = len(calls)
    averaged.network(torch.rand(1, 3, 12, 12))
    assert len(calls) == count
    assert {key: list(network.state_dict()) for key, network in stage.networks.items()} == names


def test_a_supernet_is_left_alone(calls):
    stage = gan_stage(Generator.supernet(SPACE))
    compilation.compile_networks(stage)
    stage.step(Batch(lr=torch.rand(2, 3, 8, 8), hr=torch.rand(2, 3, 32, 32)), 0)
    assert {id(network) for network in calls} == {id(stage.teacher)}


def test_a_run_compiles_and_comes_to_the_same(calls, photos, tmp_path):
    words = [*RUN, "--data", str(photos), "--out"]
    assert main([*words, str(tmp_path / "plain")]) == 0
    assert calls == []
    assert main([*words, str(tmp_path / "compiled"), "--compile", "on"]) == 0
    assert len(calls) == 3  # the steps; validation is not compiled
    a, b = (load_file(tmp_path / name / "pixel.safetensors") for name in ("plain", "compiled"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_want_of_a_compiler_is_said_before_anything_is_written(
    photos, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    words = [*RUN, "--compile", "on", "--data", str(photos), "--out", str(tmp_path / "out")]
    for more in ([], ["--dry-run"]):
        assert main([*words, *more]) == 1
        said = capsys.readouterr().err.splitlines()
        assert said == [
            "mfagan-train: --compile on needs a C++ compiler, and there is no g++ or c++ or "
            "clang++; install one (apt-get install g++), or leave --compile out"
        ]
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("CXX", "my-compiler")
    with pytest.raises(FailureError, match="there is no my-compiler;"):
        compilation.check_compiler(torch.device("cpu"))
    compilation.check_compiler(torch.device("cuda"))  # Triton has its own


@pytest.mark.slow
def test_what_the_compiler_makes_trains_the_same(photos, tmp_path):
    """Half a minute, all but a second of it in the compiler."""
    words = [*RUN, "--data", str(photos), "--pixel-optimizer", "wsam", "--out"]
    assert main([*words, str(tmp_path / "plain")]) == 0
    assert main([*words, str(tmp_path / "compiled"), "--compile", "on"]) == 0
    a, b = (load_file(tmp_path / name / "pixel.safetensors") for name in ("plain", "compiled"))
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-3, atol=1e-5)
    lines = (tmp_path / "compiled" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["psnr_y_crop4"] > 0
    assert engine.MAX_SKIPPED > json.loads(lines[0])["skipped"] == 0
