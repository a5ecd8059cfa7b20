/* privileged: instructions of ring 0, which the guest kernel executes in ring 3.

   Some Xen emulates for the kernel, for user code none: there each is a #GP. What it does not know stays the #GP
   that it is (pv/emul-priv-op.c, validate). */
#include "kit.h"

/* Each ends in a trap, if it is left to itself. */
#define INSTRUCTION(name, code)                                                                             \
    asm(".text\n" #name ": " code "\nret\n"                                                              \
        ".section .user, \"ax\", @progbits\nuser_" #name ": " code "\nud2\n.text");                     \
    extern char name[], user_##name[];
#if BITS == 64
#define OF_64_BITS(X)                                                                                       \
    X(swapgs, "swapgs") X(sysret, "sysretq") X(to_cr8, "mov %rax, %cr8") X(from_cr8, "mov %cr8, %rax")
#else
#define OF_64_BITS(X)
#endif
#define REFUSED_ONES(X)                                                                                       \
    X(hlt, "hlt") X(invd, "invd") X(lgdt, "lgdt (%" SP ")") X(lidt, "lidt (%" SP ")")           \
    X(lldt, "lldt %ax") X(ltr, "ltr %ax") X(lmsw, "lmsw %ax") X(invlpg, "invlpg (%" SP ")") X(rdpmc, "rdpmc")    \
    OF_64_BITS(X)                                                       \
    X(from_cr1, ".byte 0x0f, 0x20, 0xc8") X(cli, "cli") X(sti, "sti") X(far_return, "push $0x33\npush $0\nlret" W)
#define EMULATED_ONES(X)                                                                                      \
    X(clts, "clts") X(wbinvd, "wbinvd") X(from_cr0, "mov %cr0, %" AX) X(from_cr2, "mov %cr2, %" AX)           \
    X(from_cr3, "mov %cr3, %" AX) X(from_cr4, "mov %cr4, %" AX) X(from_dr7, "mov %dr7, %" AX)                 \
    X(rdmsr, "mov $0xc0000080, %ecx\nrdmsr") X(to_cr2, "mov %" AX ", %cr2") X(to_dr0, "xor %eax, %eax\nmov %" AX ", %dr0")
#define DEFINE(name, code) INSTRUCTION(name, code)
REFUSED_ONES(DEFINE)
EMULATED_ONES(DEFINE)

static const struct row {
    const char *name;
    char *kernel, *user;
} refused[] = {
#define ROW(name, code) {#name, name, user_##name},
    REFUSED_ONES(ROW)
}, emulated[] = {
    EMULATED_ONES(ROW)
};

static void run(word code)
{
    ((void (*)(void))code)();
}

VARIATION(kernel, "by the kernel: what Xen leaves a #GP")
{
    for (unsigned i = 0; i < sizeof refused / sizeof *refused; i++) {
        int taken = caught(run, (word)refused[i].kernel);
        word code = refused[i].kernel == far_return ? 0x30 : 0;
        check(taken && fault.vector == GP && fault.code == code && !fault.from_user &&
                  (code || fault.frame.rip == (word)refused[i].kernel),
              refused[i].name, "trap %u, code %lx, rip %lx", taken ? fault.vector : 0, fault.code, fault.frame.rip);
    }
}

VARIATION(emulated_ones, "by the kernel: what Xen does for it")
{
    for (unsigned i = 0; i < sizeof emulated / sizeof *emulated; i++)
        check(!caught(run, (word)emulated[i].kernel), emulated[i].name, "trap %u, code %lx", fault.vector, fault.code);
}

VARIATION(by_user, "by user code: all of them")
{
    for (unsigned i = 0; i < sizeof refused / sizeof *refused; i++) {
        word code = refused[i].kernel == far_return ? 0x30 : 0;
        user((void *)refused[i].user, 0);
        check(fault.vector == GP && fault.from_user && fault.code == code, refused[i].name, "trap %u, code %lx",
              fault.vector, fault.code);
    }
    for (unsigned i = 0; i < sizeof emulated / sizeof *emulated; i++) {
        user((void *)emulated[i].user, 0);
        check(fault.vector == GP && fault.from_user && fault.code == 0, emulated[i].name, "trap %u, code %lx",
              fault.vector, fault.code);
    }
}

enum { PHYSDEV_set_iopl = 6, ASSIST_iopl = 4 };

static void check_flags_instructions(const char *cli_name, const char *sti_name, int allowed)
{
    u8 *mask = &shared->vcpu[0].mask;
    *mask = 0;
    check(TRY("cli", :) == !allowed && *mask == 0, cli_name, "trapped: %d, mask %x", fault.taken, *mask);
    *mask = 1;
    check(TRY("sti", :) == !allowed && *mask == 1, sti_name, "trapped: %d, mask %x", fault.taken, *mask);
}

VARIATION(interrupt_flag, "cli and sti do nothing, and need the right to use ports")
{
    u32 level = 0;
    check_flags_instructions("cli", "sti", 0);
    level = 1;
    MUST(hypercall(PHYSDEV_OP, PHYSDEV_set_iopl, &level));
    check_flags_instructions("cli at level 1", "sti at level 1", 1);
    level = 0;
    MUST(hypercall(PHYSDEV_OP, PHYSDEV_set_iopl, &level));
    check_flags_instructions("cli at level 0", "sti at level 0", 0);
    MUST(hypercall(VM_ASSIST, 0, ASSIST_iopl));
    check_flags_instructions("cli of ring 0", "sti of ring 0", 1);
    MUST(hypercall(VM_ASSIST, 1, ASSIST_iopl));
    level = 2;
    MUST(hypercall(PHYSDEV_OP, PHYSDEV_set_iopl, &level));
    user(user_cli, 0);
    check_equal(fault.vector, GP, "user code at level 2");
    level = 3;
    MUST(hypercall(PHYSDEV_OP, PHYSDEV_set_iopl, &level));
    user(user_cli, 0);
    check_equal(fault.vector, UD, "user code at level 3");
}

VARIATION(prefixes, "prefixes and registers")
{
    word value = 0;
    asm volatile(".byte 0x66, 0x2e\nmov %%cr0, %%" AX "\nmov %%" AX ", %0" : "=r"(value) : : "rax");
    check_equal(value & 1, 1, "with prefixes");
#if BITS == 64
    asm volatile("xor %%r15, %%r15\nmov %%cr0, %%r15\nmov %%r15, %0" : "=r"(value) : : "r15");
    check_equal(value & 1, 1, "to r15");
    asm volatile("mov $0x777, %%r13d\nmov %%r13, %%cr2\nmov %%cr2, %0" : "=r"(value) : : "r13");
    check_equal(value, 0x777, "from r13");
#endif
    TRAPS("with lock", UD, 0, TRY("lock\nclts", :));
}

VARIATION(registers, "nothing else changes")
{
    word flags = 0, rcx = 0;
    asm volatile("mov $0x5a5a, %%ecx\nstc\nstd\nclts\npushf\ncld\npop %0\nmov %%ecx, %k1" : "=r"(flags), "=r"(rcx)
              : : "rcx", "cc");
    check_equal(flags & 0x401, 0x401, "flags");
    check_equal(rcx, 0x5a5a, "rcx");
}

VARIATION(two_pages, "an instruction in two pages")
{
    u8 *low = page(), *high = page();
    static const u8 code[] = {0x0f, 0x20, 0xd0, 0xc3}; /* mov from cr2; ret */
    asm volatile("mov %0, %%cr2" : : "r"(0x99ul));
    memcpy(high - 1, code, sizeof code);
    check_equal(((word (*)(void))(high - 1))(), 0x99, "runs");
    MUST(unmap(high));
    check(caught(run, (word)(high - 2 + 1)) && fault.vector == PF && fault.cr2 == (word)high, "half of it",
          "trap %u, CR2 %lx", fault.vector, fault.cr2);
    check_equal(fault.code, 16, "is a fetch");
    check(low != high, "pages", "one page");
}
