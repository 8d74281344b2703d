"""docs/android.md (android.md): every line says which test runs it, or why not; the pictures."""

from __future__ import annotations

import re
import shlex
import sys

import numpy as np
import pytest
from jvm import APP, ROOT, needed

import export.check_cli
import export.cli
import latency.cli
import nas.cli
from mfagan.images import read_image

sys.path.append(str(APP))
PARSERS = {
    "mfagan-search": nas.cli.build_parser,
    "mfagan-export": export.cli.build_parser,
    "check": export.check_cli.build_parser,
    "mfagan-latency": latency.cli.build_parser,
}
TELLING = {
    "tests/nas/test_search_cli.py": "--budget-ms",
    "tests/export/test_for_app.py": "--for-app",
    "tests/android/test_app_core.py": "",  # reads the files of line 2 and has no flags
    "tests/export/test_check.py": "check --provider nnapi",
    "tests/android/test_apk.py": "make apk AAR=",
    "tests/latency/phone/test_profile_app.py": "profile --through app --provider nnapi",
    "tests/latency/phone/debian/test_app_on_a_phone.py": "profile --through app --provider cpu",
    "tests/latency/phone/test_profile_phone.py": "profile --ort-aar",
    "tests/latency/phone/debian/test_debian_adbd.py": "profile",
    "tests/latency/phone/debian/test_arm64_phone.py": "profile",
    "tests/latency/phone/test_collect_phone.py":
        "collect --device adb --target --ort-aar snapdragon-865/cpu:int8 --minutes",
    "tests/latency/test_latency_cli.py": "fit --target --out",
}  # fmt: skip
"""Of the line that a file runs, the words that tell it from others."""
TEXT = (ROOT / "docs/android.md").read_text()


def test_every_line_is_run_or_says_why_not(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    (tmp_path / "mine.jsonl").touch()
    monkeypatch.chdir(tmp_path)  # some flags name what must be there
    (block,) = re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    lines = block.strip().splitlines()
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", TEXT, re.MULTILINE)
    assert len(lines) == len(rows) == 10
    assert [int(number) for number, _ in rows] == list(range(1, 11))
    for line, (_, said) in zip(lines, rows, strict=True):
        files = re.findall(r"`(tests/[\w/]+\.py)`", said)
        assert files or said.startswith("cannot be: "), line
        for name in files if not said.startswith("cannot be: ") else ():
            runs = (ROOT / name).read_text()
            for word in TELLING[name].split():
                assert word in line, (line, word)
                assert re.search(rf"(?<![\w-]){re.escape(word)}", runs), (name, word)
        assert all((ROOT / name).is_file() for name in files), line
        if line.startswith("mfagan-"):
            name, *words = shlex.split(line)
            if words[0] == "check":
                name, words = "check", words[1:]
            PARSERS[name]().parse_args(words)  # an unknown flag or choice ends the test


@pytest.mark.debian
def test_the_screens_are_drawn(exported, tmp_path):
    needed("javac", "java")
    import screens

    screens.draw(tmp_path / "screens.png", exported["pooled"])
    drawn = read_image(tmp_path / "screens.png").astype(int)
    assert drawn.shape == (520, 3 * 300 + 16, 3)
    working, whole, closer = drawn[:, :300], drawn[:, 308:608], drawn[:, 616:]
    bar = np.array([0x4F, 0xC3, 0xF7])
    row = (np.abs(working[508] - bar).sum(1) < 10).sum()
    assert 100 < row < 284  # some of the tiles are done
    for view, divider in ((whole, 150), (closer, 126)):
        assert (view[480, divider] == 255).all()
        assert not (view[480, divider + 4] == 255).all()
    background = np.array([0x10, 0x14, 0x18])
    assert (whole[60, 150 - 60] == background).all()  # above the picture, which fits the width
    assert not (closer[60, 20] == background).all()  # enlarged, it fills the view
