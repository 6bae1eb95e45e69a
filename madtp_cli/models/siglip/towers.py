"""SigLIP's two towers on packed tokens: configuration, image tower with attention pooling, text tower without a mask.

The modules are transformers' own, so the state dict has transformers' keys. SigLIP 2 of fixed resolution is the same
model with another vocabulary.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    SiglipConfig,
    SiglipPreTrainedModel,
    SiglipTextConfig,
    SiglipTextModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from madtp_cli.execution.block_pruner import BlockPruner
from madtp_cli.execution.packed import Packed
from madtp_cli.execution.padded_attention import attend
from madtp_cli.execution.statistics import ReadOut
from madtp_cli.models.dual_encoder import DualEncoder, encode_pre_norm
from madtp_cli.models.prunable import require_image_size


class MadtpSiglipTextConfig(SiglipTextConfig):
    """transformers' configuration of the text tower, whose default special tokens are not in its vocabulary."""

    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = 1


class MadtpSiglipConfig(SiglipConfig):
    """transformers' SigLIP configuration with the task and the pruning settings.

    `madtp` holds the fields of `PruningSettings`, or None for a dense model. `trained_on` is the name of the data set,
    if the checkpoint states it.
    """

    model_type = "madtp_siglip"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "vision_config": SiglipVisionConfig,
        "text_config": MadtpSiglipTextConfig,
    }
    task: str = "retrieval"
    madtp: dict[str, Any] | None = None
    trained_on: str | None = None


class PrunableSiglip(DualEncoder, SiglipPreTrainedModel):
    """Base class of the SigLIP models: image tower `vision_model` and text tower `text_model`, both pre-norm."""

    #: An image is read by attention pooling, a text from its last position.
    READ_OUT: ClassVar[dict[str, ReadOut | None]] = {"vision": None, "text": "last"}
    #: There is no [CLS], so every image token can be pruned.
    PROTECTED: ClassVar[dict[str, int]] = {"vision": 0, "text": 1}

    config: MadtpSiglipConfig
    config_class = MadtpSiglipConfig  # transformers cannot read the postponed annotation
    vision_model: SiglipVisionModel
    text_model: SiglipTextModel

    def dummy_inputs(self, text_tokens: int) -> dict[str, Tensor]:
        """Return one blank image and one text of this length."""
        vision = self.config.vision_config
        words = torch.ones(1, text_tokens, dtype=torch.long)
        pixels = torch.zeros(1, 3, vision.image_size, vision.image_size)
        return {"pixel_values": pixels, "input_ids": words, "attention_mask": torch.ones_like(words)}

    def encode_images(self, pixel_values: Tensor, pruner: BlockPruner) -> Packed:
        """Run the image tower on [images, 3, height, width]; return the kept tokens of each image."""
        require_image_size(pixel_values, self.config.vision_config.image_size)
        tower = self.vision_model
        tokens = self.tokens_of_images(tower.embeddings, pixel_values, pruner).protect_ends(first=False)
        probe = self._folded_probe() if pruner.active and pruner.scores_read_out else None
        read_out = None if probe is None else lambda tokens: self._attention_of_pooling(tokens, probe)
        return encode_pre_norm(tower.encoder.layers, tokens, pruner, self.backend, read_out=read_out)

    def encode_text(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        pruner: BlockPruner,
        states: list[Tensor] | None = None,
    ) -> Packed:
        """Run the text tower; return the kept tokens of each text, its last position last.

        SigLIP was trained on texts that are padded to all positions, and reads the last one even if it is padding. So
        padding is text: the tower attends to it, and `attention_mask` is not used.
        """
        tokens = self.to_tokens(self.text_model.embeddings(input_ids)).protect_ends(first=False, last=True)
        return encode_pre_norm(self.text_model.encoder.layers, tokens, pruner, self.backend, states=states)

    def image_states(self, tokens: Packed) -> Tensor:
        """Return the attention-pooled state of each image."""
        return self.pool(tokens.replace(self.vision_model.post_layernorm(tokens.data)))

    def project_images(self, states: Tensor) -> Tensor:
        """Return the features of images, which are their pooled states."""
        return states

    def image_token_targets(self, tokens: Packed) -> Packed:
        """Return the last image tokens, normalised."""
        return tokens.replace(self.vision_model.post_layernorm(tokens.data))

    def pool(self, tokens: Packed) -> Tensor:
        """Return the attention-pooled state of each image, [images, width].

        The probe attends to each token in proportion to the number of patches that it stands for.

        Args:
            tokens: The normalised tokens after the last block.
        """
        head = self.vision_model.head
        module = head.attention
        query_weight, key_weight, value_weight = module.in_proj_weight.chunk(3)
        query_bias, key_bias, value_bias = module.in_proj_bias.chunk(3)
        heads = (module.num_heads, module.head_dim)
        queries = tokens.one_row_each(functional.linear(head.probe[0], query_weight, query_bias))
        key, value = (
            tokens.apply_rowwise(partial(functional.linear, weight=weight, bias=bias), tokens.data).unflatten(-1, heads)
            for weight, bias in ((key_weight, key_bias), (value_weight, value_bias))
        )
        pooled = attend(
            queries.data.unflatten(-1, heads),
            key,
            value,
            queries.lengths,
            tokens.lengths,
            backend=self.backend,
            sizes=tokens.sizes,
        )
        states = queries.replace(module.out_proj(pooled.output.flatten(-2))).first()
        return states + head.mlp(head.layernorm(states))

    def _folded_probe(self) -> Tensor:
        """Return the matrix [width, heads] whose product with tokens is the probe's attention logits.

        The bias of the keys is left out: it adds the same number to all logits of a head.
        """
        head = self.vision_model.head
        module = head.attention
        query_weight, key_weight, _ = module.in_proj_weight.detach().chunk(3)
        query = (query_weight * head.probe.detach()[0]).sum(1) + module.in_proj_bias.detach().chunk(3)[0]
        by_head = (query[:, None] * key_weight).unflatten(0, (module.num_heads, module.head_dim)).sum(1)
        return by_head.t() * module.head_dim**-0.5

    @torch.no_grad()
    def _attention_of_pooling(self, tokens: Packed, probe: Tensor) -> Tensor:
        """Return the probe's attention to tokens within the tower, the mean over its heads, [..., 1].

        It is what the pooling would attend to if the tower ended here; the pooling is part of the importance score in
        place of the attention of [CLS].
        """
        logits = self.vision_model.post_layernorm(tokens.data) @ probe.to(tokens.data.dtype)
        return tokens.softmax(logits).mean(-1, keepdim=True)
