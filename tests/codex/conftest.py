"""The releases of Codex that judge what Rollbook writes, installed from npm."""

import shutil
import subprocess
from pathlib import Path

import pytest

_INSTALLATION_S = 300


@pytest.fixture(scope="session", params=["0.95.0", "latest"])
def codex(request, tmp_path_factory) -> Path:
    """The executable of one release."""
    folder = tmp_path_factory.mktemp(f"codex-{request.param}")
    return _install(f"@openai/codex@{request.param}", folder) / "codex"


@pytest.fixture(scope="session")
def ccusage(tmp_path_factory) -> Path:
    """Another program that counts what Codex has used; the last release that is all JavaScript."""
    return _install("@ccusage/codex@18", tmp_path_factory.mktemp("ccusage")) / "ccusage-codex"


def _install(package: str, folder: Path) -> Path:
    """Install a package from npm; gives the directory of its executables."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm isn't there")
    command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder)]
    try:
        done = subprocess.run(
            [*command, package],
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=_INSTALLATION_S,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm took longer than {_INSTALLATION_S} s to install {package}")
    if done.returncode:
        pytest.skip(f"npm can't install {package}: {_last_error(done.stderr)}")
    return folder / "node_modules" / ".bin"


def _last_error(stderr: str) -> str:
    errors = [
        line
        for line in stderr.splitlines()
        if line.startswith("npm error") and "A complete log" not in line
    ]
    return errors[-1] if errors else "it wrote no error"
