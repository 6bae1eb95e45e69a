"""CLIP's two towers on packed tokens: configuration, image tower and causal text tower.

The modules are transformers' own, so the state dict has transformers' keys.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPPreTrainedModel, CLIPTextModel, CLIPVisionModel

from madtp_cli.execution.block_pruner import BlockPruner
from madtp_cli.execution.packed import Packed
from madtp_cli.execution.statistics import ReadOut
from madtp_cli.models.dual_encoder import DualEncoder, encode_pre_norm
from madtp_cli.models.prunable import require_image_size


class MadtpClipConfig(CLIPConfig):
    """transformers' CLIP configuration with the task and the pruning settings.

    `madtp` holds the fields of `PruningSettings`, or None for a dense model. `trained_on` is the name of the data set,
    if the checkpoint states it. A text ends with its first token `text_config.eos_token_id`. `text_projection_bias` is
    whether the projection of texts has a bias, as in some models of OpenCLIP. `image_projection` is whether an image
    encoder alone projects its features, as transformers' CLIPVisionModelWithProjection does.
    """

    model_type = "madtp_clip"
    task: str = "retrieval"
    madtp: dict[str, Any] | None = None
    trained_on: str | None = None
    text_projection_bias: bool = False
    image_projection: bool = True


class PrunableClip(DualEncoder, CLIPPreTrainedModel):
    """Base class of the CLIP models: the image tower `vision_model` and the text tower `text_model`, both pre-norm."""

    #: The model reads a text from its end.
    READ_OUT: ClassVar[dict[str, ReadOut | None]] = {"text": "last"}
    #: A text's start, which sees only itself, and its end.
    PROTECTED: ClassVar[dict[str, int]] = {"text": 2}

    config: MadtpClipConfig
    config_class = MadtpClipConfig  # transformers cannot read the postponed annotation
    vision_model: CLIPVisionModel
    text_model: CLIPTextModel

    def dummy_inputs(self, text_tokens: int) -> dict[str, Tensor]:
        """Return one blank image and one text of this length, whose last token is the end-of-text token."""
        vision, text = self.config.vision_config, self.config.text_config
        words = torch.full((1, text_tokens), text.bos_token_id)
        words[:, -1] = text.eos_token_id
        pixels = torch.zeros(1, 3, vision.image_size, vision.image_size)
        return {"pixel_values": pixels, "input_ids": words, "attention_mask": torch.ones_like(words)}

    def encode_images(self, pixel_values: Tensor, pruner: BlockPruner) -> Packed:
        """Run the image tower on [images, 3, height, width]; return the kept tokens of each image, [CLS] first."""
        require_image_size(pixel_values, self.config.vision_config.image_size)
        tower = self.vision_model
        tokens = self.tokens_of_images(tower.embeddings, pixel_values, pruner)
        tokens = tokens.replace(tower.pre_layrnorm(tokens.data)).protect_ends(first=True)  # [CLS]
        return encode_pre_norm(tower.encoder.layers, tokens, pruner, self.backend)

    def encode_text(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        pruner: BlockPruner,
        states: list[Tensor] | None = None,
    ) -> Packed:
        """Run the text tower; return the kept tokens of each text, the end-of-text token last.

        Tokens after the end of a text are not computed. Under the causal mask the end-of-text token does not attend to
        them, so the text's feature is the same as with all 77 positions.

        Args:
            input_ids: [texts, tokens].
            attention_mask: [texts, tokens], 0 at padding; None where there is no padding.
            pruner: Prunes the blocks and records the token counts.
            states: The states after each block, [tokens, width], are appended to this list.
        """
        tokens = self.to_tokens(self.text_model.embeddings(input_ids), self._up_to_end(input_ids, attention_mask))
        tokens = tokens.protect_ends(first=True, last=True)  # start and end of the text
        layers = self.text_model.encoder.layers
        return encode_pre_norm(layers, tokens, pruner, self.backend, causal=True, states=states)

    def image_states(self, tokens: Packed) -> Tensor:
        """Return the normalised [CLS] token of each image."""
        return self.vision_model.post_layernorm(tokens.first())

    def image_token_targets(self, tokens: Packed) -> Packed:
        """Return the last image tokens, normalised."""
        return tokens.replace(self.vision_model.post_layernorm(tokens.data))

    def _up_to_end(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Return which tokens are not padding and not after the first end of their text, bool [texts, tokens]."""
        is_end = input_ids == self.config.text_config.eos_token_id
        real = (is_end.cumsum(1) - is_end.long()) == 0
        return real if attention_mask is None else real & attention_mask.bool()
