"""The files that pages need: styles, scripts, an icon; each by an address that changes with it."""

import hashlib
from functools import cache
from pathlib import Path

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from rollbook.export.html import colours_css, item_css

ASSETS_PATH = "/assets/"
_FOLDER = Path(__file__).with_name("assets")
_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Asset(msgspec.Struct, frozen=True):
    """One file, as it is sent."""

    content: bytes
    media_type: str
    address: str


def asset_address(name: str) -> str:
    """Give the address of a file."""
    return _assets()[name].address


def send_asset(request: Request) -> Response:
    """Answer with a file, which the browser may keep for ever."""
    name = request.path_params["name"]
    asset = _assets().get(name)
    if asset is None or asset.address != request.url.path:
        raise HTTPException(404)
    headers = {"cache-control": "private, max-age=31536000, immutable"}
    return Response(asset.content, media_type=asset.media_type, headers=headers)


@cache
def _assets() -> dict[str, Asset]:
    contents = {path.name: path.read_text("utf-8") for path in _FOLDER.iterdir()}
    contents["rollbook.css"] = "\n".join((colours_css(), contents["rollbook.css"], item_css()))
    return {name: _asset(name, text.encode()) for name, text in contents.items()}


def _asset(name: str, content: bytes) -> Asset:
    digest = hashlib.sha256(content).hexdigest()[:16]
    return Asset(content, _MEDIA_TYPES[Path(name).suffix], f"{ASSETS_PATH}{digest}/{name}")
