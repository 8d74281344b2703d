import hashlib
import itertools
import os

import pytest
import torch
from published_vgg import CHANNELS, INDICES, published_weights, reference_features
from safetensors.torch import save_file

import mfagan.download
from mfagan.vgg import FILE, LAYERS, SHA256, SIZE, URL, Vgg19, cache_folder, find_vgg19, read_vgg19


@pytest.fixture(scope="module")
def weights():
    return published_weights()


@pytest.fixture(scope="module")
def image():
    return torch.rand(2, 3, 40, 33, generator=torch.Generator().manual_seed(1))


def save(path, weights, **options):
    torch.save(weights, path, **options)
    return path


def test_layers_are_the_published_ones():
    assert {name: f"features.{index}" for name, index in INDICES.items()} == {
        name: published for name, (published, _) in LAYERS.items()
    }
    shapes = [shape for _, shape in LAYERS.values()]
    assert shapes == [(after, before, 3, 3) for before, after in itertools.pairwise(CHANNELS)]


def test_parameters(weights):
    network = Vgg19(LAYERS, weights)
    assert sum(p.numel() for p in network.parameters()) == 20_024_384
    assert not any(p.requires_grad for p in network.parameters())
    shapes = [tuple(layer.weight.shape) for layer in network.convolutions.values()]
    assert shapes == [shape for _, shape in LAYERS.values()]


def test_features_equal_plain_calls(weights, image):
    expected = reference_features(weights, image)
    found = Vgg19(LAYERS, weights)(image.contiguous(memory_format=torch.channels_last))
    assert found.keys() == expected.keys()
    for name, features in found.items():
        assert (features < 0).any()  # before activation
        torch.testing.assert_close(features, expected[name], rtol=1e-4, atol=1e-4)


def test_only_what_is_needed_is_built(weights, image):
    network = Vgg19(["conv2_2", "conv1_1"], weights)
    assert list(network.convolutions) == ["conv1_1", "conv1_2", "conv2_1", "conv2_2"]
    assert network(image).keys() == {"conv1_1", "conv2_2"}


def test_runs_in_bf16(weights, image):
    network = Vgg19(["conv3_4"], weights)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(image)["conv3_4"]
    assert half.dtype == torch.bfloat16
    full = network(image)["conv3_4"]
    assert (half.float() - full).abs().mean() < 0.02 * full.abs().mean()


@pytest.mark.parametrize("layers", [[], ["conv5_5"], ["conv1_1", "relu5_4"]])
def test_unknown_layers_are_refused(weights, layers):
    with pytest.raises(ValueError, match=r"layers of VGG19 are conv1_1, .*conv5_4; got \w+"):
        Vgg19(layers, weights)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_files_are_read_without_the_classifier(weights, tmp_path, kind):
    if kind == "safetensors":
        path = tmp_path / "vgg19.safetensors"
        save_file(weights, path)
    else:  # the published file is of 2017
        path = tmp_path / "vgg19.pth"
        save(path, weights, _use_new_zipfile_serialization=kind == "zip")
    found = read_vgg19(path)
    assert len(found) == 32
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=0)
    network = Vgg19(["conv1_1"], found)
    path.write_bytes(bytes(path.stat().st_size))  # nothing of the network is in the file any more
    layer = network.convolutions["conv1_1"]
    torch.testing.assert_close(layer.weight, weights["features.0.weight"], rtol=0, atol=0)


def small(weights, **changes):
    """Only the first convolutions: refused for one reason or another before the rest is missed."""
    kept = {name: value for name, value in weights.items() if name[:11] in ("features.0.",)}
    return kept | {name.replace("_", "."): value for name, value in changes.items()}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "it lacks features.2.weight"),
        ({"features_0_weight": torch.zeros(64, 3, 11, 11)}, "is 64x3x11x11, not 64x3x3x3"),
        ({"features_0_bias": torch.zeros(64, dtype=torch.int64)}, "is of the type I64"),
        ({"features_0_bias": "text"}, "it lacks features.0.bias"),
    ],
)
def test_other_networks_are_refused(weights, tmp_path, changes, reason):
    path = save(tmp_path / "other.pth", small(weights, **changes))
    with pytest.raises(
        ValueError, match=r"other.pth' is not the weights file of VGG19.*"
    ) as caught:
        read_vgg19(path)
    assert reason in str(caught.value)
    assert URL in str(caught.value)


