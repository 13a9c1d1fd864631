"""Images within the page itself."""

from __future__ import annotations

import base64
import io

from PIL import Image

_JPEG_QUALITY = 82


def data_uri(image: Image.Image, kind: str) -> str:
    """Return an image as the address that holds it; `kind` is PNG or JPEG."""
    content = io.BytesIO()
    options = {"quality": _JPEG_QUALITY} if kind == "JPEG" else {}
    image.save(content, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"
