"""Where the catalogue lies, and the sources of our own guests."""

from __future__ import annotations

from pathlib import Path


def images_folder() -> Path:
    """The package harness.images where pvstub is installed; in the working tree it lies beside harness."""
    here = Path(__file__).parent
    return next(path for path in (here / "images", here.parent / "images") if (path / "catalogue.toml").exists())
