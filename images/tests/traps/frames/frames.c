/* frames: what Xen leaves on the kernel's stack, and where.

   From low addresses to high: rcx, r11, an error code where there is one, rip, cs with the event mask in its upper
   half, rflags, rsp, ss. The frame's top is aligned to 16 bytes. In the kernel the stack goes on where it was; from
   user code it begins at the one of stack_switch (x86_64/entry.S, create_bounce_frame). */
#include "exceptions.h"

#if BITS == 64 /* images/tests/pae has a 32-bit guest's */
enum { WORDS = 7 * 8, WORDS_WITH_CODE = 8 * 8, MARK = 0x1122334455667700 };

/* Each register has a value of its own when the ud2 comes; rdi: the stack pointer there. */
void marked_ud2(word rsp);
void stack_ud2(word rsp);
void stack_load(word rsp);
extern char marked_at[];
asm(".text\n"
    "marked_ud2: mov %rdi, %rsp\n"
    "movabs $0x1122334455667700, %rax\n"
    "lea 1(%rax), %rcx\nlea 2(%rax), %rdx\nlea 3(%rax), %rbx\nlea 4(%rax), %rbp\nlea 5(%rax), %rsi\n"
    "lea 6(%rax), %rdi\nlea 8(%rax), %r8\nlea 9(%rax), %r9\nlea 10(%rax), %r10\nlea 11(%rax), %r11\n"
    "lea 12(%rax), %r12\nlea 13(%rax), %r13\nlea 14(%rax), %r14\nlea 15(%rax), %r15\n"
    "marked_at: ud2\n"
    "stack_ud2: mov %rdi, %rsp\nud2\n"
    "stack_load: mov %rdi, %rsp\nxor %eax, %eax\nmov (%rax), %rax\n");

static word stack_of_test(void)
{
    return (word)page() + PAGE;
}

static void check_marks(void)
{
    volatile const struct frame *frame = &fault.frame;
    check_equal(frame->rax, MARK, "rax");
    check_equal(frame->rcx, MARK + 1, "rcx on the stack");
    check_equal(frame->live_rcx, MARK + 1, "rcx in the register");
    check_equal(frame->rdx, MARK + 2, "rdx");
    check_equal(frame->rbx, MARK + 3, "rbx");
    check_equal(frame->rbp, MARK + 4, "rbp");
    check_equal(frame->rsi, MARK + 5, "rsi");
    check_equal(frame->rdi, MARK + 6, "rdi");
    check_equal(frame->r8, MARK + 8, "r8");
    check_equal(frame->r9, MARK + 9, "r9");
    check_equal(frame->r10, MARK + 10, "r10");
    check_equal(frame->r11, MARK + 11, "r11 on the stack");
    check_equal(frame->live_r11, MARK + 11, "r11 in the register");
    check_equal(frame->r12, MARK + 12, "r12");
    check_equal(frame->r13, MARK + 13, "r13");
    check_equal(frame->r14, MARK + 14, "r14");
    check_equal(frame->r15, MARK + 15, "r15");
}

VARIATION(kernel, "a trap in the kernel")
{
    word rsp = stack_of_test();
    check(caught(marked_ud2, rsp), "a trap", "none");
    check_equal(fault.vector, UD, "#UD");
    check_marks();
    check_equal(fault.frame.rip, (word)marked_at, "rip is the instruction's");
    check_equal(fault.frame.rsp, rsp, "rsp");
    check_equal(fault.frame.ss, FLAT_KERNEL_SS, "ss");
    check_equal(fault.entry_rsp, rsp - WORDS, "where the frame is");
    check_equal(fault.frame.live_ss, FLAT_KERNEL_SS, "the handler's ss");
    check_equal(fault.frame.live_cs, FLAT_KERNEL_CS, "the handler's cs");
}

VARIATION(alignment, "the frame's top is rounded down to 16 bytes")
{
    static const char *const names[] = {"16", "15", "12", "8", "1", "0"};
    static const u8 offsets[] = {16, 15, 12, 8, 1, 0};
    static const char *const coded[] = {"16, with a code", "15, with a code", "12, with a code",
                                        "8, with a code", "1, with a code", "0, with a code"};
    word top = stack_of_test() - 64;
    for (unsigned i = 0; i < sizeof offsets; i++) {
        word rsp = top + offsets[i], aligned = rsp & -16ul;
        check(caught(stack_ud2, rsp) && fault.entry_rsp == aligned - WORDS && fault.frame.rsp == rsp, names[i],
              "the frame is at %lx and has rsp %lx", fault.entry_rsp, fault.frame.rsp);
        check(caught(stack_load, rsp) && fault.entry_rsp == aligned - WORDS_WITH_CODE && fault.frame.rsp == rsp,
              coded[i], "the frame is at %lx and has rsp %lx", fault.entry_rsp, fault.frame.rsp);
    }
}

VARIATION(two_pages, "a frame may lie in two pages")
{
    word low = (word)page(), high = (word)page();
    check_equal(high, low + PAGE, "pages that follow each other");
    check(caught(stack_load, high + 16), "a trap", "none");
    check_equal(fault.entry_rsp, high + 16 - WORDS_WITH_CODE, "where the frame is");
    check_equal(fault.frame.rsp, high + 16, "rsp, above the border");
    check_equal(fault.code, 0, "the code, below it");
}

USER __attribute__((naked)) static void user_ud2(void)
{
    asm("mov $0x77, %rcx\nmov $0x78, %r11\nsub $100, %rsp\nud2");
}

