"""The line of JSON that a measurement on a phone ends with, of the C program and of the app."""

from __future__ import annotations

import json
import math
from typing import Any

from latency.commandline import FailureError
from latency.model_file import shown


def read_result(out: str, code: str, where: str, runs: int, limit_s: int) -> dict[str, Any]:
    """Return what was printed on the phone, checked.

    Args:
        out: all that was printed; the last line that begins with a brace counts.
        code: exit status, in digits.
        where: model, provider and threads, in words.
        runs: how many times are expected.
        limit_s: seconds that the measurement was given.

    Raises:
        FailureError: it says an error, or is no result.
    """
    lines = [line for line in out.splitlines() if line.startswith("{")]
    try:
        result = json.loads(lines[-1]) if lines else None
    except (json.JSONDecodeError, RecursionError):
        result = None
    if isinstance(result, dict) and "error" in result:
        if result["error"] == "time limit":
            raise FailureError(
                f"{where} did not end within {limit_s} s and was ended on the phone; give fewer "
                "--runs or a higher --limit"
            )
        reason = result.get("reason") or result["error"]
        raise FailureError(f"{where} does not run: {shown(' '.join(str(reason).split()), 300)}")
    if code != "0" or not isinstance(result, dict) or not is_whole(result, runs):
        raise FailureError(f"{where} ended on the phone without a result (status {code or '?'})")
    return result


def is_whole(result: dict[str, Any], runs: int) -> bool:
    """Tell whether a result has everything that a measurement is made of."""
    times, layers = result.get("times_ms"), result.get("layers", {})
    return (
        isinstance(times, list)
        and len(times) == runs
        and all(type(time) in (int, float) and 0 < time < math.inf for time in times)
        and type(result.get("load_ms")) in (int, float)
        and type(result.get("peak_bytes")) is int
        and type(result.get("runtime_version")) is str
        and "output_mean" in result
        and isinstance(layers, dict)
        and all(type(count) is int for count in layers.values())
    )
