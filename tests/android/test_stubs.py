"""What the app is compiled against is ONNX Runtime's Java API, member by member.

MFAGAN_ORT_JAR, where it names the JAR of Maven's com.microsoft.onnxruntime, is compared as well.
"""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path

import pytest
from jvm import APP, needed, run

pytestmark = pytest.mark.debian
RECORD = Path(__file__).with_name("ort_java_api.txt")
OF_EVERY_ENUM = {"values", "valueOf"}


def recorded():
    """Return the API's kinds (class with its parents) and members, as the record has them."""
    kinds, members = {}, set()
    for line in RECORD.read_text().splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        if line.startswith(" "):
            members.add((name, words[0], words[1], "static" in words[2:]))  # noqa: F821
        else:
            name, *parents = words
            kinds[name] = {word for word in parents if "." in word}
    return kinds, members


def disclosed(where):
    """Return the same of compiled classes: what javap tells of their public members."""
    names = [
        str(path.relative_to(where).with_suffix("")).replace("/", ".")
        for path in sorted(where.rglob("*.class"))
        if path.stem != "package-info"
    ]
    return read(run(["javap", "-s", "-public", "-cp", str(where), *names]))


def read(text):
    kinds, members = {}, set()
    for line in text.splitlines():
        if line.startswith("public ") and line.endswith("{"):
            name = re.search(r"(?:class|interface) ([\w.$]+)", line)[1]
            bare = re.sub(r"<[^{]*?>(?=[ ,{]|$)", "", line)
            parents = re.split(r" (?:extends|implements) ", bare.removesuffix("{"))[1:]
            kinds[name] = {one.strip() for part in parents for one in part.split(",")}
        elif "descriptor:" in line:
            descriptor = line.split()[1]
            member = re.search(r"([\w$.]+)(?:\(.*)?(?: throws .*)?;$", declared)[1]  # noqa: F821
            member = "<init>" if member == name else member.rpartition(".")[2]
            members.add((name, member, descriptor, " static " in declared))  # noqa: F821
        else:
            declared = re.sub(r"<.*?>", "", line)
            declared = re.sub(r" throws .*;$", ";", declared)
    return kinds, members


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    needed("javac", "javap")
    out = tmp_path_factory.mktemp("stubs")
    sources = sorted(map(str, (APP / "stubs").rglob("*.java")))
    run(["javac", "--release", "8", "-Xlint:-options", "-d", str(out), *sources])
    return disclosed(out)


def test_the_stubs_are_what_is_recorded_and_nothing_else(stubs):
    kinds, members = recorded()
    found_kinds, found = stubs
    found = {one for one in found if one[1] not in OF_EVERY_ENUM}
    assert found == members
    assert found_kinds.keys() == kinds.keys()
    for name, parents in kinds.items():
        assert found_kinds[name] == parents, name


def test_the_stand_in_of_the_tests_has_the_same_members(jvm):
    """So that what runs on the desktop is what runs on the phone."""
    _, members = recorded()
    _, found = disclosed(jvm.folder / "classes")
    ours = {one for one in found if one[0].startswith("ai.onnxruntime") and
            one[1] not in OF_EVERY_ENUM}  # fmt: skip
    assert ours == members


if os.environ.get("MFAGAN_ORT_JAR"):

    def test_the_real_jar_has_them(tmp_path):
        with zipfile.ZipFile(os.environ["MFAGAN_ORT_JAR"]) as archive:
            archive.extractall(tmp_path, [n for n in archive.namelist() if n.startswith("ai/")])
        found_kinds, found = disclosed(tmp_path)
        kinds, members = recorded()
        assert members <= found
        for name, parents in kinds.items():
            assert parents <= found_kinds[name], name
