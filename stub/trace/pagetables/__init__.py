"""Snapshots of a guest's page tables: taken, kept in the run's folder, looked at, compared, drawn.

``moments`` says when; ``snapshot`` what is kept and ``store`` how; ``space`` is one address space of it. ``ranges``,
``walks``, ``reverse``, ``census`` and ``diff`` put it into words; ``picture`` draws it, ``svg`` and ``png`` write that.
"""
