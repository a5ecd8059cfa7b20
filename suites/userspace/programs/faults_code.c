/* Faults of instructions: arithmetic, opcodes, traps, privileged instructions in a program. */
#include "faults.h"

#include <string.h>
#include <sys/mman.h>

static void expect_all(const struct fault *cases, size_t count)
{
    catch_faults();
    for (size_t i = 0; i < count; i++)
        expect_fault(&cases[i]);
}
#define EXPECT_ALL(cases) expect_all(cases, sizeof cases / sizeof *cases)

FAULTING(divide_by_zero, "xor %edx, %edx; xor %ecx, %ecx; mov $7, %eax", "div %ecx");
FAULTING(divide_too_big, "mov $5, %edx; mov $3, %ecx; mov $7, %eax", "div %ecx");
FAULTING(divide_signed, "mov $-1, %rcx; mov $1, %rax; shl $63, %rax; cqo", "idiv %rcx");
/* x87 reports at the next instruction that waits. */
FAULTING(x87_divide, "fninit; movw $0x37b, -8(%rsp); fldcw -8(%rsp); fld1; fldz; fdivrp", "fwait");
FAULTING(x87_invalid, "fninit; movw $0x37e, -8(%rsp); fldcw -8(%rsp); fldz; fldz; fdivrp", "fwait");
FAULTING(x87_underrun, "fninit; movw $0x37e, -8(%rsp); fldcw -8(%rsp); fstp %st(1)", "fwait");

void faults_arithmetic(void)
{
    static const struct fault cases[] = {
        {"division by zero", divide_by_zero, 0, 0, divide_by_zero_at, SIGFPE, FPE_INTDIV, AT_RIP, DE, 0},
        {"quotient too big", divide_too_big, 0, 0, divide_too_big_at, SIGFPE, FPE_INTDIV, AT_RIP, DE, 0},
        {"smallest number by -1", divide_signed, 0, 0, divide_signed_at, SIGFPE, FPE_INTDIV, AT_RIP, DE, 0},
        {"x87 division by zero", x87_divide, 0, 0, x87_divide_at, SIGFPE, FPE_FLTDIV, AT_RIP, MF, 0},
    };
    EXPECT_ALL(cases);
}

/* Apart from the others: the Unicorn engine's CPU raises none of these. */
void faults_x87_invalid(void)
{
    static const struct fault cases[] = {
        {"x87 invalid operation", x87_invalid, 0, 0, x87_invalid_at, SIGFPE, FPE_FLTINV, AT_RIP, MF, 0},
        {"x87 stack underrun", x87_underrun, 0, 0, x87_underrun_at, SIGFPE, FPE_FLTINV, AT_RIP, MF, 0},
    };
    EXPECT_ALL(cases);
}

#define WITH_MXCSR(mask) \
    "movl $" mask ", -8(%rsp); ldmxcsr -8(%rsp); mov $1, %eax; cvtsi2sd %eax, %xmm0; pxor %xmm1, %xmm1"
FAULTING(sse_divide, WITH_MXCSR("0x1d80"), "divsd %xmm1, %xmm0");
FAULTING(sse_invalid, WITH_MXCSR("0x1f00"), "divsd %xmm1, %xmm1");

/* Apart from the others: the Unicorn engine's CPU raises no SIMD exceptions. */
void faults_simd(void)
{
    static const struct fault cases[] = {
        {"SSE division by zero", sse_divide, 0, 0, sse_divide_at, SIGFPE, FPE_FLTDIV, AT_RIP, XM, 0},
        {"SSE invalid operation", sse_invalid, 0, 0, sse_invalid_at, SIGFPE, FPE_FLTINV, AT_RIP, XM, 0},
    };
    EXPECT_ALL(cases);
}

FAULTING(misaligned, "pushf; orl $0x40000, (%rsp); popf", "mov (%rdi), %eax; pushf; andl $~0x40000, (%rsp); popf");
FAULTING(misaligned_sse, "", "movaps (%rdi), %xmm0");

