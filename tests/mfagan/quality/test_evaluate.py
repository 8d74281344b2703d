"""`mfagan-evaluate` on a model, on folders of results and on bicubic."""

import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from mfagan.about import About
from mfagan.architecture import parse
from mfagan.checkpoint import build_network, save_network
from mfagan.evaluate_cli import main
from mfagan.images import read_image, write_image
from mfagan.model import load
from mfagan.quality.fidelity import luma, psnr, psnr_y, ssim
from mfagan.quality.report import Evaluation
from mfagan.quality.side_by_side import ENLARGED, SIDE, side_by_side
from mfagan.resize import downscale, upscale_bicubic
from mfagan.upscaling import upscale

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.fixture
def truth(tmp_path):
    """Two photographs: one whose size is no multiple of 4, and a grey one in a subfolder."""
    folder = tmp_path / "truth"
    write_image(folder / "astronaut.png", data.astronaut()[:303, 60:322])
    (folder / "sub").mkdir()
    Image.fromarray(data.camera()[100:228, 200:300]).save(folder / "sub" / "camera.png")
    return folder


@pytest.fixture
def weights(tmp_path):
    import torch

    torch.manual_seed(0)
    file = tmp_path / "model.safetensors"
    text = "mfa_x4_w4_c1_s0"
    save_network(file, build_network(parse(text)), About(kind="generator", architecture=text))
    return file


def run(capsys, *words):
    status = main([*map(str, words), "--threads", "1"])
    output = capsys.readouterr()
    return status, output.out, output.err


def results(capsys, *words):
    status, printed, shown = run(capsys, *words, "--json")
    assert status == 0, shown
    return json.loads(printed)


def test_a_model_beside_bicubic(truth, weights, tmp_path, capsys):
    out = tmp_path / "out"
    status, printed, _ = run(capsys, weights, "bicubic", "--truth", truth, "--out", out)
    assert status == 0
    found = json.loads((out / "results.json").read_text())
    image = read_image(truth / "astronaut.png")[:300, :260]
    ours = upscale(downscale(image, 4), load(weights, threads=1))
    row = found["images"]["astronaut.png"]
    for name, result in (
        (weights.name, ours),
        ("bicubic", upscale_bicubic(downscale(image, 4), 4)),
    ):
        inner = (result[4:-4, 4:-4], image[4:-4, 4:-4])
        assert row[name]["psnr_y_crop4"] == psnr_y(result, image, 4)
        assert row[name]["psnr_rgb_crop4"] == psnr(*inner)
        assert row[name]["ssim_rgb_crop4"] == ssim(*inner)
        assert row[name]["niqe_y_crop4"] is None  # 2 x 3 blocks
    assert found["settings"]["without_colour"] == ["sub/camera.png"]
    assert [s["name"] for s in found["subjects"]] == [weights.name, "bicubic"]
    assert found["subjects"][0]["architecture"] == "mfa_x4_w4_c1_s0"
    values = [found["images"][name]["bicubic"]["ssim_y_crop4"] for name in found["images"]]
    assert found["means"]["bicubic"]["ssim_y_crop4"] == pytest.approx(sum(values) / 2)
    assert f"{found['means']['bicubic']['psnr_y_crop4']:.4f}" in printed
    lines = list(csv.DictReader((out / "results.csv").open(newline="")))
    assert [(line["subject"], line["image"]) for line in lines[:3]] == [
        (weights.name, "astronaut.png"), (weights.name, "sub/camera.png"), (weights.name, "mean"),
    ]  # fmt: skip
    assert float(lines[0]["psnr_y_crop4"]) == row[weights.name]["psnr_y_crop4"]
    pictures = sorted(p.relative_to(out).as_posix() for p in out.rglob("*.png"))
    assert pictures == ["pictures/astronaut.png", "pictures/sub/camera.png"]
    assert printed.splitlines()[-1] == str(out / "results.csv")


