"""The picture in a model card: a sample after each block that prunes, drawn with Pillow alone."""

from __future__ import annotations

import io

from madtp_cli.reporting import pruning_picture
from madtp_cli.reporting.pruned_sample import PrunedSample

#: Side of a picture and space between two of them, in pixels; colours of the file.
SIDE, SPACE, COLOURS = 160, 6, 128


def contact_sheet(sample: PrunedSample) -> bytes:
    """Return a PNG with a row for each image of a sample: the image, then what each block keeps of it."""
    from PIL import Image

    rows = [[pruning_picture.shaded(image, block) for block in (None, *image.blocks)] for image in sample.images]
    columns = max(map(len, rows))
    step = SIDE + SPACE
    sheet = Image.new("RGB", (columns * step - SPACE, len(rows) * step - SPACE), "white")
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            sheet.paste(picture.resize((SIDE, SIDE)), (column * step, row * step))
    stream = io.BytesIO()
    sheet.quantize(COLOURS).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def description(sample: PrunedSample) -> str:
    """Return the picture in words."""
    parts = [
        f"{image.blocks[-1].when}, {len(image.blocks[-1].kept)} of {image.rows * image.columns} patches"
        for image in sample.images
        if image.blocks
    ]
    return f"Kept patches of {len(sample.images)} image{'s' * (len(sample.images) > 1)}: {'; '.join(parts) or 'all'}"
