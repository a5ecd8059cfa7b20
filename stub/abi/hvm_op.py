"""xen/hvm/hvm_op.h: hvm_op, as far as a PV guest gets an answer."""

from __future__ import annotations

from stub.abi.layout import Struct
from stub.abi.names import value_names

# hvm_op commands.
HVMOP_set_param = 0
HVMOP_get_param = 1
HVMOP_flush_tlbs = 5
HVMOP_pagetable_dying = 9
HVMOP_get_time = 10
HVMOP_xentrace = 11
HVMOP_get_mem_type = 15
HVMOP_set_evtchn_upcall_vector = 23
HVMOP_guest_request_vm_event = 24
HVMOP_altp2m = 25

HVM_OPS = value_names(globals(), "HVMOP_")

# How many parameters there are (xen/hvm/params.h).
HVM_NR_PARAMS = 39

XenHvmParam = Struct("XenHvmParam", 16, domid=(0, "H"), index_=(4, "I"), value=(8, "Q"))

XenHvmPagetableDying = Struct("XenHvmPagetableDying", 16, domid=(0, "H"), gpa=(8, "Q"))

XenHvmGetTime = Struct("XenHvmGetTime", 8, now=(0, "Q"))

XenHvmXentrace = Struct("XenHvmXentrace", 32, event=(0, "H"), extra_bytes=(2, "H"), extra=(4, "28s"))

XenHvmGetMemType = Struct("XenHvmGetMemType", 16, domid=(0, "H"), mem_type=(2, "H"), pfn=(8, "Q"))
