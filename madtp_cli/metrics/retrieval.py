"""Recall at 1, 5 and 10 between images and texts, where an image may own several texts.

TR (text retrieval) asks with an image for any of its texts, IR (image retrieval) with a text for
its image, as the tables of CLIP, BLIP and MADTP do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from madtp_cli.errors import DataError

#: How many candidates a query may look at.
DEPTHS = (1, 5, 10)


@dataclass(frozen=True)
class Ranks:
    """How many wrong candidates come before each query's first right one; 0 is the best.

    `texts_found` [images] belongs to TR, `images_found` [texts] to IR, `image_of_text` [texts]
    says which image owns each text: the groups for an interval over texts.
    """

    texts_found: NDArray[np.int64]
    images_found: NDArray[np.int64]
    image_of_text: NDArray[np.int64]

    def text_hits(self, depth: int) -> list[float]:
        """1 for each image that has a text of its own among its first `depth`, else 0."""
        return _hits(self.texts_found, depth).tolist()

    def image_hits(self, depth: int) -> list[float]:
        """1 for each text whose image is among its first `depth`, else 0."""
        return _hits(self.images_found, depth).tolist()

    def recalls(self) -> dict[str, float]:
        """TR@1, TR@5, TR@10, their mean TR; the same for IR; and R, the mean of all six; all 0 to 1."""
        found = {"TR": self.texts_found, "IR": self.images_found}
        figures: dict[str, float] = {}
        for name, ranks in found.items():
            at = {f"{name}@{depth}": float(_hits(ranks, depth).mean()) for depth in DEPTHS}
            figures |= at | {name: sum(at.values()) / len(DEPTHS)}
        return figures | {"R": (figures["TR"] + figures["IR"]) / 2}

    def scores(self) -> list[float]:
        """Each image's part in R, so that their mean is R: what an interval over images needs.

        The image's own recall and its texts', averaged over the depths; a text counts for as
        much as any other, so an image with many texts may score above 1. Intervals for scores of
        any size fit them best.
        """
        own = np.mean([_hits(self.texts_found, depth) for depth in DEPTHS], axis=0)
        texts = np.mean([_hits(self.images_found, depth) for depth in DEPTHS], axis=0)
        by_image = np.bincount(self.image_of_text, weights=texts, minlength=len(own))
        scores: list[float] = ((own + by_image * len(own) / len(texts)) / 2).tolist()
        return scores


def rank(
    image_to_text: ArrayLike, image_of_text: Sequence[int] | NDArray[np.integer], text_to_image: ArrayLike | None = None
) -> Ranks:
    """Rank the texts for each image and the images for each text, higher scores first.

    Ties count against the model: a wrong candidate with the same score, or where one of the
    two is NaN, comes first. So a model that gives every pair the same score finds nothing, and
    a pair that was left out of a re-ranking (-inf) is found only where too few candidates are
    left to miss it.

    Args:
        image_to_text: Scores [images, texts].
        image_of_text: Which image (row) owns each text (column) [texts].
        text_to_image: Scores [texts, images] where they are others than the transposed ones, as
            after a re-ranking of each query's best candidates.

    Raises:
        DataError: The scores do not fit the texts, or an image has no text.

    >>> ranks = rank([[0.9, 0.1, 0.3], [0.8, 0.2, 0.1]], image_of_text=[0, 0, 1])
    >>> ranks.texts_found.tolist(), ranks.images_found.tolist(), ranks.recalls()["TR@1"]
    ([0, 2], [0, 1, 1], 0.5)
    """
    owner = np.asarray(image_of_text, dtype=np.int64)
    forth = np.asarray(image_to_text)
    images = np.arange(forth.shape[0])
    back = forth.T if text_to_image is None else np.asarray(text_to_image)
    if forth.shape != (len(images), len(owner)) or back.shape != (len(owner), len(images)):
        raise DataError(
            f"Scores of shape {forth.shape} and {back.shape} do not fit {len(owner)} texts.\n"
            "Give [images, texts] and [texts, images]."
        )
    if set(owner.tolist()) != set(images.tolist()):
        raise DataError(
            f"The texts' images are not just 0 to {len(images) - 1}, each with a text or more.\n"
            "Leave out images without texts and texts without an image."
        )
    return Ranks(_ranks(forth, images, owner), _ranks(back, owner, images), owner)


def _ranks(
    scores: NDArray[np.floating], queries: NDArray[np.int64], candidates: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Wrong candidates not surely below the best right one; right is who belongs to the query's image."""
    ranks = np.empty(len(queries), dtype=np.int64)
    for at, image in enumerate(queries):
        right = candidates == image
        # Not "above or equal": comparisons with NaN are false, and must count against the model.
        not_below = ~(scores[at] < scores[at][right].max())
        ranks[at] = np.count_nonzero(not_below & ~right)
    return ranks


def _hits(ranks: NDArray[np.int64], depth: int) -> NDArray[np.float64]:
    return (ranks < depth).astype(np.float64)
