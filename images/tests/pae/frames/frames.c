/* frames: what Xen leaves on a 32-bit kernel's stack, and where.

   From low addresses to high: an error code where there is one, eip, cs with the event mask in byte 2, eflags, and from
   user code esp, ss. In the kernel the stack goes on where it was, wherever that is; from user code it begins at the one
   of stack_switch (x86_64/compat/entry.S, compat_create_bounce_frame). */
#include "exceptions.h"

enum { WORDS = 3 * 4, WORDS_WITH_CODE = 4 * 4, WORDS_OF_USER = 5 * 4, MARK = 0x11223300 };

/* eax: the stack pointer that the trap comes with. */
void marked_ud2(word esp);
void stack_load(word esp);
extern char marked_at[];
asm(".text\n"
    "marked_ud2: mov %eax, %esp\nmov $0x11223300, %eax\n"
    "lea 1(%eax), %ecx\nlea 2(%eax), %edx\nlea 3(%eax), %ebx\nlea 4(%eax), %ebp\nlea 5(%eax), %esi\nlea 6(%eax), %edi\n"
    "marked_at: ud2\n"
    "stack_load: mov %eax, %esp\nxor %eax, %eax\nmov (%eax), %eax\n");

USER __attribute__((naked)) static void user_ud2(void)
{
    asm("mov $0x5ff123, %esp\nud2");
}

USER __attribute__((naked)) static void user_load(void)
{
    asm("mov $0x5ff123, %esp\nmov 0, %eax\nud2");
}

static word stack_of_test(void)
{
    return (word)page() + PAGE;
}

VARIATION(kernel, "a trap in the kernel")
{
    word esp = stack_of_test();
    volatile const struct frame *frame = &fault.frame;
    check(caught(marked_ud2, esp), "a trap", "none");
    check_equal(fault.vector, UD, "#UD");
    check_equal(frame->rax, MARK, "eax");
    check_equal(frame->rcx, MARK + 1, "ecx");
    check_equal(frame->rdx, MARK + 2, "edx");
    check_equal(frame->rbx, MARK + 3, "ebx");
    check_equal(frame->rbp, MARK + 4, "ebp");
    check_equal(frame->rsi, MARK + 5, "esi");
    check_equal(frame->rdi, MARK + 6, "edi");
    check_equal(frame->rip, (word)marked_at, "eip is the instruction's");
    check_equal(fault.cs, FLAT_KERNEL_CS, "cs, with its ring");
    check_equal(fault.entry_rsp, esp - WORDS, "where the frame is");
    check_equal(frame->live_cs, FLAT_KERNEL_CS, "the handler's cs");
    check_equal(frame->live_ss, FLAT_KERNEL_SS, "the handler's ss");
    check_equal(frame->live_ds, FLAT_KERNEL_SS, "ds stays");
}

VARIATION(alignment, "a frame begins wherever the stack is")
{
    word top = stack_of_test() - 64;
    static const char *const names[] = {"15", "12", "2", "1"}, *const coded[] = {"15, code", "12, code", "2, code", "1, code"};
    static const u8 offsets[] = {15, 12, 2, 1};
    for (unsigned i = 0; i < sizeof offsets; i++) {
        word esp = top + offsets[i];
        check(caught(marked_ud2, esp) && fault.entry_rsp == esp - WORDS, names[i], "at %lx", fault.entry_rsp);
        check(caught(stack_load, esp) && fault.entry_rsp == esp - WORDS_WITH_CODE && !fault.code, coded[i], "at %lx",
              fault.entry_rsp);
    }
}

VARIATION(two_pages, "a frame may lie in two pages")
{
    word low = (word)page(), high = (word)page();
    check_equal(high, low + PAGE, "pages that follow each other");
    check(caught(stack_load, high + 6), "a trap", "none");
    check_equal(fault.vector, PF, "#PF");
    check_equal(fault.entry_rsp, high + 6 - WORDS_WITH_CODE, "where the frame is");
    check_equal(fault.cs, FLAT_KERNEL_CS, "cs, at the border");
}

VARIATION(from_user, "a trap in user code")
{
    user(user_ud2, 0);
    check_equal(fault.vector, UD, "#UD");
    check_equal(fault.frame.rip, user_address(user_ud2) + 5, "eip");
    check_equal(fault.cs, FLAT_USER_CS, "cs");
    check_equal(fault.frame.rsp, 0x5ff123, "esp");
    check_equal(fault.frame.ss, FLAT_USER_SS, "ss");
    check_equal(fault.frame.live_cs, FLAT_KERNEL_CS, "the handler's cs");
    check_equal(fault.frame.live_ss, FLAT_KERNEL_SS, "the handler's ss");
    word top = fault.entry_rsp + WORDS_OF_USER;
    user(user_load, 0);
    check_equal(fault.vector, PF, "#PF");
    check_equal(fault.code, 4, "by user code");
    check_equal(fault.cr2, 0, "CR2");
    check_equal(fault.entry_rsp, top - WORDS_OF_USER - 4, "below the code");
}

VARIATION(stack_switch, "the stack that user code's traps begin at; its selector gets the kernel's ring")
{
    word top = stack_of_test();
    make_user();
    MUST(hypercall(STACK_SWITCH, FLAT_KERNEL_SS & ~3, top));
    user(user_ud2, 0);
    check_equal(fault.entry_rsp, top - WORDS_OF_USER, "where the frame is");
    check_equal(fault.frame.live_ss, FLAT_KERNEL_SS, "ss");
}

