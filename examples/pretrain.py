"""Train examples/blip.pt, a small BLIP for NLVR2 in Salesforce's file layout, from nothing.

Trained on the true/false label alone it learns very slowly. So there are three stages:
the image tower learns to name what each patch and the whole picture show; the text encoder
learns to judge statements on the finished image tokens of a few thousand pairs, which is
cheap; then both learn together, eight statements about each fresh pair, while the naming
goes on. Only the train split's handwriting is used, slanted and stretched a little because
126 samples of a digit are few, and nothing is chosen on val or test.

    python examples/pretrain.py            # writes blip.pt, tokenizer/ and pretrain.json here

Two processes of one thread each do more than one of two threads; each has its own pictures,
and their gradients are averaged.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn import functional
from transformers import BertTokenizer

from madtp_cli.checkpoint.formats import salesforce_blip
from madtp_cli.cli.memory import reuse_freed_memory
from madtp_cli.compression.optimizers import tower_matrices
from madtp_cli.execution.packed import Packed, pack
from madtp_cli.models.blip.nlvr2 import MadtpBlipForNLVR2
from madtp_cli.models.blip.towers import MadtpBlipConfig
from madtp_cli.scenes import generator

HERE = Path(__file__).parent
SEED = 0
PROCESSES = 2
#: Pairs of one step in each process.
PAIRS_PER_STEP = 32
STATEMENTS_PER_PAIR = 8
STEPS = {"naming": 2500, "reading": 400, "judging": 800}
RATES = {"naming": 1e-3, "reading": 1e-3, "judging": 4e-4}
#: Muon's rate for the towers' matrices, in units of AdamW's for all else.
MUON_RATE = 3
#: Pairs whose image tokens are kept at a time while reading is learned, and steps on them.
KEPT_PAIRS, STEPS_ON_KEPT = 1536, 500
PATCH, GRID = 8, generator.IMAGE_SIZE // 8
NOUNS = (*generator.DIGITS, *generator.SHAPES)
COLOURS = tuple(generator.COLOURS)


def build_tokenizer(size: int = 0) -> BertTokenizer:
    """Word pieces: BERT's specials, every word the scenes use, letters for all others; unused ones up to `size`."""
    words = {*"abcdefghijklmnopqrstuvwxyz0123456789", *generator.vocabulary()}
    pieces = ["##" + letter for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(words), *pieces]
    vocabulary += [f"[unused{number}]" for number in range(size - len(vocabulary) - 2)]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(vocabulary)})
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_tokens(["[ENC]"], special_tokens=True)
    return tokenizer


def build_model(vocabulary_size: int) -> MadtpBlipForNLVR2:
    shared = {"hidden_size": 128, "num_attention_heads": 2}
    vision = shared | {"intermediate_size": 512, "num_hidden_layers": 8, "layer_norm_eps": 1e-6}
    vision |= {"image_size": generator.IMAGE_SIZE, "patch_size": PATCH, "initializer_range": 0.02}
    text = shared | {"intermediate_size": 256, "num_hidden_layers": 4, "max_position_embeddings": 32}
    text |= {"vocab_size": vocabulary_size, "bos_token_id": vocabulary_size - 2, "sep_token_id": 3}
    model = MadtpBlipForNLVR2(MadtpBlipConfig(vision_config=vision, text_config=text, merge_from=2))
    draw_weights(model)
    return model


def draw_weights(model: nn.Module) -> None:
    """BERT's 0.02 is made for width 768; here attention would start so even that it hardly learns."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)


class Naming(nn.Module):
    """What the image tower is taught to say: of each patch its noun and colour; of the whole
    picture, from [CLS], which nouns, colours and combinations there are and how many things."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch = nn.Linear(width, len(NOUNS) + 1 + len(COLOURS) + 1)
        self.present = nn.Linear(width, len(NOUNS) + len(COLOURS) + len(NOUNS) * len(COLOURS))
        self.counts = nn.Linear(width, 3 * (generator.MAX_THINGS + 1))
        self.parts: dict[str, float] = {}

    def forward(self, states: Tensor, drawn: list[generator.Scene]) -> Tensor:
        """The naming loss of image states [images, 1 + patches, width]."""
        nouns, colours = patch_labels(drawn)
        named = self.patch(states[:, 1:]).flatten(0, 1).split([len(NOUNS) + 1, len(COLOURS) + 1], -1)
        # Most patches are background, which is learned at once; the nouns are what takes long.
        weight = torch.ones(len(NOUNS) + 1)
        weight[-1] = 0.1
        patches = functional.cross_entropy(named[0].float(), nouns, weight) + functional.cross_entropy(
            named[1], colours
        )
        present, counts = picture_labels(drawn)
        whole = functional.binary_cross_entropy_with_logits(self.present(states[:, 0]), present)
        counted = functional.cross_entropy(self.counts(states[:, 0]).view(-1, generator.MAX_THINGS + 1), counts)
        self.parts = {"patches": patches.item(), "present": whole.item(), "counts": counted.item()}
        return patches + 5 * whole + counted


