/* selectors: CS and SS in frames, for handlers, and behind system calls.

   Kernel and user both run in ring 3. A frame's CS has RPL 0 for the kernel, so that the two can be told apart. A
   handler always begins on the flat segments, and a syscall instruction forgets which ones there were. */
#include "descriptors.h"

#if BITS == 64 /* the kernel's own ring; images/tests/pae has the other's */
#define OWN_CS 0x8
#define OWN_SS 0x10
#define OWN_CS32 0x18

static void own_gdt(void)
{
    u64 *gdt = table();
    MUST(update(address_of(gdt + OWN_CS / 8), 0x00affa000000ffffull));
    MUST(update(address_of(gdt + OWN_SS / 8), 0x00cff2000000ffffull));
    MUST(update(address_of(gdt + OWN_CS32 / 8), 0x00cffa000000ffffull));
    use_gdt(gdt);
}

/* In the kernel, on its own segments. */
#define ON_OWN_SEGMENTS "mov $0x13, %%eax\nmov %%eax, %%ss\npush $0xb\nlea 88f(%%rip), %%rax\npush %%rax\nlretq\n88: "

VARIATION(kernel, "of the kernel's own segments")
{
    own_gdt();
    word cs, ss;
    TRY(ON_OWN_SEGMENTS "ud2", : : : "rax", "memory");
    asm volatile("mov %%cs, %0\nmov %%ss, %1" : "=r"(cs), "=r"(ss));
    check_equal(fault.vector, UD, "#UD");
    check_equal(fault.cs, OWN_CS, "cs, with RPL 0");
    check_equal(fault.frame.ss, OWN_SS | 3, "ss");
    check_equal(fault.frame.live_cs, FLAT_KERNEL_CS, "the handler's cs");
    check_equal(fault.frame.live_ss, FLAT_KERNEL_SS, "the handler's ss");
    check_equal(cs, OWN_CS | 3, "cs after iret");
    check_equal(ss, OWN_SS | 3, "ss after iret");
    hypercall(XEN_VERSION, 0);
    asm volatile("mov %%cs, %0\nmov %%ss, %1" : "=r"(cs), "=r"(ss));
    check_equal(cs, FLAT_KERNEL_CS, "cs after a hypercall");
    check_equal(ss, FLAT_KERNEL_SS, "ss after a hypercall");
}

USER __attribute__((naked)) static void user_ud2(void)
{
    asm("ud2");
}

USER __attribute__((naked)) static void user_call(void)
{
    asm("push %rdi\nmov %ss, %edi\nsyscall");
}

USER __attribute__((naked)) static void user_own_ss(void)
{
    asm("mov $0x13, %eax\nmov %eax, %ss\nsyscall");
}

VARIATION(of_user, "of user code's own segments")
{
    own_gdt();
    user_as(user_ud2, 0, OWN_CS | 3, 0x202);
    check_equal(fault.cs, OWN_CS | 3, "cs of a trap");
    user_as(user_call, 0, OWN_CS | 3, 0x202);
    check_equal(fault.vector, FROM_SYSCALL, "a system call");
    check_equal(fault.cs, FLAT_USER_CS, "cs of a system call");
    user_as(user_own_ss, 0, OWN_CS | 3, 0x202);
    check_equal(fault.frame.ss, FLAT_USER_SS, "ss of a system call");
}

USER __attribute__((naked)) static void user_width(void)
{
    asm(".byte 0x40\nnop\nud2"); /* inc %eax with 32 bits, a prefix with 64 */
}

VARIATION(narrow, "user code of 32 bits, and its way back")
{
    own_gdt();
    user_as(user_width, 0, OWN_CS32 | 3, 0x202);
    check_equal(fault.vector, UD, "#UD");
    check_equal(fault.cs, OWN_CS32 | 3, "cs");
    check_equal(fault.frame.rax, 1, "it ran in 32 bits");
    user_as(user_width, 0, FLAT_USER_CS32, 0x202);
    check_equal(fault.cs, FLAT_USER_CS32, "Xen's segment for it");
    check_equal(fault.frame.rax, 1, "it ran in 32 bits there");
    user(user_width, 0);
    check_equal(fault.frame.rax, 0, "not in the flat one of 64");
}

