"""The part of a report about an image encoder: can a search index of the dense encoder stay as it is?"""

from __future__ import annotations

from madtp_cli.reporting.parts import Interval, Part


class OverlapPart(Part):
    """How far the search results of some queries in some index equal those of dense queries in the dense index."""

    top1: float
    """Queries whose best result is the same, in percent."""
    top1_interval95: Interval
    """95 % confidence interval of `top1`, in percent."""
    top10: float
    """Share of the ten best results that are the same, mean over the queries, in percent."""
    top10_interval95: Interval
    """95 % confidence interval of `top10`, in percent."""


class IndexPart(Part):
    """Index compatibility of a pruned image encoder with the dense one, measured on the images of a split.

    Each image is a query, and the index holds all other images.
    """

    images: int
    """Number of images, each of which is a query and is in the index of the others."""
    cosine: float
    """Mean cosine of the embeddings of both encoders for the same image, a number from -1 to 1."""
    cosine_interval95: Interval
    """95 % confidence interval of `cosine`, a number from -1 to 1."""
    cosine_p5: float
    """5th percentile of the cosines, a number from -1 to 1."""
    results: int
    """Number of best results that `top10` compares: 10, or fewer if there are fewer other images."""
    pruned_in_dense: OverlapPart
    """Pruned queries in the dense index: the index stays as it is."""
    dense_in_pruned: OverlapPart
    """Dense queries in the pruned index."""
    pruned_in_pruned: OverlapPart
    """Pruned queries in the pruned index: all images are embedded again."""
