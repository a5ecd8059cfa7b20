"""A kernel file → ``Image``: what kind of file, the ELF file inside it, what it tells Xen, and whether that will do.

``load_image`` is the way in; ``inspect`` explains any file.
"""

from stub.image.load import load_image
from stub.image.model import Image, Note, Segment, SetupHeader, XenParms

__all__ = ["Image", "Note", "Segment", "SetupHeader", "XenParms", "load_image"]
