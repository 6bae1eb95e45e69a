"""BLIP for natural-language visual reasoning (NLVR2), on packed tokens.

transformers has no such model. The twin cross-attention has the state-dict keys of the original code.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BlipTextConfig, BlipTextModel, BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextSelfAttention

from madtp_cli.execution.attention import Backend
from madtp_cli.execution.packed import Packed
from madtp_cli.models.blip.towers import CrossAttention, MadtpBlipConfig, PrunableBlip, attend_from
from madtp_cli.models.prunable import DistillationTargets, PrunedOutput, stack_states


class TwinCrossAttention(nn.Module):
    """Cross-attention to two images, with separate projections for the left and the right image."""

    def __init__(self, config: BlipTextConfig, *, merge: bool) -> None:
        super().__init__()
        self.self0 = BlipTextSelfAttention(config, is_cross_attention=True)
        self.self1 = BlipTextSelfAttention(config, is_cross_attention=True)
        self.output = TwinOutput(config, merge=merge)

    def forward(self, tokens: Packed, memory: tuple[Packed, Packed], backend: Backend) -> Packed:
        """Return the text tokens after cross-attention.

        Args:
            tokens: Text tokens.
            memory: Tokens of the left and of the right images. Each image has its own number of tokens.
            backend: See `execution.attention.attend`.
        """
        left, right = (
            attend_from(side, tokens, image, backend).output.flatten(-2)
            for side, image in zip((self.self0, self.self1), memory, strict=True)
        )
        return tokens.replace(self.output(left, right, tokens.data))


class TwinOutput(nn.Module):
    """Combines the outputs for the two images, by their mean or with a learned merge layer."""

    def __init__(self, config: BlipTextConfig, *, merge: bool) -> None:
        super().__init__()
        width = config.hidden_size
        self.dense0 = nn.Linear(width, width)
        self.dense1 = nn.Linear(width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        if merge:
            self.merge_layer = nn.Linear(2 * width, width)
        self.merge = merge

    def forward(self, left: Tensor, right: Tensor, residual: Tensor) -> Tensor:
        """Return the new text states, [tokens, width], as all arguments."""
        left, right = self.dense0(left), self.dense1(right)
        joined = self.merge_layer(torch.cat([left, right], -1)) if self.merge else (left + right) / 2
        return self.LayerNorm(self.dropout(joined) + residual)


class MadtpBlipForNLVR2(PrunableBlip):
    """BLIP that decides whether a sentence about two images is true."""

    INPUTS_PER_SAMPLE: ClassVar[dict[str, int]] = {"vision": 2}

    def __init__(self, config: MadtpBlipConfig) -> None:
        super().__init__(config)
        self.vision_model = BlipVisionModel(config.vision_config)
        self.text_encoder = BlipTextModel(config.text_config, add_pooling_layer=False)
        for number, layer in enumerate(self.text_encoder.encoder.layer):
            layer.crossattention = TwinCrossAttention(config.text_config, merge=number >= config.merge_from)
        width = config.text_config.hidden_size
        self.cls_head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))
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
        labels: Tensor | None = None,
        *,
        return_targets: bool = False,
    ) -> PrunedOutput:
        """Classify each sentence; logits are [sentences, 2] (false, true).

        Args:
            pixel_values: [pairs, 2, 3, height, width], left image first.
            input_ids: [sentences, tokens], the first token [ENC]. Every pair has the same number of sentences; those
                of the first pair come first.
            attention_mask: [sentences, tokens], 0 at padding; None where there is no padding.
            labels: [sentences], 1 where the sentence is true.
            return_targets: Whether to return distillation targets outside training too.
        """
        pairs = _number_of_pairs(pixel_values, input_ids)
        vision, text = self.pruner("vision"), self.pruner("text")
        images = self.encode_images(pixel_values.transpose(0, 1).flatten(0, 1), vision)
        memory = images.part(slice(0, pairs)), images.part(slice(pairs, None))
        states: list[Tensor] | None = [] if return_targets or self.training else None
        cross_attention = self.cross_attention_to_both(memory)
        tokens = self.encode_text(self.text_encoder, input_ids, attention_mask, text, cross_attention, states)
        logits = self.cls_head(tokens.first())
        words = stack_states(states, tokens, text.blocks)
        return PrunedOutput(
            loss=functional.cross_entropy(logits.float(), labels) if labels is not None else None,
            logits=logits,
            alignment=self.alignment_loss(_mean_of_pairs(vision.pooled, input_ids.shape[0] // pairs), text.pooled),
            targets=None if words is None else self._targets(logits, images, tokens, words),
            trace={"vision": vision.blocks, "text": text.blocks},
        )

    def cross_attention_to_both(self, memory: tuple[Packed, Packed]) -> CrossAttention:
        """Return the cross-attention of each sentence to both images of its pair.

        Args:
            memory: Tokens of the left and of the right images.
        """

        def cross_attend(layer: Any, tokens: Packed) -> Tensor:
            attended: Packed = layer.crossattention(tokens.group_by_memory(memory[0]), memory, self.backend)
            return attended.data

        return cross_attend

    @staticmethod
    def _targets(logits: Tensor, images: Packed, tokens: Packed, words: Packed) -> DistillationTargets:
        pairs = len(images.lengths) // 2
        return {
            "logits": logits,
            "state.image": images.first().unflatten(0, (2, pairs)).transpose(0, 1),
            "state.text": tokens.first(),
            "tokens.vision": images,
            "words.text": words,
        }


def _number_of_pairs(pixel_values: Tensor, input_ids: Tensor) -> int:
    """Return the number of image pairs.

    Raises:
        ValueError: The images are not pairs, or the pairs do not have the same number of sentences.
    """
    if pixel_values.dim() != 5 or pixel_values.shape[1] != 2:
        raise ValueError(
            f"The images have the shape {list(pixel_values.shape)}, but this model needs pairs, [pairs, 2, 3, height, "
            "width]. Prepare them with processor(images=[left, right], text=..., return_tensors='pt')."
        )
    pairs = pixel_values.shape[0]
    if input_ids.shape[0] % pairs:
        raise ValueError(f"{input_ids.shape[0]} sentences cannot be divided among {pairs} pairs of images.")
    return pairs


def _mean_of_pairs(pooled: Tensor | None, sentences: int) -> Tensor | None:
    """Return the mean of the two images' pooled tokens, repeated for each sentence of the pair.

    The original code takes the mean too.
    """
    if pooled is None:
        return None
    return pooled.unflatten(0, (2, -1)).mean(0).repeat_interleave(sentences, 0)


MODEL = MadtpBlipForNLVR2
