/* What hostile guests have found, each as small as it can be told. */
#include "kit.h"

extern char to_vm86[], to_vm86_end[], just_traps[];
asm(".section .user, \"ax\"\n"
    ".code32\n"
    "to_vm86:\n"
    "    call 1f\n"
    "1:  pop %eax\n"
    "    add $(to_vm86_end - 1b), %eax\n"
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
    ".text\n");

VARIATION(vm86, "32-bit user code that asks iret for virtual-8086 mode does not get it")
{
    user_as(to_vm86, 0, FLAT_USER_CS32, 0x202);
    check_equal(fault.vector, UD, "the trap is the instruction's behind the iret");
    check_equal(fault.frame.rip, user_address(to_vm86_end), "RIP");
    check_equal(fault.cs, FLAT_USER_CS32, "CS");
    check_equal(fault.frame.rflags & 1 << 17, 0, "VM");
}

/* The base is the code segment's own: what runs next, in the kernel, is not there. */
static void based(unsigned long base, u64 kind)
{
    u64 *gdt = page();
    gdt[1] = kind | (base & 0xffffff) << 16 | (base >> 24 & 0xff) << 56;
    MUST(read_only(gdt));
    word frames[1] = {mfn_of(gdt)};
    MUST(hypercall(SET_GDT, frames, 512));
    make_user();
    word linear = user_address(just_traps);
    user_as((void *)((word)just_traps - base), 0, 1 << 3 | 3, 0x202);
    check_equal(fault.vector, UD, "the trap is the one that was to come");
    check_equal(fault.frame.rip, linear - base, "RIP");
}

VARIATION(based, "a trap from a 32-bit code segment that does not begin at 0")
{
    based(0x1000, 0x00cffb000000ffff);
}

VARIATION(narrow, "a trap from a 16-bit code segment that does not begin at 0")
{
    based(USER_CODE, 0x008ffb000000ffff);
}
