import html.parser

import numpy as np
import pytest
import torch

from mfagan import training_report
from mfagan.config_layers import resolve
from mfagan.images import write_image
from mfagan.run_folder import RunFolder
from mfagan.training_report import write_training_report

STAGES = {
    "pixel": {
        "file": "pixel.safetensors", "architecture": "mfa_x4_w8_c2_s0", "steps": 60,
        "psnr_y_crop4": 27.5,
    }
}  # fmt: skip


def line(step, **figures):
    return {
        "stage": "pixel", "step": step, "learning_rate": 1e-3, "l1": 1 / step, "skipped": 0,
        "seconds": 4.0, "cpu_seconds": 4.0, "data_seconds": 0.5, **figures,
    }  # fmt: skip


class Page(html.parser.HTMLParser):
    """Collects cells, captions and sources of pictures; every tag must be closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.cells, self.sources, self.text = [], [], [], ""
        self.feed(text)
        assert [tag for tag in self.open if tag not in ("meta", "html")] == []

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.sources.append(dict(attributes)["src"])
        if tag not in ("img", "br", "meta"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        if tag != "html":
            assert self.open.pop() == tag

    def handle_data(self, text):
        self.text += text
        if self.open[-1:] in (["td"], ["figcaption"], ["h2"]):
            self.cells.append(text)


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run", resolve({"data": {"data": "a<b"}}))
    for each in (line(20), line(40, skipped=2), line(60, skipped=2, seconds=8.0)):
        folder.append_metrics(each)
    folder.append_metrics({"stage": "pixel", "step": 60, "psnr_y_crop4": 27.5})
    picture = np.zeros((8, 24, 3), np.uint8)
    write_image(folder.samples / "pixel.png", picture)
    for step in (20, 40, 60):
        folder.write_sample("pixel", step, picture)
    return folder


def test_it_tells_time_samples_environment_configuration_and_what_went_wrong(folder):
    write_training_report(folder, {"stages": STAGES}, torch.device("cpu"))
    page = Page(folder.report.read_text(encoding="utf-8"))
    row = page.cells.index("pixel")
    # 16 seconds, of which 1.5 waiting for data
    assert page.cells[row : row + 8] == [
        "pixel", "mfa_x4_w8_c2_s0", "60", "16 s", "9.4%", "2", "psnr_y_crop4 27.50 dB",
        "pixel.safetensors",
    ]  # fmt: skip
    wrong = page.cells.index("What went wrong")
    assert page.cells[wrong + 1 : wrong + 5] == ["pixel", "21 to 40", "2", "0.001"]
    assert [c for c in page.cells if c.startswith("step ") and c[5:].isdigit()] == [
        "step 20", "step 40", "step 60",
    ]  # fmt: skip
    assert len(page.sources) == 1 + 2 + 3  # the end; LR and HR; SR on the way
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert torch.__version__ in page.cells
    assert 'data = "a<b"' in page.text


def test_nothing_went_wrong(folder):
    folder.forget_after("pixel", 20)
    write_training_report(folder, {"stages": STAGES})
    assert "What went wrong" not in folder.report.read_text(encoding="utf-8")


def test_curves_have_the_rate_and_the_waiting_of_each_line(monkeypatch):
    curves = {}

    def chart(title, series, *_):
        curves[title] = series[title]
        return ""

    monkeypatch.setattr(training_report, "chart", chart)
    lines = [line(20), line(60, seconds=8.0, data_seconds=6.0)]
    training_report.training_curves([*lines, {"stage": "pixel", "step": 60, "psnr_y_crop4": 27.5}])
    assert curves == {
        "steps per second": [(20, 5.0), (60, 5.0)],
        "share of time waiting for data": [(20, 0.125), (60, 0.75)],
        "l1": [(20, 1 / 20), (60, 1 / 60)],
        "learning_rate": [(20, 1e-3), (60, 1e-3)],
        "psnr_y_crop4": [(60, 27.5)],
    }
