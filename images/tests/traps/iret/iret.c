/* iret: the hypercall, and where it cannot go.

   It takes rax, r11, rcx, flags, rip, cs, rflags, rsp, ss from the kernel's stack. With RPL 3 in cs it goes to user
   code, else to the kernel. Where the CPU refuses, the exception is the guest's, at its destination: Xen's own iretq
   met it, with the frame that the guest made (pv/iret.c; x86_64/entry.S, iret_exit_to_guest). */
#include "descriptors.h"

#if BITS == 64 /* images/tests/pae has a 32-bit guest's */
struct iret {
    word rax, r11, rcx, flags, rip, cs, rflags, rsp, ss;
};
void do_iret(struct iret *frame);
extern char iret_here[], iret_seen[];
asm(".text\n"
    "do_iret: mov %rdi, %rsp\nmov $23, %eax\nsyscall\n"
    "iret_here: mov %rax, iret_seen(%rip)\nmov %rcx, iret_seen+8(%rip)\nmov %r11, iret_seen+16(%rip)\n"
    "mov %rsp, iret_seen+24(%rip)\nmov %cs, %eax\nmov %rax, iret_seen+32(%rip)\nint3\n"
    ".pushsection .bss\n.balign 8\niret_seen: .skip 40\n.popsection\n");
static word *const seen = (word *)iret_seen;
static word stack;

static struct iret to_here(void)
{
    stack = (word)page() + PAGE;
    return (struct iret){0x11, 0x22, 0x33, 0, (word)iret_here, FLAT_KERNEL_CS & ~3, 0x2, stack, FLAT_KERNEL_SS & ~3};
}

static void go(word frame)
{
    do_iret((struct iret *)frame);
}

VARIATION(kernel, "to the kernel")
{
    struct iret frame = to_here();
    check(caught(go, (word)&frame) && fault.vector == BP, "arrived", "trap %u at %lx", fault.vector, fault.frame.rip);
    check_equal(seen[0], 0x11, "rax");
    check_equal(seen[1], 0x33, "rcx");
    check_equal(seen[2], 0x22, "r11");
    check_equal(seen[3], stack, "rsp");
    check_equal(seen[4], FLAT_KERNEL_CS, "cs gets RPL 3");
    check_equal(fault.frame.ss, FLAT_KERNEL_SS, "and ss");
    check(!fault.from_user, "it is still the kernel", "user code");
}

VARIATION(in_syscall, "the flag by which rcx and r11 are sysret's")
{
    struct iret frame = to_here();
    frame.flags = 0x100;
    check(caught(go, (word)&frame) && fault.vector == BP, "arrived", "trap %u at %lx", fault.vector, fault.frame.rip);
    check_equal(seen[0], 0x11, "rax");
    check_equal(seen[1], (word)iret_here, "rcx is rip");
    check_equal(seen[2] & 2, 2, "r11 is rflags");
}

VARIATION(mask, "IF is the event mask")
{
    struct iret frame = to_here();
    mask_events();
    frame.rflags = 0x202;
    caught(go, (word)&frame);
    check_equal(fault.saved_mask, 0, "set");
    frame = to_here();
    frame.rflags = 2;
    shared->vcpu[0].mask = 0;
    caught(go, (word)&frame);
    check_equal(fault.saved_mask, 1, "clear");
}

VARIATION(two_pages, "the frame may lie in two pages")
{
    word low = (word)page(), high = (word)page();
    struct iret *frame = (struct iret *)(high - 32);
    check_equal(high, low + PAGE, "pages that follow each other");
    *frame = to_here();
    check(caught(go, (word)frame) && fault.vector == BP, "arrived", "trap %u at %lx", fault.vector, fault.frame.rip);
    check_equal(seen[3], stack, "rsp, from the second");
}

static u64 *gdt;

static void own_gdt(void)
{
    gdt = table();
    MUST(update(address_of(gdt + 1), 0x00affa000000ffffull)); /* code */
    MUST(update(address_of(gdt + 2), 0x00cff2000000ffffull)); /* data */
    MUST(update(address_of(gdt + 3), 0x00af7a000000ffffull)); /* code, not present */
    MUST(update(address_of(gdt + 4), 0x00cf72000000ffffull)); /* data, not present */
    MUST(update(address_of(gdt + 5), 0x00cff0000000ffffull)); /* data, read-only */
    MUST(update(address_of(gdt + 6), 0x00effa000000ffffull)); /* code, both of 64 and of 32 bits */
    use_gdt(gdt);
}

static const struct {
    const char *name;
    u16 cs, ss;
    unsigned vector;
    u16 code;
} bad[] = {
    {"no CS", 0, FLAT_KERNEL_SS, GP, 0},
    {"a CS behind the table", 0xfff8, FLAT_KERNEL_SS, GP, 0xfff8},
    {"a CS that the table does not have", 0x300, FLAT_KERNEL_SS, GP, 0x300},
    {"a CS of an LDT", 0x0c, FLAT_KERNEL_SS, GP, 0x0c},
    {"data for CS", 0x10, FLAT_KERNEL_SS, GP, 0x10},
    {"Xen's own CS", 0xe008, FLAT_KERNEL_SS, GP, 0xe008},
    {"a CS that is not present", 0x18, FLAT_KERNEL_SS, NP, 0x18},
    {"a CS of two widths", 0x30, FLAT_KERNEL_SS, GP, 0x30},
    {"no SS", 0x8, 0, GP, 0},
    {"code for SS", 0x8, 0x8, GP, 0x8},
    {"an SS that is read-only", 0x8, 0x28, GP, 0x28},
    {"an SS that is not present", 0x8, 0x20, SS, 0x20},
    {"an SS behind the table", 0x8, 0xfff8, GP, 0xfff8},
    {"both bad", 0x18, 0x20, NP, 0x18},
};

