"""Which blocks a method prunes by default, and how strongly."""

from __future__ import annotations

from dataclasses import dataclass

#: The tower that reads images, which alone prunes before its first block.
IMAGES = "vision"


@dataclass(frozen=True)
class Preset:
    """Which blocks a method prunes by default.

    Attributes:
        every: Distance between pruned blocks; the first block is pruned.
        unpruned: Towers that are not pruned.
        causal: Whether towers that are read from their last token are pruned.
        embedding: Factor of the threshold scale for the image patches before the first block; 0 if the method needs the
            attention of a block. Otherwise `keep` is called without class attention and received attention there.
        rise: Factor of the threshold scale in the last pruned block of the image tower, if it is 1 in the first one; it
            rises evenly in between, on a logarithmic scale.
        texts: Factor of the threshold scale in the pruned blocks of other towers.
        first_scale: First threshold scale that a calibration tries: one that costs about a fifth of the dense model.
    """

    every: int = 1
    unpruned: tuple[str, ...] = ()
    causal: bool = True
    embedding: float = 0.0
    rise: float = 1.0
    texts: float = 1.0
    first_scale: float = 0.1

    def scales(self, tower: str, blocks: int) -> list[float]:
        """Return the factor of the threshold scale for each block of a tower; 0 for those that are not pruned.

        >>> Preset(every=2).scales("vision", 3), Preset(every=2, rise=4.0).scales("vision", 5)
        ([1.0, 0.0, 1.0], [1.0, 0.0, 2.0, 0.0, 4.0])
        """
        pruned = [block % self.every == 0 and tower not in self.unpruned for block in range(blocks)]
        if tower != IMAGES:
            return [self.texts * chosen for chosen in pruned]
        last = max(1, (blocks - 1) // self.every * self.every)
        return [self.rise ** (block / last) * chosen for block, chosen in enumerate(pruned)]
