import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import mfagan
from export.pipeline import export_files
from latency.commandline import FailureError
from mfagan.about import About
from mfagan.architecture import parse
from mfagan.checkpoint import build_network, save_network
from mfagan.model import Model, torch_model
from mfagan.model_card import ModelCard
from mfagan.space import SearchSpace
from mfagan.upscaling import upscale_tiles

BRANCHES = "mfa_x2_w6_c1-2-1_s1-0-2"  # radius 3 + 3 + 2 + 7 = 15
PLAIN = "mfa_x3_w5_c2_s0"
FIXED = "mfa_x2_w4_c1_s1"  # radius 6
DIGEST = "0" * 64


def loud(architecture, seed=0):
    """A network whose every layer matters: a fresh one is hardly more than nearest neighbour."""
    torch.manual_seed(seed)
    network = build_network(parse(architecture))
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    return network.eval()


def save(path, architecture):
    save_network(path, loud(architecture), About(kind="generator", architecture=architecture))
    return path


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def floats(image, model, tile):
    scale = model.scale
    result = np.full((3, image.shape[0] * scale, image.shape[1] * scale), np.nan, np.float32)
    for part, sr in upscale_tiles(image, model, tile=tile):
        rows, columns = part.core.scaled(scale)
        result[:, rows, columns] = sr
    return result


