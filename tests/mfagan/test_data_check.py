import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from skimage import data
from skimage.transform import resize

from mfagan.data_check import benchmark_hashes, check_folder
from mfagan.data_cli import main
from mfagan.images import read_image, write_image
from mfagan.picture_hash import (
    BITS,
    SAME_SCENE,
    Nearest,
    from_text,
    hash_picture,
    mirrored,
    to_text,
)

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SCENES = ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry", "hubble_deep_field")


def scene(name):
    return np.ascontiguousarray(getattr(data, name)()[:400, :400])


def half(image):
    size = [n // 2 for n in image.shape[:2]]
    small = resize(image, (*size, 3), anti_aliasing=True)
    return (small * 255).round().astype(np.uint8)


COPIES = {
    "jpeg": lambda image: image,  # written as JPEG of quality 50
    "half": half,
    "mirror": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "cropped": lambda image: np.ascontiguousarray(image[8:, 8:]),  # 2 % of 400
    "mirror_half": lambda image: half(image[:, ::-1]),
    "brighter": lambda image: (image * 0.9 + 25).astype(np.uint8),
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    for name in SCENES:
        write_image(root / f"{name}.png", scene(name))
    return root


@pytest.fixture
def folder(scenes, tmp_path):
    """A folder of different scenes that a test may change."""
    shutil.copytree(scenes, tmp_path / "photos")
    return tmp_path / "photos"


def found(folder, **options):
    options.setdefault("side", 128)
    return check_folder(folder, silent=True, **options).findings


def test_different_scenes_are_left_alone(scenes):
    checked = check_folder(scenes, side=128, silent=True)
    assert checked.findings == []
    assert checked.images == len(SCENES)
    assert checked.megapixels == pytest.approx(0.92)
    assert checked.compared_with == {"Set5": 5, "Set14": 14}


@pytest.mark.parametrize("copy", COPIES)
def test_copies_are_found(folder, copy):
    for name in SCENES:
        image = COPIES[copy](scene(name))
        suffix, quality = (".jpg", 50) if copy == "jpeg" else (".png", None)
        write_image(folder / f"z_{name}{suffix}", image, quality=quality)
    findings = found(folder)
    assert [(f.kind, Path(f.other).stem, f.file.stem) for f in findings] == [
        ("similar", name, f"z_{name}") for name in sorted(SCENES)
    ]
    assert {f.mirrored for f in findings} == {copy.startswith("mirror")}


def test_the_first_of_several_stays(folder):
    for name in ("copy1", "copy2"):
        shutil.copy(folder / "chelsea.png", folder / f"{name}.png")
        write_image(folder / f"{name}_half.png", half(scene("chelsea")))
    pairs = {(f.kind, f.file.stem, Path(f.other).stem) for f in found(folder)}
    assert pairs == {
        ("duplicate", "copy1", "chelsea"),
        ("duplicate", "copy2", "chelsea"),
        ("similar", "copy1_half", "chelsea"),
        ("duplicate", "copy2_half", "copy1_half"),
    }


def test_a_copy_in_another_format_has_the_same_pixels(folder):
    write_image(folder / "z.tif", scene("coffee"))
    (finding,) = found(folder)
    assert finding.sentence.endswith(f"has the same pixels as '{folder / 'coffee.png'}'")


def test_what_is_wrong_with_single_files(folder):
    whole = (folder / "coffee.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("no image")
    write_image(folder / "flat.png", np.full((200, 200, 3), 7, np.uint8))
    write_image(folder / "flat2.png", np.full((200, 210, 3), 9, np.uint8))
    write_image(folder / "low.png", scene("retina")[:127])
    findings = {f.file.stem: f for f in found(folder)}
    assert {name: f.kind for name, f in findings.items()} == {
        "cut": "unreadable",
        "text": "unreadable",
        "flat": "flat",
        "flat2": "flat",
        "low": "small",
    }
    assert "127x400, smaller than a crop of 128 pixels a side" in findings["low"].sentence
    for finding in findings.values():
        assert str(finding.file) in finding.sentence
        assert len(finding.sentence.splitlines()) == 1
    assert [f.kind for f in found(folder, side=127) if f.file.stem == "low"] == []


def test_sixteen_bits_show_the_same(folder):
    write_image(folder / "z.png", scene("coffee").astype(np.uint16) * 257)
    (finding,) = found(folder)
    assert (finding.kind, finding.distance) == ("similar", 0)


def test_test_pictures_are_found(folder, tmp_path):
    write_image(tmp_path / "tests" / "cat.png", half(scene("chelsea")))
    shutil.copy(folder / "rocket.png", tmp_path / "tests")
    write_image(tmp_path / "more" / "cup.png", scene("coffee")[:, ::-1])
    (tmp_path / "more" / "flat.png").write_bytes(_flat(tmp_path))
    places = [tmp_path / "tests", tmp_path / "more"]
    findings = found(folder, against=places)
    assert [(f.kind, f.file.stem, Path(f.other).stem) for f in findings] == [
        ("test picture", "chelsea", "cat"),
        ("test picture", "coffee", "cup"),
        ("test picture", "rocket", "rocket"),
    ]
    assert findings[1].mirrored
    assert "same pixels as the test picture" in findings[2].sentence
    assert check_folder(folder, against=places, side=1, silent=True).compared_with == {
        str(places[0]): 2, str(places[1]): 2, "Set5": 5, "Set14": 14,
    }  # fmt: skip


def _flat(folder):
    write_image(folder / "flat.png", np.zeros((50, 50, 3), np.uint8))
    return (folder / "flat.png").read_bytes()


def test_test_pictures_inside_the_folder_are_not_checked_themselves(folder):
    (folder / "valid").mkdir()
    (folder / "rocket.png").rename(folder / "valid" / "rocket.png")
    checked = check_folder(folder, against=[folder / "valid"], side=128, silent=True)
    assert (checked.images, checked.findings) == (len(SCENES) - 1, [])
    with pytest.raises(ValueError, match=r"all images of .* are in --against"):
        check_folder(folder, against=[folder], side=128, silent=True)


def test_the_command(folder, capsys):
    assert main(["check", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert out == ("6 images, 0.9 megapixels, compared with Set5 (5), Set14 (14): nothing found\n")
    assert err == f"images: 6/6{err[len('images: 6/6') :]}"
    write_image(folder / "z.png", half(scene("rocket")))
    write_image(folder / "low.png", scene("retina")[:90])
    assert main(["check", str(folder), "--patch", "50", "--scale", "2"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "smaller than a crop of 100 pixels" in lines[0]
    assert "shows the same as" in lines[1]
    assert lines[2].endswith(": 1 too small, 1 nearly the same picture as another")
    assert main(["check", str(folder), "--patch", "10", "--json"]) == 1
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert err == ""
    assert (result["images"], result["folder"]) == (8, str(folder))
    assert [f["kind"] for f in result["findings"]] == ["similar"]
    assert result["findings"][0]["other"] == str(folder / "rocket.png")


# --- hashes


def test_a_mirrored_pictures_hash_needs_no_picture():
    for name in SCENES:
        image = scene(name)
        turned = hash_picture(np.ascontiguousarray(image[:, ::-1]))
        assert (turned == mirrored(hash_picture(image))).all()


def test_the_bits_are_signs_of_scipys_transform():
    from scipy.fft import dctn

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (64, 64), dtype=np.uint8)
    image = np.repeat(coarse[..., None], 3, 2)  # averaged to 64x64, it stays as it is
    expected = dctn(coarse.astype(float))[:16, :16].ravel()[1:] > 0
    assert (hash_picture(image) == expected).all()


def test_a_hash_round_trips_through_text():
    bits = hash_picture(scene("coffee"))
    assert bits.shape == (BITS,)
    assert len(to_text(bits)) == 64
    assert (from_text(to_text(bits)) == bits).all()
    for wrong in ("", "00", "zz" * 32, "00" * 33):
        with pytest.raises(ValueError, match="hexadecimal"):
            from_text(wrong)


def test_the_nearest_is_found_as_by_counting():
    rng = np.random.default_rng(0)
    base = rng.random((40, BITS)) < 0.5
    nearest = Nearest(40)
    assert nearest.find(base[0]) is None
    for number, bits in enumerate(base):
        nearest.add(bits, str(number))
    for _ in range(100):
        query = base[rng.integers(40)] ^ (rng.random(BITS) < rng.choice([0.05, 0.2, 0.26, 0.4]))
        if rng.random() < 0.5:
            query = mirrored(query)
        counts = [
            (int((other != turned).sum()), str(number), way)
            for way, turned in ((False, query), (True, mirrored(query)))
            for number, other in enumerate(base)
        ]
        distance, label, way = min(counts)
        match = nearest.find(query)
        if distance > SAME_SCENE:
            assert match is None
        else:
            assert (match.distance, match.label, match.mirrored) == (distance, label, way)


def test_shipped_hashes_are_those_of_nineteen_pictures():
    hashes = benchmark_hashes()
    assert len(hashes) == 19
    assert {name.partition("/")[0] for name in hashes} == {"Set5", "Set14"}
    near = Nearest(19)
    for name, bits in hashes.items():
        match = near.find(bits)
        assert (match and match.label) == ("Set5/head" if name == "Set14/face" else None)
        near.add(bits, name)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the test sets are not at hand")
def test_shipped_hashes_are_of_the_published_pictures():
    for name, bits in benchmark_hashes().items():
        made = hash_picture(read_image(SHARED / "test" / f"{name}.png"))
        assert (made != bits).sum() <= 2  # another OpenCV may round another way


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the photographs are not at hand")
def test_two_hundred_photographs_are_all_different():
    checked = check_folder(SHARED / "train", side=128, silent=True)
    assert checked.images > 200
    assert checked.findings == []
