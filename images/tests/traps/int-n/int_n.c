/* int-n: software interrupts. Xen's own gates are closed but for 3, 4 and 0x80; of the #GP that the others are, it
   makes the guest's interrupt if the DPL in the guest's table allows it: 1 at least for the kernel, 3 for user code
   (traps.c, do_general_protection; x86_64/entry.S, entry_int80). */
#include "kit.h"

#define CODE(vector) ((vector) << 3 | 2)

static int from_kernel(void)
{
    return TRY("int $0x40", :);
}

USER __attribute__((naked)) static void user_int(void)
{
    asm("int $0x40\nud2");
}

USER __attribute__((naked)) static void user_int80(void)
{
    asm("mov $20, %eax\nint $0x80\nud2");
}

USER __attribute__((naked)) static void user_int3(void)
{
    asm("int3\nud2");
}

USER __attribute__((naked)) static void user_int82(void)
{
    asm("int $0x82\nud2");
}

/* At TRY's instruction, or at user code's. */
static word place(const void *code)
{
    return code ? user_address(code) : fault.at;
}

static void check_refused(const char *name, int taken, unsigned vector, const void *code)
{
    check(taken && fault.vector == GP && fault.code == CODE(vector) && fault.frame.rip == place(code), name,
          "trap %u, code %lx, rip %lx instead of %lx", fault.vector, fault.code, fault.frame.rip, place(code));
}

static void check_allowed(const char *name, int taken, unsigned vector, const void *code, unsigned length)
{
    check(taken && fault.vector == vector && fault.frame.rip == place(code) + length, name,
          "trap %u, code %lx, rip %lx instead of %lx", fault.vector, fault.code, fault.frame.rip, place(code) + length);
}

VARIATION(kernel, "by the kernel")
{
    set_gate(0x40, 0, 0);
    check_refused("DPL 0", from_kernel(), 0x40, 0);
    set_gate(0x40, 1, 0);
    check_allowed("DPL 1", from_kernel(), 0x40, 0, 2);
    set_gate(0x40, 2, 0);
    check_allowed("DPL 2", from_kernel(), 0x40, 0, 2);
    set_gate(0x40, 3 | GATE_MASKS, 0);
    shared->vcpu[0].mask = 0;
    check_allowed("DPL 3", from_kernel(), 0x40, 0, 2);
    check_equal(fault.entry_mask, 1, "its gate masks events");
    check_equal(fault.entry_rsp, (fault.frame.rsp & -FRAME_ALIGN) - FRAME_WORDS * sizeof(word), "there is no code");
}

VARIATION(by_user, "by user code")
{
    for (unsigned dpl = 0; dpl < 4; dpl++) {
        static const char *const names[] = {"DPL 0", "DPL 1", "DPL 2", "DPL 3"};
        set_gate(0x40, dpl, 0);
        user(user_int, 0);
        if (dpl < 3)
            check_refused(names[dpl], fault.from_user, 0x40, user_int);
        else
            check_allowed(names[dpl], fault.from_user, 0x40, user_int, 2);
    }
}

VARIATION(int80, "int $0x80 is anybody's, whatever the DPL, if there is a handler")
{
    set_gate(0x80, 0, 0);
    check_allowed("by the kernel", TRY("int $0x80", :), 0x80, 0, 2);
    user(user_int80, 0);
    check_allowed("by user code", fault.from_user, 0x80, user_int80, 7);
    check_equal(fault.frame.rax, 20, "its number");
    set_gate(0x80, 3 | GATE_MASKS, 0);
    user(user_int80, 0);
    check_equal(fault.entry_mask, 1, "its gate masks events");
    struct trap_info gates[] = {{GP, 0, FLAT_KERNEL_CS, gate_address(GP)}, {0}};
    MUST(hypercall(SET_TRAP_TABLE, 0));
    MUST(hypercall(SET_TRAP_TABLE, gates));
    check_refused("without a handler", TRY("int $0x80", :), 0x80, 0);
}

VARIATION(breakpoints, "int3 is anybody's")
{
    set_gate(BP, 0, 0);
    check_allowed("int3", TRY("int3", :), BP, 0, 1);
    check_allowed("int $3", TRY(".byte 0xcd, 3", :), BP, 0, 2);
    user(user_int3, 0);
    check_allowed("by user code", fault.from_user, BP, user_int3, 1);
    check_allowed("int $4", TRY("int $4", :), OF, 0, 2);
}

VARIATION(exceptions, "exceptions' own numbers")
{
    set_gate(UD, 0, 0);
    check_refused("int $6", TRY("int $6", :), UD, 0);
    check_refused("int $1", TRY("int $1", :), DB, 0);
    check_refused("int $2", TRY("int $2", :), NMI, 0);
    check_refused("int $13", TRY("int $13", :), GP, 0);
    asm volatile("mov %0, %%cr2" : : "r"(0x5550ul));
    check_refused("int $14", TRY("int $14", :), PF, 0);
    check_equal(read_cr2(), 0x5550, "CR2 stays");
}

VARIATION(int82, "int $0x82 is no hypercall of a 64-bit guest, and none of user code")
{
#if BITS == 64
    check_refused("by the kernel", TRY("int $0x82", : : "a"(XEN_VERSION), "D"(0)), 0x82, 0);
#endif
    user(user_int82, 0);
    check_refused("by user code", fault.from_user, 0x82, user_int82);
}

VARIATION(high, "the last one")
{
    check_refused("refused", TRY("int $0xff", :), 0xff, 0);
    set_gate(0xff, 1, 0);
    check_allowed("allowed", TRY("int $0xff", :), 0xff, 0, 2);
}
