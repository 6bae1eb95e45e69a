"""Turn off the progress bars of transformers, which would mix with the output of the command line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from transformers.utils import logging


@contextlib.contextmanager
def without_progress_bars() -> Iterator[None]:
    """Turn off the progress bars of transformers within the block; it shows them whenever it reads or writes."""
    were_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if were_enabled:
            logging.enable_progress_bar()
