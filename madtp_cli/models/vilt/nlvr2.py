"""ViLT for natural-language visual reasoning (NLVR2): the text runs once with each image of a pair.

The state-dict keys are those of transformers' ViltForImagesAndTextClassification.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from madtp_cli.models.prunable import PrunedOutput
from madtp_cli.models.vilt.towers import MadtpViltConfig, PrunableVilt, classifier


class MadtpViltForNLVR2(PrunableVilt):
    """ViLT that decides whether a sentence about two images is true."""

    INPUTS_PER_SAMPLE: ClassVar[dict[str, int]] = {"vision": 2}

    def __init__(self, config: MadtpViltConfig) -> None:
        super().__init__(config)
        width = 2 * config.vision_config.hidden_size
        self.classifier = classifier(width, width, 2)
        self.prepare()
        self.post_init()

    def dummy_inputs(self, text_tokens: int) -> dict[str, Tensor]:
        """Return two blank images and one text of this length."""
        inputs = super().dummy_inputs(text_tokens)
        return {**inputs, "pixel_values": inputs["pixel_values"][:, None].expand(-1, 2, -1, -1, -1)}

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        labels: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        return_targets: bool = False,
    ) -> PrunedOutput:
        """Classify each sentence; logits are [pairs, 2] (false, true).

        Args:
            pixel_values: [pairs, 2, 3, height, width], left image first; or [2 x pairs, 3, height, width], the two
                images of a pair together, as transformers' processor returns them.
            input_ids: [pairs, tokens].
            attention_mask: [pairs, tokens], 0 at padding; None where there is no padding.
            pixel_mask: [pairs, 2, height, width] or [2 x pairs, height, width], 0 at padding; None for no padding.
            labels: [pairs], 1 where the sentence is true.
            token_type_ids: Not used; BERT's tokenizer returns zeros. `return_targets` is that of other models.
        """
        pairs, pruner = input_ids.shape[0], self.pruner("vision")
        pixel_values = _first_images_first(pixel_values, 3)
        pixel_mask = None if pixel_mask is None else _first_images_first(pixel_mask, 2)
        masks = None if attention_mask is None else attention_mask.repeat(2, 1)
        kinds = torch.ones_like(input_ids[:, 0]).repeat(2).cumsum(0).gt(pairs) + 1
        tokens, words = self.encode((pixel_values, pixel_mask), (input_ids.repeat(2, 1), masks), pruner, kinds)
        pooled = self.vilt.pooler.activation(self.vilt.pooler.dense(tokens.first()))
        state = torch.stack([pooled[:pairs], pooled[pairs:]], 1)
        logits, targets = self.classifier(state.flatten(1)), None
        if return_targets or self.training:
            targets = {"logits": logits, "state.text": state, "tokens.vision": tokens}
        return PrunedOutput(
            loss=functional.cross_entropy(logits.float(), labels) if labels is not None else None,
            logits=logits,
            alignment=self.alignment(pruner, words),
            targets=targets,
            trace={"vision": pruner.blocks, "text": self.word_trace(input_ids, attention_mask)},
        )


def _first_images_first(values: Tensor, axes: int) -> Tensor:
    """Return the first images of all pairs, then the second ones; `axes` is the number of axes of one image."""
    if values.dim() == axes + 1:
        values = values.unflatten(0, (-1, 2))
    if values.dim() != axes + 2 or values.shape[1] != 2:
        raise ValueError(
            f"The images have the shape {list(values.shape)}, but this model needs pairs, [pairs, 2, ...]. "
            "Prepare them with processor(images=[left, right], text=..., return_tensors='pt')."
        )
    return values.transpose(0, 1).flatten(0, 1)


MODEL = MadtpViltForNLVR2
