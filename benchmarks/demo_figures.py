"""Hold a finished demo's figures against what the project promises; exit 1 when one falls short.

python benchmarks/demo_figures.py runs/demo
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from latency.costs import REDUCTIONS


def main(demo: Path) -> int:
    """Print every promise, what it demands and what was measured."""
    summary = json.loads((demo / "summary.json").read_text(encoding="utf-8"))
    psnr = dict(summary["psnr_y_crop4"])
    mean = psnr.pop("mean")
    pixel, gan = "pixel stage, shared weights", "gan stage, shared weights"
    rows = [
        ("pixel stage above bicubic, mean, dB", 0.7, mean[pixel] - mean["bicubic"]),
        *(
            (f"pixel stage above bicubic, {name}, dB", 0.0, values[pixel] - values["bicubic"])
            for name, values in psnr.items()
        ),
        ("adversarial stage above bicubic, mean, dB", 0.0, mean[gan] - mean["bicubic"]),
        ("fine-tuned fp32 above bicubic, mean, dB", 0.0, mean["ours fp32"] - mean["bicubic"]),
        ("int8 against fp32, mean, dB", -0.5, -summary["int8_loss_db"]),
        ("budget left, ms", 0.0, summary["budget_ms"] - summary["latency"][0]["ms"]),
        *(
            (f"less {name} than ESRGAN, times", least, summary["reductions_against_esrgan"][name])
            for name, least in REDUCTIONS.items()
        ),
    ]
    for label, least, got in rows:
        verdict = "ok" if got >= least else "FALLS SHORT"
        print(f"{label:45} at least {least:6.2f}  got {got:8.2f}  {verdict}")
    return 0 if all(got >= least for _, least, got in rows) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
