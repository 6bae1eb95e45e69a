"""Image tokens that are kept until all samples of a split are there: in memory up to a limit, then in temporary files.

A file has no name any more as soon as it is mapped into memory, so that nothing stays behind, also after a crash.
"""

from __future__ import annotations

import tempfile

import torch
from torch import Tensor

from madtp_cli.config import limits
from madtp_cli.errors import OutputError

#: Name of the limit of what is kept in memory, see `madtp_cli.config.limits`.
LIMIT = "TOKEN_BYTES"


class TokenMemory:
    """Keeps the tokens of one pass over a split at a time."""

    def __init__(self) -> None:
        self.used = 0

    def keep(self, tokens: Tensor) -> Tensor:
        """Return a copy of tokens on the CPU with the same values and number format.

        Raises:
            OutputError: The limit is reached, and the temporary file cannot be written.
        """
        if self.used + tokens.nbytes > limits.limit(LIMIT):
            return _in_file(tokens.detach().cpu().contiguous())
        self.used += tokens.nbytes
        return tokens.detach().clone().cpu()

    def release(self) -> None:
        """Start the next pass: the tokens of the last one are needed no longer."""
        self.used = 0


def _in_file(tokens: Tensor) -> Tensor:
    try:
        with tempfile.NamedTemporaryFile(prefix="madtp-tokens-") as file:
            file.write(tokens.view(torch.uint8).numpy().tobytes())
            file.flush()
            return torch.from_file(file.name, size=tokens.numel(), dtype=tokens.dtype).view(tokens.shape)
    except OSError as error:
        raise OutputError(
            f"The image tokens need more than {limits.variable(LIMIT)} allows, and their file cannot be written to "
            f"{tempfile.gettempdir()}: {error.strerror or error}.\n"
            "Make room there, set TMPDIR, or give a smaller --limit."
        ) from error


#: What `Retrieval` keeps.
KEPT = TokenMemory()