VARIATION(bad_selectors, "to the kernel, with selectors that the CPU refuses")
{
    own_gdt();
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct iret frame = to_here();
        frame.cs = bad[i].cs;
        frame.ss = bad[i].ss;
        int taken = caught(go, (word)&frame);
        check(taken && fault.vector == bad[i].vector && fault.code == bad[i].code && !fault.from_user &&
                  fault.frame.rip == (word)iret_here && fault.frame.rsp == stack && fault.cs == bad[i].cs &&
                  fault.frame.ss == (bad[i].ss | 3u) && fault.entry_rsp == stack - 64,
              bad[i].name, "trap %u, code %lx, rip %lx, cs %x, ss %lx, rsp %lx", fault.vector, fault.code,
              fault.frame.rip, fault.cs, fault.frame.ss, fault.frame.rsp);
    }
    struct iret frame = to_here();
    frame.cs = 0x8;
    frame.ss = 0x10;
    check(caught(go, (word)&frame) && fault.vector == BP, "good ones", "trap %u at %lx", fault.vector, fault.frame.rip);
}

static void go_user(word cs)
{
    struct iret frame = {0, 0, 0, 0, user_address(user_return), cs | 3, 0x202, USER_STACK_TOP, FLAT_USER_SS};
    do_iret(&frame);
}

VARIATION(bad_user_selectors, "the same to user code")
{
    own_gdt();
    make_user();
    static const struct { const char *name; u16 cs; unsigned vector; u16 code; } some[] = {
        {"no CS", 0, GP, 0}, {"a CS behind the table", 0xfff8, GP, 0xfff8}, {"data", 0x10, GP, 0x10},
        {"not present", 0x18, NP, 0x18},
    };
    for (unsigned i = 0; i < sizeof some / sizeof *some; i++) {
        int taken = caught(go_user, some[i].cs);
        check(taken && fault.vector == some[i].vector && fault.code == some[i].code && fault.from_user &&
                  fault.cs == (some[i].cs | 3) && fault.frame.rip == user_address(user_return) &&
                  fault.entry_rsp == (word)entry_stack_top - 64,
              some[i].name, "trap %u, code %lx, rip %lx, cs %x", fault.vector, fault.code, fault.frame.rip, fault.cs);
    }
}

VARIATION(bad_rip, "to no address")
{
    struct iret frame = to_here();
    frame.rip = NON_CANONICAL;
    frame.rflags = 0x202 | 1;
    check(caught(go, (word)&frame), "a trap", "none");
    check_equal(fault.vector, GP, "#GP");
    check_equal(fault.code, 0, "the code");
    check_equal(fault.frame.rip, NON_CANONICAL, "rip");
    check_equal(fault.frame.rsp, stack, "rsp");
    check_equal(fault.frame.rflags, 0x203, "rflags");
    check_equal(fault.frame.rax, 0x11, "rax");
    frame = to_here();
    frame.rip = HOLE;
    caught(go, (word)&frame);
    check_equal(fault.vector, PF, "Xen's area is a page fault");
    check_equal(fault.frame.rip, HOLE, "there");
}

CRASHING_VARIATION(no_user, "iret to user mode without a user page table", "to user code that has no page tables")
{
    struct iret frame = to_here();
    frame.cs = FLAT_USER_CS;
    go((word)&frame);
}

CRASHING_VARIATION(no_frame, "while reading the iret frame", "without a frame")
{
    go(TEST_AREA(1));
}

CRASHING_VARIATION(half_frame, "while reading the iret frame", "with half a frame")
{
    word low = (word)page(), high = (word)page();
    MUST(unmap((void *)high));
    *(struct iret *)low = to_here();
    go(low + PAGE - 24);
}

CRASHING_VARIATION(frame_of_xen, "while reading the iret frame", "with a frame in Xen's area")
{
    go(HOLE);
}

static int native_iret(word rip, word cs, word rflags)
{
    return TRY("mov %%rsp, %%rbx\npush %3\npush %%rbx\npush %2\npush %1\npush %0\niretq",
               : : "r"(rip), "r"(cs), "r"(rflags), "r"((word)FLAT_KERNEL_SS) : "rbx", "memory");
}

VARIATION(native, "the instruction itself works within ring 3, and leaves the event mask alone")
{
    word flags = 0, target = 0;
    shared->vcpu[0].mask = 1;
    asm volatile("mov %%rsp, %%rbx\nlea 1f(%%rip), %1\npush %2\npush %%rbx\npush %4\npush %3\npush %1\niretq\n"
                 "1: pushfq\npop %0\npush $2\npopfq"
                 : "=&r"(flags), "=&r"(target)
                 : "r"((word)FLAT_KERNEL_SS), "r"((word)FLAT_KERNEL_CS), "r"(0x3601ul) : "rbx", "memory", "cc");
    check_equal(flags, 0x603, "its flags: not IOPL, not IF");
    check_equal(shared->vcpu[0].mask, 1, "the event mask");
    check(native_iret((word)iret_here, 0x300 | 3, 2) && fault.vector == GP && fault.code == 0x300,
              "a CS that is not there",
          "trap %u, code %lx", fault.vector, fault.code);
    check(native_iret((word)iret_here, FLAT_KERNEL_CS & ~3, 2) && fault.vector == GP &&
              fault.code == (FLAT_KERNEL_CS & ~3),
          "a CS of ring 0", "trap %u, code %lx", fault.vector, fault.code);
    check(native_iret(NON_CANONICAL, FLAT_KERNEL_CS, 2) && fault.vector == GP && fault.code == 0, "no address",
          "trap %u, code %lx", fault.vector, fault.code);
}
#endif
