import json
import shutil

import pytest

from export import cli


def main(*arguments):
    return cli.main([*map(str, arguments), "--threads", "1"])


def contents(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("architecture", ["mfa_x4_w32_c3-2_s0-1", "rrdb_x4_w16_b1_g8"])
def test_it_writes_nothing_and_its_sizes_are_those_of_the_files(
    weights, photographs, tmp_path, capsys, architecture
):
    out = tmp_path / "out"
    words = [weights(architecture), "--precision", "fp32,int8", "--calibration", photographs]
    words += ["--out", out, "--input", "48x64", "--json"]
    before = contents(photographs)
    assert main(*words, "--dry-run") == 0
    plan = json.loads(capsys.readouterr().out)
    assert not out.exists()
    assert contents(photographs) == before
    configuration = plan["configuration"]
    assert configuration["precision"] == ["fp32", "int8"]
    counts = {name: configuration[name] for name in ("calibration", "evaluation", "seed")}
    assert counts == {"calibration": 4, "evaluation": 1, "seed": 0}
    assert isinstance(configuration["opset"], int)
    assert configuration["threads"] == 1
    assert configuration["input"] == "48x64"
    assert plan["estimate"]["seconds"] > 0
    assert plan["estimate"]["memory_bytes"] > 10**8
    assert main(*words) == 0
    written = {path.name: path.stat().st_size for path in out.iterdir()}
    expected = plan["estimate"]["files"]
    assert expected.keys() == written.keys()
    for name in expected:
        if name.endswith(".onnx"):
            assert expected[name] == pytest.approx(written[name], rel=0.1)
    assert written["export.json"] < 2 * expected["export.json"]


def test_the_largest_of_a_supernet_is_planned(supernet, tmp_path, capsys):
    assert main(supernet, "--out", tmp_path / "out", "--dry-run") == 0
    printed = capsys.readouterr().out
    for part in (
        "architecture = mfa_x2_w8_",
        "precision = fp32",
        "input = dynamic",
        "evaluation = ",
    ):
        assert part in printed
    assert printed.splitlines()[-1] == "nothing was written"


def test_what_does_not_fit_is_warned_of(supernet, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("mfagan.needs.available_bytes", lambda: 0)
    monkeypatch.setattr("mfagan.needs.resident_bytes", lambda: 0)
    monkeypatch.setattr("mfagan.needs.free_bytes", lambda _: 10)
    assert main(supernet, "--out", tmp_path / "out", "--dry-run") == 0
    error = capsys.readouterr().err
    assert "warning: the export needs about" in error
    assert "are there; lower --input" in error
    assert "of disk and 10 bytes are free" in error


def test_options_without_effect_are_warned_of(weights, photographs, tmp_path, capsys):
    words = [weights("mfa_x2_w8_c2_s0"), "--out", tmp_path / "out", "--dry-run"]
    words += ["--calibration", photographs]
    for more, warned in (
        ([], ""),
        (["--evaluation", photographs], "warning: --calibration has no effect without int8"),
        (["--precision", "int8"], ""),
        (
            ["--precision", "int8", "--evaluation", photographs],
            "int8 is judged by what it was calibrated on",
        ),
    ):
        assert main(*words, *more) == 0
        error = capsys.readouterr().err
        assert warned in error
        assert error.count("\n") == bool(warned)


def test_every_photograph_is_read_once_before_anything_is_made(
    weights, photographs, tmp_path, monkeypatch, capsys
):
    from export import pipeline

    folder = shutil.copytree(photographs, tmp_path / "photographs")
    bad = folder / "astronaut.png"  # calibrated on, not judged by
    bad.write_bytes(bad.read_bytes()[:5000])
    words = [weights("mfa_x2_w8_c2_s0"), "--out", tmp_path / "out", "--precision", "fp32,int8"]
    words += ["--calibration", folder]
    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "to_onnx", lambda *_, **__: pytest.fail("exported"))
        for more in ([], ["--dry-run"]):
            assert main(*words, *more) == 2
            assert "astronaut.png'" in capsys.readouterr().err
            assert not (tmp_path / "out").exists()
    bad.unlink()
    read, opened = [], []
    _count(monkeypatch, "export.calibration.read_image", read)
    _count(monkeypatch, "export.preparation.open_network", opened)
    assert main(*words, "--dry-run") == 0
    assert (len(opened), sorted(read)) == (1, sorted(folder.iterdir()))


def _count(monkeypatch, name, calls):
    """Note the first argument of every call of a function."""
    from importlib import import_module

    module, _, attribute = name.rpartition(".")
    function = getattr(import_module(module), attribute)

    def noted(first, *more):
        calls.append(first)
        return function(first, *more)

    monkeypatch.setattr(name, noted)
