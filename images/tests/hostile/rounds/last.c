/* The ways in which the guest ends its life, by its own will or by Xen's. */
#include "hostile.h"

static u32 reason;

static void shut_down(void)
{
    hypercall(SCHED_OP, SCHED_shutdown, &reason);
}

static void power_off_by_vcpu(void)
{
    hypercall(VCPU_OP, 2, 0, 0);
}

static void crash(void)
{
    reason = SHUTDOWN_crash;
    shut_down();
}

static void iret_from_nowhere(void)
{
    asm volatile("mov %0, %%rsp; mov $23, %%eax; syscall" : : "r"(unreadable()) : "rax", "rcx", "r11", "memory");
}

static void iret_to_nobody(void)
{
    static word frame[] = {0, 0, 0, 0, USER_CODE, FLAT_USER_CS, 0x202, USER_STACK_TOP, FLAT_USER_SS};
    mmuext(NEW_USER_BASEPTR, 0, 0);
    asm volatile("mov %0, %%rsp; mov $23, %%eax; syscall" : : "r"(frame) : "rax", "rcx", "r11", "memory");
}

static void no_handlers(void)
{
    hypercall(SET_TRAP_TABLE, 0);
    asm volatile("ud2");
}

static void no_stack(void)
{
    asm volatile("mov %0, %%rsp; ud2" : : "r"(NON_CANONICAL) : "memory");
}

static void no_kernel(void)
{
    u64 *root = (u64 *)arena;
    memset(root, 0, PAGE);
    MUST(read_only(root));
    mmuext(NEW_BASEPTR, mfn_of(root), 0);
}

void last_act(word which)
{
    static const struct {
        const char *name;
        void (*act)(void);
    } acts[] = {
        {"shutdown", shut_down},         {"iret-from-nowhere", iret_from_nowhere}, {"iret-to-nobody", iret_to_nobody},
        {"no-handlers", no_handlers},    {"no-stack", no_stack},                   {"no-kernel", no_kernel},
        {"vcpu-down", power_off_by_vcpu}, {"crash", crash},
    };
    const unsigned count = sizeof acts / sizeof *acts;
    say("last act: %s\n", acts[which % count].name);
    acts[which % count].act();
    broken("it lives on after %s", acts[which % count].name);
}
