"""The parts of BLIP-2: configuration, image tower and Q-Former on packed tokens.

The modules are transformers' own, so the state dict has transformers' keys.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    Blip2PreTrainedModel,
    Blip2QFormerConfig,
    Blip2QFormerModel,
    Blip2VisionConfig,
    Blip2VisionModel,
    PreTrainedConfig,
)
from transformers import initialization as init
from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerMultiHeadAttention, Blip2TextEmbeddings

from madtp_cli.execution.attention import Attention
from madtp_cli.execution.block_pruner import BlockPruner
from madtp_cli.execution.packed import Packed
from madtp_cli.execution.padded_attention import attend
from madtp_cli.execution.statistics import AttentionRequest
from madtp_cli.models.prunable import Prunable, require_image_size
from madtp_cli.pruning import segments


class MadtpBlip2Config(PreTrainedConfig):
    """BLIP-2 without a language model: `text_config` is the configuration of the Q-Former, which reads the texts.

    `num_query_tokens` and `image_text_hidden_size` are those of transformers' Blip2Config. `madtp` holds the fields of
    `PruningSettings`, or None for a dense model. `trained_on` is the name of the data set, if it is known.
    """

    model_type = "madtp_blip2"
    sub_configs: ClassVar[dict[str, Any]] = {"vision_config": Blip2VisionConfig, "text_config": Blip2QFormerConfig}
    vision_config: Any = None
    text_config: Any = None
    num_query_tokens: int = 32
    image_text_hidden_size: int = 256
    initializer_range: float = 0.02
    task: str = "retrieval"
    madtp: dict[str, Any] | None = None
    trained_on: str | None = None

    def __post_init__(self, **fields: Any) -> None:
        for name, config_class in self.sub_configs.items():
            value = getattr(self, name)
            if value is None or isinstance(value, dict):
                setattr(self, name, config_class(**(value or {})))
        self.text_config.use_qformer_text_input = True
        # The teacher has no dropout, so the student needs none either.
        self.text_config.hidden_dropout_prob = self.text_config.attention_probs_dropout_prob = 0.0
        self.text_config.encoder_hidden_size = self.vision_config.hidden_size
        super().__post_init__(**fields)


class PrunableBlip2(Prunable, Blip2PreTrainedModel):
    """Base class of the BLIP-2 models: the image tower `vision_model` and the Q-Former.

    The Q-Former reads a text ("text" in the trace), or its queries ("queries"), or both in one sequence ("pair"). Only
    images and texts alone are pruned: the few queries carry everything that is known about an image.
    """

    config: MadtpBlip2Config
    config_class = MadtpBlip2Config  # transformers cannot read the postponed annotation

    def __init__(self, config: MadtpBlip2Config) -> None:
        super().__init__(config)
        width = config.text_config.hidden_size
        self.vision_model = Blip2VisionModel(config.vision_config)
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, width))
        self.embeddings = Blip2TextEmbeddings(config.text_config)
        self.qformer = Blip2QFormerModel(config.text_config)

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise the queries, which transformers does only for its own classes."""
        super()._init_weights(module)
        if module is self:
            init.normal_(self.query_tokens, std=self.config.initializer_range)

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
            normed, module = layer.layer_norm1(tokens.data), layer.self_attn
            qkv = tokens.apply_rowwise(module.qkv, normed).unflatten(-1, (3, module.num_heads, -1))
            query, key, value = qkv.unbind(-3)
            lengths, request = tokens.lengths, pruner.request(tokens)
            attention = attend(query, key, value, lengths, lengths, request, self.backend, tokens.sizes)
            states = tokens.apply_rowwise(module.projection, attention.output.flatten(-2))
            tokens = pruner.prune(tokens.replace(tokens.data + states), normed, attention)
            tokens = tokens.replace(tokens.data + tokens.apply_rowwise(layer.mlp, layer.layer_norm2(tokens.data)))
        return tokens.replace(self.vision_model.post_layernorm(tokens.data))

    def encode_text(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        pruner: BlockPruner,
        states: list[Tensor] | None = None,
    ) -> Packed:
        """Run the Q-Former on texts alone; return the kept tokens of each text, [CLS] first.

        Args:
            input_ids: [texts, tokens].
            attention_mask: [texts, tokens], 0 at padding; None where there is no padding.
            pruner: Prunes the blocks and records the token counts.
            states: The states after each layer, [tokens, width], are appended to this list.
        """
        tokens = self.to_tokens(self.embeddings(input_ids), attention_mask).protect_ends(first=True)
        tokens = tokens.replace(self.qformer.layernorm(tokens.data))
        for layer in self.qformer.encoder.layer:
            attention = self._attend(layer.attention.attention, tokens, tokens, pruner.request(tokens))
            attended = tokens.replace(layer.attention.output(attention.output.flatten(-2), tokens.data))
            tokens = pruner.prune(attended, tokens.data, attention)
            tokens = tokens.replace(layer.feed_forward_chunk(tokens.data))
            if states is not None:
                states.append(tokens.data)
        return tokens

    def query(
        self,
        images: Packed,
        pruner: BlockPruner,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        texts: list[int] | None = None,
    ) -> Tensor:
        """Run the Q-Former on its queries, alone or before a text; return the queries' states, [runs, queries, width].

        Args:
            images: Tokens of the images that the queries attend to.
            pruner: Records the token counts.
            input_ids: [texts, tokens]; None for the queries alone.
            attention_mask: [texts, tokens], 0 at padding; None where there is no padding.
            texts: Number of texts of each image, those of the first image first; None for one per image.
        """
        tokens = self._query_tokens(images, input_ids, attention_mask)
        tokens = tokens.replace(self.qformer.layernorm(tokens.data))
        for layer in self.qformer.encoder.layer:
            attention = self._attend(layer.attention.attention, tokens, tokens, pruner.request(tokens))
            attended = tokens.replace(layer.attention.output(attention.output.flatten(-2), tokens.data))
            tokens = pruner.prune(attended, tokens.data, attention)
            queries, words = self._split(tokens, input_ids is not None)
            if layer.has_cross_attention:
                queries = self._look(layer.crossattention, queries, images, texts)
            queries = layer.feed_forward_chunk_query(queries)
            if words is not None:
                words = layer.feed_forward_chunk(words)
            tokens = tokens.replace(self._join(tokens, queries, words))
        queries, _ = self._split(tokens, input_ids is not None)
        return queries if self.padded else queries.unflatten(0, (-1, self.config.num_query_tokens))

    def _query_tokens(self, images: Packed, input_ids: Tensor | None, attention_mask: Tensor | None) -> Packed:
        """Return the queries of each run, before the words of its text if there is one."""
        if input_ids is None:
            runs = images.data.shape[0] if self.padded else len(images.lengths)
            return self.to_tokens(self.query_tokens.expand(runs, -1, -1))
        queries = self.query_tokens.expand(input_ids.shape[0], -1, -1)
        mask = None
        if attention_mask is not None:
            mask = torch.cat([attention_mask.new_ones(queries.shape[:2]), attention_mask], 1)
        return self.to_tokens(self.embeddings(input_ids, query_embeds=queries), mask)

    def _look(self, module: Any, queries: Tensor, images: Packed, texts: list[int] | None) -> Tensor:
        """Return the queries after cross-attention to their images."""
        number = self.config.num_query_tokens
        if self.padded:
            tokens = self.to_tokens(queries)
        else:
            tokens = Packed(queries, [number * count for count in texts or [1] * len(images.lengths)])
        attention = self._attend(module.attention, tokens, images)
        states: Tensor = module.output(attention.output.flatten(-2), queries)
        return states

    def _split(self, tokens: Packed, has_words: bool) -> tuple[Tensor, Tensor | None]:
        """Return the queries and the words of each run; None for the words of queries alone."""
        number, data = self.config.num_query_tokens, tokens.data
        if not has_words:
            return data, None
        if self.padded:
            # The number of tokens is known only when an exported model runs. A text has a first and a last token.
            torch._check(data.shape[1] > number + 1)
            return data[:, :number], data[:, number:]
        is_query = segments.index_in_segment(tokens.lengths, data.device) < number
        queries = number * len(tokens.lengths)
        return data[segments.rows_of(is_query, queries)], data[segments.rows_of(~is_query, len(data) - queries)]

    def _join(self, tokens: Packed, queries: Tensor, words: Tensor | None) -> Tensor:
        """Undo `_split`."""
        if words is None:
            return queries
        if self.padded:
            return torch.cat([queries, words], 1)
        is_query = segments.index_in_segment(tokens.lengths, queries.device) < self.config.num_query_tokens
        rows = [segments.rows_of(is_query, len(queries)), segments.rows_of(~is_query, len(words))]
        joined = queries.new_empty(len(queries) + len(words), queries.shape[1])
        return joined.index_copy(0, torch.cat(rows), torch.cat([queries, words]))

    def _attend(
        self,
        module: Blip2QFormerMultiHeadAttention,
        tokens: Packed,
        memory: Packed,
        request: AttentionRequest | None = None,
    ) -> Attention:
        """Return the attention of `tokens` to `memory`, which is `tokens` for self-attention."""
        heads = (module.num_attention_heads, module.attention_head_size)
        query = module.query(tokens.data).unflatten(-1, heads)
        key, value = (
            memory.apply_rowwise(layer, memory.data).unflatten(-1, heads) for layer in (module.key, module.value)
        )
        return attend(query, key, value, tokens.lengths, memory.lengths, request, self.backend, memory.sizes)
