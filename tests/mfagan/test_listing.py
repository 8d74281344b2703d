"""What is found in folders and by patterns, and what is said of the rest."""

import os
import warnings

import pytest
from mutated_images import pattern

from mfagan.images import write_image
from mfagan.listing import list_images, match_images
from mfagan.upscale_plan import plan_files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("gl/rgb.png", "gl/sub/b.png"):
        write_image(tmp_path / name, pattern(4, 4))
    return tmp_path / "gl"


def test_links_to_folders_are_not_followed(folder):
    (folder / "self").symlink_to(".")
    (folder / "sub" / "up").symlink_to("..")
    expected = [folder / "rgb.png", folder / "sub" / "b.png"]
    assert match_images(f"{folder}/**/*.png") == expected
    assert match_images(f"{folder}/**") == expected
    assert match_images(f"{folder}/**/**/*.png") == expected
    assert list_images(folder) == expected
    assert {str(a): str(b) for a, b in plan_files(["gl/**/*.png"], "out")} == {
        "gl/rgb.png": "out/rgb.png",
        "gl/sub/b.png": "out/sub/b.png",
    }


def test_a_file_behind_several_links_is_one(folder):
    (folder / "again").symlink_to("sub")
    (folder / "self").symlink_to(".")
    assert match_images(f"{folder}/*/*.png") == [folder / "self/rgb.png", folder / "sub/b.png"]


def fill(folder):
    for name in ("IMG_1.HEIC", "anim.gif", "notes.txt", ".hidden.gif"):
        (folder / name).write_bytes(b"x")
    (folder / "lost.png").symlink_to("nowhere.png")
    (folder / "lost.txt").symlink_to("nowhere.txt")


@pytest.mark.parametrize("find", [list_images, lambda folder: match_images(f"{folder}/**")])
def test_pictures_that_are_not_read_are_told(folder, find):
    fill(folder)
    with pytest.warns(UserWarning, match="3 pictures") as told:
        assert find(folder) == [folder / "rgb.png", folder / "sub" / "b.png"]
    assert len(told) == 1
    sentence = "3 pictures are not read, 1 .gif, 1 .heic, 1 broken link: IMG_1.HEIC, anim.gif, "
    assert str(told[0].message).endswith(sentence + "lost.png")


def test_a_folder_of_nothing_else_says_so(folder):
    fill(folder)
    (folder / "rgb.png").unlink()
    (folder / "sub/b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no image .*; .*: 3 pictures are not read"):
        list_images(folder)
    (folder / "more").mkdir()
    for number in range(8):
        (folder / "more" / f"{number}.arw").write_bytes(b"x")
    write_image(folder / "a.png", pattern(4, 4))
    with pytest.warns(UserWarning, match=r"8 .arw.*lost.png, 0.arw, 1.arw and 6 more$"):
        list_images(folder)


def test_what_a_pattern_does_not_match_is_not_told(folder):
    fill(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert match_images(f"{folder}/r*.png") == [folder / "rgb.png"]


@pytest.mark.parametrize(
    "find",
    [
        list_images,
        lambda folder: match_images(f"{folder}/**/*.png"),
        lambda folder: match_images(f"{folder}/**"),
        lambda folder: [*match_images(f"{folder}/*.png"), *match_images(f"{folder}/s*/*.png")],
    ],
)
def test_an_unreadable_subfolder_is_told(folder, find, monkeypatch):
    write_image(folder / "sealed" / "c.png", pattern(4, 4))
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("sealed"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.warns(UserWarning, match="the folder '.*/sealed' cannot be read") as told:
        assert find(folder) == [folder / "rgb.png", folder / "sub" / "b.png"]
    assert len(told) == 1
    with pytest.raises(PermissionError):
        list_images(folder / "sealed")
