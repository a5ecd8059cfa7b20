/* callgates: far calls and jumps through a call gate, which Xen does for a 32-bit guest (pv/emul-gate-op.c).

   What a call leaves on the kernel's stack, low address first: eip, cs, the parameters, esp, ss; no flags. A jump does not
   change the ring. GDT entry 1 is the gate of each test. */
#include "descriptors.h"

enum { GATE = 8, USER_TARGET = 0x10, OTHER = 0x18, TF = 0x100 };
#define CODE(level, present) (0x00cf1b000000ffffull | (u64)(level) << 45 | (u64)(present) << 47)

static u64 *gdt;

/* Where gates lead: back to user() or caught(), with what was found. */
extern char landing[], landing_and_back[], landing_of_trap[];
word landed_esp, landed_ss, landed_cs, caller_cs, trap_code;
asm(".text\n"
    "landing: mov %esp, landed_esp\nmov %ss, landed_ss\nmov %cs, landed_cs\n"
    "mov 4(%esp), %eax\nmov %eax, caller_cs\n"
    "mov $0xe021, %eax\nmov %eax, %ds\nmov %eax, %es\njmp leave_caught\n"
    "landing_of_trap: mov (%esp), %eax\nmov %eax, trap_code\njmp landing\n"
    "landing_and_back: lret $8\n");

USER __attribute__((naked)) static void user_call(void)
{
    asm("mov $0x5fff00, %esp\nlcall $0x0b, $0x1234\nint $0x80\nud2");
}

USER __attribute__((naked)) static void user_call_with_parameters(void)
{
    asm("mov $0x600000, %esp\npush $3\npush $2\npush $1\nlcall $0x0b, $0\nint $0x80\nud2");
}

USER __attribute__((naked)) static void user_call_at_end(void)
{
    asm("mov $0x5ffffc, %esp\nlcall $0x0b, $0\nud2");
}

USER __attribute__((naked)) static void user_call_narrow(void)
{
    asm("mov $0x5fff00, %esp\nlcallw $0x0b, $0\nud2");
}

USER __attribute__((naked)) static void user_call_on_stack(void)
{
    asm("mov $0x5fff00, %esp\nmovl $0x0b, 8(%esp)\nlcall *4(%esp)\nud2");
}

USER __attribute__((naked)) static void user_call_indexed(void)
{
    asm("mov $0x5fff00, %esp\nmovl $0x0b, 0x500014\nmov $0x500008, %eax\nmov $2, %ecx\nlcall *(%eax,%ecx,4)\nud2");
}

USER __attribute__((naked)) static void user_call_in_code(void)
{
    asm("mov $0x5fff00, %esp\ncall 1f\n.long 0\n.word 0x0b\n1: pop %eax\nlcall *%cs:(%eax)\nud2");
}

USER __attribute__((naked)) static void user_jump(void)
{
    asm("mov $0x5fff00, %esp\nljmp $0x0b, $0\nud2");
}

USER __attribute__((naked)) static void user_jump_indirect(void)
{
    asm("movl $0x0b, 0x500004\nmov $0x500000, %ebx\nljmp *(%ebx)\nud2");
}

USER __attribute__((naked)) static void user_target(void)
{
    asm("int $0x80\nud2");
}

USER __attribute__((naked)) static void user_load(void)
{
    asm("mov $0x0b, %eax\nmov %eax, %es\nud2");
}

static void describe(unsigned selector, u64 descriptor)
{
    set_descriptor(gdt + selector / 8, descriptor);
}

static void set_call_gate(word selector, word to, unsigned level, unsigned parameters)
{
    if (!gdt) {
        gdt = table();
        use_gdt(gdt);
        describe(USER_TARGET, CODE(3, 1));
    }
    describe(GATE, (u64)((to & 0xffff0000) | 0x8c00 | level << 13 | parameters) << 32 | selector << 16 | (to & 0xffff));
}

/* The user code calls, and lands in the kernel; what it finds on the stack then. */
static const word *lands(const char *name, const void *code, unsigned words)
{
    landed_esp = landed_cs = landed_ss = fault.taken = 0;
    fault.vector = 0;
    user(code, 0);
    check(landed_cs == FLAT_KERNEL_CS && landed_ss == FLAT_KERNEL_SS && landed_esp == (word)entry_stack_top - 4 * words,
          name, "cs %lx, ss %lx, esp %lx, trap %u", landed_cs, landed_ss, landed_esp, fault.vector);
    return landed_esp ? (const word *)landed_esp : (const word *)entry_stack_top - words;
}

