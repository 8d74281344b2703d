import hashlib
import os
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from published_lpips import LINS, SHAPES, backbone_weights, lin_weights, plain_lpips
from safetensors.torch import save_file

from mfagan.quality.lpips import NETWORKS, Lpips, load_lpips

BACKBONES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
PARAMETERS = {"alex": 2_469_696, "vgg": 14_714_688}
LEAST = {"alex": 31, "vgg": 16}


@pytest.fixture(scope="module")
def weights():
    return {name: (backbone_weights(name), lin_weights(name)) for name in SHAPES}


@pytest.fixture(scope="module")
def distances(weights):
    return {name: Lpips(name, backbone | lins) for name, (backbone, lins) in weights.items()}


@pytest.fixture
def publish(monkeypatch, tmp_path):
    """Write a network's two files and let them be what is published: names and checksums."""

    def write(name, backbone, lins, *, legacy=True):
        folder, network = tmp_path / "weights", NETWORKS[name]
        folder.mkdir()
        for part, content in (("backbone", backbone), ("lin", lins)):
            path = folder / network.lin.name if part == "lin" else folder / "new"
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                torch.save(content, path, _use_new_zipfile_serialization=not legacy)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if part == "lin":
                file = replace(network.lin, sha256=digest)
            else:
                stem = network.backbone.name.rpartition("-")[0]
                file = replace(network.backbone, name=f"{stem}-{digest[:8]}.pth")
                path.rename(folder / file.name)
            network = replace(network, **{part: file})
        monkeypatch.setitem(NETWORKS, name, network)
        return folder

    return write