/* Apart from the others: the Unicorn engine's CPU checks no alignment. */
void faults_alignment(void)
{
    static uint8_t area[32] __attribute__((aligned(16)));
    uintptr_t odd = (uintptr_t)area + 1;
    const struct fault cases[] = {
        {"misaligned movaps", misaligned_sse, odd, 0, misaligned_sse_at, SIGSEGV, SI_KERNEL, 0, GP, 0},
        {"misaligned load with AC set", misaligned, odd, 0, misaligned_at, SIGBUS, BUS_ADRALN, 0, AC, 0},
    };
    EXPECT_ALL(cases);
}

FAULTING(undefined_2, "", "ud2");
FAULTING(undefined_1, "", ".byte 0x0f, 0xb9, 0xc0");
FAULTING(no_lock, "", ".byte 0xf0, 0x90");
FAULTING(push_es, "", ".byte 0x06");
FAULTING(into_64, "", ".byte 0xce");
FAULTING(undefined_sse, "", ".byte 0x0f, 0x0a");
FAULTING(breakpoint, "", "int3");
FAULTING(breakpoint_long, "", ".byte 0xcd, 0x03");
FAULTING(overflow, "", "int $4");
FAULTING(icebp, "", ".byte 0xf1");
FAULTING(single_step, "pushf; orl $0x100, (%rsp); popf", "nop");
FAULTING(step_branch, "xor %ecx, %ecx; pushf; orl $0x100, (%rsp); popf", "jrcxz step_branch_to; nop; nop");
asm("step_branch_to: ret");
extern const char step_branch_to[];
FAULTING(undefined_in_shadow, "xor %eax, %eax; mov $0x2b, %edx; mov %edx, %ss", "ud2");

void faults_opcode(void)
{
    static const struct fault cases[] = {
        {"ud2", undefined_2, 0, 0, undefined_2_at, SIGILL, ILL_ILLOPN, AT_RIP, UD, 0},
        {"ud1", undefined_1, 0, 0, undefined_1_at, SIGILL, ILL_ILLOPN, AT_RIP, UD, 0},
        {"lock nop", no_lock, 0, 0, no_lock_at, SIGILL, ILL_ILLOPN, AT_RIP, UD, 0},
        {"push %es", push_es, 0, 0, push_es_at, SIGILL, ILL_ILLOPN, AT_RIP, UD, 0},
        {"into", into_64, 0, 0, into_64_at, SIGILL, ILL_ILLOPN, AT_RIP, UD, 0},
        {"0f 0a", undefined_sse, 0, 0, undefined_sse_at, SIGILL, ILL_ILLOPN, AT_RIP, UD, 0},
        {"ud2 after mov to ss", undefined_in_shadow, 0, 0, undefined_in_shadow_at, SIGILL, ILL_ILLOPN, AT_RIP, UD, 0},
        {"int3", breakpoint, 0, 0, breakpoint_after, SIGTRAP, SI_KERNEL, 0, BP, 0},
        {"int $3", breakpoint_long, 0, 0, breakpoint_long_after, SIGTRAP, SI_KERNEL, 0, BP, 0},
        {"int $4", overflow, 0, 0, overflow_after, SIGSEGV, SI_KERNEL, 0, OF, 0},
        {"TF over nop", single_step, 0, 0, single_step_after, SIGTRAP, TRAP_TRACE, AT_RIP, DB, 0},
        {"TF over a branch", step_branch, 0, 0, step_branch_to, SIGTRAP, TRAP_TRACE, AT_RIP, DB, 0},
    };
    EXPECT_ALL(cases);
}

/* Apart from the others: not every CPU has this opcode. Hypervisors disagree on the place, so that is not compared. */
void faults_icebp(void)
{
    catch_faults();
    provoke(icebp, 0, 0);
    CHECK(caught.signal == SIGTRAP && caught.code == TRAP_BRKPT && caught.trap == DB,
          "icebp: %s came, si_code %d, trap number %ld", strsignal(caught.signal), caught.code, caught.trap);
}

