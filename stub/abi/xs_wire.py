"""xen/io/xs_wire.h: xenstore messages and the xenstore's shared page."""

from __future__ import annotations

from stub.abi.layout import Struct
from stub.abi.names import value_names

# xsd_sockmsg.type.
XS_CONTROL = 0
XS_DIRECTORY = 1
XS_READ = 2
XS_GET_PERMS = 3
XS_WATCH = 4
XS_UNWATCH = 5
XS_TRANSACTION_START = 6
XS_TRANSACTION_END = 7
XS_INTRODUCE = 8
XS_RELEASE = 9
XS_GET_DOMAIN_PATH = 10
XS_WRITE = 11
XS_MKDIR = 12
XS_RM = 13
XS_SET_PERMS = 14
XS_WATCH_EVENT = 15
XS_ERROR = 16
XS_IS_DOMAIN_INTRODUCED = 17
XS_RESUME = 18
XS_SET_TARGET = 19
XS_RESET_WATCHES = 21
XS_DIRECTORY_PART = 22

XS_TYPES = value_names(globals(), "XS_")

# One past the last, an older name of the first, and the type that no message has.
XS_TYPE_COUNT = 23
XS_DEBUG = 0
XS_INVALID = 65535

# Which of a watch event's two strings is which.
XS_WATCH_PATH = 0
XS_WATCH_TOKEN = 1

# Flags of an older XS_WRITE.
XS_WRITE_NONE = b"NONE"
XS_WRITE_CREATE = b"CREATE"
XS_WRITE_CREATE_EXCL = b"CREATE|EXCL"

# Limits, in bytes.
XENSTORE_RING_SIZE = 1024
XENSTORE_PAYLOAD_MAX = 4096
XENSTORE_ABS_PATH_MAX = 3072
XENSTORE_REL_PATH_MAX = 2048

# xenstore_domain_interface: server_features bits, connection states, error codes.
XENSTORE_SERVER_FEATURE_RECONNECTION = 1
XENSTORE_SERVER_FEATURE_ERROR = 2
XENSTORE_CONNECTED = 0
XENSTORE_RECONNECT = 1
XENSTORE_ERROR_NONE = 0
XENSTORE_ERROR_COMM = 1
XENSTORE_ERROR_RINGIDX = 2
XENSTORE_ERROR_PROTO = 3

# Errors that travel as text in an XS_ERROR message (xsd_errors).
XSD_ERRORS = (
    "EINVAL",
    "EACCES",
    "EEXIST",
    "EISDIR",
    "ENOENT",
    "ENOMEM",
    "ENOSPC",
    "EIO",
    "ENOTEMPTY",
    "ENOSYS",
    "EROFS",
    "EBUSY",
    "EAGAIN",
    "EISCONN",
    "E2BIG",
    "EPERM",
)

# len bytes of payload follow.
XsdSockmsg = Struct(
    "XsdSockmsg",
    16,
    type=(0, "I"),
    req_id=(4, "I"),
    tx_id=(8, "I"),
    len=(12, "I"),
)

# Indexes run freely; a byte lies at index & (XENSTORE_RING_SIZE - 1).
XenstoreDomainInterface = Struct(
    "XenstoreDomainInterface",
    2076,
    req=(0, "1024s"),
    rsp=(1024, "1024s"),
    req_cons=(2048, "I"),
    req_prod=(2052, "I"),
    rsp_cons=(2056, "I"),
    rsp_prod=(2060, "I"),
    server_features=(2064, "I"),
    connection=(2068, "I"),
    error=(2072, "I"),
)