def patch_labels(drawn: list[generator.Scene]) -> tuple[Tensor, Tensor]:
    """Noun and colour of each patch, [images x patches]; the last class is background."""
    nouns = np.full((len(drawn), GRID, GRID), len(NOUNS))
    colours = np.full((len(drawn), GRID, GRID), len(COLOURS))
    for scene, noun, colour in zip(drawn, nouns, colours, strict=True):
        for thing in scene.things:
            covered = np.zeros((generator.IMAGE_SIZE, generator.IMAGE_SIZE), np.float32)
            covered[thing.top : thing.top + thing.size, thing.left : thing.left + thing.size] = generator.mask(thing)
            mostly = covered.reshape(GRID, PATCH, GRID, PATCH).mean((1, 3)) > 0.12
            noun[mostly], colour[mostly] = NOUNS.index(thing.noun), COLOURS.index(thing.colour)
    return torch.from_numpy(nouns).flatten(), torch.from_numpy(colours).flatten()


def picture_labels(drawn: list[generator.Scene]) -> tuple[Tensor, Tensor]:
    """Presence of nouns, colours and their combinations [images, ...]; three counts, [images x 3]."""
    phrases = [generator.Phrase(noun) for noun in NOUNS] + [generator.Phrase(None, colour) for colour in COLOURS]
    phrases += [generator.Phrase(noun, colour) for noun in NOUNS for colour in COLOURS]
    present = [[float(scene.count(phrase) > 0) for phrase in phrases] for scene in drawn]
    groups = [generator.Phrase("digit"), generator.Phrase("shape"), generator.Phrase()]
    counts = [scene.count(phrase) for scene in drawn for phrase in groups]
    return torch.tensor(present), torch.tensor(counts)


def pixels(drawn: list[generator.Scene]) -> Tensor:
    """CLIP-normalised pictures, [images, 3, 96, 96]."""
    stacked = torch.from_numpy(np.stack([scene.render() for scene in drawn])).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (salesforce_blip.IMAGE_MEAN, salesforce_blip.IMAGE_STD))
    return (stacked - mean) / std


