"""ONNX Runtime's execution providers on a phone: their names, units and options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from latency.commandline import nearest

PROVIDERS = ("cpu", "xnnpack", "nnapi", "qnn")
_BUILT_IN = {"cpu": "cpu", "xnnpack": "XNNPACK", "nnapi": "nnapi", "qnn": "QNN"}
_XNNPACK_THREADS = "intra_op_num_threads"
_QNN_PLUGIN = "QNNExecutionProvider"
_QNN_BACKEND = ("backend_path", "libQnnHtp.so")


@dataclass(frozen=True, kw_only=True)
class Provider:
    """An execution provider with its options.

    Attributes:
        name: of `PROVIDERS`.
        options: keys and values that ONNX Runtime takes for it; NNAPI has `flags` alone.
    """

    name: str
    options: tuple[tuple[str, str], ...] = ()

    @property
    def unit(self) -> str:
        """Where it computes: NNAPI and QNN on the NPU, QNN's GPU and CPU backends there."""
        if self.name in ("cpu", "xnnpack"):
            return "cpu"
        words = " ".join(value.lower() for key, value in self.options if key.startswith("backend"))
        return next((unit for unit in ("gpu", "cpu") if unit in words), "npu")

    def flags(self, plugin: str | None, threads: int) -> list[str]:
        """Return the phone-side program's arguments.

        Args:
            plugin: the library on the phone that brings QNN, or None where it is built in.
            threads: of the CPU, which XNNPACK wants told apart.
        """
        words = ["--provider", _BUILT_IN[self.name]]
        options = self.options
        if self.name == "qnn":
            if not any(key.startswith("backend") for key, _ in options):
                options = (_QNN_BACKEND, *options)
            if plugin:
                words = ["--provider", _QNN_PLUGIN, "--plugin", plugin]
        if self.name == "xnnpack" and _XNNPACK_THREADS not in dict(options):
            options = ((_XNNPACK_THREADS, str(threads)), *options)
        for key, value in options:
            words += ["--option", f"{key}={value}"]
        return words

    def layers_per_unit(self, kernels: dict[str, int]) -> dict[str, int]:
        """Return how many kernels ran on each unit.

        Args:
            kernels: number by ONNX Runtime's name of the provider that ran them; what a provider
                has compiled into one counts as one.
        """
        counts: dict[str, int] = {}
        for name, count in kernels.items():
            on_cpu = name.startswith(("CPU", "Xnnpack", "XNNPACK"))
            unit = "cpu" if on_cpu else self.unit
            counts[unit] = counts.get(unit, 0) + count
        return counts


def parse_providers(names: str, options: Sequence[str]) -> tuple[Provider, ...]:
    """Return the providers of a list such as `cpu,nnapi`, each once.

    Args:
        names: of `PROVIDERS`, joined by commas.
        options: `PROVIDER:KEY=VALUE`.

    Raises:
        ValueError: an unknown provider, or an option that is not of the form or not of one listed.
    """
    chosen = list(dict.fromkeys(name.strip() for name in names.split(",")))
    for name in chosen:
        if name not in PROVIDERS:
            raise ValueError(
                f"'{name}' is not a provider; they are {', '.join(PROVIDERS)}"
                f"{nearest(name, PROVIDERS)}"
            )
    found: dict[str, list[tuple[str, str]]] = {name: [] for name in chosen}
    for option in options:
        name, colon, rest = option.partition(":")
        key, equals, value = rest.partition("=")
        if not (colon and equals and key):
            raise ValueError(f"--provider-option is PROVIDER:KEY=VALUE, got '{option}'")
        if name not in found:
            raise ValueError(
                f"--provider-option is for '{name}', which is not of --provider {names}"
            )
        if name == "cpu" or (name == "nnapi" and (key != "flags" or not value.isdecimal())):
            allowed = "none" if name == "cpu" else "flags=N alone"
            raise ValueError(f"{name}'s options are {allowed}, got '{rest}'")
        found[name].append((key, value))
    return tuple(Provider(name=name, options=tuple(found[name])) for name in chosen)
