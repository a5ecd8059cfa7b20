/* A parent that steps its child through known instructions, and stops it with hardware break- and watchpoints. */
#include "check.h"

#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static uint8_t stepped_bytes[64];
volatile uint64_t watched[4];

/* Each label is a place where a step must stop. */
void stepped(void *buffer);
extern const char step_0[], step_1[], step_2[], step_3[], step_4[], step_5[], step_6[], step_7[], step_8[], step_9[];
extern const char step_10[], step_11[], step_12[], step_13[], step_f[], step_end[];
asm(".text\n"
    "stepped:\n"
    "step_0:  mov $3, %ecx\n"
    "step_1:  dec %ecx\n"
    "step_2:  jnz step_1\n"
    "step_3:  call step_f\n"
    "step_4:  push %rbx\n"
    "step_5:  mov $39, %eax\n" /* getpid */
    "step_6:  syscall\n"
    "step_7:  mov $4, %ecx\n"
    "step_8:  mov $0x5a, %eax\n"
    "step_9:  rep stosb\n"
    "step_10: pop %rbx\n"
    "step_11: rdtsc\n"
    "step_12: movaps %xmm0, %xmm1\n"
    "step_13: jmp step_end\n"
    "step_f:  ret\n"
    "step_end: ret\n");

static const char *const path[] = {
    step_1, step_2, step_1, step_2, step_1, step_2, step_3, step_f, step_4, step_5, step_6, step_7,
    step_8, step_9, step_9, step_9, step_9, step_10, step_11, step_12, step_13, step_end,
};

void write_watched(uint64_t value);
uint64_t read_watched(void);
extern const char before_write[], after_write[], after_read[];
asm(".text\n"
    "write_watched:\n"
    "before_write: mov %edi, watched+8(%rip)\n"
    "after_write:  ret\n"
    "read_watched:\n"
    "   mov watched+8(%rip), %rax\n"
    "after_read: ret\n");

static void wait_for(pid_t child, int signal, const char *when)
{
    int status;
    TRY(waitpid(child, &status, 0));
    CHECK(!WIFEXITED(status), "%s: the child ended with status %d", when, WEXITSTATUS(status));
    CHECK(WIFSTOPPED(status), "%s: the child was killed by signal %d", when, WTERMSIG(status));
    CHECK(WSTOPSIG(status) == signal, "%s: the child stopped for %s", when, strsignal(WSTOPSIG(status)));
}

/* A child that stops itself before it runs `body`, and ends with status 5 after. */
static pid_t traced(void (*body)(void))
{
    pid_t child = TRY(fork());
    if (child == 0) {
        TRY(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
        TRY(raise(SIGSTOP));
        body();
        _exit(5);
    }
    wait_for(child, SIGSTOP, "at the start");
    return child;
}

static void resume(pid_t child, int how, int stops_for, const char *when)
{
    TRY(ptrace(how, child, NULL, NULL));
    wait_for(child, stops_for, when);
}

static struct user_regs_struct registers_of(pid_t child)
{
    struct user_regs_struct registers;
    TRY(ptrace(PTRACE_GETREGS, child, NULL, &registers));
    return registers;
}

static int code_of_stop(pid_t child)
{
    siginfo_t info;
    TRY(ptrace(PTRACE_GETSIGINFO, child, NULL, &info));
    return info.si_code;
}

static long peek(pid_t child, const volatile void *address)
{
    return ptrace(PTRACE_PEEKDATA, child, address, NULL);
}

static void let_go(pid_t child, int status)
{
    TRY(ptrace(PTRACE_CONT, child, NULL, NULL));
    expect_exit(child, status);
}

static void run_stepped(void)
{
    for (int i = 0; i < 3; i++) {
        stepped(stepped_bytes + 4 * i);
        CHECK(stepped_bytes[4 * i + 3] == 0x5a && stepped_bytes[4 * i + 4] == 0, "rep stosb did not write 4 bytes");
    }
}

/* A breakpoint as gdb sets it: int3 over the instruction, and away again. */
static void run_to(pid_t child, const char *place)
{
    long code = peek(child, place);
    TRY(ptrace(PTRACE_POKETEXT, child, place, (code & ~0xffL) | 0xcc));
    resume(child, PTRACE_CONT, SIGTRAP, "running to a breakpoint");
    struct user_regs_struct registers = registers_of(child);
    CHECK(registers.rip == (uintptr_t)place + 1, "int3 stopped at %#llx, not %p+1", registers.rip, (void *)place);
    registers.rip--;
    TRY(ptrace(PTRACE_SETREGS, child, NULL, &registers));
    TRY(ptrace(PTRACE_POKETEXT, child, place, code));
}

void step(void)
{
    pid_t child = traced(run_stepped);
    for (int round = 0; round < 3; round++) {
        run_to(child, step_0);
        for (size_t i = 0; i < sizeof path / sizeof *path; i++) {
            resume(child, PTRACE_SINGLESTEP, SIGTRAP, "stepping");
            struct user_regs_struct registers = registers_of(child);
            CHECK(registers.rip == (uintptr_t)path[i], "step %zu of round %d ended at step_0+%lld, not step_0+%td", i,
                  round, registers.rip - (uintptr_t)step_0, path[i] - step_0);
            if (path[i] == step_7)
                CHECK((pid_t)registers.rax == child, "getpid() under single step returned %lld", registers.rax);
        }
    }
    let_go(child, 5);
}

/* Many steps through whatever raise() and write() do: they end where they should and nothing goes astray. */
static void run_pipe(void)
{
    int pipes[2];
    char text[6];
    TRY(pipe(pipes));
    write_all(pipes[1], "hello", 5);
    read_all(pipes[0], text, 5);
    CHECK(!memcmp(text, "hello", 5), "a pipe under single step brought the wrong bytes");
}

void step_far(void)
{
    pid_t child = traced(run_pipe);
    int steps = 0, status;
    do {
        TRY(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL));
        TRY(waitpid(child, &status, 0));
        CHECK(++steps < 100000, "the child does not end");
    } while (WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 5, "the child ended with %#x after %d steps", status, steps);
    CHECK(steps > 50, "the child ended after %d steps", steps);
}