VARIATION(mask, "the event mask goes into the frame, and IF says the contrary")
{
    set_gate(UD, GATE_MASKS, 0);
    check(TRY("ud2", :) && fault.saved_mask == 1 && fault.entry_mask == 1, "masked before", "%x", fault.saved_mask);
    check(!(fault.frame.rflags & 0x200), "IF is clear", "%lx", fault.frame.rflags);
    shared->vcpu[0].mask = 0;
    check(TRY("ud2", :) && fault.saved_mask == 0 && fault.entry_mask == 1, "unmasked before", "%x", fault.saved_mask);
    check(fault.frame.rflags & 0x200, "IF is set", "%lx", fault.frame.rflags);
    check_equal(shared->vcpu[0].mask, 0, "iret gives back what IF says");
}

CRASHING_VARIATION(no_stack, "fault on the kernel stack at", "a stack that is not mapped")
{
    make_user();
    MUST(hypercall(STACK_SWITCH, FLAT_KERNEL_SS, 0x30000000));
    user(user_ud2, 0);
}

CRASHING_VARIATION(xens_stack, "fault on the kernel stack at", "one in Xen's part")
{
    make_user();
    MUST(hypercall(STACK_SWITCH, FLAT_KERNEL_SS, HOLE + PAGE));
    user(user_ud2, 0);
}

CRASHING_VARIATION(null_handler, "Unhandled: vec 6", "a handler in the null segment is none")
{
    struct trap_info gates[2] = {{UD, 0, 3, gate_address(UD)}, {0}};
    MUST(hypercall(SET_TRAP_TABLE, gates));
    asm volatile("ud2");
}

CRASHING_VARIATION(data_handler, "cannot run with cs 0xe021", "a handler in a data segment")
{
    struct trap_info gates[2] = {{UD, 0, FLAT_KERNEL_SS, gate_address(UD)}, {0}};
    MUST(hypercall(SET_TRAP_TABLE, gates));
    asm volatile("ud2");
}

static struct frame event;

static int note_event(struct frame *frame)
{
    if (frame->vector == FROM_EVENT && !event.pushed_to)
        event = *frame;
    return 0;
}

VARIATION(event, "an event's frame is that of a trap without a code")
{
    word esp, version;
    u8 *mask = &shared->vcpu[0].mask;
    on_trap = note_event;
    bind_virq(VIRQ_TIMER);
    mask_events();
    set_timer(1);
    asm volatile("movb $0, %2\nmov %%esp, %0\nint $0x82\n"
                 : "=&r"(esp), "=a"(version), "=m"(*mask) : "1"(XEN_VERSION), "b"(0), "c"(0) : "memory");
    mask_events();
    check(events > 0, "an event", "none");
    check_equal(event.pushed_to, esp - WORDS, "where the frame is");
    check_equal(event.rsp, esp, "esp");
    check_equal(event.cs, FLAT_KERNEL_CS, "cs, with the mask as it was");
    check_equal(event.rax, 4 << 16 | 17, "eax is the hypercall's result");
    check_equal(version, 4 << 16 | 17, "and is so behind it");
}

void load_nothing(void);
asm(".text\nload_nothing: xor %eax, %eax\nmov (%eax), %eax");

VARIATION(nested, "a trap in a trap's handler goes on below")
{
    word esp = stack_of_test();
    set_gate(UD, 0, (word)load_nothing);
    check(caught(marked_ud2, esp) && fault.vector == PF, "the handler's trap", "trap %u", fault.vector);
    check_equal(fault.frame.rsp, esp - WORDS, "its esp is where the first frame is");
    check_equal(fault.entry_rsp, esp - WORDS - WORDS_WITH_CODE, "its frame is below that");
}

static const struct exception exceptions[] = {
    {"#DE", "#DE by user", DE, 0, 0}, {"#DB", "#DB by user", DB, 0, 1}, {"#BP", "#BP by user", BP, 0, 1},
    {"#OF", "#OF by user", OF, 0, 1}, {"#BR", "#BR by user", BR, 0, 0}, {"#UD", "#UD by user", UD, 0, 0},
    {"#NM", "#NM by user", NM, 0, 0}, {"#MF", "#MF by user", MF, 0, 0}, {"#GP", "#GP by user", GP, 0, 0},
    {"#PF", "#PF by user", PF, 0, 0},
};
asm(".pushsection .user, \"ax\", @progbits\nraise:\n"
    ".irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9\ncmp $\\number, %eax\nje raise_\\number\n.endr\n"
    "raise_0: xor %ecx, %ecx\nat_0: div %ecx\n"
    "raise_1:\nat_1: .byte 0xf1\n"
    "raise_2:\nat_2: int3\n"
    "raise_3: mov $0x7f, %al\nadd $1, %al\nat_3: into\nud2\n"
    "raise_4: push $2\npush $1\nmov $3, %ecx\nat_4: bound %ecx, (%esp)\nud2\n"
    "raise_5:\nat_5: ud2\n"
    "raise_6:\nat_6: fnop\nud2\n"
    "raise_7: fninit\npush $0x340\nfldcw (%esp)\npop %eax\nfld1\nfldz\nfdivrp\nat_7: fwait\nud2\n"
    "raise_8:\nat_8: hlt\n"
    "raise_9: xor %eax, %eax\nat_9: mov (%eax), %eax\n"
    ".popsection\n.pushsection .rodata\n.balign 4\n"
    "at_table: .long at_0, at_1, at_2, at_3, at_4, at_5, at_6, at_7, at_8, at_9\n.popsection\n");

VARIATION(exceptions, "each exception, from the kernel and from user code")
{
    check_exceptions(exceptions, sizeof exceptions / sizeof *exceptions);
}
