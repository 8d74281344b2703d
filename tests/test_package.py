"""The built wheel works in an empty environment, outside the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mfagan import shipped

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("mfagan-train", "mfagan-search", "mfagan-export", "mfagan-latency", "mfagan-upscale",
            "mfagan-data", "mfagan-evaluate")  # fmt: skip


def call(*words, cwd=None, **environment):
    result = subprocess.run(
        list(map(str, words)), cwd=cwd, env={**os.environ, **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    # A copy, because building leaves files beside the sources.
    call("git", "clone", "-q", ROOT, folder / "source")
    call(sys.executable, "-m", "build", "-w", "-n", "-o", folder, cwd=folder / "source")
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_packages_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {
        "mfagan", "nas", "export", "latency",
    }  # fmt: skip
    for room in ("mfagan", "nas", "export", "latency"):
        assert f"{room}/py.typed" in names
    assert any(name.startswith("latency/profiles/") for name in names)
    assert {f"latency/phone/{name}" for name in ("runner.c", "bionic.h", "bionic_start.c")} <= set(
        names
    )
    data = ("datasets.toml", "benchmark_hashes.toml", "quality/niqe_model.json")
    weights = (f"weights/{path.name}" for path in shipped.FOLDER.iterdir())
    assert {f"mfagan/{name}" for name in (*data, *weights)} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_commands_work_from_the_wheel(wheel, tmp_path):
    """Dependencies are lent by the test's own environment; the packages come from the wheel."""
    call(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(call(python, "-c", "import site; print(site.getsitepackages()[0])").strip())
    call(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel)
    ours = Path(call(sys.executable, "-c", "import numpy; print(numpy.__path__[0])").strip()).parent
    (site / "lent.pth").write_text(f"{ours}\n")
    place = call(python, "-c", "import mfagan; print(mfagan.__file__)", cwd=tmp_path).strip()
    assert Path(place).is_relative_to(tmp_path)
    module = "from {0} import main; raise SystemExit(main(['--version']))"
    for name in ("mfagan.train_cli", "nas.cli", "export.cli", "latency.cli",
                 "mfagan.upscale_cli", "mfagan.data_cli"):  # fmt: skip
        assert "0.1.0" in call(python, "-c", module.format(name), cwd=tmp_path)
    target = ("--target", "snapdragon-865/gpu", "--input", "128x128")
    predict = "from latency.cli import main; import sys; raise SystemExit(main(sys.argv[1:]))"
    shown = call(python, "-c", predict, "predict", "mfa_x4_w24_c4-3_s0-0", *target, cwd=tmp_path)
    assert "tflite" in shown


@pytest.mark.slow
def test_the_wheel_installs_with_its_dependencies_in_an_empty_environment(wheel, tmp_path):
    call(sys.executable, "-m", "venv", tmp_path / "venv")
    pins = str(ROOT / "constraints.txt")
    binaries = tmp_path / "venv" / "bin"
    torch = next(p for p in Path(pins).read_text().splitlines() if p.startswith("torch=="))
    for package in (torch, wheel):
        call(binaries / "python", "-m", "pip", "install", "-q", package, PIP_CONSTRAINT=pins)
    for name in COMMANDS:
        assert "0.1.0" in call(binaries / name, "--version", cwd=tmp_path)
        assert "--debug" in call(binaries / name, "--help", cwd=tmp_path)
