"""A Debian archive in a folder, with apt and dpkg-deb played by small scripts that know no other: no network."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

# What apt knows is in show/, each package's versions and each of them alone; what the archive has, in debs/.
_TOOLS = {
    "apt-cache": """#!/bin/sh
for name; do :; done
cat "$ARCHIVE/show/$name" 2>/dev/null || { echo 'E: No packages found' >&2; exit 100; }
""",
    "apt-get": """#!/bin/sh
for name; do last=$action; action=$name; done
[ "$last" = download ] || { echo 'E: Failed to fetch InRelease  Could not resolve the host' >&2; exit 100; }
echo "$action" >>"$ARCHIVE/downloads"
cp "$ARCHIVE/debs/$action.deb" . 2>/dev/null || { echo "E: Failed to fetch $action  404  Not Found" >&2; exit 100; }
""",
    "dpkg-deb": '#!/bin/sh\nexec cat "$2"\n',
}


class Archive:
    """``environment``: with it, apt is that of this archive."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("bin", "show", "debs"):
            (folder / name).mkdir(parents=True)
        for name, script in _TOOLS.items():
            tool = folder / "bin" / name
            tool.write_text(script)
            tool.chmod(0o755)
        self.environment = {"ARCHIVE": str(folder), "PATH": f"{folder / 'bin'}:/usr/bin:/bin"}

    def add(self, package: str, version: str, path: str = "", content: bytes = b"", depends: str = "") -> None:
        """A version of a package with one file; the newest is added last."""
        shown = f"Package: {package}\nVersion: {version}\nSize: 10240\nSHA256: {'0' * 64}\n"
        shown += f"Depends: {depends}\n" if depends else ""
        (self.folder / "show" / f"{package}={version}").write_text(shown)
        everything = self.folder / "show" / package
        everything.write_text(shown + "\n" + (everything.read_text() if everything.exists() else ""))
        with tarfile.open(self.folder / "debs" / f"{package}={version}.deb", "w") as packed:
            if path:
                member = tarfile.TarInfo(path)
                member.size = len(content)
                packed.addfile(member, io.BytesIO(content))

    def downloads(self) -> list[str]:
        """What was downloaded, in order."""
        log = self.folder / "downloads"
        return log.read_text().splitlines() if log.exists() else []

    def forget(self, package: str, version: str) -> None:
        """The archive has a version no longer, nor do apt's lists."""
        for path in (self.folder / "show" / f"{package}={version}", self.folder / "debs" / f"{package}={version}.deb"):
            path.unlink()
        everything = self.folder / "show" / package
        stanzas = [stanza for stanza in everything.read_text().split("\n\n") if f"Version: {version}\n" not in stanza]
        everything.write_text("\n\n".join(stanzas))
