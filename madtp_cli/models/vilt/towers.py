"""ViLT's only tower on packed tokens: the words of a text, the image's [CLS], and its patches in one sequence.

The modules are transformers' own, so the state dict has transformers' keys. transformers' class shuffles the patches in
every forward; here they stay in the order of the image.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig, ViltConfig, ViltModel, ViltPreTrainedModel

from madtp_cli.execution.block_pruner import BlockPruner
from madtp_cli.execution.block_trace import BlockTrace
from madtp_cli.execution.packed import Packed
from madtp_cli.execution.padded import PaddedLengths
from madtp_cli.execution.padded_attention import attend
from madtp_cli.models.prunable import Prunable
from madtp_cli.pruning import mag, segments

#: Fields of transformers' flat configuration that describe the words.
TEXT_FIELDS = ("vocab_size", "max_position_embeddings", "type_vocab_size", "modality_type_vocab_size", "pad_token_id")


class MadtpViltConfig(PreTrainedConfig):
    """transformers' ViLT configuration in two parts, the task, and the pruning settings.

    `vision_config` describes the blocks and the images, and `text_config` the words; both have the same blocks. A model
    for VQA chooses from `answers`. `madtp` holds the fields of `PruningSettings`, or None for a dense model.
    `trained_on` is the name of the data set, if it is known.
    """

    model_type = "madtp_vilt"
    sub_configs: ClassVar[dict[str, Any]] = {"vision_config": ViltConfig, "text_config": ViltConfig}
    vision_config: Any = None
    text_config: Any = None
    initializer_range: float = 0.02
    task: str = "nlvr2"
    answers: list[str] | None = None
    madtp: dict[str, Any] | None = None
    trained_on: str | None = None

    def __post_init__(self, **fields: Any) -> None:
        for name, config_class in self.sub_configs.items():
            value = getattr(self, name)
            if value is None or isinstance(value, dict):
                setattr(self, name, config_class(**(value or {})))
        super().__post_init__(**fields)

    def flat(self) -> ViltConfig:
        """Return transformers' configuration."""
        words = {name: getattr(self.text_config, name) for name in TEXT_FIELDS}
        return ViltConfig(**{**self.vision_config.to_dict(), **words})


