"""500 damaged files through upscaling and training: sentences, never a traceback."""

import re
import resource

import numpy as np
import pytest
import torch
from mutated_images import mutated_files, pattern, sound_files

from mfagan import train_cli, upscale_cli
from mfagan.about import About
from mfagan.architecture import parse
from mfagan.checkpoint import build_network, save_network
from mfagan.images import list_images, write_image
from mfagan.photos import PhotoCrops
from mfagan.picture import read_picture

MODEL = "mfa_x2_w2_c1_s0"
COUNT = 500
MOST_MEMORY = 1 << 20
"""KiB that the process may grow by."""
SENTENCE = re.compile(r"'[^\n]+' cannot be read as an image: it[^\n]+")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    for name, data in mutated_files(COUNT):
        (folder / name).write_bytes(data)
    assert len(list_images(folder)) == COUNT
    return folder


def test_the_seeds_themselves_are_sound(tmp_path):
    for name, data in sound_files().items():
        (tmp_path / name).write_bytes(data)
        assert min(read_picture(tmp_path / name).pixels.shape[:2]) == 36


@pytest.mark.filterwarnings("error")
def test_upscaling_does_the_good_and_names_the_bad(damaged, tmp_path, capfd):
    torch.set_num_threads(1)
    model = tmp_path / "m.safetensors"
    about = About(kind="generator", architecture=MODEL)
    save_network(model, build_network(parse(MODEL)), about)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    argv = [str(damaged), str(tmp_path / "out"), "--model", str(model), "--threads", "1"]
    assert upscale_cli.main([*argv, "--device", "cpu"]) == 1
    captured = capfd.readouterr()
    lines = captured.err.splitlines()
    bad = [line for line in lines if SENTENCE.fullmatch(line.removeprefix("mfagan-upscale: "))]
    others = [line for line in lines if line not in bad]
    written = captured.out.splitlines()
    assert len(bad) > COUNT / 4
    assert len(written) > COUNT / 10
    assert len(bad) + len(written) == COUNT
    assert all(line.startswith(("mfagan-upscale: warning: '", "photographs: ")) for line in others)
    assert len(list_images(tmp_path / "out")) == len(written)
    assert not list((tmp_path / "out").glob(".part-*"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY


def test_training_names_the_bad_and_runs_without_them(damaged, tmp_path, capfd):
    photos = tmp_path / "photos"
    photos.mkdir()
    for file in list_images(damaged):
        (photos / file.name).hardlink_to(file)
    for index in range(2):
        write_image(photos / f"good-{index}.png", pattern(40, 44 + index))
    argv = ["--data", str(photos), "--out", str(tmp_path / "run"), "--recipe", "smoke"]
    argv += ["--scale", "2", "--architecture", MODEL, "--gan-steps", "0", "--pixel-steps", "2"]
    argv += ["--patch", "8", "--batch", "2", "--threads", "1", "--precision", "fp32"]
    for _ in range(COUNT):
        status = train_cli.main(argv)
        error = capfd.readouterr().err
        if status == 0:
            break
        assert status == 2
        *others, last = error.splitlines()
        assert all(line.startswith(("mfagan-train: ", "photographs")) for line in others)
        assert re.match(r"mfagan-train: \d+ of \d+ photographs .*cannot be used: ", last)
        assert not (tmp_path / "run").exists()
        remove_named_bad(photos)
    assert status == 0
    assert (tmp_path / "run" / "summary.json").is_file()


def remove_named_bad(photos):
    """Do what the sentence asks for: remove what cannot be used."""
    removed = 0
    for file in list_images(photos):
        try:
            picture = read_picture(file).pixels
            usable = min(picture.shape[:2]) >= 16 and np.ptp(picture) > 0
        except ValueError:
            usable = False
        if not usable:
            file.unlink()
            removed += 1
    assert removed
    return removed


def test_every_bad_photograph_is_counted(damaged):
    files = list_images(damaged)
    unreadable = 0
    for file in files:
        try:
            read_picture(file)
        except ValueError:
            unreadable += 1
    with pytest.raises(ValueError, match=rf"^{unreadable} of {COUNT} photographs cannot") as caught:
        PhotoCrops(files, scale=2, patch=1, batch=1, seed=0).check(silent=True)
    text = str(caught.value)
    assert "\n" not in text
    assert text.count("cannot be read as an image") == 3
    assert text.endswith(f"and {unreadable - 3} more")
