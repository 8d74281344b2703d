"""Nothing in the product runs what a file holds."""

import ast
from pathlib import Path

import mfagan

FORBIDDEN = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "yaml.load", "joblib.load"),
    *("marshal.loads", "shelve.open", "eval", "exec", "dill.load", "onnx.load", "torch.jit.load"),
}
UNLESS = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}


def dangers(source):
    """Yield the calls of a source that could run a file's code."""
    for found in ast.walk(ast.parse(source)):
        if isinstance(found, ast.Call):
            name = ast.unparse(found.func)
            given = {k.arg: getattr(k.value, "value", None) for k in found.keywords}
            option, safe = UNLESS.get(name, ("", None))
            if name in FORBIDDEN or (option and given.get(option) is not safe):
                yield name


def test_nothing_in_the_product_runs_what_a_file_holds():
    root = Path(mfagan.__file__).parents[1]
    sources = [
        p for room in ("latency", "mfagan", "export", "nas") for p in (root / room).rglob("*.py")
    ]
    assert len(sources) > 60
    found = {str(p.relative_to(root)): [*dangers(p.read_text("utf-8"))] for p in sources}
    # The quantizer's own temporary files, which it has just written.
    assert {name: calls for name, calls in found.items() if calls} == {
        "export/quantize.py": ["onnx.load"] * 2
    }


def test_the_search_for_dangers_finds_them():
    for source in (
        "import torch; torch.load(p)",
        "torch.load(p, weights_only=False)",
        "np.load(p, allow_pickle=True)",
        "np.load(p)",
        "pickle.load(f)",
        "eval(text)",
    ):
        assert list(dangers(source))
    assert not list(dangers("torch.load(p, weights_only=True); np.load(p, allow_pickle=False)"))