VARIATION(data, "data segments are the guest's to load, and traps leave them")
{
    own_gdt();
    asm volatile("mov %0, %%ds\nmov %0, %%es" : : "r"(OWN_SS | 3));
    TRY("ud2", :);
    check_equal(fault.frame.live_ds, OWN_SS | 3, "the handler's ds");
    word ds = 0, es = 0;
    asm volatile("mov %%ds, %0\nmov %%es, %1" : "=r"(ds), "=r"(es));
    check_equal(ds, OWN_SS | 3, "ds after iret");
    hypercall(XEN_VERSION, 0);
    asm volatile("mov %%es, %0" : "=r"(es));
    check_equal(es, OWN_SS | 3, "es after a hypercall");
}

USER __attribute__((naked)) static void user_gs(void)
{
    asm("mov %gs:0, %rdi\nsyscall");
}

VARIATION(bases, "FS and GS have bases, one GS for each mode")
{
    word at = (word)page(), value = 0;
    *(word *)(at + 8) = 0x1234;
    MUST(hypercall(SET_SEGMENT_BASE, 0, at));
    asm volatile("mov %%fs:8, %0" : "=r"(value));
    check_equal(value, 0x1234, "FS base");
    MUST(hypercall(SET_SEGMENT_BASE, 2, at));
    value = 0;
    asm volatile("mov %%gs:8, %0" : "=r"(value));
    check_equal(value, 0x1234, "the kernel's GS base");
    MUST(hypercall(SET_SEGMENT_BASE, 1, USER_DATA));
    value = 0;
    asm volatile("mov %%gs:8, %0" : "=r"(value));
    check_equal(value, 0x1234, "is not the user's");
    check_equal(user(user_gs, 5), 0, "the user's own");
    check_equal(fault.vector, FROM_SYSCALL, "is loaded for user code");
    value = 0;
    asm volatile("mov %%gs:8, %0" : "=r"(value));
    check_equal(value, 0x1234, "and the kernel's is back");
}

VARIATION(ldt, "segments of an LDT, which Xen maps when they are used")
{
    u64 *ldt = table();
    MUST(update(address_of(ldt + 1), 0x00cff2000000ffffull));
    MUST(update(address_of(ldt + 2), 0x00affa000000ffffull));
    TRAPS("without an LDT", GP, 8 | 4, TRY("mov %0, %%es", : : "r"(8 | 7)));
    MUST(mmuext(SET_LDT, (word)ldt, 512));
    NO_TRAP("with one", TRY("mov %0, %%es", : : "r"(8 | 7)));
    TRAPS("an empty entry", GP, 24 | 4, TRY("mov %0, %%es", : : "r"(24 | 7)));
    user_as(user_ud2, 0, 16 | 7, 0x202);
    check_equal(fault.vector, UD, "user code in a code segment of it");
    check_equal(fault.cs, 16 | 7, "its cs");
    MUST(mmuext(SET_LDT, TEST_AREA(4), 512));
    check(TRY("mov %0, %%es", : : "r"(8 | 7)) && fault.vector == PF && fault.cr2 == TEST_AREA(4) + 8 && fault.code == 0,
          "one that is not mapped", "trap %u, code %lx, CR2 %lx", fault.vector, fault.code, fault.cr2);
    word writable_page = (word)page();
    MUST(mmuext(SET_LDT, writable_page, 512));
    check(TRY("mov %0, %%es", : : "r"(8 | 7)) && fault.vector == PF && fault.cr2 == writable_page + 8,
          "one that is mapped writable", "trap %u, code %lx, CR2 %lx", fault.vector, fault.code, fault.cr2);
    MUST(mmuext(SET_LDT, 0, 0));
}
#endif
