"""Turn off progress bars and warnings of transformers, which would mix with the output of the command line."""

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


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Turn off the warnings of transformers within the block, such as those about its own default settings."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
