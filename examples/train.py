"""Train the other example checkpoints on the built-in scenes, each in its original file format.

    python examples/train.py vqa|caption|retrieval|clip|siglip [--minutes 20]

The image tower starts from the image tower of examples/blip.pt, which `pretrain.py` has trained to classify what an
image shows. All other weights start from random values. In the first quarter of the time the image tower does not
change, which makes a step cheap. After that the whole model is trained.

Only the handwriting of the train split is used, every scene is drawn once, and no choice is made on the val or test
split. Training uses one thread, so two trainings can run at the same time on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from examples.training import resuming
from examples.training.checkpoints import (
    MODELS,
    SIGLIP_POSITIONS,
    build_model,
    load_image_tower,
    save_blip,
    save_clip,
    save_siglip,
)
from examples.training.optimization import build_optimizers, cosine_decay, finish_step, start_step
from examples.training.vocabularies import bert_tokenizer, clip_tokenizer, siglip_tokenizer
from madtp_cli import tasks
from madtp_cli.checkpoint import loading, processors
from madtp_cli.cli.memory import reuse_freed_memory
from madtp_cli.data.batches import batches
from madtp_cli.data.caption_sampling import SampledCaptions
from madtp_cli.evaluation import number_formats, run
from madtp_cli.evaluation.compute import ComputeConfig, inputs_of
from madtp_cli.scenes import splits

HERE = Path(__file__).parent
SEED = 0
BATCH = 32
#: Peak learning rate, and the share of each phase in which it rises to the peak.
RATE, WARMUP = 8e-4, 0.05
#: Share of the time in which the image tower does not change.
FROZEN = 0.25
LOG_SECONDS = 30
TEST_SAMPLES = 2000
TEXT_POSITIONS = 48
#: File of each example; SigLIP is a folder.
FILES = {
    "vqa": "blip-vqa.pt",
    "caption": "blip-caption.pt",
    "retrieval": "blip-retrieval.pt",
    "clip": "clip.pt",
    "siglip": "siglip",
}

#: Data sets that an example trains on, by the number of captions per image; None is the default data set of the task.
#: BLIP's matching head scores long captions badly if it has not seen any; CLIP's embeddings do not need them.
DATA_SETS: dict[str, tuple[int | None, ...]] = {"retrieval": (None, 1)}


def new_batches(task: Any, processor: Any, data_sets: Sequence[int | None]) -> Iterator[dict[str, Tensor]]:
    """Yield batches of train scenes that do not repeat, each scene with one of its captions or questions.

    The data sets take turns; `data_sets` has the number of captions per image of each.
    """
    rows = [SampledCaptions(splits.rows(task.name, "train", 10**7, captions), SEED, 0) for captions in data_sets]
    turns = [batches(part, task, processor, batch_size=BATCH, workers=0) for part in rows]
    yield from itertools.chain.from_iterable(zip(*turns, strict=True))


def learning_rate(progress: float, frozen: float) -> float:
    """Return the learning rate after a share `progress` of the time.

    Each of the two phases, with the frozen and with the trained image tower, has its own warm-up and cosine decay.
    """
    phase = progress / frozen if progress < frozen else (progress - frozen) / (1 - frozen)
    return RATE * min(1, phase / WARMUP) * cosine_decay(phase)


def train(
    model: Any,
    data: Callable[[int], Iterable[dict[str, Tensor]]],
    minutes: float,
    frozen: float = FROZEN,
    state: Path | None = None,
) -> int:
    """Train for `minutes` of CPU time; return the number of steps.

    Args:
        model: The model.
        data: Returns endless batches with labels, without the first ones, whose number is given.
        minutes: CPU time of the training.
        frozen: Share of the time in which the image tower does not change.
        state: File of the state of an interrupted training, which is continued; None to keep no state.
    """
    optimizers = build_optimizers(model)
    steps, seconds = resuming.restore(state, model, optimizers) if state else (0, 0.0)
    started, logged, loss = time.process_time() - seconds, seconds, 0.0
    for batch in data(steps):
        seconds = time.process_time() - started
        progress = seconds / (60 * minutes)
        if progress >= 1:
            break
        if seconds - logged > LOG_SECONDS:
            logged = seconds
            print(f"{steps} steps, {seconds:.0f} s, loss {loss:.3f}", flush=True)
            if state:
                resuming.save(state, model, optimizers, steps, seconds)
        model.vision_model.requires_grad_(progress >= frozen)
        start_step(optimizers, learning_rate(progress, frozen))
        loss = train_step(model, batch, optimizers)
        steps += 1
    return steps


def train_step(model: Any, batch: dict[str, Tensor], optimizers: Sequence[torch.optim.Optimizer]) -> float:
    """Update the model with one batch; return the loss."""
    with torch.autocast("cpu", torch.bfloat16, enabled=number_formats.is_fast(torch.bfloat16)):
        loss = model(**inputs_of(batch), labels=batch["labels"]).loss
    loss.backward()
    finish_step(optimizers, model.parameters())
    return float(loss.item())


def save(model: Any, tokenizer: Any, example: str, folder: Path) -> None:
    """Write the checkpoint and its tokenizer."""
    file = folder / FILES[example]
    if example == "siglip":
        save_siglip(model, tokenizer, file)
        return
    write = save_clip if example == "clip" else save_blip
    write(model, tokenizer, file, folder / f"{file.stem}-tokenizer")


def measure_quality(model: Any, task: Any, processor: Any, rows: Sequence[Any]) -> float:
    """Return the quality of a model on some rows."""
    compute = ComputeConfig(torch.device("cpu"), torch.float32)
    scores = run.run(model.eval(), batches(rows, task, processor, batch_size=32), task, compute, rows).scores
    return float(task.quality(scores))


def build_tokenizer(example: str) -> Any:
    """Build the tokenizer of an example."""
    if example == "siglip":
        return siglip_tokenizer(SIGLIP_POSITIONS)
    return clip_tokenizer(TEXT_POSITIONS) if example == "clip" else bert_tokenizer()


def start_model(options: argparse.Namespace, tokenizer: Any) -> Any:
    """Load the checkpoint of --start, or build a new model with a trained image tower."""
    if options.start:
        return loading.load(options.start).model
    model = build_model(options.example, len(tokenizer))
    load_image_tower(model, options.example, options.tower)
    return model


def main() -> None:
    """Train one example, save it and write the record of its training."""
    options = parse()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    reuse_freed_memory()
    tokenizer = build_tokenizer(options.example)
    model = start_model(options, tokenizer)
    processor = processors.build(model.config, tokenizer)
    data = splits.read(model.config.task, ["test"])
    task = tasks.prepared(model.config.task, processor, data)
    stream = new_batches(task, processor, DATA_SETS.get(options.example, (None,)))
    steps = train(model.train(), lambda _: stream, options.minutes)
    save(model, tokenizer, options.example, options.output)
    rows = data.split("test")[:TEST_SAMPLES]
    record = {
        "seed": SEED,
        "torch": torch.__version__,
        "hours": round(options.minutes / 60, 2),
        "steps": steps,
        "batch": BATCH,
        "start": options.start.name if options.start else f"image tower of {options.tower.name}",
        "test_samples": len(rows),
        task.metric: measure_quality(model, task, processor, rows),
    }
    (options.output / FILES[options.example]).with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("example", choices=MODELS, help="checkpoint to train")
    parser.add_argument("--minutes", type=float, default=20, help="CPU time of the training in minutes (default: 20)")
    parser.add_argument("--output", type=Path, default=HERE, help="folder to write to (default: examples)")
    parser.add_argument("--tower", type=Path, default=HERE / "blip.pt", help="checkpoint with the first image tower")
    parser.add_argument("--start", type=Path, help="checkpoint to continue from (default: none)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