def test_a_folder_of_results_and_lr_images_of_their_own(truth, tmp_path, capsys):
    image = read_image(truth / "astronaut.png")[:300, :260]
    shutil.rmtree(truth / "sub")
    small = downscale(image, 4)
    write_image(tmp_path / "lr" / "astronautx4.png", 255 - small)
    write_image(tmp_path / "sr" / "astronaut.bmp", image)
    found = results(
        capsys, tmp_path / "sr", "bicubic", "--truth", truth, "--lr", tmp_path / "lr",
        "--measures", "psnr,spectrum", "--crop", "6",
    )  # fmt: skip
    row = found["images"]["astronaut.png"]
    assert row["sr"]["psnr_y_crop6"] is None  # without an error: infinite
    assert row["sr"]["energy_high_y_crop6"] == 1
    assert row["bicubic"]["psnr_y_crop6"] == psnr_y(upscale_bicubic(255 - small, 4), image, 6)
    assert row["bicubic"]["correlation_mid_y_crop6"] < 0
    assert set(found["images"]["astronaut.png"]) == {"sr", "bicubic"}


def test_grey_as_it_is_has_a_wider_range(truth, capsys):
    words = ("bicubic", "--truth", truth, "--measures", "psnr")
    rgb, raw = (results(capsys, *words, "--luma", way) for way in ("rgb", "matlab"))
    name = "sub/camera.png"
    grey = np.asarray(Image.open(truth / name))
    image = grey[..., None].repeat(3, 2)
    large = upscale_bicubic(downscale(image, 4), 4)
    expected = psnr(large[4:-4, 4:-4, 0], grey[4:-4, 4:-4])
    assert raw["images"][name]["bicubic"]["psnr_y_crop4"] == expected
    assert rgb["images"][name]["bicubic"]["psnr_y_crop4"] == psnr_y(large, image, 4)
    assert expected < rgb["images"][name]["bicubic"]["psnr_y_crop4"] - 1
    colour, size = "astronaut.png", (300, 260)
    y = luma(read_image(truth / colour)[: size[0], : size[1]]).astype(np.uint8)
    large = upscale_bicubic(downscale(y[..., None].repeat(3, 2), 4), 4)[..., 0]
    alone = raw["images"][colour]["bicubic"]
    assert alone["psnr_y_crop4"] == psnr(large[4:-4, 4:-4], y[4:-4, 4:-4])
    assert alone["psnr_rgb_crop4"] == rgb["images"][colour]["bicubic"]["psnr_rgb_crop4"]


def test_photographs_of_one_name_have_pictures_of_two(truth, tmp_path, capsys):
    shutil.rmtree(truth / "sub")
    write_image(truth / "astronaut.bmp", read_image(truth / "astronaut.png"))
    shutil.copytree(truth, tmp_path / "sr")
    for file in (tmp_path / "sr").iterdir():
        write_image(file, read_image(file)[:300, :260])
    out = tmp_path / "out"
    status, _, _ = run(
        capsys, "bicubic", tmp_path / "sr", "--truth", truth, "--out", out, "--measures", "psnr"
    )
    assert status == 0
    names = sorted(path.name for path in (out / "pictures").iterdir())
    assert names == ["astronaut.bmp.png", "astronaut.png.png"]


def test_a_result_of_another_size_is_named(truth, tmp_path, capsys):
    for name, shape in (("astronaut", (300, 260, 3)), ("sub/camera", (128, 96, 3))):
        write_image(tmp_path / "sr" / f"{name}.png", np.zeros(shape, np.uint8))
    status, _, shown = run(capsys, tmp_path / "sr", "--truth", truth)
    assert status == 2
    assert "1 of 2 results cannot be used: '" in shown
    assert "camera.png' is 96x128, its photograph 100x128 in whole LR pixels" in shown


def test_two_models_of_one_name_are_told_apart(truth, weights, tmp_path, capsys):
    other = tmp_path / "other" / weights.name
    text = "mfa_x4_w6_c1_s0"
    save_network(other, build_network(parse(text)), About(kind="generator", architecture=text))
    found = results(capsys, weights, other, "--truth", truth, "--measures", "psnr")
    assert list(found["means"]) == [str(weights), str(other)]
    values = [row["psnr_y_crop4"] for row in found["means"].values()]
    assert values[0] != values[1]
    (tmp_path / "ground truth").mkdir()
    for file in ("astronaut.png", "sub/camera.png"):
        image = read_image(truth / file)
        cut = [n - n % 4 for n in image.shape[:2]]
        write_image(tmp_path / "ground truth" / file, image[: cut[0], : cut[1]])
    found = results(capsys, tmp_path / "ground truth", "--truth", truth)
    assert found["means"][str(tmp_path / "ground truth")]["ssim_y_crop4"] == pytest.approx(1)


