"""Full-size checkpoints with random weights through every command: the time and memory it takes. Writes full_size.md.

    python examples/full_size.py [nlvr vqa clip] [--folder build/full-size] [--image-size N]

Each checkpoint has the keys, shapes and number formats of the published file. Every command is a process of its
own, whose peak is its own; scenes are painted in that process, so that there are no workers to count beside it.
What is done is not done again: a broken run goes on where it stopped.
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

from examples.pretrain import build_tokenizer, draw_weights
from examples.train import clip_tokenizer
from madtp_cli import models
from madtp_cli.checkpoint.formats import openai_clip, salesforce_blip
from madtp_cli.models.prunable import Prunable

HERE = Path(__file__).parent
SEED = 0
#: The architecture of each, and the name of the published file that it is laid out like.
CASES = {
    "nlvr": ("blip-nlvr-base", "model_base_nlvr.pth"),
    "vqa": ("blip-vqa-base", "model_base_vqa_capfilt_large.pth"),
    "clip": ("clip-vit-l-14-336", "ViT-L-14-336px.pt"),
}
#: Standard deviation of BLIP's embeddings; transformers' configuration of its image tower has none to speak of.
EMBEDDING_STD = 0.02
#: That of the patches' positions, about as much as the patches themselves differ: with less, patches of one colour
#: are all but equal, go all at once, and a budget between is hard to meet.
POSITION_STD = 0.5
#: What OpenAI stores in single precision; all else is half.
SINGLE = ("ln_", "embedding", "logit_scale")
PROFILE = ("--batch-size", "2", "--limit", "16")
COMPRESS = ("--gflops-budget", "0.5", "--steps", "2", "--batch-size", "2", "--limit", "16")
LOAD = """
import json, sys, torch, madtp_cli
from madtp_cli import tasks
from madtp_cli.evaluation.run import inputs_of
from madtp_cli.scenes import splits
model, processor = madtp_cli.load(sys.argv[1])
rows = splits.rows(model.config.task, "test", 1)
batch = tasks.get(model.config.task).collate(rows, processor)
with torch.inference_mode():
    output = model(**inputs_of(batch))
