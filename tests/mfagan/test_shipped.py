"""The networks that come with the package: found by name, held to their list, used by default."""

import hashlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import shipped_folder

import mfagan
from export.cli import main as export
from mfagan import shipped
from mfagan.architecture import architecture_costs, parse
from mfagan.images import read_image, write_image
from mfagan.shipped import ShippedFile, ShippedModel, names, resolve_model, verify
from mfagan.upscale_cli import main as upscale

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "weights"
    shipped_folder.make(folder)
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy of the package's folder with tiny networks, beside which the test works."""
    shutil.copytree(made, tmp_path / "weights")
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "weights"


@pytest.fixture
def empty(folder):
    """A build without weights."""
    for file in folder.glob("*.safetensors"):
        file.unlink()
    (folder / shipped.LIST).write_text("# nothing yet\n")
    return folder


def image(height=7, width=9):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def change(folder, before, after):
    """Replace a text of the list, where it stands first."""
    text = (folder / shipped.LIST).read_text()
    assert before in text
    (folder / shipped.LIST).write_text(text.replace(before, after, 1))


# --- the folder of this checkout


def test_what_is_shipped_agrees_with_its_list():
    assert verify() == []


def test_the_page_on_upscaling_names_what_is_shipped():
    page = (ROOT / "docs" / "upscaling.md").read_text(encoding="utf-8")
    for name in (*names(), shipped.DEFAULT_MODEL, shipped.DEFAULT_SUPERNET):
        assert f"`{name}`" in page


@pytest.mark.parametrize("name", names())
def test_what_is_shipped_says_what_it_is_worth(name):
    model = shipped.shipped(name)
    assert 0 < len(model.description) <= 80
    assert model.photographs > 0
    assert model.figures
    assert all(np.isfinite(value) for value in model.figures.values())
    assert (name == shipped.DEFAULT_SUPERNET) == (model.network == "supernet")


@pytest.mark.parametrize("name", names())
def test_what_is_shipped_tells_no_folder_of_its_maker(name):
    from mfagan.checkpoint import read_about

    assert "/" not in str(read_about(shipped.shipped(name).weights).configuration)


@pytest.mark.parametrize(
    ("name", "parameters", "gmac"),
    [("large", 420e3, 27.4), ("middle", 420e3, 13), ("small", 6e4, 27)],
)
def test_what_is_shipped_is_as_small_as_it_is_called(name, parameters, gmac):
    for each in {name, f"{name}-gan"} & set(names()):
        costs = architecture_costs(parse(shipped.shipped(each).architecture))
        assert costs.parameters <= parameters
        assert costs.macs <= gmac * 1e9


@pytest.mark.parametrize("name", [name for name in names() if name != shipped.DEFAULT_SUPERNET])
def test_every_generator_comes_as_onnx_that_loses_a_tenth_of_a_decibel_at_most(name):
    model = shipped.shipped(name)
    # All files together may have 8 MB, and `mfagan-export large` makes the missing one.
    precisions = {"fp32": 0.001, "int8": 0.1} if name != "large" else {"int8": 0.1}
    assert model.files.keys() == {"weights", *precisions}
    for precision, most in precisions.items():
        assert mfagan.load(f"{name}:{precision}", threads=1).precision == precision
        for test in ("set5", "set14"):
            worth = model.figures[f"{test}_psnr_y_crop4_{precision}"]
            assert worth >= model.figures[f"{test}_psnr_y_crop4"] - most


# --- names and paths


def test_the_list_is_read_as_it_is_written(folder):
    assert names() == shipped_folder.NAMES
    found = shipped.shipped("large-gan")
    path = folder / "large-gan.safetensors"
    file = ShippedFile(path=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    assert found == ShippedModel(
        name="large-gan",
        description="large-gan, of chance",
        network="generator",
        architecture=shipped_folder.TINY,
        stage="gan",
        photographs=206,
        files={"weights": file},
        figures={"set5_psnr_y_crop4": 27.5},
    )
    assert found.weights == file.path


def test_what_exists_comes_before_a_name_and_a_suffix_before_both(folder):
    assert resolve_model("large") == folder / "large.safetensors"
    assert resolve_model(Path("large")) == Path("large")
    Path("large").mkdir()
    assert resolve_model("large") == Path("large")
    for text in ("large.onnx", "supernet.safetensors", "none/x.ONNX", "x.pth"):
        assert resolve_model(text) == Path(text)


def test_a_wrong_name_is_answered_with_the_nearest_and_all(folder):  # noqa: ARG001
    known = r"is no shipped network \(large, large-gan, supernet\); did you mean 'large-gan'\?$"
    with pytest.raises(FileNotFoundError, match=f"'large_gan' does not exist and {known}"):
        resolve_model("large_gan")
    with pytest.raises(FileNotFoundError, match=f"'large_gan' {known}"):
        shipped.shipped("large_gan")
    with pytest.raises(FileNotFoundError, match=r"^'large' comes as weights, not as 'int8'$"):
        resolve_model("large:int8")
    assert resolve_model("large:weights") == resolve_model("large")


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("[model.large]", "[model.large", "is not TOML"),
        ("photographs = 206", "photos = 206", "damaged at 'large' .*photos"),
        ("files.weights", "files.fp32", "damaged at 'large' .*weights"),
        ("sha256", "sha", "damaged at 'large' .*sha256"),
        ('network = "generator"', 'network = "teacher"', "damaged at 'large' .*'teacher'"),
    ],
)
def test_a_damaged_list_is_one_sentence(folder, before, after, reason):
    change(folder, before, after)
    with pytest.raises(ValueError, match=reason) as caught:
        resolve_model("large")
    assert len(str(caught.value).splitlines()) == 1


