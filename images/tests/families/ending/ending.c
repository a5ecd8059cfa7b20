/* How a domain ends: the first reason stays (xen/common/domain.c, domain_shutdown), and old forms (sched_op_compat). */
#include "kit.h"

static void end_of_checks(void)
{
    say("Test result: SUCCESS\n");
}

VARIATION(code, "a reason that was set before is the one that counts")
{
    u32 poweroff = SHUTDOWN_poweroff, reboot = 0x100 | SHUTDOWN_reboot;
    check_equal(hypercall(SCHED_OP, SCHED_shutdown_code, &poweroff), 0, "a reason for later");
    check_equal(hypercall(SCHED_OP, SCHED_shutdown_code, &reboot), 0, "another");
    check_equal(hypercall(SCHED_OP, SCHED_shutdown_code, 0), -EFAULT, "none");
    end_of_checks();
    hypercall(SCHED_OP, SCHED_shutdown, &reboot);
    for (;;)
        ;
}

VARIATION(low_byte, "of a reason Xen keeps a byte")
{
    u32 reason = 0x7700 | SHUTDOWN_poweroff;
    check_equal(hypercall(SCHED_OP, SCHED_shutdown, 0), -EFAULT, "no reason");
    end_of_checks();
    hypercall(SCHED_OP, SCHED_shutdown, &reason);
    for (;;)
        ;
}

VARIATION(old_form, "the old form takes the reason itself")
{
    check_equal(hypercall(SCHED_OP_COMPAT, SCHED_yield, 0), 0, "yield");
    check_equal(hypercall(SCHED_OP_COMPAT, 7ull << 32 | SCHED_yield, 0), 0, "of a command 32 bits count");
    check_equal(hypercall(SCHED_OP_COMPAT, SCHED_poll, 0), -ENOSYS, "it has no poll");
    check_equal(hypercall(SCHED_OP_COMPAT, SCHED_shutdown_code, 0), -ENOSYS, "nor what came later");
    end_of_checks();
    hypercall(SCHED_OP_COMPAT, SCHED_shutdown, 0x5500 | SHUTDOWN_poweroff);
    for (;;)
        ;
}

VARIATION(last_vcpu, "the last vCPU going down powers the domain off")
{
    enum { VCPU_DOWN = 2, VCPU_IS_UP };
    check_equal(hypercall(VCPU_OP, VCPU_IS_UP, 0, 0), 1, "it is up");
    end_of_checks();
    hypercall(VCPU_OP, VCPU_DOWN, 0, 0);
    for (;;)
        ;
}