def test_damaged_numbers_are_refused(weights, tmp_path):
    nan = torch.full((64,), torch.nan)
    path = save(tmp_path / "nan.pth", weights | {"features.0.bias": nan})
    with pytest.raises(ValueError, match=r"its features\.0\.bias is not of finite numbers"):
        read_vgg19(path)


def test_batch_normalization_is_refused(weights, tmp_path):
    path = save(tmp_path / "bn.pth", weights | {"features.1.running_mean": torch.zeros(64)})
    with pytest.raises(ValueError, match=r"it holds features\.1\.running_mean besides"):
        read_vgg19(path)


@pytest.mark.parametrize("name", ["vgg19.pth", "vgg19.safetensors"])
@pytest.mark.parametrize("content", ["page", "empty", "cut", "noise", "list"])
def test_broken_files_are_refused(weights, tmp_path, name, content):
    whole, path = tmp_path / "whole", tmp_path / name
    if name.endswith(".pth"):
        save(whole, small(weights))
    else:
        save_file(small(weights), whole)
    save(tmp_path / "list", [1, 2])
    path.write_bytes(
        {
            "page": b"\n<!DOCTYPE html><html>Not found</html>",
            "empty": b"",
            "cut": whole.read_bytes()[:-4000],
            "noise": bytes(range(256)) * 9,
            "list": (tmp_path / "list").read_bytes(),
        }[content]
    )
    with pytest.raises(ValueError, match=r"' is not the weights file of VGG19 that") as caught:
        read_vgg19(path)
    assert "\n" not in str(caught.value)
    if content == "page":
        assert "it is a web page" in str(caught.value)


def test_code_in_a_pickle_does_not_run(weights, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    path = save(tmp_path / "vgg19.pth", small(weights, features_0_bias=Attack()))
    with pytest.raises(ValueError, match=r"it lacks features\.0\.bias"):
        read_vgg19(path)
    assert not (tmp_path / "harm").exists()


def test_a_file_must_be_what_its_name_says(weights, tmp_path):
    path = save(tmp_path / FILE, small(weights))
    found = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    cut = f"{path.stat().st_size} of 574673361 bytes"
    with pytest.raises(ValueError, match=rf"begins with {found}, .* says dcbb9e9d \(it has {cut}"):
        read_vgg19(path)
    path = path.rename(tmp_path / f"mine-{found}.pth")
    with pytest.raises(ValueError, match=r"it lacks features\.2\.weight"):  # so it was read
        read_vgg19(path)


def test_the_given_file_is_taken(tmp_path):
    (tmp_path / "a.pth").touch()
    assert find_vgg19(str(tmp_path / "a.pth")) == tmp_path / "a.pth"
    with pytest.raises(FileNotFoundError, match=r"b.pth' does not exist; without --perceptual-f"):
        find_vgg19(str(tmp_path / "b.pth"))
    with pytest.raises(FileNotFoundError, match="is not a file"):
        find_vgg19(str(tmp_path))


def test_it_is_downloaded_once(tmp_path, monkeypatch):
    calls = []

    def download(url, to, **options):
        calls.append((url, options))
        to.parent.mkdir(parents=True)
        to.touch()
        return to

    monkeypatch.setattr(mfagan.download, "download", download)
    monkeypatch.setenv("MFAGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert find_vgg19(silent=True) == find_vgg19() == tmp_path / "cache" / FILE
    assert calls == [(URL, {"sha256": SHA256, "size": SIZE, "silent": True})]
    assert f"vgg19-{SHA256[:8]}.pth" == FILE


def test_the_file_of_torch_hub_serves(tmp_path, monkeypatch):
    monkeypatch.setenv("MFAGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    there = tmp_path / "torch" / "hub" / "checkpoints" / FILE
    there.parent.mkdir(parents=True)
    there.touch()
    assert find_vgg19() == there


def test_cache_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MFAGAN_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == tmp_path / ".cache" / "mfagan"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "mfagan"
    monkeypatch.setenv("MFAGAN_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