def test_options_without_effect_are_warned_of(truth, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mfagan.shipped.names", lambda: ("large",))
    monkeypatch.chdir(tmp_path)
    for file in ("astronaut.png", "sub/camera.png"):
        image = read_image(truth / file)
        cut = [n - n % 4 for n in image.shape[:2]]
        write_image(tmp_path / "large" / file, image[: cut[0], : cut[1]])
        write_image(tmp_path / "lr" / file, downscale(image[: cut[0], : cut[1]], 4))
    words = ("--truth", truth, "--lr", "lr", "--lpips-weights", "nowhere", "--measures", "psnr")
    status, _, shown = run(capsys, "large", *words)
    assert status == 0
    assert "--lpips-weights has no effect" in shown
    assert "--lr has no effect" in shown
    assert "'large' is a folder here; it hides the shipped network" in shown
    _, _, shown = run(capsys, "bicubic", *words, "--luma", "matlab")
    assert "with --lr, bicubic enlarges RGB" in shown


def test_the_picture_shows_where_they_differ():
    truth = np.zeros((200, 240, 3), np.uint8)
    first, second = truth.copy(), truth.copy()
    first[0, 0] = 200
    second[150:160, 170:180] = 30
    picture = side_by_side(truth, [first, second], ["one", "two"])
    side = SIDE * ENLARGED
    assert picture.shape[1] == 4 * side + 18
    panels = picture[-side:]
    assert not panels[:, :side].any()  # ground truth
    assert not panels[:, side + 6 : 2 * side + 6].any()  # the pixel of the first is elsewhere
    difference = panels[:, -side:]
    assert np.array_equal(difference, np.minimum(4 * panels[:, 2 * side + 12 : 3 * side + 12], 255))
    assert (difference == 120).sum() == 3 * 100 * ENLARGED**2
    small = side_by_side(truth[:20, :30], [first[:20, :30], second[:20, :30]], ["one", "two"])
    assert small.shape[1] == 4 * 30 * ENLARGED + 18


def test_means_leave_out_what_an_image_does_not_have():
    rows = [{"a": 1.0, "b": math.nan}, {"a": 3.0, "b": 5.0}, {"a": math.inf}]
    found = Evaluation(settings={}, subjects=[], images=["x", "y", "z"], values={"s": rows})
    assert found.means() == {"s": {"a": math.inf, "b": 5.0}}
    assert found.to_json()["means"] == {"s": {"a": None, "b": 5.0}}
    assert found.to_json()["counts"] == {"s": {"a": 3, "b": 1}}
    assert found.table().splitlines()[2].endswith("5.0000  (1 of 3)")
    assert found.to_csv().splitlines()[1:] == [
        "s,x,1.0,",
        "s,y,3.0,5.0",
        "s,z,inf,",
        "s,mean,inf,5.0",
    ]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the benchmark sets are not beside the checkout")
@pytest.mark.parametrize(
    ("name", "protocol", "expected"),
    [
        ("Set5", "rgb", 28.42),
        ("Set5", "matlab", 28.42),
        ("Set14", "rgb", 26.09),
        ("Set14", "matlab", 26.00),
    ],
)
def test_published_bicubic_figures(name, protocol, expected, capsys):
    words = ("bicubic", "--truth", SHARED / "test" / name, "--luma", protocol, "--measures", "psnr")
    means = results(capsys, *words)["means"]
    assert round(means["bicubic"]["psnr_y_crop4"], 2) == expected
    if protocol == "rgb":
        published = results(capsys, *words, "--lr", SHARED / "lr_matlab" / name / "x4")
        assert published["means"] == means
