"""Retrieval: which of all texts belong to this image, and which of all images to this text?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import fsum
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import CLIPTokenizer

from madtp_cli.data.dataset import Row
from madtp_cli.data.pixels import pixel_values
from madtp_cli.execution.packed import Packed
from madtp_cli.execution.text_runs import OnTextRun, TextRun, ignore_text_run
from madtp_cli.metrics.retrieval import Ranks, rank
from madtp_cli.tasks import TaskResult, _texts

#: BLIP reads at most so many words of a caption; MADTP cleans CLIP's captions likewise.
MOST_WORDS = 30
#: And at most so many tokens, the first and the last among them; CLIP has so many positions.
BLIP_TOKENS, CLIP_TOKENS = 35, 77
#: Candidates of each query that a model which reranks looks at again; recall at 10 needs 10. BLIP looks at 256 on
#: COCO and at 128 on Flickr30k, which takes as many runs of the text encoder for each query.
K_TEST = 16
#: Pairs that are matched in one forward.
PAIRS_AT_ONCE = 256


def cleaned(caption: str) -> str:
    """A caption as BLIP was trained on it: lower case, without some marks, 30 words.

    >>> cleaned('A "Red" ring; two (or more)!')
    'a red ring two or more'
    """
    return _texts.cleaned(caption, MOST_WORDS)


@dataclass(frozen=True)
class Found:
    """What is kept of an image and its captions until a whole split was seen; on the CPU.

    `image` [width] and `texts` [captions, width] are normalised; `words` has each caption's tokens. Only a
    model that reranks needs `tokens` [image tokens, tower width] and their `sizes`; in float16 5,000 COCO
    images take 4.4 GB in a dense BLIP-base at 384 pixels, and the share of it that is left of their tokens
    in a pruned one.
    """

    image: Tensor
    texts: Tensor
    words: list[Tensor]
    tokens: Tensor | None = None
    sizes: Tensor | None = None


class Retrieval:
    """Images and their captions, each to be found by the other."""

    name = "retrieval"
    schema = "captions"
    title = "Image-text retrieval"
    pipeline_tag = "zero-shot-image-classification"
    metric = "mean recall"
    unit = "percent"
    shares, relative = False, False  # an image with more captions than the mean weighs more

    def __init__(self, k_test: int = K_TEST) -> None:
        self.k_test = k_test

    @property
    def answering(self) -> str:
        """How a query, an image or a text, is answered by a model that reranks."""
        return f"matching a query with its {self.k_test:,} most similar candidates, a pair once for both its queries"

    def choosing(self, k_test: int) -> Retrieval:
        """The task that matches so many candidates of each query."""
        return Retrieval(k_test)

    def collate(self, rows: Sequence[Row], processor: Any) -> dict[str, Tensor]:
        """Make the arguments of the model's forward, and all captions to be judged by.

        Returns:
            pixel_values [batch, 3, height, width]; input_ids and attention_mask [batch, tokens] of each row's
            own caption; labels [batch], the first row with the same image. judge.input_ids and
            judge.attention_mask [captions, tokens] of all captions, judge.samples [captions] whose they are.
        """
        captions = [row.references or (row.text,) for row in rows]
        every = _tokens([caption for those in captions for caption in those], processor.tokenizer)
        firsts: dict[Any, int] = {}
        return {
            "pixel_values": pixel_values([row.images[0] for row in rows], processor.image_processor),
            **_tokens([row.text for row in rows], processor.tokenizer),
            "labels": torch.tensor([firsts.setdefault(row.images, number) for number, row in enumerate(rows)]),
            **{f"judge.{name}": value for name, value in every.items()},
            "judge.samples": torch.tensor([number for number, those in enumerate(captions) for _ in those]),
        }

    def text_lengths(self, rows: Sequence[Row], processor: Any) -> dict[str, list[int]]:
        """Tokens of each row's own caption, the first and the last included."""
        return {"text": _tokens([row.text for row in rows], processor.tokenizer)["attention_mask"].sum(1).tolist()}

    def predictions(
        self, model: Any, output: Any, batch: dict[str, Tensor], on_text_run: OnTextRun = ignore_text_run
    ) -> list[Any]:
        """Each image and all its captions, embedded, as `Found`."""
        images, tokens = output.image_embedding, output.memory
        mask = batch["judge.attention_mask"]
        texts = model.embed_texts(batch["judge.input_ids"], mask).float().cpu()
        ids, real, owner = batch["judge.input_ids"].cpu(), mask.bool().cpu(), batch["judge.samples"].cpu()
        found = []
        for sample, image in enumerate(images.float().cpu()):
            own = (owner == sample).nonzero()[:, 0].tolist()
            kept = _kept(tokens.part(slice(sample, sample + 1))) if model.reranks else (None, None)
            found.append(Found(image, texts[own], [ids[text][real[text]] for text in own], *kept))
        return found

    def score(
        self, model: Any, predictions: list[Any], rows: Sequence[Row], on_text_run: OnTextRun = ignore_text_run
    ) -> TaskResult:
        """The best text of each image, then the best image of each text; scores are `Ranks.scores`, one per image."""
        texts_of, images_of = self.candidates(model, predictions, on_text_run)
        answers = [*texts_of.argmax(1).tolist(), *images_of.argmax(1).tolist()]
        if not rows:
            return TaskResult(answers, [], len(predictions))
        ranks = ranked(predictions, texts_of, images_of)
        parts = {name: 100 * share for name, share in ranks.recalls().items() if "@" in name}
        return TaskResult(answers, ranks.scores(), parts=parts)

    def candidates(
        self, model: Any, predictions: Sequence[Found], on_text_run: OnTextRun = ignore_text_run
    ) -> tuple[Tensor, Tensor]:
        """Scores of all texts for each image [images, texts], and of all images for each text [texts, images].

        A pair's score is the similarity of its embeddings; where the model reranks the log-odds of a match are
        added, and pairs that are not among a query's best `k_test` have -inf. No score depends on other pairs.
        """
        images, texts = torch.stack([one.image for one in predictions]), torch.cat([one.texts for one in predictions])
        with torch.autocast("cpu", enabled=False):  # ranks want more than the eleven bits of half precision
            similar = images @ texts.T
        if not model.reranks:
            return similar, similar.T
        by_image, by_text = self._best(similar), self._best(similar.T).T
        pairs = (by_image | by_text).nonzero()
        scores = torch.full_like(similar, float("-inf"))
        scores[pairs[:, 0], pairs[:, 1]] = similar[pairs[:, 0], pairs[:, 1]] + _matched(
            model, predictions, pairs, on_text_run
        )
        return scores.masked_fill(~by_image, float("-inf")), scores.masked_fill(~by_text, float("-inf")).T

    def quality(self, scores: Sequence[float]) -> float:
        """Mean of recall at 1, 5 and 10 in both directions, in percent."""
        return 100 * fsum(scores) / len(scores)

    def _best(self, similar: Tensor) -> Tensor:
        """Which columns are among each row's most similar, at most `k_test`, bool."""
        best = similar.topk(min(self.k_test, similar.shape[1]), 1).indices
        return torch.zeros_like(similar, dtype=torch.bool).scatter_(1, best, value=True)


