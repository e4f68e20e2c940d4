"""What an installed saescope has: every package, and every data file that the code reads."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]

NOT_READ = {"tui/app.svg"}  # the README's picture


def test_every_package_is_installed():
    found = {
        path.parent.relative_to(ROOT) for top in ("engine", "prompts", "tui") for path in (ROOT / top).rglob("*.py")
    }
    assert {".".join(folder.parts) for folder in found} == set(SETTINGS["packages"])


@pytest.mark.parametrize("suffix", [".toml", ".txt", ".tcss", ".json", ".safetensors", ".svg"])
def test_data_files_are_installed(suffix):
    for top in ("engine", "prompts", "tui"):
        for path in (ROOT / top).rglob(f"*{suffix}"):
            name = path.relative_to(ROOT)
            package = max((p for p in SETTINGS["packages"] if name.is_relative_to(p.replace(".", "/"))), key=len)
            inside = str(name.relative_to(package.replace(".", "/")))
            patterns = SETTINGS["package-data"].get(package, [])
            assert str(name) in NOT_READ or any(fnmatch(inside, pattern) for pattern in patterns), name
