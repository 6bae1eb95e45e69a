"""HTML pages: nothing is loaded, nothing runs, and every text of a user is text."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from madtp_cli.reporting import html
from madtp_cli.reporting.parts import LayerPart
from madtp_cli.reporting.pruned_sample import Answers, Group, ImageInput, PrunedBlock, PrunedSample, TextInput
from madtp_cli.reporting.samples import BothGflops

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> {{ 7*7 }} {% raw %} \x1b[2J \ud800 ‮"


class Reader(HTMLParser):
    """Collects the elements and attributes of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs) -> None:
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def sample(text: str, pixels: int = 48) -> PrunedSample:
    """A sample whose every text is `text`."""
    block = PrunedBlock(1, (Group(0, (0, 1)), Group(3, (3,))), (0.5, 0.1, None, 0.2), 3)
    words = PrunedBlock(1, (Group(0, (0,)),), (None, 0.1), 1)
    image = ImageInput(Image.effect_noise((pixels, pixels), 90).convert("RGB"), 2, 2, [block])
    layer = LayerPart(tower="vision", layer="layer 0", gflops=0.5, tokens_in=5, tokens_out=3)
    return PrunedSample(
        name=text,
        text=text,
        images=[image, image],
        texts=[TextInput("text", (text, "b"), (True, False), [words]), TextInput("decoder", (text,), (), [])],
        layers=[layer],
        dense_layers=[layer],
        gflops=BothGflops(dense=1.0, pruned=0.5),
        answers=Answers(text, text, text, text),
        method="madtp",
        rule=text,
    )


def forbidden(reader: Reader) -> list[str]:
    """Return what a page must not have: scripts, event handlers, inline styles, and addresses of other things."""
    found = [element for element in reader.elements if element in ("script", "iframe", "object", "embed", "base")]
    for name, value in reader.attributes:
        address = name in ("src", "href", "xlink:href", "srcset", "action") and not value.startswith(("data:", "#"))
        if name.startswith("on") or name == "style" or address:
            found.append(f"{name}={value}")
    return found


def test_hostile_texts_are_text() -> None:
    """Captions, names and answers come from files of others."""
    page = html.sample_page(sample(HOSTILE))
    reader = Reader(page)
    assert forbidden(reader) == []
    assert reader.elements.count("img") == 2  # the two pictures of importance
    assert "<script>alert(1)</script>" in reader.text
    assert "{{ 7*7 }}" in reader.text
    assert "\x1b" not in page
    page.encode("utf-8")


def test_the_check_finds_what_is_forbidden() -> None:
    """A check that finds nothing would prove nothing."""
    page = '<script></script><p onclick="x" style="y"><a href="https://x.org"><img src="data:,">'
    assert forbidden(Reader(page)) == ["script", "onclick=x", "style=y", "href=https://x.org"]


def test_the_policy_allows_the_style_of_the_page_and_nothing_else() -> None:
    """A browser compares the hash with the text of the style element."""
    page = html.sample_page(sample("a cat"))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy.replace("&#39;", "'") == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


@pytest.mark.parametrize("pixels", [48, 1000])
def test_a_picture_is_small(pixels: int) -> None:
    """Pictures are at most 176 pixels wide, and each is in the page once."""
    page = html.sample_page(sample("a cat", pixels))
    assert page.count("data:image/jpeg") == 2
    assert len(page) < 120_000
