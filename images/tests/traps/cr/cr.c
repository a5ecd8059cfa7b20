/* cr: the control registers as the guest has them (pv/emul-priv-op.c, read_cr and write_cr). */
#include "kit.h"

enum { TS_BIT = 8, DE_BIT = 8, FSGSBASE_BIT = 1 << 16 };
#define GUEST_CR0 0x80050033ul /* PE MP ET NE WP AM PG */
#define READ(register) ({ word value_; asm volatile("mov %%" register ", %0" : "=r"(value_)); value_; })
#define WRITE(register, value) TRY("mov %0, %%" register, : : "r"((word)(value)) : "memory")

static void check_refused(const char *name, int taken)
{
    check(taken && fault.vector == GP && fault.code == 0 && fault.frame.rip == fault.at, name, "trap %u, code %lx",
          taken ? fault.vector : 99, fault.code);
}

VARIATION(cr0, "CR0: only TS can be changed")
{
    check_equal(READ("cr0"), GUEST_CR0, "CR0");
    check(!WRITE("cr0", GUEST_CR0 | TS_BIT), "TS set", "trap %u", fault.vector);
    check_equal(READ("cr0"), GUEST_CR0 | TS_BIT, "CR0 with TS");
    TRAPS("the next FPU instruction traps", NM, 0, TRY("fnop", :));
    check_equal(READ("cr0"), GUEST_CR0, "which clears TS");
    NO_TRAP("and the one after does not", TRY("fnop", :));
    MUST(hypercall(FPU_TASKSWITCH, 1));
    check_equal(READ("cr0"), GUEST_CR0 | TS_BIT, "fpu_taskswitch is the same");
    asm volatile("clts");
    check_equal(READ("cr0"), GUEST_CR0, "clts");
    check_refused("WP", WRITE("cr0", GUEST_CR0 & ~(1ul << 16)));
    check_refused("PG", WRITE("cr0", GUEST_CR0 & ~(1ul << 31)));
    check_refused("EM", WRITE("cr0", GUEST_CR0 | 4));
#if BITS == 64
    check_refused("upper bits", WRITE("cr0", GUEST_CR0 | 1ul << 40));
#endif
    check_equal(READ("cr0"), GUEST_CR0, "CR0 is as it was");
}

VARIATION(cr3, "CR3: the kernel's root, by its machine address")
{
    check_equal(READ("cr3"), frame_address(root_mfn()), "CR3");
    check(own_frame(READ("cr3") / PAGE), "is one of ours", "frame %lx", READ("cr3") / PAGE);
    check(!WRITE("cr3", READ("cr3")), "written as it is", "trap %u", fault.vector);
    check_refused("no RAM", WRITE("cr3", frame_address(NO_RAM)));
    check_refused("a page that is mapped writable", WRITE("cr3", address_of(page())));
    check_refused("all ones", WRITE("cr3", ~0ul));
    make_user();
    user(user_return, 0);
    check_equal(READ("cr3"), frame_address(root_mfn()), "after user code, the kernel's again");
#if BITS == 64
    u64 *root = table();
    for (int i = 0; i < ENTRIES; i++)
        if (i < entry_index(HOLE, 4) || i >= entry_index(HOLE_END, 4))
            MUST(update(address_of(root + i), entry((word)i << 39 | (i > 255 ? 0xfffful << 48 : 0), 4)));
    word old = READ("cr3");
    check(!WRITE("cr3", address_of(root)), "another root", "trap %u", fault.vector);
    check_equal(READ("cr3"), address_of(root), "CR3 then");
    check_equal(*(word *)M2P == M2P[0], 1, "with Xen's part in it");
    check(!WRITE("cr3", old), "and back", "trap %u", fault.vector);
#endif
}

VARIATION(cr4, "CR4: TSD, DE and FSGSBASE are the guest's, the rest stays")
{
    const word fixed = 0x660; /* PAE MCE OSFXSR OSXMMEXCPT */
    check_equal(READ("cr4"), fixed, "CR4");
    check(!WRITE("cr4", fixed | DE_BIT), "DE set", "trap %u", fault.vector);
    check_equal(READ("cr4"), fixed | DE_BIT, "CR4 with DE");
    check(TRY("mov %%dr4, %%" AX, : : : "rax"), "DR4 is then undefined", "none");
    check(!WRITE("cr4", fixed | 1 << 20 | 1 << 7), "SMEP and PGE", "trap %u", fault.vector);
    check_equal(READ("cr4"), fixed, "are ignored");
    check(!WRITE("cr4", 0), "none", "trap %u", fault.vector);
    check_equal(READ("cr4"), fixed, "changes nothing");
#if BITS == 64
    TRAPS("rdfsbase without FSGSBASE", UD, 0, TRY("rdfsbase %%rax", : : : "rax"));
    check(!WRITE("cr4", fixed | FSGSBASE_BIT), "FSGSBASE set", "trap %u", fault.vector);
    MUST(hypercall(SET_SEGMENT_BASE, 0, 0x5555000));
    word base = 0;
    NO_TRAP("rdfsbase with it", TRY("rdfsbase %0", : "=r"(base)));
    check_equal(base, 0x5555000, "reads the base");
#endif
}

VARIATION(others, "the registers that there are not")
{
    check_refused("CR1", TRY(".byte 0x0f, 0x20, 0xc8", : : : "rax"));
#if BITS == 64
    check_refused("CR8", TRY("mov %%cr8, %%rax", : : : "rax"));
    check_refused("CR8 written", TRY("mov %%rax, %%cr8", :));
#endif
}
