"""Run every command on full-size checkpoints with random weights; write time and memory to full_size.md.

    python examples/full_size.py [nlvr vqa clip] [--folder build/full-size] [--image-size N]

Each checkpoint has the keys, shapes and dtypes of the published file. Every command runs in its own process, so that
its peak memory can be measured. The scenes are rendered in that process, so there are no worker processes whose memory
would have to be added. A step whose record exists is not run again: an interrupted run continues where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from examples import original_names
from examples.training.checkpoints import draw_weights
from examples.training.vocabularies import bert_tokenizer, clip_tokenizer
from madtp_cli import models
from madtp_cli.models import architectures
from madtp_cli.models.prunable import Prunable

HERE = Path(__file__).parent
SEED = 0
#: Architecture of each case, and the name of the published file whose format it has.
CASES = {
    "nlvr": ("blip-nlvr-base", "model_base_nlvr.pth"),
    "vqa": ("blip-vqa-base", "model_base_vqa_capfilt_large.pth"),
    "clip": ("clip-vit-l-14-336", "ViT-L-14-336px.pt"),
}
#: Standard deviation of BLIP's image embeddings. The default of transformers is 1e-10.
EMBEDDING_STD = 0.02
#: Standard deviation of the position embeddings, similar to the differences between patches. With a smaller value,
#: patches of one colour are nearly equal and are pruned all at once, so that few budgets can be met.
POSITION_STD = 0.5
#: Parts of the keys that OpenAI stores in float32; all others are in float16.
FLOAT32_KEYS = ("ln_", "embedding", "logit_scale")
PROFILE = ("--batch-size", "2", "--limit", "16")
COMPRESS = ("--gflops-budget", "0.5", "--steps", "2", "--batch-size", "2", "--limit", "16")
LOAD = """
import json, sys, torch, madtp_cli
from madtp_cli import tasks
from madtp_cli.evaluation.compute import inputs_of
from madtp_cli.scenes import splits
model, processor = madtp_cli.load(sys.argv[1])
rows = splits.rows(model.config.task, "test", 1)
batch = tasks.get(model.config.task).collate(rows, processor)
with torch.inference_mode():
    output = model(**inputs_of(batch))
parameters = sum(parameter.numel() for parameter in model.parameters())
blocks = output.trace["vision"]
tokens = [blocks[0].entered[0], blocks[-1].left[0]]
print(json.dumps({"parameters": parameters, "dtype": str(model.dtype), "tokens": tokens}))
"""


@dataclass(frozen=True)
class Step:
    """One finished command: its time in seconds, its peak resident memory in GiB, and the JSON it printed."""

    seconds: float
    peak: float
    result: dict[str, Any]


def make_checkpoint(case: str, folder: Path, config: Any) -> None:
    """Write a checkpoint with random weights in the published file format, and its tokenizer."""
    torch.manual_seed(SEED)
    sizes = config.text_config
    if case == "clip":
        tokenizer: Any = clip_tokenizer(sizes.max_position_embeddings, sizes.vocab_size)
    else:
        tokenizer = bert_tokenizer(sizes.vocab_size)
        config.vision_config.initializer_range = EMBEDDING_STD
    model = models.get(models.kind_of(config))(config)
    draw_weights(model)
    with torch.no_grad():
        for key, value in model.named_parameters():
            if key.startswith("vision_model.embeddings.position_embedding"):
                value.normal_(std=POSITION_STD)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder / "tokenizer")
    unfinished = folder / "unfinished"
    torch.save(clip_file(model) if case == "clip" else blip_file(model), unfinished)
    unfinished.rename(folder / CASES[case][1])


def clip_file(model: Prunable) -> dict[str, Tensor]:
    """Return the weights with the keys and dtypes of OpenAI's file."""
    weights = original_names.clip(model.state_dict())
    return {key: value if any(part in key for part in FLOAT32_KEYS) else value.half() for key, value in weights.items()}


def blip_file(model: Prunable) -> dict[str, Any]:
    """Return the content of Salesforce's file."""
    weights = original_names.blip(model.state_dict())
    for key in [key for key in weights if key.endswith("embeddings.position_embeddings.weight")]:
        weights[key.replace("position_embeddings.weight", "position_ids")] = torch.arange(len(weights[key]))[None]
    return {"model": weights}


def run(command: Sequence[object], record: Path) -> Step:
    """Run a command and write its record, or read the record if it exists.

    Raises:
        CalledProcessError: The command failed; its messages are on standard error.
    """
    if not record.exists():
        words, started = [str(word) for word in command], time.monotonic()
        with record.with_suffix(".out").open("w+", encoding="utf-8") as output:
            process = subprocess.Popen(words, stdout=output)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)  # wait4 has reaped the process, so Popen must know
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, words)
            output.seek(0)
            step = {"seconds": time.monotonic() - started, "peak": usage.ru_maxrss / 2**20}  # Linux counts KiB
            record.write_text(json.dumps(step | {"result": json.load(output)}), encoding="utf-8")
    return Step(**json.loads(record.read_text("utf-8")))


