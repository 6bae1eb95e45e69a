"""BLIP for natural-language visual reasoning, run on packed tokens.

transformers has no such model; NLVR's twin cross-attention keeps the original's keys.
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
from madtp_cli.models.blip.towers import Look, MadtpBlipConfig, PrunableBlip, attend_from
from madtp_cli.models.prunable import DistillationTargets, PrunedOutput, layered


class TwinCrossAttention(nn.Module):
    """Cross-attention to two images at once (BLIP's nlvr encoder, keys as there)."""

    def __init__(self, config: BlipTextConfig, *, merge: bool) -> None:
        super().__init__()
        self.self0 = BlipTextSelfAttention(config, is_cross_attention=True)
        self.self1 = BlipTextSelfAttention(config, is_cross_attention=True)
        self.output = TwinOutput(config, merge=merge)

    def forward(self, tokens: Packed, memory: tuple[Packed, Packed], backend: Backend) -> Packed:
        """Text tokens after looking at both images; each image has its own number of tokens."""
        left, right = (
            attend_from(side, tokens, image, backend).output.flatten(-2)
            for side, image in zip((self.self0, self.self1), memory, strict=True)
        )
        return tokens.replace(self.output(left, right, tokens.data))


class TwinOutput(nn.Module):
    """Joins what was seen in the two images: by their mean, or by a learned merge layer."""

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
        left, right = self.dense0(left), self.dense1(right)
        joined = self.merge_layer(torch.cat([left, right], -1)) if self.merge else (left + right) / 2
        return self.LayerNorm(self.dropout(joined) + residual)


class MadtpBlipForNLVR2(PrunableBlip):
    """BLIP that judges a sentence about two images; prunes where its config has `madtp`."""

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
        """Two images and one text."""
        one = super().dummy_inputs(text_tokens)
        return {**one, "pixel_values": one["pixel_values"][:, None].expand(-1, 2, -1, -1, -1)}

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        return_targets: bool = False,
    ) -> PrunedOutput:
        """Judge each sentence; logits are [sentences, 2] (false, true).

        Args:
            pixel_values: [pairs, 2, 3, height, width], left image first.
            input_ids: [sentences, tokens], the first token [ENC]; as many sentences for each
                pair, those of the first pair first.
            attention_mask: [sentences, tokens], 0 at padding; None where there is none.
            labels: [sentences], 1 where the sentence is true.
            teach: Also give the lesson, as in training.
        """
        pairs = pixel_values.shape[0]
        vision, text = self.pruner("vision"), self.pruner("text")
        images = self.encode_images(pixel_values.transpose(0, 1).flatten(0, 1), vision)
        memory = images.part(slice(0, pairs)), images.part(slice(pairs, None))
        states: list[Tensor] | None = [] if return_targets or self.training else None
        tokens = self.encode_text(
            self.text_encoder, input_ids, attention_mask, text, self.looking_at_both(memory), states
        )
        logits = self.cls_head(tokens.first())
        return PrunedOutput(
            loss=functional.cross_entropy(logits.float(), labels) if labels is not None else None,
            logits=logits,
            alignment=self.aligned(_of_pairs(vision.pooled, input_ids.shape[0] // pairs), text.pooled),
            targets=self._lesson(logits, images, tokens, states) if states is not None else None,
            trace={"vision": vision.blocks, "text": text.blocks},
        )

    def looking_at_both(self, memory: tuple[Packed, Packed]) -> Look:
        """Cross-attention of each sentence to both images of its pair."""

        def look(layer: Any, tokens: Packed) -> Tensor:
            looked: Packed = layer.crossattention(tokens.group_by_memory(memory[0]), memory, self.backend)
            return looked.data

        return look

    @staticmethod
    def _lesson(logits: Tensor, images: Packed, tokens: Packed, states: list[Tensor]) -> DistillationTargets:
        pairs = len(images.lengths) // 2
        targets: DistillationTargets = {
            "logits": logits,
            "state.image": images.first().unflatten(0, (2, pairs)).transpose(0, 1),
            "state.text": tokens.first(),
            "tokens.vision": images,
        }
        words = layered(states, tokens)
        return targets if words is None else {**targets, "words.text": words}


def _of_pairs(pooled: Tensor | None, sentences: int) -> Tensor | None:
    """What a pair's images pooled, their mean as in the original, once for each of its sentences."""
    if pooled is None:
        return None
    return pooled.unflatten(0, (2, -1)).mean(0).repeat_interleave(sentences, 0)


MODEL = MadtpBlipForNLVR2
