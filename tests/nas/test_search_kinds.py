"""Searches of other kinds, from the command line: fronts, several targets, int8, trained."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
from search_commands import words

from latency import from_onnx
from latency.costs import costs
from latency.predict import predict
from latency.profile import load_profile
from mfagan.architecture import op_list, parse
from mfagan.checkpoint import load_network, read_about
from nas.cli import main
from nas.exported import judge_file
from nas.latencies import Latencies


def told(out) -> dict:
    return json.loads((out / "search.json").read_text())


def test_a_front_without_a_budget_chooses_nothing(supernet_file, photos, tmp_path, capsys):
    out = tmp_path / "out"
    flags = words(supernet_file, photos, out, trials=20)
    at = flags.index("--budget-ms")
    free = [*flags[:at], *flags[at + 2 :], "--pareto"]
    assert main(free) == 0
    assert "a front of " in capsys.readouterr().out
    names = {path.name for path in out.iterdir()}
    assert names == {
        "study.journal", "qualities.jsonl", "search.json", "report.html", "pareto.csv",
        "pareto.png", "trials.csv",
    }  # fmt: skip
    search = told(out)
    assert (search["chosen"], search["budget_ms"]) == (None, None)
    slowest = max(trial["latency_ms"] for trial in search["trials"])
    assert slowest > 3.8  # what a budget would have rejected was measured
    assert all(trial["feasible"] for trial in search["trials"])
    assert main(free) == 0
    assert told(out) == search
    capsys.readouterr()
    assert main([*free, "--finetune-steps", "2"]) == 2
    assert "--finetune-steps needs --budget-ms: without it nothing is chosen" in (
        capsys.readouterr().err
    )
    assert main([*flags[:at], *flags[at + 2 :]]) == 2
    assert "has no budget; give --budget-ms, or search for the whole front" in (
        capsys.readouterr().err
    )


def test_a_front_with_a_budget_chooses_the_best_within_it(supernet_file, photos, tmp_path):
    out = tmp_path / "out"
    assert main([*words(supernet_file, photos, out, trials=20), "--pareto"]) == 0
    search = told(out)
    within = [t for t in search["trials"] if t["latency_ms"] <= 3.8]
    beyond = [t for t in search["trials"] if t["latency_ms"] > 3.8]
    assert within
    assert beyond
    assert all(trial["feasible"] for trial in beyond)
    best = max(trial["psnr_y_crop4"] for trial in within)
    assert search["chosen"]["shared_weights"]["psnr_y_crop4"] == best
    (weights,) = out.glob("*.safetensors")
    assert weights.name == search["chosen"]["weights"]


def test_several_targets_share_one_evaluation(supernet_file, photos, tmp_path, capsys, monkeypatch):
    from nas.evaluating import SharedWeights

    measured: list[str] = []
    measure = SharedWeights.__call__
    monkeypatch.setattr(
        SharedWeights, "__call__", lambda self, a: measured.append(str(a)) or measure(self, a)
    )
    out = tmp_path / "out"
    flags = words(supernet_file, photos, out, trials=16)
    at = flags.index("--target")
    flags[at : at + 2] = ["--targets", "snapdragon-865/gpu,snapdragon-865/cpu=1.2"]
    assert main([*flags, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert len(measured) == len(set(measured))
    both = {each["target"]: each for each in summary["targets"]}
    assert {name: each["budget_ms"] for name, each in both.items()} == {
        "snapdragon-865/gpu@tflite:fp16": 3.8, "snapdragon-865/cpu@onnxruntime:int8": 1.2,
    }  # fmt: skip
    for target, each in both.items():
        folder = out / each["folder"]
        latencies = Latencies(load_profile(target), (128, 128))
        search = told(folder)
        assert search["target"] == target
        for trial in search["trials"]:
            member = parse(trial["architecture"])
            assert trial["latency_ms"] == pytest.approx(latencies.ms(member))
            assert trial["feasible"] == (trial["latency_ms"] <= each["budget_ms"])
            # What another phone allows was measured, and is no part of this one's front.
            if trial["feasible"]:
                assert trial["psnr_y_crop4"] is not None
        best = max(t["psnr_y_crop4"] for t in search["trials"] if t["feasible"])
        assert search["chosen"]["shared_weights"]["psnr_y_crop4"] == best
        assert (out / each["chosen"]["weights"]).is_file()
        front = list(csv.DictReader((folder / "pareto.csv").open()))
        assert [row["architecture"] for row in front] == search["front"]
    assert both.keys() == set(told(out)["trials"][0]["latencies_ms"])
    assert main(flags) == 0
    assert sorted(set(measured)) == sorted(measured)


def test_a_target_that_nothing_fits_keeps_no_other_from_its_files(
    supernet_file, photos, tmp_path, capsys, monkeypatch
):
    from nas import finishing

    real = finishing.view

    def view(result, objective, phone):
        """Reject every trial for the CPU."""
        seen = real(result, objective, phone)
        if phone.profile.unit == "cpu":
            trials = tuple(replace(one, reason=one.reason or "over") for one in seen.trials)
            return replace(seen, trials=trials)
        return seen

    monkeypatch.setattr(finishing, "view", view)
    out = tmp_path / "out"
    flags = words(supernet_file, photos, out)
    at = flags.index("--target")
    flags[at : at + 2] = ["--targets", "snapdragon-865/cpu=1.2,snapdragon-865/gpu"]
    assert main([*flags, "--json"]) == 1
    captured = capsys.readouterr()
    (written,) = json.loads(captured.out)["targets"]
    assert written["target"] == "snapdragon-865/gpu@tflite:fp16"
    assert (out / written["chosen"]["weights"]).is_file()
    assert told(out)["targets"] == [written]
    assert "1.2 ms on snapdragon-865/cpu@onnxruntime:int8" in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("targets", "budget", "said"),
    [
        ("snapdragon-865/gpu,snapdragon-866/cpu", 4, "did you mean 'snapdragon-865/cpu'"),
        ("snapdragon-865/gpu=0", 4, "above 0 is needed"),
        ("snapdragon-865/gpu=4,snapdragon-865/cpu", None, "'snapdragon-865/cpu' has no budget"),
    ],
)
def test_targets_that_cannot_be(supernet_file, photos, tmp_path, capsys, targets, budget, said):
    out = tmp_path / "out"
    flags = words(supernet_file, photos, out)
    at = flags.index("--target")
    flags[at : at + 2] = ["--targets", targets]
    if budget is None:
        at = flags.index("--budget-ms")
        del flags[at : at + 2]
    assert main(flags) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_int8_is_measured_exported_and_explained(supernet_file, photos, tmp_path, capsys):
    out = tmp_path / "out"
    flags = words(supernet_file, photos, out, target="snapdragon-865/cpu", budget_ms=1.2)
    more = ["--precision", "int8", "--budget-memory-mib", "12", "--budget-params", "9000"]
    assert main([*flags, *more, "--quality", "psnr_y=1,ssim_y=4"]) == 0
    assert "warning" not in capsys.readouterr().err
    search = told(out)
    chosen = search["chosen"]
    (weights,) = out.glob("*.safetensors")
    about = read_about(weights)
    # The figure of the file's name is PSNR, whatever was maximised.
    assert f"_{about.metrics['psnr_y_crop4']:.2f}dB_" in weights.name
    total = about.metrics["psnr_y_crop4"] + 4 * about.metrics["ssim_y_crop4"]
    assert chosen["psnr_y_crop4 + 4 ssim_y_crop4"] == pytest.approx(total)
    network, _ = load_network(weights)
    assert about.metrics["parameters"] == sum(p.numel() for p in network.parameters())
    for name, value in (
        ("budget_params", "9000"), ("budget_memory_mib", "12.0"), ("quality", "psnr_y=1,ssim_y=4"),
        ("target", "snapdragon-865/cpu@onnxruntime:int8"), ("budget_ms", "1.2"),
    ):  # fmt: skip
        assert about.search[name] == value
    assert about.search["precision"].startswith("int8 ")
    profile = load_profile("snapdragon-865/cpu")
    assert [one["precision"] for one in chosen["exported"]] == ["fp32", "int8"]
    for one in chosen["exported"]:
        ops = from_onnx(out / one["file"])
        assert ops.input_shape == (3, 128, 128)
        assert one["latency_ms"] == predict(ops, profile).ms <= 1.2
        assert one["peak_mib"] == costs(ops).peak_bytes / 2**20 <= 12
        assert one["parameters"] == costs(ops).parameters <= 9000
    kept = {path: path.stat().st_mtime_ns for path in (out / "onnx").iterdir()}
    assert main([*flags, *more, "--quality", "psnr_y=1,ssim_y=4"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "onnx").iterdir()} == kept
    assert main([*flags, *more]) == 2
    assert "quality: psnr_y=1,ssim_y=4 -> psnr_y=1" in capsys.readouterr().err


def test_int8_for_a_target_of_floats_is_warned_of(supernet_file, photos, tmp_path, capsys):
    flags = words(supernet_file, photos, tmp_path / "out")
    assert main([*flags, "--precision", "int8", "--dry-run"]) == 0
    assert "measured in int8, but snapdragon-865/gpu@tflite:fp16 predicts fp16" in (
        capsys.readouterr().err
    )


def test_a_file_over_a_budget_is_refused(make_objective, tmp_path):
    import onnx

    from latency.commandline import FailureError
    from latency.model_writer import write_model
    from nas.budgets import Limits

    architecture = parse("mfa_x4_w8_c2_s0")
    path = tmp_path / "m.onnx"
    onnx.save(write_model(op_list(architecture, 128, 128)), path)
    budgets = make_objective().budgets
    figures = {"precision": "fp32", "psnr_y": None, "host_ms": 1.0}
    found = judge_file(path, tmp_path, budgets, budgets.phones[0], **figures)
    assert found.latency_ms == pytest.approx(budgets.ms(architecture)[budgets.phones[0].name])
    for options, said in (
        ({"budget_ms": found.latency_ms - 1e-3}, " ms, over "),
        ({"limits": Limits(memory_mib=found.peak_mib - 1e-3)}, " MiB, over "),
        ({"limits": Limits(parameters=found.parameters - 1)}, " parameters, over "),
    ):
        strict = make_objective(**options).budgets
        with pytest.raises(FailureError, match=said):
            judge_file(path, tmp_path, strict, strict.phones[0], **figures)


def test_trained_candidates_keep_their_runs_and_are_not_trained_again(
    supernet_file, photos, tmp_path, capsys
):
    out = tmp_path / "out"
    flags = words(supernet_file, photos, out, trials=5)
    trained = [*flags, "--evaluate", "trained", "--candidate-steps", "2"]
    assert main([*flags, "--evaluate", "trained"]) == 2
    assert "needs --candidate-steps" in capsys.readouterr().err
    assert main([*trained, "--finetune-steps", "2"]) == 2
    assert "would throw the --candidate-steps of --evaluate trained away" in capsys.readouterr().err
    assert main([*trained, "--dry-run"]) == 0
    assert not out.exists()
    assert main(trained) == 0
    search = told(out)
    feasible = {t["architecture"]: t for t in search["trials"] if t["feasible"]}
    runs = {path.name: path for path in (out / "candidates").iterdir() if path.is_dir()}
    assert set(runs) == {f"{name}_2steps" for name in feasible}
    for name, trial in feasible.items():
        about = read_about(runs[f"{name}_2steps"] / "finetune.safetensors")
        assert (about.architecture, about.step) == (name, 2)
        assert about.metrics["psnr_y_crop4"] == pytest.approx(trial["psnr_y_crop4"], abs=5e-3)
    written, _ = load_network(out / search["chosen"]["weights"])
    run = runs[f"{search['chosen']['architecture']}_2steps"]
    kept, _ = load_network(run / "finetune.safetensors")
    for name, tensor in kept.state_dict().items():
        assert written.state_dict()[name].equal(tensor)
    # A trial that was told of nowhere, in a folder whose runs are finished: nothing is trained.
    before = {path: path.stat().st_mtime_ns for path in (out / "candidates").rglob("*.safetensors")}
    for name in ("study.journal", "search.json", "qualities.jsonl"):
        (out / name).unlink()
    assert main(trained) == 0
    assert told(out)["trials"] == search["trials"]
    after = {path: path.stat().st_mtime_ns for path in (out / "candidates").rglob("*.safetensors")}
    assert after == before
    assert main([*flags, "--evaluate", "trained", "--candidate-steps", "3"]) == 2
    assert "evaluate: trained 2 steps" in capsys.readouterr().err


def test_a_supernet_of_another_scale_is_named(supernet_file, photos, tmp_path, capsys):
    from mfagan.about import About
    from mfagan.checkpoint import save_network
    from mfagan.generator import Generator

    out = tmp_path / "out"
    assert main(words(supernet_file, photos, out)) == 0
    space = replace(read_about(supernet_file).space, scale=2)
    half = tmp_path / "x2.safetensors"
    about = About(kind="supernet", architecture=str(space.largest), space=space, stage="pixel")
    save_network(half, Generator.supernet(space), about)
    capsys.readouterr()
    assert main(words(half, photos, out, budget_ms=100)) == 2
    error = capsys.readouterr().err
    assert "scale: 4 -> 2" in error
    assert error.count("\n") == 1


def test_a_supernet_that_is_not_shipped_is_one_sentence(photos, tmp_path, capsys, monkeypatch):
    import shipped_folder

    from mfagan import shipped

    shipped_folder.make(tmp_path / "weights", ("large",))
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "weights")
    flags = words("x", photos, tmp_path / "out")
    at = flags.index("--supernet")
    assert main(flags[:at] + flags[at + 2 :]) == 2
    error = capsys.readouterr().err
    assert "'supernet' does not exist" in error
    assert error.count("\n") == 1
