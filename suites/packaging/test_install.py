"""``pip install .`` gives the command and the pytest plugin; without a compiler it fails with one clear line.

The wheel is built from a copy of the sources, so that nothing is left in the tree, and installed with its
dependencies into a new virtual environment that knows nothing of the developer's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("stub", "harness", "images", "pyproject.toml", "setup.py", "README.md", "LICENSE")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")


def run(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [str(word) for word in words],
        env=clean | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a source distribution would hold."""
    copy = tmp_path_factory.mktemp("sources")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, ignore=LEFT_OUT)
        else:
            shutil.copy(ROOT / part, copy)
    return copy


@pytest.fixture(scope="module")
def installed(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of a new environment with pvstub's wheel and its dependencies in it."""
    folder = tmp_path_factory.mktemp("installed")
    build = run(*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, sources)
    assert build.returncode == 0, build.stderr
    (wheel,) = folder.glob("pvstub-*.whl")
    assert "-cp311-abi3-" in wheel.name, "built against the stable ABI of Python 3.11"
    environment = folder / "environment"
    assert run(sys.executable, "-m", "venv", "--without-pip", environment).returncode == 0
    install = run(*PIP[:3], "--python", environment / "bin/python", *PIP[3:], "install", wheel)
    assert install.returncode == 0, install.stderr
    return environment / "bin"


def test_a_clean_environment_gets_command_catalogue_and_plugin(installed: Path, tmp_path: Path) -> None:
    version = run(installed / "pvstub", "--version")
    assert (version.returncode, version.stderr) == (0, "")
    assert version.stdout.startswith("pvstub ")

    images = run(installed / "pvstub", "images", "list", PVSTUB_CACHE=str(tmp_path / "cache"))
    assert images.returncode == 0, images.stderr
    assert "debian-cloud" in images.stdout

    (tmp_path / "test_empty.py").write_text("def test_nothing(request):\n    assert request.getfixturevalue\n")
    fixtures = run(installed / "python", "-m", "pytest", "--fixtures", "--rootdir", tmp_path, tmp_path)
    assert fixtures.returncode == 0, fixtures.stdout + fixtures.stderr
    for fixture in ("guest", "console", "hypercalls"):
        assert f"\n{fixture}" in fixtures.stdout, fixture


@pytest.mark.parametrize("compiler", ["/nonexistent", "false"])
def test_without_a_compiler_it_fails_with_one_line(sources: Path, tmp_path: Path, compiler: str) -> None:
    result = run(*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, sources, CC=compiler)
    assert result.returncode != 0
    expected = (
        "pvstub: cannot build stub.engine.unicorn._core: no working C compiler "
        f"(tried '{compiler}'); install one, e.g. apt install gcc libc6-dev"
    )
    said = [line.strip() for line in (result.stdout + result.stderr).splitlines() if "pvstub: " in line]
    assert said == [expected]
    assert "Traceback" not in result.stderr
