import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from mfagan.about import About
from mfagan.architecture import parse
from mfagan.checkpoint import (
    build_network,
    cut_subnet,
    load_discriminator,
    load_network,
    read_about,
    save_network,
)
from mfagan.discriminator import PatchDiscriminator, PatchGanArchitecture
from mfagan.space import SearchSpace

SPACE = SearchSpace(widths=(4, 6), modules=(1, 2), convolutions=(2,), branches=(0, 1))
ARCHITECTURE = "mfa_x4_w4_c2-3_s0-1"


def about(**fields):
    return About(**{"kind": "generator", "architecture": ARCHITECTURE} | fields)


def write(path, **fields):
    save_network(path, build_network(parse(ARCHITECTURE)), about(**fields))
    return path


@pytest.mark.parametrize(
    ("kind", "architecture", "space"),
    [
        ("generator", ARCHITECTURE, None),
        ("generator", "mfa_x2_w8_c1_s2", None),
        ("supernet", str(SPACE.largest), SPACE),
        ("teacher", "rrdb_x4_w8_b1_g4", None),
    ],
)
def test_networks_are_rebuilt_from_their_file_alone(tmp_path, kind, architecture, space):
    network = build_network(parse(architecture), space)
    description = About(
        kind=kind,
        architecture=architecture,
        space=space,
        stage="pixel",
        step=7,
        metrics={"psnr_y_crop4": 30.5},
        configuration={"data": {"patch": 8, "data": "naïve 写真"}},
    )
    save_network(tmp_path / "a.safetensors", network, description)
    again, read = load_network(tmp_path / "a.safetensors")
    assert read == description
    assert not again.training
    lr = torch.rand(1, 3, 9, 6)
    assert torch.equal(again(lr), network.eval()(lr))


def test_the_file_is_the_same_every_time(tmp_path):
    network = build_network(parse(ARCHITECTURE))
    for name in "ab":
        save_network(tmp_path / name, network, about(metrics={"x": 1.0, "y": 2.0}))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_half_precision_is_half_the_size(tmp_path):
    network = build_network(parse(ARCHITECTURE))
    for half in (False, True):
        save_network(tmp_path / f"{half}", network, about(), half=half)
    sizes = [(tmp_path / name).stat().st_size for name in ("False", "True")]
    saved = 2 * sum(p.numel() for p in network.parameters())
    assert sizes[0] - sizes[1] == pytest.approx(saved, abs=16)  # the header names the types
    again = load_network(tmp_path / "True")[0].state_dict()
    for name, weight in network.state_dict().items():
        assert torch.equal(again[name], weight.half().float())
    torch.nn.init.constant_(network.head.bias, 70_000)
    with pytest.raises(ValueError, match=r"beyond half precision \(65504\)"):
        save_network(tmp_path / "True", network, about(), half=True)
    assert (tmp_path / "True").stat().st_size == sizes[1]


def test_subnets_are_cut_out_of_files(tmp_path):
    supernet = build_network(SPACE.largest, SPACE)
    file = tmp_path / "s.safetensors"
    save_network(
        file, supernet, About(kind="supernet", architecture=str(SPACE.largest), space=SPACE)
    )
    architecture = parse("mfa_x4_w4_c2-2_s0-1")
    plain, read = cut_subnet(file, architecture)
    assert (read.kind, read.architecture, read.space) == ("generator", str(architecture), None)
    lr = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(plain(lr), supernet(lr, architecture), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="not in the space"):
        cut_subnet(file, parse("mfa_x4_w5_c2_s0"))
    with pytest.raises(ValueError, match="holds a generator"):
        cut_subnet(write(tmp_path / "g.safetensors"), architecture)


def test_discriminators_have_their_own_loader(tmp_path):
    network = PatchDiscriminator(PatchGanArchitecture(layers=1, features=4))
    file = tmp_path / "d.safetensors"
    save_network(file, network, About(kind="discriminator", architecture="patchgan_n1_f4"))
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(load_discriminator(file).eval()(image), network.eval()(image))
    with pytest.raises(ValueError, match="holds a discriminator"):
        load_network(file)
    with pytest.raises(ValueError, match="not a discriminator"):
        load_discriminator(write(tmp_path / "g.safetensors"))


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a file"):
        read_about(tmp_path / "missing.safetensors")
    bad = tmp_path / "bad.safetensors"
    good = write(tmp_path / "good.safetensors").read_bytes()
    for data in (b"", b"\xff" * 8, b"\xff" * 100, b"PK\x03\x04 a zip", good[:60], good[:-20]):
        bad.write_bytes(data)
        with pytest.raises(
            ValueError, match=r"bad\.safetensors' is not a weights file that mfagan"
        ):
            load_network(bad)
    save_file({"w": torch.zeros(1)}, bad)
    with pytest.raises(ValueError, match="1 tensors of another network, the first is 'w'; of publ"):
        read_about(bad)


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ({"format": "2"}, "its format is 2, this version reads up to 1"),
        ({"kind": "pickle"}, "its kind is 'pickle'"),
        ({"architecture": "mfa_x4_w4_c9-9_s0-1"}, "do not fit the network"),
        ({"architecture": "mfa_x4_w4_c2"}, "grammar"),
        ({"space": "[]"}, "not a search space"),
        ({"metrics": "{"}, "not a weights file"),
        ({"step": "many"}, "not a weights file"),
    ],
)
def test_headers_that_lie(tmp_path, header, sentence):
    tensors = build_network(parse(ARCHITECTURE)).state_dict()
    file = tmp_path / "liar.safetensors"
    save_file(tensors, file, about().to_metadata() | header)
    with pytest.raises(ValueError, match=sentence):
        load_network(file)


def test_a_header_without_a_field(tmp_path):
    header = about().to_metadata()
    del header["stage"]
    save_file({"w": torch.zeros(1)}, tmp_path / "x", header)
    with pytest.raises(ValueError, match="lack 'stage'"):
        read_about(tmp_path / "x")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = write(tmp_path / "w.safetensors")
    before = file.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        save_network(file, build_network(parse(ARCHITECTURE)), dataclasses.replace(about(), step=9))
    assert file.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_header_whose_length_looks_like_a_pickle(tmp_path):
    file = tmp_path / "w.safetensors"
    for letters in range(0, 640, 8):
        save_file({"w": torch.zeros(1)}, file, {"note": "x" * letters})
        if file.read_bytes()[:9] == b"\x80\x02\0\0\0\0\0\0{":
            break
    else:
        pytest.fail("no header of 640 bytes")
    with pytest.raises(ValueError, match="1 tensors of another network, the first is 'w'"):
        read_about(file)
