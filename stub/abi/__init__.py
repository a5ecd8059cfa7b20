"""Xen's public interface as data: one file per public header, names as there, no behaviour.

``suites/unit/test_abi.py`` compares every constant, size and offset with a compiled probe of Xen's headers.
"""
