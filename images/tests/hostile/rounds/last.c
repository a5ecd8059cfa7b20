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
    asm volatile("mov %0, %%" SP "; mov $23, %%eax; " XEN_CALL : : "r"(unreadable()) : "memory");
}

#if BITS == 64
static void iret_to_nobody(void)
{
    static word frame[] = {0, 0, 0, 0, USER_CODE, FLAT_USER_CS, 0x202, USER_STACK_TOP, FLAT_USER_SS};
    mmuext(NEW_USER_BASEPTR, 0, 0);
    asm volatile("mov %0, %%rsp; mov $23, %%eax; syscall" : : "r"(frame) : "memory");
}
#else
static void iret_to_nobody(void) /* there is no user mode to be without; but a ring that no guest enters */
{
    static word frame[] = {0, USER_CODE, FLAT_KERNEL_CS & ~3, 0x202};
    asm volatile("mov %0, %%esp; mov $23, %%eax; int $0x82" : : "r"(frame) : "memory");
}
#endif

static void no_handlers(void)
{
    hypercall(SET_TRAP_TABLE, 0);
    asm volatile("ud2");
}

static void no_stack(void)
{
    asm volatile("mov %0, %%" SP "; ud2" : : "r"(NO_ADDRESS) : "memory");
}

static void no_kernel(void)
{
    u64 *root = (u64 *)arena;
    memset(root, 0, 2 * PAGE);
    if (BITS == 32) { /* its last entry has to be there */
        MUST(read_only(arena + PAGE));
        root[entry_index(VIRT_BASE, LEVELS)] = address_of(arena + PAGE) | TABLE;
    }
    MUST(read_only(root));
    mmuext(NEW_BASEPTR, mfn_of(root), 0);
}

void last_act(word which)
{
    static const struct {
        const char *name;
        void (*act)(void);
    } acts[] = {
        {"shutdown", shut_down},         {"iret-from-nowhere", iret_from_nowhere}, {BITS == 64 ? "iret-to-nobody" : "iret-to-xen", iret_to_nobody},
        {"no-handlers", no_handlers},    {"no-stack", no_stack},                   {"no-kernel", no_kernel},
        {"vcpu-down", power_off_by_vcpu}, {"crash", crash},
    };
    const unsigned count = sizeof acts / sizeof *acts;
    say("last act: %s\n", acts[which % count].name);
    acts[which % count].act();
    broken("it lives on after %s", acts[which % count].name);
}
