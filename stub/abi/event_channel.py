"""xen/event_channel.h: event channels, 2-level and FIFO."""

from __future__ import annotations

from stub.abi.layout import Struct
from stub.abi.names import value_names

# event_channel_op commands.
EVTCHNOP_bind_interdomain = 0
EVTCHNOP_bind_virq = 1
EVTCHNOP_bind_pirq = 2
EVTCHNOP_close = 3
EVTCHNOP_send = 4
EVTCHNOP_status = 5
EVTCHNOP_alloc_unbound = 6
EVTCHNOP_bind_ipi = 7
EVTCHNOP_bind_vcpu = 8
EVTCHNOP_unmask = 9
EVTCHNOP_reset = 10
EVTCHNOP_init_control = 11
EVTCHNOP_expand_array = 12
EVTCHNOP_set_priority = 13
EVTCHNOP_reset_cont = 14  # the rest of a reset that was interrupted; Xen's own

EVTCHN_OPS = value_names(globals(), "EVTCHNOP_")

# evtchn_status.status.
EVTCHNSTAT_closed = 0
EVTCHNSTAT_unbound = 1
EVTCHNSTAT_interdomain = 2
EVTCHNSTAT_pirq = 3
EVTCHNSTAT_virq = 4
EVTCHNSTAT_ipi = 5

EVTCHN_STATUSES = value_names(globals(), "EVTCHNSTAT_")

# evtchn_bind_pirq.flags.
BIND_PIRQ__WILL_SHARE = 1

# Ports of the 2-level ABI: a bit each in shared_info. EVTCHN_2L_NR_CHANNELS of either width.
EVTCHN_2L_NR_CHANNELS64 = 4096
EVTCHN_2L_NR_CHANNELS32 = 1024

# The FIFO ABI: priorities (0 is the highest), bit numbers of an event word, sizes.
EVTCHN_FIFO_PRIORITY_MAX = 0
EVTCHN_FIFO_PRIORITY_DEFAULT = 7
EVTCHN_FIFO_PRIORITY_MIN = 15
EVTCHN_FIFO_MAX_QUEUES = 16
EVTCHN_FIFO_PENDING = 31
EVTCHN_FIFO_MASKED = 30
EVTCHN_FIFO_LINKED = 29
EVTCHN_FIFO_BUSY = 28
EVTCHN_FIFO_LINK_BITS = 17
EVTCHN_FIFO_LINK_MASK = 131071
EVTCHN_FIFO_NR_CHANNELS = 131072

EvtchnAllocUnbound = Struct("EvtchnAllocUnbound", 8, dom=(0, "H"), remote_dom=(2, "H"), port=(4, "I"))

EvtchnBindInterdomain = Struct(
    "EvtchnBindInterdomain", 12, remote_dom=(0, "H"), remote_port=(4, "I"), local_port=(8, "I")
)

EvtchnBindVirq = Struct("EvtchnBindVirq", 12, virq=(0, "I"), vcpu=(4, "I"), port=(8, "I"))

EvtchnBindPirq = Struct("EvtchnBindPirq", 12, pirq=(0, "I"), flags=(4, "I"), port=(8, "I"))

EvtchnBindIpi = Struct("EvtchnBindIpi", 8, vcpu=(0, "I"), port=(4, "I"))

EvtchnClose = Struct("EvtchnClose", 4, port=(0, "I"))

EvtchnSend = Struct("EvtchnSend", 4, port=(0, "I"))

# The last five are a union; status says which hold.
EvtchnStatus = Struct(
    "EvtchnStatus",
    24,
    dom=(0, "H"),
    port=(4, "I"),
    status=(8, "I"),
    vcpu=(12, "I"),
    unbound_dom=(16, "H"),
    interdomain_dom=(16, "H"),
    interdomain_port=(20, "I"),
    pirq=(16, "I"),
    virq=(16, "I"),
)

EvtchnBindVcpu = Struct("EvtchnBindVcpu", 8, port=(0, "I"), vcpu=(4, "I"))

EvtchnUnmask = Struct("EvtchnUnmask", 4, port=(0, "I"))

EvtchnReset = Struct("EvtchnReset", 2, dom=(0, "H"))

EvtchnInitControl = Struct(
    "EvtchnInitControl",
    24,
    control_gfn=(0, "Q"),
    offset=(8, "I"),
    vcpu=(12, "I"),
    link_bits=(16, "B"),
)

EvtchnExpandArray = Struct("EvtchnExpandArray", 8, array_gfn=(0, "Q"))

EvtchnSetPriority = Struct("EvtchnSetPriority", 8, port=(0, "I"), priority=(4, "I"))

# event_channel_op_compat's one argument; u is the command's own structure.
EvtchnOp = Struct("EvtchnOp", 28, cmd=(0, "I"), u=(4, "24s"))

EvtchnFifoControlBlock = Struct("EvtchnFifoControlBlock", 72, ready=(0, "I"), head=(8, "16I"))