def tokenized(tokenizer: BertTokenizer, texts: list[str]) -> dict[str, Tensor]:
    encoded = tokenizer(texts, padding=True, return_tensors="pt")
    encoded["input_ids"][:, 0] = tokenizer.convert_tokens_to_ids("[ENC]")
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 100 steps, then cosine to a hundredth."""
    return peak * min(1, (step + 1) / 100) * (0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2)


def scene_with_digits(rng: random.Random) -> generator.Scene:
    """A scene with two digits at least: digits are learned last, so they are shown most."""
    while True:
        scene = generator.draw_scene("train", rng)
        if scene.count(generator.Phrase("digit")) >= 2:
            return generator.rewritten(scene, rng)


def seen(model: MadtpBlipForNLVR2, drawn: list[generator.Scene]) -> Packed:
    """The image tokens of some scenes."""
    return model.encode_images(pixels(drawn), model.pruner("vision"))


def naming_loss(model: MadtpBlipForNLVR2, naming: Naming, rng: random.Random) -> Tensor:
    drawn = [scene_with_digits(rng) for _ in range(2 * PAIRS_PER_STEP)]
    states = seen(model, drawn).data.unflatten(0, (len(drawn), -1))
    return naming(states, drawn)


def judged_loss(
    model: MadtpBlipForNLVR2, tokenizer: BertTokenizer, pairs: list[generator.Pair], images: Packed,
    rng: random.Random, by_kind: dict[str, list[bool]],
) -> Tensor:  # fmt: skip
    """Loss over each pair's own statement, which fits the test's distribution, and seven more."""
    more = STATEMENTS_PER_PAIR - 1
    judged = [
        item
        for pair in pairs
        for item in [(pair.statement, pair.label), *generator.draw_statements(pair.left, pair.right, more, rng)]
    ]
    memory = images.part(slice(0, len(pairs))), images.part(slice(len(pairs), None))
    text = tokenized(tokenizer, [statement.text for statement, _ in judged])
    look = model.looking_at_both(memory)
    tokens = model.encode_text(
        model.text_encoder, text["input_ids"], text["attention_mask"], model.pruner("text"), look
    )
    logits = model.cls_head(tokens.first())
    labels = torch.tensor([int(label) for _, label in judged])
    right = (logits.argmax(1) == labels).tolist()
    for (statement, _), correct in list(zip(judged, right, strict=True))[::STATEMENTS_PER_PAIR]:
        by_kind.setdefault(statement.kind, []).append(correct)
    return functional.cross_entropy(logits.float(), labels)


def judging_loss(
    model: MadtpBlipForNLVR2,
    naming: Naming,
    tokenizer: BertTokenizer,
    rng: random.Random,
    by_kind: dict[str, list[bool]],
) -> Tensor:
    """Loss on fresh pairs, with the naming of both images."""
    pairs = [generator.draw_pair("train", rng) for _ in range(PAIRS_PER_STEP)]
    drawn = [pair.left for pair in pairs] + [pair.right for pair in pairs]
    images = seen(model, drawn)
    named = naming(images.data.unflatten(0, (len(drawn), -1)), drawn)
    return judged_loss(model, tokenizer, pairs, images, rng, by_kind) + 0.5 * named


class TextRun:
    """Statements about pairs whose image tokens were made once; drawn anew every few hundred steps."""

    def __init__(self, model: MadtpBlipForNLVR2, rng: random.Random) -> None:
        self.model, self.rng, self.step = model, rng, 0
        self.pairs: list[generator.Pair] = []
        self.images = torch.zeros(0)

    def draw(self) -> None:
        self.pairs = [generator.draw_pair("train", self.rng) for _ in range(KEPT_PAIRS)]
        parts = []
        for start in range(0, KEPT_PAIRS, 64):
            some = self.pairs[start : start + 64]
            drawn = [scene for pair in some for scene in (pair.left, pair.right)]
            with torch.no_grad():
                parts.append(seen(self.model, drawn).data.unflatten(0, (len(some), 2, -1)).bfloat16())
        self.images = torch.cat(parts)  # [pairs, 2, tokens, width]

    def loss(self, tokenizer: BertTokenizer, by_kind: dict[str, list[bool]]) -> Tensor:
        if self.step % STEPS_ON_KEPT == 0:
            self.draw()
        self.step += 1
        numbers = [int(self.rng.random() * KEPT_PAIRS) for _ in range(PAIRS_PER_STEP)]
        images = pack(self.images[numbers].float().transpose(0, 1).flatten(0, 1))
        return judged_loss(self.model, tokenizer, [self.pairs[n] for n in numbers], images, self.rng, by_kind)


@torch.no_grad()
def accuracy(model: MadtpBlipForNLVR2, tokenizer: BertTokenizer, split: str, number: int) -> dict[str, float]:
    """Percent right over a split's first pairs, over all and by kind of statement."""
    drawn, right = list(generator.pairs(split, number)), []
    for start in range(0, number, 100):
        batch = drawn[start : start + 100]
        pictures = pixels([pair.left for pair in batch] + [pair.right for pair in batch])
        text = tokenized(tokenizer, [pair.statement.text for pair in batch])
        logits = model(pictures.unflatten(0, (2, -1)).transpose(0, 1), **text).logits
        right += [bool(guess) == pair.label for guess, pair in zip(logits.argmax(1), batch, strict=True)]
    result = {"all": 100 * float(np.mean(right))}
    for kind in generator.KINDS:
        of_kind = [r for r, pair in zip(right, drawn, strict=True) if pair.statement.kind == kind]
        result[kind] = 100 * float(np.mean(of_kind))
    return result


def save(model: MadtpBlipForNLVR2, tokenizer: BertTokenizer, folder: Path) -> None:
    weights = {key: value.half() for key, value in model.state_dict().items()}
    torch.save(
        {"model": salesforce_blip.to_original(weights), "config": {"dataset": "madtp scenes"}}, folder / "blip.pt"
    )
    tokenizer.save_pretrained(folder / "tokenizer")


