"""Page faults: Xen's own fix-ups first, then the guest's handler (arch/x86/traps.c, pv/ro-page-fault.c).

A kernel that asked for the writable_pagetables assist may store to an L1 table that it has mapped read-only: the
store is decoded and applied as a checked update. Anything else is left as the fault it is. A 32-bit guest may write
an entry in two halves. With ``compat`` xen-3 a table of any level will do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi.x86_defns import (
    X86_EXC_GP,
    PFEC_insn_fetch,
    PFEC_page_present,
    PFEC_reserved_bit,
    PFEC_user_mode,
    PFEC_write_access,
)
from stub.domain.xenarea import LDT_VA
from stub.engine.base import CS, FLUSH, RIP
from stub.hypervisor import segments, traps
from stub.hypervisor.store import decode_store
from stub.memory import entries as e
from stub.memory.frames import L1
from stub.memory.guest import GuestFault
from stub.units import U64, is_canonical

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_WRITE_TO_READ_ONLY = PFEC_write_access | PFEC_page_present
_LDT_SELECTOR = 4
_LDT_START, _LDT_END = LDT_VA, LDT_VA + 16 * 4096


def page_fault(xen: Hypervisor, address: int, code: int) -> None:
    """A #PF at RIP for ``address``, with the CPU's error code."""
    kernel = xen.vcpu.kernel_mode
    if _LDT_START <= address < _LDT_END:
        if segments.map_ldt_page(xen, (address - LDT_VA) >> 12):
            return
        offset = address - LDT_VA
        address, code = (xen.vcpu.ldt_base + offset) & (0xFFFFFFFF if xen.vcpu.compat else U64), 0
        if not is_canonical(address):  # of the LDT's own place (handle_ldt_mapping_fault)
            traps.inject(xen, X86_EXC_GP, offset & 0xFFF8 | _LDT_SELECTOR)
            return
    elif (
        kernel
        and xen.vcpu.writable_pagetables
        and code & (_WRITE_TO_READ_ONLY | PFEC_reserved_bit | PFEC_insn_fetch) == _WRITE_TO_READ_ONLY
        and write_page_table(xen, address)
    ):
        return
    code = code & ~PFEC_user_mode | (0 if kernel else PFEC_user_mode)
    traps.inject(xen, 14, code, address)


def write_page_table(xen: Hypervisor, address: int) -> bool:
    """Emulate a direct store to a page table (ptwr); whether it was done."""
    domain, words = xen.domain, xen.words
    try:
        maddr = domain.guest.locate(address)
    except GuestFault:
        return False
    mfn = maddr >> 12
    frames = domain.frames
    level = frames.type[mfn]
    if level not in xen.writable_tables or not frames.type_count[mfn]:
        return False
    rip = words[RIP]
    store = decode_store(xen, domain.guest.read_available(rip, 15), segments.is_64bit_code(xen, words[CS]))
    if store is None or address & (store.size - 1) or store.size > 8:
        return False
    old = domain.ram.words[maddr >> 3]
    shift = (maddr & 7) * 8
    mask = (1 << store.size * 8) - 1
    outcome = store.apply(old >> shift & mask)
    new = old if outcome is None else old & ~(mask << shift) | (outcome & mask) << shift
    rc = 0
    if outcome is not None:
        types = domain.types
        types.refusal = ""
        rc = types.mod_l1(maddr >> 3, new) if level == L1 else types.mod_upper(maddr >> 3, new, level)
        if rc and level == L1 and xen.vcpu.compat and store.plain and store.size == 4 and address & 4:
            new &= ~e.P  # the upper half came first: the lower one, with P, is to follow
            rc = types.mod_l1(maddr >> 3, new)
        if rc and types.refusal:
            xen.note(types.refusal)
    xen.log.pt_write(xen.clock.now, rip, address, maddr, new, store.size, rc)
    if rc:
        return False
    store.commit()
    if domain.types.stale:
        words[FLUSH] = 1
        domain.types.stale = False
    traps.step_over(xen, rip + store.length)
    return True
