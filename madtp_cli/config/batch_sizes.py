"""The batch sizes that `madtp profile --time` measures."""

from __future__ import annotations

from collections.abc import Sequence

from madtp_cli.errors import UsageError

#: Batch sizes that are timed by default.
BATCH_SIZES = (1, 8, 32)


def parse_batch_sizes(timed: bool, sizes: str | None) -> Sequence[int]:
    """Return the batch sizes that `--time` and `--batch-sizes` request; none without `--time`.

    Raises:
        UsageError: A size is not a number above 0, or there are sizes without `--time`.

    >>> parse_batch_sizes(True, "1, 4"), parse_batch_sizes(True, None), parse_batch_sizes(False, None)
    ([1, 4], (1, 8, 32), ())
    """
    if not timed:
        if sizes is not None:
            raise UsageError("--batch-sizes has no effect without --time.\nAdd --time, or leave out --batch-sizes.")
        return ()
    if sizes is None:
        return BATCH_SIZES
    numbers = [int(size) if size.strip().isdecimal() and len(size) < 10 else 0 for size in sizes.split(",")]
    if min(numbers) < 1:
        raise UsageError(
            f"--batch-sizes {sizes!r} cannot be used.\nGive numbers of samples, 1 or more, with commas: 1,8,32."
        )
    return numbers
