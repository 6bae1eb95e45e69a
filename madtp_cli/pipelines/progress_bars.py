"""Progress bars for Python code and notebooks; tqdm draws them, on standard error."""

from __future__ import annotations

from typing import Any

from tqdm.auto import tqdm

from madtp_cli.progress import ProgressReporter

#: Bar, count and time left come before the detail, so a narrow terminal crops only the detail.
FORMAT = "{desc}: {bar:12} {n_fmt}/{total_fmt}, {remaining} left {postfix}"
#: The same for a stage without a known total.
OPEN_FORMAT = "{desc}: {elapsed} {postfix}"


class ProgressBars(ProgressReporter):
    """A progress bar for each stage. A stage within another one has no bar."""

    def __init__(self) -> None:
        self._bars: list[Any] = []

    def message(self, text: str) -> None:
        """Show a sentence as a line of its own."""
        tqdm(total=0, bar_format="{desc}", desc=text).close()

    def start(self, stage: str, total: int) -> None:
        """Open a bar; 0 stands for an unknown total."""
        layout = FORMAT if total else OPEN_FORMAT
        bar = tqdm(total=total or None, desc=stage, disable=bool(self._bars), bar_format=layout, dynamic_ncols=True)
        self._bars.append(bar)

    def advance(self, done: int, detail: str = "") -> None:
        """Move the bar of the current stage to `done`."""
        bar = self._bars[-1]
        if not bar.disable:
            bar.set_postfix_str(detail, refresh=False)
            bar.update(done - bar.n)

    def finish(self) -> None:
        """Close the bar of the current stage."""
        self._bars.pop().close()