def run_commands(case: str, folder: Path) -> dict[str, Step]:
    """Run all commands on one checkpoint, one after the other."""
    source, madtp = folder / CASES[case][1], [sys.executable, "-m", "madtp_cli"]
    commands: dict[str, list[object]] = {
        "inspect": [*madtp, "inspect", source, "--json"],
        "profile": [*madtp, "profile", source, *PROFILE, "--json"],
        "compress": [*madtp, "compress", source, *COMPRESS, "--output", folder / "madtp", "--overwrite", "--json"],
        "load": [sys.executable, "-c", LOAD, folder / "madtp"],
    }
    steps = {}
    for name, command in commands.items():
        steps[name] = run(command, folder / f"{name}.json")
        print(table_row(case, name, steps[name]), flush=True)
    return steps


def table_row(case: str, command: str, step: Step) -> str:
    """Return one row of the table."""
    result = SUMMARIES[command](step.result)
    return f"| {CASES[case][0]} | `{command}` | {step.seconds:,.0f} | {step.peak:.2f} | {result} |"


def inspect_summary(result: Mapping[str, Any]) -> str:
    """Summarise the output of `madtp inspect`."""
    wrong = len(result["missing"]) + len(result["unexpected"]) + len(result["reshaped"])
    fit = result["refusal"] or f"all {result['matched']} tensors found"
    if wrong:
        fit = f"{wrong} tensors do not fit"
    return f"{result['format']}, task {result['task']}, {result['parameters'] / 1e6:.1f} M weights, {fit}"


def profile_summary(result: Mapping[str, Any]) -> str:
    """Summarise the output of `madtp profile`."""
    gflops = result["gflops"]
    check = f"formula {gflops['formula']:.4f}, fvcore {gflops['fvcore']:.4f}"
    return f"{gflops['dense']:.2f} GFLOPs per sample; on {gflops['fvcore_samples']} samples {check}"


def compress_summary(result: Mapping[str, Any]) -> str:
    """Summarise the output of `madtp compress`."""
    budget, gflops = result["budget"], result["gflops"]
    return (
        f"budget {budget['requested']}: share {budget['achieved_share']:.4f} on {budget['samples']} validation "
        f"samples, {gflops['share']:.4f} on test samples; {result['latency']['speedup']:.2f}x as fast as dense"
    )


def load_summary(result: Mapping[str, Any]) -> str:
    """Summarise the loaded model and one forward pass."""
    entered, left = result["tokens"]
    weights = f"{result['parameters'] / 1e6:.1f} M weights, {result['dtype']}"
    return f"{weights}; {left} of {entered} image tokens left after the last block"


SUMMARIES = {
    "inspect": inspect_summary,
    "profile": profile_summary,
    "compress": compress_summary,
    "load": load_summary,
}


def write_page(rows: Sequence[str], page: Path) -> None:
    """Write the table of all steps and its explanation."""
    text = [
        "# Full size", "",
        "Written by `python examples/full_size.py`. It runs every command on checkpoints that have the size and the",
        "original file format of the published ones, but random weights. The page shows time, memory and whether the",
        "budget is met; it says nothing about quality.", "",
        "* Each command runs in its own process. The peak is the largest resident memory of this process.",
        f"* `profile` runs with `{' '.join(PROFILE)}`.",
        f"* `compress` runs with `{' '.join(COMPRESS)}`.",
        "* `load` calls `madtp_cli.load` on the output of `compress` and runs one forward pass on one sample.",
        f"* Machine: CPU with {os.cpu_count()} cores, float32, threads per process: {torch.get_num_threads()}, "
        f"torch {torch.__version__}.",
        "", "| checkpoint | command | seconds | peak GiB | result |", "|---|---|---|---|---|", *rows,
    ]  # fmt: skip
    page.write_text("\n".join(text) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the checkpoints, run the commands and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="nlvr|vqa|clip", default=list(CASES), help="default: all three")
    parser.add_argument("--folder", type=Path, default=Path("build/full-size"), help="where checkpoints and records go")
    parser.add_argument("--image-size", type=int, help="pixels (default: published size); then no page is written")
    options = parser.parse_args(arguments)
    rows = []
    for case in options.cases:
        architecture, file = CASES[case]
        config: Any = architectures()[architecture]()
        folder = options.folder / case
        if options.image_size:
            config.vision_config.image_size = options.image_size
            folder = folder.with_name(f"{case}-{options.image_size}")
        if not (folder / file).exists():
            # In its own process, because a child process starts with the peak memory of its parent.
            maker = get_context("spawn").Process(target=make_checkpoint, args=(case, folder, config))
            maker.start()
            maker.join()
        rows += [table_row(case, command, step) for command, step in run_commands(case, folder).items()]
    if not options.image_size:
        write_page(rows, HERE / "full_size.md")


if __name__ == "__main__":
    main()
