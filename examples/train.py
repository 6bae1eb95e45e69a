"""Train the other example checkpoints on the built-in scenes, each in the file layout of its original.

    python examples/train.py vqa|caption|retrieval|clip [--minutes 20]

The image tower starts from that of examples/blip.pt, which `pretrain.py` taught to name what a picture
shows; everything else starts from random values. First the text side learns on a tower that stands still, which is
cheap, then all of it together. Only the train split's handwriting is used, every scene is new, and nothing is
chosen on val or test. One thread; two of these can run beside each other.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTokenizer

import madtp_cli.models
from examples.pretrain import HERE, MUON_RATE, build_tokenizer, draw_weights, optimizers
from madtp_cli import tasks
from madtp_cli.checkpoint import load, processors
from madtp_cli.checkpoint.formats import openai_clip, salesforce_blip
from madtp_cli.cli.memory import reuse_freed_memory
from madtp_cli.data.batches import batches
from madtp_cli.data.caption_sampling import SampledCaptions
from madtp_cli.evaluation import run
from madtp_cli.scenes import generator, splits

SEED = 0
BATCH = 32
RATE = 8e-4
#: Share of the time in which the image tower stands still.
STILL = 0.25
TEST_SAMPLES = 2000
#: Model kind and file of each example.
KINDS = {"vqa": "blip.vqa", "caption": "blip.caption", "retrieval": "blip.retrieval", "clip": "clip.retrieval"}
FILES = {"vqa": "blip-vqa.pt", "caption": "blip-caption.pt", "retrieval": "blip-retrieval.pt", "clip": "clip.pt"}

#: Captions of an image in each data set that an example learns from; unless told only its task's own set. BLIP's
#: matching head, unlike embeddings, judges long captions badly if it never saw one.
SETS: dict[str, tuple[int | None, ...]] = {"retrieval": (None, 1)}


def clip_tokenizer(positions: int, size: int = 0) -> CLIPTokenizer:
    """Byte pairs as CLIP's, learned from the words of the scenes; unused ones up to `size`, start and end last."""
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789")
    single = [*letters, *(letter + "</w>" for letter in letters)]
    # Numbered first: pairs as frequent as each other are merged by their numbers, which else differ from run to run.
    trainer = trainers.BpeTrainer(vocab_size=10_000, end_of_word_suffix="</w>", special_tokens=single)
    learner.train_from_iterator(sorted({*generator.vocabulary(), *letters}) * 4, trainer)
    learned = json.loads(learner.to_str())["model"]
    merges = [tuple(merge) for merge in learned["merges"]]
    pieces = dict.fromkeys([*single, *("".join(merge) for merge in merges)])
    unused = [f"<|unused{number}|>" for number in range(size - len(pieces) - 2)]
    vocabulary = [*pieces, *unused, "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={piece: number for number, piece in enumerate(vocabulary)}, merges=merges, model_max_length=positions
    )


def build(kind: str, vocabulary: int) -> Any:
    """A model of the example's size, all weights random."""
    shared: dict[str, Any] = {
        "hidden_size": 128,
        "num_attention_heads": 2,
        "num_hidden_layers": 4,
        "intermediate_size": 512,
    }
    vision = shared | {"num_hidden_layers": 8, "image_size": generator.IMAGE_SIZE, "patch_size": 8}
    text = shared | {"vocab_size": vocabulary, "max_position_embeddings": 48}
    family = madtp_cli.models.get(KINDS[kind])
    if kind in ("clip", "retrieval"):  # with a narrower text tower, as every CLIP and BLIP-large have
        text |= {"hidden_size": 64, "num_attention_heads": 1, "intermediate_size": 256}
    if kind == "clip":
        own: dict[str, Any] = {"projection_dim": 64}
        text |= {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1}
    else:
        own = {"image_text_hidden_size": 64, "task": kind}
        vision |= {"layer_norm_eps": 1e-6}
        text |= {
            "num_hidden_layers": 4 if kind == "retrieval" else 3,  # all five files together take less than 25 MB
            "intermediate_size": 256,
            "bos_token_id": vocabulary - 2,
            "sep_token_id": 3,
            "encoder_hidden_size": vision["hidden_size"],
        }
    model: Any = family(family.config_class(vision_config=vision, text_config=text, **own))
    draw_weights(model)
    return model


def start_tower(model: Any, source: Path) -> None:
    """Give the image tower the weights of the NLVR2 example's."""
    stored = torch.load(source, weights_only=True)["model"]
    tower = {salesforce_blip.to_transformers(key): value.float() for key, value in stored.items()}
    tower = {
        key.removeprefix("vision_model."): value for key, value in tower.items() if key.startswith("vision_model.")
    }
    if model.config.model_type == "madtp_clip":
        tower = as_clip(tower)
    missing, unexpected = model.vision_model.load_state_dict(tower, strict=False)
    assert not unexpected, unexpected
    assert all(key.startswith("pre_layrnorm") for key in missing), missing


