"""What a SubGenerator may take: milliseconds on each target, peak memory, parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

from latency.commandline import FailureError
from latency.costs import Costs, costs
from latency.target import known
from mfagan.architecture import MfaArchitecture, op_list
from mfagan.space import SearchSpace
from nas.latencies import Latencies

if TYPE_CHECKING:
    from latency.profile import Profile

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Phone:
    """A target, and the milliseconds that it allows.

    Attributes:
        profile: of the target.
        budget_ms: the largest latency allowed; None for any.
    """

    profile: Profile
    budget_ms: float | None = None

    @property
    def name(self) -> str:
        """The target in full, e.g. `snapdragon-865/gpu@tflite:fp16`."""
        return str(self.profile.target)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What holds for every target; None for any.

    Attributes:
        memory_mib: peak memory at the search's input, MiB (contract 7 of docs/architecture.md).
        parameters: weights and biases.
    """

    memory_mib: float | None = None
    parameters: int | None = None


@dataclass(frozen=True, kw_only=True)
class Excess:
    """A budget that an architecture does not keep.

    Attributes:
        constraint: short name, e.g. `latency`.
        over: by how much, in the budget's unit; at most 0 where it is kept.
        ratio: of what it takes to what is allowed.
        reason: in words; empty where it is kept.
        remedy: the flag with a value that would do.
    """

    constraint: str
    over: float
    ratio: float
    reason: str
    remedy: str


class Budgets:
    """Judges architectures of one space by what they take.

    Args:
        phones: at least one, of different targets.
        limits: of memory and parameters.
        size: LR height and width on the phones.
        risk: chance, at most 0.5, that a candidate within a latency budget is slower than it.
    """

    def __init__(
        self, phones: Sequence[Phone], limits: Limits, size: tuple[int, int], risk: float = 0.5
    ) -> None:
        self.phones = tuple(phones)
        self.limits = limits
        self.size = size
        self.risk = risk
        self.latencies = {phone.name: Latencies(phone.profile, size) for phone in phones}

    def ms(self, architecture: MfaArchitecture) -> dict[str, float]:
        """Return the predicted milliseconds by target."""
        return {name: one.ms(architecture) for name, one in self.latencies.items()}

    def latency(self, phone: Phone, architecture: MfaArchitecture) -> Excess | None:
        """Return how a latency budget is kept; None where there is none."""
        if phone.budget_ms is None:
            return None
        judged = self.latencies[phone.name].at_risk(architecture, self.risk)
        at = "" if self.risk == 0.5 else f" at a risk of {self.risk:g}"
        on = "" if len(self.phones) == 1 else f" on {phone.name}"
        over = judged > phone.budget_ms
        flag = f"--budget-ms {rounded_up(judged):g}"
        if len(self.phones) > 1:
            flag = f"{phone.profile.target.soc}/{phone.profile.unit}={rounded_up(judged):g}"
        return Excess(
            constraint="latency",
            over=judged - phone.budget_ms,
            ratio=judged / phone.budget_ms,
            reason=f"{judged:.2f} ms{at} is over the budget of {phone.budget_ms:g} ms{on}"
            if over
            else "",
            remedy=flag,
        )

    def sizes(self, architecture: MfaArchitecture) -> list[Excess]:
        """Return how the budgets of memory and parameters are kept, those that there are."""
        found = []
        if self.limits.memory_mib is not None:
            takes, allowed = self.costs(architecture).peak_bytes / MIB, self.limits.memory_mib
            found.append(
                Excess(
                    constraint="memory",
                    over=takes - allowed,
                    ratio=takes / allowed,
                    reason=f"{takes:.2f} MiB is over the budget of {allowed:g} MiB"
                    if takes > allowed
                    else "",
                    remedy=f"--budget-memory-mib {rounded_up(takes):g}",
                )
            )
        if self.limits.parameters is not None:
            count, most = self.costs(architecture).parameters, self.limits.parameters
            found.append(
                Excess(
                    constraint="parameters",
                    over=float(count - most),
                    ratio=count / most,
                    reason=f"{count:,} parameters are over the budget of {most:,}"
                    if count > most
                    else "",
                    remedy=f"--budget-params {count}",
                )
            )
        return found

    def costs(self, architecture: MfaArchitecture) -> Costs:
        """Return the costs at the search's input size, fp32."""
        return _costs(architecture, self.size)

    def check(self, space: SearchSpace) -> None:
        """Check that some member of the space keeps the budgets of each target.

        Every law of latency rises with every op, so that one of the least modules is the fastest;
        with the law of single ops a width that fills the runtime's blocks may be faster than a
        narrower one.

        Raises:
            FailureError: none does; the nearest is named, with budgets that would do.
        """
        least = [
            MfaArchitecture(
                scale=space.scale,
                width=width,
                convolutions=(space.convolutions[0],) * space.modules[0],
                branches=(branch,) * space.modules[0],
            )
            for width, branch in product(space.widths, space.branches)
        ]
        least = [member for member in least if space.contains(member)]
        for phone in self.phones:
            ratios = [self._worst(phone, member) for member in least]
            if min(ratios) > 1:
                raise self.nothing_fits(phone, least)

    def nothing_fits(self, phone: Phone, tried: Sequence[MfaArchitecture]) -> FailureError:
        """Return the error of a search without a candidate for a target.

        Args:
            phone: the target.
            tried: architectures, none of which keeps its budgets.
        """
        nearest_one = min(tried, key=lambda member: self._worst(phone, member))
        judged = self._all(phone, nearest_one)
        height, width = self.size
        allowed = [] if phone.budget_ms is None else [f"{phone.budget_ms:g} ms on {phone.name}"]
        if self.limits.memory_mib is not None:
            allowed.append(f"{self.limits.memory_mib:g} MiB")
        if self.limits.parameters is not None:
            allowed.append(f"{self.limits.parameters:,} parameters")
        takes = []
        if phone.budget_ms is not None:
            latencies = self.latencies[phone.name]
            takes.append(f"{latencies.at_risk(nearest_one, self.risk):.2f} ms")
        if self.limits.memory_mib is not None:
            takes.append(f"{self.costs(nearest_one).peak_bytes / MIB:.2f} MiB")
        if self.limits.parameters is not None:
            takes.append(f"{self.costs(nearest_one).parameters:,} parameters")
        remedies = [one.remedy for one in judged if one.reason] or ["more --trials"]
        return FailureError(
            f"no candidate is within {_joined(allowed)} at {height}x{width}; the nearest is "
            f"{nearest_one} with {_joined(takes)}: {_joined(remedies)} would do"
        )

    def _worst(self, phone: Phone, architecture: MfaArchitecture) -> float:
        """Return the largest ratio of what an architecture takes to what is allowed."""
        return max((one.ratio for one in self._all(phone, architecture)), default=0.0)

    def _all(self, phone: Phone, architecture: MfaArchitecture) -> list[Excess]:
        latency = self.latency(phone, architecture)
        return ([] if latency is None else [latency]) + self.sizes(architecture)


