/*
 * x87, SSE, MXCSR and, where CPUID offers it, AVX state belong to a process. Linux switches them lazily or eagerly, a
 * PV guest through fpu_taskswitch: whoever loses a register, a rounding mode or a sticky flag on the way is found here.
 */
#include "check.h"

#include <cpuid.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#define PING_PONGS 1500
#define YIELDS 1500
#define SIGNALS 100

/* FXSAVE's area (Intel SDM vol. 1, table 10-2), and behind it the upper halves of the AVX registers. */
struct fpu_state {
    uint16_t control, status;
    uint8_t tags, reserved;
    uint16_t opcode;
    uint64_t instruction, data;
    uint32_t mxcsr, mxcsr_mask;
    uint8_t st[8][16], xmm[16][16], unused[96];
    uint8_t upper[16][16];
} __attribute__((aligned(16)));

/* Loads `in`, makes one system call, saves to `out`. No code but the kernel's runs between. */
long fpu_system_call(const struct fpu_state *in, struct fpu_state *out, long number, long a1, const void *a2, long a3);
/* Loads `in`, counts `turns` down, saves to `out`. */
void fpu_spin(const struct fpu_state *in, struct fpu_state *out, long turns);
void fpu_load(const struct fpu_state *in);
int fpu_avx; /* CPUID offers AVX */

#define REGISTERS "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"

asm(".text\n"
    ".macro load_state\n"
    "   fxrstor64 (%rdi)\n"
    "   cmpl $0, fpu_avx(%rip)\n"
    "   je 8f\n"
    "   .irp n," REGISTERS "\n"
    "   vinsertf128 $1, 512 + 16 * \\n(%rdi), %ymm\\n, %ymm\\n\n"
    "   .endr\n"
    "8:\n"
    ".endm\n"
    ".macro save_state\n"
    "   fxsave64 (%rbx)\n"
    "   cmpl $0, fpu_avx(%rip)\n"
    "   je 9f\n"
    "   .irp n," REGISTERS "\n"
    "   vextractf128 $1, %ymm\\n, 512 + 16 * \\n(%rbx)\n"
    "   .endr\n"
    "   vzeroupper\n"
    "9:\n"
    ".endm\n"
    "fpu_system_call:\n"
    "   push %rbx\n"
    "   mov %rsi, %rbx\n"
    "   load_state\n"
    "   mov %rdx, %rax\n"
    "   mov %rcx, %rdi\n"
    "   mov %r8, %rsi\n"
    "   mov %r9, %rdx\n"
    "   syscall\n"
    "   jmp fpu_finish\n"
    "fpu_spin:\n"
    "   push %rbx\n"
    "   mov %rsi, %rbx\n"
    "   load_state\n"
    "1: dec %rdx\n"
    "   jnz 1b\n"
    "fpu_finish:\n"
    "   save_state\n"
    "   fninit\n"
    "   ldmxcsr fpu_default_mxcsr(%rip)\n"
    "   pop %rbx\n"
    "   ret\n"
    "fpu_load:\n"
    "   load_state\n"
    "   ret\n"
    "   .section .rodata\n"
    "fpu_default_mxcsr: .long 0x1f80\n"
    "   .text\n");

/* A state of normal numbers, all exceptions masked, that differs for each seed in every register and mode. */
static void make_state(struct fpu_state *state, uint64_t seed)
{
    memset(state, 0, sizeof *state);
    state->control = 0x037f & ~0x0300;
    state->control |= (random_at(seed, 0) & 3) << 10 | (random_at(seed, 1) & 1 ? 0x0300 : 0x0200);
    state->tags = 0xff;
    state->mxcsr = 0x1f80 | (random_at(seed, 2) & 3) << 13; /* rounding; then flush and denormal modes, sticky flags */
    state->mxcsr |= (random_at(seed, 3) & 0x8040) | (random_at(seed, 4) & 0x3f);
    for (int i = 0; i < 8; i++) {
        uint64_t mantissa = random_at(seed, 10 + i) | 1ULL << 63;
        uint16_t exponent = 0x3f00 + (random_at(seed, 20 + i) & 0xff);
        memcpy(state->st[i], &mantissa, 8);
        memcpy(state->st[i] + 8, &exponent, 2);
    }
    for (int i = 0; i < 16; i++)
        for (int half = 0; half < 2; half++) {
            uint64_t value = random_at(seed, 30 + 2 * i + half);
            memcpy(state->xmm[i] + 8 * half, &value, 8);
            value = random_at(seed, 70 + 2 * i + half);
            memcpy(state->upper[i] + 8 * half, &value, 8);
        }
}

