"""xen/sched.h: sched_op and shutdown reasons."""

from __future__ import annotations

from stub.abi.layout import Struct, Twin
from stub.abi.names import value_names

# sched_op commands.
SCHEDOP_yield = 0
SCHEDOP_block = 1
SCHEDOP_shutdown = 2
SCHEDOP_poll = 3
SCHEDOP_remote_shutdown = 4
SCHEDOP_shutdown_code = 5
SCHEDOP_watchdog = 6
SCHEDOP_pin_override = 7

SCHED_OPS = value_names(globals(), "SCHEDOP_")

# sched_shutdown.reason.
SHUTDOWN_poweroff = 0
SHUTDOWN_reboot = 1
SHUTDOWN_suspend = 2
SHUTDOWN_crash = 3
SHUTDOWN_watchdog = 4
SHUTDOWN_soft_reset = 5

SHUTDOWN_REASONS = value_names(globals(), "SHUTDOWN_")

# The highest of them.
SHUTDOWN_MAX = 5

SchedShutdown = Struct("SchedShutdown", 4, reason=(0, "I"))

# ports is a guest pointer to evtchn_port_t; timeout is absolute system time, 0: none.
SchedPoll64 = Struct("SchedPoll64", 24, ports=(0, "Q"), nr_ports=(8, "I"), timeout=(16, "Q"))
SchedPoll32 = Struct("SchedPoll32", 16, ports=(0, "I"), nr_ports=(4, "I"), timeout=(8, "Q"))
SchedPoll = Twin(SchedPoll64, SchedPoll32)

SchedRemoteShutdown = Struct("SchedRemoteShutdown", 8, domain_id=(0, "H"), reason=(4, "I"))

# Seconds.
SchedWatchdog = Struct("SchedWatchdog", 8, id=(0, "I"), timeout=(4, "I"))

SchedPinOverride = Struct("SchedPinOverride", 4, pcpu=(0, "i"))
