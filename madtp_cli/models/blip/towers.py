"""What BLIP's models share: configuration, image tower and text encoder on packed tokens.

The modules are transformers' own, hence so are the state-dict keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import BlipConfig, BlipPreTrainedModel, BlipTextModel, BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextSelfAttention

from madtp_cli.execution.attention import Attention, Backend
from madtp_cli.execution.block_pruner import BlockPruner
from madtp_cli.execution.packed import Packed
from madtp_cli.execution.padded_attention import attend
from madtp_cli.execution.statistics import AttentionRequest
from madtp_cli.models.prunable import Prunable

#: What a text layer does with its tokens between self-attention and feed-forward.
Look = Callable[[Any, Packed], Tensor]


class MadtpBlipConfig(BlipConfig):
    """BLIP's configuration, the task, and how to prune.

    `merge_from` is, for NLVR2, the first text layer with a merge layer; `madtp` holds `PruningSettings`,
    or None for a dense model; `trained_on` names the data set, where the checkpoint says so.
    """

    model_type = "madtp_blip"
    task: str = "nlvr2"
    merge_from: int = 6
    madtp: dict[str, Any] | None = None
    trained_on: str | None = None


class PrunableBlip(Prunable, BlipPreTrainedModel):
    """A BLIP with an image tower `vision_model` and whatever its task needs."""

    config: MadtpBlipConfig
    config_class = MadtpBlipConfig  # transformers cannot read the postponed annotation
    vision_model: BlipVisionModel

    def dummy_inputs(self, text_tokens: int) -> dict[str, Tensor]:
        """One image and one text."""
        side = self.config.vision_config.image_size
        words = torch.ones(1, text_tokens, dtype=torch.long)
        return {"pixel_values": torch.zeros(1, 3, side, side), "input_ids": words, "attention_mask": words}

    def encode_images(self, pixel_values: Tensor, pruner: BlockPruner) -> Packed:
        """Image tokens of [images, 3, height, width]; each image keeps its own number."""
        tokens = self.to_tokens(self.vision_model.embeddings(pixel_values)).protect_ends(first=True)  # [CLS]
        for layer in self.vision_model.encoder.layers:
            normed = layer.layer_norm1(tokens.data)
            qkv = tokens.apply_rowwise(layer.self_attn.qkv, normed).unflatten(-1, (3, layer.self_attn.num_heads, -1))
            query, key, value = qkv.unbind(-3)
            request = pruner.request(tokens)
            seen = attend(query, key, value, tokens.lengths, tokens.lengths, request, self.backend, tokens.sizes)
            tokens = tokens.replace(
                tokens.data + tokens.apply_rowwise(layer.self_attn.projection, seen.output.flatten(-2))
            )
            tokens = pruner.prune(tokens, normed, seen)
            tokens = tokens.replace(tokens.data + tokens.apply_rowwise(layer.mlp, layer.layer_norm2(tokens.data)))
        return tokens.replace(self.vision_model.post_layernorm(tokens.data))

    def encode_text(
        self,
        encoder: BlipTextModel,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        pruner: BlockPruner,
        look: Look | None = None,
        states: list[Tensor] | None = None,
        *,
        causal: bool = False,
    ) -> Packed:
        """Text tokens of [texts, tokens]; `look` lets them see images, `states` collects them after each layer."""
        tokens = self.to_tokens(encoder.embeddings(input_ids), attention_mask).protect_ends(
            first=True
        )  # [CLS] or [ENC]
        for layer in encoder.encoder.layer:
            seen = attend_from(
                layer.attention.self, tokens, tokens, self.backend, pruner.request(tokens), causal=causal
            )
            attended = tokens.replace(layer.attention.output(seen.output.flatten(-2), tokens.data))
            tokens = pruner.prune(attended, tokens.data, seen)
            if look:
                tokens = tokens.replace(look(layer, tokens))
            tokens = tokens.replace(layer.feed_forward_chunk(tokens.data))
            if states is not None:
                states.append(tokens.data)
        return tokens

    def looking_at(self, memory: Packed) -> Look:
        """Cross-attention of each text to its own memory, which may be ragged."""

        def look(layer: Any, tokens: Packed) -> Tensor:
            seen = attend_from(layer.crossattention.self, tokens, memory, self.backend)
            looked: Tensor = layer.crossattention.output(seen.output.flatten(-2), tokens.data)
            return looked

        return look


def attend_from(
    module: BlipTextSelfAttention,
    tokens: Packed,
    memory: Packed,
    backend: Backend,
    request: AttentionRequest | None = None,
    *,
    causal: bool = False,
) -> Attention:
    """BERT-style attention from tokens to memory."""
    heads = (module.num_attention_heads, module.attention_head_size)
    query = module.query(tokens.data).unflatten(-1, heads)
    key, value = (memory.apply_rowwise(layer, memory.data).unflatten(-1, heads) for layer in (module.key, module.value))
    return attend(query, key, value, tokens.lengths, memory.lengths, request, backend, memory.sizes, causal=causal)
