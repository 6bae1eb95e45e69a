"""BLIP for natural-language visual reasoning, run on packed tokens.

The modules are transformers' own, hence so are the state-dict keys; NLVR's twin
cross-attention, which transformers lacks, keeps the original's keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BlipConfig, BlipPreTrainedModel, BlipTextConfig, BlipTextModel, BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextSelfAttention
from transformers.utils import ModelOutput

from madtp_cli.models.attention import attend
from madtp_cli.models.packed import Packed, pack


class MadtpBlipConfig(BlipConfig):
    """BLIP's configuration plus the task; `merge_from` is the first text layer with a merge layer."""

    model_type = "madtp_blip"
    task: str = "nlvr2"
    merge_from: int = 6


class TwinCrossAttention(nn.Module):
    """Cross-attention to two images at once (BLIP's nlvr encoder, keys as there)."""

    def __init__(self, config: BlipTextConfig, *, merge: bool) -> None:
        super().__init__()
        self.self0 = BlipTextSelfAttention(config, is_cross_attention=True)
        self.self1 = BlipTextSelfAttention(config, is_cross_attention=True)
        self.output = TwinOutput(config, merge=merge)

    def forward(self, tokens: Packed, memory: tuple[Packed, Packed]) -> Packed:
        """Text tokens after looking at both images; each image has its own number of tokens."""
        looks = [
            _attend_text(side, tokens, image) for side, image in zip((self.self0, self.self1), memory, strict=True)
        ]
        return tokens.replace(self.output(looks[0], looks[1], tokens.data))


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


def _attend_text(module: BlipTextSelfAttention, tokens: Packed, memory: Packed) -> Tensor:
    """BERT-style attention from tokens to memory, [total, width]."""
    heads = (module.num_attention_heads, module.attention_head_size)
    query = module.query(tokens.data).unflatten(-1, heads)
    key, value = (layer(memory.data).unflatten(-1, heads) for layer in (module.key, module.value))
    return attend(query, key, value, tokens.lengths, memory.lengths).output.flatten(1)


def _runs(lengths: list[int], size: int) -> list[list[int]]:
    return [lengths[start : start + size] for start in range(0, len(lengths), size)]


@dataclass
class NlvrOutput(ModelOutput):
    """`logits` [batch, 2] (false, true); `loss` with labels; token states for distillation."""

    loss: Tensor | None = None
    logits: Tensor | None = None


class MadtpBlipForNLVR2(BlipPreTrainedModel):
    """BLIP that judges a sentence about two images."""

    config: MadtpBlipConfig

    def __init__(self, config: MadtpBlipConfig) -> None:
        super().__init__(config)
        self.vision_model = BlipVisionModel(config.vision_config)
        self.text_encoder = BlipTextModel(config.text_config, add_pooling_layer=False)
        for number, layer in enumerate(self.text_encoder.encoder.layer):
            layer.crossattention = TwinCrossAttention(config.text_config, merge=number >= config.merge_from)
        width = config.text_config.hidden_size
        self.cls_head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))
        self.post_init()

    def encode_images(self, pixel_values: Tensor) -> Packed:
        """Image tokens of [images, 3, height, width]."""
        tokens = pack(self.vision_model.embeddings(pixel_values))
        for layer in self.vision_model.encoder.layers:
            normed = layer.layer_norm1(tokens.data)
            qkv = layer.self_attn.qkv(normed).unflatten(-1, (3, layer.self_attn.num_heads, -1))
            seen = attend(*qkv.unbind(1), tokens.lengths, tokens.lengths).output.flatten(1)
            data = tokens.data + layer.self_attn.projection(seen)
            tokens = tokens.replace(data + layer.mlp(layer.layer_norm2(data)))
        return tokens.replace(self.vision_model.post_layernorm(tokens.data))

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor, memory: tuple[Packed, Packed]) -> Packed:
        """Text tokens that have looked at both images."""
        tokens = pack(self.text_encoder.embeddings(input_ids), attention_mask)
        shared = len(tokens.lengths) // len(memory[0].lengths)  # sentences about one pair follow each other
        for layer in self.text_encoder.encoder.layer:
            seen = _attend_text(layer.attention.self, tokens, tokens)
            tokens = tokens.replace(layer.attention.output(seen, tokens.data))
            looking = Packed(tokens.data, [sum(run) for run in _runs(tokens.lengths, shared)])
            tokens = tokens.replace(layer.crossattention(looking, memory).data)
            tokens = tokens.replace(layer.feed_forward_chunk(tokens.data))
        return tokens

    def forward(
        self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> NlvrOutput:
        """Judge each sentence.

        Args:
            pixel_values: [batch, 2, 3, height, width], left image first.
            input_ids: [sentences, tokens], the first token [ENC]; as many sentences for each
                pair, those of the first pair first.
            attention_mask: [sentences, tokens], 0 at padding.
            labels: [sentences], 1 where the sentence is true.
        """
        images = self.encode_images(pixel_values.transpose(0, 1).flatten(0, 1))
        batch = len(pixel_values)
        memory = images.part(slice(0, batch)), images.part(slice(batch, None))
        tokens = self.encode_text(input_ids, attention_mask, memory)
        logits = self.cls_head(tokens.first())
        loss = functional.cross_entropy(logits, labels) if labels is not None else None
        return NlvrOutput(loss=loss, logits=logits)
