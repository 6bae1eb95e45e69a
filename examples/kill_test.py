"""Kill a small run of `madtp compress` at random moments, resume it, and compare it with a run that was not killed.

    python examples/kill_test.py --kills 20 --seed 0

SIGKILL and SIGTERM take turns, and so do the stages of the run; the moment in the stage is random. After each kill the
output folder must be absent, resumable or complete. The same command with --resume must then end with the same
model.safetensors and, apart from times, the same report.json. The script prints a table and ends with exit code 1 if a
kill fails. It needs about two minutes.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; runs are forks of this process

import argparse
import hashlib
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.training.small import small_checkpoint
from madtp_cli.checkpoint.state_folder import has_state
from madtp_cli.cli.app import app
from madtp_cli.evaluation import timing
from madtp_cli.pipelines import compress  # noqa: F401  torch is imported before the forks

#: Stages of a run, and the beginning of the line on stderr after which each begins; the first one begins with the run.
STAGES = {
    "load": "",
    "calibration": "Reading the data: done",
    "fine-tune": "Fine-tuning for",
    "last calibration": "Fine-tuning: done",
    "measurement": "Calibrating the threshold scale: done",
    "save": "Timing",
}
STEPS, SAVE_EVERY = 12, 3
WORDS = f"--gflops-budget 0.7 --steps {STEPS} --save-every {SAVE_EVERY} --limit 24 --batch-size 4 --device cpu -o out"
SIGNALS = (signal.SIGKILL, signal.SIGTERM)


@dataclass
class Run:
    """A run in a folder of its own: its process, and its messages as they come."""

    process: int
    messages: Any

    @classmethod
    def start(cls, checkpoint: Path, folder: Path, *more: str) -> Run:
        """Fork this process and run the command line in the copy, with real signals and exit codes."""
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            os.chdir(folder)
            os.dup2(os.open("stdout", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
            os.dup2(writing, 2)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                app(["compress", str(checkpoint), *WORDS.split(), "--json", *more])
            except SystemExit as end:
                os._exit(int(end.code or 0))
            os._exit(99)
        os.close(writing)
        return cls(process, os.fdopen(reading, encoding="utf-8"))

    def starts(self) -> Iterator[tuple[str, float]]:
        """Yield the stages as they begin, each with the time; the last entry is the end of the messages."""
        yield "load", time.monotonic()
        coming = list(STAGES.items())[1:]
        for line in self.messages:
            if coming and line.startswith(coming[0][1]) and ("done" in line or "for" in coming[0][1]):
                yield coming.pop(0)[0], time.monotonic()
        yield "end", time.monotonic()

    def wait(self) -> int:
        """Return the exit code, as a shell would."""
        self.messages.close()
        code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        return code if code >= 0 else 128 - code


def result(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the SHA-256 of the weights in an output folder, and its report without times."""
    report = json.loads((folder / "out/report.json").read_text())
    weights = (folder / "out/model.safetensors").read_bytes()
    return hashlib.sha256(weights).hexdigest(), {k: v for k, v in report.items() if k not in ("seconds", "latency")}


def found_in(folder: Path) -> str:
    """Return what a killed run left: absent, resumable or complete."""
    if (folder / "out/report.json").exists():
        return "complete"
    if (folder / "out").exists():
        return "BROKEN"
    return "resumable" if has_state(folder / "out") else "absent"


def kill(checkpoint: Path, folder: Path, number: signal.Signals, stage: str, delay: float) -> int:
    """Start a run, kill it some seconds after a stage begins, and return the exit code."""
    run = Run.start(checkpoint, folder)
    for name, _ in run.starts():
        if name == stage:
            time.sleep(delay)
            os.kill(run.process, number)
    return run.wait()


def resume(checkpoint: Path, folder: Path) -> int:
    """Run the same command with --resume to its end, and return the exit code."""
    run = Run.start(checkpoint, folder, "--resume")
    for _ in run.starts():
        pass
    return run.wait()


def main() -> int:
    """Print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    timing.MOST_TURNS = timing.LEAST_TURNS  # the timing would be most of such a small run
    rng, failures = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as place:
        checkpoint = small_checkpoint(Path(place))
        (whole := Path(place, "whole")).mkdir()
        run = Run.start(checkpoint, whole)
        times = dict(run.starts())
        run.wait()
        expected, ends = result(whole), dict(zip(times, list(times.values())[1:], strict=False))
        print("| kill | signal | stage | seconds into it | exit code | then the output is | after `--resume` |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for number in range(options.kills):
            (folder := Path(place, str(number))).mkdir()
            stage, sent = list(STAGES)[number // 2 % len(STAGES)], SIGNALS[number % 2]
            delay = rng.random() * (ends[stage] - times[stage])
            code = kill(checkpoint, folder, sent, stage, delay)
            found = found_in(folder)
            ended = resume(checkpoint, folder)
            left = sorted(path.name for path in folder.iterdir())
            same = ended == 0 and left == ["out", "stdout"] and result(folder) == expected
            failures += found == "BROKEN" or not same
            print(
                f"| {number + 1} | {sent.name} | {stage} | {delay:.2f} | {code} | {found} | "
                f"{'bit-identical' if same else f'DIFFERENT (exit code {ended}, {left})'} |",
                flush=True,
            )
    print(f"\n{options.kills - failures} of {options.kills} kills ended with the same weights and the same report.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
