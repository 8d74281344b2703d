"""The benchmark of this machine's predictions, on a machine that is made up."""

import random
import sys
from pathlib import Path

import pytest

from latency.chain_sampling import sample_chain
from latency.chains import PREFIX
from latency.measurement import Measurement, append_measurements
from latency.op_law import signatures
from mfagan.space import SearchSpace

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SIZE = (16, 16)


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import latency_host

    return latency_host


def _milliseconds(ops):
    """1x1 convolutions are five times slower a MAC than others, and fused ops cost nothing."""
    each = zip(signatures(ops), ops.ops, strict=True)
    return 0.02 + sum(
        op.macs * (5e-8 if s.taps == 1 else 1e-8) if op.macs else 0.0 for s, op in each
    )


def _write(path, names, ops_of, *, slower=1.0):
    measured = []
    for name in names:
        ms = slower * _milliseconds(ops_of(name, SIZE))
        chain = name.startswith(PREFIX)
        measured.append(
            Measurement(
                device="Made",
                soc="host",
                runtime="onnxruntime",
                runtime_version="1",
                precision="fp32",
                unit="cpu",
                model=name,
                architecture=None if chain else name,
                input_size=SIZE,
                inference_times_ms=(ms,),
                warmup=1,
                threads=1,
                load_time_ms=None,
                peak_memory_bytes=None,
                layers_per_unit=None,
                clocks=None,
                thermal=None,
                emulated=False,
                date="2026-01-01",
                reference_ms=2.0 * slower,
                noise=0.01,
            )
        )
    append_measurements(path, measured)


def _rows(text):
    rows = {}
    for line in text.splitlines():
        words = line.split()
        if words[-1:] and words[-1].endswith("%") and words[-6] in ("raw", "steady"):
            rows[" ".join(words[:-6]), words[-6]] = [float(w[:-1]) for w in words[-5:]]
    return rows


def test_the_shares_are_those_of_a_known_machine(benchmark, tmp_path, monkeypatch, capsys):
    rng, space = random.Random(0), SearchSpace(modules=(2, 3, 4))
    names = sorted({str(space.sample(rng)) for _ in range(70)})
    rng.shuffle(names)
    known = names[:40] + sorted({sample_chain(rng, SIZE) for _ in range(30)})
    _write(tmp_path / "m.jsonl", known, benchmark.ops_of)
    _write(tmp_path / "u.jsonl", names[40:], benchmark.ops_of, slower=1.5)  # a machine that is busy
    words = ["--minutes", "0", "--measured", str(tmp_path / "u.jsonl")]
    monkeypatch.setattr(sys, "argv", ["x", *words, "--out", str(tmp_path / "m.jsonl")])
    monkeypatch.setattr(benchmark, "_roofline", lambda *_: _milliseconds)
    benchmark.main()
    out = capsys.readouterr().out
    rows = _rows(out)
    mean, _, _, within_10, _ = rows["ops", "steady"]
    assert mean < 4
    assert within_10 > 90
    assert mean < rows["MACs, fitted on architectures", "steady"][0]
    # What is exactly right for steady medians is a third too low for those of the busy machine.
    assert rows["roofline, fitted on all", "steady"] == [0.0, 0.0, 100.0, 100.0, 100.0]
    assert rows["roofline, fitted on all", "raw"] == [33.3, 33.3, 0.0, 0.0, 0.0]
    assert "noise, unseen: the reference took 3.00 to 3.00 ms" in out
    assert out.splitlines()[-1] == str(tmp_path / "m.jsonl")
