/* What hostile guests have found, each as small as it can be told. */
#include "kit.h"

#if BITS == 64 /* all of it is of 64-bit guests: user code of other widths, addresses that are none */

extern char to_vm86[], to_vm86_end[], just_traps[], far_return[];
asm(".section .user, \"ax\"\n"
    ".code32\n"
    "to_vm86:\n"
    "    call 1f\n"
    "1:  pop %eax\n"
    "    add $(to_vm86_end - 1b), %eax\n"
    "    push $0\n" /* gs, fs, ds, es, ss, esp: for whoever takes VM at its word */
    "    push $0\n"
    "    push $0\n"
    "    push $0\n"
    "    push $0\n"
    "    push $0xfff0\n"
    "    push $0x20202\n" /* VM */
    "    mov %cs, %ecx\n"
    "    push %ecx\n"
    "    push %eax\n"
    "    iret\n"
    "to_vm86_end:\n"
    "    ud2\n"
    "just_traps:\n"
    "    ud2\n"
    ".code64\n"
    "far_return:\n" /* to the offset in rdi, in the guest's first segment */
    "    push $11\n"
    "    push %rdi\n"
    "    lretq\n"
    ".text\n");

VARIATION(vm86, "32-bit user code that asks its own iret for virtual-8086 mode: the kernel goes on after the next trap")
{
    user_as(to_vm86, 0, FLAT_USER_CS32, 0x202);
    check(fault.from_user, "a trap from user mode", "trap %u", fault.vector);
    user(user_return, 17); /* the next is as it should be */
    check_equal(fault.vector, FROM_SYSCALL, "64-bit code afterwards");
}

VARIATION(half_address, "update_va_mapping for a kernel address without its upper bits, which is not canonical")
{
    u8 *at = page();
    watch(at);
    REFUSED("unmapped", EINVAL, map((word)at & 0xffffffffffff, 0));
    REFUSED("mapped read-only", EINVAL, map((word)at & 0xffffffffffff, address_of(at) | DATA_RO));
    REFUSED("by way of the other domain's call", EINVAL,
            hypercall(UPDATE_VA_MAPPING_OTHERDOMAIN, (word)at & 0xffffffffffff, 0, UVMF_INVLPG, DOMID_SELF));
}

/* User code in a segment of the guest's own GDT that begins at `base`: by Xen's iret, or by a far return. */
static void go_there(u64 kind, unsigned long base, int by_itself)
{
    u64 *gdt = page();
    gdt[1] = kind | (base & 0xffffff) << 16 | (u64)(base >> 24 & 0xff) << 56;
    MUST(read_only(gdt));
    word frames[1] = {mfn_of(gdt)};
    MUST(hypercall(SET_GDT, frames, 512));
    word offset = user_address(just_traps) - base;
    if (by_itself)
        user(far_return, offset);
    else
        user_as(just_traps - base, 0, 1 << 3 | 3, 0x202);
    check_equal(fault.vector, UD, "the trap is the one that was to come");
    check_equal(fault.frame.rip, offset, "RIP");
    check_equal(fault.cs, 1 << 3 | 3, "CS");
    user(user_return, 17); /* the next is as it should be */
    check_equal(fault.vector, FROM_SYSCALL, "64-bit code afterwards");
}

VARIATION(based, "a trap from a 32-bit code segment that does not begin at 0")
{
    go_there(0x00cffb000000ffff, 0x1000, 0);
}

VARIATION(based_far, "the same, when user code went there by itself")
{
    go_there(0x00cffb000000ffff, 0x1000, 1);
}

VARIATION(narrow, "a trap from a 16-bit code segment that does not begin at 0")
{
    go_there(0x008ffb000000ffff, USER_CODE, 0);
}

VARIATION(narrow_far, "the same, when user code went there by itself")
{
    go_there(0x008ffb000000ffff, USER_CODE, 1);
}
#endif