parameters = sum(parameter.numel() for parameter in model.parameters())
blocks = output.trace["vision"]
kept = [blocks[0].entered[0], blocks[-1].left[0]]
print(json.dumps({"parameters": parameters, "dtype": str(model.dtype), "kept": kept}))
"""


@dataclass(frozen=True)
class Step:
    """One finished command: seconds, most memory that was resident at a time in GiB, and its JSON document."""

    seconds: float
    peak: float
    result: dict[str, Any]


def make(name: str, folder: Path, config: Any) -> None:
    """Write a checkpoint as the original is stored, with random weights, and the tokenizer beside it."""
    torch.manual_seed(SEED)
    sizes = config.text_config
    if config.model_type == "madtp_clip":
        tokenizer: Any = clip_tokenizer(sizes.max_position_embeddings, sizes.vocab_size)
    else:
        tokenizer = build_tokenizer(sizes.vocab_size)
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
    torch.save(stored(model), unfinished)
    unfinished.rename(folder / CASES[name][1])


def stored(model: Prunable) -> dict[str, Any]:
    """What the published file of a model holds."""
    weights: Mapping[str, Tensor] = model.state_dict()
    if model.config.model_type == "madtp_clip":
        original = openai_clip.to_original(weights)
        return {key: value if any(part in key for part in SINGLE) else value.half() for key, value in original.items()}
    original = salesforce_blip.to_original(weights)
    for key in [key for key in original if key.endswith("embeddings.position_embeddings.weight")]:
        original[key.replace("position_embeddings.weight", "position_ids")] = torch.arange(len(original[key]))[None]
    return {"model": original}


def run(command: Sequence[object], record: Path) -> Step:
    """A command's figures, from its record if it has run before.

    Raises:
        CalledProcessError: It failed; what it said is on standard error.
    """
    if not record.exists():
        words, started = [str(word) for word in command], time.monotonic()
        with record.with_suffix(".out").open("w+", encoding="utf-8") as output:
            process = subprocess.Popen(words, stdout=output)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, words)
            output.seek(0)
            step = {"seconds": time.monotonic() - started, "peak": usage.ru_maxrss / 2**20}  # Linux counts KiB
            record.write_text(json.dumps(step | {"result": json.load(output)}), encoding="utf-8")
    return Step(**json.loads(record.read_text("utf-8")))


def steps(name: str, folder: Path, size: Sequence[object] = ()) -> dict[str, Step]:
    """All commands on one checkpoint, one after the other."""
    source, madtp = folder / CASES[name][1], [sys.executable, "-m", "madtp_cli"]
    commands: dict[str, list[object]] = {
        "inspect": [*madtp, "inspect", source, "--json"],
        "profile": [*madtp, "profile", source, *PROFILE, "--json"],
        "compress": [*madtp, "compress", source, *COMPRESS, "--output", folder / "madtp", "--overwrite", "--json"],
        "load": [sys.executable, "-c", LOAD, folder / "madtp"],
    }
    done = {}
    for command, words in commands.items():
        done[command] = run(words, folder / f"{command}.json")
        print(row(name, command, done[command]), flush=True)
    return done


def row(name: str, command: str, step: Step) -> str:
    """One line of the table."""
    cells = [CASES[name][0], f"`{command}`", f"{step.seconds:,.0f}", f"{step.peak:.2f}", said(command, step.result)]
    return f"| {' | '.join(cells)} |"


def said(command: str, result: Mapping[str, Any]) -> str:
    """What came out, in a few words."""
    if command == "inspect":
        verdict = result["refusal"] or f"all {result['matched']} tensors found"
        lacking = len(result["missing"]) + len(result["unexpected"]) + len(result["reshaped"])
        verdict = f"{lacking} tensors do not fit" if lacking else verdict
        return f"{result['format']} for {result['task']}, {result['parameters'] / 1e6:.1f} M weights, {verdict}"
    if command == "profile":
        gflops = result["gflops"]
        witness = (
            f"on {gflops['fvcore_samples']} samples formula {gflops['formula']:.4f}, fvcore {gflops['fvcore']:.4f}"
        )
        return f"{gflops['dense']:.2f} GFLOPs per sample; {witness}"
    if command == "compress":
        budget, gflops = result["budget"], result["gflops"]
        return (
            f"budget {budget['requested']} met by {budget['achieved_share']:.4f} on {budget['samples']} validation "
            f"samples, {gflops['share']:.4f} on test; speed {result['latency']['speedup']:.2f}x"
        )
    entered, left = result["kept"]
    weights = f"{result['parameters'] / 1e6:.1f} M weights, {result['dtype']}"
    return f"{weights}; {entered} image tokens end as {left}"


def write_page(lines: Sequence[str], page: Path) -> None:
    """The table of all steps, and how to read it."""
    threads = torch.get_num_threads()
    text = [
        "# Full size", "",
        "Written by `python examples/full_size.py`: checkpoints of the published sizes in their original file formats.",
        "Their weights are random, so the quality of what they answer means nothing; sizes, memory and the budget are",
        "what is shown. Each command is a process of its own; its peak is the most memory that it had resident at one",
        f"time. `profile` has `{' '.join(PROFILE)}`; `compress` has `{' '.join(COMPRESS)}`;",
        "`load` is `madtp_cli.load` of what `compress` wrote, and a forward of one sample. On a CPU in float32, "
        f"{os.cpu_count()} cores, threads of a process: {threads}, torch {torch.__version__}.",
        "", "| checkpoint | command | seconds | peak GiB | what came out |", "|---|---|---|---|---|", *lines,
    ]  # fmt: skip
    page.write_text("\n".join(text) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="nlvr|vqa|clip", default=list(CASES))
    parser.add_argument("--folder", type=Path, default=Path("build/full-size"))
    parser.add_argument("--image-size", type=int, help="pixels; the published size unless told, and only then written")
    options = parser.parse_args(arguments)
    lines = []
    for name in options.names:
        arch, file = CASES[name]
        config: Any = models.architectures()[arch]()
        folder = options.folder / name
        if options.image_size:
            config.vision_config.image_size = options.image_size
            folder = folder.with_name(f"{name}-{options.image_size}")
        if not (folder / file).exists():  # in a process of its own: what a parent had resident counts as its child's
            maker = get_context("spawn").Process(target=make, args=(name, folder, config))
            maker.start()
            maker.join()
        lines += [row(name, command, step) for command, step in steps(name, folder).items()]
    if not options.image_size:
        write_page(lines, HERE / "full_size.md")


if __name__ == "__main__":
    main()
