/*
 * Every fault that a program can make, delivered as its signal: number, si_code, si_addr, trap number, error code and
 * the place. Each case is a few bytes of assembly with a label on the instruction that faults.
 */
#include "faults.h"

#include <setjmp.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

static sigjmp_buf back;
struct caught caught;

static void catch(int signal, siginfo_t *info, void *context)
{
    const greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    /* Linux lets a handler start with AC set; nothing compiled may run so. */
    asm volatile("pushfq; andl $~0x40000, (%%rsp); popfq" : : : "memory", "cc");
    caught = (struct caught){
        .signal = signal, .code = info->si_code, .address = (uintptr_t)info->si_addr, .rip = registers[REG_RIP],
        .trap = registers[REG_TRAPNO], .error = registers[REG_ERR], .rcx = registers[REG_RCX],
        .rsi = registers[REG_RSI], .rdi = registers[REG_RDI],
    };
    siglongjmp(back, 1);
}

void catch_faults(void)
{
    static const int all[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        catch_signal(all[i], catch, 0);
}

void provoke(void (*code)(uintptr_t, uintptr_t), uintptr_t first, uintptr_t second)
{
    caught = (struct caught){0};
    if (sigsetjmp(back, 1) == 0)
        code(first, second);
    asm volatile("fninit; cld");
}

void expect_fault(const struct fault *fault)
{
    const char *name = fault->name;
    uintptr_t rip = fault->rip ? (uintptr_t)fault->rip : fault->first;
    uintptr_t address = fault->address == AT_RIP ? rip : fault->address;
    for (int round = 0; round < 3; round++) {
        provoke(fault->code, fault->first, fault->second);
        CHECK(caught.signal, "%s: no signal came", name);
        CHECK(caught.signal == fault->signal, "%s: %s came, not %s (trap %ld, error %#lx)", name,
              strsignal(caught.signal), strsignal(fault->signal), caught.trap, caught.error);
        CHECK(caught.code == fault->si_code, "%s: si_code is %d, not %d", name, caught.code,
              fault->si_code);
        CHECK(caught.address == address, "%s: si_addr is %#lx, not %#lx", name, caught.address, address);
        CHECK(caught.rip == rip, "%s: rip is %#lx, not %#lx", name, caught.rip, rip);
        CHECK(caught.trap == fault->trap, "%s: trap number is %ld, not %ld", name, caught.trap, fault->trap);
        CHECK(caught.error == fault->error, "%s: error code is %#lx, not %#lx", name, caught.error, fault->error);
    }
}
