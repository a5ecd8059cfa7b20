"""Disks: images and overlays, the ring, and the back end that answers a guest's block front end (Linux's xen-blkback).

``images`` and ``overlay`` are the only files that touch the host's; ``ring`` and ``requests`` do no I/O.
"""
