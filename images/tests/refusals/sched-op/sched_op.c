/* sched_op: lists of ports, watchdogs, and what is only another domain's (xen/common/sched/core.c: do_sched_op). */
#include "kit.h"

static sword sched_op(word command, const void *argument)
{
    return hypercall(SCHED_OP, command, argument);
}

struct poll {
    const u32 *ports;
    u32 count;
    u64 timeout;
};

VARIATION(poll, "which ports can be waited for")
{
    u32 ports[129] = {1};
    struct poll poll = {ports, 129, 1};
    watch(page());
    REFUSED("more than 128", EINVAL, sched_op(SCHED_poll, &poll));
    poll.count = ~0u;
    REFUSED("the most", EINVAL, sched_op(SCHED_poll, &poll));
    poll.count = 1;
    ports[0] = 1000000;
    REFUSED("no port", EINVAL, sched_op(SCHED_poll, &poll));
    poll.ports = (u32 *)XENS;
    REFUSED("a list of Xen's", EFAULT, sched_op(SCHED_poll, &poll));
    poll.ports = (u32 *)TEST_AREA(9);
    REFUSED("a list that is not mapped", EFAULT, sched_op(SCHED_poll, &poll));
    REFUSED("no argument", EFAULT, sched_op(SCHED_poll, 0));
    REFUSED("an argument of Xen's", EFAULT, sched_op(SCHED_poll, (void *)XENS));
    poll.count = 0;
    ALLOWED("none, until a time that is past", sched_op(SCHED_poll, &poll));
}

VARIATION(watchdogs, "two watchdogs a domain")
{
    struct { u32 id, timeout; } dog = {1, 0};
    watch(page());
    REFUSED("the first before there is one", EINVAL, sched_op(SCHED_watchdog, &dog));
    dog.id = 3;
    REFUSED("a third", EINVAL, sched_op(SCHED_watchdog, &dog));
    dog.id = ~0u;
    REFUSED("the last", EINVAL, sched_op(SCHED_watchdog, &dog));
    dog.id = 0, dog.timeout = 1000;
    check_equal(sched_op(SCHED_watchdog, &dog), 1, "the first");
    check_equal(sched_op(SCHED_watchdog, &dog), 2, "the second");
    REFUSED("one more", ENOSPC, sched_op(SCHED_watchdog, &dog));
    dog.id = 2, dog.timeout = 0;
    ALLOWED("the second stopped", sched_op(SCHED_watchdog, &dog));
    REFUSED("the second stopped again", EINVAL, sched_op(SCHED_watchdog, &dog));
    dog.id = 1;
    ALLOWED("the first stopped", sched_op(SCHED_watchdog, &dog));
    REFUSED("no argument", EFAULT, sched_op(SCHED_watchdog, 0));
}

VARIATION(commands, "other domains, and arguments")
{
    struct { u16 domid; u32 reason; } remote = {NO_DOMAIN, 0};
    u32 pin = 0;
    watch(page());
    REFUSED("the end of a domain that is not there", ESRCH, sched_op(SCHED_remote_shutdown, &remote));
    remote.domid = 0;
    REFUSED("the end of another domain", EPERM, sched_op(SCHED_remote_shutdown, &remote));
    REFUSED("the end of another domain, no argument", EFAULT, sched_op(SCHED_remote_shutdown, 0));
    REFUSED("a CPU of its own", EPERM, sched_op(SCHED_pin_override, &pin));
    REFUSED("shutdown, no argument", EFAULT, sched_op(SCHED_shutdown, 0));
    REFUSED("shutdown, an argument of Xen's", EFAULT, sched_op(SCHED_shutdown, (void *)XENS));
    REFUSED("shutdown_code, no argument", EFAULT, sched_op(SCHED_shutdown_code, 0));
    REFUSED("command 8", ENOSYS, sched_op(8, 0));
    REFUSED("the last command", ENOSYS, sched_op(~0u, 0));
    REFUSED("the old form, an unknown command", ENOSYS, hypercall(SCHED_OP_COMPAT, 9, 0));
}
