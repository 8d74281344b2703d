"""The app on a phone that is a folder: stand-ins for Android's `am` and `logcat`.

`am start` runs a command with the intent's extras as KEY=VALUE words, takes what it prints for the
app's answer, and writes it where the app does: to the log, in pieces, and to the app's file.
"""

from __future__ import annotations

import shlex
from pathlib import Path

PACKAGE = "io.github.mfagan.app"
AM = r"""#!/bin/sh
root={root}
printf '%s\n' "$*" >> "$root/am"
[ "$1" = start ] || exit 0
if [ ! -e "$root/installed" ]; then
  echo "Error type 3"
  echo "Error: Activity class {{{package}/{package}.BenchmarkActivity}} does not exist."
  exit 1
fi
shift
id=0 words=
while [ $# -gt 0 ]; do
  case "$1" in
    --es | --ei) set -- "$@"; [ "$2" = id ] && id=$3
      printf '%s=%s\0' "$2" "$3" >> "$root/extras.$id"; shift 3 ;;
    *) shift ;;
  esac
done
(
  said=$(xargs -0 {answer} < "$root/extras.$id" 2>> "$root/errors")
  [ -e "$root/silent" ] && exit
  if [ -e "$root/files" ]; then
    mkdir -p "$root/sdcard/Android/data/{package}/files"
    printf '%s\n' "$said" > "$root/sdcard/Android/data/{package}/files/benchmark-$id.json"
  fi
  [ -e "$root/no_log" ] && exit
  pieces=$(printf %s "$said" | fold -w 50)
  count=$(printf '%s\n' "$pieces" | wc -l | tr -d ' ')
  printf '%s\n' "$pieces" | awk -v id="$id" -v n="$count" '{{ print id " " NR "/" n " " $0 }}' |
    while IFS= read -r line; do printf '%s\n' "$line" >> "$root/log"; done
) > /dev/null 2>&1 &
echo Status: ok
"""
LOGCAT = """#!/bin/sh
# What other runs, and other programs, have said is there as well.
echo '--------- beginning of main'
echo '0123456789abcdef 1/1 {{"error": "of another run"}}'
cat '{root}/log' 2>/dev/null
true
"""
ANSWER = """#!/bin/sh
case "$*" in *provider=nnapi*) echo '{"error": "run", "reason": "NNAPI is not here"}'; exit ;; esac
echo '{"runtime_version": "1.27.0", "load_ms": 3.5, "times_ms": [2.0, 1.5, 1.75], "peak_bytes": '\\
'1048576, "output_shape": [1, 3, 32, 40], "checksum": "00", "output_mean": 0.5, '\\
'"layers": {"CPUExecutionProvider": 2, "NnapiExecutionProvider": 1}}'
"""


def install(root: Path, answer: list[str] | None = None) -> None:
    """Put the stand-ins into a phone's folder, and the app onto it.

    Args:
        root: the phone's folder.
        answer: a command that prints the app's answer; a fixed one where it is not given.
    """
    if answer is None:
        script = root / "answer"
        script.write_text(ANSWER)
        script.chmod(0o755)
        answer = [str(script)]
    for name, text in (("am", AM), ("logcat", LOGCAT)):
        path = root / "bin" / name
        filled = text.format(root=root, package=PACKAGE, answer=shlex.join(answer))
        path.write_text(filled)
        path.chmod(0o755)
    (root / "installed").touch()
