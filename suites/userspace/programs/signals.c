/* Signals: order, masks, information, alternate stacks, jumps out of handlers, restarted calls, registers kept. */
#include "check.h"

#include <errno.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static volatile sig_atomic_t seen, depth;
static volatile int values[64];

static void record_value(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    CHECK(info->si_code == SI_QUEUE, "a queued signal has si_code %d", info->si_code);
    CHECK(info->si_pid == getpid(), "a queued signal comes from %d", info->si_pid);
    values[seen++] = info->si_value.sival_int;
}

/* Real-time signals queue, keep their order, and come lowest number first. */
static void queued_in_order(void)
{
    sigset_t block, old;
    sigemptyset(&block);
    for (int i = 0; i < 4; i++) {
        catch_signal(SIGRTMIN + i, record_value, 0);
        sigaddset(&block, SIGRTMIN + i);
    }
    TRY(sigprocmask(SIG_BLOCK, &block, &old));
    for (int i = 0; i < 32; i++)
        TRY(sigqueue(getpid(), SIGRTMIN + 3 - i % 4, (union sigval){.sival_int = 100 * (3 - i % 4) + i / 4}));
    CHECK(seen == 0, "%d blocked signals were delivered", (int)seen);
    TRY(sigprocmask(SIG_SETMASK, &old, NULL));
    CHECK(seen == 32, "%d of 32 queued signals came", (int)seen);
    /* Handlers stack up: the signal set up last runs first, so the highest number is the one that starts. */
    int next[4] = {0};
    for (int i = 0; i < 32; i++) {
        int which = values[i] / 100;
        CHECK(which < 4 && values[i] % 100 == next[which]++, "queued signal %d brought %d", i, values[i]);
    }
}

static void count_child(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    CHECK(info->si_code == CLD_EXITED, "SIGCHLD has si_code %d", info->si_code);
    CHECK(info->si_status == 7, "SIGCHLD has si_status %d", info->si_status);
    values[0] = info->si_pid;
    seen++;
}

static void child_information(void)
{
    sigset_t block, old;
    seen = 0;
    catch_signal(SIGCHLD, count_child, 0);
    sigemptyset(&block);
    sigaddset(&block, SIGCHLD);
    TRY(sigprocmask(SIG_BLOCK, &block, &old));
    pid_t child = TRY(fork());
    if (child == 0)
        _exit(7);
    while (!seen)
        sigsuspend(&old);
    CHECK(values[0] == child, "SIGCHLD names %d, not %d", values[0], child);
    TRY(sigprocmask(SIG_SETMASK, &old, NULL));
    expect_exit(child, 7);
    signal(SIGCHLD, SIG_DFL);
}

static void move_on(int signal, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    (void)signal, (void)info;
    CHECK(registers[REG_RBX] == 0x1122334455667788, "the frame has rbx %#llx", registers[REG_RBX]);
    registers[REG_RBX] = 0x123456789abcdef0;
    registers[REG_R15] = -5;
    registers[REG_RIP] += 2;
}

/* What a handler writes to the frame is what the program goes on with. */
static void frame_is_used(void)
{
    uint64_t rbx = 0x1122334455667788, r15;
    catch_signal(SIGILL, move_on, 0);
    asm volatile("ud2; mov %%r15, %1" : "+b"(rbx), "=r"(r15) : : "r15", "memory");
    CHECK(rbx == 0x123456789abcdef0, "rbx is %#lx, not what the handler wrote", rbx);
    CHECK(r15 == (uint64_t)-5, "r15 is %#lx, not what the handler wrote", r15);
}

static void count(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info, (void)context;
    seen++;
}