def ranked(predictions: Sequence[Found], texts_of: Tensor, images_of: Tensor) -> Ranks:
    """Where the right candidates stand among the `candidates`."""
    return rank(texts_of.numpy(), _owners(predictions), images_of.numpy())


def _owners(predictions: Sequence[Found]) -> list[int]:
    """The image of each text."""
    return [number for number, one in enumerate(predictions) for _ in one.words]


def _kept(tokens: Packed) -> tuple[Tensor, Tensor | None]:
    """One image's tokens, half as large, and their sizes."""
    return tokens.data.half().cpu(), None if tokens.sizes is None else tokens.sizes.cpu()


def _matched(model: Any, predictions: Sequence[Found], pairs: Tensor, on_text_run: OnTextRun) -> Tensor:
    """The model's judgement of pairs [pairs, 2] of an image and a text, sorted by image, [pairs]."""
    words = [text for one in predictions for text in one.words]
    own = next(model.parameters())
    result = []
    for some in pairs.split(PAIRS_AT_ONCE):
        images, texts = some[:, 0].unique_consecutive(return_counts=True)
        tokens = _joined([predictions[image] for image in images.tolist()], own)
        asked = [words[text] for text in some[:, 1].tolist()]
        ids = pad_sequence(asked, batch_first=True).to(own.device)
        mask = pad_sequence([torch.ones_like(text) for text in asked], batch_first=True).to(own.device)
        numbered = _numbered(on_text_run, images.tolist())
        result.append(model.match(tokens, ids, mask, texts.tolist(), numbered).float().cpu())
    return torch.cat(result)


def _numbered(on_text_run: OnTextRun, images: Sequence[int]) -> OnTextRun:
    """Tells of runs over some images by their numbers in the split."""

    def hear(read: TextRun) -> None:
        on_text_run(replace(read, samples=[images[sample] for sample in read.samples]))

    return hear


def _joined(found: Sequence[Found], like: Tensor) -> Packed:
    """The images' tokens in one batch, where and in the number format in which the model has its weights."""
    # Each by itself: autocast on a CPU refuses to join what is in float16.
    parts = [one.tokens.to(like.device, like.dtype) for one in found if one.tokens is not None]
    sizes = [one.sizes for one in found if one.sizes is not None]
    return Packed(torch.cat(parts), [len(part) for part in parts], torch.cat(sizes).to(like.device) if sizes else None)


def _tokens(captions: Sequence[str], tokenizer: Any) -> dict[str, Tensor]:
    """[CLS] or CLIP's start first, [SEP] or its end last, padded to the longest."""
    own = CLIP_TOKENS if isinstance(tokenizer, CLIPTokenizer) else BLIP_TOKENS
    encoded = tokenizer(
        [cleaned(caption) for caption in captions],
        padding=True,
        truncation=True,
        max_length=min(own, tokenizer.model_max_length),
        return_tensors="pt",
    )
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


TASK = Retrieval()
