import pytest
from mutated_images import pattern

from mfagan.images import write_image
from mfagan.upscale_plan import plan_files


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.jpg", "in/a.png", "in/sub/c d.png", "in/sub/写真.jpg", "in/[1].png"):
        write_image(tmp_path / name, pattern(4, 4))
    (tmp_path / "in/notes.txt").write_text("x")
    (tmp_path / "in/.hidden.png").write_text("x")
    (tmp_path / "there").mkdir()
    return tmp_path


def planned(*arguments, **options):
    *inputs, output = arguments
    return {str(a): str(b) for a, b in plan_files(inputs, output, **options)}


@pytest.mark.parametrize(
    ("arguments", "jobs"),
    [
        (("a.png", "o.jpg"), {"a.png": "o.jpg"}),
        (("a.png", "there"), {"a.png": "there/a.png"}),
        (("a.png", "new/"), {"a.png": "new/a.png"}),
        (("a.png", "b.jpg", "new"), {"a.png": "new/a.png", "b.jpg": "new/b.jpg"}),
        (("a.png", "./a.png", "new"), {"a.png": "new/a.png"}),
        (("in/[1].png", "o.png"), {"in/[1].png": "o.png"}),
        (("in/[[]1].png", "new"), {"in/[1].png": "new/[1].png"}),
        (("*.png", "new"), {"a.png": "new/a.png"}),
        (("in/**/*.jpg", "new"), {"in/sub/写真.jpg": "new/sub/写真.jpg"}),
        (("i?/s*/*", "new"), {f"in/sub/{n}": f"new/in/sub/{n}" for n in ("c d.png", "写真.jpg")}),
        (
            ("in", "b.jpg", "new"),
            {
                "in/[1].png": "new/[1].png",
                "in/a.png": "new/a.png",
                "in/sub/c d.png": "new/sub/c d.png",
                "in/sub/写真.jpg": "new/sub/写真.jpg",
                "b.jpg": "new/b.jpg",
            },
        ),
    ],
)
@pytest.mark.usefixtures("tree")
def test_what_is_read_and_written(arguments, jobs):
    assert planned(*arguments) == jobs


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("a.png", "in/a.png", "new"), "'a.png' and 'in/a.png' would both be written to 'new/a"),
        (("in", "a.png", "new"), "would both be written"),
        (("a.png", "b.jpg", "new.png"), "there are 2 inputs, so 'new.png' must be a folder"),
        (("a.png", "b.jpg", "in/notes.txt"), "there are 2 inputs"),
        (("in", "new.png"), "'in' is a folder, so 'new.png' must be one too"),
        (("*.png", "new.png"), r"'\*.png' is a pattern, so 'new.png' must be a folder"),
        (("in", "in/out"), "must not be inside 'in', the folder that is read"),
        (("in/**/*.png", "in/out"), "must not be inside 'in'"),
        (("a.png", "a.png"), "would replace a photograph that is read, 'a.png'; --overwrite"),
        (("in", "in"), "--overwrite allows it"),
        (("a.png", "."), "--overwrite allows it"),
        (("a.png", "o.gif"), "must end in one of"),
        (("a.png", "o"), "must end in one of"),
        (("in/notes.txt", "there"), "'there/notes.txt' must end in one of"),
    ],
)
@pytest.mark.usefixtures("tree")
def test_accidents_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        planned(*arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("missing.png", "o.png"), "'missing.png' does not exist"),
        (("*.bmp", "new"), r"no photograph matches '\*.bmp'"),
        (("in/*.txt", "new"), "no photograph matches"),
        (("there", "new"), "holds no image"),
    ],
)
@pytest.mark.usefixtures("tree")
def test_what_is_not_there_is_named(arguments, sentence):
    with pytest.raises(FileNotFoundError, match=sentence):
        planned(*arguments)


@pytest.mark.usefixtures("tree")
def test_overwrite_replaces_its_own_photograph_only():
    assert planned("a.png", "a.png", overwrite=True) == {"a.png": "a.png"}
    assert len(planned("in", "in", overwrite=True)) == 4
    with pytest.raises(ValueError, match="another folder"):
        planned("a.png", "*/a.png", "in", overwrite=True)
    with pytest.raises(ValueError, match="must not be inside"):
        planned("in", "in/out", overwrite=True)
