"""BLIP for image-text retrieval, run on packed tokens: embeddings of each, and a match of both.

The keys are those of transformers' BlipForImageTextRetrieval, which leaves to its caller to begin a text that is
matched with [ENC], and computes either the embeddings or the match.
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

from madtp_cli.execution.block_pruner import BlockPruner
from madtp_cli.execution.packed import Packed
from madtp_cli.execution.text_runs import OnTextRun, TextRun, ignore_text_run
from madtp_cli.models.blip.towers import Look, MadtpBlipConfig, PrunableBlip
from madtp_cli.models.prunable import DistillationTargets, PrunedOutput, layered
from madtp_cli.pruning import segments

#: Column of the matching head that says yes.
MATCH = 1


@dataclass
class RetrievalOutput(PrunedOutput):
    """Beside the matching logits both embeddings, normalised, [samples, width], and the image tokens for `match`."""

    image_embedding: Tensor | None = None
    text_embedding: Tensor | None = None
    memory: Packed | None = None


class MadtpBlipForImageTextRetrieval(PrunableBlip):
    """BLIP that finds texts for images and images for texts; prunes where its config has `madtp`.

    A text is read twice: alone, beginning with [CLS], for its embedding ("text" in the trace), and looking at an
    image, beginning with [ENC], for their match ("pair").
    """

    TEXT_TOKENS = 35

    SHARED_TOWERS: ClassVar[dict[str, str]] = {"pair": "text"}
    #: Whether `match` can say more about a pair than its embeddings do.
    reranks: ClassVar[bool] = True

    def __init__(self, config: MadtpBlipConfig) -> None:
        super().__init__(config)
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
        """By which similarities are divided in the contrastive loss; kept as transformers keeps CLIP's."""
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
        """Embed each image and its text, and match the two; logits are [samples, 2] (other, match).

        Args:
            pixel_values: [samples, 3, height, width].
            input_ids: [samples, tokens], the first token [CLS].
            attention_mask: [samples, tokens], 0 at padding; None where there is none.
            labels: [samples], the number of the image that each text belongs to; several texts
                of one image are then no negatives of each other.
            teach: Also give the lesson, as in training.
        """
        vision, text, pair = self.pruner("vision"), self.pruner("text"), self._pair_pruner()
        alone: list[Tensor] | None = [] if return_targets or self.training else None
        looked: list[Tensor] | None = [] if return_targets or self.training else None
        images = self.encode_images(pixel_values, vision)
        tokens = self.encode_text(self.text_encoder, input_ids, attention_mask, text, states=alone)
        matched = self._looking(images, input_ids, attention_mask, pair, self.looking_at(images), looked)
        embedded = self._embedded_images(images), self._embedded_texts(tokens)
        logits = self.itm_head(matched.first())
        loss = None
        if labels is not None:
            similar = embedded[0].float() @ embedded[1].float().T
            loss = self._contrast(similar, labels) + self._matching(
                similar, logits, labels, images, input_ids, attention_mask
            )
        output = RetrievalOutput(
            loss=loss,
            logits=logits,
            alignment=self.aligned(vision.pooled, text.pooled),
            trace={"vision": vision.blocks, "text": text.blocks, "pair": pair.blocks},
            image_embedding=embedded[0],
            text_embedding=embedded[1],
            memory=images,
        )
        if alone is not None and looked is not None:
            output.targets = _lesson(output, images, (tokens, alone), (matched, looked))
        return output

    def embed_images(self, pixel_values: Tensor) -> tuple[Tensor, Packed]:
        """Normalised embeddings [images, width] of [images, 3, height, width], and the tokens for `match`."""
        images = self.encode_images(pixel_values, self.pruner("vision"))
        return self._embedded_images(images), images

    def embed_texts(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Normalised embeddings [texts, width] of [texts, tokens], the first token [CLS]."""
        return self._embedded_texts(self.encode_text(self.text_encoder, input_ids, attention_mask, self.pruner("text")))

    def match(
        self,
        images: Packed,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        texts: Sequence[int] | None = None,
        on_text_run: OnTextRun = ignore_text_run,
    ) -> Tensor:
        """How much each text matches its image: the log-odds, [texts].

        Args:
            images: Tokens from `embed_images`.
            input_ids: [texts, tokens]; the first token may be [CLS], it is read as [ENC].
            attention_mask: [texts, tokens], 0 at padding; None where there is none.
            texts: How many texts belong to each image, those of the first image first; one each if None.
                An image's keys and values, two thirds of a dense pair's cost, are then computed once.
            heard: Told of the run.
        """
        look, pruner = self.looking_at(images), self._pair_pruner()
        if texts is None:
            texts = [1] * len(images.lengths)
        else:
            look = self._looking_at_shared(images, texts)
        tokens = self._looking(images, input_ids, attention_mask, pruner, look)
        on_text_run(TextRun(range(len(images.lengths)), texts, pruner.blocks, read_out=len(input_ids)))
        logits = self.itm_head(tokens.first()).float()
        return logits[:, MATCH] - logits[:, 1 - MATCH]

    def _embedded_images(self, images: Packed) -> Tensor:
        return functional.normalize(self.vision_proj(images.first()), dim=-1)

    def _embedded_texts(self, tokens: Packed) -> Tensor:
        return functional.normalize(self.text_proj(tokens.first()), dim=-1)

    def _pair_pruner(self) -> BlockPruner:
        """A text that looks at an image is pruned as one alone, but MAG aligns what a text says by itself."""
        pruner = self.pruner(self.SHARED_TOWERS["pair"])
        pruner.pooling = False
        return pruner

    def _looking(
        self,
        images: Packed,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        pruner: BlockPruner,
        look: Look,
        states: list[Tensor] | None = None,
    ) -> Packed:
        """Text tokens after looking at their images, the first one [ENC], the last of BLIP's words."""
        first = input_ids.new_full((input_ids.shape[0], 1), self.config.text_config.vocab_size - 1)
        words = torch.cat([first, input_ids[:, 1:]], 1)
        return self.encode_text(self.text_encoder, words, attention_mask, pruner, look, states)

    def _looking_at_shared(self, images: Packed, texts: Sequence[int]) -> Look:
        """Cross-attention of each image's texts, which lie together and so can ask as one."""
        look, rows = self.looking_at(images), segments.offsets(texts)

        def shared(layer: Any, tokens: Packed) -> Tensor:
            spans = [sum(tokens.lengths[start:stop]) for start, stop in itertools.pairwise(rows)]
            return look(layer, Packed(tokens.data, spans))

        return shared

    def _contrast(self, similar: Tensor, labels: Tensor) -> Tensor:
        """Image-text contrastive loss within the batch, both directions; no momentum encoder, no queue."""
        same = (labels[:, None] == labels).float()
        targets, logits = same / same.sum(1, keepdim=True), similar / self.temperature
        return (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)) / 2

    def _matching(
        self,
        similar: Tensor,
        logits: Tensor,
        labels: Tensor,
        images: Packed,
        input_ids: Tensor,
        attention_mask: Tensor | None,
    ) -> Tensor:
        """Image-text matching loss: each sample's own pair, its image with the most similar text of another image,
        and its text with the most similar other image.

        The original draws the two by similarity; ours is what it draws most often, so that runs repeat.
        """
        wrong = labels[:, None] != labels
        rows = wrong.any(1).nonzero()[:, 0]
        if not len(rows):
            return functional.cross_entropy(logits.float(), torch.full_like(labels, MATCH))
        others = similar.detach().masked_fill(~wrong, float("-inf"))
        image = torch.cat([rows, others.argmax(0)[rows]])
        text = torch.cat([others.argmax(1)[rows], rows])
        seen, mask = _taken(images, image.tolist()), None if attention_mask is None else attention_mask[text]
        tokens = self._looking(seen, input_ids[text], mask, self._pair_pruner(), self.looking_at(seen))
        judged = torch.cat([logits, self.itm_head(tokens.first())]).float()
        truths = torch.full((len(judged),), 1 - MATCH, device=judged.device)
        truths[: len(logits)] = MATCH
        return functional.cross_entropy(judged, truths)


def _lesson(
    output: RetrievalOutput, images: Packed, text: tuple[Packed, list[Tensor]], pair: tuple[Packed, list[Tensor]]
) -> DistillationTargets:
    """Of a text, and of a text looking at its image, the last tokens and the states after each layer."""
    targets: dict[str, Tensor | Packed | None] = {
        "logits": output.logits,
        "embedding.image": output.image_embedding,
        "embedding.text": output.text_embedding,
        "state.image": images.first(),
        "state.text": text[0].first(),
        "state.pair": pair[0].first(),
        "tokens.vision": images,
        "words.text": layered(text[1], text[0]),
        "words.pair": layered(pair[1], pair[0]),
    }
    return {name: value for name, value in targets.items() if value is not None}


def _taken(tokens: Packed, samples: Sequence[int]) -> Packed:
    """Some samples in any order, each as often as it is named."""
    parts = [tokens.part(slice(sample, sample + 1)) for sample in samples]
    sizes = None if tokens.sizes is None else torch.cat([part.sizes for part in parts if part.sizes is not None])
    return Packed(torch.cat([part.data for part in parts]), [part.lengths[0] for part in parts], sizes, tokens.exact)


MODEL = MadtpBlipForImageTextRetrieval
