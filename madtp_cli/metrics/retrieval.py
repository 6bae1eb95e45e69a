"""Recall at 1, 5 and 10 between images and texts; an image can have several texts.

In TR (text retrieval) the query is an image, and any of its texts is correct. In IR (image retrieval) the query is a
text, and its image is correct. The tables of CLIP, BLIP and MADTP use these names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from madtp_cli.errors import DataError

#: The k of recall at k.
DEPTHS = (1, 5, 10)


@dataclass(frozen=True)
class Ranks:
    """The rank of the first correct candidate of each query: the number of wrong candidates before it.

    Attributes:
        texts_found: Ranks in TR, [images].
        images_found: Ranks in IR, [texts].
        image_of_text: The image of each text, [texts].
    """

    texts_found: NDArray[np.int64]
    images_found: NDArray[np.int64]
    image_of_text: NDArray[np.int64]

    def recalls(self) -> dict[str, float]:
        """Return TR@1, TR@5, TR@10, their mean TR, the same for IR, and R, the mean of all six; all 0 to 1."""
        found = {"TR": self.texts_found, "IR": self.images_found}
        figures: dict[str, float] = {}
        for name, ranks in found.items():
            at = {f"{name}@{depth}": float(_hits(ranks, depth).mean()) for depth in DEPTHS}
            figures |= at | {name: sum(at.values()) / len(DEPTHS)}
        return figures | {"R": (figures["TR"] + figures["IR"]) / 2}

    def scores(self) -> list[float]:
        """Return a score for each image such that their mean is R, as confidence intervals over images need it.

        The score is the mean of the image's own recall and the recall of its texts, averaged over the depths. Each text
        has the same weight, so an image with many texts can have a score above 1.
        """
        own = np.mean([_hits(self.texts_found, depth) for depth in DEPTHS], axis=0)
        texts = np.mean([_hits(self.images_found, depth) for depth in DEPTHS], axis=0)
        by_image = np.bincount(self.image_of_text, weights=texts, minlength=len(own))
        scores: list[float] = ((own + by_image * len(own) / len(texts)) / 2).tolist()
        return scores


def rank(
    image_to_text: ArrayLike, image_of_text: Sequence[int] | NDArray[np.integer], text_to_image: ArrayLike | None = None
) -> Ranks:
    """Rank the texts for each image and the images for each text, highest score first.

    Ties count against the model: a wrong candidate with the same score, or with a NaN on either side, comes first. So
    a model that gives all pairs the same score has a recall of 0.

    Args:
        image_to_text: Scores [images, texts].
        image_of_text: The image (row) of each text (column), [texts].
        text_to_image: Scores [texts, images], if they are not the transposed ones: re-ranking scores different pairs
            in each direction.

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
            f"The images of the texts must be 0 to {len(images) - 1}, each with at least one text.\n"
            "Remove images without texts and texts without an image."
        )
    return Ranks(_ranks(forth, images, owner), _ranks(back, owner, images), owner)


def _ranks(
    scores: NDArray[np.floating], queries: NDArray[np.int64], candidates: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the number of wrong candidates that are not below the best correct one."""
    ranks = np.empty(len(queries), dtype=np.int64)
    for at, image in enumerate(queries):
        correct = candidates == image
        # Not ">=": a comparison with NaN is false, and NaN must count against the model.
        not_below = ~(scores[at] < scores[at][correct].max())
        ranks[at] = np.count_nonzero(not_below & ~correct)
    return ranks


def _hits(ranks: NDArray[np.int64], depth: int) -> NDArray[np.float64]:
    return (ranks < depth).astype(np.float64)
