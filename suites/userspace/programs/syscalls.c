/* System calls both ways in, what they keep, and what they answer to numbers and pointers that are wrong. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct registers {
    uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15, flags, rip_after;
};

/* Loads all registers from `registers`, makes the call, saves them all there. One for each way in. */
void through_syscall(struct registers *registers);
void through_int80(struct registers *registers);
void without_stack(struct registers *registers);

#define LOAD                                                                                             \
    "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; push %rdi\n"                      \
    "mov 0(%rdi), %rax; mov 8(%rdi), %rbx; mov 16(%rdi), %rcx; mov 24(%rdi), %rdx; mov 32(%rdi), %rsi\n" \
    "mov 48(%rdi), %rbp; mov 56(%rdi), %r8; mov 64(%rdi), %r9; mov 72(%rdi), %r10; mov 80(%rdi), %r11\n" \
    "mov 88(%rdi), %r12; mov 96(%rdi), %r13; mov 104(%rdi), %r14; mov 112(%rdi), %r15\n"                 \
    "mov 40(%rdi), %rdi\n"
#define SAVE                                                                                             \
    "xchg %rdi, (%rsp)\n"                                                                                \
    "mov %rax, 0(%rdi); mov %rbx, 8(%rdi); mov %rcx, 16(%rdi); mov %rdx, 24(%rdi); mov %rsi, 32(%rdi)\n" \
    "mov %rbp, 48(%rdi); mov %r8, 56(%rdi); mov %r9, 64(%rdi); mov %r10, 72(%rdi); mov %r11, 80(%rdi)\n" \
    "mov %r12, 88(%rdi); mov %r13, 96(%rdi); mov %r14, 104(%rdi); mov %r15, 112(%rdi)\n"                 \
    "pushf; popq 120(%rdi); popq 40(%rdi)\n"                                                             \
    "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret\n"

extern const char after_syscall[];
asm(".text\n"
    "through_syscall:\n" LOAD "syscall\nafter_syscall:\n" SAVE
    "through_int80:\n" LOAD "int $0x80\n" SAVE
    /* A stack pointer that points nowhere is no reason for a system call to fail. */
    "without_stack:\n" LOAD "mov %rsp, without_stack_saved(%rip)\n xor %esp, %esp\n syscall\n"
    "mov without_stack_saved(%rip), %rsp\n" SAVE
    ".section .bss\n without_stack_saved: .skip 8\n .text\n");

static struct registers distinct(long number)
{
    struct registers all;
    uint64_t *words = (uint64_t *)&all;
    for (size_t i = 0; i < sizeof all / 8; i++)
        words[i] = random_at(0x5ca11, i);
    all.rax = number;
    return all;
}

#define SAME(field) CHECK(after.field == before.field, "%s: " #field " became %#lx", name, after.field)
static void kept(void (*call)(struct registers *), long number, long answer, const char *name)
{
    struct registers before = distinct(number), after = before;
    call(&after);
    CHECK((long)after.rax == answer, "%s %ld returned %ld, not %ld", name, number, (long)after.rax, answer);
    SAME(rbx);
    SAME(rdx);
    SAME(rsi);
    SAME(rdi);
    SAME(rbp);
    SAME(r8);
    SAME(r9);
    SAME(r10);
    SAME(r12);
    SAME(r13);
    SAME(r14);
    SAME(r15);
    if (call == through_syscall) {
        CHECK(after.rcx == (uintptr_t)after_syscall, "%s: rcx is %#lx, not the place after it", name, after.rcx);
        CHECK((after.r11 & 0x200) && !(after.r11 & 0x100), "%s: r11 is %#lx, not the flags", name, after.r11);
    } else if (call == through_int80) {
        SAME(rcx);
        SAME(r11);
    }
    CHECK(after.flags & 0x200, "%s: the interrupt flag reads as clear", name);
}

#define GETPID_32 20

static void wrong_numbers(void)
{
    static const long wrong[] = {400, 600, 1000, 4095, 0x10000, 0x7fffffff, -1, -38, 0x40001000, 0x40000027};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        kept(through_syscall, wrong[i], -ENOSYS, "syscall");
        if (wrong[i] > 600)
            kept(through_int80, wrong[i], -ENOSYS, "int $0x80");
    }
}

static long raw(long number, long a, long b, long c)
{
    long answer;
    asm volatile("syscall" : "=a"(answer) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return answer;
}

/* The kernel's own accesses to a program's memory fault in the kernel, and turn into EFAULT or a shorter count. */
static void wrong_pointers(void)
{
    int pipes[2];
    uint8_t *area = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    static const uint64_t wrong[] = {0, 8, 0x7ffffffff000, 0x800000000000, 0xffff800000000000, 0xffffffff81000000,
                                     0xdead00000000beef, -8};
    CHECK(area != MAP_FAILED, "no memory");
    TRY(pipe2(pipes, O_NONBLOCK));
    TRY(mprotect(area + PAGE, PAGE, PROT_READ));
    TRY(munmap(area + 2 * PAGE, PAGE));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        long answer = raw(SYS_write, pipes[1], wrong[i], 8);
        CHECK(answer == -EFAULT, "write() from %#lx returned %ld", wrong[i], answer);
        answer = raw(SYS_open, wrong[i], O_RDONLY, 0);
        CHECK(answer == -EFAULT, "open() of a name at %#lx returned %ld", wrong[i], answer);
        answer = raw(SYS_clock_gettime, 1, wrong[i], 0);
        CHECK(answer == -EFAULT, "clock_gettime() to %#lx returned %ld", wrong[i], answer);
    }
    memset(area, 'x', PAGE);
    CHECK(raw(SYS_open, (long)area + 2 * PAGE - 4, O_RDONLY, 0) == -ENOENT, "a short name at a mapping's end");
    CHECK(raw(SYS_write, pipes[1], (long)area, 100) >= 3, "write() to a pipe failed");
    long answer = raw(SYS_read, pipes[0], (long)area + PAGE, 3);
    CHECK(answer == -EFAULT, "read() to a read-only page returned %ld", answer);
    for (size_t i = 0; i < PAGE; i++)
        CHECK(area[PAGE + i] == 0, "read() wrote to a read-only page");
}

void syscalls(void)
{
    for (int i = 0; i < 200; i++) {
        kept(through_syscall, SYS_getpid, getpid(), "syscall");
        kept(through_int80, GETPID_32, getpid(), "int $0x80");
        kept(without_stack, SYS_getpid, getpid(), "syscall without a stack");
    }
    wrong_numbers();
    wrong_pointers();
}
