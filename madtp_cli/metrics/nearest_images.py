"""Which images are most similar to each image, and how much two such lists have in common."""

from __future__ import annotations

import numpy as np

#: Queries that are compared with all images at once.
QUERIES_AT_ONCE = 1024


def neighbours(queries: np.ndarray, index: np.ndarray, number: int) -> np.ndarray:
    """Return the numbers of the most similar other images of each image, the most similar one first.

    Args:
        queries: Normalised embeddings of all images, [images, width].
        index: Normalised embeddings of the same images, of the same or another model, [images, width].
        number: Images to find for each; fewer if there are fewer others.

    Returns:
        [images, number]. Of equally similar images, the first comes first.
    """
    number = min(number, len(index) - 1)
    found = [np.empty((0, number), dtype=int)]
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        similar = queries[start : start + QUERIES_AT_ONCE] @ index.T
        rows = np.arange(len(similar))
        similar[rows, start + rows] = -np.inf  # an image is not its own neighbour
        found.append(np.argsort(-similar, axis=1, kind="stable")[:, :number])
    return np.concatenate(found)


def overlap(one: np.ndarray, other: np.ndarray) -> list[float]:
    """Return the share of images that two lists of neighbours have in common, for each image.

    >>> overlap(np.array([[1, 2], [3, 4]]), np.array([[2, 1], [3, 5]]))
    [1.0, 0.5]
    """
    shares: list[float] = (one[:, :, None] == other[:, None, :]).any(-1).mean(-1).tolist()
    return shares
