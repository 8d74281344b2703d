"""The command line: results, exit statuses, sentences; and every command of docs/latency.md."""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from latency import collect_devices, fusion
from latency.cli import main
from latency.law import network_ms
from latency.measurement import append_measurements, read_measurements
from latency.profile import load_profile, shipped_profiles
from mfagan.architecture import op_list, parse

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "latency"
SMALL = "mfa_x4_w24_c4-3_s0-0"


def _run(capsys, *argv):
    status = main(list(argv))
    out, err = capsys.readouterr()
    return status, out, err


def _measurements(path, *, emulated=False, names=("mfa_x4_w16_c2_s0", SMALL)):
    """Write measurements that follow the law of 2 ms plus 100 GMAC/s exactly."""
    true = {"floor_ms": 2.0, "gmac": 10.0}
    from test_measurement import ONE

    found = []
    for name in names:
        ops = op_list(parse(name), 64, 64)
        ms = network_ms(ops, "macs", true, "fp32")
        found.append(
            replace(
                ONE,
                soc="host",
                precision="fp32",
                model=f"{name}.onnx",
                architecture=name,
                input_size=(64, 64),
                inference_times_ms=(ms, ms, ms * 3),
                emulated=emulated,
            )
        )
    append_measurements(path, found)


FIVE = ("mfa_x4_w16_c2_s0", SMALL, "mfa_x4_w32_c3-3_s0-0", "mfa_x4_w48_c4_s0", "mfa_x4_w40_c2_s0")


def test_predict_prints_both_runtimes_and_a_breakdown(capsys):
    status, out, err = _run(capsys, "predict", SMALL, "--target", "snapdragon-865/gpu")
    assert (status, err) == (0, "")
    assert "tflite fp16 on gpu" in out
    assert "onnxruntime int8 on cpu" in out
    assert "0.926 GMAC" in out
    assert re.search(r"^conv +17 ", out, re.MULTILINE)
    assert "extrapolates" not in out
    _, out, _ = _run(
        capsys, "predict", SMALL, "--target", "snapdragon-865/cpu", "--input", "64x64", "--ops"
    )
    assert "extrapolates: input 64x64" in out
    assert "tflite" not in out
    assert "96x256x256" not in out
    assert re.search(r"depth_to_space +3x256x256", out)


def test_predict_json_and_an_onnx_file(capsys, tiny_onnx):
    argv = ("predict", str(tiny_onnx), "--target", "snapdragon-865/gpu", "--input", "20x30")
    status, out, _ = _run(capsys, *argv, "--json")
    assert status == 0
    found = json.loads(out)
    assert found["input"] == [3, 20, 30]
    assert found["costs"]["macs"] == 20 * 30 * 12 * 27
    assert found["costs"]["parameters"] == 12 * 27 + 12
    prediction = found["prediction"]
    assert sum(part["ms"] for part in prediction["breakdown"]) == pytest.approx(prediction["ms"])
    assert prediction["extrapolates"]
    assert found["onnxruntime_cpu"]["runtime"] == "onnxruntime"


def test_devices(capsys):
    status, out, _ = _run(capsys, "devices")
    assert status == 0
    listed = json.loads(_run(capsys, "devices", "--json")[1])
    assert [one["target"] for one in listed] == [str(one.target) for one in shipped_profiles()]
    assert all(one["target"] in out for one in listed)


