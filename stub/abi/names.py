"""Value → name tables for decoding, read off the constants that a module has just defined."""

from __future__ import annotations

from collections.abc import Collection, Mapping


def value_names(namespace: Mapping[str, object], prefix: str, skip: Collection[str] = ()) -> dict[int, str]:
    """The names in ``namespace`` that start with ``prefix`` and are ints, by value and in ascending order.

    ``skip`` leaves out constants that share the prefix but are of another family. Two names for one value raise
    ``ValueError``: the table could not decode it.
    """
    table: dict[int, str] = {}
    for name, value in namespace.items():
        if name.startswith(prefix) and name not in skip and isinstance(value, int):
            if value in table:
                raise ValueError(f"{table[value]} and {name} are both {value}")
            table[value] = name
    return dict(sorted(table.items()))
