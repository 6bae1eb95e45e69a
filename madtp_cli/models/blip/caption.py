"""BLIP for image captioning, on packed tokens.

The state-dict keys are those of transformers' BlipForConditionalGeneration.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import BlipVisionModel

from madtp_cli.execution.packed import Packed
from madtp_cli.models.blip.decoding import (
    IGNORED,
    DecodedOutput,
    DecodingBlip,
    build_decoder,
    next_token_logits,
    token_losses,
)
from madtp_cli.models.blip.towers import MadtpBlipConfig
from madtp_cli.models.prunable import DistillationTargets, stack_states


class MadtpBlipForConditionalGeneration(DecodingBlip):
    """BLIP that describes images.

    It has no text encoder, so there is no text to align the dictionary with.
    """

    TEXT_TOKENS = 15

    TOWERS: ClassVar[tuple[str, ...]] = ("vision",)
    GENERATION_DEFAULTS: ClassVar[dict[str, int]] = {"num_beams": 3, "max_length": 20, "min_length": 5}
    main_input_name = "pixel_values"

    def __init__(self, config: MadtpBlipConfig) -> None:
        super().__init__(config)
        self.vision_model = BlipVisionModel(config.vision_config)
        self.text_decoder = build_decoder(config.text_config, config.vision_config.hidden_size)
        self.prepare()
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        return_targets: bool = False,
    ) -> DecodedOutput:
        """Predict the token that follows each token of each caption; logits are [all caption tokens, vocabulary].

        The loss is the mean over all tokens whose label is not ignored.

        Args:
            pixel_values: [samples, 3, height, width].
            input_ids: Captions, [samples, tokens]: [DEC], the prompt, the caption, [SEP].
            attention_mask: [samples, tokens], 0 at padding; None where there is no padding.
            labels: [samples, tokens], the captions again, with -100 in the prompt and at padding.
            return_targets: Whether to return distillation targets outside training too.
        """
        vision, decoder = self.pruner("vision"), self.decoder_pruner()
        states: list[Tensor] | None = [] if return_targets or self.training else None
        images = self.encode_images(pixel_values, vision)
        logits = self.decode(input_ids, attention_mask, images, decoder, states)
        loss, items = None, None
        if labels is not None:
            losses = token_losses(logits, labels, attention_mask).data
            items = int((labels[:, 1:] != IGNORED).sum())
            loss = losses.sum() / items
        words = stack_states(states, logits, decoder.blocks)
        return DecodedOutput(
            loss=loss,
            loss_items=items,
            logits=logits.data,
            targets=None if words is None else self._targets(logits, images, words),
            trace={"vision": vision.blocks, "decoder": decoder.blocks},
            memory=images,
        )

    @torch.no_grad()
    def generate(
        self,
        pixel_values: Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **settings: Any,
    ) -> Tensor:
        """Generate a caption of each image, by default with three beams.

        Args:
            pixel_values: As in `forward`.
            input_ids: A prompt for each image, [samples, tokens]. Its first token is replaced by [DEC], and [SEP] at
                its end is removed. None for [DEC] alone.
            attention_mask: Mask of the prompts, which must have equal lengths.
            settings: Settings of transformers' `generate`.

        Returns:
            Tokens, [samples, tokens]; the prompt is included.

        Raises:
            ValueError: The prompts have different lengths.
        """
        if attention_mask is not None and not attention_mask.all():
            raise ValueError("The prompts have different lengths.\nUse batches whose prompts have equal lengths.")
        images = self.encode_images(pixel_values, self.pruner("vision"))
        return self.generate_from(images, self._decoder_prompt(input_ids), **settings)

    def _decoder_prompt(self, prompt: Tensor | None) -> Tensor | None:
        """Turn a prompt from a tokenizer into one for the decoder: [DEC] first, no [SEP] at the end."""
        if prompt is None:
            return None
        has_end = bool((prompt[:, -1] == self.config.text_config.sep_token_id).all())
        return torch.cat([self.first_tokens(prompt), prompt[:, 1 : prompt.shape[1] - has_end]], 1)

    @staticmethod
    def _targets(logits: Packed, images: Packed, words: Packed) -> DistillationTargets:
        return {
            "logits": next_token_logits(logits),
            "state.image": images.first(),
            "tokens.vision": images,
            "words.decoder": words,
        }


MODEL = MadtpBlipForConditionalGeneration
