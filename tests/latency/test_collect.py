"""Collecting: what is chosen, that nothing measured is lost or made up, and going on."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from latency import collect_devices, host
from latency.cli import _named_ops, main
from latency.collect import (
    FIRST,
    Network,
    Plan,
    choose,
    collect,
    measure_batch,
    network_of,
    steady_ms,
)
from latency.collect_devices import PhoneDevice
from latency.commandline import FailureError
from latency.host import REFERENCE
from latency.measurement import Measurement, read_measurements
from latency.phone.adb import DeviceGoneError
from latency.phone.provider import Provider
from latency.signals import TerminatedError
from latency.target import Target
from mfagan.space import SearchSpace

SIZE = (16, 16)


def _measurement(name, ms, **fields):
    known = {
        "device": "Made",
        "soc": "host",
        "runtime": "onnxruntime",
        "runtime_version": "1",
        "precision": "fp32",
        "unit": "cpu",
        "model": name,
        "architecture": None,
        "input_size": SIZE,
        "inference_times_ms": (ms,),
        "warmup": 1,
        "threads": 1,
        "load_time_ms": None,
        "peak_memory_bytes": None,
        "layers_per_unit": None,
        "clocks": None,
        "thermal": None,
        "emulated": False,
        "date": "2026-01-01",
        "noise": 0.01,
        "reference_ms": 2.0,
    }
    return Measurement(**known | fields)


def _plan(**fields):
    space = SearchSpace(widths=(16, 24), modules=(2, 3))
    known = {
        "target": Target.parse("host/cpu"),
        "sizes": (SIZE,),
        "precision": "fp32",
        "sample": lambda rng: str(space.sample(rng)),
        "ops_of": _named_ops,
    }
    return Plan(**known | fields)


class Machine:
    """A device that runs nothing: 0.1 ms and 10 GMAC/s, a second of its clock a model."""

    def __init__(self, ends_after=math.inf, error=None, **fields):
        self.now, self.measured = 0.0, 0
        self._ends_after, self._error, self._fields = ends_after, error, fields

    def clock(self):
        return self.now

    def measure(self, paths):
        for path in paths:
            if self.measured == self._ends_after:
                raise self._error
            model = onnx.load(path)
            name = {one.key: one.value for one in model.metadata_props}["architecture"]
            dims = model.graph.input[0].type.tensor_type.shape.dim
            size = (dims[2].dim_value, dims[3].dim_value)
            macs = sum(op.macs for op in _named_ops(name, size).ops)
            self.now += 1.0
            self.measured += 1
            fields = self._fields | {"architecture": name, "input_size": size}
            yield _measurement(path.name, 0.1 + macs / 1e7, **fields)


def _collect(machine, out, seconds, **fields):
    plan = _plan(**fields)
    return collect(machine, plan, out, seconds=seconds, silent=True, clock=machine.clock)


def test_the_choice_equals_trying_every_one():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(12, 12)) * rng.random((12, 1))
    c, noise = a @ a.T, 0.3
    weights, costs = rng.random(12), rng.random(12) + 0.2

    def variance(chosen):
        if not chosen:
            return weights @ np.diag(c)
        known = c[np.ix_(chosen, chosen)] + noise**2 * np.eye(len(chosen))
        left = c - c[:, chosen] @ np.linalg.inv(known) @ c[chosen]
        return weights @ np.diag(left)

    expected = []
    while sum(costs[expected]) < 3.0:
        rest = [j for j in range(12) if j not in expected]
        gain = [(variance(expected) - variance([*expected, j])) / costs[j] for j in rest]
        expected.append(rest[int(np.argmax(gain))])
    assert choose(c, noise, weights, costs, 3.0) == expected[:-1]
    assert choose(c, noise, weights, costs, 0.0) == expected[:1]  # one at least
    assert choose(np.zeros((3, 3)), noise, [1, 1, 1], [1, 1, 1], 9.0) == []


def test_a_call_collects_what_it_says_and_the_next_goes_on(tmp_path):
    out = tmp_path / "m.jsonl"
    first = _collect(Machine(), out, 40.0)
    found = read_measurements(out)
    assert (first.before, first.added) == (0, len(found))
    assert len(found) >= FIRST
    assert first.left_out_percent is not None
    assert first.noise == 0.01
    networks = [network_of(one) for one in found]
    assert len(set(networks)) == len(networks)
    assert any(one.name.startswith("chain_") for one in networks)
    assert any(one.name.startswith("mfa_") for one in networks)
    assert all(one.architecture in (None, one.model) for one in found)
    second = _collect(Machine(), out, 1.0)
    again = read_measurements(out)
    assert second.before == len(found) == len(again) - second.added
    assert second.added >= 1
    assert again[: len(found)] == found
    assert len({network_of(one) for one in again}) == len(again)


def test_what_is_measured_next_is_what_is_least_known(tmp_path):
    out = tmp_path / "m.jsonl"
    machine, plan = Machine(), _plan(sizes=((16, 16), (24, 24)))
    found = []
    narrow = [Network(f"chain_16_conv3o{c}_relu", SIZE) for c in range(4, 44)]
    measure_batch(machine, plan, narrow, out, found)
    collect(machine, plan, out, seconds=12.0, silent=True, clock=machine.clock)
    chosen = [network_of(one).name for one in read_measurements(out)[40:]]
    assert chosen
    assert not any(name.startswith("chain_16_conv3o") and name.endswith("_relu") for name in chosen)
    assert any(name.startswith("mfa_") for name in chosen)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (KeyboardInterrupt(), "interrupted; 5 measurements are kept in"),
        (TerminatedError(), "terminated; 5 measurements are kept in"),
        (DeviceGoneError("the phone was lost"), "the phone was lost; 5 measurements are kept in"),
    ],
)
def test_what_ends_it_keeps_what_is_measured(tmp_path, error, sentence):
    out = tmp_path / "m.jsonl"
    with pytest.raises(type(error), match=sentence):
        _collect(Machine(ends_after=5, error=error), out, 60.0)
    kept = read_measurements(out)
    assert len(kept) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["m.jsonl"]
    done = _collect(Machine(), out, 1.0)
    assert done.before == 5
    assert read_measurements(out)[:5] == kept


def test_a_device_that_is_lost_at_once_leaves_no_file(tmp_path):
    with pytest.raises(DeviceGoneError, match=r"^gone$"):
        _collect(Machine(ends_after=0, error=DeviceGoneError("gone")), tmp_path / "m.jsonl", 9.0)
    assert not list(tmp_path.iterdir())


def test_a_last_line_that_a_crash_cut_is_taken_off(tmp_path, capsys):
    out = tmp_path / "m.jsonl"
    lines = [_measurement(f"chain_3_conv3o{c}", 1.0).to_line() for c in (4, 8)]
    out.write_text("".join(lines)[:-30])
    assert _collect(Machine(), out, 9.0).before == 1
    assert "the last line of" in capsys.readouterr().err
    assert read_measurements(out)[0].to_line() == lines[0]


def test_files_that_cannot_be_gone_on_with(tmp_path):
    out = tmp_path / "m.jsonl"
    lines = [_measurement(f"chain_3_conv3o{c}", 1.0).to_line() for c in (4, 8)]
    out.write_text(lines[0][:-30] + "\n" + lines[1])
    with pytest.raises(ValueError, match="line 1: it is not whole JSON"):
        _collect(Machine(), out, 9.0)
    out.write_text(lines[0])
    with pytest.raises(ValueError, match=r"would hold measurements of .* and of .*another --out"):
        _collect(Machine(device="Another"), out, 9.0)
    with pytest.raises(ValueError, match="target is 'host/npu', what was measured is 'host/cpu"):
        _collect(Machine(), out, 9.0, target=Target.parse("host/npu"))
    out.write_text(_measurement("sr.onnx", 1.0).to_line())
    with pytest.raises(ValueError, match=r"measurements that are not `collect`'s: .*another --out"):
        _collect(Machine(), out, 9.0)
    assert out.read_text() == _measurement("sr.onnx", 1.0).to_line()


def test_a_device_that_is_not_the_target_is_measured_once_and_nothing_is_kept(tmp_path):
    out = tmp_path / "m.jsonl"
    with pytest.raises(ValueError, match="the target is 'host/cpu', what was measured is 'made-1"):
        _collect(Machine(soc="made-1"), out, 9.0)
    assert not out.exists()


def test_medians_are_scaled_by_the_reference():
    slow = _measurement("chain_3_relu", 8.0, reference_ms=4.0)
    usual = [_measurement("chain_3_clip", ms, reference_ms=2.0) for ms in (4.0, 5.0)]
    without = replace(usual[0], reference_ms=None, noise=None)
    assert steady_ms([slow, *usual, without]) == [4.0, 4.0, 5.0, 4.0]
    assert steady_ms([without]) == [4.0]


class FakeSession:
    """A phone on which some networks do not run."""

    def __init__(self, failing=(), gone=()):
        self.names, self._failing, self._gone = [], failing, gone

    def measure(self, model, *_, **__):
        self.names.append(model.name)
        if model.architecture in self._gone:
            raise DeviceGoneError("the phone was lost")
        if model.architecture in self._failing:
            raise FailureError(f"{model.architecture} does not run")
        assert model.path.is_file()
        fields = {"architecture": model.architecture, "input_size": model.size}
        return _measurement(model.name, 3.0 if model.name == "reference.onnx" else 1.0, **fields)


def _phone(session, folder):
    return PhoneDevice(
        session, folder, Provider(name="cpu"), threads=4, limit_s=9, cool=None, precision="fp32"
    )


def test_a_phone_measures_the_reference_beside_and_leaves_out_what_fails(tmp_path, capsys):
    (tmp_path / "phone").mkdir()
    out, session = tmp_path / "m.jsonl", FakeSession(failing=("chain_3_conv3o5",))
    batch = [Network(f"chain_3_conv3o{c}", SIZE) for c in range(4, 12)]
    found = []
    measure_batch(_phone(session, tmp_path / "phone"), _plan(), batch, out, found)
    assert [one.model for one in found] == [b.name for n, b in enumerate(batch) if n != 1]
    assert found == read_measurements(out)
    assert {one.reference_ms for one in found} == {3.0}
    assert session.names.count("reference.onnx") == 2  # of 8 models
    assert "left out: chain_3_conv3o5 does not run" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "phone").iterdir()] == ["reference.onnx"]


def test_a_phone_that_is_lost_or_runs_nothing(tmp_path):
    batch = [Network("chain_3_relu", SIZE), Network("chain_3_clip", SIZE)]
    found = []
    for session, sentence, kept in (
        (FakeSession(failing=("chain_3_relu", "chain_3_clip")), "does not run", 0),
        (FakeSession(gone=("chain_3_clip",)), "was lost", 1),
    ):
        with pytest.raises(FailureError, match=sentence):
            measure_batch(_phone(session, tmp_path), _plan(), batch, tmp_path / "m.jsonl", found)
        assert len(found) == kept


def test_the_command_on_this_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(host, "REFERENCE_SIZE", (8, 8))
    monkeypatch.setattr(host, "_REFERENCES", {})
    monkeypatch.setattr(collect_devices, "ROUNDS", 2)
    monkeypatch.setattr(collect_devices, "BURST_MS", 0.0)
    monkeypatch.chdir(tmp_path)
    words = ["collect", "--device", "host", "--target", "host/cpu", "--minutes", "0.001"]
    words += ["--threads", "1", "--input", "8x8", "--scale", "2", "--json"]
    assert main(words) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["out"] == "host-cpu.jsonl"
    found = read_measurements(Path("host-cpu.jsonl"))
    assert done["added"] == len(found) > 0
    for one in found:
        assert one.input_size == (8, 8)
        assert one.model.startswith(("chain_", "mfa_x2_"))
        assert one.reference_ms is not None
        assert len(one.inference_times_ms) == 2
    assert (found[0].threads, found[0].soc) == (1, "host")


def test_ctrl_c_in_the_command(tmp_path, monkeypatch, capsys):
    def measure(_, paths):
        yield from Machine(ends_after=2, error=TerminatedError()).measure(paths)

    monkeypatch.setattr(collect_devices.HostDevice, "measure", measure)
    out = tmp_path / "m.jsonl"
    words = ["collect", "--target", "host/cpu", "--minutes", "1", "--input", "8x8"]
    assert main([*words, "--out", str(out)]) == 143
    assert f"2 measurements are kept in '{out}', the same command goes" in capsys.readouterr().err
    assert len(read_measurements(out)) == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--target", "host/gpu"], "this machine is the target 'host/cpu', got 'host/gpu'"),
        (["--target", "snapdragon-865/cpu"], "this machine is the target 'host/cpu'"),
        (["--target", "host/cpu:fp16"], "written in fp32 or int8, the target says fp16"),
        (["--target", "host/cpu", "--out", "m.json"], "--out must end in .jsonl, got 'm.json'"),
        (["--target", "host/cpu", "--minutes", "0"], "a number above 0 is needed, got '0'"),
        (["--target", "host/cpu", "--device", "usb"], "--device must be host, adb or adb:SERIAL"),
        (["--target", "host/cpu", "--threads", "999"], "--threads: at most"),
        (["--target", "host/cpu", "--cool", "30"], "--cool has a meaning only with --device adb"),
        (["--target", "x/cpu", "--device", "adb", "--provider", "cpu,xnnpack"], "must be one"),
        (["--target", "x/cpu", "--device", "adb"], "give ONNX Runtime for the phone"),
    ],
)
def test_misuse(words, sentence, capsys):
    given = ["collect", *words] + ([] if "--minutes" in words else ["--minutes", "1"])
    assert main(given) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert len(err.splitlines()) == 1


def test_the_reference_is_a_chain_of_the_space():
    kinds = {(op.kind, op.kernel) for op in _named_ops(REFERENCE, SIZE).ops}
    assert kinds == {("conv", (3, 3)), ("conv", (1, 1)), ("relu", (1, 1))}
