"""Random inputs for a model, to trace it and to compare a written file with it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from madtp_cli.models.prunable import Prunable

#: Names of the inputs of each text (token ids and mask), by the name of the number of its tokens.
TEXT_INPUTS = {
    "tokens": ("input_ids", "attention_mask"),
    "answer_tokens": ("decoder_input_ids", "decoder_attention_mask"),
}
#: Fewest tokens that texts are padded to. torch traces a size of one as a constant; of two tokens only one remains
#: where BLIP puts [ENC] before the others.
MIN_TEXT_TOKENS = 3


def random_inputs(model: Prunable, samples: int, tokens: int, seed: int) -> dict[str, Tensor]:
    """Create a batch of samples that differ much from each other.

    Images consist of coarse and fine noise and have a blank part. Texts have 2 to `tokens` random tokens and are
    padded.

    Args:
        model: The model that the inputs are for.
        samples: Number of samples.
        tokens: Tokens of the first and longest text.
        seed: Seed of the random numbers.

    Returns:
        Inputs by name.
    """
    generator = torch.Generator().manual_seed(seed)
    dummy_inputs = model.dummy_inputs(tokens)
    shape = dummy_inputs["pixel_values"].shape[1:]
    inputs = {"pixel_values": torch.stack([_images(shape, generator) for _ in range(samples)])}
    for ids, mask in TEXT_INPUTS.values():
        if ids not in dummy_inputs:
            continue
        lengths = [tokens, *torch.randint(2, tokens + 1, (samples - 1,), generator=generator).tolist()]
        rows = [
            _token_ids(dummy_inputs[ids][0], length, model.config.text_config.vocab_size, generator)
            for length in lengths
        ]
        inputs[ids] = torch.stack([functional.pad(row, (0, tokens - len(row))) for row in rows])
        inputs[mask] = torch.stack([torch.arange(tokens) < length for length in lengths]).long()
    return inputs


def _images(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Return the images of one sample, with random contrast, coarseness and blank part."""
    images = []
    for _ in range(shape[:-3].numel()):
        strength, grain, edge = torch.rand(3, generator=generator).tolist()
        cells = 2 + int(6 * grain)
        coarse = torch.randn(1, 3, cells, cells, generator=generator) * (0.5 + 2 * strength)
        image = functional.interpolate(coarse, size=shape[-2:])[0] + 0.5 * torch.randn(shape[-3:], generator=generator)
        image[:, int(shape[-2] * (0.3 + 0.7 * edge)) :] = 0.0
        images.append(image)
    return torch.stack(images).view(shape)


def _token_ids(dummy_ids: Tensor, length: int, vocabulary: int, generator: torch.Generator) -> Tensor:
    """Return random token ids between the first and the last token of a dummy text."""
    ids = torch.randint(0, vocabulary, (length,), generator=generator)
    ids[ids == dummy_ids[-1]] = dummy_ids[0]  # the last token ends a text, so it must not occur earlier
    ids[0], ids[-1] = dummy_ids[0], dummy_ids[-1]
    return ids