static void user_trap(const char *name, const void *code, unsigned vector, word error)
{
    fault.vector = 0;
    user(code, 0);
    check(fault.vector == vector && fault.code == error && fault.from_user, name, "trap %u, code %lx, eip %lx",
          fault.vector, fault.code, fault.frame.rip);
}

VARIATION(call, "user code calls the kernel")
{
    set_call_gate(FLAT_KERNEL_CS, (word)landing, 3, 0);
    shared->vcpu[0].mask = 0;
    const word *stack = lands("it lands", user_call, 4);
    check_equal(stack[0], user_address(user_call) + 12, "eip is behind the call");
    check_equal(stack[1], FLAT_USER_CS, "cs");
    check_equal(stack[2], 0x5fff00, "esp");
    check_equal(stack[3], FLAT_USER_SS, "ss");
    check_equal(shared->vcpu[0].mask, 0, "events are not masked by it");
    set_call_gate(FLAT_KERNEL_CS, (word)landing_and_back, 3, 2);
    user(user_call, 0);
    check_equal(fault.vector, FROM_SYSCALL, "a far return leads back");
    check_equal(fault.frame.rsp, 0x5fff08, "and drops the parameters from the caller's stack, too");
}

VARIATION(parameters, "words of the caller's stack are copied")
{
    set_call_gate(FLAT_KERNEL_CS, (word)landing, 3, 3);
    const word *stack = lands("it lands", user_call_with_parameters, 7);
    check_equal(stack[1], FLAT_USER_CS, "cs");
    check_equal(stack[2], 1, "the first");
    check_equal(stack[3], 2, "the second");
    check_equal(stack[4], 3, "the third");
    check_equal(stack[5], 0x5ffff4, "esp");
    check_equal(stack[6], FLAT_USER_SS, "ss");
    set_call_gate(FLAT_KERNEL_CS, (word)landing, 3, 2);
    user_trap("one that is not mapped", user_call_at_end, PF, 4);
    check_equal(fault.cr2, USER_STACK_TOP, "its address");
    check_equal(fault.frame.rip, user_address(user_call_at_end) + 5, "at the call");
}

VARIATION(operands, "the selector can be in memory")
{
    set_call_gate(FLAT_KERNEL_CS, (word)landing, 3, 0);
    lands("16 bits of offset", user_call_narrow, 4);
    const word *stack = lands("on the stack", user_call_on_stack, 4);
    check_equal(stack[0], user_address(user_call_on_stack) + 17, "eip is behind it");
    lands("with an index", user_call_indexed, 4);
    lands("in code", user_call_in_code, 4);
}

VARIATION(jump, "a jump stays in its ring")
{
    set_call_gate(USER_TARGET, user_address(user_target), 3, 5);
    user(user_jump, 0);
    check_equal(fault.vector, FROM_SYSCALL, "it lands");
    check_equal(fault.frame.rip, user_address(user_target) + 2, "where");
    check_equal(fault.cs, USER_TARGET | 3, "cs");
    check_equal(fault.frame.rsp, 0x5fff00, "esp stays");
    user(user_jump_indirect, 0);
    check_equal(fault.vector, FROM_SYSCALL, "by a pointer in memory");
    user(user_call, 0);
    check_equal(fault.vector, FROM_SYSCALL, "a call within the ring");
    check_equal(fault.frame.rsp, 0x5fff00 - 8, "leaves two words on its stack");
    set_call_gate(FLAT_KERNEL_CS, (word)landing, 3, 0);
    user_trap("to the kernel", user_jump, GP, FLAT_KERNEL_CS & ~3);
}

static void kernel_call(word unused)
{
    (void)unused;
    asm volatile("lcall $0x09, $0");
}

VARIATION(levels, "who may use a gate")
{
    set_call_gate(FLAT_KERNEL_CS, (word)landing, 1, 0);
    user_trap("the kernel's own", user_call, GP, GATE);
    check_equal(fault.frame.rip, user_address(user_call) + 5, "at the call");
    TRAPS("the selector's RPL counts", GP, GATE, TRY("lcall $0x0b, $0", :));
    landed_cs = 0;
    check(caught(kernel_call, 0), "the kernel itself may", "nothing");
    check_equal(landed_cs, FLAT_KERNEL_CS, "cs");
    check_equal(caller_cs, FLAT_KERNEL_CS, "its cs is on its own stack");
    set_call_gate(FLAT_KERNEL_CS, (word)landing, 3, 0);
    user_trap("a gate is no data", user_load, GP, GATE);
    MUST(hypercall(SET_GDT, (word[]){mfn_of(gdt)}, 1));
    user_trap("one behind the end of the GDT", user_call, GP, GATE);
}