def whole(image, architecture):
    lr = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32) / 255)
    with torch.inference_mode():
        return loud(architecture)(lr)[0].numpy()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Weights and fp32 ONNX of two networks that take any size and one that does not."""
    folder = tmp_path_factory.mktemp("models")
    paths = {}
    for name, size in ((BRANCHES, None), (PLAIN, None), (FIXED, (32, 28))):
        weights = save(folder / f"{name}.safetensors", name)
        result = export_files(weights, folder, size=size, threads=1)
        paths[name] = {"torch": weights, "onnx": result.files[0].path}
    return paths


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
@pytest.mark.parametrize("architecture", [BRANCHES, PLAIN])
@pytest.mark.parametrize("size", [(1, 1), (3, 70), (75, 101)])
def test_tiles_equal_the_whole_frame(models, architecture, runtime, size):
    model = mfagan.load(models[architecture][runtime], threads=1, device="cpu")
    image = picture(*size)
    expected = mfagan.upscale(image, model, tile=1000)
    assert expected.shape == (size[0] * model.scale, size[1] * model.scale, 3)
    reference = whole(image, architecture)
    for tile in (8, 20, 64):
        assert np.array_equal(mfagan.upscale(image, model, tile=tile), expected)
        assert np.abs(floats(image, model, tile) - reference).max() <= 1e-5


@pytest.mark.parametrize("tile", [1, 2, 3, 5])
def test_any_tile_size_is_accepted(models, tile):
    model = mfagan.load(models[PLAIN]["onnx"], threads=1)
    image = picture(9, 6)
    assert np.array_equal(mfagan.upscale(image, model, tile=tile), mfagan.upscale(image, model))


def test_tiles_that_overlap_too_little_would_be_seen(models):
    """The networks above are loud enough for the equality to mean something."""
    model = mfagan.load(models[BRANCHES]["torch"], device="cpu")
    image = picture(75, 101)
    reference = whole(image, BRANCHES)
    too_small = torch_model(loud("mfa_x2_w6_c1-2-1_s0-0-0"), parse("mfa_x2_w6_c1_s0"), device="cpu")
    object.__setattr__(too_small, "run", model.run)
    assert np.abs(floats(image, too_small, 20) - reference).max() > 1e-3


@pytest.mark.parametrize(
    ("architecture", "slack"),
    [
        (PLAIN, 0),
        ("mfa_x2_w2_c1_s1", 0),
        ("mfa_x2_w2_c1_s2", 0),
        ("mfa_x2_w2_c2-4_s0-1", 0),
        ("rrdb_x4_w2_b1_g1", 0),
        # No pixel is the worst one of two grids at once.
        ("mfa_x2_w2_c1-1_s2-1", 1),
        (BRANCHES, 1),
    ],
)
def test_the_receptive_radius_is_a_tight_bound(architecture, slack):
    parsed = parse(architecture)
    network = build_network(parsed).double()
    for parameter in network.parameters():  # positive everywhere: no gradient cancels or dies
        torch.nn.init.constant_(parameter, 0.1 if parameter.ndim > 1 else 0)
    radius, scale = parsed.receptive_radius, parsed.scale
    reach = []
    for offset in range(4):
        at = radius + 4 + offset
        lr = torch.ones(1, 3, at + radius + 8, at + radius + 8, dtype=torch.float64)
        lr.requires_grad_()
        block = slice(at * scale, (at + 1) * scale)
        network(lr)[..., block, block].sum().backward()
        rows, columns = np.nonzero(lr.grad[0].abs().sum(0).numpy())
        distances = np.abs(np.concatenate([rows, columns]) - at)
        assert distances.max() <= radius
        reach.append(distances.max())
    assert max(reach) == radius - slack


@pytest.mark.parametrize("size", [(32, 28), (33, 28), (60, 61), (91, 45)])
def test_a_fixed_size_model_tiles_larger_images_exactly(models, size):
    model = mfagan.load(models[FIXED]["onnx"], threads=1)
    assert model.size == (32, 28)
    image = picture(*size)
    assert np.abs(floats(image, model, 256) - whole(image, FIXED)).max() <= 1e-5


def test_a_fixed_size_model_pads_smaller_images(models):
    model = mfagan.load(models[FIXED]["onnx"], threads=1)
    image = picture(20, 11)
    got, reference = floats(image, model, 256), whole(image, FIXED)
    assert got.shape == reference.shape
    inside = (slice(None), slice(0, (20 - 6) * 2), slice(0, (11 - 6) * 2))
    assert np.abs(got[inside] - reference[inside]).max() <= 1e-5


def test_values_are_clipped_and_rounded_half_up():
    levels = np.array([-0.3, 0.0, 0.5 / 255, 1.49 / 255, 1.5 / 255, 1.0, 1.7], np.float32)
    model = Model(
        architecture=parse(FIXED),
        precision="fp32",
        run=lambda lr: np.broadcast_to(levels.repeat(2), (1, 3, lr.shape[2] * 2, 14)),
    )
    row = mfagan.upscale(picture(1, 7), model)[0, ::2, 0]
    assert row.tolist() == [0, 0, 1, 1, 2, 255, 255]


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_image_is_refused(models, image):
    with pytest.raises(ValueError, match="uint8 RGB"):
        mfagan.upscale(image, mfagan.load(models[PLAIN]["onnx"]))


def test_a_supernet_is_its_largest_or_the_one_chosen(tmp_path):
    space = SearchSpace(scale=2, widths=(4, 8), modules=(1, 2), convolutions=(1, 2))
    network = build_network(space.largest, space).eval()
    about = About(kind="supernet", architecture=str(space.largest), space=space)
    save_network(tmp_path / "s.safetensors", network, about)
    assert mfagan.load(tmp_path / "s.safetensors").architecture == space.largest
    chosen = "mfa_x2_w4_c1-2_s0-1"
    model = mfagan.load(tmp_path / "s.safetensors", architecture=chosen, device="cpu")
    lr = np.random.default_rng(0).random((1, 3, 9, 7), np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(lr), parse(chosen)).numpy()
    assert np.abs(model(lr) - expected).max() <= 1e-6
    with pytest.raises(ValueError, match="not in the space"):
        mfagan.load(tmp_path / "s.safetensors", architecture="mfa_x2_w5_c1_s0")
    with pytest.raises(ValueError, match="holds"):
        mfagan.load(tmp_path / "s.safetensors", architecture="rrdb_x4_w2_b1_g1")


def test_an_nhwc_file_is_obeyed(models, tmp_path):
    """Its axes are turned: the same network between two transpositions gives the same picture."""
    model = onnx.load(models[PLAIN]["onnx"])
    for node in model.graph.node:
        node.input[:] = ["nchw" if name == "lr" else name for name in node.input]
        node.output[:] = ["out" if name == "sr" else name for name in node.output]
    nodes = [
        helper.make_node("Transpose", ["lr"], ["nchw"], perm=[0, 3, 1, 2]),
        *model.graph.node,
        helper.make_node("Transpose", ["out"], ["sr"], perm=[0, 2, 3, 1]),
    ]
    values = [
        helper.make_tensor_value_info("lr", TensorProto.FLOAT, (1, "h", "w", 3)),
        helper.make_tensor_value_info("sr", TensorProto.FLOAT, (1, "sh", "sw", 3)),
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], model.graph.initializer)
    turned = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    card = ModelCard.of(PLAIN, precision="fp32", size=None, checkpoint_sha256=DIGEST)
    helper.set_model_props(turned, card.to_metadata() | {"layout": "nhwc"})
    onnx.save(turned, tmp_path / "nhwc.onnx")
    image = picture(5, 7)
    found = mfagan.upscale(image, mfagan.load(tmp_path / "nhwc.onnx"))
    assert np.array_equal(found, mfagan.upscale(image, mfagan.load(models[PLAIN]["onnx"])))


def rewritten(models, path, **changes):
    model = onnx.load(models[PLAIN]["onnx"])
    metadata = {p.key: p.value for p in model.metadata_props} | changes
    del model.metadata_props[:]
    helper.set_model_props(model, {k: v for k, v in metadata.items() if v is not None})
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architecture": None}, "lack architecture"),
        ({"scale": "2"}, "scale of .* is 3, got 2"),
        ({"scale": "x"}, "whole number"),
        ({"receptive_radius": "1"}, "receptive_radius"),
        ({"layout": "nchv"}, "did you mean 'nchw'"),
        ({"dtype": "uint8"}, "range must be 0..255"),
        ({"dtype": "int8"}, "dtype must be float32"),
        ({"range": "0..255"}, "range must be"),
        ({"precision": "int4"}, "precision must be"),
        ({"shape": "1x3x8"}, "shape must be"),
        ({"shape": "1x3x8x8"}, "its metadata say shape 1x3x8x8"),
        ({"producer": "other 1"}, "producer"),
        ({"checkpoint_sha256": "abc"}, "64 hexadecimal"),
        ({"architecture": "mfa_x9"}, "grammar"),
    ],
)
def test_metadata_that_contradict_are_refused(models, tmp_path, changes, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        mfagan.load(rewritten(models, tmp_path / "bad.onnx", **changes))
    assert "\n" not in str(caught.value)


def test_a_card_survives_the_trip():
    card = ModelCard.of(BRANCHES, precision="int8", size=(8, 12), checkpoint_sha256=DIGEST)
    assert ModelCard.from_metadata(card.to_metadata() | {"extra": "x"}) == card
    assert card.size == (8, 12)
    assert card.to_metadata()["shape"] == "1x3x8x12"


def test_what_is_no_model_is_refused(models, tmp_path):
    data = models[PLAIN]["onnx"].read_bytes()
    (tmp_path / "truncated.onnx").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.onnx").write_text("not a model\n")
    (tmp_path / "empty.onnx").touch()
    foreign = onnx.load(models[PLAIN]["onnx"])
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    about = About(kind="discriminator", architecture="patchgan_n3_f16")
    save_network(tmp_path / "discriminator.safetensors", torch.nn.Conv2d(3, 3, 3), about)
    (tmp_path / "model.pth").touch()
    (tmp_path / "model.bmp").touch()
    for name, sentence in (
        ("truncated.onnx", "not an ONNX file"),
        ("text.onnx", "not an ONNX file"),
        ("empty.onnx", "not an ONNX file"),
        ("foreign.onnx", "no mfagan metadata.*mfagan-export"),
        ("discriminator.safetensors", "discriminator"),
        ("model.pth", "model.pth' is not a weights file that mfagan reads: it is empty"),
        ("model.bmp", "must end in .onnx, .safetensors or .pth"),
    ):
        with pytest.raises(ValueError, match=sentence) as caught:
            mfagan.load(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="is not a file"):
        mfagan.load(tmp_path / "missing.onnx")
    with pytest.raises(ValueError, match="holds one architecture"):
        mfagan.load(models[PLAIN]["onnx"], architecture=PLAIN)


def test_a_result_that_no_memory_holds_is_one_sentence(models, monkeypatch):
    def fail(*_, **__):
        raise MemoryError("Unable to allocate")

    model, image = mfagan.load(models[PLAIN]["onnx"], threads=1), picture(9, 8)
    monkeypatch.setattr(np, "empty", fail)
    with pytest.raises(FailureError, match="the result, 27x24, takes"):
        mfagan.upscale(image, model)