def test_profile_then_predict(capsys, tiny_onnx, tmp_path):
    out_path = tmp_path / "m.jsonl"
    argv = ("profile", str(tiny_onnx), "--input", "16x16", "--runs", "3", "--threads", "1")
    status, out, _ = _run(capsys, *argv, "--out", str(out_path))
    assert status == 0
    assert out.splitlines()[-1] == str(out_path)
    assert "onnxruntime" in out
    status, out, err = _run(capsys, *argv, "--out", str(out_path), "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["input_size"] == [16, 16]
    assert len(read_measurements(out_path)) == 2


def test_fit_from_measurements_recovers_the_law(capsys, tmp_path):
    _measurements(tmp_path / "m.jsonl", names=FIVE)
    _measurements(tmp_path / "e.jsonl", names=FIVE, emulated=True)
    files = [str(tmp_path / name) for name in ("m.jsonl", "e.jsonl")]
    target = ("--target", "host/cpu", "--out", str(tmp_path / "p.json"))
    status, out, err = _run(capsys, "fit", *files, *target, "--law", "macs", "--notes", "a note")
    assert status == 0
    assert "warning: 5 emulated measurements are left out" in err
    assert out.splitlines()[-1] == str(tmp_path / "p.json")
    profile = load_profile(tmp_path / "p.json")
    assert profile.coefficients == pytest.approx({"floor_ms": 2.0, "gmac": 10.0}, rel=1e-3)
    assert str(profile.target) == "host/cpu@onnxruntime:fp32"
    assert (profile.notes, profile.sizes, profile.measurements) == ("a note", ((64, 64),), 5)
    argv = ("predict", SMALL, "--profile", str(tmp_path / "p.json"), "--input", "64x64", "--json")
    found = json.loads(_run(capsys, *argv)[1])["prediction"]
    measured = read_measurements(tmp_path / "m.jsonl")[1]
    assert found["ms"] == pytest.approx(measured.median_ms, rel=1e-3)
    found = json.loads(_run(capsys, "fit", files[0], *target, "--json")[1])
    assert found["left_out_errors"].keys() == set(FIVE)


def test_emulated_measurements_alone_are_refused_unless_they_are_allowed(capsys, tmp_path):
    _measurements(tmp_path / "e.jsonl", names=FIVE, emulated=True)
    out = tmp_path / "p.json"
    argv = ("fit", str(tmp_path / "e.jsonl"), "--target", "host/cpu", "--out", str(out))
    status, _, err = _run(capsys, *argv)
    assert status == 2
    assert "all 5 measurements are emulated: their times are no latency; --allow-emulated" in err
    assert not out.exists()
    assert _run(capsys, *argv, "--allow-emulated", "--notes", "a note")[0] == 0
    notes = load_profile(out).notes
    assert notes == "EMULATED: made from times that are no latency. a note"
    _measurements(tmp_path / "m.jsonl", names=FIVE)
    argv = ("fit", str(tmp_path / "m.jsonl"), *argv[2:])
    assert _run(capsys, *argv, "--allow-emulated")[0] == 0
    assert load_profile(out).notes == ""


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("predict", SMALL), "give --target"),
        (("predict", SMALL, "--target", "nokia/gpu"), "no profile is shipped for 'nokia/gpu'"),
        (("predict", SMALL, "--target", "nokia"), "is not a target; the grammar is"),
        (("predict", "mfa_x5", "--target", "snapdragon-865/gpu"), "nor is it an .onnx file"),
        (("predict", "none.onnx", "--target", "snapdragon-865/gpu"), "there is no ONNX file"),
        (("predict", SMALL, "--profile", "none.json"), "there is no profile 'none.json'"),
        (("predict", SMALL, "--tagret", "x"), "did you mean '--target'?"),
        (("predict", SMALL, "--target", "snapdragon-865/gpu", "--input", "0x4"), "1 to 16384"),
        ((), "required: COMMAND"),
        (("predit", SMALL), "did you mean 'predict'"),
        (("fit", "--target", "host/cpu", "--out", "p.json"), "give measurement files, or --aihub"),
        (("fit", "--target", "host/cpu", "--out", "p.txt"), "--out must end in .json"),
        (("fit", "--target", "host/cpu", "--out", "p.json", "--runtime", "x"), "only with --aihub"),
        (("fit", "none.jsonl", "--target", "host/cpu", "--out", "p.json"), "does not exist"),
        (("profile", "none.onnx", "--out", "m.jsonl"), "there is no ONNX file"),
        (
            ("fit", "--target", "host/cpu", "--out", "p.json", "--published-device", "x"),
            "--published-device has a meaning only with --aihub",
        ),
        (("profile", "none.onnx", "--out", "m.txt"), "--out must end in .jsonl"),
        (("profile", "none.onnx", "--out", "m.jsonl", "--runs", "0"), "at least 1"),
    ],
)
def test_misuse_is_one_sentence_and_status_2(capsys, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = _run(capsys, *argv)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_is_not_a_file_to_write(capsys, tiny_onnx, tmp_path):
    for name, argv in (
        ("m.jsonl", ("profile", str(tiny_onnx), "--runs", "1")),
        ("p.json", ("fit", "--target", "host/cpu")),
    ):
        (tmp_path / name).mkdir()
        status, out, err = _run(capsys, *argv, "--out", str(tmp_path / name))
        assert (status, out) == (2, "")
        assert f"--out must be a file, '{tmp_path / name}' is a folder\n" in err
        assert err.count("\n") == 1


def test_published_results_need_their_device(capsys, tmp_path):
    (tmp_path / "r.csv").touch()
    argv = ("--target", "host/cpu", "--out", "p.json", "--aihub", str(tmp_path / "r.csv"))
    status, _, err = _run(capsys, "fit", *argv, "--layers", str(tmp_path / "r.csv"))
    assert (status, "--aihub needs --published-device too" in err) == (2, True)


def test_measurements_that_do_not_go_together(capsys, tmp_path):
    path = tmp_path / "m.jsonl"
    _measurements(path, names=FIVE)
    target = ("--target", "host/cpu", "--out", str(tmp_path / "p.json"))
    one = read_measurements(path)[0]
    append_measurements(path, [replace(one, threads=1)])
    status, _, err = _run(capsys, "fit", str(path), *target)
    assert (status, "number of threads; there are" in err) == (2, True)
    status, _, err = _run(capsys, "fit", str(path), "--target", "host/gpu", *target[2:])
    assert (status, "no measurement is for 'host/gpu'; there are host/cpu" in err) == (2, True)
    few = tmp_path / "few.jsonl"
    _measurements(few)
    status, _, err = _run(capsys, "fit", str(few), *target, "--law", "macs")
    assert (status, "at least 4 different networks, got 2" in err) == (2, True)
    assert not (tmp_path / "p.json").exists()
    for argv in (("--law", "typed"), ("--terms", "gmac")):
        status, _, err = _run(capsys, "fit", str(path), *target, *argv)
        assert (status, "--law typed needs --terms" in err) == (2, True)


def test_two_networks_scale_the_nearest_shipped_profile_and_say_so(capsys, tmp_path):
    _measurements(tmp_path / "m.jsonl")
    argv = ("fit", str(tmp_path / "m.jsonl"), "--target", "host/cpu")
    status, out, _ = _run(capsys, *argv, "--out", str(tmp_path / "p.json"))
    assert status == 0
    assert "2 networks were measured, too few for a fit: the profile of snapdragon-" in out
    found = json.loads(
        _run(capsys, "predict", SMALL, "--profile", str(tmp_path / "p.json"), "--json")[1]
    )
    assert found["prediction"]["high_ms"] > 1.5 * found["prediction"]["ms"]


def test_an_outlier_is_named_and_terms_are_fitted(capsys, tmp_path):
    path = tmp_path / "m.jsonl"
    names = (*FIVE, "mfa_x4_w24_c2_s0", "mfa_x4_w32_c4_s0", "mfa_x4_w40_c4-4_s0-0")
    _measurements(path, names=names)
    lines = read_measurements(path)
    path.unlink()
    odd = replace(lines[2], inference_times_ms=tuple(4 * t for t in lines[2].inference_times_ms))
    append_measurements(path, [*lines[:2], odd, *lines[3:]])
    argv = ("fit", str(path), "--target", "host/cpu", "--out", str(tmp_path / "p.json"))
    _, out, _ = _run(capsys, *argv, "--law", "typed", "--terms", "floor_ms,gmac")
    assert re.findall(r"^outlier: (\S+) is off by -7\d%", out, re.MULTILINE) == [names[2]]


def test_what_fuses_is_said(capsys, tmp_path):
    """Chains with the times of a runtime that computes ReLU inside convolutions, and no PReLU."""
    from test_measurement import ONE

    own = {"relu": 1.0, "clip": 1.0, "leakyrelu": 1.0, "prelu": 1.0, "sigmoid": 1.0, "add0": 1.0}
    left = {"relu": 0.02, "prelu": 0.9, "sigmoid": 0.5}
    path = tmp_path / "m.jsonl"
    found = []
    for name in fusion.chains():
        steps = name.split("_")[2:]
        behind = len(steps) == 2
        ms = 0.5 + sum(
            5.0 if step.startswith("conv") else left.get(step, 0.1) * own[step] if behind
            else own.get(step, 0.0)
            for step in steps
        )  # fmt: skip
        found.append(
            replace(
                ONE,
                soc="host",
                precision="fp32",
                model=name,
                architecture=None,
                input_size=(64, 64),
                inference_times_ms=(ms,),
            )
        )
    append_measurements(path, found)
    argv = ("fit", str(path), "--target", "host/cpu", "--out", str(tmp_path / "p.json"), "--json")
    fusions = json.loads(_run(capsys, *argv)[1])["fusions"]
    odd = {"prelu": "does not fuse", "sigmoid": "partly"}
    assert {one["step"]: one["verdict"] for one in fusions} == dict.fromkeys(own, "fuses") | odd


def test_ops_that_leave_the_unit_and_ops_never_measured_are_named(capsys, tmp_path):
    import onnx
    from onnx import TensorProto, helper

    shape = ["N", 3, "H", "W"]
    weights = helper.make_tensor("w", TensorProto.FLOAT, (3, 8, 2, 2), [0.1] * 96)
    nodes = [
        helper.make_node("ConvTranspose", ["lr", "w"], ["t"], strides=[2, 2]),
        helper.make_node("HardSwish", ["t"], ["sr"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, ["N", 8, "H2", "W2"])],
        [weights],
    )
    path = tmp_path / "t.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    argv = ("predict", str(path), "--input", "64x64", "--target")
    out = _run(capsys, *argv, "snapdragon-8-gen-1/npu")[1]
    assert "nnapi moves 1 x conv_transpose to another unit" in out
    found = json.loads(_run(capsys, *argv, "snapdragon-865/cpu", "--json")[1])["prediction"]
    assert any("op hardswish was in no network measured" in one for one in found["extrapolates"])
    assert any("op conv_transpose was in no" in one for one in found["extrapolates"])
    profile = load_profile("snapdragon-865/cpu")
    moved = (3 * 64 * 64 + 8 * 128 * 128 + 96) * 1 / (profile.gb_per_s * 1e6)
    parts = {part["kind"]: part["ms"] for part in found["breakdown"]}
    assert parts["conv_transpose"] >= min(moved, parts["conv_transpose"]) > 0
    assert parts["hardswish"] > 0


def test_a_profile_of_another_target_is_refused(capsys, tmp_path):
    load_profile("snapdragon-865/gpu").save(tmp_path / "p.json")
    argv = ("predict", SMALL, "--profile", str(tmp_path / "p.json"), "--target", "host/cpu")
    status, _, err = _run(capsys, *argv)
    assert (status, "is for 'snapdragon-865/gpu@tflite:fp16', not for 'host/cpu'" in err) == (
        2,
        True,
    )


@pytest.mark.parametrize("command", [[], ["predict"], ["devices"], ["fit"], ["profile"]])
def test_help_is_complete_and_light(command):
    code = (
        "import sys; from latency.cli import main; status = main(sys.argv[1:]); "
        "heavy = {'torch', 'onnx', 'onnxruntime', 'scipy', 'numpy', 'mfagan'} & set(sys.modules); "
        "sys.exit(f'{status} {heavy}' if status or heavy else 0)"
    )
    argv = [sys.executable, "-c", code, *command, "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    flags = set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", done.stdout, re.MULTILINE))
    documented = re.findall(
        r"^  (?:-\w, )?(--[\w-]+)[^\n]*?(?:  +\S|\n {10,}\S)", done.stdout, re.M
    )
    assert flags == set(documented)
    assert {"--help", "--debug"} <= flags


