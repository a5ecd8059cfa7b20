"""xen/vcpu.h: vcpu_op."""

from __future__ import annotations

from stub.abi.layout import Struct, Twin
from stub.abi.names import value_names

# vcpu_op commands.
VCPUOP_initialise = 0
VCPUOP_up = 1
VCPUOP_down = 2
VCPUOP_is_up = 3
VCPUOP_get_runstate_info = 4
VCPUOP_register_runstate_memory_area = 5
VCPUOP_set_periodic_timer = 6
VCPUOP_stop_periodic_timer = 7
VCPUOP_set_singleshot_timer = 8
VCPUOP_stop_singleshot_timer = 9
VCPUOP_register_vcpu_info = 10
VCPUOP_send_nmi = 11
VCPUOP_get_physid = 12
VCPUOP_register_vcpu_time_memory_area = 13

VCPU_OPS = value_names(globals(), "VCPUOP_")

# vcpu_runstate_info.state.
RUNSTATE_running = 0
RUNSTATE_runnable = 1
RUNSTATE_blocked = 2
RUNSTATE_offline = 3

RUNSTATES = value_names(globals(), "RUNSTATE_")

# Set in vcpu_runstate_info.state_entry_time while Xen writes (VMASST_TYPE_runstate_update_flag).
XEN_RUNSTATE_UPDATE = 1 << 63

# vcpu_set_singleshot_timer.flags: fail with -ETIME when the time has passed.
VCPU_SSHOTTMR_future = 1 << 0

# Nanoseconds; time is indexed by RUNSTATE_*.
VcpuRunstateInfo64 = Struct("VcpuRunstateInfo64", 48, state=(0, "i"), state_entry_time=(8, "Q"), time=(16, "4Q"))
VcpuRunstateInfo32 = Struct("VcpuRunstateInfo32", 44, state=(0, "i"), state_entry_time=(4, "Q"), time=(12, "4Q"))
VcpuRunstateInfo = Twin(VcpuRunstateInfo64, VcpuRunstateInfo32)

VcpuRegisterRunstateMemoryArea = Struct("VcpuRegisterRunstateMemoryArea", 8, addr=(0, "Q"))

VcpuSetPeriodicTimer = Struct("VcpuSetPeriodicTimer", 8, period_ns=(0, "Q"))

VcpuSetSingleshotTimer64 = Struct("VcpuSetSingleshotTimer64", 16, timeout_abs_ns=(0, "Q"), flags=(8, "I"))
VcpuSetSingleshotTimer32 = Struct("VcpuSetSingleshotTimer32", 12, timeout_abs_ns=(0, "Q"), flags=(8, "I"))
VcpuSetSingleshotTimer = Twin(VcpuSetSingleshotTimer64, VcpuSetSingleshotTimer32)

VcpuRegisterVcpuInfo = Struct("VcpuRegisterVcpuInfo", 16, mfn=(0, "Q"), offset=(8, "I"), rsvd=(12, "I"))

VcpuGetPhysid = Struct("VcpuGetPhysid", 8, phys_id=(0, "Q"))

VcpuRegisterTimeMemoryArea = Struct("VcpuRegisterTimeMemoryArea", 8, addr=(0, "Q"))
