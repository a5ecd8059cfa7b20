/* Timers and sleep: one timer for two calls, times that are past, and what ends a sleep (xen/common/sched/core.c). */
#include "kit.h"

enum { SET_PERIODIC = 6, STOP_PERIODIC, SET_SINGLESHOT, STOP_SINGLESHOT };
#define MS 1000000ull

struct singleshot {
    u64 when;
    u32 flags;
};
struct poll {
    const u32 *ports;
    u32 count;
    u64 timeout;
};
static u32 port;

static sword vcpu_op(word command, const void *argument)
{
    return hypercall(VCPU_OP, command, 0, argument);
}

static sword poll(const u32 *ports, u32 count, u64 timeout)
{
    shared->vcpu[0].pending = 0; /* events are masked, and looked at by port */
    struct poll list = {ports, count, timeout};
    return hypercall(SCHED_OP, SCHED_poll, &list);
}

static sword singleshot(u64 when, u32 flags)
{
    struct singleshot timer = {when, flags};
    return vcpu_op(SET_SINGLESHOT, &timer);
}

static sword set_timer_op(u64 when)
{
    return hypercall(SET_TIMER_OP, VALUE(when));
}

static int pending(u32 which)
{
    return shared->pending[which / BITS] >> which % BITS & 1;
}

static void clear(u32 which)
{
    __atomic_and_fetch(&shared->pending[which / BITS], ~(1ul << which % BITS), __ATOMIC_SEQ_CST);
    shared->vcpu[0].pending_sel = 0;
    shared->vcpu[0].pending = 0;
}

/* Until a time, or for as long as it takes (0), if the timer does not come before. A sleep may end early: what was
   printed makes the console's back end answer. */
static sword sleep(u64 until)
{
    sword rc = 0;
    while (!rc && !pending(port) && (!until || now() < until))
        rc = poll(&port, 1, until);
    return rc;
}

/* The console's back end has nothing to say any more. */
static void quiet(void)
{
    u64 until = now() + MS;
    while (now() < until)
        poll(0, 0, until);
}

static void set_up(void)
{
    MUST(vcpu_op(STOP_PERIODIC, 0));
    port = bind_virq(VIRQ_TIMER);
    mask_events();
    clear(port);
}

VARIATION(past, "a time that has passed is now, whatever the flags say")
{
    set_up();
    check_equal(singleshot(now() - 1, 0), 0, "a moment ago");
    check(pending(port), "it is pending at once", "it is not");
    clear(port);
    check_equal(singleshot(1, 1), 0, "only if it is to come");
    check(pending(port), "that is pending, too", "it is not");
    clear(port);
    check_equal(singleshot(0, 0), 0, "at 0");
    check(pending(port), "pending", "it is not");
    clear(port);
    set_timer_op(now() - 1);
    check_equal(sleep(now() + MS), 0, "set_timer_op, waited for");
    check(pending(port), "pending by then", "it is not");
}

VARIATION(one_timer, "set_timer_op and the one-shot timer are the same timer")
{
    set_up();
    u64 start = now();
    check_equal(singleshot(start + 10 * MS, 0), 0, "in 10 ms");
    check_equal(set_timer_op(start + 30 * MS), 0, "no, in 30 ms");
    check_equal(sleep(start + 20 * MS), 0, "after 20 ms");
    check(!pending(port), "nothing yet", "it is pending");
    check(now() >= start + 20 * MS, "20 ms have passed", "%llu", now() - start);
    check_equal(sleep(0), 0, "as long as it takes");
    check(pending(port), "it is pending", "it is not");
    check(now() >= start + 30 * MS && now() < start + 31 * MS, "30 ms have passed", "%llu", now() - start);
    clear(port);
    set_timer_op(now() + 5 * MS);
    check_equal(vcpu_op(STOP_SINGLESHOT, 0), 0, "stopped by the other call");
    check_equal(sleep(now() + 10 * MS), 0, "10 ms");
    check(!pending(port), "nothing came", "it is pending");
    singleshot(now() + 5 * MS, 0);
    check_equal(set_timer_op(0), 0, "and the other way");
    check_equal(sleep(now() + 10 * MS), 0, "10 ms more");
    check(!pending(port), "nothing came either", "it is pending");
}

VARIATION(far, "set_timer_op takes a time that cannot be meant for 100 ms")
{
    set_up();
    u64 start = now();
    check_equal(set_timer_op(start + (1ull << 51)), 0, "in 26 days");
    check_equal(sleep(0), 0, "waited for");
    u64 passed = now() - start;
    check(passed >= 100 * MS && passed < 101 * MS, "it comes in 100 ms", "%llu", passed);
    clear(port);
    start = now();
    check_equal(set_timer_op(-5), 0, "before time began");
    check_equal(sleep(0), 0, "waited for, too");
    passed = now() - start;
    check(passed >= 100 * MS && passed < 101 * MS, "it comes in 100 ms as well", "%llu", passed);
}

