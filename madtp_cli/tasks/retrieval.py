"""Retrieval: find the texts that belong to an image, and the image that belongs to a text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import fsum
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from madtp_cli.config import choices
from madtp_cli.data.dataset import Row
from madtp_cli.data.pixels import pixel_values
from madtp_cli.execution.packed import Packed
from madtp_cli.execution.text_runs import OnTextRun, TextRun, ignore_text_run
from madtp_cli.metrics.retrieval import Ranks, rank
from madtp_cli.models.prunable import best_similarities
from madtp_cli.tasks import TaskResult
from madtp_cli.tasks._kept_tokens import KEPT
from madtp_cli.tasks._texts import TextKind, with_spaces

#: Captions as BLIP was trained on them; MADTP cleans CLIP's captions in the same way. How much of a caption is read
#: depends on the family.
CAPTION = TextKind("retrieval", with_spaces)
#: Candidates of each query that a model with re-ranking scores in full; recall at 10 needs 10. BLIP uses 256 on COCO
#: and 128 on Flickr30k. Each candidate is a run of the text tower.
K_TEST = 16
#: Scores of a match that rank pairs.
LOGIT, LOG_ODDS = choices.of("match_score")
#: Pairs that are matched in one forward pass.
PAIRS_AT_ONCE = 256
#: Texts that are embedded in one forward pass.
TEXTS_AT_ONCE = 64


@dataclass(frozen=True)
class EmbeddedSample:
    """An image and its captions until all samples of a split are there; all tensors are on the CPU.

    The tokens have the number format in which the model computed them, so that matching them later gives the same
    score. Those of 5,000 COCO images take 8.9 GB in float32 in a dense BLIP-base at 384 pixels, less in a pruned one;
    from a limit on they are in temporary files, see `_kept_tokens`.

    Attributes:
        image: Normalised embedding of the image, [width], or several of them, [embeddings, width].
        texts: Normalised embeddings of its captions, [captions, width].
        words: Token ids of each caption.
        tokens: The image's last tokens, [tokens, tower width]; None for a model without re-ranking.
        sizes: How many patches each token stands for; None if the model does not record it.
    """

    image: Tensor
    texts: Tensor
    words: list[Tensor]
    tokens: Tensor | None = None
    sizes: Tensor | None = None


class Retrieval:
    """Find texts by an image and images by a text."""

    name = "retrieval"
    schema = "captions"
    title = "Image-text retrieval"
    #: Code for the model card. SigLIP needs the padding, and a BLIP-2 has several embeddings of an image.
    example = (
        'inputs = processor(images=Image.open("image.png"), text=["a dog", "a cat"],\n'
        '                   padding="max_length", truncation=True, return_tensors="pt")\n'
        'images, _ = model.embed_images(inputs["pixel_values"])\n'
        'texts = model.embed_texts(inputs["input_ids"], inputs.get("attention_mask"))\n'
        "print((images.view(len(images), -1, texts.shape[1]) @ texts.T).amax(1))  # [images, texts]"
    )
    pipeline_tag = "zero-shot-image-classification"
    metric = "mean recall"
    unit = "percent"
    shares, relative = False, False  # the score of an image with more captions than the mean can be above 1

    def __init__(self, k_test: int = K_TEST, match_score: str = LOGIT) -> None:
        self.k_test, self.match_score = k_test, match_score

    @property
    def generation_cost_description(self) -> str:
        """How a model with re-ranking answers a query, which is an image or a text."""
        return (
            f"matching a query with its {self.k_test:,} most similar candidates, each pair once for both directions; "
            f"a pair's score is its similarity plus the {self.match_score} of a match"
        )

    def with_candidates(self, k_test: int) -> Retrieval:
        """Return the task that matches `k_test` candidates of each query."""
        return Retrieval(k_test, self.match_score)

    def with_match_score(self, match_score: str) -> Retrieval:
        """Return the task that adds this score of a match, "logit" or "log-odds", to the similarity of a pair."""
        return Retrieval(self.k_test, match_score)

    def text_embeddings(
        self, model: Any, rows: Sequence[Row], processor: Any, on_rows: Callable[[int], None]
    ) -> Tensor:
        """Return the normalised embedding of the text of each row, [rows, width], on the CPU."""
        parts = []
        for start in range(0, len(rows), TEXTS_AT_ONCE):
            encoded = CAPTION.encode([row.text for row in rows[start : start + TEXTS_AT_ONCE]], processor)
            words, mask = (encoded[name].to(model.device) for name in ("input_ids", "attention_mask"))
            parts.append(model.embed_texts(words, mask).float().cpu())
            on_rows(min(start + TEXTS_AT_ONCE, len(rows)))
        return torch.cat(parts)

    def collate(self, rows: Sequence[Row], processor: Any) -> dict[str, Tensor]:
        """Return the inputs of a forward pass, and all captions of the rows.

        Returns:
            pixel_values [batch, 3, height, width]; input_ids and attention_mask [batch, tokens] of the caption in
            `Row.text`; labels [batch], a number for each image. captions.input_ids and
            captions.attention_mask [captions, tokens] of all captions, captions.sample [captions], the row of each.
        """
        captions = [row.references or (row.text,) for row in rows]
        encoded = CAPTION.encode([caption for of_row in captions for caption in of_row], processor)
        return {
            "pixel_values": pixel_values([row.images[0] for row in rows], processor.image_processor),
            **CAPTION.encode([row.text for row in rows], processor),
            "labels": torch.tensor([_number_of(row.images[0]) for row in rows]),
            **{f"captions.{name}": value for name, value in encoded.items()},
            "captions.sample": torch.tensor([number for number, of_row in enumerate(captions) for _ in of_row]),
        }

    def text_lengths(self, rows: Sequence[Row], processor: Any) -> dict[str, list[int]]:
        """Return the tokens of the caption in `Row.text`, the first and the last included."""
        return {"text": CAPTION.encode([row.text for row in rows], processor)["attention_mask"].sum(1).tolist()}

    def texts(self, rows: Sequence[Row]) -> dict[TextKind, list[str]]:
        """Return all captions."""
        return {CAPTION: [caption for row in rows for caption in row.references or (row.text,)]}

    def predict(
        self, model: Any, output: Any, batch: dict[str, Tensor], on_text_run: OnTextRun = ignore_text_run
    ) -> list[Any]:
        """Return each image and all its captions as an `EmbeddedSample`."""
        images, tokens = output.image_embedding, output.memory
        mask = batch["captions.attention_mask"]
        texts = model.embed_texts(batch["captions.input_ids"], mask).float().cpu()
        ids, real = batch["captions.input_ids"].cpu(), mask.bool().cpu()
        kept = _kept(tokens) if model.reranks else [(None, None)] * len(images)
        samples = []
        for sample, image in enumerate(images.float().cpu()):
            captions = (batch["captions.sample"].cpu() == sample).nonzero()[:, 0].tolist()
            words = [ids[caption][real[caption]] for caption in captions]
            samples.append(EmbeddedSample(image, texts[captions], words, *kept[sample]))
        return samples

    def score(
        self, model: Any, predictions: list[Any], rows: Sequence[Row], on_text_run: OnTextRun = ignore_text_run
    ) -> TaskResult:
        """Return the best text of each image, then the best image of each text; the scores are `Ranks.scores`."""
        texts_by_image, images_by_text = self.candidates(model, predictions, on_text_run)
        answers = [*texts_by_image.argmax(1).tolist(), *images_by_text.argmax(1).tolist()]
        samples = [*range(len(predictions)), *_image_of_text(predictions)]
        if not rows:
            return TaskResult(answers, [], len(predictions), answer_samples=samples)
        ranks = ranked(predictions, texts_by_image, images_by_text)
        parts = {name: 100 * share for name, share in ranks.recalls().items() if "@" in name}
        return TaskResult(answers, ranks.scores(), parts=parts, answer_samples=samples)

    def candidates(
        self, model: Any, predictions: Sequence[EmbeddedSample], on_text_run: OnTextRun = ignore_text_run
    ) -> tuple[Tensor, Tensor]:
        """Return the scores of all texts by image [images, texts], and of all images by text [texts, images].

        The score of a pair is the similarity of its embeddings. A model with re-ranking adds the score of a match,
        and a pair that is not among the best `k_test` of a query has -inf. The score of a pair does not depend on
        other pairs.
        """
        similar = _similarities(predictions)
        if not model.reranks:
            return similar, similar.T
        by_image, by_text = self._best(similar), self._best(similar.T).T
        pairs = (by_image | by_text).nonzero()
        scores = torch.full_like(similar, float("-inf"))
        matches = _match(model, predictions, pairs, self.match_score == LOG_ODDS, on_text_run)
        KEPT.release()
        scores[pairs[:, 0], pairs[:, 1]] = similar[pairs[:, 0], pairs[:, 1]] + matches
        return scores.masked_fill(~by_image, float("-inf")), scores.masked_fill(~by_text, float("-inf")).T

    def describe(self, prediction: Any, texts: Sequence[str]) -> str:
        """Return the text that the image of a sample finds; its number if the texts are not known."""
        best = prediction[0] if isinstance(prediction, list) else prediction
        return texts[best] if best < len(texts) else f"text {best}"

    def compare(self, model: Any, predictions: list[Any], texts: Sequence[str]) -> str:
        """Return the best of the texts for the image, with its similarity."""
        scores = self.candidates(model, predictions)[0][0]
        best = int(scores.argmax())
        return f"{texts[best]} (similarity {float(scores[best]):.3f})"

    def pairs_to_match(self, model: Any, predictions: Sequence[EmbeddedSample]) -> int:
        """Return the number of pairs that are among the best candidates of their image or of their text."""
        if not model.reranks:
            return 0
        similar = _similarities(predictions)
        return int((self._best(similar) | self._best(similar.T).T).sum())

    def most_pairs(self, rows: Sequence[Row]) -> int:
        """Return the number of candidates of all queries; a pair that two queries have in common counts twice."""
        images, texts = len(rows), sum(len(row.references or (row.text,)) for row in rows)
        return images * min(self.k_test, texts) + texts * min(self.k_test, images)

    def quality(self, scores: Sequence[float]) -> float:
        """Return the mean of recall at 1, 5 and 10 in both directions, in percent."""
        return 100 * fsum(scores) / len(scores)

    def _best(self, similar: Tensor) -> Tensor:
        """Return a mask of the most similar columns of each row, at most `k_test`."""
        best = similar.topk(min(self.k_test, similar.shape[1]), 1).indices
        return torch.zeros_like(similar, dtype=torch.bool).scatter_(1, best, value=True)


def _similarities(predictions: Sequence[EmbeddedSample]) -> Tensor:
    """Return the similarity of all pairs, [images, texts]."""
    images = torch.stack([sample.image for sample in predictions])
    texts = torch.cat([sample.texts for sample in predictions])
    with torch.autocast("cpu", enabled=False):  # half precision has too few bits to rank
        return best_similarities(images, texts)


def ranked(predictions: Sequence[EmbeddedSample], texts_by_image: Tensor, images_by_text: Tensor) -> Ranks:
    """Return the ranks of the correct candidates in the scores that `Retrieval.candidates` returns."""
    return rank(texts_by_image.numpy(), _image_of_text(predictions), images_by_text.numpy())


def _number_of(image: Any) -> int:
    """Return a number of an image that is the same in every process; two images share one with probability 2e-19."""
    return int.from_bytes(hashlib.blake2b(repr(image).encode(), digest_size=8).digest()) >> 1


def _image_of_text(predictions: Sequence[EmbeddedSample]) -> list[int]:
    """Return the image of each text."""
    return [number for number, sample in enumerate(predictions) for _ in sample.words]


def _kept(tokens: Packed) -> list[tuple[Tensor, Tensor | None]]:
    """Return the tokens of each image, and their sizes, on the CPU or in temporary files."""
    lengths = list(tokens.lengths)
    sizes = [None] * len(lengths) if tokens.sizes is None else tokens.sizes.cpu().split(lengths)
    return list(zip(KEPT.keep(tokens.data).split(lengths), sizes, strict=True))


def _match(
    model: Any, predictions: Sequence[EmbeddedSample], pairs: Tensor, log_odds: bool, on_text_run: OnTextRun
) -> Tensor:
    """Return the score of a match of each pair [pairs, 2] of an image and a text, sorted by image, [pairs]."""
    words = [text for sample in predictions for text in sample.words]
    weight = next(model.parameters())
    matches = []
    for part in pairs.split(PAIRS_AT_ONCE):
        images, texts_per_image = part[:, 0].unique_consecutive(return_counts=True)
        tokens = _joined([predictions[image] for image in images.tolist()], weight)
        texts = [words[text] for text in part[:, 1].tolist()]
        ids = pad_sequence(texts, batch_first=True).to(weight.device)
        mask = pad_sequence([torch.ones_like(text) for text in texts], batch_first=True).to(weight.device)
        renumbered = _renumbered(on_text_run, images.tolist())
        found = model.match(tokens, ids, mask, texts_per_image.tolist(), renumbered, log_odds=log_odds)
        matches.append(found.float().cpu())
    return torch.cat(matches)


def _renumbered(on_text_run: OnTextRun, images: Sequence[int]) -> OnTextRun:
    """Return a function that passes on text runs with the images' numbers in the split."""

    def renumber(text_run: TextRun) -> None:
        on_text_run(replace(text_run, samples=[images[sample] for sample in text_run.samples]))

    return renumber


def _joined(samples: Sequence[EmbeddedSample], like: Tensor) -> Packed:
    """Return the images' tokens, packed, on the device and in the number format of a weight."""
    # Each part is converted by itself: autocast on a CPU cannot concatenate float16 tensors.
    parts = [sample.tokens.to(like.device, like.dtype) for sample in samples if sample.tokens is not None]
    sizes = [sample.sizes for sample in samples if sample.sizes is not None]
    return Packed(torch.cat(parts), [len(part) for part in parts], torch.cat(sizes).to(like.device) if sizes else None)


TASK = Retrieval()
