"""The C extensions; everything else about the package stands in pyproject.toml.

They are the hot inner parts of the engines, the walk through the guest's page tables, its entries and the
hypercall log, built against the stable ABI of Python 3.11, so one build serves every later Python. They need a C
compiler, Python's headers and the headers that the ``unicorn`` wheel carries. With them two parts of the QEMU engine
are built that run elsewhere: its shim, a flat binary that ld links, and a plugin for QEMU. Whatever of these is missing
is said in one line, before anything else is done.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CORE = "stub.engine.unicorn._core"
SOURCES = {
    CORE: sorted(Path("stub/engine/unicorn").glob("*.c")),
    "stub.engine.qemu._core": sorted(Path("stub/engine/qemu").glob("*.c")),
    "stub.hypervisor._entry": sorted(Path("stub/hypervisor").glob("*.c")),
    "stub.memory._walk": sorted(Path("stub/memory").glob("*.c")),
    "stub.trace._recorder": sorted(Path("stub/trace").glob("*.c")),
}
LIMITED_API = "0x030B0000"
QEMU = Path("stub/engine/qemu")
SHIM = "shim.bin"
PLUGIN = "counting.so"


def unicorn_headers() -> Path:
    """The ``include`` folder of the installed unicorn package, found without importing (and so loading) it."""
    spec = importlib.util.find_spec("unicorn")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        include = Path(folder) / "include"
        if (include / "unicorn" / "unicorn.h").is_file():
            return include
    raise refusal("the unicorn package or its headers are missing; install it, e.g. pip install 'unicorn>=2.1.4,<2.2'")


def refusal(reason: str) -> SystemExit:
    """What ends the build: one line."""
    return SystemExit(f"pvstub: cannot build {CORE}: {reason}")


def compiler() -> list[str]:
    """The command that setuptools compiles with: ``$CC``, else what Python itself was built with."""
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


def compiles(source: str, *options: str) -> bool:
    """Whether the compiler turns ``source`` into an object file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "probe.c")
        path.write_text(source)
        command = [*compiler(), *options, "-c", str(path), "-o", str(path.with_suffix(".o"))]
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            return False


def check_tools() -> None:
    """Refuse, in one line, to build without a compiler or without Python's headers."""
    if not compiles('#include <stdio.h>\nint main(void) { return puts("") < 0; }\n'):
        raise refusal(
            f"no working C compiler (tried '{shlex.join(compiler())}'); install one, e.g. apt install gcc libc6-dev"
        )
    paths = {sysconfig.get_path(kind) for kind in ("include", "platinclude")} | {f"{sys.prefix}/include"}
    if not compiles("#include <Python.h>\n", *(f"-I{path}" for path in sorted(paths))):
        raise refusal("Python's headers (Python.h) are missing; install them, e.g. apt install python3-dev")


def build_shim(folder: Path) -> None:
    """Compile and link the shim of the QEMU engine, a flat binary, into ``folder``; the unicorn engine needs none."""
    sources = QEMU / "shim"
    options = (
        "-O2 -std=gnu11 -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -mgeneral-regs-only "
        "-mno-red-zone -fPIE -fvisibility=hidden -fcf-protection=none -U_FORTIFY_SOURCE"
    )
    with tempfile.TemporaryDirectory() as scratch:
        objects = []
        for source in (sources / "entry.S", sources / "shim.c", sources / "monitor.c"):
            objects.append(str(Path(scratch, source.name).with_suffix(".o")))
            subprocess.run([*compiler(), *options.split(), "-c", str(source), "-o", objects[-1]], check=True)
        script = str(sources / "shim.ld")
        link = ["ld", "-static", "-nostdlib", "-T", script, "--oformat", "binary", "-o", str(folder / SHIM), *objects]
        subprocess.run(link, check=True)


def build_plugin(folder: Path) -> None:
    """Compile the plugin that QEMU itself loads into ``folder``; the engine runs without it, but slower."""
    options = "-O2 -std=gnu11 -shared -fPIC -fvisibility=hidden"
    source = str(QEMU / "plugin" / "counting.c")
    subprocess.run([*compiler(), *options.split(), "-o", str(folder / PLUGIN), source], check=True)


class BuildCore(build_ext):
    """``build_ext`` that looks for its tools first, and builds what runs inside QEMU besides."""

    def run(self) -> None:
        check_tools()
        super().run()
        if platform.machine() == "x86_64":
            folder = (Path() if self.inplace else Path(self.build_lib)) / QEMU
            folder.mkdir(parents=True, exist_ok=True)
            build_shim(folder)
            build_plugin(folder)


# Before the backend's own progress lines, so that pip shows the one line and nothing else.
if {"bdist_wheel", "editable_wheel", "build_ext"} & set(sys.argv):
    check_tools()

extensions = [
    Extension(
        name,
        [str(path) for path in sources],
        depends=[str(path) for path in sorted(Path("stub").rglob("*.h"))],
        include_dirs=[".", *([str(unicorn_headers())] if name == CORE else [])],
        libraries=["dl"] if name == CORE else [],
        define_macros=[("Py_LIMITED_API", LIMITED_API)],
        undef_macros=["_FORTIFY_SOURCE"],
        extra_compile_args=["-O2", "-std=c11", "-fno-strict-aliasing", "-fvisibility=hidden"],
        py_limited_api=True,
    )
    for name, sources in SOURCES.items()
]

setup(
    ext_modules=extensions,
    cmdclass={"build_ext": BuildCore},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
