/* bad-stack: a frame that cannot be pushed ends the domain, and so does a trap that has no handler.

   There is no double fault: what goes wrong while Xen pushes a frame is the end (x86_64/entry.S,
   domain_crash_page_fault; pv/traps.c). */
#include "descriptors.h"


static void trap_on(word rsp)
{
    asm volatile("mov %0, %%" SP "\nud2" : : "r"(rsp));
}

CRASHING_VARIATION(unmapped, "fault on the kernel stack at ", "a stack that is not mapped")
{
    trap_on(TEST_AREA(1));
}

CRASHING_VARIATION(locked, "fault on the kernel stack at ", "a stack that is mapped read-only")
{
    word at = (word)page();
    MUST(read_only((void *)at));
    trap_on(at + PAGE);
}

CRASHING_VARIATION(guard, "fault on the kernel stack at ", "a stack that ran over into a page that is not mapped")
{
    word low = (word)page(), high = (word)page();
    MUST(unmap((void *)low));
    trap_on(high + 32);
}

CRASHING_VARIATION(page_table, "fault on the kernel stack at ", "a stack in a page table")
{
    word at = (word)table();
    MUST(mmuext(PIN_L1_TABLE, mfn_of((void *)at), 0));
    trap_on(at + PAGE);
}

CRASHING_VARIATION(m2p, "fault on the kernel stack at ", "a stack in the M2P")
{
    trap_on((word)M2P + PAGE);
}

CRASHING_VARIATION(hole, "fault on the kernel stack at ", "a stack in Xen's area")
{
    trap_on(HOLE_END - PAGE);
}

#if BITS == 64
CRASHING_VARIATION(hole_end, "fault on the kernel stack at ",
          "a stack right above Xen's area, into which the frame would reach")
{
    trap_on(HOLE_END + 32);
}

CRASHING_VARIATION(nowhere, "fault on the kernel stack at ", "a stack at no address")
{
    trap_on(NON_CANONICAL + PAGE);
}
#endif

CRASHING_VARIATION(bottom, "fault on the kernel stack at ", "a stack that wraps around")
{
    trap_on(16);
}

CRASHING_VARIATION(from_user, "fault on the kernel stack at ", "user code traps, and the kernel's stack is gone")
{
    make_user();
    MUST(hypercall(STACK_SWITCH, FLAT_KERNEL_SS, TEST_AREA(1)));
    user(user_return, 0);
}

CRASHING_VARIATION(event, "fault on the kernel stack at ", "an event on a stack that is gone")
{
    asm volatile("mov %0, %%" SP "\nmovb $0, %1\nmovb $1, %2\nmov $17, %%eax\n" XEN_CALL
                 : : "r"(TEST_AREA(1)), "m"(shared->vcpu[0].mask), "m"(shared->vcpu[0].pending) : "rax");
}

CRASHING_VARIATION(failsafe, "fault on the kernel stack at ", "the failsafe callback on a stack that is gone")
{
    u64 *gdt = table();
    MUST(update(address_of(gdt + 1), 0x00cff2000000ffffull));
    use_gdt(gdt);
    asm volatile("mov %0, %%ds" : : "r"(0xb));
    MUST(hypercall(SET_GDT, 0, 0));
    asm volatile("mov %0, %%" SP "\nmov $29, %%eax\nxor %%edi, %%edi\nxor %%ebx, %%ebx\n" XEN_CALL /* yield */
                 : : "r"(TEST_AREA(1)) : "rax", "rbx", "rdi");
}

CRASHING_VARIATION(handler, "fault on the kernel stack at ",
          "a page fault's handler that faults by pushing, again and again")
{
    word low = (word)page(), high = (word)page();
    static const u8 code[] = {0x50, 0xeb, 0xfd}; /* push; and again */
    memcpy((void *)(high + 2048), code, sizeof code);
    set_gate(PF, 0, high + 2048);
    MUST(unmap((void *)low));
    asm volatile("mov %0, %%" SP "\nmov (%1), %%" AX : : "r"(high + 1024), "r"(TEST_AREA(1)));
}

CRASHING_VARIATION(endless, "traps in a row", "a handler that is its own fault")
{
    static u8 code[PAGE] __attribute__((aligned(PAGE)));
    code[0] = 0x0f, code[1] = 0x0b;
    set_gate(UD, 0, (word)code);
    asm volatile("ud2");
}

CRASHING_VARIATION(no_table, "Unhandled: vec 6, #UD[0000]", "a trap without a handler")
{
    MUST(hypercall(SET_TRAP_TABLE, 0));
    asm volatile("ud2");
}

CRASHING_VARIATION(no_page_fault, "Unhandled: vec 14, #PF[0002]", "a page fault without a handler")
{
    MUST(hypercall(SET_TRAP_TABLE, 0));
    *(volatile word *)TEST_AREA(1) = 1;
}

CRASHING_VARIATION(no_protection, "Unhandled: vec 13, #GP[0000]", "a privileged instruction without a handler")
{
    MUST(hypercall(SET_TRAP_TABLE, 0));
    asm volatile("hlt");
}

CRASHING_VARIATION(no_int, "Unhandled: vec 13, #GP[0282]", "an interrupt without a handler, or one for the #GP")
{
    MUST(hypercall(SET_TRAP_TABLE, 0));
    asm volatile("int $0x50");
}

USER __attribute__((naked)) static void user_undefined(void)
{
    asm("ud2");
}

CRASHING_VARIATION(no_user_trap, "Unhandled: vec 6, #UD[0000]", "user code's trap without a handler")
{
    make_user();
    MUST(hypercall(SET_TRAP_TABLE, 0));
    user(user_undefined, 0);
}

CRASHING_VARIATION(no_callback, "no event callback", "an event without a callback")
{
    struct callback_register none = {CALLBACKTYPE_event, 0, 0
#if BITS == 32
                                     , 0
#endif
    };
    MUST(hypercall(CALLBACK_OP, 0, &none));
    shared->vcpu[0].pending = 1;
    shared->vcpu[0].mask = 0;
    hypercall(XEN_VERSION, 0);
}
