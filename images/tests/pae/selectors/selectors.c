/* selectors: a 32-bit guest's own segments, in frames, for handlers and behind hypercalls.

   A frame's cs has the ring that was interrupted. A handler begins on the code segment of its gate; the kernel's own
   trap leaves it the stack segment, user code's has that of stack_switch. Data segments are as they were (compat/entry.S,
   compat_create_bounce_frame). */
#include "descriptors.h"

enum { OWN_CS = 0x09, OWN_SS = 0x11, USERS_CS = 0x1b, USERS_SS = 0x23, NO_SS = 0x29 };

static void own_gdt(void)
{
    static const u64 descriptors[] = {
        0, 0x00cfba000000ffff, 0x00cfb2000000ffff, 0x00cffa000000ffff, 0x00cff2000000ffff, 0x00cf32000000ffff};
    own_gdt_of(descriptors, sizeof descriptors / sizeof *descriptors);
}

VARIATION(kernel, "of the kernel's own segments")
{
    u16 cs, ss;
    own_gdt();
    (void)TRY("mov %0, %%ss\nljmp $0x9, $88f\n88: ud2", : : "r"(OWN_SS) : "memory");
    asm volatile("mov %%cs, %0\nmov %%ss, %1" : "=r"(cs), "=r"(ss));
    check_equal(fault.vector, UD, "#UD");
    check_equal(fault.cs, OWN_CS, "cs");
    check_equal(fault.frame.live_cs, FLAT_KERNEL_CS, "the handler's cs");
    check_equal(fault.frame.live_ss, OWN_SS, "the handler's ss is the kernel's");
    check_equal(cs, OWN_CS, "cs after iret");
    check_equal(ss, OWN_SS, "ss after iret");
    hypercall(XEN_VERSION, 0);
    asm volatile("mov %%cs, %0\nmov %%ss, %1" : "=r"(cs), "=r"(ss));
    check_equal(cs, OWN_CS, "cs after a hypercall");
    check_equal(ss, OWN_SS, "ss after a hypercall");
    TRAPS("an ss that is not present", SS, NO_SS & ~3, TRY("mov %0, %%ss", : : "r"(NO_SS)));
    TRAPS("user code's ss", GP, USERS_SS & ~3, TRY("mov %0, %%ss", : : "r"(USERS_SS - 2)));
    TRAPS("no ss", GP, 0, TRY("mov %0, %%ss", : : "r"(0)));
}

USER __attribute__((naked)) static void user_ud2(void)
{
    asm("ud2");
}

USER __attribute__((naked)) static void user_own_data(void)
{
    asm("mov $0x23, %eax\nmov %eax, %ss\nmov %eax, %ds\nint $0x80\nud2");
}

VARIATION(of_user, "of user code's own segments")
{
    own_gdt();
    user_as(user_ud2, 0, USERS_CS, 0x202);
    check_equal(fault.vector, UD, "#UD");
    check_equal(fault.cs, USERS_CS, "its cs");
    user_as(user_own_data, 0, USERS_CS, 0x202);
    check_equal(fault.vector, FROM_SYSCALL, "a system call");
    check_equal(fault.cs, USERS_CS, "cs of a system call");
    check_equal(fault.frame.ss, USERS_SS, "ss of a system call");
    check_equal(fault.frame.live_ds, USERS_SS, "ds stays user code's");
    check_equal(fault.frame.live_cs, FLAT_KERNEL_CS, "the handler's cs");
    check_equal(fault.frame.live_ss, FLAT_KERNEL_SS, "the handler's ss is stack_switch's");
}

VARIATION(data, "data segments are the guest's to load, and traps leave them")
{
    u16 ds, es;
    own_gdt();
    asm volatile("mov %0, %%ds\nmov %0, %%es" : : "r"(OWN_SS));
    (void)TRY("ud2", :);
    check_equal(fault.frame.live_ds, OWN_SS, "the handler's ds");
    check_equal(fault.frame.live_es, OWN_SS, "the handler's es");
    asm volatile("mov %%ds, %0\nmov %%es, %1" : "=r"(ds), "=r"(es));
    check_equal(ds, OWN_SS, "ds after iret");
    check_equal(es, OWN_SS, "es after iret");
    hypercall(XEN_VERSION, 0);
    asm volatile("mov %%ds, %0\nmov %%es, %1" : "=r"(ds), "=r"(es));
    check_equal(ds, OWN_SS, "ds after a hypercall");
    check_equal(es, OWN_SS, "es after a hypercall");
}

VARIATION(ldt, "segments of an LDT, which Xen maps when they are used")
{
    u64 *ldt = table();
    set_descriptor(ldt + 1, 0x00cfb2000000ffffull);
    set_descriptor(ldt + 2, 0x00cffa000000ffffull);
    TRAPS("without an LDT", GP, 8 | 4, TRY("mov %0, %%es", : : "r"(8 | 5)));
    MUST(mmuext(SET_LDT, (word)ldt, 512));
    NO_TRAP("with one", TRY("mov %0, %%es", : : "r"(8 | 5)));
    TRAPS("an empty entry", GP, 24 | 4, TRY("mov %0, %%es", : : "r"(24 | 5)));
    user_as(user_ud2, 0, 16 | 7, 0x202);
    check_equal(fault.vector, UD, "user code in a code segment of it");
    check_equal(fault.cs, 16 | 7, "its cs");
    MUST(mmuext(SET_LDT, TEST_AREA(4), 512));
    check(TRY("mov %0, %%es", : : "r"(8 | 5)) && fault.vector == PF && fault.cr2 == TEST_AREA(4) + 8 && fault.code == 0,
          "one that is not mapped", "trap %u, code %lx, CR2 %lx", fault.vector, fault.code, fault.cr2);
}

VARIATION(stack_base, "pushf on a stack whose segment has a base, which flags it pushes")
{
    static const u64 descriptors[] = {0, 0x40cfb2000000ffff};
    u32 seen = 0;
    own_gdt_of(descriptors, sizeof descriptors / sizeof *descriptors);
    asm volatile("mov %%ss, %%edx\nmov %1, %%ss\nsub $0x40000000, %%esp\nmov $5000, %%ecx\n"
                 "1: pushf\npop %%eax\nor %%eax, %0\nnop\nnop\ndec %%ecx\njnz 1b\n"
                 "add $0x40000000, %%esp\nmov %%edx, %%ss" : "+r"(seen) : "r"(8 | 1) : "eax", "ecx", "edx", "memory");
    check_equal(seen & 0x100, 0, "TF");
}