FAULTING(clear_if, "", "cli");
FAULTING(set_if, "", "sti");
FAULTING(halt, "", "hlt");
FAULTING(in_byte, "mov $0x42, %edx", "in %dx, %al");
FAULTING(in_immediate, "", "in $0x70, %al");
FAULTING(out_byte, "mov $0x80, %edx", "out %al, %dx");
FAULTING(out_word, "mov $0xcf8, %edx", "out %eax, %dx");
FAULTING(in_string, "mov $0x42, %edx", "insb");
FAULTING(out_string, "mov $0x80, %edx", "outsb");
FAULTING(read_cr3, "", "mov %cr3, %rax");
FAULTING(write_cr0, "", "mov %rax, %cr0");
FAULTING(write_cr3, "", "mov %rax, %cr3");
FAULTING(clear_ts, "", "clts");
FAULTING(read_dr7, "", "mov %dr7, %rax");
FAULTING(read_msr, "mov $0xc0000080, %ecx", "rdmsr");
FAULTING(write_msr, "mov $0xc0000080, %ecx", "wrmsr");
FAULTING(load_gdt, "", "lgdt (%rdi)");
FAULTING(load_idt, "", "lidt (%rdi)");
FAULTING(load_ldt, "", "lldt %ax");
FAULTING(load_tr, "", "ltr %ax");
FAULTING(flush_page, "", "invlpg (%rdi)");
FAULTING(write_back, "", "wbinvd");
FAULTING(swap_gs, "", "swapgs");
FAULTING(system_return, "", "sysretq");
FAULTING(vector_21, "", "int $0x21");
FAULTING(vector_e, "", "int $14");
FAULTING(vector_82, "", "int $0x82");
FAULTING(bad_selector, "mov $0x1c0b, %edx", "mov %edx, %ds");
FAULTING(kernel_selector, "mov $0x10, %edx", "mov %edx, %ss");

void privileged(void)
{
    static uint8_t buffer[16];
    const uintptr_t at = (uintptr_t)buffer;
#define DENIED(text, name, error) {text, name, at, at, name##_at, SIGSEGV, SI_KERNEL, 0, GP, error}
    const struct fault cases[] = {
        DENIED("cli", clear_if, 0), DENIED("sti", set_if, 0), DENIED("hlt", halt, 0),
        DENIED("in %dx", in_byte, 0), DENIED("in $0x70", in_immediate, 0), DENIED("out %al", out_byte, 0),
        DENIED("out %eax", out_word, 0), DENIED("insb", in_string, 0), DENIED("outsb", out_string, 0),
        DENIED("mov %cr3", read_cr3, 0), DENIED("mov to %cr0", write_cr0, 0), DENIED("mov to %cr3", write_cr3, 0),
        DENIED("clts", clear_ts, 0), DENIED("mov %dr7", read_dr7, 0), DENIED("rdmsr", read_msr, 0),
        DENIED("wrmsr", write_msr, 0), DENIED("lgdt", load_gdt, 0), DENIED("lidt", load_idt, 0),
        DENIED("lldt", load_ldt, 0), DENIED("ltr", load_tr, 0), DENIED("invlpg", flush_page, 0),
        DENIED("wbinvd", write_back, 0), DENIED("swapgs", swap_gs, 0), DENIED("sysret", system_return, 0),
        /* Error codes name the gate (vector, IDT bit) or the selector (SDM vol. 3, section 6.13). */
        DENIED("int $0x21", vector_21, 0x21 << 3 | 2), DENIED("int $14", vector_e, 14 << 3 | 2),
        DENIED("int $0x82", vector_82, 0x82 << 3 | 2), DENIED("a selector past the GDT", bad_selector, 0x1c08),
        DENIED("the kernel's selector", kernel_selector, 0x10),
    };
    EXPECT_ALL(cases);
}
