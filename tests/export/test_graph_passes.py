"""What the passes leave of an export, and what they say they did."""

import json
from collections import Counter
from itertools import pairwise

import onnx

from export.constant_folding import NOTHING, fold_constants
from mfagan.architecture import op_list, parse


def test_the_sum_of_projections_stays_a_running_sum(exported):
    for path in sorted(exported.glob("*_fp*.onnx")):
        model = onnx.load(path)
        card = {p.key: p.value for p in model.metadata_props}
        expected = Counter(op.kind for op in op_list(parse(card["architecture"]), 64, 64).ops)
        assert expected["concat"] == 0
        assert expected["add"] > 0
        images = _images(model)
        found = Counter(
            node.op_type for node in model.graph.node if images.intersection(node.output)
        )
        assert found["Concat"] == 0
        assert found["Add"] == expected["add"]
        assert fold_constants(model) == NOTHING


def _images(model):
    """Return the tensors that depend on pixels, not only on the size of the picture."""
    known = {"lr"}
    for node in model.graph.node:
        if node.op_type != "Shape" and known.intersection(node.input):
            known.update(node.output)
    return known


def test_the_report_says_what_each_pass_did(exported):
    report = json.loads((exported / "export.json").read_text())
    assert [one["name"] for one in report["passes"]] == [
        "constant folding",
        "onnxsim",
        "depth-to-space CRD to DCR",
    ]
    folding, _, shuffle = report["passes"]
    assert (folding["kept"], folding["why"]) == (False, NOTHING)
    assert (shuffle["kept"], shuffle["why"]) == (True, "kept, outputs differ by 0")
    nodes = [(one["nodes_before"], one["nodes_after"]) for one in report["passes"]]
    assert all(a[1] == b[0] for a, b in pairwise(nodes))
    assert nodes[-1][1] == report["files"][0]["nodes"]