def optimizers(model: nn.Module, others: Sequence[nn.Parameter]) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the towers' layers, AdamW for everything else."""
    inner = tower_matrices(model)
    known = {id(parameter) for parameter in inner}
    rest = [parameter for parameter in [*model.parameters(), *others] if id(parameter) not in known]
    return [
        torch.optim.Muon(inner, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.02),
    ]


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Each process has seen its own pictures."""
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([grad.flatten() for grad in grads])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for grad, mean in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(mean.view_as(grad))


def train(model: MadtpBlipForNLVR2, tokenizer: BertTokenizer, steps: dict[str, int], folder: Path) -> None:
    """Run the stages one after the other, printing accuracy by kind of statement, and save now and then."""
    rank = distributed.get_rank()
    rng = random.Random(f"{SEED}/{rank}/{steps}")
    naming, reading = Naming(model.config.vision_config.hidden_size), TextRun(model, rng)
    heads = folder / "naming.pt"  # only for going on; the checkpoint does without them
    if heads.exists():
        naming.load_state_dict(torch.load(heads, weights_only=True))
    parameters = [*model.parameters(), *naming.parameters()]
    started = time.time()
    by_kind: dict[str, list[bool]] = {}
    for stage in STEPS:
        muon, adam = optimizers(model, list(naming.parameters()))
        for step in range(steps[stage]):
            for optimizer, factor in ((muon, MUON_RATE), (adam, 1)):
                optimizer.zero_grad()
                for group in optimizer.param_groups:
                    group["lr"] = factor * rate(step, steps[stage], RATES[stage])
            with torch.autocast("cpu", torch.bfloat16):
                if stage == "naming":
                    loss = naming_loss(model, naming, rng)
                elif stage == "reading":
                    loss = reading.loss(tokenizer, by_kind)
                else:
                    loss = judging_loss(model, naming, tokenizer, rng, by_kind)
            loss.backward()
            average_gradients(parameters)
            nn.utils.clip_grad_norm_(parameters, 1.0)
            muon.step()
            adam.step()
            if step % 50 == 49 and rank == 0:
                kinds = {kind: round(100 * float(np.mean(v))) for kind, v in sorted(by_kind.items())}
                parts = " ".join(f"{name} {value:.3f}" for name, value in naming.parts.items())
                done = f"{stage} {step + 1}/{steps[stage]} {time.time() - started:.0f}s"
                print(f"{done} loss {loss.item():.3f} ({parts}) right {kinds}", flush=True)
                by_kind.clear()
            if (step % 200 == 199 or step == steps[stage] - 1) and rank == 0:
                save(model, tokenizer, folder)
                torch.save(naming.state_dict(), heads)


def worker(rank: int, options: argparse.Namespace) -> None:
    """One process of the training; the first one measures and writes the record."""
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(options.port))
    distributed.init_process_group("gloo", rank=rank, world_size=PROCESSES)
    steps = {stage: getattr(options, f"{stage}_steps") for stage in STEPS}
    torch.manual_seed(SEED)
    reuse_freed_memory()
    tokenizer, started = build_tokenizer(), time.time()
    model = build_model(len(tokenizer))
    if options.start:
        stored = torch.load(options.start, weights_only=True)["model"]
        model.load_state_dict({salesforce_blip.to_transformers(key): value for key, value in stored.items()})
    train(model, tokenizer, steps, options.output)
    if rank == 0:
        save(model, tokenizer, options.output)
        record = {
            "seed": SEED,
            "torch": torch.__version__,
            "processes": PROCESSES,
            "dtype": "bfloat16 autocast",
            "hours": round((time.time() - started) / 3600, 2),
            "steps": steps,
            "pairs_per_step": PROCESSES * PAIRS_PER_STEP,
            "statements_per_pair": STATEMENTS_PER_PAIR,
            "start": str(options.start or "random weights"),
            "test_pairs": 2000,
            "test_accuracy": accuracy(model.eval(), tokenizer, "test", 2000),
        }
        (options.output / "pretrain.json").write_text(json.dumps(record, indent=2) + "\n")
        print(json.dumps(record, indent=2))
    distributed.barrier()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE)
    parser.add_argument("--start", type=Path, help="go on from this checkpoint instead of random weights")
    parser.add_argument("--port", type=int, default=29511, help="where the processes meet")
    for stage, number in STEPS.items():
        parser.add_argument(f"--{stage}-steps", type=int, default=number)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    multiprocessing.spawn(worker, (options,), nprocs=PROCESSES)


if __name__ == "__main__":
    main()
