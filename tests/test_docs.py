"""Every command of README and docs runs, in order, on small photographs."""

import contextlib
import re
import shlex
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
import shipped_folder
from skimage import data

from mfagan import estimate, shipped
from mfagan.about import About
from mfagan.checkpoint import build_network, save_network
from mfagan.images import write_image
from mfagan.space import SearchSpace

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = {
    "android.md": "tests/android/test_app_docs.py",
    "latency.md": "tests/latency/test_latency_cli.py",
    "search.md": "tests/nas/test_search_cli.py",
    "workers.md": "tests/nas/test_search_cli.py",
}
"""Pages whose commands are run by another test, on measurements or with fewer trials."""
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SMALL = SearchSpace(widths=(8, 12), modules=(1, 2), convolutions=(2, 3))
COMMAND = re.compile(r"^(?:    |\$ )?(mfagan-[a-z]+ .*)$")
MAINS = {
    script.name: script.load()
    for script in metadata.entry_points(group="console_scripts")
    if script.name.startswith("mfagan-")
}


def commands(page):
    """Return the command lines in a page's code blocks, continuation lines joined."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    found, fenced = [], False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif (fenced or line.startswith("    ")) and (match := COMMAND.match(line)):
            found.append(" ".join(match[1].split("#")[0].split()))
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what the pages take for granted: photographs, weights, an exported model."""
    root = tmp_path_factory.mktemp("docs")
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        write_image(root / "photos" / f"{name}.png", getattr(data, name)()[:200, :200])
    shutil.copytree(root / "photos", root / "photographs")
    for suffix in ("png", "jpg"):
        write_image(root / f"photo.{suffix}", data.chelsea()[:60, :90])
    for name, space in (("gan", SMALL), ("supernet", SearchSpace())):
        about = About(kind="supernet", architecture=str(space.largest), space=space, stage="pixel")
        network = build_network(space.largest, space)
        save_network(root / f"{name}.safetensors", network, about)
    shipped_folder.make(root / "shipped")
    run(root, "mfagan-export gan.safetensors --out exported")
    (model,) = (root / "exported").glob("*.onnx")
    shutil.copy(model, root / "generator.onnx")
    words = (
        "mfagan-export shipped/large.safetensors --precision int8 --calibration photos --out int8"
    )
    run(root, words)
    (model,) = (root / "int8").glob("*.onnx")
    shipped_folder.add(root / "shipped", "large", "int8", model)
    return root


def expand(root, word):
    """Return what a shell makes of a word: the files that a pattern matches, or the word."""
    found = sorted(root.glob(word)) if "*" in word else []
    return [str(path) for path in found] or [word]


def run(root, line):
    """Run a command line in a folder, in this process: importing torch anew takes seconds."""
    name, *words = shlex.split(line)
    words = [path for word in words for path in expand(root, word)]
    with contextlib.chdir(root):
        assert MAINS[name](words) == 0, line


def test_the_pages_hold_commands():
    assert sum(len(commands(page)) for page in PAGES) > 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_run(place, page, monkeypatch):
    monkeypatch.setattr(estimate, "MEASURED_SECONDS", 0.0)  # what --dry-run says is not looked at
    monkeypatch.setattr(shipped, "FOLDER", place / "shipped")
    if page.name in ELSEWHERE:
        assert page.name in (ROOT / ELSEWHERE[page.name]).read_text(encoding="utf-8")
        return
    for line in commands(page):
        run(place, line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target
    for path in re.findall(r"`((?:docs|tests|mfagan|nas|export|latency|benchmarks)/[\w/.-]+)`",
                           page.read_text(encoding="utf-8")):  # fmt: skip
        assert (ROOT / path).exists(), path


def test_make_targets_of_the_readme_exist():
    for target in re.findall(r"^    make (\w+)", (ROOT / "README.md").read_text(), re.M):
        result = subprocess.run(
            ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
