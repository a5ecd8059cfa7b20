"""What is installed is what there is: a package that pyproject.toml forgets works in the checkout only."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_package_is_named() -> None:
    named = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("stub", "harness")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert found | {"harness.images"} == named
