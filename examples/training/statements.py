"""Losses and accuracy of the NLVR2 example: statements about pairs of scenes."""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import BertTokenizer

from examples.training.image_labels import ImageLabelHeads
from madtp_cli.checkpoint.formats import salesforce_blip
from madtp_cli.execution.packed import Packed, pack
from madtp_cli.models.blip.nlvr2 import MadtpBlipForNLVR2
from madtp_cli.scenes import generator

#: Pairs in one step of each process.
PAIRS_PER_STEP = 32
STATEMENTS_PER_PAIR = 8
#: Pairs whose image tokens are cached at a time, and steps until the cache is drawn again.
CACHED_PAIRS, STEPS_PER_CACHE = 1536, 500
#: Pairs that are encoded at a time to fill the cache.
ENCODED_PAIRS = 64
LABEL_LOSS_WEIGHT = 0.5


def pixels(scenes: list[generator.Scene]) -> Tensor:
    """Render scenes and normalise them with CLIP's mean and standard deviation, [images, 3, 96, 96]."""
    stacked = torch.from_numpy(np.stack([scene.render() for scene in scenes])).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (salesforce_blip.IMAGE_MEAN, salesforce_blip.IMAGE_STD))
    return (stacked - mean) / std


def tokenize(tokenizer: BertTokenizer, texts: list[str]) -> dict[str, Tensor]:
    """Tokenize statements into one padded batch; the first token is [ENC] instead of [CLS]."""
    encoded = tokenizer(texts, padding=True, return_tensors="pt")
    encoded["input_ids"][:, 0] = tokenizer.convert_tokens_to_ids("[ENC]")
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def scene_with_digits(rng: random.Random) -> generator.Scene:
    """Draw a training scene with at least two digits.

    Digits are learned last, so the image stage shows more of them.
    """
    while True:
        scene = generator.draw_scene("train", rng)
        if scene.count(generator.Phrase("digit")) >= 2:
            return generator.vary_handwriting(scene, rng)


class StatementTraining:
    """The losses of the three training stages, with the random generator and the running accuracy.

    `right` holds whether the answers since the last log line were right, by kind of statement.
    """

    def __init__(
        self, model: MadtpBlipForNLVR2, heads: ImageLabelHeads, tokenizer: BertTokenizer, rng: random.Random
    ) -> None:
        """Prepare training; the cache of image tokens is filled at the first text step."""
        self.model, self.heads, self.tokenizer, self.rng = model, heads, tokenizer, rng
        self.right: dict[str, list[bool]] = defaultdict(list)
        self._cached_pairs: list[generator.Pair] = []
        self._cached_tokens = torch.zeros(0)  # [pairs, 2, tokens, width]
        self._text_steps = 0

    def loss(self, stage: str) -> Tensor:
        """Return the loss of one step of a stage: "image", "text" or "joint"."""
        return {"image": self._image_loss, "text": self._text_loss, "joint": self._joint_loss}[stage]()

    def _image_loss(self) -> Tensor:
        scenes = [scene_with_digits(self.rng) for _ in range(2 * PAIRS_PER_STEP)]
        return self.heads(self._encode(scenes).data.unflatten(0, (len(scenes), -1)), scenes)

    def _text_loss(self) -> Tensor:
        if self._text_steps % STEPS_PER_CACHE == 0:
            self._fill_cache()
        self._text_steps += 1
        numbers = [int(self.rng.random() * CACHED_PAIRS) for _ in range(PAIRS_PER_STEP)]
        images = pack(self._cached_tokens[numbers].float().transpose(0, 1).flatten(0, 1))
        return self._statement_loss([self._cached_pairs[number] for number in numbers], images)

    def _joint_loss(self) -> Tensor:
        pairs = [generator.draw_pair("train", self.rng) for _ in range(PAIRS_PER_STEP)]
        scenes = [pair.left for pair in pairs] + [pair.right for pair in pairs]
        images = self._encode(scenes)
        label_loss = self.heads(images.data.unflatten(0, (len(scenes), -1)), scenes)
        return self._statement_loss(pairs, images) + LABEL_LOSS_WEIGHT * label_loss

    def _encode(self, scenes: list[generator.Scene]) -> Packed:
        return self.model.encode_images(pixels(scenes), self.model.pruner("vision"))

    @torch.no_grad()
    def _fill_cache(self) -> None:
        """Draw new pairs and store their image tokens in bfloat16."""
        self._cached_pairs = [generator.draw_pair("train", self.rng) for _ in range(CACHED_PAIRS)]
        parts = []
        for start in range(0, CACHED_PAIRS, ENCODED_PAIRS):
            pairs = self._cached_pairs[start : start + ENCODED_PAIRS]
            scenes = [scene for pair in pairs for scene in (pair.left, pair.right)]
            parts.append(self._encode(scenes).data.unflatten(0, (len(pairs), 2, -1)).bfloat16())
        self._cached_tokens = torch.cat(parts)

    def _statement_loss(self, pairs: list[generator.Pair], images: Packed) -> Tensor:
        """Return the loss over eight statements per pair; `images` holds all left images, then all right ones.

        The first statement of a pair has the distribution of the test data, so the accuracy counts only this one.
        """
        statements = []
        for pair in pairs:
            statements.append((pair.statement, pair.label))
            statements += generator.draw_statements(pair.left, pair.right, STATEMENTS_PER_PAIR - 1, self.rng)
        logits = self._logits([statement.text for statement, _ in statements], images, len(pairs))
        labels = torch.tensor([int(label) for _, label in statements])
        right = (logits.argmax(1) == labels).tolist()
        for (statement, _), correct in list(zip(statements, right, strict=True))[::STATEMENTS_PER_PAIR]:
            self.right[statement.kind].append(correct)
        return functional.cross_entropy(logits.float(), labels)

    def _logits(self, texts: list[str], images: Packed, pairs: int) -> Tensor:
        memory = images.part(slice(0, pairs)), images.part(slice(pairs, None))
        encoded = tokenize(self.tokenizer, texts)
        tokens = self.model.encode_text(
            self.model.text_encoder,
            encoded["input_ids"],
            encoded["attention_mask"],
            self.model.pruner("text"),
            self.model.cross_attention_to_both(memory),
        )
        return self.model.cls_head(tokens.first())


@torch.no_grad()
def accuracy(model: MadtpBlipForNLVR2, tokenizer: BertTokenizer, split: str, number: int) -> dict[str, float]:
    """Return the accuracy in percent on the first pairs of a split: of all pairs and of each kind of statement."""
    pairs, right = list(generator.pairs(split, number)), []
    for start in range(0, number, 100):
        batch = pairs[start : start + 100]
        images = pixels([pair.left for pair in batch] + [pair.right for pair in batch])
        text = tokenize(tokenizer, [pair.statement.text for pair in batch])
        logits = model(images.unflatten(0, (2, -1)).transpose(0, 1), **text).logits
        right += [bool(answer) == pair.label for answer, pair in zip(logits.argmax(1), batch, strict=True)]
    result = {"all": 100 * float(np.mean(right))}
    for kind in generator.KINDS:
        answers = [correct for correct, pair in zip(right, pairs, strict=True) if pair.statement.kind == kind]
        result[kind] = 100 * float(np.mean(answers))
    return result