def as_clip(tower: dict[str, Tensor]) -> dict[str, Tensor]:
    """BLIP's image tower in CLIP's: no bias in the patches, so positions take it; queries, keys and values apart."""
    moved: dict[str, Tensor] = {}
    bias = tower["embeddings.patch_embedding.bias"]
    for key, value in tower.items():
        if key == "embeddings.class_embedding":
            moved[key] = value.flatten()
        elif key == "embeddings.position_embedding":
            moved[f"{key}.weight"] = value[0] + torch.cat(
                [torch.zeros_like(bias)[None], bias.expand(len(value[0]) - 1, -1)]
            )
        elif ".qkv." in key:
            for name, part in zip(("q_proj", "k_proj", "v_proj"), value.chunk(3), strict=True):
                moved[key.replace("qkv", name)] = part
        elif key != "embeddings.patch_embedding.bias":
            moved[key.replace("self_attn.projection", "self_attn.out_proj")] = value
    return moved


def fresh(task: Any, prepared: Any, sets: Sequence[int | None]) -> Iterator[dict[str, Tensor]]:
    """Batches of train scenes that never come again, each with one of its captions or questions.

    `sets` are the task's data sets, by captions of an image, which take turns.
    """
    drawn = [SampledCaptions(splits.rows(task.name, "train", 10**7, captions), SEED, 0) for captions in sets]
    turns = [batches(rows, task, prepared, batch_size=BATCH, workers=0) for rows in drawn]
    yield from itertools.chain.from_iterable(zip(*turns, strict=True))


def train(model: Any, task: Any, prepared: Any, minutes: float, sets: Sequence[int | None]) -> int:
    """Train for so much time of one core; returns the steps."""
    muon, adam = optimizers(model, [])
    started, said, steps = time.process_time(), 0.0, 0
    for batch in fresh(task, prepared, sets):
        done = (time.process_time() - started) / (60 * minutes)
        if done >= 1:
            break
        model.vision_model.requires_grad_(done >= STILL)
        within = done / STILL if done < STILL else (done - STILL) / (1 - STILL)
        rate = RATE * min(1, 20 * within) * (0.01 + 0.99 * (1 + math.cos(math.pi * within)) / 2)
        for optimizer, factor in ((muon, MUON_RATE), (adam, 1)):
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = factor * rate
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**run.inputs_of(batch), labels=batch["labels"]).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        muon.step()
        adam.step()
        steps += 1
        if time.process_time() - said > 30:
            said = time.process_time()
            print(f"{steps} steps, {60 * minutes * done:.0f} s, loss {loss.item():.3f}", flush=True)
    return steps


def save(model: Any, tokenizer: Any, kind: str, folder: Path) -> None:
    weights = {key: value.half() for key, value in model.state_dict().items()}
    form = openai_clip if kind == "clip" else salesforce_blip
    stored = {"model": form.to_original(weights), "config": {"dataset": "madtp scenes"}}
    if kind == "retrieval":
        stored["model"]["temp"] = torch.tensor(model.temperature)
    torch.save(stored, folder / FILES[kind])
    tokenizer.save_pretrained(folder / (Path(FILES[kind]).stem + "-tokenizer"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--output", type=Path, default=HERE)
    parser.add_argument("--tower", type=Path, default=HERE / "blip.pt")
    parser.add_argument("--start", type=Path, help="go on from this checkpoint")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    reuse_freed_memory()
    tokenizer: Any = clip_tokenizer(48) if options.kind == "clip" else build_tokenizer()
    if options.start:
        model: Any = load.load(options.start)[0]
    else:
        model = build(options.kind, len(tokenizer))
        start_tower(model, options.tower)
    prepared = processors.build(tokenizer, generator.IMAGE_SIZE)
    data = splits.read(model.config.task, ["test"])
    task = tasks.prepared(model.config.task, prepared, data)
    steps = train(model.train(), task, prepared, options.minutes, SETS.get(options.kind, (None,)))
    save(model, tokenizer, options.kind, options.output)
    rows = data.split("test")[:TEST_SAMPLES]
    compute = run.ComputeConfig(torch.device("cpu"), torch.float32)
    scores = run.run(model.eval(), batches(rows, task, prepared, batch_size=32), task, compute, rows).scores
    record = {
        "seed": SEED,
        "torch": torch.__version__,
        "hours": round(options.minutes / 60, 2),
        "steps": steps,
        "batch": BATCH,
        "start": options.start.name if options.start else f"image tower of {options.tower.name}",
        "test_samples": len(rows),
        task.metric: task.quality(scores),
    }
    (options.output / FILES[options.kind]).with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