static void poke_debug(pid_t child, int number, uintptr_t value)
{
    TRY(ptrace(PTRACE_POKEUSER, child, offsetof(struct user, u_debugreg) + 8 * number, value));
}

static unsigned long peek_debug(pid_t child, int number)
{
    return ptrace(PTRACE_PEEKUSER, child, offsetof(struct user, u_debugreg) + 8 * number, NULL);
}

/* DR7's bits for breakpoint `number` (Intel SDM vol. 3, section 17.2.4): enabled, kind, length. */
enum { EXECUTE = 0, WRITES = 1, READS_WRITES = 3 };
static unsigned long dr7(int number, int kind, int bytes)
{
    int length = bytes == 8 ? 2 : bytes - 1;
    return 1UL << (2 * number) | (unsigned long)(kind | length << 2) << (16 + 4 * number);
}

static void run_watched(void)
{
    for (int i = 1; i <= 20; i++) {
        watched[0] = watched[2] = watched[3] = i;
        write_watched(i);
        CHECK(read_watched() == (uint64_t)i, "the watched variable holds %lu", watched[1]);
    }
}

void hardware_breakpoint(void)
{
    pid_t child = traced(run_watched);
    poke_debug(child, 1, (uintptr_t)before_write);
    poke_debug(child, 7, dr7(1, EXECUTE, 1));
    for (int i = 1; i <= 20; i++) {
        resume(child, PTRACE_CONT, SIGTRAP, "running to a hardware breakpoint");
        struct user_regs_struct registers = registers_of(child);
        CHECK(registers.rip == (uintptr_t)before_write, "hit %d: stopped at %#llx, not at the breakpoint %p", i,
              registers.rip, (void *)before_write);
        CHECK((int)registers.rdi == i, "hit %d: rdi is %lld", i, registers.rdi);
        CHECK((peek_debug(child, 6) & 15) == 2, "hit %d: DR6 is %#lx", i, peek_debug(child, 6));
        CHECK(code_of_stop(child) == TRAP_HWBKPT, "hit %d: si_code is %d", i, code_of_stop(child));
    }
    poke_debug(child, 7, 0);
    let_go(child, 5);
}

static void expect_watch(pid_t child, int hit, const char *place, unsigned long dr6, uint64_t value)
{
    resume(child, PTRACE_CONT, SIGTRAP, "running to a watchpoint");
    uintptr_t rip = registers_of(child).rip;
    CHECK(rip == (uintptr_t)place, "hit %d: stopped at %#lx, not after the access at %p", hit, rip, (void *)place);
    CHECK((peek_debug(child, 6) & 15) == dr6, "hit %d: DR6 is %#lx, not %#lx", hit, peek_debug(child, 6), dr6);
    CHECK((uint64_t)peek(child, &watched[1]) == value, "hit %d: the variable holds %ld", hit, peek(child, &watched[1]));
}

void watchpoint(void)
{
    pid_t child = traced(run_watched);
    poke_debug(child, 0, (uintptr_t)&watched[1]);
    poke_debug(child, 7, dr7(0, WRITES, 4));
    for (int i = 1; i <= 10; i++)
        expect_watch(child, i, after_write, 1, i);
    poke_debug(child, 7, 0);
    poke_debug(child, 3, (uintptr_t)&watched[1]);
    poke_debug(child, 7, dr7(3, READS_WRITES, 8));
    expect_watch(child, 11, after_read, 8, 10);
    for (int i = 11; i <= 20; i++) {
        expect_watch(child, i, after_write, 8, i);
        expect_watch(child, i, after_read, 8, i);
    }
    let_go(child, 5);
}
