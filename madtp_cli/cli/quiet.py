"""Keep the messages of libraries out of the output of the command line: they name no file and no remedy."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator

#: transformers reads this variable when it is imported.
VERBOSITY = "TRANSFORMERS_VERBOSITY"


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Ignore the warnings of libraries within the block, unless the user asks for them.

    Python's option -W, PYTHONWARNINGS and TRANSFORMERS_VERBOSITY show them again.
    """
    if VERBOSITY not in os.environ:
        os.environ[VERBOSITY] = "error"
        if "transformers" in sys.modules:
            from transformers.utils import logging

            logging.set_verbosity_error()
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        yield