VARIATION(absent, "gates and targets that are not there")
{
    set_call_gate(FLAT_KERNEL_CS, (word)landing, 3, 0);
    describe(GATE, 0x00006c0000000000ull | (u64)FLAT_KERNEL_CS << 16);
    user_trap("a gate that is not present", user_call, NP, GATE);
    describe(GATE, 0x00000c0000000000ull | (u64)FLAT_KERNEL_CS << 16 | 3 << 16);
    user_trap("the same with its level where Xen has it", user_call, NP, GATE);
    describe(OTHER, CODE(1, 0));
    set_call_gate(OTHER, (word)landing, 3, 0);
    user_trap("code that is not present", user_call, NP, OTHER);
    describe(OTHER, 0x00cfb2000000ffffull);
    user_trap("data", user_call, GP, OTHER);
    describe(OTHER, 0x0040ba000000ffffull);
    user_trap("behind the limit", user_call, GP, 0);
    describe(OTHER, CODE(2, 1));
    user_trap("a ring that has no stack", user_call, GP, GATE);
    set_call_gate(0, (word)landing, 3, 0);
    user_trap("no code at all", user_call, GP, 0);
}

USER __attribute__((naked)) static void user_call_ldt(void)
{
    asm("mov $0x5fff00, %esp\nlcall $0x07, $0\nint $0x80\nud2");
}

VARIATION(ldt, "a gate in an LDT")
{
    u64 *ldt = page();
    const word to = (word)landing;
    ldt[0] = (u64)((to & 0xffff0000) | 0xec00) << 32 | 2 << 19 | (to & 0xffff);
    ldt[2] = 0x00cfba000000ffffull;
    ldt[0] |= 4 << 16;
    MUST(read_only(ldt));
    user_trap("without an LDT", user_call_ldt, GP, 4);
    MUST(mmuext(SET_LDT, (word)ldt, 3));
    fault.vector = landed_cs = 0;
    user(user_call_ldt, 0);
    check_equal(landed_cs, 0x15, "it lands");
    landed_cs = 0;
    MUST(mmuext(SET_LDT, (word)ldt, 3));
    user(user_call_ldt, 0);
    check_equal(landed_cs, 0x15, "and again with the same table");
    MUST(mmuext(SET_LDT, (word)ldt, 2));
    user_trap("code behind its end", user_call_ldt, GP, 0x14);
    MUST(mmuext(SET_LDT, 0, 0));
    MUST(writable(ldt));
    MUST(read_only(ldt));
    MUST(mmuext(SET_LDT, (word)ldt, 3));
    user_trap("what Xen has made of it is no gate for user code", user_call_ldt, GP, 4);
}

USER __attribute__((naked)) static void user_call_deep(void)
{
    asm("movl $0x17, 0x5fff44\nmov $0x5fff00, %esp\nlcall $0x0b, $0\nud2");
}

VARIATION(stack, "the kernel's stack ends within the call's words")
{
    word at = TEST_AREA(1);
    make_path(at);
    MUST(map(at + PAGE, address_of(page()) | DATA));
    set_call_gate(FLAT_KERNEL_CS, (word)landing, 3, 31);
    make_user();
    MUST(hypercall(STACK_SWITCH, FLAT_KERNEL_SS, at + PAGE + 64));
    set_gate(PF, 0, (word)landing_of_trap);
    user(user_call_deep, 0);
    check_equal(landed_esp, at + PAGE + 64 - 6 * 4, "a trap's frame is on it");
    check_equal(trap_code, 6, "the code is a write's by user code");
    check_equal(shared->vcpu[0].cr2, at + PAGE - 4, "where it ends");
    check_equal(*(word *)(at + PAGE), 0x17, "the words above were pushed");
}

VARIATION(single_step, "a call with TF set")
{
    set_call_gate(USER_TARGET, user_address(user_target), 3, 0);
    user_as(user_jump_indirect, 0, FLAT_USER_CS, 0x202);
    user_as((const char *)user_jump + 5, 0, FLAT_USER_CS, 0x202 | TF);
    check_equal(fault.vector, DB, "#DB");
    check_equal(fault.frame.rip, user_address(user_target), "at its end");
    check_equal(fault.cs, USER_TARGET | 3, "cs");
}

CRASHING_VARIATION(endless, "traps in a row", "a jump that leads to itself")
{
    set_call_gate(USER_TARGET, user_address(user_jump) + 5, 3, 0);
    user(user_jump, 0);
}
