from collections import Counter, OrderedDict
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from published_files import (
    NAME,
    NAMINGS,
    Net2018,
    named_2018,
    named_2019,
    prefixed,
    saved,
    weights,
)
from safetensors.torch import save

from export import cli as export_cli
from latency import from_torch
from latency.costs import costs
from mfagan import upscale_cli
from mfagan.about import About
from mfagan.architecture import ESRGAN, parse
from mfagan.checkpoint import (
    PUBLISHED,
    copy_weights,
    is_weights_file,
    load_network,
    read_about,
    save_network,
)
from mfagan.images import read_image, write_image
from mfagan.published_weights import recognise, tensor_shapes
from mfagan.rrdb import RRDBNet
from mfagan.weights_header import Header, Stored

WRAPPERS = {
    "bare": lambda state: state,
    "params": lambda state: {"params": state},
    "params_ema": lambda state: {"params_ema": state, "params": weights(seed=1)},
    "state_dict": lambda state: {"epoch": 3, "state_dict": state, "best": torch.tensor(1.5)},
    "module": prefixed,
    "module in params": lambda state: {"params": prefixed(state)},
}


def loaded(path, data):
    path.write_bytes(data)
    return load_network(path)[0].state_dict()


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.mark.parametrize(("naming", "wrapper"), [*product(NAMINGS, WRAPPERS)])
def test_every_name_in_every_wrapper_and_format(tmp_path, naming, wrapper):
    state = weights()
    published = WRAPPERS[wrapper](NAMINGS[naming](state))
    for legacy in (False, True):
        assert same(loaded(tmp_path / "w.pth", saved(published, legacy=legacy)), state)
        about = read_about(tmp_path / "w.pth")
        assert about == About(kind="teacher", architecture=NAME, stage=PUBLISHED, package="")


def test_the_network_of_2018_makes_the_same_pictures(tmp_path):
    """Against the network as its authors first wrote it, and not only against its names."""
    torch.manual_seed(0)
    original = Net2018(8, 2, 4).eval()
    (tmp_path / "w.pth").write_bytes(saved(original.state_dict(), legacy=True))
    lr = torch.rand(1, 3, 9, 7)
    network, _ = load_network(tmp_path / "w.pth")
    assert not network.training
    torch.testing.assert_close(network(lr), original(lr), rtol=0, atol=1e-6)
    assert named_2018(weights()).keys() == original.state_dict().keys()


def test_other_sizes_types_protocols_and_layouts(tmp_path):
    file = tmp_path / "w.pth"
    for name in ("rrdb_x4_w8_b1_g4", "rrdb_x4_w5_b11_g3"):
        state = weights(name)
        assert same(loaded(file, saved(named_2018(state))), state)
        assert read_about(file).architecture == name
    state = weights()
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        cast = {n: t.to(dtype) for n, t in state.items()}
        assert same(loaded(file, saved(cast)), {n: t.float() for n, t in cast.items()})
    for protocol in (3, 4, 5):
        assert same(loaded(file, saved({"params": state}, protocol=protocol)), state)
    striped = {n: t.to(memory_format=torch.channels_last) if t.ndim == 4 else t
               for n, t in state.items()}  # fmt: skip
    assert same(loaded(file, saved(striped)), state)
    flat = torch.cat([t.flatten() for t in state.values()])
    parts = flat.split([t.numel() for t in state.values()])
    views = {n: part.view(t.shape) for part, (n, t) in zip(parts, state.items(), strict=True)}
    for legacy in (False, True):
        assert same(loaded(file, saved(views, legacy=legacy)), state)
    parameters = OrderedDict((n, torch.nn.Parameter(t)) for n, t in state.items())
    assert same(loaded(file, saved(parameters)), state)
    figures = {"psnr": np.float64(30.5), "milestones": Counter([3, 5]), "params": state}
    assert same(loaded(file, saved(figures)), state)


def test_equal_to_what_torch_itself_reads(tmp_path):
    """Of a module's state dict with its versions, as published files have them."""
    file = tmp_path / "w.pth"
    torch.manual_seed(0)
    file.write_bytes(saved({"params_ema": RRDBNet(parse(NAME)).state_dict()}))
    theirs = torch.load(file, weights_only=True)["params_ema"]
    assert same(load_network(file)[0].state_dict(), dict(theirs))


@pytest.mark.parametrize(("naming", "prefix"), [*product(NAMINGS, ("", "params_ema.", "module."))])
def test_safetensors_of_other_programs(tmp_path, naming, prefix):
    state = weights()
    file = tmp_path / "w.safetensors"
    named = prefixed(NAMINGS[naming](state), prefix)
    half = {name: tensor.half() for name, tensor in named.items()}
    assert same(loaded(file, save(named, {"format": "pt"})), state)
    assert same(loaded(file, save(half)), {n: t.half().float() for n, t in state.items()})
    assert read_about(file).stage == PUBLISHED


def test_what_is_in_a_file_decides_and_not_its_name(tmp_path):
    state = weights()
    assert same(loaded(tmp_path / "a.safetensors", saved(state)), state)
    assert same(loaded(tmp_path / "a.pth", save(state)), state)
    network, _ = load_network(tmp_path / "a.pth")
    save_network(tmp_path / "b.pt", network, About(kind="teacher", architecture=NAME, step=7))
    assert read_about(tmp_path / "b.pt").step == 7
    for text in ("a.pth", "A.PTH", "x/b.safetensors", "c.ckpt"):
        assert is_weights_file(text)
    for text in ("rrdb_x4_w64_b23_g32", "a.onnx", "pth", "none", ""):
        assert not is_weights_file(text)


