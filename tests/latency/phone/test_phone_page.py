"""The commands of docs/latency.md's section on phones."""

from __future__ import annotations

import re
import shlex
import zipfile
from pathlib import Path

import pytest

import latency.cli
from latency.measurement import read_measurements
from latency.phone import build as building

PAGE = Path(__file__).resolve().parents[3] / "docs" / "latency.md"


def test_the_pages_commands_run(phones, kit, tiny_onnx, tmp_path, monkeypatch, capsys):
    text = PAGE.read_text(encoding="utf-8").partition("## Measure on a phone")[2]
    blocks = re.findall(r"```sh\n(.*?)```", text.partition("\n## ")[0], re.DOTALL)
    measuring, making = [shlex.split(line) for block in blocks for line in block.splitlines()]
    phone = phones({"ro.product.cpu.abilist": "arm64-v8a", "ro.product.model": "Pixel 8"})
    (phone.root / "system/bin/linker64").touch()
    phone.set_temperatures(chip=30, battery=25)
    monkeypatch.chdir(tmp_path)
    assert tiny_onnx == tmp_path / "sr.onnx"
    with zipfile.ZipFile("onnxruntime-android.aar", "w") as archive:
        archive.writestr("jni/arm64-v8a/libonnxruntime.so", b"x" * 100)
    assert latency.cli.main([*measuring[1:], *kit[2:], "--runs", "3"]) == 0
    found = {(one.provider, one.threads) for one in read_measurements(Path("phone.jsonl"))}
    assert found == {(p, n) for p in ("cpu", "xnnpack", "nnapi") for n in (1, 2, 4)}
    monkeypatch.setattr(building, "_build_android", lambda program, _: program.write_text("x"))
    assert latency.cli.main(making[1:]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "runner"


@pytest.mark.parametrize(
    "flag", ["--provider-option", "--cool", "--limit", "--emulated", "--runner"]
)
def test_the_pages_flags_are_the_parsers(flag, capsys):
    assert latency.cli.main(["profile", "--help"]) == 0
    assert flag in capsys.readouterr().out
    assert f"| `{flag}" in PAGE.read_text(encoding="utf-8")
