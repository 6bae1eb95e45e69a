"""BLIP for image-text retrieval, on packed tokens: embeddings of images and texts, and a matching score of pairs.

The state-dict keys are those of transformers' BlipForImageTextRetrieval. That class expects the caller to begin a text
for matching with the token of its training, and computes either the embeddings or the matching score.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BlipTextModel, BlipVisionModel

from madtp_cli.execution import gathering
from madtp_cli.execution.block_pruner import BlockPruner
from madtp_cli.execution.packed import Packed
from madtp_cli.execution.text_runs import OnTextRun, TextRun, ignore_text_run
from madtp_cli.models.blip.towers import CrossAttention, MadtpBlipConfig, PrunableBlip
from madtp_cli.models.prunable import DistillationTargets, EmbeddingOutput, stack_states
from madtp_cli.pruning import segments

#: Column of the matching head's logits for a matching pair.
MATCH = 1
#: Values of `match_token` in the configuration. [ENC] is BLIP's last word piece; the tokenizer writes [CLS].
ENC, CLS = "enc", "cls"


@dataclass
class RetrievalOutput(EmbeddingOutput):
    """Output of retrieval.

    `logits` are those of the matching head. `image_embedding` and `text_embedding` are normalised, [samples, width].
    `memory` holds the image tokens that `match` takes.
    """


class MadtpBlipForImageTextRetrieval(PrunableBlip):
    """BLIP that finds texts for images and images for texts.

    The text encoder runs twice on a text. Without an image and with [CLS] first, it gives the text's embedding ("text"
    in the trace). With cross-attention to an image and the configuration's `match_token` first, it gives the matching
    score ("pair" in the trace).
    """

    TEXT_TOKENS = 35

    SHARED_TOWERS: ClassVar[dict[str, str]] = {"pair": "text"}
    #: Whether `match` improves the ranking by embeddings.
    reranks: ClassVar[bool] = True

    def __init__(self, config: MadtpBlipConfig) -> None:
        super().__init__(config)
        if config.match_token not in (ENC, CLS):
            raise ValueError(f"match_token is {config.match_token!r}, and must be {ENC!r} or {CLS!r}")
        vision, text, width = config.vision_config, config.text_config, config.image_text_hidden_size
        self.vision_model = BlipVisionModel(vision)
        self.text_encoder = BlipTextModel(text, add_pooling_layer=False)
        self.vision_proj = nn.Linear(vision.hidden_size, width)
        self.text_proj = nn.Linear(text.hidden_size, width)
        self.itm_head = nn.Linear(text.hidden_size, 2)
        self.prepare()
        self.post_init()

    @property
    def temperature(self) -> float:
        """Divisor of the similarities in the contrastive loss. The configuration stores it as CLIP's logit scale."""
        return math.exp(-self.config.logit_scale_init_value)

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        return_targets: bool = False,
    ) -> RetrievalOutput:
        """Embed each image and its text, and match the two; logits are [samples, 2] (no match, match).

        Args:
            pixel_values: [samples, 3, height, width].
            input_ids: [samples, tokens], the first token [CLS].
            attention_mask: [samples, tokens], 0 at padding; None where there is no padding.
            labels: [samples], the number of the image that each text belongs to. Texts of one image are not
                negatives of each other.
            return_targets: Whether to return distillation targets outside training too.
        """
        vision, text, pair = self.pruner("vision"), self.pruner("text"), self._pair_pruner()
        states: tuple[list[Tensor] | None, ...] = ([], []) if return_targets or self.training else (None, None)
        images = self.encode_images(pixel_values, vision)
        texts = self.encode_text(self.text_encoder, input_ids, attention_mask, text, states=states[0])
        cross_attention = self.cross_attention_to(images)
        pairs = self._encode_pairs(input_ids, attention_mask, pair, cross_attention, states[1])
        embeddings = self._embed_image_tokens(images), self._embed_text_tokens(texts)
        logits = self.itm_head(pairs.first())
        output = RetrievalOutput(
            loss=None if labels is None else self._loss(embeddings, logits, labels, images, input_ids, attention_mask),
            logits=logits,
            alignment=self.alignment_loss(vision.pooled, text.pooled),
            trace={"vision": vision.blocks, "text": text.blocks, "pair": pair.blocks},
            image_embedding=embeddings[0],
            text_embedding=embeddings[1],
            memory=images,
        )
        words = stack_states(states[0], texts, text.blocks), stack_states(states[1], pairs, pair.blocks)
        if words[0] is not None and words[1] is not None:
            output.targets = _targets(output, images, (texts, words[0]), (pairs, words[1]))
        return output

    def embed_images(self, pixel_values: Tensor) -> tuple[Tensor, Packed]:
        """Return the normalised embeddings, [images, width], and the image tokens for `match`.

        Args:
            pixel_values: [images, 3, height, width].
        """
        images = self.encode_images(pixel_values, self.pruner("vision"))
        return self._embed_image_tokens(images), images

    def embed_texts(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the normalised embeddings, [texts, width].

        Args:
            input_ids: [texts, tokens], the first token [CLS].
            attention_mask: [texts, tokens], 0 at padding; None where there is no padding.
        """
        tokens = self.encode_text(self.text_encoder, input_ids, attention_mask, self.pruner("text"))
        return self._embed_text_tokens(tokens)

    def match(
        self,
        images: Packed,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        texts: Sequence[int] | None = None,
        on_text_run: OnTextRun = ignore_text_run,
        *,
        log_odds: bool = False,
    ) -> Tensor:
        """Return the matching score of each text and its image, [texts].

        Args:
            images: Tokens from `embed_images`.
            input_ids: [texts, tokens], the first token [CLS]; it becomes [ENC] if `match_token` is "enc".
            attention_mask: [texts, tokens], 0 at padding; None where there is no padding.
            texts: Number of texts of each image, those of the first image first. None for one text per image.
                The keys and values of an image, two thirds of a dense pair's cost, are computed once for all its texts.
            on_text_run: Called with the run.
            log_odds: The score is the logit of a match, as BLIP and MADTP rank, or its difference to the logit of no
                match.
        """
        cross_attention, pruner = self.cross_attention_to(images), self._pair_pruner()
        if texts is None:
            texts = [1] * len(images.lengths)
        else:
            cross_attention = self._cross_attention_per_image(images, texts)
        tokens = self._encode_pairs(input_ids, attention_mask, pruner, cross_attention)
        on_text_run(TextRun(range(len(images.lengths)), texts, pruner.blocks, read_out=len(input_ids)))
        logits = self.itm_head(tokens.first()).float()
        return logits[:, MATCH] - logits[:, 1 - MATCH] if log_odds else logits[:, MATCH]

    def _embed_image_tokens(self, images: Packed) -> Tensor:
        return functional.normalize(self.vision_proj(images.first()), dim=-1)

    def _embed_text_tokens(self, tokens: Packed) -> Tensor:
        return functional.normalize(self.text_proj(tokens.first()), dim=-1)

    def _pair_pruner(self) -> BlockPruner:
        """Return the pruner of a text with cross-attention: as for a text without an image, but not pooled for MAG."""
        pruner = self.pruner(self.SHARED_TOWERS["pair"])
        pruner.pooling = False
        return pruner

    def _encode_pairs(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        pruner: BlockPruner,
        cross_attention: CrossAttention,
        states: list[Tensor] | None = None,
    ) -> Packed:
        """Run the text encoder with cross-attention, with the first token that the configuration states."""
        if self.config.match_token == ENC:
            first = input_ids.new_full((input_ids.shape[0], 1), self.config.text_config.vocab_size - 1)
            input_ids = torch.cat([first, input_ids[:, 1:]], 1)
        return self.encode_text(self.text_encoder, input_ids, attention_mask, pruner, cross_attention, states)

    def _cross_attention_per_image(self, images: Packed, texts: Sequence[int]) -> CrossAttention:
        """Let the texts of one image, which are neighbours, attend as one segment."""
        cross_attention, rows = self.cross_attention_to(images), segments.offsets(texts)

        def cross_attend(layer: Any, tokens: Packed) -> Tensor:
            lengths = [sum(tokens.lengths[start:stop]) for start, stop in itertools.pairwise(rows)]
            return cross_attention(layer, Packed(tokens.data, lengths))

        return cross_attend

    def _loss(
        self,
        embeddings: tuple[Tensor, Tensor],
        logits: Tensor,
        labels: Tensor,
        images: Packed,
        input_ids: Tensor,
        attention_mask: Tensor | None,
    ) -> Tensor:
        """Contrastive loss plus matching loss, with the samples of all processes of a training."""
        similar = gathering.similarities(_similarity, *embeddings)
        same = labels[:, None] == gathering.gather_rows(labels)
        matching = self._matching_loss(similar, logits, ~same, images, input_ids, attention_mask)
        return self._contrastive_loss(similar, same) + matching

    def _contrastive_loss(self, similar: tuple[Tensor, Tensor], same: Tensor) -> Tensor:
        """Image-text contrastive loss of the batch in both directions, without momentum encoder and queue."""
        targets = same.float() / same.float().sum(1, keepdim=True)
        losses = [functional.cross_entropy(similarity / self.temperature, targets) for similarity in similar]
        return (losses[0] + losses[1]) / 2

    def _matching_loss(
        self,
        similar: tuple[Tensor, Tensor],
        logits: Tensor,
        wrong: Tensor,
        images: Packed,
        input_ids: Tensor,
        attention_mask: Tensor | None,
    ) -> Tensor:
        """Image-text matching loss of each sample's pair and of two pairs that do not match.

        These are its image with the most similar text of another image, and its text with the most similar other image.
        The original code draws the two at random by similarity. Taking the most similar makes runs reproducible.
        """
        rows = wrong.any(1).nonzero()[:, 0]
        if not len(rows):
            return functional.cross_entropy(logits.float(), torch.full_like(input_ids[:, 0], MATCH))
        best = [similarity.detach().masked_fill(~wrong, float("-inf")).argmax(1)[rows] for similarity in similar]
        own = rows + gathering.first_row(len(wrong), rows.device)
        image, text = torch.cat([own, best[1]]), torch.cat([best[0], own])
        mask = None if attention_mask is None else gathering.gather_padded(attention_mask)[text]
        cross_attention = self.cross_attention_to(gathering.gather_packed(images).select(image.tolist()))
        input_ids = gathering.gather_padded(input_ids)[text]
        tokens = self._encode_pairs(input_ids, mask, self._pair_pruner(), cross_attention)
        all_logits = torch.cat([logits, self.itm_head(tokens.first())]).float()
        targets = torch.full((len(all_logits),), 1 - MATCH, device=all_logits.device)
        targets[: len(logits)] = MATCH
        return functional.cross_entropy(all_logits, targets)


def _similarity(images: Tensor, texts: Tensor) -> Tensor:
    return images.float() @ texts.float().T


def _targets(
    output: RetrievalOutput, images: Packed, text: tuple[Packed, Packed], pair: tuple[Packed, Packed]
) -> DistillationTargets:
    """Return the distillation targets; `text` and `pair` are the last tokens and the states after each layer."""
    targets: dict[str, Tensor | Packed | None] = {
        "logits": output.logits,
        "embedding.image": output.image_embedding,
        "embedding.text": output.text_embedding,
        "state.image": images.first(),
        "state.text": text[0].first(),
        "state.pair": pair[0].first(),
        "tokens.vision": images,
        "words.text": text[1],
        "words.pair": pair[1],
    }
    return {name: value for name, value in targets.items() if value is not None}


MODEL = MadtpBlipForImageTextRetrieval