def _documented_commands() -> list[str]:
    text = (ROOT / "docs" / "latency.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_every_command_of_the_page_works(capsys, tiny_onnx, monkeypatch):
    monkeypatch.chdir(tiny_onnx.parent)
    monkeypatch.setattr(collect_devices, "ROUNDS", 1)
    _measurements(tiny_onnx.parent / "host.jsonl", names=FIVE)
    for line in _documented_commands():
        words = shlex.split(line)
        assert words[0] == "mfagan-latency"
        if words[1] == "profile":
            # The page's file gets five networks from its reader; here they are made up.
            words[words.index("--out") + 1] = "one.jsonl"
        if words[1] == "collect":
            words[words.index("--out") + 1] = "collected.jsonl"
            words[words.index("--minutes") + 1] = "0.0001"
            words += ["--input", "8x8"]
        if "--aihub" in words:
            if not SHARED.is_dir():
                continue
            words = [str(SHARED / word) if word.endswith(".gz") else word for word in words]
        status, _, err = _run(capsys, *words[1:])
        assert status == 0, (line, err)
    assert load_profile(Path("host-cpu.json")).soc == "host"


def test_the_pages_error_table_is_the_profiles():
    text = (ROOT / "docs" / "latency.md").read_text(encoding="utf-8")
    for one in shipped_profiles():
        low, high = one.left_out_range_percent
        noise = "" if one.noise_percent is None else f"{one.noise_percent:.1f}"
        row = (
            f"| `{one.target}` | {len(one.networks)} | {one.law} | {one.fit_error_percent:.1f} | "
            f"{one.left_out_error_percent:.1f} by {one.left_out} | {low:.1f} to {high:.1f} | "
            f"{one.left_out_worst_percent:.0f} | {one.macs_error_percent:.1f} | {noise} |\n"
        )
        assert row in text


def test_what_cannot_be_appended_to_is_found_before_measuring(tmp_path, capsys, tiny_onnx):
    (tmp_path / "broken.jsonl").write_text("{")
    argv = ("profile", str(tiny_onnx), "--input", "8x8", "--out")
    status, _, err = _run(capsys, *argv, str(tmp_path / "broken.jsonl"))
    assert (status, err.count("\n")) == (2, 1), err
    status, _, err = _run(capsys, *argv, str(tmp_path / "broken.jsonl" / "a.jsonl"))
    assert status == 2
    assert err == f"mfagan-latency: '{tmp_path}/broken.jsonl' is a file, not a folder\n"
