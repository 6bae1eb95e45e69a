"""The parts that all BLIP models share: configuration, image tower and text tower on packed tokens.

The modules are transformers' own, so the state dict has transformers' keys.
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
from madtp_cli.models.prunable import Prunable, require_image_size

#: The cross-attention of a text layer, given the layer and its tokens. It returns the new states, [tokens, width].
CrossAttention = Callable[[Any, Packed], Tensor]


#: The prompt with which BLIP was trained to write captions.
PROMPT = "a picture of"


class MadtpBlipConfig(BlipConfig):
    """transformers' BLIP configuration with the task and the pruning settings.

    `merge_from` is the first text layer with a merge layer (NLVR2 only). `match_token` is the first token of a text
    that is matched with an image (retrieval only): "enc" for [ENC], or "cls" for [CLS]. `prompt` begins every caption
    (caption only); it may be empty. `madtp` holds the fields of `PruningSettings`, or None for a dense model.
    `trained_on` is the name of the data set, if the checkpoint states it.
    """

    model_type = "madtp_blip"
    task: str = "nlvr2"
    merge_from: int = 6
    match_token: str = "enc"
    prompt: str = PROMPT
    madtp: dict[str, Any] | None = None
    trained_on: str | None = None


class PrunableBlip(Prunable, BlipPreTrainedModel):
    """Base class of the BLIP models. It has the image tower `vision_model`; subclasses add the parts of their task."""

    config: MadtpBlipConfig
    config_class = MadtpBlipConfig  # transformers cannot read the postponed annotation
    vision_model: BlipVisionModel

    def dummy_inputs(self, text_tokens: int) -> dict[str, Tensor]:
        """Return one blank image and one text of this length."""
        side = self.config.vision_config.image_size
        words = torch.ones(1, text_tokens, dtype=torch.long)
        return {"pixel_values": torch.zeros(1, 3, side, side), "input_ids": words, "attention_mask": words}

    def encode_images(self, pixel_values: Tensor, pruner: BlockPruner) -> Packed:
        """Run the image tower on [images, 3, height, width]; return the kept tokens of each image, [CLS] first."""
        require_image_size(pixel_values, self.config.vision_config.image_size)
        tokens = self.tokens_of_images(self.vision_model.embeddings, pixel_values, pruner)
        tokens = tokens.protect_ends(first=True)  # [CLS]
        tokens = pruner.prune_embedding(tokens, self.vision_model.encoder.layers[0].layer_norm1)
        for layer in self.vision_model.encoder.layers:
            normed = layer.layer_norm1(tokens.data)
            qkv = tokens.apply_rowwise(layer.self_attn.qkv, normed).unflatten(-1, (3, layer.self_attn.num_heads, -1))
            query, key, value = qkv.unbind(-3)
            lengths, request = tokens.lengths, pruner.request(tokens)
            attention = attend(query, key, value, lengths, lengths, request, self.backend, tokens.sizes)
            tokens = tokens.replace(
                tokens.data + tokens.apply_rowwise(layer.self_attn.projection, attention.output.flatten(-2))
            )
            tokens = pruner.prune(tokens, normed, attention)
            tokens = tokens.replace(tokens.data + tokens.apply_rowwise(layer.mlp, layer.layer_norm2(tokens.data)))
        return tokens.replace(self.vision_model.post_layernorm(tokens.data))

    def encode_text(
        self,
        encoder: BlipTextModel,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        pruner: BlockPruner,
        cross_attention: CrossAttention | None = None,
        states: list[Tensor] | None = None,
        *,
        causal: bool = False,
    ) -> Packed:
        """Run a text encoder or decoder; return the kept tokens of each text.

        Args:
            encoder: transformers' text model.
            input_ids: [texts, tokens].
            attention_mask: [texts, tokens], 0 at padding; None where there is no padding.
            pruner: Prunes the blocks and records the token counts.
            cross_attention: Cross-attention of every layer; None for a text that attends only to itself.
            states: The states after each layer, [tokens, width], are appended to this list.
            causal: Whether each token attends only to itself and earlier tokens.
        """
        tokens = self.to_tokens(encoder.embeddings(input_ids), attention_mask)
        tokens = tokens.protect_ends(first=True)  # [CLS] or [ENC]
        for layer in encoder.encoder.layer:
            attention = attend_from(
                layer.attention.self, tokens, tokens, self.backend, pruner.request(tokens), causal=causal
            )
            attended = tokens.replace(layer.attention.output(attention.output.flatten(-2), tokens.data))
            tokens = pruner.prune(attended, tokens.data, attention)
            if cross_attention:
                tokens = tokens.replace(cross_attention(layer, tokens))
            tokens = tokens.replace(layer.feed_forward_chunk(tokens.data))
            if states is not None:
                states.append(tokens.data)
        return tokens

    def cross_attention_to(self, memory: Packed) -> CrossAttention:
        """Return the cross-attention of each text to its own segment of `memory`."""

        def cross_attend(layer: Any, tokens: Packed) -> Tensor:
            attention = attend_from(layer.crossattention.self, tokens, memory, self.backend)
            states: Tensor = layer.crossattention.output(attention.output.flatten(-2), tokens.data)
            return states

        return cross_attend


def attend_from(
    module: BlipTextSelfAttention,
    tokens: Packed,
    memory: Packed,
    backend: Backend,
    request: AttentionRequest | None = None,
    *,
    causal: bool = False,
) -> Attention:
    """Return the attention of `tokens` to `memory` with the projections of a BLIP text layer.

    Args:
        module: Has the query, key and value projections.
        tokens: The queries.
        memory: The keys and values. For self-attention it is `tokens`.
        backend: See `execution.attention.attend`.
        statistics: Attention statistics that pruning needs; None for none.
        causal: Whether each token attends only to itself and earlier tokens.
    """
    heads = (module.num_attention_heads, module.attention_head_size)
    query = module.query(tokens.data).unflatten(-1, heads)
    key, value = (memory.apply_rowwise(layer, memory.data).unflatten(-1, heads) for layer in (module.key, module.value))
    return attend(query, key, value, tokens.lengths, memory.lengths, request, backend, memory.sizes, causal=causal)
