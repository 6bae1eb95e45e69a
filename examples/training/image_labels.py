"""Auxiliary loss of the image tower: it learns to classify each patch and the whole image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from examples.training.checkpoints import PATCH_SIZE
from madtp_cli.scenes import generator

#: Patches on each side of an image.
GRID = generator.IMAGE_SIZE // PATCH_SIZE
NOUNS = (*generator.DIGITS, *generator.SHAPES)
COLOURS = tuple(generator.COLOURS)
#: A patch has the label of a thing if the thing covers more than this share of it.
COVERED = 0.12
#: Most patches are background, which is learned quickly; a small weight leaves the loss to the nouns.
BACKGROUND_WEIGHT = 0.1
PRESENCE_WEIGHT = 5


class ImageLabelHeads(nn.Module):
    """Linear heads that predict what an image shows, used only during training.

    From each patch token: its noun and its colour. From [CLS]: which nouns, colours and pairs of both the image
    shows, and how many digits, shapes and things.
    """

    def __init__(self, width: int) -> None:
        """Create the heads for tokens of this width."""
        super().__init__()
        self.patch = nn.Linear(width, len(NOUNS) + 1 + len(COLOURS) + 1)
        self.present = nn.Linear(width, len(NOUNS) + len(COLOURS) + len(NOUNS) * len(COLOURS))
        self.counts = nn.Linear(width, 3 * (generator.MAX_THINGS + 1))
        self.parts: dict[str, float] = {}  # the parts of the last loss, for the log

    def forward(self, tokens: Tensor, scenes: list[generator.Scene]) -> Tensor:
        """Return the classification loss of image tokens [images, 1 + patches, width]."""
        classes = tokens[:, 0]
        patches = self._patch_loss(tokens[:, 1:], scenes)
        present_labels, count_labels = image_labels(scenes)
        present = functional.binary_cross_entropy_with_logits(self.present(classes), present_labels)
        counts = self.counts(classes).view(-1, generator.MAX_THINGS + 1)
        counted = functional.cross_entropy(counts, count_labels)
        self.parts = {"patches": patches.item(), "present": present.item(), "counts": counted.item()}
        return patches + PRESENCE_WEIGHT * present + counted

    def _patch_loss(self, patches: Tensor, scenes: list[generator.Scene]) -> Tensor:
        nouns, colours = self.patch(patches).flatten(0, 1).split([len(NOUNS) + 1, len(COLOURS) + 1], -1)
        noun_labels, colour_labels = patch_labels(scenes)
        weight = torch.ones(len(NOUNS) + 1)
        weight[-1] = BACKGROUND_WEIGHT
        noun_loss = functional.cross_entropy(nouns.float(), noun_labels, weight)
        return noun_loss + functional.cross_entropy(colours, colour_labels)


def patch_labels(scenes: list[generator.Scene]) -> tuple[Tensor, Tensor]:
    """Return the noun and the colour of each patch, both [images x patches]; the last class is background."""
    nouns = np.full((len(scenes), GRID, GRID), len(NOUNS))
    colours = np.full((len(scenes), GRID, GRID), len(COLOURS))
    for scene, noun, colour in zip(scenes, nouns, colours, strict=True):
        for thing in scene.things:
            covered = np.zeros((generator.IMAGE_SIZE, generator.IMAGE_SIZE), np.float32)
            covered[thing.top : thing.top + thing.size, thing.left : thing.left + thing.size] = generator.mask(thing)
            labelled = covered.reshape(GRID, PATCH_SIZE, GRID, PATCH_SIZE).mean((1, 3)) > COVERED
            noun[labelled], colour[labelled] = NOUNS.index(thing.noun), COLOURS.index(thing.colour)
    return torch.from_numpy(nouns).flatten(), torch.from_numpy(colours).flatten()


def image_labels(scenes: list[generator.Scene]) -> tuple[Tensor, Tensor]:
    """Return what is present in each image and the counts of digits, shapes and things.

    Returns:
        Whether each noun, colour and pair of both is present, 0 or 1, [images, labels]; the counts, [images x 3].
    """
    phrases = [generator.Phrase(noun) for noun in NOUNS] + [generator.Phrase(None, colour) for colour in COLOURS]
    phrases += [generator.Phrase(noun, colour) for noun in NOUNS for colour in COLOURS]
    present = [[float(scene.count(phrase) > 0) for phrase in phrases] for scene in scenes]
    groups = [generator.Phrase("digit"), generator.Phrase("shape"), generator.Phrase()]
    counts = [scene.count(phrase) for scene in scenes for phrase in groups]
    return torch.tensor(present), torch.tensor(counts)
