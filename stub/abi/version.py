"""xen/version.h: xen_version."""

from __future__ import annotations

from stub.abi.layout import Struct, Twin
from stub.abi.names import value_names

# xen_version commands.
XENVER_version = 0
XENVER_extraversion = 1
XENVER_compile_info = 2
XENVER_capabilities = 3
XENVER_changeset = 4
XENVER_platform_parameters = 5
XENVER_get_features = 6
XENVER_pagesize = 7
XENVER_guest_handle = 8
XENVER_commandline = 9
XENVER_build_id = 10

VERSION_OPS = value_names(globals(), "XENVER_")

# Bytes of the fixed-size answers.
XEN_EXTRAVERSION_LEN = 16
XEN_CAPABILITIES_INFO_LEN = 1024
XEN_CHANGESET_INFO_LEN = 64

# sizeof(xen_commandline_t) and sizeof(xen_domain_handle_t); the header gives them no name.
XEN_COMMANDLINE_LEN = 1024
XEN_DOMAIN_HANDLE_LEN = 16

XenCompileInfo = Struct(
    "XenCompileInfo",
    144,
    compiler=(0, "64s"),
    compile_by=(64, "16s"),
    compile_domain=(80, "32s"),
    compile_date=(112, "32s"),
)

XenPlatformParameters64 = Struct("XenPlatformParameters64", 8, virt_start=(0, "Q"))
XenPlatformParameters32 = Struct("XenPlatformParameters32", 4, virt_start=(0, "I"))
XenPlatformParameters = Twin(XenPlatformParameters64, XenPlatformParameters32)

XenFeatureInfo = Struct("XenFeatureInfo", 8, submap_idx=(0, "I"), submap=(4, "I"))

# The build id's bytes follow.
XenBuildId = Struct("XenBuildId", 4, len=(0, "I"))
