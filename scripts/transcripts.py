"""Run the commands in README.md and on pages of docs/, and paste what they print.

    python scripts/transcripts.py                            # run every page, rewrite the outputs
    python scripts/transcripts.py --check docs/quickstart.md  # compare, numbers aside; exit code 1 on a difference

On these pages, in order and in one empty folder a page:

- a ``console`` block is run: each line that begins with ``$ `` is a command, continued where it ends with a backslash;
  one that ends with ``&`` is left running until the page ends. What the commands print is put below them.
- a ``python`` block is run as a program of its own; its output is put into the ``text`` block that follows it, if any.

Blocks of other languages, such as ``sh``, are not run.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "README.md",
    "docs/quickstart.md",
    "docs/tutorial.md",
    "docs/predict.md",
    "docs/prepare_data.md",
    "docs/train.md",
    "docs/evaluate.md",
    "docs/audit.md",
    "docs/input_check.md",
    "docs/deploy.md",
    "docs/troubleshooting.md",
)
WIDTH = 100
_BLOCK = re.compile(
    r"^```console\n(?P<console>.*?)^```$|^```python\n(?P<python>.*?)^```$(?P<gap>\n+)?(?:^```text\n(?P<text>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)

_PROGRESS = re.compile(r"\d\d:\d\d:\d\d .+: [\d,]+ of [\d,]+ \([\d.]+/s.*\)$")
"""The line that a command prints each minute where there is no terminal."""


class Shell:
    """Runs commands in one folder, as a reader would in a terminal of WIDTH columns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._left_running: list[subprocess.Popen[bytes]] = []
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = os.environ | {
            "PATH": path,
            "COLUMNS": str(WIDTH),
            "HILUM_CACHE": str(folder / ".hilum-cache"),  # without the engine that was chosen on this machine
            "NO_COLOR": "1",
            "PYTHONWARNINGS": "ignore",
        }

    def run(self, command: list[str]) -> str:
        """Return what a command prints on both streams, without progress and without spaces at the ends of lines."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        lines = done.stdout.decode().replace(str(self.folder), "/home/me").rstrip().splitlines()
        return "".join(f"{line.rstrip()}\n" for line in lines if not _PROGRESS.match(line))

    def start(self, command: list[str]) -> None:
        """Start a command and leave it running, its output unseen."""
        with (self.folder / ".background.log").open("ab") as log:
            self._left_running.append(
                subprocess.Popen(
                    command, cwd=self.folder, env=self._environment, stdout=log, stderr=log, start_new_session=True
                )
            )

    def close(self) -> None:
        """End what was left running."""
        for process in self._left_running:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def transcribed(text: str, folder: Path) -> str:
    """Return a page with the outputs of its blocks, run in ``folder``."""
    shell = Shell(folder)

    def fill(match: re.Match[str]) -> str:
        if match["console"] is not None:
            parts = []
            for command in commands(match["console"]):
                parts.append(f"$ {command}\n")
                if command.endswith("&"):
                    shell.start(["bash", "-c", f"exec {command[:-1]}"])
                else:
                    parts.append(shell.run(["bash", "-c", command]))
            return "```console\n" + "".join(parts) + "```"
        output = shell.run([sys.executable, "-c", match["python"]])
        if match["text"] is None:
            if "Traceback" in output:
                raise SystemExit(output)
            return match[0]
        return f"```python\n{match['python']}```{match['gap']}```text\n{output}```"

    try:
        return _BLOCK.sub(fill, text)
    finally:
        shell.close()


def commands(block: str) -> Iterator[str]:
    """Yield the commands of a console block, with their continuation lines."""
    lines = iter(block.splitlines())
    for line in lines:
        if line.startswith("$ "):
            command = line[2:]
            while command.endswith("\\"):
                command += "\n" + next(lines)
            yield command


def comparable(text: str) -> list[str]:
    """Return the lines of a page with digits, hashes and the widths of tables taken out."""
    text = re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b", "#", text)
    text = re.sub(r"[−-]?\d[\d.,:]*(e[+-]?\d+)?", "#", text)
    return [re.sub(r"[ ━─]+", " ", line).strip() for line in text.splitlines()]


def main() -> None:
    """Write or check the pages that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", default=PAGES, help=f"of {', '.join(PAGES)}; all by default")
    parser.add_argument("--check", action="store_true", help="compare with what is committed, write nothing")
    arguments = parser.parse_args()
    differing = False
    for name in arguments.pages:
        page = ROOT / name
        old = page.read_text(encoding="utf-8")
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="hilum-") as folder:
            new = transcribed(old, Path(folder).resolve())
        if arguments.check:
            changes = list(
                difflib.unified_diff(comparable(old), comparable(new), "committed", "printed", lineterm="", n=0)
            )
            differing |= bool(changes)
            print(*changes, sep="\n")
        else:
            page.write_text(new, encoding="utf-8")
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    sys.exit(differing)


if __name__ == "__main__":
    main()
