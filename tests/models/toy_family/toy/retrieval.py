"""A dual encoder whose towers are transformers' ViT blocks, on patches of images and on words of texts.

The towers are plain modules. transformers' own ViTModel would rename its keys when it is saved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel, ViTConfig
from transformers.models.vit.modeling_vit import ViTEmbeddings, ViTLayer

from madtp_cli.execution.block_pruner import BlockPruner
from madtp_cli.execution.packed import Packed
from madtp_cli.execution.padded_attention import attend
from madtp_cli.models.prunable import Prunable, PrunedOutput


class ToyTextConfig(ViTConfig):
    """A ViT configuration with a vocabulary."""

    model_type = "toy_text_model"
    vocab_size: int = 70
    max_position_embeddings: int = 16
    bos_token_id: int = 68
    eos_token_id: int = 69


class ToyConfig(PreTrainedConfig):
    """Both towers, the task, and the pruning settings."""

    model_type = "madtp_toy"
    sub_configs: ClassVar[dict[str, Any]] = {"vision_config": ViTConfig, "text_config": ToyTextConfig}
    vision_config: Any = None
    text_config: Any = None
    projection_dim: int = 28
    task: str = "retrieval"
    madtp: dict[str, Any] | None = None
    trained_on: str | None = None

    def __post_init__(self, **fields: Any) -> None:
        for name, config_class in self.sub_configs.items():
            value = getattr(self, name)
            if value is None or isinstance(value, dict):
                setattr(self, name, config_class(**(value or {})))
        super().__post_init__(**fields)


class ToyTextEmbeddings(nn.Module):
    """Word embeddings plus position embeddings."""

    def __init__(self, config: ToyTextConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return [texts, tokens, width]."""
        return self.words(input_ids) + self.positions(torch.arange(input_ids.shape[1], device=input_ids.device))


class ToyTower(nn.Module):
    """Embeddings, ViT blocks, and a final norm."""

    def __init__(self, config: ViTConfig, embeddings: nn.Module) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.layers = nn.ModuleList([ViTLayer(config) for _ in range(config.num_hidden_layers)])
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


@dataclass
class ToyOutput(PrunedOutput):
    """`logits` are the similarities, [images, texts]; both embeddings are normalised."""

    image_embedding: Tensor | None = None
    text_embedding: Tensor | None = None
    memory: Packed | None = None


class ToyForRetrieval(Prunable, PreTrainedModel):
    """Compares every image with every text; both towers read out their first token."""

    ALL_PAIRS: ClassVar[bool] = True
    reranks: ClassVar[bool] = False
    config_class = ToyConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        vision, text = config.vision_config, config.text_config
        self.vision_model = ToyTower(vision, ViTEmbeddings(vision))
        self.text_model = ToyTower(text, ToyTextEmbeddings(text))
        self.image_projection = nn.Linear(vision.hidden_size, config.projection_dim, bias=False)
        self.text_projection = nn.Linear(text.hidden_size, config.projection_dim, bias=False)
        self.prepare()
        self.post_init()

    def dummy_inputs(self, text_tokens: int) -> dict[str, Tensor]:
        """Return one blank image and one text of this length."""
        side = self.config.vision_config.image_size
        words = torch.ones(1, text_tokens, dtype=torch.long)
        return {"pixel_values": torch.zeros(1, 3, side, side), "input_ids": words, "attention_mask": words}

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        return_targets: bool = False,
    ) -> ToyOutput:
        """Return the similarity of every image and every text; the other arguments are those of CLIP's forward."""
        vision, text = self.pruner("vision"), self.pruner("text")
        images = self._encode(self.vision_model, pixel_values, None, vision)
        texts = self._encode(self.text_model, input_ids, attention_mask, text)
        image_embedding, text_embedding = self._embed_images(images), self._embed_texts(texts)
        logits = image_embedding @ text_embedding.t()
        return ToyOutput(
            loss=functional.cross_entropy(10 * logits, labels) if labels is not None else None,
            logits=logits,
            alignment=self.alignment_loss(vision.pooled, text.pooled),
            targets={"state.image": images.first()} if return_targets or self.training else None,
            trace={"vision": vision.blocks, "text": text.blocks},
            image_embedding=image_embedding,
            text_embedding=text_embedding,
            memory=images,
        )

    def embed_texts(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the normalised embeddings, [texts, projection width]."""
        return self._embed_texts(self._encode(self.text_model, input_ids, attention_mask, self.pruner("text")))

    def _encode(self, tower: Any, inputs: Tensor, mask: Tensor | None, pruner: BlockPruner) -> Packed:
        tokens = self.to_tokens(tower.embeddings(inputs), mask).protect_ends(first=True)
        for layer in tower.layers:
            normed, module = layer.layernorm_before(tokens.data), layer.attention
            query, key, value = (
                tokens.apply_rowwise(projection, normed).unflatten(-1, (module.num_attention_heads, module.head_dim))
                for projection in (module.q_proj, module.k_proj, module.v_proj)
            )
            lengths = tokens.lengths
            attention = attend(query, key, value, lengths, lengths, pruner.request(tokens), self.backend, tokens.sizes)
            states = tokens.apply_rowwise(module.o_proj, attention.output.flatten(-2))
            tokens = pruner.prune(tokens.replace(tokens.data + states), normed, attention)
            states = tokens.apply_rowwise(layer.mlp, layer.layernorm_after(tokens.data))
            tokens = tokens.replace(tokens.data + states)
        return tokens

    def _embed_images(self, tokens: Packed) -> Tensor:
        return functional.normalize(self.image_projection(self.vision_model.layernorm(tokens.first())), dim=-1)

    def _embed_texts(self, tokens: Packed) -> Tensor:
        return functional.normalize(self.text_projection(self.text_model.layernorm(tokens.first())), dim=-1)


MODEL = ToyForRetrieval