def picture(height, width, seed):
    """Smooth areas and edges, and a little noise."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 240, (height // 8 + 1, width // 8 + 1, 3))
    blocks = coarse.repeat(8, 0).repeat(8, 1)[:height, :width]
    return (blocks + random.integers(0, 16, blocks.shape)).astype(np.uint8)


def first_layer(weights, **changes):
    kept = {name: value for name, value in weights.items() if name.startswith("features.0.")}
    return kept | {name.replace("_", "."): value for name, value in changes.items()}


@pytest.mark.parametrize("name", SHAPES)
def test_networks_are_the_published_ones(name):
    network = NETWORKS[name]
    assert dict(network.backbone.shapes) == SHAPES[name]
    assert sum(np.prod(shape) for shape in network.backbone.shapes.values()) == PARAMETERS[name]
    assert [layer.shape[0] for layer in network.layers if layer.compared] == list(LINS[name])
    assert dict(network.lin.shapes) == {
        key: tuple(tensor.shape) for key, tensor in lin_weights(name).items()
    }
    assert network.backbone.name == BACKBONES[name]
    assert network.backbone.url == f"https://download.pytorch.org/models/{BACKBONES[name]}"
    assert network.lin.name == f"{name}.pth"
    assert network.lin.url.endswith(f"/lpips/weights/v0.1/{name}.pth")


@pytest.mark.parametrize(
    ("name", "size"),
    [("alex", (45, 38)), ("alex", (150, 97)), ("vgg", (20, 17)), ("vgg", (37, 22))],
)
def test_it_equals_plain_calls(weights, distances, name, size):
    image, truth = picture(*size, 0), picture(*size, 1)
    expected = plain_lpips(name, *weights[name], image, truth)
    assert expected > 0.01
    assert distances[name](image, truth) == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_it_is_a_distance(distances, name):
    truth = picture(35, 41, 0)
    other = picture(35, 41, 1)
    nearly = truth.copy()
    nearly[20:24, 20:24] ^= 8
    distance = distances[name]
    assert distance(truth, truth.copy()) == 0
    assert distance(other, truth) == pytest.approx(distance(truth, other), rel=1e-6)
    assert 0 < distance(nearly, truth) < distance(other, truth)
    turned = np.ascontiguousarray(other[::-1]), np.ascontiguousarray(truth[::-1])
    np.testing.assert_equal(distance(other[::-1], truth[::-1]), distance(*turned))


@pytest.mark.parametrize("name", SHAPES)
def test_black_is_compared_too(weights, distances, name):
    """Features that are 0 in every channel have no direction."""
    backbone, lins = weights[name]
    dead = {
        key: value.abs() * (-1 if key.endswith("bias") else 0) for key, value in backbone.items()
    }
    black, other = np.zeros((31, 31, 3), np.uint8), picture(31, 31, 0)
    assert Lpips(name, dead | lins)(black, other) == 0
    found = distances[name](black, other)
    assert found == pytest.approx(plain_lpips(name, backbone, lins, black, other), rel=2e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_the_least_size(distances, name):
    least = LEAST[name]
    sides = least, least + 9
    assert distances[name](picture(*sides, 0), picture(*sides, 1)) > 0
    small = picture(least - 1, 99, 0)
    with pytest.raises(ValueError, match=rf"{name} needs {least}x{least} pixels, got {least - 1}x"):
        distances[name](small, small)


def test_other_arrays_are_refused(distances):
    image = picture(40, 40, 0)
    distance = distances["alex"]
    with pytest.raises(ValueError, match=r"\(40, 40, 3\) and \(40, 39, 3\) cannot be compared"):
        distance(image, image[:, :-1])
    for wrong in (image[..., 0], image[..., :2], image / np.float32(255)):
        with pytest.raises(ValueError, match=r"is of \(H, W, 3\) uint8 RGB, got \(40, 40"):
            distance(wrong, wrong)


@pytest.mark.parametrize(
    ("name", "legacy"), [("alex", True), ("alex", False), ("vgg", True)], ids=str
)
def test_published_files_are_read(weights, distances, publish, name, legacy):
    folder = publish(name, *weights[name], legacy=legacy)
    found = load_lpips(name, folder)
    assert found.name == name
    image, truth = picture(40, 40, 0), picture(40, 40, 1)
    assert found(image, truth) == distances[name](image, truth)


def test_half_precision_is_widened(weights, publish):
    half = {key: value.half() for key, value in weights["alex"][0].items()}
    found = load_lpips("alex", publish("alex", half, weights["alex"][1]))
    image, truth = picture(40, 40, 0), picture(40, 40, 1)
    expected = plain_lpips("alex", half, weights["alex"][1], image, truth)
    assert found(image, truth) == pytest.approx(expected, rel=2e-5)


def test_unknown_networks_are_refused(tmp_path):
    with pytest.raises(ValueError, match="LPIPS is by alex or vgg, got 'squeeze'"):
        load_lpips("squeeze", tmp_path)


@pytest.mark.parametrize("name", SHAPES)
def test_missing_files_are_named_with_their_addresses(tmp_path, name):
    network = NETWORKS[name]
    with pytest.raises(FileNotFoundError) as caught:
        load_lpips(name, tmp_path)
    for file in (network.backbone, network.lin):
        assert f"{file.name} ({file.url})" in str(caught.value)
    assert f"lacks {BACKBONES[name]} and {name}.pth;" in str(caught.value)
    (tmp_path / BACKBONES[name]).touch()
    with pytest.raises(FileNotFoundError, match=rf"'{tmp_path}' lacks {name}\.pth; download"):
        load_lpips(name, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"/none' is not a folder; download") as caught:
        load_lpips(name, tmp_path / "none")
    assert "\n" not in str(caught.value)


def test_other_weights_do_not_take_the_name(weights, tmp_path):
    """Whole files of the right layout whose numbers are not the published ones."""
    backbone, lins = weights["alex"]
    torch.save(first_layer(backbone), tmp_path / BACKBONES["alex"])
    torch.save(lins, tmp_path / "alex.pth")
    with pytest.raises(
        ValueError, match=r"7be5be79.pth' is not the weights file of AlexNet"
    ) as caught:
        load_lpips("alex", tmp_path)
    assert re.search(r"begins with \w{8}, its name says 7be5be79; https:", str(caught.value))
    with pytest.raises(ValueError, match=r"' is not the alex.pth of LPIPS 0.1 that") as caught:
        NETWORKS["alex"].lin.read(tmp_path / "alex.pth")
    assert re.search(r" with \w{8}, that of alex.pth with df73285e; https:", str(caught.value))
    (tmp_path / "alex.pth").write_bytes((tmp_path / "alex.pth").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"\(it has 100 of 6009 bytes\)"):
        NETWORKS["alex"].lin.read(tmp_path / "alex.pth")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "it lacks features.3.weight"),
        ({"features_0_weight": torch.zeros(64, 3, 3, 3)}, "is 64x3x3x3, not 64x3x11x11"),
        ({"features_0_bias": torch.full((64,), 1)}, "its features.0.bias is of the type I64"),
        ({"features_0_bias": "text"}, "it lacks features.0.bias"),
    ],
)
def test_other_networks_are_refused(weights, publish, changes, reason):
    folder = publish("alex", first_layer(weights["alex"][0], **changes), weights["alex"][1])
    with pytest.raises(ValueError, match=r"is not the weights file of AlexNet") as caught:
        load_lpips("alex", folder)
    assert reason in str(caught.value)


def test_damaged_numbers_are_refused(weights, publish):
    backbone, lins = weights["alex"]
    lins = lins | {"lin2.model.1.weight": torch.full((1, 384, 1, 1), torch.nan)}
    with pytest.raises(ValueError, match=r"its lin2\.model\.1\.weight is not of finite numbers"):
        load_lpips("alex", publish("alex", backbone, lins))


def test_lins_of_another_network_are_refused(weights, publish):
    more = lin_weights("alex") | {"lin5.model.1.weight": torch.ones(1, 512, 1, 1)}
    with pytest.raises(ValueError, match=r"it holds lin5\.model\.1\.weight besides"):
        load_lpips("alex", publish("alex", weights["alex"][0], more))


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("content", ["page", "empty", "cut", "noise", "list"])
def test_broken_files_are_refused(weights, publish, tmp_path, content, legacy):
    def saved(value):
        torch.save(value, tmp_path / "saved", _use_new_zipfile_serialization=not legacy)
        return (tmp_path / "saved").read_bytes()

    backbone, lins = weights["alex"]
    broken = {
        "page": b"\n<!DOCTYPE html><html>Not found</html>",
        "empty": b"",
        "cut": saved(lins)[:-1000],
        "noise": bytes(range(256)) * 9,
        "list": saved([1, 2]),
    }[content]
    folder = publish("alex", backbone, broken, legacy=legacy)
    with pytest.raises(ValueError, match=r"alex.pth' is not the alex.pth of LPIPS") as caught:
        load_lpips("alex", folder)
    reason = {"page": "it is a web page", "empty": "it is empty", "cut": "it is cut short"}
    assert reason.get(content, "; https://github.com/") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_code_in_a_pickle_does_not_run(weights, publish, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    backbone, lins = weights["alex"]
    folder = publish("alex", backbone, lins | {"lin0.model.1.weight": Attack()})
    with pytest.raises(ValueError, match=r"it lacks lin0\.model\.1\.weight"):
        load_lpips("alex", folder)
    assert not (tmp_path / "harm").exists()


def test_safetensors_under_a_published_name_are_told_apart(weights, tmp_path):
    save_file(first_layer(weights["alex"][0]), tmp_path / BACKBONES["alex"])
    save_file(weights["alex"][1], tmp_path / "alex.pth")
    with pytest.raises(ValueError, match="its name says 7be5be79"):
        load_lpips("alex", tmp_path)
