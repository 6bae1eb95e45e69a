"""BLIP-2 for image-text retrieval, on packed tokens: embeddings of images and texts, and a matching score of pairs.

The state-dict keys are those of transformers' Blip2ForImageTextRetrieval. That class computes either the embeddings or
the matching score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from madtp_cli.execution import gathering
from madtp_cli.execution.packed import Packed
from madtp_cli.execution.text_runs import OnTextRun, TextRun, ignore_text_run
from madtp_cli.models.blip2.towers import MadtpBlip2Config, PrunableBlip2
from madtp_cli.models.prunable import DistillationTargets, EmbeddingOutput, best_similarities, stack_states

#: Column of the matching head's logits for a matching pair.
MATCH = 1
#: Divisor of the similarities in the contrastive loss. transformers' folders do not have the learned one; training
#: begins with this one.
TEMPERATURE = 0.07


@dataclass
class Blip2RetrievalOutput(EmbeddingOutput):
    """Output of retrieval.

    `logits` are those of the matching head, None if there are not as many images as texts. `image_embedding` is
    normalised, [images, queries, width], and `text_embedding` too, [texts, width]. `logits_per_image` are the
    similarities [images, texts] of the most similar query of each image, under transformers' name.
    """

    logits_per_image: Tensor | None = None

    @property
    def logits_per_text(self) -> Tensor | None:
        """Similarities [texts, images], under transformers' name."""
        return None if self.logits_per_image is None else self.logits_per_image.t()


