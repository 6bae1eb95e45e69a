"""Train examples/blip.pt, a small BLIP for NLVR2 in Salesforce's file format, from random weights.

    python examples/pretrain.py            # writes blip.pt, tokenizer/ and pretrain.json next to this script

From the true/false labels alone the model learns very slowly. Therefore training has three stages:

* image: the image tower learns to classify each patch and the whole image.
* text: the text encoder learns to judge statements. The image tower does not change, so that the image tokens of a
  few thousand pairs can be cached and a step is cheap.
* joint: both learn together from eight statements about each new pair, and the image tower still learns to classify.

Only the handwriting of the train split is used. It is slanted and stretched a little, because there are only 126
samples of each digit. No choice is made on the val or test split.

Training runs in two processes of one thread each, which is faster than one process of two threads. Each process draws
its own images, and the gradients are averaged.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed, multiprocessing
from transformers import BertTokenizer

from examples.training.checkpoints import build_nlvr2_model, save_blip
from examples.training.image_labels import ImageLabelHeads
from examples.training.optimization import average_gradients, build_optimizers, cosine_decay, finish_step, start_step
from examples.training.statements import PAIRS_PER_STEP, STATEMENTS_PER_PAIR, StatementTraining, accuracy
from examples.training.vocabularies import bert_tokenizer
from madtp_cli.checkpoint.formats import salesforce_blip
from madtp_cli.cli.memory import reuse_freed_memory
from madtp_cli.evaluation import number_formats
from madtp_cli.models.blip.nlvr2 import MadtpBlipForNLVR2

HERE = Path(__file__).parent
SEED = 0
PROCESSES = 2
#: Steps and peak learning rate of each stage, in the order of training.
STEPS = {"image": 2500, "text": 400, "joint": 800}
RATES = {"image": 1e-3, "text": 1e-3, "joint": 4e-4}
WARMUP_STEPS = 100
LOG_STEPS, SAVE_STEPS = 50, 200
TEST_PAIRS = 2000


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Return the learning rate of a step: linear warm-up, then cosine decay to a hundredth of the peak."""
    return peak * min(1, (step + 1) / WARMUP_STEPS) * cosine_decay(step / steps)


def train(model: MadtpBlipForNLVR2, tokenizer: BertTokenizer, steps: dict[str, int], folder: Path) -> None:
    """Run the stages one after the other; the first process prints a log and saves the checkpoint."""
    rank = distributed.get_rank()
    heads = ImageLabelHeads(model.config.vision_config.hidden_size)
    # The checkpoint does not need the heads. They are saved only to continue training with --start.
    heads_file = folder / "heads.pt"
    if heads_file.exists():
        heads.load_state_dict(torch.load(heads_file, weights_only=True))
    training = StatementTraining(model, heads, tokenizer, random.Random(f"{SEED}/{rank}/{steps}"))
    parameters, started = [*model.parameters(), *heads.parameters()], time.time()
    for stage, number in steps.items():
        optimizers = build_optimizers(model, heads.parameters())
        for step in range(number):
            start_step(optimizers, learning_rate(step, number, RATES[stage]))
            with torch.autocast("cpu", torch.bfloat16, enabled=number_formats.is_fast(torch.bfloat16)):
                loss = training.loss(stage)
            loss.backward()
            average_gradients(parameters)
            finish_step(optimizers, parameters)
            if rank == 0 and (step + 1) % LOG_STEPS == 0:
                print(f"{stage} {step + 1}/{number} {time.time() - started:.0f}s", log_line(training, loss), flush=True)
            if rank == 0 and ((step + 1) % SAVE_STEPS == 0 or step == number - 1):
                save(model, tokenizer, folder)
                torch.save(heads.state_dict(), heads_file)


def log_line(training: StatementTraining, loss: torch.Tensor) -> str:
    """Format the losses and the accuracy since the last line, and start a new count of right answers."""
    kinds = {kind: round(100 * float(np.mean(right))) for kind, right in sorted(training.right.items())}
    training.right.clear()
    parts = " ".join(f"{name} {value:.3f}" for name, value in training.heads.parts.items())
    return f"loss {loss.item():.3f} ({parts}) accuracy {kinds}"


def save(model: MadtpBlipForNLVR2, tokenizer: BertTokenizer, folder: Path) -> None:
    """Write blip.pt and tokenizer/ into a folder."""
    save_blip(model, tokenizer, folder / "blip.pt", folder / "tokenizer")


def run_process(rank: int, options: argparse.Namespace) -> None:
    """Train in one process; the process of rank 0 also measures the accuracy and writes pretrain.json."""
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(options.port))
    distributed.init_process_group("gloo", rank=rank, world_size=PROCESSES)
    steps = {stage: getattr(options, f"{stage}_steps") for stage in STEPS}
    torch.manual_seed(SEED)
    reuse_freed_memory()
    tokenizer, started = bert_tokenizer(), time.time()
    model = build_nlvr2_model(len(tokenizer))
    if options.start:
        stored = torch.load(options.start, weights_only=True)["model"]
        model.load_state_dict({salesforce_blip.to_transformers(key): value for key, value in stored.items()})
    train(model, tokenizer, steps, options.output)
    if rank == 0:
        hours = round((time.time() - started) / 3600, 2)
        result = {"test_pairs": TEST_PAIRS, "test_accuracy": accuracy(model.eval(), tokenizer, "test", TEST_PAIRS)}
        record = settings_record(options, steps, hours) | result
        (options.output / "pretrain.json").write_text(json.dumps(record, indent=2) + "\n")
        print(json.dumps(record, indent=2))
    distributed.barrier()


def settings_record(options: argparse.Namespace, steps: dict[str, int], hours: float) -> dict[str, Any]:
    """Return the settings of the run for pretrain.json."""
    return {
        "seed": SEED,
        "torch": torch.__version__,
        "processes": PROCESSES,
        "dtype": "bfloat16 autocast" if number_formats.is_fast(torch.bfloat16) else "float32",
        "hours": hours,
        "steps": steps,
        "pairs_per_step": PROCESSES * PAIRS_PER_STEP,
        "statements_per_pair": STATEMENTS_PER_PAIR,
        "start": str(options.start or "random weights"),
    }


def main() -> None:
    """Read the command line and start the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE, help="folder to write to (default: examples)")
    parser.add_argument("--start", type=Path, help="checkpoint to continue from (default: random weights)")
    parser.add_argument("--port", type=int, default=29511, help="local port that the processes use (default: 29511)")
    for stage, number in STEPS.items():
        parser.add_argument(f"--{stage}-steps", type=int, default=number, help=f"steps of the {stage} stage ({number})")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    multiprocessing.spawn(run_process, (options,), nprocs=PROCESSES)


if __name__ == "__main__":
    main()
