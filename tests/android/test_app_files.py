"""The app's files: what a process that is ended at any moment leaves for the next, and copies."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.debian
OLD = {"result": "old", "scale": 2, "said": "2 times"}
NEW = {"result": "new", "scale": 4, "said": "4 times"}
NONE = {"result": "", "scale": 0, "said": ""}


@pytest.fixture
def store(jvm, tmp_path):
    """Return a function that opens the store, does what is asked and says what it then holds."""
    folder = tmp_path / "picture"

    def ask(**asked):
        (found,) = jvm.ask({"ask": "store", "folder": str(folder), **asked})
        return {name: found[name] for name in NONE}, found["failed"]

    ask.folder = folder
    return ask


def in_the_way(folder, name):
    """Make a folder that no file can take the place of, and return what removes it."""
    (folder / name / "full").mkdir(parents=True)
    return lambda: ((folder / name / "full").rmdir(), (folder / name).rmdir())


def test_a_result_outlives_the_process_and_goes_with_its_picture(store):
    assert store() == (NONE, "")
    assert store(source="picture") == (NONE, "")
    assert store(**OLD) == (OLD, "")
    assert store() == (OLD, "")
    assert store(**NEW) == (NEW, "")
    assert store(source="another") == (NONE, "")
    assert (store.folder / "source").read_text() == "another"
    assert [path.name for path in store.folder.iterdir()] == ["source"]


def test_a_result_whose_words_cannot_be_written_is_not_taken(store):
    store(**OLD)
    remove = in_the_way(store.folder, "about.next")
    assert store(**NEW)[1]
    remove()
    assert store() == (OLD, "")
    assert not list(store.folder.glob("*.part"))


@pytest.mark.parametrize("name", ["result.png", "about"])
def test_a_result_that_was_cut_short_is_taken_by_the_next_process(store, name):
    """Cut short before the result is moved, and after it, before its words are."""
    store(source="picture")
    remove = in_the_way(store.folder, name)
    assert store(**NEW)[1] == f"'{name}' cannot be written"
    assert (store.folder / "result.part").exists() == (name == "result.png")
    remove()
    assert store() == (NEW, "")
    assert sorted(path.name for path in store.folder.iterdir()) == ["about", "result.png", "source"]


def test_what_was_begun_is_removed(store):
    store(**OLD)
    for name in ("source.part", "result.part", "about.part"):
        (store.folder / name).write_text("half")
    assert store() == (OLD, "")
    assert not list(store.folder.glob("*.part"))


@pytest.mark.parametrize("about", [None, "", "scale=x", "scale=0", "said=much"])
def test_a_result_of_which_nothing_is_known_is_none(store, about):
    store(**OLD)
    (store.folder / "about").unlink()
    if about is not None:
        (store.folder / "about").write_text(about)
    found, _ = store()
    assert (found["scale"], found["said"]) == (0, "")


def test_copies_are_cancelled_limited_and_closed(jvm, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes(2**20 + 1))
    asked = {"ask": "copy", "path": str(path), "most": 2**21}
    whole, cancelled, refused = jvm.ask(asked, asked | {"cancel": 1}, asked | {"most": 2**20})
    assert whole == [2**20 + 1, False]
    assert cancelled["kind"] == "CancelledException"
    assert refused == {
        "refused": "the file is larger than 1 MiB", "kind": "RefusedException"}  # fmt: skip


def test_a_model_that_does_not_fit_into_memory_is_answered(jvm, tmp_path):
    """The tests' JVM has a heap of 512 MiB."""
    import json

    from jvm import run

    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(700 * 2**20)
    words = [f"model={path}", "shape=1,3,8,8", "id=a", "runs=1"]
    command = jvm.command("io.github.mfagan.app.MeasureOnDesktop", *words, runtime=True)
    answer = json.loads(run(command).splitlines()[-1])
    assert answer["error"] == "memory"
    command[-4] = f"model={tmp_path}/none.onnx"
    assert json.loads(run(command).splitlines()[-1])["error"] == "model"
