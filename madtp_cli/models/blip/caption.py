"""BLIP for image captioning, run on packed tokens.

The keys are those of transformers' BlipForConditionalGeneration.
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
    decoder,
    next_token_logits,
    token_losses,
)
from madtp_cli.models.blip.towers import MadtpBlipConfig
from madtp_cli.models.prunable import DistillationTargets, layered


class MadtpBlipForConditionalGeneration(DecodingBlip):
    """BLIP that says what an image shows; prunes where its config has `madtp`.

    There is no text tower, hence no alignment.
    """

    TEXT_TOKENS = 15

    TOWERS: ClassVar[tuple[str, ...]] = ("vision",)
    WRITING: ClassVar[dict[str, int]] = {"num_beams": 3, "max_length": 20, "min_length": 5}
    main_input_name = "pixel_values"

    def __init__(self, config: MadtpBlipConfig) -> None:
        super().__init__(config)
        self.vision_model = BlipVisionModel(config.vision_config)
        self.text_decoder = decoder(config.text_config, config.vision_config.hidden_size)
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
        """What follows each token of each caption; logits are [all caption tokens, vocabulary].

        The loss is the mean over all tokens that are to be predicted.

        Args:
            pixel_values: [samples, 3, height, width].
            input_ids: Captions [samples, tokens], the first token [DEC], then the prompt, the last [SEP].
            attention_mask: [samples, tokens], 0 at padding; None where there is none.
            labels: [samples, tokens], the captions again, -100 where nothing is to be predicted:
                in the prompt and at padding.
            teach: Also give the lesson, as in training.
        """
        vision, record = self.pruner("vision"), self.unpruned()
        states: list[Tensor] | None = [] if return_targets or self.training else None
        images = self.encode_images(pixel_values, vision)
        logits = self.decode(input_ids, attention_mask, images, record, states)
        loss = None
        if labels is not None:
            losses = token_losses(logits, labels, attention_mask).data
            loss = losses.sum() / (labels[:, 1:] != IGNORED).sum()
        return DecodedOutput(
            loss=loss,
            logits=logits.data,
            targets=self._lesson(logits, images, states) if states is not None else None,
            trace={"vision": vision.blocks, "decoder": record.blocks},
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
        """Write a caption of each image, by three beams unless told; [samples, tokens], the prompt's first.

        Args:
            pixel_values: As in `forward`.
            input_ids: A prompt for each image, [samples, tokens]; its first token becomes [DEC], and [SEP]
                at its end goes. [DEC] alone if None.
            attention_mask: Of the prompts, which must be of one length.
            settings: Of transformers' `generate`.

        Raises:
            ValueError: Prompts of unlike lengths.
        """
        if attention_mask is not None and not attention_mask.all():
            raise ValueError("prompts of unlike lengths; caption them in batches of one length each")
        return self.write(self.encode_images(pixel_values, self.pruner("vision")), self._begun(input_ids), **settings)

    def _begun(self, prompt: Tensor | None) -> Tensor | None:
        """A tokenizer's prompt as the decoder goes on from it."""
        if prompt is None:
            return None
        words = self.config.text_config
        first = prompt.new_full((len(prompt), 1), words.bos_token_id)
        ended = bool((prompt[:, -1] == words.sep_token_id).all())
        return torch.cat([first, prompt[:, 1 : prompt.shape[1] - ended]], 1)

    @staticmethod
    def _lesson(logits: Packed, images: Packed, states: list[Tensor]) -> DistillationTargets:
        targets: DistillationTargets = {
            "logits": next_token_logits(logits),
            "state.image": images.first(),
            "tokens.vision": images,
        }
        words = layered(states, logits)
        return targets if words is None else {**targets, "words.decoder": words}


MODEL = MadtpBlipForConditionalGeneration