VARIATION(from_user, "a trap in user code comes on the kernel's own stack")
{
    user(user_ud2, 0);
    check_equal(fault.vector, UD, "#UD");
    check(fault.from_user, "cs tells of user code", "cs %x", fault.cs);
    check_equal(fault.cs, FLAT_USER_CS, "cs");
    check_equal(fault.frame.rip, user_address(user_ud2) + 18, "rip");
    check_equal(fault.frame.rsp, USER_STACK_TOP - 100, "rsp");
    check_equal(fault.frame.ss, FLAT_USER_SS, "ss");
    check_equal(fault.frame.rcx, 0x77, "rcx");
    check_equal(fault.frame.r11, 0x78, "r11");
    check_equal(fault.entry_rsp, (word)entry_stack_top - WORDS, "where the frame is");
    check_equal(fault.frame.live_cs, FLAT_KERNEL_CS, "the handler's cs");
    check_equal(fault.frame.live_ss, FLAT_KERNEL_SS, "the handler's ss");
}

USER __attribute__((naked)) static void user_load(void)
{
    asm("mov (%rdi), %rax");
}

VARIATION(stack_switched, "stack_switch counts from the next entry, and is rounded down")
{
    make_user();
    word top = stack_of_test();
    MUST(hypercall(STACK_SWITCH, FLAT_KERNEL_SS, top - 5));
    user(user_load, TEST_AREA(3));
    check_equal(fault.entry_rsp, top - 16 - WORDS_WITH_CODE, "where the frame is");
    MUST(hypercall(STACK_SWITCH, 0, top));
    user(user_load, TEST_AREA(3));
    check_equal(fault.entry_rsp, top - WORDS_WITH_CODE, "where it is then");
    check_equal(fault.frame.live_ss, FLAT_KERNEL_SS, "ss is not stack_switch's");
}

static struct frame event;
static word event_at;

static int note_event(struct frame *frame)
{
    if (frame->vector == FROM_EVENT && !event_at) {
        event = *frame;
        event_at = (word)&frame->rip - 16;
    }
    return 0;
}

VARIATION(event, "an event's frame is that of a trap without a code")
{
    on_trap = note_event;
    bind_virq(VIRQ_TIMER);
    word rsp = 0;
    u8 *mask = &shared->vcpu[0].mask;
    mask_events();
    set_timer(1);
    asm volatile("movb $0, %1\nmov %%rsp, %0\nsyscall\n" /* xen_version */
                 : "=&r"(rsp), "=m"(*mask) : "a"(XEN_VERSION), "D"(0) : "rcx", "r11", "memory");
    mask_events();
    check(events > 0, "an event", "none");
    check_equal(event.rsp, rsp, "rsp");
    check_equal(event_at, (rsp & -16ul) - WORDS, "where the frame is");
    check_equal(event.cs, FLAT_KERNEL_CS & ~3, "cs, with the mask as it was");
    check_equal(event.rcx, event.rip, "rcx, as the hypercall left it");
    check_equal(event.rax, 4 << 16 | 17, "rax is the hypercall's result");
}

void load_nothing(void);
asm(".text\nload_nothing: xor %eax, %eax\nmov (%rax), %rax");

VARIATION(nested, "a trap in a trap's handler goes on below")
{
    word rsp = stack_of_test();
    set_gate(UD, 0, (word)load_nothing);
    check(caught(stack_ud2, rsp) && fault.vector == PF, "the handler's trap", "trap %u", fault.vector);
    check_equal(fault.frame.rsp, rsp - WORDS, "its rsp is where the first frame is");
    check_equal(fault.entry_rsp, rsp - 64 - WORDS_WITH_CODE, "its frame is below that");
}

static const struct exception exceptions[] = {
    {"#DE", "#DE by user", DE, 0, 0}, {"#DB", "#DB by user", DB, 0, 1}, {"#BP", "#BP by user", BP, 0, 1},
    {"#UD", "#UD by user", UD, 0, 0}, {"#NM", "#NM by user", NM, 0, 0}, {"#MF", "#MF by user", MF, 0, 0},
    {"#GP", "#GP by user", GP, 0, 0}, {"#SS", "#SS by user", SS, 0, 0}, {"#PF", "#PF by user", PF, 0, 0},
};
asm(".pushsection .user, \"ax\", @progbits\nraise:\n"
    ".irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8\ncmp $\\number, %edi\nje raise_\\number\n.endr\n"
    "raise_0: xor %ecx, %ecx\nat_0: div %ecx\n"
    "raise_1:\nat_1: .byte 0xf1\n"
    "raise_2:\nat_2: int3\n"
    "raise_3:\nat_3: ud2\n"
    "raise_4:\nat_4: fnop\nud2\n"
    "raise_5: fninit\npush $0x340\nfldcw (%rsp)\npop %rax\nfld1\nfldz\nfdivrp\nat_5: fwait\nud2\n"
    "raise_6:\nat_6: hlt\n"
    "raise_7: movabs $0x800000000000, %rbp\nat_7: mov (%rbp), %rax\n"
    "raise_8: xor %eax, %eax\nat_8: mov (%rax), %rax\n"
    ".popsection\n.pushsection .rodata\n.balign 8\n"
    "at_table: .quad at_0, at_1, at_2, at_3, at_4, at_5, at_6, at_7, at_8\n.popsection\n");

VARIATION(exceptions, "each exception, from the kernel and from user code")
{
    check_exceptions(exceptions, sizeof exceptions / sizeof *exceptions);
}
#endif
