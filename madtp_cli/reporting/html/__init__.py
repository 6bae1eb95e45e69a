"""HTML pages: self-contained, without scripts, and with every text from a file escaped.

The templates are Jinja's, with escaping always on. Pages forbid every request by their Content-Security-Policy.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from madtp_cli import __version__
from madtp_cli.errors import UsageError, install_command, printable
from madtp_cli.reporting import pruning_picture, wording
from madtp_cli.reporting.pruned_sample import PrunedSample

if TYPE_CHECKING:
    from PIL.Image import Image

FOLDER = Path(__file__).parent
#: Longest side of a picture in a page, in pixels, and the quality of its JPEG.
PICTURE_SIDE, JPEG_QUALITY = 176, 75


def sample_page(sample: PrunedSample) -> str:
    """Return the page of `madtp show --html`.

    Raises:
        UsageError: Jinja is not installed.
    """
    return render("show.html", title=sample.text or sample.name, sample=sample)


def render(template: str, **content: Any) -> str:
    """Render a template of this folder.

    Raises:
        UsageError: Jinja is not installed.
    """
    style = (FOLDER / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    # The file ends with a line break, and what a browser checks is exactly the text of the style element.
    page: str = (
        _environment()
        .get_template(template)
        .render(style=style, style_hash=f"sha256-{digest}", version=__version__, **content)
    )
    return page.encode("utf-8", "backslashreplace").decode("utf-8")  # lone surrogates cannot be encoded


@functools.cache
def _environment() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise UsageError(
            f"HTML pages need the package jinja2, which is not installed.\nInstall it: {install_command('jinja2')}"
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.globals.update(wording=wording, picture=pruning_picture, photo=photo, drawing=drawing, zip=zip)
    environment.filters["number"] = number
    return environment


def _printable(value: object) -> object:
    """Escape control characters in plain texts; markup is of the templates alone."""
    return printable(value, keep="\n") if type(value) is str else value


def number(value: float | None, digits: int = 4) -> str:
    """Write a number for people; a dash for none.

    >>> number(0.123456), number(1234.5, 0), number(None)
    ('0.1235', '1,234', '–')
    """
    if value is None:
        return "–"
    return f"{value:,.0f}" if digits == 0 else f"{value:.{digits}g}"


def photo(image: Image) -> str:
    """Return a picture as a data URI, at most `PICTURE_SIDE` pixels wide and high."""
    from PIL import Image as Images

    small = image.copy()
    small.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Images.Resampling.LANCZOS)
    return _data_uri(small, "jpeg", quality=JPEG_QUALITY, optimize=True)


def drawing(image: Image) -> str:
    """Return an image with few colours as a data URI."""
    return _data_uri(image, "png", optimize=True)


def _data_uri(image: Image, kind: str, **settings: Any) -> str:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return f"data:image/{kind};base64," + base64.b64encode(stream.getvalue()).decode()
