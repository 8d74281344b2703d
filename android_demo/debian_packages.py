"""Unpack packages of a Debian release into a folder, this machine's apt and dpkg left alone.

python debian_packages.py [--alone] FOLDER SUITE PACKAGE...

apt works on a state of its own, with an empty list of what is installed, so that it fetches the
packages with all that they depend on, or the packages alone (`--alone`); the mirror is the one
of this machine's apt. Needs no root.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_CONFIGURATION = """Dir "{state}";
Dir::Etc "etc/apt";
Dir::State "var/lib/apt";
Dir::State::status "{state}/var/lib/dpkg/status";
Dir::Cache "var/cache/apt";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; "arm64"; }};
APT::Sandbox::User "";
Acquire::Languages "none";
"""


def mirror() -> str:
    """Return the address of the first Debian mirror among apt's sources."""
    for file in (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))):
        lines = file.read_text().splitlines() if file.is_file() else []
        for line in lines:
            found = re.match(
                r"(?:URIs:|deb\s+(?:\[.*?\]\s+)?)\s*(https?://\S+/debian/?)(\s|$)", line
            )
            if found:
                return found[1].rstrip("/")
    raise SystemExit("apt's sources name no Debian mirror")


def unpack(folder: Path, suite: str, packages: list[str], *, alone: bool = False) -> None:
    """Unpack packages into a folder, with what they depend on unless it is alone."""
    state = (folder.parent / f"apt-{suite}").absolute()
    for name in ("etc/apt/apt.conf.d", "etc/apt/preferences.d", "var/lib/apt/lists/partial",
                 "var/cache/apt/archives/partial", "var/lib/dpkg"):  # fmt: skip
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "var/lib/dpkg/status").touch()
    source = f"deb [signed-by={_KEYS} arch=amd64,arm64] {mirror()} {suite} main\n"
    (state / "etc/apt/sources.list").write_text(source)
    (state / "apt.conf").write_text(_CONFIGURATION.format(state=state))
    environment = {**os.environ, "APT_CONFIG": str(state / "apt.conf")}
    fetch = ["install", "-y", "--no-install-recommends", "--download-only"]
    fetch = ["download"] if alone else fetch
    folder.mkdir(parents=True, exist_ok=True)
    archives = state / "var/cache/apt/archives"
    for words in (["update"], [*fetch, *packages]):
        subprocess.run(
            ["apt-get", "-qq", *words],
            env=environment,
            cwd=archives,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    for package in sorted(archives.glob("*.deb")):
        subprocess.run(["dpkg", "-x", package, folder], check=True)
        package.unlink()


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--alone"]
    unpack(Path(words[0]), words[1], words[2:], alone="--alone" in sys.argv)