def test_copies_are_safetensors_of_this_package(tmp_path):
    state = weights()
    (tmp_path / "w.pth").write_bytes(saved({"params_ema": named_2019(state)}, legacy=True))
    copy_weights(tmp_path / "w.pth", tmp_path / "run" / "teacher.safetensors")
    copy = tmp_path / "run" / "teacher.safetensors"
    assert read_about(copy) == read_about(tmp_path / "w.pth")
    assert same(load_network(copy)[0].state_dict(), state)
    copy_weights(copy, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == copy.read_bytes()


def test_published_weights_upscale_and_export(tmp_path, capsys):
    torch.manual_seed(0)
    original = Net2018(4, 1, 2).eval()
    model = tmp_path / "RRDB_ESRGAN_x4.pth"
    model.write_bytes(saved(original.state_dict(), legacy=True))
    rng = np.random.default_rng(0)
    write_image(tmp_path / "in.png", rng.integers(0, 256, (8, 9, 3), dtype=np.uint8))
    arguments = [str(tmp_path / "in.png"), str(tmp_path / "o.png"), "--model", str(model)]
    assert upscale_cli.main([*arguments, "--threads", "1"]) == 0
    assert export_cli.main([str(model), "--out", str(tmp_path / "onnx"), "--threads", "1"]) == 0
    assert "rrdb_x4_w4_b1_g2" in capsys.readouterr().out
    (exported,) = (tmp_path / "onnx").glob("*.onnx")
    arguments[1], arguments[3] = str(tmp_path / "p.png"), str(exported)
    assert upscale_cli.main([*arguments, "--threads", "1"]) == 0
    ours, theirs = read_image(tmp_path / "o.png"), read_image(tmp_path / "p.png")
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    lr = torch.from_numpy(read_image(tmp_path / "in.png") / np.float32(255))
    with torch.no_grad():
        sr = original(lr.permute(2, 0, 1)[None])[0].permute(1, 2, 0).clamp(0, 1) * 255
    assert np.abs(sr.round().numpy() - ours).max() <= 1


@pytest.fixture(scope="module")
def esrgan():
    torch.manual_seed(0)
    return RRDBNet(ESRGAN)


def test_esrgan_at_full_size_is_counted(esrgan):
    assert sum(p.numel() for p in esrgan.parameters()) == 16_697_987
    found = costs(from_torch(esrgan, (256, 256)))
    assert found.parameters == 16_697_987
    assert found.macs / 1e9 == pytest.approx(1174.85, abs=0.005)
    assert found.activations / 1e6 == pytest.approx(1030.8, abs=0.05)
    assert found.peak_bytes == 512 * 2**20
    assert found.access_bytes / 2**30 == pytest.approx(15.51, abs=0.005)
    assert {n: tuple(t.shape) for n, t in esrgan.state_dict().items()} == dict(
        tensor_shapes(ESRGAN)
    )


@pytest.mark.parametrize("blocks", [23, 6])
def test_the_published_sizes_are_known_by_names_and_shapes(esrgan, blocks):
    """Real-ESRGAN x4plus and the anime one, in every naming; nothing of this takes memory."""
    left_out = {f"body.{block}." for block in range(blocks, 23)}
    state = {
        name: tensor
        for name, tensor in esrgan.state_dict().items()
        if not any(map(name.startswith, left_out))
    }
    for naming, wrapper in product(NAMINGS.values(), ("", "params_ema.", "params.module.")):
        named = prefixed(naming(state), wrapper)
        stored = {n: Stored(dtype="F32", shape=tuple(t.shape)) for n, t in named.items()}
        found = recognise(Header(metadata={}, tensors=stored), Path("w.pth"))
        assert str(found.architecture) == f"rrdb_x4_w64_b{blocks}_g32"
        assert sorted(found.names.values()) == sorted(named)


def test_names_that_the_published_files_are_known_to_have(esrgan):
    names = set(named_2018(esrgan.state_dict()))
    assert len(names) == 702
    assert names >= {
        *("model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight", "model.1.sub.23.bias"),
        *("model.1.sub.22.RDB3.conv5.0.bias", "model.3.weight", "model.6.weight"),
        *("model.8.bias", "model.10.bias"),
    }
    assert set(named_2019(esrgan.state_dict())) >= {
        *("conv_first.weight", "RRDB_trunk.22.RDB3.conv5.bias", "trunk_conv.weight"),
        *("upconv1.weight", "upconv2.bias", "HRconv.weight", "conv_last.bias"),
    }


def test_esrgan_at_full_size_takes_a_training_step(esrgan):
    optimizer = torch.optim.Adam(esrgan.parameters(), 1e-6, betas=(0.9, 0.99))
    before = [p.detach().clone() for p in esrgan.parameters()]
    lr, hr = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 64, 64)
    sr = esrgan.train()(lr)
    assert sr.shape == hr.shape
    loss = (sr - hr).abs().mean()
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in esrgan.parameters())
    optimizer.step()
    assert not any(torch.equal(a, b) for a, b in zip(before, esrgan.parameters(), strict=True))
    after = (esrgan(lr) - hr).abs().mean()
    assert after < loss
