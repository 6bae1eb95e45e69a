"""Two processes on one machine, connected by gloo, give what one process gives."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from madtp_cli import processes
from madtp_cli.errors import UsageError
from tests import json_documents
from tests.paths import ROOT

LAUNCHERS = {"torchrun": "torch.distributed.run", "accelerate": "accelerate.commands.accelerate_cli"}
EXAMPLES = [ROOT / "examples" / f"{name}.pt" for name in ("blip", "blip-caption", "blip-retrieval", "clip")]


def start(words: list[Any], rank: int = 0, count: int = 1, port: int = 0, folder: Path = ROOT) -> subprocess.Popen[str]:
    """Start Python with these arguments in a folder, as one of several processes."""
    variables = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    if count > 1:
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        variables |= {name: str(value) for name, value in ranks.items()}
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        cwd=folder,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(words: list[Any], folders: Sequence[Path] = (ROOT, ROOT)) -> list[subprocess.Popen[str]]:
    """Start two connected processes with these arguments, each in its folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [start(words, rank, 2, port, folder) for rank, folder in enumerate(folders)]


def output(process: subprocess.Popen[str]) -> Any:
    """Return what a process printed as JSON."""
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    return checked(out)


def checked(out: str) -> Any:
    """Return a JSON document after a check with the schema of its command, if it is of one."""
    document = json.loads(out)
    if isinstance(document, dict):
        json_documents.validator(document["command"]).validate(document)
    return document


@pytest.mark.slow
def test_two_processes_train_and_measure_as_one() -> None:
    """Batches of seven samples are shared as three and four, and each process keeps other numbers of tokens."""
    words = ["-m", "tests.processes.worker", *EXAMPLES]
    running = start_two(words)
    alone, (first, second) = output(start(words)), map(output, running)
    assert first == second
    for one, two in zip(alone, first, strict=True):
        assert len(one["losses"]) == 2
        for single, shared in zip(one["losses"], two["losses"], strict=True):
            assert shared == pytest.approx(single, abs=1e-4)
        assert two["gflops"] == pytest.approx(one["gflops"], rel=1e-3)
        assert two["generation"] == pytest.approx(one["generation"], rel=1e-3)
        assert (two["quality"], two["samples"]) == (one["quality"], one["samples"])


@pytest.mark.slow
def test_the_main_process_prints_and_writes_and_a_lost_process_ends_the_others(tmp_path) -> None:
    """One voice on the terminal; after the end of a process the others do not wait for it."""
    words = ["-m", "madtp_cli", "compress", EXAMPLES[0], "--gflops-budget", 0.5, "--device", "cpu"]
    short = ["--steps", 2, "--limit", 16, "--batch-size", 8, "--output", tmp_path / "short", "--json"]
    first, second = start_two([*words, *short])
    report, (other, _) = output(first), second.communicate(timeout=100)
    assert report["gflops"]["pruned"] > 0
    assert other == ""
    assert (tmp_path / "short" / "model.safetensors").exists()
    first, second = start_two([*words, "--steps", 2000, "--output", tmp_path / "long"])
    assert first.stderr is not None
    while "Fine-tuning" not in first.stderr.readline():
        assert first.poll() is None
    second.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    second.communicate(timeout=100)
    _, message = first.communicate(timeout=100)
    assert time.monotonic() - killed < 30
    assert "lost the connection to another process" in message
    assert first.returncode == 1
    assert not (tmp_path / "long").exists()


def write_shard(file: Path, samples: range) -> None:
    """Write a shard with pictures of one colour each and captions."""
    with tarfile.open(file, "w") as archive:
        for number in samples:
            picture = io.BytesIO()
            Image.new("RGB", (48, 48), (5 * number % 256, 90, 30)).save(picture, "png")
            for name, content in ((f"{number}.png", picture.getvalue()), (f"{number}.txt", b"a red box")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


@pytest.mark.slow
def test_each_process_reads_its_own_shards(tmp_path) -> None:
    """The path leads each process to another folder, as on two machines; the samples of both are counted once."""
    for rank in range(2):
        folder = tmp_path / str(rank) / "shards"
        folder.mkdir(parents=True)
        for number, split in enumerate(("train", "val", "test")):
            start_at = 100 * number + 10 * rank
            write_shard(folder / f"{split}-{rank}.tar", range(start_at, start_at + 6 + rank))
    words = ["-m", "madtp_cli", "compress", ROOT / "examples" / "clip.pt", "--gflops-budget", 0.7, "--device", "cpu"]
    more = ["--steps", 2, "--batch-size", 4, "--json", "--output", tmp_path / "out", "--data", "shards"]
    first, second = start_two([*words, *more], [tmp_path / "0", tmp_path / "1"])
    report, (_, message) = output(first), second.communicate(timeout=100)
    assert second.returncode == 0, message
    assert report["quality"]["samples"] == 6 + 7


@pytest.mark.slow
def test_the_launchers_of_the_page_work(tmp_path) -> None:
    """The commands of docs/distributed.md, on the example checkpoint."""
    page = (ROOT / "docs" / "distributed.md").read_text("utf-8")
    lines = [line for line in page.splitlines() if line.startswith(("torchrun", "accelerate launch"))]
    assert len(lines) == 2
    for line in lines:
        launcher, *words = line.replace("examples/", f"{ROOT}/examples/").split()
        done = subprocess.run(
            [sys.executable, "-m", LAUNCHERS[launcher], *words, "--json", "--device", "cpu"],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert checked(done.stdout)["command"] in ("compress", "eval")


def test_a_command_for_one_process_refuses_a_launcher(monkeypatch) -> None:
    """Otherwise each process would write the same file."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="runs in one process, but 2 were started"):
        processes.require_one("export")
