"""A folder of good, odd and broken files, on which commands are misused."""

from __future__ import annotations

import json
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import onnx
import shipped_folder
import torch
from onnx import TensorProto, helper

import export.cli
import mfagan.train_cli
import nas.cli
from latency.profile import load_profile
from mfagan.about import About
from mfagan.architecture import parse
from mfagan.checkpoint import build_network, save_network
from mfagan.discriminator import PatchDiscriminator, parse_discriminator
from mfagan.images import write_image
from mfagan.space import SearchSpace

MODEL = "mfa_x4_w4_c1_s0"
SPACE = SearchSpace(scale=4, widths=(4, 8), modules=(1, 2), convolutions=(1, 2))
TINY = (
    "--recipe smoke --architecture mfa_x4_w4_c1_s0 --gan-steps 0 --pixel-steps 1 --patch 8 "
    "--batch 1 --threads 1 --precision fp32"
)


def make(root: Path) -> None:
    """Fill a folder."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    _make_photographs(root)
    _make_models(root)
    _make_configurations(root)
    _make_measurements(root)
    words = ["--data", str(root / "photos"), "--out", str(root / "run"), *TINY.split()]
    assert mfagan.train_cli.main(words) == 0
    newer = root / "newer" / "config.toml"
    newer.parent.mkdir()
    newer.write_text("format = 99\n" + (root / "run" / "config.toml").read_text().split("\n", 1)[1])
    unreadable = root / "unreadable" / "config.toml"
    unreadable.parent.mkdir()
    unreadable.write_bytes(b"\xff\xfe\x00")
    words = ["--supernet", str(root / "supernet.safetensors"), "--data", str(root / "photos")]
    words += ["--target", "snapdragon-865/gpu", "--input", "64x64", "--budget-ms", "4"]
    words += ["--trials", "5", "--out", str(root / "searched"), "--threads", "1"]
    assert nas.cli.main(words) == 0
    _make_shipped(root)
    (root / "strangers").mkdir()
    (root / "strangers" / "letter.txt").write_text("not ours")


def _make_photographs(root: Path) -> None:
    rng = np.random.default_rng(0)
    for folder, count in (("photos", 3), ("one", 1), ("broken", 2)):
        for k in range(count):
            coarse = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            write_image(root / folder / f"{k}.png", coarse.repeat(8, 0).repeat(8, 1))
    (root / "nothing").mkdir()
    (root / "folder.png").mkdir()
    for k in range(2):
        write_image(root / "small" / f"{k}.png", rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        write_image(root / "flat" / f"{k}.png", np.full((96, 96, 3), 7, np.uint8))
    whole = (root / "photos" / "0.png").read_bytes()
    (root / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (root / "broken" / "1.png").write_bytes(whole[: len(whole) // 2])
    (root / "empty.png").write_bytes(b"")
    (root / "text.png").write_text("not an image\n")
    header = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header
    chunk += struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (root / "bomb.png").write_bytes(whole[:8] + chunk + whole[33:])


def _make_models(root: Path) -> None:
    about = About(kind="generator", architecture=MODEL)
    save_network(root / "model.safetensors", build_network(parse(MODEL)), about)
    about = About(kind="supernet", architecture=str(SPACE.largest), space=SPACE, stage="pixel")
    save_network(root / "supernet.safetensors", build_network(SPACE.largest, SPACE), about)
    critic = parse_discriminator("patchgan_n1_f4")
    about = About(kind="discriminator", architecture=str(critic))
    save_network(root / "discriminator.safetensors", PatchDiscriminator(critic), about)
    whole = (root / "model.safetensors").read_bytes()
    (root / "truncated.safetensors").write_bytes(whole[:-100])
    (root / "empty.safetensors").write_bytes(b"")
    (root / "future.safetensors").write_bytes(whole.replace(b'"format":"1"', b'"format":"9"'))
    from safetensors.torch import save_file

    save_file({"conv.weight": torch.zeros(3)}, root / "foreign.safetensors")
    with (root / "weights.pth").open("wb") as file:
        pickle.dump({"params_ema": {}}, file)

    words = [str(root / "model.safetensors"), "--out", str(root / "onnx"), "--threads", "1"]
    assert export.cli.main(words) == 0
    (exported,) = (root / "onnx").glob("*.onnx")
    whole = exported.read_bytes()
    (root / "model.onnx").write_bytes(whole)
    (root / "truncated.onnx").write_bytes(whole[:-50])
    (root / "empty.onnx").write_bytes(b"")
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3, 8, 8))
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [image], [out])
    onnx.save(helper.make_model(graph), root / "foreign.onnx")
    model = onnx.load_model_from_string(whole)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../../etc/passwd"
    (root / "external.onnx").write_bytes(model.SerializeToString())


def _make_shipped(root: Path) -> None:
    """Make a package's weights: one file is damaged, one missing; `small` is a folder here too."""
    folder = root / "shipped"
    shipped_folder.make(folder, ("large", "middle", "small", "middle-gan", "supernet"))
    damaged = bytearray((folder / "middle.safetensors").read_bytes())
    damaged[-1] ^= 1
    (folder / "middle.safetensors").write_bytes(bytes(damaged))
    (folder / "middle-gan.safetensors").unlink()


def _make_configurations(root: Path) -> None:
    for name, text in {
        "unknown_key": "[schedule]\npixel_step = 3\n",
        "unknown_table": "[shedule]\npixel_steps = 3\n",
        "wrong_table": "[loss]\nrho = 0.1\n",
        "wrong_type": '[schedule]\npixel_steps = "many"\n',
        "boolean": "[schedule]\npixel_steps = true\n",
        "not_toml": "pixel_steps: 3\n",
    }.items():
        (root / f"{name}.toml").write_text(text)


def _make_measurements(root: Path) -> None:
    import latency.cli

    words = ["profile", str(root / "model.onnx"), "--out", str(root / "measured.jsonl")]
    assert latency.cli.main([*words, "--input", "8x8", "--runs", "1", "--warmup", "1"]) == 0
    (root / "broken.jsonl").write_text('{"device": "x"\n')
    profile = root / "future.json"
    load_profile("snapdragon-865/gpu").save(profile)
    fields = json.loads(profile.read_text())
    profile.write_text(json.dumps({**fields, "schema": 99}))
