"""Transparency, 16 bits and grey through upscaling, and the command on such files."""

import json

import numpy as np
import pytest
import torch
from mutated_images import pattern, saved
from PIL import Image

import mfagan
from mfagan import upscale_cli
from mfagan.about import About
from mfagan.architecture import parse
from mfagan.checkpoint import build_network, save_network
from mfagan.images import read_image, write_image, write_picture
from mfagan.model import Model
from mfagan.picture import Picture, read_picture
from mfagan.resize import upscale_bicubic
from mfagan.upscaling import upscale_picture

NAME = "mfa_x2_w2_c1_s0"
NEAREST = Model(
    architecture=parse(NAME),
    precision="fp32",
    run=lambda lr: lr.repeat(2, 2).repeat(2, 3),
)
"""A network that repeats its input, so that every value can be followed."""


def twice(array):
    return array.repeat(2, 0).repeat(2, 1)


def deep(*shape):
    return np.random.default_rng(1).integers(0, 65536, shape).astype(np.uint16)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save_network(path, build_network(parse(NAME)), About(kind="generator", architecture=NAME))
    return path


@pytest.fixture
def command(weights, monkeypatch, tmp_path):
    """Run the command in a folder of its own, with `NEAREST` in place of the network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(upscale_cli, "load", lambda *_, **__: NEAREST)
    return lambda *argv: upscale_cli.main([*map(str, argv), "--model", str(weights)])


def test_every_16_bit_value_survives_a_network_that_repeats(tmp_path):
    image = np.arange(65536 * 3, dtype=np.uint32).reshape(256, 256, 3).astype(np.uint16)
    large = mfagan.upscale(image, NEAREST, tile=100)
    assert large.dtype == np.uint16
    assert np.array_equal(large, twice(image))
    write_image(tmp_path / "a.png", large)
    assert np.array_equal(read_picture(tmp_path / "a.png").pixels, twice(image))
    assert np.array_equal(mfagan.upscale(pattern(9, 8), NEAREST), twice(pattern(9, 8)))


def test_16_bits_go_through_the_network_as_floats(weights):
    model = mfagan.load(weights, device="cpu", threads=1)
    image = deep(20, 17, 3)
    lr = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(65535))
    torch.manual_seed(0)
    with torch.inference_mode():
        sr = build_network(parse(NAME)).eval()(lr)[0].permute(1, 2, 0).double().clamp(0, 1)
    got = mfagan.upscale(image, model, tile=8)
    assert np.abs(got - 65535 * sr.numpy()).max() <= 2
    shallow = mfagan.upscale((image // 257).astype(np.uint8), model)
    same = mfagan.upscale((image // 257 * 257).astype(np.uint16), model)
    assert np.abs(same / 257 - shallow).max() <= 0.51


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_transparency_is_enlarged_by_bicubic_interpolation(kind):
    most = np.iinfo(kind).max
    alpha = np.zeros((20, 24), kind)
    alpha[4:16, 4:20] = most
    alpha[8:12, 8:12] = most // 3
    got = upscale_picture(Picture(pixels=deep(20, 24, 3).astype(kind), alpha=alpha), NEAREST).alpha
    assert got.dtype == kind
    # Turned, because Pillow resizes the width first, and both clip in between.
    shallow = (alpha // (most // 255)).astype(np.uint8)
    expected = upscale_bicubic(shallow.T[..., None], 2)[..., 0].T
    inside = (slice(4, -4), slice(4, -4))  # they end the picture differently
    assert np.abs(got[inside] / (most // 255) - expected[inside]).max() <= 1.01
    for level in (0, 1, most // 2, most):
        flat = np.full((7, 9), level, kind)
        picture = Picture(pixels=np.zeros((7, 9, 3), kind), alpha=flat)
        assert (upscale_picture(picture, NEAREST).alpha == level).all()


def test_hidden_colours_do_not_bleed():
    """A red disc on transparent green gives no green anywhere."""
    y, x = np.mgrid[:24, :24]
    disc = (y - 12) ** 2 + (x - 12) ** 2 < 60
    pixels = np.where(disc[..., None], [200, 0, 0], [0, 255, 0]).astype(np.uint8)
    alpha = np.where(disc, 255, 0).astype(np.uint8)
    large = upscale_picture(Picture(pixels=pixels, alpha=alpha), NEAREST)
    assert (large.pixels == (200, 0, 0)).all()
    nothing = Picture(pixels=pixels, alpha=np.zeros_like(alpha))
    assert np.array_equal(upscale_picture(nothing, NEAREST).pixels, twice(pixels))
    half = Picture(pixels=pixels, alpha=np.maximum(alpha, 1))
    assert np.array_equal(upscale_picture(half, NEAREST).pixels, twice(pixels))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_grey_stays_grey(kind):
    tinted = Model(
        architecture=parse(NAME),
        precision="fp32",
        run=lambda lr: NEAREST.run(lr) * np.array([1, 0.5, 0], np.float32)[:, None, None],
    )
    most = np.iinfo(kind).max
    grey = np.full((3, 4, 3), most, kind)
    large = upscale_picture(Picture(pixels=grey, grey=True), tinted)
    assert large.grey
    half = np.floor(most / 2 + 0.5)
    assert (large.pixels == np.floor(0.299 * most + 0.587 * half + 0.5)).all()


@pytest.mark.parametrize(
    ("given", "wanted"), [("png", "png"), ("png", "tif"), ("tif", "png"), ("tif", "tiff")]
)
@pytest.mark.parametrize("alpha", [False, True])
def test_the_command_keeps_16_bits_and_alpha(command, capsys, given, wanted, alpha):
    picture = Picture(
        pixels=deep(9, 8, 3), alpha=np.full((9, 8), 999, np.uint16) if alpha else None
    )
    write_picture(f"in.{given}", picture)
    assert command(f"in.{given}", f"out.{wanted}") == 0
    got = read_picture(f"out.{wanted}")
    assert np.array_equal(got.pixels, twice(picture.pixels))
    assert (got.alpha == 999).all() if alpha else got.alpha is None
    assert "warning" not in capsys.readouterr().err


def test_the_command_says_what_is_lost_once(command, capsys):
    write_picture("in.png", Picture(pixels=deep(9, 8, 3), alpha=deep(9, 8)))
    assert command("in.png", "out.jpg") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert lines == [
        "mfagan-upscale: warning: 'in.png': .jpg holds no transparency: it is laid on white and "
        "no 16 bits a channel: they are reduced to 8"
    ]
    assert read_image("out.jpg").shape == (18, 16, 3)


def test_the_command_turns_a_picture_once(command, tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    image = Image.fromarray(pattern(9, 8))
    for suffix, kind in (("jpg", "JPEG"), ("png", "PNG"), ("tif", "TIFF")):
        (tmp_path / f"in.{suffix}").write_bytes(saved(image, kind, exif=exif.tobytes()))
        assert command(f"in.{suffix}", f"out.{suffix}") == 0
        with Image.open(f"out.{suffix}") as written:
            assert written.size == (18, 16)
            assert 274 not in written.getexif()
    assert np.array_equal(read_image("out.png"), twice(np.rot90(pattern(9, 8), -1)))


def test_the_command_keeps_grey_and_writes_by_the_name(command):
    Image.fromarray(pattern(9, 8)[..., 0].copy()).save("in.png")
    for suffix, kind in (("png", "PNG"), ("jpg", "JPEG"), ("tif", "TIFF"), ("bmp", "BMP")):
        assert command("in.png", f"out.{suffix}") == 0
        with Image.open(f"out.{suffix}") as written:
            assert (written.format, written.mode) == (
                kind,
                "L" if suffix != "bmp" else written.mode,
            )
        assert read_picture(f"out.{suffix}").grey or suffix == "bmp"


def test_the_command_takes_files_folders_and_patterns(command, tmp_path, capsys):
    for name in ("a.png", "in/b.png", "in/deep/ü 写真.webp"):
        write_image(tmp_path / name, pattern(5, 6))
    assert command("a.png", "in/**/*.webp", "in/b.png", "out", "--json") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    written = json.loads(captured.out)["written"]
    assert sorted(written) == ["out/a.png", "out/b.png", "out/deep/ü 写真.webp"]
    for name in written:
        assert np.array_equal(read_image(name), twice(pattern(5, 6)))
    assert command("a.png", "missing.png", "out2") == 2
    assert not (tmp_path / "out2").exists()
    assert capsys.readouterr().err == "mfagan-upscale: 'missing.png' does not exist\n"


def test_overwrite_replaces_the_photograph(command, tmp_path, capsys):
    write_image(tmp_path / "in" / "a.png", pattern(5, 6))
    assert command("in", "in") == 2
    assert "--overwrite allows it" in capsys.readouterr().err
    assert np.array_equal(read_image("in/a.png"), pattern(5, 6))
    assert command("in", "in", "--overwrite") == 0
    assert np.array_equal(read_image("in/a.png"), twice(pattern(5, 6)))
    assert command("in/a.png", "in/a.png", "--overwrite") == 0
    assert read_image("in/a.png").shape == (20, 24, 3)
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.png"]


def test_quality_and_its_want_of_effect(command, tmp_path, capsys):
    write_image(tmp_path / "a.png", pattern(30, 30))
    sizes = []
    for quality in ("10", "90"):
        assert command("a.png", "o.jpg", "--quality", quality) == 0
        sizes.append((tmp_path / "o.jpg").stat().st_size)
    assert sizes[0] < sizes[1]
    assert "warning" not in capsys.readouterr().err
    assert command("a.png", "o.png", "--quality", "90") == 0
    assert "warning: --quality has no effect" in capsys.readouterr().err
    for wrong in ("0", "101", "high"):
        assert command("a.png", "o.jpg", "--quality", wrong) == 2
        assert "--quality" in capsys.readouterr().err


def test_notes_are_warnings_and_the_work_is_done(command, tmp_path, capsys):
    pages = [Image.fromarray(pattern(9, 8))] * 2
    (tmp_path / "a.jpg").write_bytes(saved(pages[0], "TIFF", save_all=True, append_images=pages))
    assert command("a.jpg", "o.png") == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert warned == [
        "mfagan-upscale: warning: 'a.jpg': it is a TIFF, whatever its name says",
        "mfagan-upscale: warning: 'a.jpg': only the first of its frames or pages is read",
    ]