class PrunableVilt(Prunable, ViltPreTrainedModel):
    """Base class of the ViLT models.

    The stream is called "vision" in the trace: only the patches are pruned. The words and the image's [CLS] are
    protected. "text" in the trace is the number of words; they have no blocks of their own.
    """

    TOWERS: ClassVar[tuple[str, ...]] = ("vision",)

    config: MadtpViltConfig
    config_class = MadtpViltConfig  # transformers cannot read the postponed annotation

    def __init__(self, config: MadtpViltConfig) -> None:
        super().__init__(config)
        self.vilt = ViltModel(config.flat())

    def dummy_inputs(self, text_tokens: int) -> dict[str, Tensor]:
        """Return one blank square image and one text of this length."""
        side = self.config.vision_config.image_size
        words = torch.ones(1, text_tokens, dtype=torch.long)
        return {"pixel_values": torch.zeros(1, 3, side, side), "input_ids": words, "attention_mask": words}

    def protected_tokens(self, tower: str, inputs: Any) -> Any:
        """Return the protected tokens: the words of each sample and the image's [CLS]."""
        return inputs["text"] + 1

    def encode(
        self,
        images: tuple[Tensor, Tensor | None],
        texts: tuple[Tensor, Tensor | None],
        pruner: BlockPruner,
        kinds: Tensor,
    ) -> tuple[Packed, Tensor | None]:
        """Run the blocks; return the tokens that are left and, in training, the pooled words for the alignment loss.

        Args:
            images: pixel_values [inputs, 3, height, width], and pixel_mask [inputs, height, width], 0 at padding, or
                None where there is no padding.
            texts: input_ids [inputs, tokens], and attention_mask [inputs, tokens], or None where there is no padding.
            pruner: Prunes the blocks and records the token counts.
            kinds: Number of the modality of each input's image: 1, or 2 for a second image, [inputs].
        """
        tokens = self._embed(images, texts, kinds)
        tokens = pruner.prune_embedding(tokens, self.vilt.encoder.layer[0].layernorm_before)
        pools = pruner.pooling and pruner.dictionary is not None
        words: list[int] = self.word_trace(*texts)[0].left if pools else []
        pooled: Tensor | None = None
        for block, layer in enumerate(self.vilt.encoder.layer):
            normed, module = layer.layernorm_before(tokens.data), layer.attention.attention
            heads = (module.num_attention_heads, module.attention_head_size)
            query, key, value = (
                tokens.apply_rowwise(projection, normed).unflatten(-1, heads)
                for projection in (module.query, module.key, module.value)
            )
            lengths, request = tokens.lengths, pruner.request(tokens)
            attention = attend(query, key, value, lengths, lengths, request, self.backend, tokens.sizes)
            states = tokens.apply_rowwise(layer.attention.output.dense, attention.output.flatten(-2))
            if pools:
                found = self._pool_words(tokens.lengths, normed, words, pruner.tower, block)
                pooled = found if pooled is None else pooled + found
            tokens = pruner.prune(tokens.replace(tokens.data + states), normed, attention)
            inner = tokens.apply_rowwise(layer.intermediate, layer.layernorm_after(tokens.data))
            tokens = tokens.replace(tokens.data + tokens.apply_rowwise(layer.output.dense, inner))
        return tokens.replace(self.vilt.layernorm(tokens.data)), pooled

    def alignment(self, pruner: BlockPruner, words: Tensor | None) -> Tensor | None:
        """Return the alignment loss (MAG) between the pooled patches and the pooled words of the same stream."""
        if self.madtp is None or pruner.pooled is None or words is None:
            return None
        patches, words = (self.madtp.project(pruner.tower, part) for part in (pruner.pooled, words))
        return mag.alignment_loss(patches, words)

    def word_trace(self, input_ids: Tensor, attention_mask: Tensor | None) -> list[BlockTrace]:
        """Return the number of words of each text, as one block that prunes nothing."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        counts = mask.sum(1)
        # As all counts of padded tokens, these are known only when an exported model runs.
        lengths = cast(list[int], PaddedLengths(counts)) if self.padded else counts.tolist()
        return [BlockTrace(lengths, lengths)]

    def _embed(
        self, images: tuple[Tensor, Tensor | None], texts: tuple[Tensor, Tensor | None], kinds: Tensor
    ) -> Packed:
        """Return the words, [CLS] and patches of each input; all but the patches are protected."""
        modality, words = self.vilt.embeddings.token_type_embeddings, texts[0].shape[1]
        block, real = self._embed_image(*images)
        text = self.vilt.embeddings.text_embeddings(texts[0]) + modality.weight[0]
        block = torch.cat([text, block + modality(kinds)[:, None]], 1)
        mask = None
        if texts[1] is not None or real is not None:
            text_mask = torch.ones_like(texts[0]) if texts[1] is None else texts[1]
            real = block.new_ones(block.shape[0], block.shape[1] - words) if real is None else real
            mask = torch.cat([text_mask.bool(), real.bool()], 1)
        protected = (torch.arange(block.shape[1], device=block.device) < words + 1).expand(block.shape[0], -1)
        return self.to_tokens(block, mask, protected)

    def _embed_image(self, pixel_values: Tensor, pixel_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return [CLS] and the patches of each image, and which of them are real; None for all."""
        embeddings = self.vilt.embeddings
        patches = embeddings.patch_embeddings(pixel_values)
        rows, columns = patches.shape[2:]
        if pixel_mask is None or bool(pixel_mask.all()):
            positions, real = self._positions(rows, columns), None
        else:
            grid = functional.interpolate(pixel_mask[:, None].float(), size=(rows, columns))[:, 0]
            sizes = zip(grid.sum(1)[:, 0].int().tolist(), grid.sum(2)[:, 0].int().tolist(), strict=True)
            parts = [
                functional.pad(self._positions(*size), (0, columns - size[1], 0, rows - size[0])) for size in sizes
            ]
            positions, real = torch.cat(parts), functional.pad(grid.flatten(1), (1, 0), value=1.0)
        tokens = (patches + positions).flatten(2).transpose(1, 2)
        start = (embeddings.cls_token + embeddings.position_embeddings[:, :1]).expand(tokens.shape[0], -1, -1)
        return torch.cat([start, tokens], 1), real

    def _positions(self, rows: int, columns: int) -> Tensor:
        """Return the position embeddings of an image with this many patches, [1, width, rows, columns]."""
        positions = self.vilt.embeddings.position_embeddings[:, 1:]
        side = self.config.vision_config.image_size // self.config.vision_config.patch_size
        grid = positions.transpose(1, 2).unflatten(2, (side, side))
        if (rows, columns) == (side, side):
            return grid
        return functional.interpolate(grid, (rows, columns), mode="bilinear", align_corners=True)

    def _pool_words(self, lengths: list[int], normed: Tensor, words: list[int], tower: str, block: int) -> Tensor:
        """Return the mean of the words that each atom attends to, [inputs, atoms, width]."""
        if self.madtp is None:
            raise ValueError("a model without a dictionary pools nothing")
        index = segments.index_in_segment(lengths, normed.device)
        numbers = torch.tensor(words, device=normed.device)[segments.segment_ids(lengths, normed.device)]
        rows = segments.pad(normed[segments.rows_of(index < numbers, sum(words))], words)
        logits = rows @ self.madtp.folded(tower, block).to(rows.dtype)
        pooled = mag.pool(logits, rows, segments.real_rows(words, rows.device))
        return self.madtp.project_block(tower, block, pooled)


def classifier(width: int, inner: int, labels: int) -> nn.Sequential:
    """Return the head of transformers' classes."""
    return nn.Sequential(nn.Linear(width, inner), nn.LayerNorm(inner), nn.GELU(), nn.Linear(inner, labels))
