/* hidden: what a 32-bit guest does not see of the 64-bit Xen below it (pv/emul-priv-op.c; cpu-policy.c; mm.c). */
#include "kit.h"

enum { EFER = 0xc0000080, FS_BASE = 0xc0000100, GS_BASE = 0xc0000101, KERNEL_GS_BASE = 0xc0000102 };

#define RDMSR(number, low) TRY("rdmsr", : "=a"(low) : "c"(number) : "edx", "memory")
#define WRMSR(number) TRY("wrmsr", : : "a"(0), "d"(0), "c"(number) : "memory")

VARIATION(long_mode, "there is none")
{
    u32 low = 0, a = 0x80000001, b, c, d;
    NO_TRAP("EFER can be read", RDMSR(EFER, low));
    check_equal(low, 0x801, "and has SCE and NXE only");
    asm volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
    check_equal(d >> 29 & 1, 0, "LM");
    check_equal(c & 1, 0, "LAHF in 64-bit code");
    check_equal(d >> 20 & 1, 1, "NX is there");
    a = 1;
    asm volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
    check_equal(c >> 13 & 1, 0, "CX16");
    check_equal(d >> 6 & 1, 1, "PAE is there");
}

VARIATION(bases, "segments have their bases from descriptors")
{
    static const u32 numbers[] = {FS_BASE, GS_BASE, KERNEL_GS_BASE};
    static const char *const reads[] = {"reading FS", "reading GS", "reading the other GS"};
    static const char *const writes[] = {"writing FS", "writing GS", "writing the other GS"};
    for (unsigned i = 0; i < 3; i++) {
        u32 low;
        TRAPS(reads[i], GP, 0, RDMSR(numbers[i], low));
        TRAPS(writes[i], GP, 0, WRMSR(numbers[i]));
    }
}

USER __attribute__((naked)) static void user_m2p(void)
{
    asm("mov 0xf5800000, %eax\nint $0x80\nud2");
}

VARIATION(m2p, "of Xen's part the kernel can read the M2P, and user code nothing")
{
    word mfn = root_mfn();
    check_equal(M2P[mfn], pfn_of(table_at(mfn)), "the root's PFN");
    check(TRY("mov %0, (%1)", : : "r"(0), "r"(&M2P[mfn]) : "memory") && fault.vector == PF && fault.code == 3,
          "it cannot be written", "trap %u, code %lx", fault.vector, fault.code);
    user(user_m2p, 0);
    check(fault.vector == PF && fault.code == 5, "nor read by user code", "trap %u, code %lx", fault.vector, fault.code);
    check_equal(fault.cr2, HOLE, "CR2");
    word last = 0xfffff000;
    check(TRY("mov (%0), %%eax", : : "r"(last) : "eax", "memory") && fault.vector == PF && fault.code == 0,
          "nothing else is there", "trap %u, code %lx", fault.vector, fault.code);
    check_equal(fault.cr2, last, "CR2 there");
}

VARIATION(cr3, "CR3 names the root's frame")
{
    check_equal(read_cr3() >> 12, root_mfn(), "the L3's");
    asm volatile("mov %0, %%cr3" : : "r"(read_cr3()) : "memory");
    check_equal(read_cr3() >> 12, root_mfn(), "the same again");
}