# --- what `verify` finds


def test_every_fault_is_found(folder):
    assert verify() == []
    damaged = folder / "large.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    (folder / "supernet.safetensors").unlink()
    (folder / "letter.txt").write_text("not ours")
    faults = verify()
    assert len(faults) == 3
    assert re.search("large: .*'.*large.safetensors' is damaged: its SHA-256", faults[0])
    assert re.search("supernet: .*'.*supernet.safetensors' is missing", faults[1])
    assert re.search("letter.txt' is not in weights.toml", faults[2])


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        (
            'stage = "pixel"',
            'stage = "gan"',
            "stage of '.*large.safetensors' is 'pixel', not 'gan'",
        ),
        ("_w4_", "_w8_", "architecture of '.*large.safetensors' is 'mfa_x4_w4_c1_s0'"),
        ('network = "generator"', 'network = "supernet"', "network of .* is 'generator'"),
    ],
)
def test_a_list_that_says_another_thing_than_the_file_is_found(folder, before, after, fault):
    change(folder, before, after)
    (found,) = verify()
    assert re.search(fault, found)


def test_too_much_is_found(folder, monkeypatch):
    total = sum(file.stat().st_size for file in folder.iterdir())
    monkeypatch.setattr(shipped, "MOST_BYTES", total)
    assert verify() == []
    monkeypatch.setattr(shipped, "MOST_BYTES", total - 1)
    assert verify() == [f"'{folder}' has {total:,} bytes, more than {total - 1:,}"]


# --- used


def test_photographs_are_enlarged_without_a_model(folder, tmp_path, capsys):
    by_file = mfagan.upscale(image(), mfagan.load(folder / "large-gan.safetensors"))
    assert np.array_equal(mfagan.upscale(image()), by_file)
    assert np.array_equal(mfagan.upscale(image(), "large-gan"), by_file)
    assert np.array_equal(mfagan.upscale(image(), mfagan.load()), by_file)
    other = mfagan.upscale(image(), "large")
    assert np.array_equal(other, mfagan.upscale(image(), folder / "large.safetensors"))
    assert not np.array_equal(other, by_file)
    write_image(tmp_path / "in.png", image())
    assert upscale(["in.png", "out.png"]) == 0
    assert np.array_equal(read_image(tmp_path / "out.png"), by_file)
    assert upscale(["in.png", "out.png", "--model", "large"]) == 0
    assert np.array_equal(read_image(tmp_path / "out.png"), other)
    assert capsys.readouterr().out == "out.png\nout.png\n"


def test_a_supernet_is_cut_by_its_name(folder):  # noqa: ARG001
    assert mfagan.load("supernet").architecture == shipped_folder.SPACE.largest
    chosen = mfagan.load("supernet", architecture=shipped_folder.TINY)
    assert str(chosen.architecture) == shipped_folder.TINY


def test_without_weights_the_sentence_says_so(empty, tmp_path, capsys):  # noqa: ARG001
    assert (names(), verify()) == ((), [])
    write_image(tmp_path / "in.png", image())
    assert upscale(["in.png", "out.png"]) == 2
    assert capsys.readouterr().err == (
        "mfagan-upscale: 'large-gan' does not exist and is no shipped network: this build of "
        "mfagan ships no weights; give a file\n"
    )
    assert export(["large", "--out", "exported"]) == 2
    assert "this build of mfagan ships no weights" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="ships no weights"):
        mfagan.upscale(image())
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["in.png"]


def test_help_names_the_default(capsys):
    assert upscale(["--help"]) == 0
    assert "(default: large-gan)" in " ".join(capsys.readouterr().out.split())
