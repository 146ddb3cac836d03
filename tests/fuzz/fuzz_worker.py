"""The process that runs cases. It writes each case where its parent finds it, before it runs it."""

from __future__ import annotations

import faulthandler
import json
import mmap
import os
import random
import resource
import select
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[0]), str(HERE.parent / "hostile"), str(HERE)]

HEADER = struct.Struct("<QQdQ")  # cases begun, whether one runs, processor time at its start, its length
_BEGAN = time.monotonic()
ROOM = 1 << 20
"""Maximum size of a case in the shared file."""

_INSTRUMENTED = ["hilum", "PIL", "pydicom", "python_multipart", "starlette", "dicomweb_client"]
_MOST_KEPT = 5_000
_ADDRESS_SPACE = 8 << 30  # bytes, so that a case cannot take the memory of the machine
_MINIMIZE_SECONDS, _TRIAL_SECONDS = 60.0, 20.0


class Options(NamedTuple):
    """What a process is to do."""

    work: str  # mutate, atheris, minimize or replay
    target: str
    shared: str = ""  # file of the current case
    findings: str = ""  # folder
    corpus: str = ""  # folder, of atheris
    seed: int = 0
    cases: int = 0  # 0: as many as the time allows
    seconds: float = 0.0
    case: str = ""  # file to minimize or replay


class Recorder:
    """Runs cases, and keeps the smallest case of each finding."""

    def __init__(self, target: Any, options: Options) -> None:
        self._target, self._folder = target, Path(options.findings)
        with open(options.shared, "r+b") as stream:  # noqa: PTH123
            self._shared = mmap.mmap(stream.fileno(), HEADER.size + ROOM)
        self.cases = 0

    def __call__(self, content: bytes) -> Any:
        """Run a case, and return its outcome."""
        from fuzz_case import examine

        self.cases += 1
        self._shared[HEADER.size : HEADER.size + len(content)] = content
        began = time.process_time()
        HEADER.pack_into(self._shared, 0, self.cases, 1, began, len(content))
        seen = examine(self._target, content)
        HEADER.pack_into(self._shared, 0, self.cases, 0, began, 0)
        if seen.finding is not None:
            keep(
                self._folder / seen.finding.name(self._target.name),
                content,
                f"{seen.finding.place}\n{seen.finding.details}",
            )
        return seen.outcome


def keep(path: Path, content: bytes, text: str) -> None:
    """Write a case and what is known of it, unless a smaller one of the same finding is there."""
    if not path.exists() or path.stat().st_size > len(content):
        path.write_bytes(content)
        path.with_name(f"{path.name}.txt").write_text(text, encoding="utf-8", errors="backslashreplace")


def fuzz(target: Any, options: Options) -> None:
    """Mutate seeds, and cases whose outcome was new, until the cases or the time are used."""
    from fuzz_mutate import mutate

    run, source = Recorder(target, options), random.Random(f"{options.seed} {target.name}")
    corpus, known = list(target.seeds), set()
    end = _BEGAN + options.seconds if options.seconds else float("inf")
    for seed in target.seeds:
        known.add(run(seed))
    while time.monotonic() < end and (not options.cases or run.cases < options.cases):
        content = mutate(source.choice(corpus), source, corpus)
        outcome = run(content)
        if outcome not in known and len(corpus) < _MOST_KEPT:
            known.add(outcome)
            corpus.append(content)


def fuzz_by_coverage(target: Any, options: Options) -> None:
    """Let atheris mutate, which keeps what reaches new Python code, and mutate as ``fuzz`` does every other time."""
    import atheris
    from fuzz_mutate import MOST_BYTES, mutate

    run, folder = Recorder(target, options), Path(options.corpus)
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (folder / f"seed-{number}").write_bytes(seed)

    def mutated(content: bytes, most: int, seed: int) -> bytes:
        source = random.Random(seed)
        if source.randrange(2):
            return bytes(atheris.Mutate(content, most))
        return mutate(content, source, target.seeds)[:most]

    left = max(1, int(_BEGAN + options.seconds - time.monotonic()))
    limits = [f"-max_total_time={left}"] if options.seconds else []
    limits += [f"-runs={options.cases}"] if options.cases else []
    handled = ("segv", "bus", "abrt", "ill", "fpe", "int", "term", "xfsz", "usr1", "usr2")
    arguments = [
        "fuzz", *limits, f"-max_len={MOST_BYTES}", f"-seed={options.seed + 1}", "-rss_limit_mb=0", "-timeout=86400",
        "-print_final_stats=0", "-verbosity=0", *(f"-handle_{name}=0" for name in handled), str(folder),
    ]  # fmt: skip
    atheris.Setup(arguments, lambda content: run(content) and None, custom_mutator=mutated)
    atheris.Fuzz()


def trial(target: Any, content: bytes) -> tuple[str, str]:
    """Return kind and place of what is found in a case that a child process runs; empty if nothing is."""
    from fuzz_case import examine

    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        finding = examine(target, content).finding
        os.write(writer, b"" if finding is None else f"{finding.kind}\n{finding.place}".encode(errors="replace")[:4096])
        os._exit(0)
    os.close(writer)
    ended, _, _ = select.select([reader], [], [], _TRIAL_SECONDS)
    said = os.read(reader, 4096) if ended else b""
    os.close(reader)
    if not ended:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not ended:
        return "hang", ""
    if os.WIFSIGNALED(status):
        return "crash", signal.Signals(os.WTERMSIG(status)).name
    kind, _, place = said.decode(errors="replace").partition("\n")
    return kind, place


def minimize(target: Any, content: bytes, wanted: str) -> bytes:
    """Remove parts of a case, ever smaller ones, as long as what is found in it stays of the kind that is wanted."""
    first = trial(target, content)
    if first[0] != wanted:
        return content
    end, size = time.monotonic() + _MINIMIZE_SECONDS, max(1, len(content) // 2)
    while time.monotonic() < end:
        start, smaller = 0, False
        while start < len(content) and time.monotonic() < end:
            shorter = content[:start] + content[start + size :]
            found = trial(target, shorter)
            if found[0] == first[0] and (wanted != "exception" or found[1] == first[1]):
                content, smaller = shorter, True
            else:
                start += size
        if size == 1 and not smaller:
            break
        size = max(1, size // 2)
    return content


def main() -> None:
    options = Options(**json.loads(sys.argv[1]))
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=False)
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    if options.work == "atheris":
        import atheris

        with atheris.instrument_imports(include=_INSTRUMENTED):
            from fuzz_targets import make

            target = make(options.target)
    else:
        from fuzz_targets import make

        target = make(options.target)
    if options.work in ("mutate", "atheris"):
        (fuzz if options.work == "mutate" else fuzz_by_coverage)(target, options)
        return
    content = Path(options.case).read_bytes()
    if options.work == "minimize":
        kind = Path(options.case).name.removeprefix(f"{options.target}-").partition("-")[0]
        Path(options.case).write_bytes(minimize(target, content, kind))
        return
    from fuzz_case import examine

    if (found := examine(target, content).finding) is not None:
        print(f"{found.kind}: {found.place}\n{found.details}")
        sys.exit(1)


if __name__ == "__main__":
    main()