VARIATION(periodic, "a periodic timer, and the shortest period")
{
    set_up();
    u64 period = 999999, start = now();
    check_equal(vcpu_op(SET_PERIODIC, &period), -EINVAL, "shorter than 1 ms");
    period = ~0ull;
    check_equal(vcpu_op(SET_PERIODIC, &period), -EINVAL, "longer than time");
    period = 2 * MS;
    check_equal(vcpu_op(SET_PERIODIC, &period), 0, "2 ms");
    for (int i = 0; i < 3; i++) {
        sleep(0);
        clear(port);
    }
    check(now() >= start + 6 * MS && now() < start + 8 * MS, "three of them take 6 ms", "%llu", now() - start);
    check_equal(vcpu_op(STOP_PERIODIC, 0), 0, "stopped");
    sleep(now() + 5 * MS);
    check(!pending(port), "none comes any more", "it is pending");
}

VARIATION(poll, "what ends a sleep that waits for ports")
{
    set_up();
    struct { u16 dom, remote; u32 port; } made = {DOMID_SELF, DOMID_SELF, 0};
    MUST(event_channel_op(EVTCHN_alloc_unbound, &made));
    u32 list[3] = {made.port, port, 63}, others[2] = {made.port, made.port};
    static struct {
        const char *name;
        sword rc;
        u64 slept;
    } found[6];
    quiet();
#define SLEEP(i, ports, count, timeout)                              \
    do {                                                             \
        u64 start_ = now();                                          \
        found[i].rc = poll(ports, count, (timeout) ? start_ + (timeout) : 0); \
        found[i].slept = now() - start_;                             \
    } while (0)
    SLEEP(0, list, 1, MS);
    SLEEP(1, 0, 0, MS);
    SLEEP(2, list, 3, MS);
    singleshot(now() + MS, 0);
    SLEEP(3, others, 2, 50 * MS);
    clear(port);
    singleshot(now() + MS, 0);
    shared->mask[port / BITS] |= 1ul << port % BITS;
    SLEEP(4, list, 1, 5 * MS);
    clear(port);
    singleshot(now() + MS, 0);
    SLEEP(5, &port, 1, 0);
    static const char *const names[6] = {
        "an idle port for 1 ms", "no port for 1 ms", "three ports, one not in use, for 1 ms",
        "two ports when a third becomes pending", "one port when another does, masked", "a masked port when it does",
    };
    static const u64 most[6] = {2 * MS, 2 * MS, 2 * MS, 2 * MS, 6 * MS, 2 * MS};
    static const u64 least[6] = {MS, MS, MS, MS / 2, 5 * MS, MS / 2};
    for (int i = 0; i < 6; i++)
        check(!found[i].rc && found[i].slept >= least[i] && found[i].slept < most[i], names[i], "%ld, %llu ns",
              found[i].rc, found[i].slept);
    clear(port);
    quiet();
    list[2] = 5000;
    SLEEP(0, list, 3, MS);
    singleshot(0, 0);
    SLEEP(1, list, 3, MS);
    u64 start = now();
    found[2].rc = poll(list, 1, ~0ull);
    found[2].slept = now() - start;
    check(found[0].rc == -EINVAL && found[0].slept < MS / 2, "a port that cannot be", "%ld", found[0].rc);
    check(!found[1].rc && found[1].slept < MS / 2, "one that is pending comes before it", "%ld", found[1].rc);
    check(!found[2].rc && found[2].slept < MS / 2, "until before time began", "%ld", found[2].rc);
}

VARIATION(watchdog, "a watchdog is wound up again, or stopped, or ends the domain")
{
    struct { u32 id, timeout; } dog = {0, 2};
    set_up();
    check_equal(hypercall(SCHED_OP, SCHED_watchdog, &dog), 1, "the first of two");
    u64 start = now();
    for (int i = 1; i <= 3; i++) {
        sleep(start + i * 1500 * MS);
        dog.id = 1;
        check_equal(hypercall(SCHED_OP, SCHED_watchdog, &dog), 0, i == 1 ? "once" : i == 2 ? "twice" : "three times");
    }
    dog.timeout = 0;
    check_equal(hypercall(SCHED_OP, SCHED_watchdog, &dog), 0, "stopped");
    sleep(now() + 5000 * MS);
    check(now() >= start + 9500 * MS, "nine and a half seconds later", "%llu", now() - start);
}
