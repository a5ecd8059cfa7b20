/* iret: the way back of a 32-bit kernel: eax, eip, cs, eflags, and for user code esp and ss (compat_iret). */
#include "kit.h"

enum { IF = 0x200, VM = 0x20000, IOPL = 0x3000 };

struct to {
    word eax, eip, cs, eflags, esp, ss;
};

/* Returns by iret with the frame that eax names. */
void go(word frame);
asm(".text\n"
    "go: mov %eax, %esp\nmov $23, %eax\nint $0x82\nud2\n");

/* iret to the next instruction, ring 1: where the stack is then, and eax. */
static word same_ring(word eflags, word *eax)
{
    word before, after, result;
    asm volatile("mov %%esp, %0\n"
                 "push %4\npush %5\npush $1f\npush $0x1234\n"
                 "mov $23, %%eax\nint $0x82\n"
                 "1: mov %%esp, %1\n"
                 : "=&r"(before), "=&r"(after), "=&a"(result)
                 : "0"(0), "r"(eflags), "r"((word)FLAT_KERNEL_CS)
                 : "memory", "cc");
    *eax = result;
    return after - before;
}

USER __attribute__((naked)) static void user_selectors(void)
{
    asm("mov %ds, %edi\nmov %fs, %esi\nshl $16, %esi\nor %esi, %edi\nmov %edi, %eax\nint $0x80\nud2");
}

VARIATION(ring1, "to the kernel: sixteen bytes are taken off its stack")
{
    word eax;
    check_equal(same_ring(IF, &eax), 0, "the stack is as it was");
    check_equal(eax, 0x1234, "eax");
    check_equal(shared->vcpu[0].mask, 0, "IF unmasks events");
    same_ring(0, &eax);
    check_equal(shared->vcpu[0].mask, 1, "no IF masks them");
    same_ring(IOPL, &eax);
    TRAPS("the I/O privilege level is not given", GP, 0, TRY("cli", :));
}

CRASHING_VARIATION(ring0, "iret to ring 0", "there is no way to ring 0")
{
    struct to frame = {0, (word)go, FLAT_KERNEL_CS & ~3, IF, 0, 0};
    go((word)&frame);
}

CRASHING_VARIATION(no_frame, "while reading the iret frame", "a frame that is not mapped")
{
    go(0x30000000);
}

static void check_bad(const char *name, word cs, word ss, unsigned vector, word code)
{
    struct to frame = {0, user_address(user_return), cs, IF, 0x600000, ss};
    check(caught(go, (word)&frame) && fault.vector == vector && fault.code == code, name, "trap %u, code %lx",
          fault.vector, fault.code);
}

VARIATION(selectors, "what the CPU cannot load is a trap at its destination")
{
    make_user();
    check_bad("a null cs", 3, FLAT_USER_SS, GP, 0);
    check_bad("data as cs", FLAT_USER_SS, FLAT_USER_SS, GP, FLAT_USER_SS & ~3);
    check_bad("the kernel's cs in ring 3", FLAT_KERNEL_CS | 3, FLAT_USER_SS, GP, FLAT_KERNEL_CS & ~3);
    check_bad("a null ss", FLAT_USER_CS, 3, GP, 0);
    check_bad("code as ss", FLAT_USER_CS, FLAT_USER_CS, GP, FLAT_USER_CS & ~3);
    check_bad("the kernel's ss", FLAT_USER_CS, FLAT_KERNEL_SS, GP, FLAT_KERNEL_SS & ~3);
    check_equal(fault.frame.rip, user_address(user_return), "eip is the destination's");
    check_equal(fault.frame.rsp, 0x600000, "and esp");
}

VARIATION(dropped, "data segments of the kernel's are null in user code")
{
    make_user();
    struct to frame = {0, user_address(user_selectors), FLAT_USER_CS, IF, 0x600000, FLAT_USER_SS};
    asm volatile("mov %0, %%ds\nmov %0, %%fs" : : "r"(FLAT_KERNEL_SS));
    check(caught(go, (word)&frame) && fault.vector == FROM_SYSCALL, "it ran", "trap %u", fault.vector);
    check_equal(fault.frame.rax, 0, "ds and fs of ring 1");
    asm volatile("mov %0, %%ds\nmov %0, %%fs" : : "r"(FLAT_USER_SS));
    caught(go, (word)&frame);
    check_equal(fault.frame.rax, (sword)(0xe033u << 16 | 0xe033u), "those of ring 3 stay");
    asm volatile("mov %0, %%ds" : : "r"(FLAT_KERNEL_SS));
}

VARIATION(vm86, "virtual-8086 mode is a #GP on the kernel's stack")
{
    word stack = (word)page() + PAGE;
    struct to frame = {7, 0x123, 0x1000, IF | VM, 0x456, 0x2000};
    MUST(hypercall(STACK_SWITCH, FLAT_KERNEL_SS, stack));
    check(caught(go, (word)&frame) && fault.vector == GP && !fault.code, "#GP", "trap %u", fault.vector);
    check_equal(fault.entry_rsp, stack - 40, "where the frame is");
    check_equal(fault.frame.rip, 0x123, "eip");
    check_equal(fault.frame.rflags & VM, VM, "VM");
}
