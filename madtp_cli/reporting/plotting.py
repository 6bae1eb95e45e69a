"""matplotlib without a window. It is imported when something is drawn, and never changes the caller's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from madtp_cli.errors import UsageError, install_command

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def require_matplotlib() -> None:
    """Check that matplotlib is installed.

    Raises:
        UsageError: It is not.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"Figures need the package matplotlib, which is not installed.\nInstall it: {install_command('matplotlib')}"
        ) from error


def figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches. Unlike one of pyplot, it needs no window and is not kept open."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