static void compare(const struct fpu_state *had, const struct fpu_state *found, const char *when, int round)
{
    CHECK(found->control == had->control, "%s %d: x87 control word %#x became %#x", when, round, had->control,
          found->control);
    CHECK(found->status == had->status, "%s %d: x87 status word %#x became %#x", when, round, had->status,
          found->status);
    CHECK(found->tags == had->tags, "%s %d: x87 tags %#x became %#x", when, round, had->tags, found->tags);
    CHECK(found->mxcsr == had->mxcsr, "%s %d: mxcsr %#x became %#x", when, round, had->mxcsr, found->mxcsr);
    for (int i = 0; i < 8; i++)
        CHECK(!memcmp(found->st[i], had->st[i], 10), "%s %d: st(%d) changed", when, round, i);
    for (int i = 0; i < 16; i++)
        CHECK(!memcmp(found->xmm[i], had->xmm[i], 16), "%s %d: xmm%d changed", when, round, i);
    for (int i = 0; i < 16 && fpu_avx; i++)
        CHECK(!memcmp(found->upper[i], had->upper[i], 16), "%s %d: ymm%d's upper half changed", when, round, i);
}

static void look_for_avx(void)
{
    unsigned a, b, c = 0, d;
    fpu_avx = __get_cpuid(1, &a, &b, &c, &d) && c & bit_AVX && c & bit_OSXSAVE;
    note("registers: %s", fpu_avx ? "ymm" : "xmm");
}

static void one_side(uint64_t seed, int in, int out, int begins)
{
    struct fpu_state had, found;
    for (int round = 0; round < PING_PONGS; round++) {
        char byte = (char)round, answer = 0;
        make_state(&had, seed + round);
        for (int turn = 0; turn < 2; turn++) {
            int writes = turn != begins;
            long count = writes ? fpu_system_call(&had, &found, SYS_write, out, &byte, 1)
                                : fpu_system_call(&had, &found, SYS_read, in, &answer, 1);
            CHECK(count == 1, "the pipe's %s returned %ld", writes ? "write" : "read", count);
            compare(&had, &found, writes ? "write" : "read", round);
        }
        CHECK(answer == byte, "round %d: the pipe brought %d", round, answer);
    }
    for (int round = 0; round < YIELDS; round++) {
        make_state(&had, seed ^ (uint64_t)round << 32);
        CHECK(fpu_system_call(&had, &found, SYS_sched_yield, 0, NULL, 0) == 0, "sched_yield failed");
        compare(&had, &found, "sched_yield", round);
    }
}

void fpu_switch(void)
{
    int there[2], back[2];
    look_for_avx();
    TRY(pipe(there));
    TRY(pipe(back));
    pid_t child = TRY(fork());
    if (child == 0) {
        one_side(0xc41d, there[0], back[1], 0);
        _exit(0);
    }
    one_side(0xfa7e, back[0], there[1], 1);
    expect_exit(child, 0);
}

static volatile sig_atomic_t signals_seen;

/* A handler starts with the state of a new process, and may do to the registers what it likes. */
static void clobber(int signal, siginfo_t *info, void *context)
{
    uint16_t control;
    uint32_t mxcsr;
    struct fpu_state mine;
    (void)signal, (void)info, (void)context;
    asm volatile("fnstcw %0; stmxcsr %1" : "=m"(control), "=m"(mxcsr));
    CHECK(control == 0x37f, "a handler starts with the x87 control word %#x, not 0x37f", control);
    CHECK(mxcsr == 0x1f80, "a handler starts with mxcsr %#x, not 0x1f80", mxcsr);
    make_state(&mine, 0x51 + signals_seen);
    fpu_load(&mine);
    signals_seen++;
}

void fpu_signal(void)
{
    struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    struct fpu_state had, found;
    look_for_avx();
    catch_signal(SIGALRM, clobber, 0);
    TRY(setitimer(ITIMER_REAL, &often, NULL));
    for (int round = 0; signals_seen < SIGNALS; round++) {
        CHECK(round < 100000, "only %d timer signals came", (int)signals_seen);
        make_state(&had, round);
        fpu_spin(&had, &found, 20000);
        compare(&had, &found, "signal", round);
    }
    TRY(setitimer(ITIMER_REAL, &never, NULL));
}

/* --fresh-fpu: what execve() leaves of its caller's modes: nothing. */
int fresh_fpu_main(char **arguments)
{
    uint16_t control;
    uint32_t mxcsr;
    (void)arguments;
    asm volatile("fnstcw %0; stmxcsr %1" : "=m"(control), "=m"(mxcsr));
    CHECK(control == 0x37f, "a new program starts with the x87 control word %#x", control);
    CHECK(mxcsr == 0x1f80, "a new program starts with mxcsr %#x", mxcsr);
    return 0;
}

void fpu_fork(void)
{
    struct fpu_state had, found;
    look_for_avx();
    for (int round = 0; round < 20; round++) {
        make_state(&had, 0xf0f0 + round);
        long child = fpu_system_call(&had, &found, SYS_fork, 0, NULL, 0);
        compare(&had, &found, child ? "fork, in the parent" : "fork, in the child", round);
        CHECK(child >= 0, "fork returned %ld", child);
        if (child == 0) {
            char *const arguments[] = {"fresh", "--fresh-fpu", NULL};
            fpu_load(&had);
            execve(self_path, arguments, environ);
            _exit(127);
        }
        expect_exit(child, 0);
    }
}