/* A timer interrupts a loop that holds a known value in each register and in the flags; none may change. */
long spin_registers(long turns);
asm(".text\n"
    "spin_registers:\n"
    "   push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "   mov %rdi, %rcx\n"
    "   mov $1, %eax; mov $2, %ebx; mov $4, %edx; mov $8, %esi; mov $16, %edi; mov $32, %ebp; mov $64, %r8d\n"
    "   mov $128, %r9d; mov $256, %r10d; mov $512, %r11d; mov $1024, %r12d; mov $2048, %r13d; mov $4096, %r14d\n"
    "   mov $8192, %r15d\n"
    "   mov %rax, -8(%rsp); mov %rdx, -128(%rsp)\n" /* the red zone is the interrupted function's */
    "   stc; std\n"
    "1: lea -1(%rcx), %rcx\n"
    "   jrcxz 2f\n"
    "   jc 1b\n"
    "   xor %eax, %eax\n" /* carry was lost */
    "2: cld\n"
    "   add %rbx, %rax; add %rdx, %rax; add %rsi, %rax; add %rdi, %rax; add %rbp, %rax; add %r8, %rax\n"
    "   add %r9, %rax; add %r10, %rax; add %r11, %rax; add %r12, %rax; add %r13, %rax; add %r14, %rax\n"
    "   add %r15, %rax; add -8(%rsp), %rax; add -128(%rsp), %rax\n"
    "   pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "   ret\n");

static void registers_kept(void)
{
    struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    seen = 0;
    catch_signal(SIGALRM, count, SA_RESTART);
    TRY(setitimer(ITIMER_REAL, &often, NULL));
    for (int round = 0; seen < 100; round++) {
        CHECK(round < 100000, "only %d timer signals came", (int)seen);
        long sum = spin_registers(20000);
        CHECK(sum == 16383 + 5, "a timer signal changed registers: their sum is %ld, not 16388", sum);
    }
    TRY(setitimer(ITIMER_REAL, &never, NULL));
}

static void nest(int signal, siginfo_t *info, void *context)
{
    (void)info, (void)context;
    if (++depth < 50)
        TRY(raise(signal));
    seen++;
}

void signals(void)
{
    queued_in_order();
    child_information();
    frame_is_used();
    registers_kept();
    seen = 0;
    catch_signal(SIGUSR1, nest, SA_NODEFER);
    TRY(raise(SIGUSR1));
    CHECK(seen == 50 && depth == 50, "%d of 50 nested handlers returned", (int)seen);
}

/* ---- alternate stacks ---- */

#define ALTERNATE_SIZE (64 * 1024)
static uint8_t *alternate;
static sigjmp_buf back;
static uint8_t *volatile outer_frame;
static void *volatile fault_address;

static int on_alternate(const void *address)
{
    return (uint8_t *)address >= alternate && (uint8_t *)address < alternate + ALTERNATE_SIZE;
}

static void inner(int signal, siginfo_t *info, void *context)
{
    uint8_t local;
    (void)signal, (void)info, (void)context;
    CHECK(on_alternate(&local), "a nested handler left the alternate stack");
    CHECK(&local < outer_frame, "a nested handler started the alternate stack anew, over its caller's frame");
    seen++;
}

static void outer(int signal, siginfo_t *info, void *context)
{
    uint8_t local[256];
    stack_t now;
    (void)signal, (void)info;
    memset(local, 0x5a, sizeof local);
    CHECK(on_alternate(local), "the handler runs at %p, not on the alternate stack", (void *)local);
    CHECK(!on_alternate((void *)((ucontext_t *)context)->uc_mcontext.gregs[REG_RSP]), "the program ran on it too");
    TRY(sigaltstack(NULL, &now));
    CHECK(now.ss_flags == SS_ONSTACK, "sigaltstack() says %#x in a handler", now.ss_flags);
    CHECK(sigaltstack(&now, NULL) == -1 && errno == EPERM, "a handler may change the stack it runs on");
    outer_frame = local;
    TRY(raise(SIGUSR2));
    for (size_t i = 0; i < sizeof local; i++)
        CHECK(((volatile uint8_t *)local)[i] == 0x5a, "the nested handler overwrote its caller's frame");
    seen++;
}

static void overflowed(int signal, siginfo_t *info, void *context)
{
    uint8_t local;
    (void)signal, (void)context;
    CHECK(on_alternate(&local), "SIGSEGV's handler is not on the alternate stack");
    fault_address = info->si_addr;
    siglongjmp(back, 1);
}

/* Not a loop in disguise: each level writes its frame after the deeper one returned. */
static __attribute__((noinline)) int deeper(int level)
{
    volatile uint8_t frame[1024];
    frame[0] = (uint8_t)level;
    int below = level < 1 << 20 ? deeper(level + 1) : 0;
    return below + frame[0];
}

/* The stack runs out, again and again; each time the handler jumps away, and the mask is as it was before. */
static void overflow(void)
{
    struct rlimit limit = {.rlim_cur = 256 * 1024, .rlim_max = RLIM_INFINITY};
    sigset_t mask;
    TRY(setrlimit(RLIMIT_STACK, &limit));
    catch_signal(SIGSEGV, overflowed, SA_ONSTACK);
    for (volatile int round = 0; round < 20; round++) {
        uint8_t here;
        if (sigsetjmp(back, 1) == 0)
            deeper(0);
        ptrdiff_t used = &here - (uint8_t *)fault_address;
        CHECK(used > 0 && used < 2 * 256 * 1024, "the stack overflowed %td bytes below its user", used);
        TRY(sigprocmask(SIG_SETMASK, NULL, &mask));
        CHECK(!sigismember(&mask, SIGSEGV), "siglongjmp() left SIGSEGV blocked");
    }
}

void altstack(void)
{
    alternate = mmap(NULL, ALTERNATE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(alternate != MAP_FAILED, "no memory for the alternate stack");
    stack_t stack = {.ss_sp = alternate, .ss_size = ALTERNATE_SIZE};
    TRY(sigaltstack(&stack, NULL));
    catch_signal(SIGUSR1, outer, SA_ONSTACK);
    catch_signal(SIGUSR2, inner, SA_ONSTACK);
    for (int i = 0; i < 100; i++)
        TRY(raise(SIGUSR1));
    CHECK(seen == 200, "%d of 200 handlers returned", (int)seen);
    overflow();
}

/* ---- interrupted system calls ---- */

static void alarm_in(int microseconds)
{
    struct itimerval once = {{0, 0}, {0, microseconds}};
    TRY(setitimer(ITIMER_REAL, &once, NULL));
}

static int write_end;
static void feed(int signal, siginfo_t *info, void *context)
{
    count(signal, info, context);
    write_all(write_end, "x", 1);
}

void interrupted(void)
{
    int pipes[2];
    char byte;
    TRY(pipe(pipes));
    write_end = pipes[1];
    seen = 0;
    catch_signal(SIGALRM, feed, SA_RESTART);
    alarm_in(5000);
    CHECK(read(pipes[0], &byte, 1) == 1 && byte == 'x', "read() was not restarted after SA_RESTART");
    catch_signal(SIGALRM, count, 0);
    alarm_in(5000);
    errno = 0;
    CHECK(read(pipes[0], &byte, 1) == -1 && errno == EINTR, "read() gave errno %d, not EINTR", errno);
    CHECK(seen == 2, "%d handlers ran, not 2", (int)seen);
    struct timespec wanted = {2, 0}, left = {0, 0};
    alarm_in(500000);
    CHECK(nanosleep(&wanted, &left) == -1 && errno == EINTR, "nanosleep() was not interrupted");
    CHECK(left.tv_sec == 1 && left.tv_nsec > 300000000, "nanosleep() has %ld.%09ld s left of 2 after 0.5", left.tv_sec,
          left.tv_nsec);
}
