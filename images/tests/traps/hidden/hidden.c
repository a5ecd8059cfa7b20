/* hidden: instructions that the guest is told it does not have, and Xen's way to the emulated cpuid.

   An undefined instruction is a #UD at itself, for the kernel and for user code. */
#include "kit.h"

#if BITS == 64
#define OF_64_BITS(X)                                                                                       \
    X(into, ".byte 0xce") X(push_es, ".byte 0x06") X(far_call, ".byte 0x9a, 0, 0, 0, 0, 0, 0")              \
    X(aam, ".byte 0xd4, 10")
#else
#define OF_64_BITS(X)
#endif
#define HIDDEN_ONES(X)                                                                                      \
    X(ud0, ".byte 0x0f, 0xff, 0xc0") X(ud1, ".byte 0x0f, 0xb9, 0xc0") X(ud2, "ud2")                           \
    OF_64_BITS(X)                                                                                           \
    X(lock_nop, ".byte 0xf0, 0x90") X(xgetbv, "xgetbv") X(xsetbv, "xsetbv") X(xsave, "xsave (%" SP ")")        \
    X(monitor, "monitor") X(mwait, "mwait") X(op_0f0c, ".byte 0x0f, 0x0c")                                  \
    X(vmcall, "vmcall") X(vmmcall, "vmmcall") X(vmrun, "vmrun") X(vmload, "vmload") X(stgi, "stgi")         \
    X(vmxoff, "vmxoff") X(rsm, "rsm") X(clac, "clac") X(stac, "stac") X(rdrand, "rdrand %eax")              \
    X(rdseed, "rdseed %eax") X(invpcid, "invpcid (%" SP "), %" AX) X(getsec, ".byte 0x0f, 0x37")               \
    X(vex, "vaddps %ymm0, %ymm0, %ymm0")
#define INSTRUCTION(name, code)                                                                             \
    asm(".text\nx_" #name ": " code "\nret\n"                                                              \
        ".section .user, \"ax\", @progbits\nuser_" #name ": " code "\n" USER_CALL "\n.text");                     \
    extern char x_##name[], user_##name[];
HIDDEN_ONES(INSTRUCTION)

static const struct {
    const char *name;
    char *kernel, *user;
} hidden[] = {
#define ROW(name, code) {#name, x_##name, user_##name},
    HIDDEN_ONES(ROW)
};

static void run(word code)
{
    ((void (*)(void))code)();
}

VARIATION(kernel, "by the kernel")
{
    for (unsigned i = 0; i < sizeof hidden / sizeof *hidden; i++) {
        int taken = caught(run, (word)hidden[i].kernel);
        check(taken && fault.vector == UD && fault.frame.rip == (word)hidden[i].kernel, hidden[i].name,
              "trap %u, code %lx, rip %lx instead of %p", taken ? fault.vector : 99, fault.code, fault.frame.rip,
              hidden[i].kernel);
    }
}

VARIATION(by_user, "by user code")
{
    for (unsigned i = 0; i < sizeof hidden / sizeof *hidden; i++) {
        user(hidden[i].user, 0);
        check(fault.vector == UD && fault.from_user && fault.frame.rip == user_address(hidden[i].user), hidden[i].name,
              "trap %u, code %lx, rip %lx instead of %lx", fault.vector, fault.code, fault.frame.rip,
              user_address(hidden[i].user));
    }
}

#define PREFIX ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e\n"

VARIATION(prefix, "ud2 and the word xen before cpuid, and before anything else")
{
    u32 a = 0x40000000, b = 0, c = 0, d = 0;
    NO_TRAP("cpuid", TRY(PREFIX "cpuid", : "+a"(a), "=b"(b), "+c"(c), "=d"(d)));
    check(b == 0x566e6558 && c == 0x65584d4d && d == 0x4d4d566e, "says XenVMMXenVMM", "%x %x %x", b, c, d);
    TRAPS("nop", UD, 0, TRY(PREFIX "nop", :));
    TRAPS("rdtsc", UD, 0, TRY(PREFIX "rdtsc", : : : "rax", "rdx"));
    TRAPS("another word", UD, 0, TRY(".byte 0x0f, 0x0b, 0x78, 0x65, 0x6d\ncpuid", : : : "rax", "rbx", "rcx", "rdx"));
}

USER __attribute__((naked)) static void user_prefix(void)
{
    asm("mov $0x40000000, %eax\nxor %ecx, %ecx\n" PREFIX "cpuid\nmov %ebx, %edi\n" USER_CALL);
}

VARIATION(prefix_by_user, "user code may ask so, too")
{
    check_equal(user(user_prefix, 0), 0x566e6558, "EBX");
    check_equal(fault.vector, FROM_SYSCALL, "no trap");
}

VARIATION(prefix_cut, "the prefix at the end of what is mapped")
{
    u8 *low = page(), *high = page();
    static const u8 code[] = {0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2, 0xc3};
    memcpy(high - 4, code, sizeof code);
    asm volatile("mov $0x40000000, %%eax\nxor %%ecx, %%ecx\ncall *%0" : : "r"(high - 4) : "rax", "rbx", "rcx", "rdx",
              "memory");
    check(1, "in two pages", "-");
    MUST(unmap(high));
    check(caught(run, (word)(high - 4)) && fault.vector == UD && fault.frame.rip == (word)(high - 4),
              "with half of it gone",
          "trap %u at %lx", fault.vector, fault.frame.rip);
    check(low != high, "pages", "one page");
}