def parse_targets(text: str, budget_ms: float | None) -> dict[str, float | None]:
    """Return the budget of each target of `--targets a=12,b,c`.

    Args:
        text: targets joined by commas, each with its own milliseconds or without.
        budget_ms: of those without.

    Raises:
        ValueError: a target is empty or named twice, or its budget is no number above 0.
    """
    found: dict[str, float | None] = {}
    for part in (part.strip() for part in text.split(",")):
        name, equals, number = part.rpartition("=") if "=" in part else (part, "", "")
        if not name:
            raise ValueError(
                f"--targets '{text}' holds an empty target; write soc/unit or soc/unit=MS, joined "
                f"by commas, of {', '.join(known())}"
            )
        if name in found:
            raise ValueError(f"--targets names '{name}' twice")
        found[name] = _milliseconds(name, number) if equals else budget_ms
    return found


def load_phones(budgets: Mapping[str, float | None]) -> list[Phone]:
    """Return the targets with their profiles.

    Raises:
        FileNotFoundError, ValueError: a target has no profile; the nearest are named. Two of them
            are one.
    """
    from latency.profile import load_profile

    phones = [Phone(profile=load_profile(name), budget_ms=ms) for name, ms in budgets.items()]
    names = [phone.name for phone in phones]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"--targets names '{name}' twice")
    return phones


def _milliseconds(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError(f"--targets {name}: a number of ms above 0 is needed, got '{text}'")
    return value


def _joined(parts: Sequence[str]) -> str:
    *others, last = parts
    return f"{', '.join(others)} and {last}" if others else last


def rounded_up(value: float) -> float:
    """Return a budget with two decimals that holds a value."""
    return (int(value * 100) + 1) / 100


@lru_cache(maxsize=8192)
def _costs(architecture: MfaArchitecture, size: tuple[int, int]) -> Costs:
    return costs(op_list(architecture, *size))
