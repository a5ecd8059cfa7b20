"""Start of day: the vCPU as PV guests find it (public/xen.h, "Start-of-day memory layout"; Xen arch_set_info_guest)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi.arch_x86 import FLAT_RING1_DS
from stub.abi.cpufeatureset import XSTATE_FP_SSE
from stub.abi.x86_defns import X86_CR4_OSXSAVE
from stub.abi.xen import VMASST_TYPE_writable_pagetables
from stub.domain.builder import start_registers
from stub.domain.xenarea import GDT_LIMIT, GDT_VA, TRAMPOLINE_VA
from stub.engine.base import CR0, CR3, CR4, CS, DS, ES, FS, GS, RFLAGS, RIP, RSI, RSP, SS
from stub.hypervisor import assists, cpuid, runstate
from stub.hypervisor.clock import SECOND
from stub.hypervisor.vcpu import VCPU_INFO_MASK
from stub.memory.frames import L1, L2, L3, L4

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_ENGINE_CR0 = 0x8001_0033  # PE MP ET NE WP PG
_ENGINE_CR4 = 0x0000_0668  # DE PAE MCE OSFXSR OSXMMEXCPT
_PERIOD = 10_000_000  # ns, of the timer that each vCPU starts with


def _show_cpu(xen: Hypervisor) -> None:
    """CPUID as the engine's CPU allows. With XSAVE, XCR0 is that of a vCPU that never set it (__context_switch)."""
    vcpu = xen.vcpu
    policy = cpuid.Policy(vcpu.compat, xen.engine.cpuid, xen.domain.config.without)
    if policy.xcr0_max:
        xen.words[CR4] |= X86_CR4_OSXSAVE
        xen.engine.load_xcr0(XSTATE_FP_SSE)
        vcpu.xcr0 = XSTATE_FP_SSE
    vcpu.show_cpu(policy)


def start(xen: Hypervisor) -> None:
    """Put the vCPU at the guest's entry point."""
    domain, words, vcpu = xen.domain, xen.words, xen.vcpu
    registers = start_registers(domain)
    shared_info = vcpu.info_at
    for number in range(32):
        xen.ram_bytes[shared_info + 64 * number + VCPU_INFO_MASK] = 1
    xen.clock.write_wallclock(shared_info, domain.bits, domain.config.epoch * SECOND)
    runstate.update_time(xen)
    if domain.config.compat == "xen-3":
        assists.switch(xen, VMASST_TYPE_writable_pagetables, True)
        xen.writable_tables = L1, L2, L3, L4
    vcpu.kernel_root = domain.root
    domain.types.get_page_and_type(domain.root, domain.types.root_level)
    domain.types.show_m2p(domain.root)
    vcpu.kernel_sp = registers["rsp"]
    domain.guest.root = (domain.area.monitor or domain.root) << 12
    words[CR0], words[CR3], words[CR4] = _ENGINE_CR0, domain.guest.root, _ENGINE_CR4
    words[RSI] = registers["rsi"]
    stack = domain.area.entry_frame(
        registers["rip"], registers["cs"], registers["rflags"], registers["rsp"], registers["ss"]
    )
    for word, name in ((RIP, "rip"), (CS, "cs"), (RFLAGS, "rflags"), (RSP, "rsp"), (SS, "ss")):
        words[word] = registers[name]
    if vcpu.compat:  # the trampoline loads them
        for word in (DS, ES, FS, GS):
            words[word] = FLAT_RING1_DS
    xen.onlookers.set_reflex()
    xen.engine.start(TRAMPOLINE_VA, stack, GDT_VA, GDT_LIMIT, domain.area.empty_root << 12)
    _show_cpu(xen)
    xen.period = _PERIOD
    xen.clock.arm("periodic", xen.period)
    xen.clock.arm("time", runstate.TIME_UPDATE)
    xen.log.start(0, registers["rip"], registers["rsp"], domain.layout.nr_pages)
