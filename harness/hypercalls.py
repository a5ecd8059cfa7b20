"""provisional"""
from pathlib import Path
from typing import Any
class Hypercalls:
    @classmethod
    def of(cls, guest: Any) -> "Hypercalls": return cls()
def tail(path: Path, last: int) -> list[str]:
    return []
