"""How many different architectures are predicted in a CPU-second, by modules and op by op.

python benchmarks/latency_speed.py --target snapdragon-865/gpu snapdragon-855/gpu
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from functools import partial

from latency.predict import predict
from latency.profile import Profile, load_profile
from mfagan.architecture import MfaArchitecture, op_list
from nas.latencies import Latencies

SIZE = (128, 128)


def main() -> None:
    """Print predictions per CPU-second of both ways, best of five, and how much they differ."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--target", nargs="+", default=["snapdragon-865/gpu", "snapdragon-855/gpu"])
    parser.add_argument("--count", type=int, default=2000, help="architectures")
    arguments = parser.parse_args()
    rng = random.Random(0)
    drawn = list({_draw(rng): None for _ in range(arguments.count)})
    for target in arguments.target:
        profile = load_profile(target)
        some = drawn[: max(1, len(drawn) // 40)]
        # New every time: what the first predictions take is counted.
        fast, quick = _best(partial(Latencies, profile, SIZE), drawn)
        slow, plain = _best(partial(OpByOp, profile), some)
        off = max(abs(a / b - 1) for a, b in zip(quick, plain, strict=False))
        print(
            f"{target}: {fast:,.0f} architectures per CPU-second by modules, {slow:,.0f} op by op "
            f"({fast / slow:,.0f}x); largest difference {off:.0e}"
        )


def _draw(rng: random.Random) -> MfaArchitecture:
    count = rng.randint(2, 8)
    return MfaArchitecture(
        scale=4,
        width=rng.choice((16, 24, 32, 40, 48)),
        convolutions=tuple(rng.choice((2, 3, 4)) for _ in range(count)),
        branches=tuple(rng.choice((0, 1)) for _ in range(count)),
    )


class OpByOp:
    """The way without a short cut."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    def ms(self, architecture: MfaArchitecture) -> float:
        """Return predicted milliseconds."""
        return predict(op_list(architecture, *SIZE), self.profile).ms


def _best(
    make: Callable[[], Latencies | OpByOp], drawn: Sequence[MfaArchitecture]
) -> tuple[float, list[float]]:
    rate, found = 0.0, []
    for _ in range(5):
        latencies = make()
        started = time.process_time()
        found = [latencies.ms(one) for one in drawn]
        rate = max(rate, len(drawn) / (time.process_time() - started))
    return rate, found


if __name__ == "__main__":
    main()
