"""The doors between the rooms: imports go one way, and importing a room stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("latency", "mfagan", "export", "nas")
# The one back door: nobody imports this file, so it may look at architectures, lazily.
BACK_DOORS = {("latency/cli.py", "mfagan.architecture"), ("latency/cli.py", "mfagan.space")}
HEAVY = ("torch", "onnx", "onnxruntime", "onnxscript", "onnxsim", "cv2", "optuna", "scipy")


def _imports(tree: ast.AST) -> list[tuple[str, ast.stmt]]:
    found: list[tuple[str, ast.stmt]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports between modules are absolute"
            found.append((node.module or "", node))
    return found


def _offences(room: str, name: str, source: str) -> list[str]:
    """Return the imports by which a file of a room goes through a door the wrong way."""
    tree = ast.parse(source)
    forbidden = ROOMS[ROOMS.index(room) + 1 :]
    top = set(tree.body)
    return [
        f"{name}: {module}"
        for module, node in _imports(tree)
        if module.split(".")[0] in forbidden
        and not ((name, module) in BACK_DOORS and node not in top)
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_one_way(room):
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    offences = []
    for file in files:
        name = file.relative_to(ROOT).as_posix()
        offences += _offences(room, name, file.read_text(encoding="utf-8"))
    assert not offences


def test_nobody_imports_the_back_door():
    for room in ROOMS:
        for file in (ROOT / room).rglob("*.py"):
            modules = [
                module for module, _ in _imports(ast.parse(file.read_text(encoding="utf-8")))
            ]
            assert "latency.cli" not in modules, file


def test_the_check_sees_what_it_should():
    assert _offences("latency", "latency/x.py", "def f():\n    from mfagan import load")
    assert _offences("latency", "latency/cli.py", "from mfagan.architecture import parse")
    assert _offences("latency", "latency/cli.py", "def f():\n    import mfagan.generator")
    lazily = "def f():\n    from mfagan.architecture import parse"
    assert not _offences("latency", "latency/cli.py", lazily)
    assert _offences("mfagan", "mfagan/x.py", "import nas.study")
    assert not _offences("nas", "nas/x.py", "import mfagan\nfrom export.onnx import x")


@pytest.mark.parametrize(
    "module",
    [
        *("latency", "latency.predict", "latency.profile", "latency.cli"),
        *("mfagan", "mfagan.architecture", "mfagan.space"),
    ],
)
def test_importing_is_light(module):
    code = f"import sys, {module}; print(*sorted({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_room_offers_its_readers_lazily():
    import latency

    assert latency.from_onnx.__module__ == "latency.onnx_ops"
    assert latency.from_torch.__module__ == "latency.torch_ops"
    assert set(latency.__all__) == {"Costs", "Op", "OpList", "from_onnx", "from_torch"}
    with pytest.raises(AttributeError, match="no attribute 'from_tflite'"):
        latency.from_tflite  # noqa: B018
