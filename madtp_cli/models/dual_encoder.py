"""Models with an image tower and a text tower that meet in their embeddings alone, such as CLIP and SigLIP.

This file has what their models share: the blocks of pre-norm towers on packed tokens, the forward, and the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput

from madtp_cli.execution import gathering
from madtp_cli.execution.attention import Attention, Backend
from madtp_cli.execution.block_pruner import BlockPruner
from madtp_cli.execution.block_trace import TokenTrace
from madtp_cli.execution.packed import Packed
from madtp_cli.execution.padded_attention import attend
from madtp_cli.execution.statistics import AttentionRequest
from madtp_cli.models.prunable import DistillationTargets, EmbeddingOutput, Prunable, stack_states


@dataclass
class DualOutput(EmbeddingOutput):
    """Output for images and texts.

    `logits` are [images, texts]. transformers' pipelines read them as `logits_per_image` and `logits_per_text`.
    `image_embedding` [images, joint width] and `memory`, the kept image tokens, are those of `embed_images`.
    `text_embedding` [texts, joint width] is that of `embed_texts`.
    """

    @property
    def logits_per_image(self) -> Tensor | None:
        """[images, texts]."""
        return self.logits

    @property
    def logits_per_text(self) -> Tensor | None:
        """[texts, images]."""
        return None if self.logits is None else self.logits.t()


@dataclass
class SingleEmbeddings(ModelOutput):
    """Output for images alone or texts alone.

    The first entry is the normalised embeddings, [inputs, joint width], which is what transformers' pipelines return.
    `memory` holds the kept image tokens, and `trace` the token counts of every block.
    """

    image_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    trace: TokenTrace | None = None
    memory: Packed | None = None


class DualEncoder(Prunable):
    """Compares images and texts by their embeddings.

    A family's model defines the towers (`encode_images`, `encode_text`) and the methods below that raise
    NotImplementedError.
    """

    #: Whether a method `match` improves the ranking by embeddings. These models have only embeddings.
    reranks: ClassVar[bool] = False
    ALL_PAIRS: ClassVar[bool] = True

    def encode_images(self, pixel_values: Tensor, pruner: BlockPruner) -> Packed:
        """Run the image tower on [images, 3, height, width]; return the kept tokens of each image."""
        raise NotImplementedError

    def encode_text(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        pruner: BlockPruner,
        states: list[Tensor] | None = None,
    ) -> Packed:
        """Run the text tower; return the kept tokens of each text.

        Args:
            input_ids: [texts, tokens].
            attention_mask: [texts, tokens], 0 at padding; None where there is no padding.
            pruner: Prunes the blocks and records the token counts.
            states: The states after each block, [tokens, width], are appended to this list.
        """
        raise NotImplementedError

    def image_states(self, tokens: Packed) -> Tensor:
        """Return the state that an image's features are computed from, [images, width of the image tower]."""
        raise NotImplementedError

    def text_states(self, tokens: Packed) -> Tensor:
        """Return the state that a text's features are computed from, [texts, width of the text tower]."""
        raise NotImplementedError

    def project_images(self, states: Tensor) -> Tensor:
        """Return the features of images, [images, joint width], not normalised."""
        raise NotImplementedError

    def project_texts(self, states: Tensor) -> Tensor:
        """Return the features of texts, [texts, joint width], not normalised."""
        raise NotImplementedError

    def image_token_targets(self, tokens: Packed) -> Packed:
        """Return the last image tokens as a distillation target.

        They are normalised: a few tokens of the raw stream are so large that they would dominate the loss.
        """
        raise NotImplementedError

    def scaled(self, similarities: Tensor) -> Tensor:
        """Return the logits of similarities."""
        raise NotImplementedError

    def contrast(self, by_image: Tensor, by_text: Tensor, same: Tensor) -> Tensor:
        """Return the loss of a batch's pairs, where a training has several processes with the pairs of all.

        Args:
            by_image: Logits of each image with the texts of all pairs, [pairs, all pairs].
            by_text: Logits of each text with the images of all pairs, [pairs, all pairs].
            same: Whether two pairs have the same image, bool [pairs, all pairs]; they then match each other.
        """
        raise NotImplementedError

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        return_targets: bool = False,
    ) -> DualOutput | SingleEmbeddings:
        """Compare every image with every text; logits are their scaled similarities, [images, texts].

        Images alone, or texts alone, give only their embeddings.

        Args:
            pixel_values: [images, 3, height, width]; None for texts alone.
            input_ids: [texts, tokens]; None for images alone.
            attention_mask: [texts, tokens], 0 at padding; None where there is no padding.
            labels: [texts], the number of each text's image, for one text per image; equal numbers match.
            return_targets: Whether to return distillation targets outside training too.
        """
        if pixel_values is None or input_ids is None:
            return self._embeddings(pixel_values, input_ids, attention_mask, with_loss=labels is not None)
        vision, text = self.pruner("vision"), self.pruner("text")
        states: list[Tensor] | None = [] if return_targets or self.training else None
        images = self.encode_images(pixel_values, vision)
        texts = self.encode_text(input_ids, attention_mask, text, states)
        read_out = self.image_states(images), self.text_states(texts)
        embeddings = unit(self.project_images(read_out[0])), unit(self.project_texts(read_out[1]))
        logits = self._logits(*embeddings)
        words = stack_states(states, texts, text.blocks)
        return DualOutput(
            loss=self._loss(*embeddings, labels) if labels is not None else None,
            logits=logits,
            alignment=self.alignment_loss(vision.pooled, text.pooled),
            targets=None if words is None else self._targets(read_out, embeddings, images, words),
            trace={"vision": vision.blocks, "text": text.blocks},
            image_embedding=embeddings[0],
            text_embedding=embeddings[1],
            memory=images,
        )

    def _embeddings(
        self, pixel_values: Tensor | None, input_ids: Tensor | None, attention_mask: Tensor | None, *, with_loss: bool
    ) -> SingleEmbeddings:
        """Return the embeddings of images alone or of texts alone.

        Raises:
            ValueError: There are neither images nor texts, or a loss is requested, which needs both.
        """
        if with_loss:
            raise ValueError("The loss compares images with texts. Give both pixel_values and input_ids with labels.")
        if pixel_values is not None:
            vision = self.pruner("vision")
            images = self.encode_images(pixel_values, vision)
            embeds = unit(self.project_images(self.image_states(images)))
            return SingleEmbeddings(image_embeds=embeds, trace={"vision": vision.blocks}, memory=images)
        if input_ids is None:
            raise ValueError("There is nothing to embed. Give pixel_values, input_ids or both.")
        text = self.pruner("text")
        texts = self.encode_text(input_ids, attention_mask, text)
        embeds = unit(self.project_texts(self.text_states(texts)))
        return SingleEmbeddings(text_embeds=embeds, trace={"text": text.blocks})

    def embed_images(self, pixel_values: Tensor) -> tuple[Tensor, Packed]:
        """Return the normalised embeddings, [images, joint width] in float32, and the kept image tokens."""
        images = self.encode_images(pixel_values, self.pruner("vision"))
        return unit(self.project_images(self.image_states(images))), images

    def embed_texts(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the normalised embeddings, [texts, joint width] in float32."""
        texts = self.encode_text(input_ids, attention_mask, self.pruner("text"))
        return unit(self.project_texts(self.text_states(texts)))

    def get_image_features(self, pixel_values: Tensor) -> BaseModelOutputWithPooling:
        """As in transformers' model: `pooler_output` is [images, joint width], not normalised."""
        images = self.encode_images(pixel_values, self.pruner("vision"))
        return BaseModelOutputWithPooling(pooler_output=self.project_images(self.image_states(images)))

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> BaseModelOutputWithPooling:
        """As in transformers' model: `pooler_output` is [texts, joint width], not normalised."""
        texts = self.encode_text(input_ids, attention_mask, self.pruner("text"))
        return BaseModelOutputWithPooling(pooler_output=self.project_texts(self.text_states(texts)))

    def _logits(self, images: Tensor, texts: Tensor) -> Tensor:
        """Scaled similarities, always in float32: half precision gives near neighbours in a gallery equal scores."""
        with torch.autocast(images.device.type, enabled=False):
            return self.scaled(images @ texts.t())

    def _loss(self, images: Tensor, texts: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of the embeddings, with those of all processes of a training."""
        by_image, by_text = gathering.similarities(self._logits, images, texts)
        return self.contrast(by_image, by_text, labels[:, None] == gathering.gather_rows(labels))

    def _targets(
        self,
        read_out: tuple[Tensor, Tensor],
        embeddings: tuple[Tensor, Tensor],
        images: Packed,
        words: Packed,
    ) -> DistillationTargets:
        """Return the distillation targets; pairs are of images and of texts."""
        return {
            "state.image": read_out[0],
            "state.text": read_out[1],
            "embedding.image": embeddings[0],
            "embedding.text": embeddings[1],
            "tokens.vision": self.image_token_targets(images),
            "words.text": words,
        }


def unit(features: Tensor) -> Tensor:
    """Return features with length one, in float32."""
    return functional.normalize(features.float(), dim=-1)


def encode_pre_norm(
    layers: Sequence[Any],
    tokens: Packed,
    pruner: BlockPruner,
    backend: Backend,
    *,
    causal: bool = False,
    states: list[Tensor] | None = None,
    read_out: Any = None,
) -> Packed:
    """Run the blocks of a pre-norm tower, with transformers' names of its parts; return the kept tokens.

    Args:
        layers: The blocks.
        tokens: The embedded tokens.
        pruner: Prunes the blocks and records the token counts.
        backend: Attention backend.
        causal: Each token sees the tokens up to its own position.
        states: The states after each block, [tokens, width], are appended to this list.
        read_out: For a tower that is read by attention pooling: returns, for the tokens that enter a block, the
            attention of the pooling to each of them.
    """
    tokens = pruner.prune_embedding(tokens, layers[0].layer_norm1)
    for layer in layers:
        normed, request = layer.layer_norm1(tokens.data), pruner.request(tokens)
        attention = _attend(layer.self_attn, tokens.replace(normed), request, backend, causal=causal)
        if read_out is not None and request is not None:
            attention = replace(attention, read_out=read_out(tokens))
        tokens = tokens.replace(
            tokens.data + tokens.apply_rowwise(layer.self_attn.out_proj, attention.output.flatten(-2))
        )
        tokens = pruner.prune(tokens, normed, attention)
        tokens = tokens.replace(tokens.data + tokens.apply_rowwise(layer.mlp, layer.layer_norm2(tokens.data)))
        if states is not None:
            states.append(tokens.data)
    return tokens


def _attend(
    module: Any, tokens: Packed, request: AttentionRequest | None, backend: Backend, *, causal: bool
) -> Attention:
    query, key, value = (
        tokens.apply_rowwise(projection, tokens.data).unflatten(-1, (module.num_heads, module.head_dim))
        for projection in (module.q_proj, module.k_proj, module.v_proj)
    )
    lengths = tokens.lengths
    return attend(query, key, value, lengths, lengths, request, backend, tokens.sizes, causal=causal)