class MadtpBlip2ForImageTextRetrieval(PrunableBlip2):
    """BLIP-2 that finds texts for images and images for texts.

    Every query of an image has an embedding. The similarity of an image and a text is that of the most similar query.
    """

    TEXT_TOKENS = 35

    #: Whether `match` improves the ranking by embeddings.
    reranks: ClassVar[bool] = True

    def __init__(self, config: MadtpBlip2Config) -> None:
        super().__init__(config)
        width = config.text_config.hidden_size
        self.vision_projection = nn.Linear(width, config.image_text_hidden_size)
        self.text_projection = nn.Linear(width, config.image_text_hidden_size)
        self.itm_head = nn.Linear(width, 2)
        self.prepare()
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        return_targets: bool = False,
    ) -> Blip2RetrievalOutput:
        """Embed images and texts; match each image with its text, logits are [samples, 2] (no match, match).

        If there are not as many images as texts, as in zero-shot classification, nothing is matched.

        Args:
            pixel_values: [images, 3, height, width].
            input_ids: [texts, tokens], the first token [CLS].
            attention_mask: [texts, tokens], 0 at padding; None where there is no padding.
            labels: [samples], the number of the image of each text. Texts of one image are no negatives.
            token_type_ids: Not used; BERT's tokenizer returns them.
            return_targets: Whether to return distillation targets outside training too.
        """
        vision, text, queries = self.pruner("vision"), self.pruner("text"), self.unpruned("queries")
        states: list[Tensor] | None = [] if return_targets or self.training else None
        images = self.encode_images(pixel_values, vision)
        looked, texts = self.query(images, queries), self.encode_text(input_ids, attention_mask, text, states)
        embeddings = self._embed_queries(looked), functional.normalize(self.text_projection(texts.first()), dim=-1)
        output = Blip2RetrievalOutput(
            alignment=self.alignment_loss(vision.pooled, text.pooled),
            trace={"vision": vision.blocks, "text": text.blocks, "queries": queries.blocks},
            image_embedding=embeddings[0],
            text_embedding=embeddings[1],
            memory=images,
            logits_per_image=best_similarities(*embeddings),
        )
        if self.padded or len(images.lengths) == len(input_ids):
            pairs = self._add_match(output, images, input_ids, attention_mask, labels)
            words = stack_states(states, texts, text.blocks)
            output.targets = None if words is None else _targets(output, images, looked, (texts, words), pairs)
        return output

    def _add_match(
        self,
        output: Blip2RetrievalOutput,
        images: Packed,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        labels: Tensor | None,
    ) -> Tensor:
        """Add the matching logits and, with labels, the loss to an output; return the queries' states of each pair."""
        pair = self.unpruned("pair")
        pairs = self.query(images, pair, input_ids, attention_mask)
        output.logits = self.itm_head(pairs).mean(1)
        output.trace = {**(output.trace or {}), "pair": pair.blocks}
        if labels is not None and output.image_embedding is not None and output.text_embedding is not None:
            embeddings = output.image_embedding, output.text_embedding
            output.loss = self._loss(embeddings, output.logits, labels, images, input_ids, attention_mask)
        return pairs

    def embed_images(self, pixel_values: Tensor) -> tuple[Tensor, Packed]:
        """Return the normalised embeddings, [images, queries, width], and the image tokens for `match`.

        Args:
            pixel_values: [images, 3, height, width].
        """
        images = self.encode_images(pixel_values, self.pruner("vision"))
        return self._embed_queries(self.query(images, self.unpruned("queries"))), images

    def embed_texts(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the normalised embeddings, [texts, width].

        Args:
            input_ids: [texts, tokens], the first token [CLS].
            attention_mask: [texts, tokens], 0 at padding; None where there is no padding.
        """
        tokens = self.encode_text(input_ids, attention_mask, self.pruner("text"))
        return functional.normalize(self.text_projection(tokens.first()), dim=-1)

    def classify(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the similarity of each image and each text, [images, texts], as transformers' class ranks them."""
        images, _ = self.embed_images(pixel_values)
        return best_similarities(images, self.embed_texts(input_ids, attention_mask))

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
            input_ids: [texts, tokens], the first token [CLS].
            attention_mask: [texts, tokens], 0 at padding; None where there is no padding.
            texts: Number of texts of each image, those of the first image first. None for one text per image.
                The keys and values of an image are computed once for all its texts.
            on_text_run: Called with the run.
            log_odds: The score is the logit of a match, as BLIP-2 ranks, or its difference to the logit of no match.
        """
        pair, each = self.unpruned("pair"), [1] * len(images.lengths) if texts is None else list(texts)
        states = self.query(images, pair, input_ids, attention_mask, each)
        read_out = len(input_ids) * self.config.num_query_tokens
        on_text_run(TextRun(range(len(images.lengths)), each, pair.blocks, read_out=read_out))
        logits = self.itm_head(states).mean(1).float()
        return logits[:, MATCH] - logits[:, 1 - MATCH] if log_odds else logits[:, MATCH]

    def _embed_queries(self, states: Tensor) -> Tensor:
        return functional.normalize(self.vision_projection(states), dim=-1)

    def _loss(
        self,
        embeddings: tuple[Tensor, Tensor],
        logits: Tensor,
        labels: Tensor,
        images: Packed,
        input_ids: Tensor,
        attention_mask: Tensor | None,
    ) -> Tensor:
        """Contrastive loss plus matching loss, with the samples of all processes of a training.

        The matching loss is that of each sample's pair and of two pairs that do not match: its image with the most
        similar text of another image, and its text with the most similar other image. Source: BLIP-2, arXiv:2301.12597;
        the original draws the two at random by similarity.
        """
        similar = gathering.similarities(_similarity, *embeddings)
        same = labels[:, None] == gathering.gather_rows(labels)
        targets = same.float() / same.float().sum(1, keepdim=True)
        losses = [functional.cross_entropy(similarity / TEMPERATURE, targets) for similarity in similar]
        rows = (~same).any(1).nonzero()[:, 0]
        if len(rows):
            best = [similarity.detach().masked_fill(same, float("-inf")).argmax(1)[rows] for similarity in similar]
            own = rows + gathering.first_row(len(same), rows.device)
            image, text = torch.cat([own, best[1]]), torch.cat([best[0], own])
            mask = None if attention_mask is None else gathering.gather_padded(attention_mask)[text]
            chosen = gathering.gather_packed(images).select(image.tolist())
            states = self.query(chosen, self.unpruned("pair"), gathering.gather_padded(input_ids)[text], mask)
            logits = torch.cat([logits, self.itm_head(states).mean(1)])
        right = torch.full((len(logits),), 1 - MATCH, device=logits.device)
        right[: len(labels)] = MATCH
        return (losses[0] + losses[1]) / 2 + functional.cross_entropy(logits.float(), right)


def _similarity(images: Tensor, texts: Tensor) -> Tensor:
    return best_similarities(images.float(), texts.float())


def _targets(
    output: Blip2RetrievalOutput,
    images: Packed,
    queries: Tensor,
    text: tuple[Packed, Packed],
    pairs: Tensor,
) -> DistillationTargets:
    """Return the distillation targets; `text` are the last tokens and the states after each layer."""
    targets: dict[str, Tensor | Packed | None] = {
        "logits": output.logits,
        "embedding.image": output.image_embedding,
        "embedding.text": output.text_embedding,
        "state.image": queries,
        "state.text": text[0].first(),
        "state.pair": pairs,
        "tokens.vision": images,
        "words.text": text[1],
    }
    return {name: value for name, value in targets.items() if value is not None}


MODEL = MadtpBlip2ForImageTextRetrieval
