"""From the trace of a forward pass to the inputs of one sample and what the pruning did to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from madtp_cli import models
from madtp_cli.evaluation.compute import Batch
from madtp_cli.execution.block_trace import BlockTrace, TokenTrace
from madtp_cli.execution.token_record import TokenRecord
from madtp_cli.methods import IMAGES
from madtp_cli.models.prunable import Prunable
from madtp_cli.reporting.pruned_sample import Group, ImageInput, PrunedBlock, TextInput

#: Marks of a tokenizer at the end of a word.
WORD_END = "</w>"


def image_inputs(model: Prunable, trace: TokenTrace, batch: Batch, processor: Any) -> list[ImageInput]:
    """Return the images of one sample.

    Args:
        model: The model that ran.
        trace: The trace of the sample; of a model that records, or of a dense one.
        batch: Its inputs: pixel_values [..., 3, height, width] and, where images are padded, their pixel_mask.
        processor: The model's processor.
    """
    family, vision = models.family_of(model.config), model.config.vision_config
    square = family.patch_grid(vision)
    before = family.image_tokens(vision) - square[0] * square[1]
    prepared, found = getattr(processor, "image_processor", processor), []
    for number, values in enumerate(_without_padding(batch)):
        rows, columns = (side // vision.patch_size for side in values.shape[1:])
        blocks = _blocks(trace[IMAGES], number, rows * columns, before)
        found.append(ImageInput(picture(values, prepared), rows, columns, blocks))
    return found


def _without_padding(batch: Batch) -> list[Tensor]:
    """Return the images of one sample, [3, height, width] each; their sizes may differ."""
    pixels = batch["pixel_values"].flatten(0, -4)
    if "pixel_mask" not in batch:
        return list(pixels)
    masks = batch["pixel_mask"].bool().flatten(0, -3)
    return [
        values[:, : int(mask[:, 0].sum()), : int(mask[0].sum())] for values, mask in zip(pixels, masks, strict=True)
    ]


def text_inputs(model: Prunable, trace: TokenTrace, batch: Batch, tokenizer: Any) -> list[TextInput]:
    """Return the texts of one sample, one for each tower that reads one."""
    found = []
    for tower, blocks in trace.items():
        name = f"{tower}_" if f"{tower}_input_ids" in batch else ""
        if tower == IMAGES or tower in model.SHARED_TOWERS or f"{name}input_ids" not in batch:
            continue
        real = batch[f"{name}attention_mask"][0].bool()
        ids = batch[f"{name}input_ids"][0][real].tolist()[: blocks[0].entered[0]]
        words = tuple(word.removesuffix(WORD_END) for word in tokenizer.convert_ids_to_tokens(ids))
        first = next((block.record for block in blocks if block.record is not None), None)
        protected = () if first is None else tuple(first.protected[: len(ids)].tolist())
        found.append(TextInput(tower, words, protected, _blocks(blocks, 0, len(ids))))
    return found


def picture(pixel_values: Tensor, image_processor: Any) -> Image.Image:
    """Return the image that pixel values [3, height, width] were made of, after resizing and cropping."""
    values = pixel_values.float().cpu().permute(1, 2, 0).numpy()
    if getattr(image_processor, "do_normalize", True):
        values = values * np.array(image_processor.image_std) + np.array(image_processor.image_mean)
    scale = getattr(image_processor, "rescale_factor", None) or 1 / 255
    return Image.fromarray(np.clip(np.round(values / scale), 0, 255).astype(np.uint8))


def _blocks(trace: Sequence[BlockTrace], segment: int, number_of_tokens: int, before: int = 0) -> list[PrunedBlock]:
    """Return the blocks that chose tokens, for the last original tokens of one input, renumbered from 0.

    Args:
        trace: The blocks of the tower.
        segment: The number of the input.
        number_of_tokens: How many of its original tokens are looked at.
        before: Tokens before these in a dense image.
    """
    blocks = []
    embedding = trace[0].embedding if trace else None
    for number, block in enumerate([*([] if embedding is None else [embedding]), *trace], 1 - (embedding is not None)):
        if block.record is not None:
            original = _Original.of(trace[0].entered, segment, number_of_tokens)
            blocks.append(_recorded(number, block, block.record, segment, original))
        elif block.positions is not None:
            blocks.append(_of_smaller_image(number, block, segment, number_of_tokens, before))
    return blocks


@dataclass(frozen=True)
class _Original:
    """The last original tokens of one input: where they are among all original tokens, and the tokens before them."""

    rows: slice
    before: int

    @classmethod
    def of(cls, entered: Sequence[int], segment: int, number: int) -> _Original:
        end = sum(entered[: segment + 1])
        return cls(slice(end - number, end), entered[segment] - number)


def _recorded(number: int, block: BlockTrace, record: TokenRecord, segment: int, original: _Original) -> PrunedBlock:
    went_to, came_from = record.went_to[original.rows].tolist(), record.entered_from[original.rows].tolist()
    positions = [] if block.positions is None else block.positions.tolist()
    members: dict[int, list[int]] = {}
    for token, row in enumerate(went_to):
        if row >= 0:
            members.setdefault(row, []).append(token)
    kept = {row: positions[row] - original.before for row in members}
    groups = tuple(Group(kept[row] if kept[row] in inside else None, tuple(inside)) for row, inside in members.items())
    protected, importance = record.protected.tolist(), record.weights.float().tolist()
    weights = tuple(None if row < 0 or protected[row] else importance[row] for row in came_from)
    return PrunedBlock(number, groups, weights, block.left[segment])


def _of_smaller_image(number: int, block: BlockTrace, segment: int, patches: int, before: int) -> PrunedBlock:
    """Return the first block of an image that was made smaller: its tokens stand for some of the dense patches."""
    positions = [] if block.positions is None else block.positions.split(block.left)[segment].tolist()
    groups = tuple(Group(position - before, (position - before,)) for position in positions if position >= before)
    return PrunedBlock(number, groups, (None,) * patches, block.left[segment])
