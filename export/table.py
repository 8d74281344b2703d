"""The table at the end of an export."""

from __future__ import annotations

from export.result import ExportedFile, ExportResult


def table(result: ExportResult) -> str:
    """Return the result as an aligned table, one line per file, and what is to be known of it."""
    sizes = list(dict.fromkeys(size for file in result.files for size in file.differences))
    targets = list(dict.fromkeys(one.target for f in result.files for one in f.predicted))
    timed = result.files[0].timed
    lines = [
        [
            "file",
            "KiB",
            "nodes",
            f"psnr_y_crop{result.scale}",
            "loss dB",
            *(f"max diff {size}" for size in sizes),
            f"ms at {timed}",
            "x fp32",
        ],
        *(_line(file, sizes) for file in result.files),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    ]
    host = f"measured on this CPU by ONNX Runtime, {result.threads} threads, files in turn"
    rows.append(f"(ms {host}; max diff to torch; photographs judged: {len(result.photographs)})")
    if any(file.precision == "int8-a16" for file in result.files):
        rows.append("(int8-a16 is for NPUs: a CPU computes it in float, slower than fp32)")
    for target in targets:
        rows += _predicted(result, target)
    rows += [f"on phones, {file.path.name}: {'; '.join(file.phones)}" for file in result.files]
    return "\n".join([*rows, *map(str, result.passes)])


def _line(file: ExportedFile, sizes: list[str]) -> list[str]:
    quality = ["-", "-"]
    if file.psnr_y is not None and file.loss is not None:
        quality = [f"{file.psnr_y:.2f}", f"{file.loss:.3f}"]
    return [
        file.path.name,
        f"{file.bytes / 1024:.0f}",
        str(file.nodes),
        *quality,
        *(f"{file.differences[size]:.1e}" for size in sizes),
        f"{file.milliseconds:.1f}",
        f"{file.times_fp32:.2f}",
    ]


def _predicted(result: ExportResult, target: str) -> list[str]:
    """Return a line for a target, or one for each figure where its files' figures differ."""
    found: dict[str, list[str]] = {}
    for file in result.files:
        for one in file.predicted:
            if one.target == target:
                figure = f"{one.ms:.1f} ms ({one.low_ms:.1f} to {one.high_ms:.1f})"
                found.setdefault(figure, []).append(file.precision)
    timed = result.files[0].timed
    return [
        f"predicted {target}: {figure} at {timed}"
        + (f" for {', '.join(files)}" if len(found) > 1 else "")
        for figure, files in found.items()
    ]
