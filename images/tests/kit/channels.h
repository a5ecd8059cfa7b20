/* Event channels' operations, and their bits in the two-level ABI: #include "channels.h" beside kit.h. */
#pragma once
#include "kit.h"

enum { CLOSED = 0, UNBOUND, INTERDOMAIN, PIRQ, VIRQ, IPI };
enum { FIRST_FREE_PORT = 3, LAST_PORT = 1023, LOT = 64 }; /* 1 and 2 are the builder's; records are made 64 at a time */
#define WORD_BITS (8 * sizeof(word))

struct port_status {
    u16 domain;
    u32 port, status, vcpu;
    union {
        u16 unbound;
        struct { u16 domain; u32 port; } interdomain;
        u32 virq, words[2];
    } u;
};

static inline sword port_op(word command, u32 port)
{
    return event_channel_op(command, &port);
}

static inline sword alloc_unbound(u16 remote, u32 *port)
{
    struct { u16 domain, remote; u32 port; } argument = {DOMID_SELF, remote, 0};
    sword result = event_channel_op(EVTCHN_alloc_unbound, &argument);
    *port = argument.port;
    return result;
}

static inline sword bind_interdomain(u16 domain, u32 remote, u32 *port)
{
    struct { u16 domain; u32 remote, port; } argument = {domain, remote, 0};
    sword result = event_channel_op(EVTCHN_bind_interdomain, &argument);
    *port = argument.port;
    return result;
}

static inline sword bind_ipi(u32 *port)
{
    u32 argument[2] = {0, 0};
    sword result = event_channel_op(EVTCHN_bind_ipi, argument);
    *port = argument[1];
    return result;
}

static inline sword try_bind_virq(u32 virq, u32 *port)
{
    u32 argument[3] = {virq, 0, 0};
    sword result = event_channel_op(EVTCHN_bind_virq, argument);
    *port = argument[2];
    return result;
}

static inline sword bind_vcpu(u32 port, u32 vcpu)
{
    u32 argument[2] = {port, vcpu};
    return event_channel_op(EVTCHN_bind_vcpu, argument);
}

/* The whole answer; what Xen does not set is as it was, all ones. */
static inline sword status_of(u32 port, struct port_status *status)
{
    memset(status, 0xff, sizeof *status);
    status->domain = DOMID_SELF;
    status->port = port;
    return event_channel_op(EVTCHN_status, status);
}

static inline sword kind_of(u32 port)
{
    struct port_status status;
    sword result = status_of(port, &status);
    return result ? result : (sword)status.status;
}

static inline sword reset_channels(void)
{
    u16 self = DOMID_SELF;
    return event_channel_op(EVTCHN_reset, &self);
}

static inline sword poll_ports(const u32 *ports, u32 count, u64 until)
{
    struct { const u32 *ports; u32 count; u64 until; } list = {ports, count, until};
    return hypercall(SCHED_OP, SCHED_poll, &list);
}

/* An IPI to ourselves: a port that a send to it raises. */
static inline u32 ipi(void)
{
    u32 port;
    MUST(bind_ipi(&port));
    return port;
}

static inline u32 loose(u16 remote)
{
    u32 port;
    MUST(alloc_unbound(remote, &port));
    return port;
}

static inline void send_to(u32 port)
{
    MUST(port_op(EVTCHN_send, port));
}

/* -- the two-level ABI's bits */

static inline int is_pending(u32 port)
{
    return *(volatile word *)&shared->pending[port / WORD_BITS] >> port % WORD_BITS & 1;
}

static inline void clear_pending(u32 port)
{
    __atomic_and_fetch(&shared->pending[port / WORD_BITS], ~((word)1 << port % WORD_BITS), __ATOMIC_SEQ_CST);
}

static inline void set_pending(u32 port)
{
    __atomic_or_fetch(&shared->pending[port / WORD_BITS], (word)1 << port % WORD_BITS, __ATOMIC_SEQ_CST);
}

static inline void mask_port(u32 port)
{
    __atomic_or_fetch(&shared->mask[port / WORD_BITS], (word)1 << port % WORD_BITS, __ATOMIC_SEQ_CST);
}

static inline int is_masked(u32 port)
{
    return *(volatile word *)&shared->mask[port / WORD_BITS] >> port % WORD_BITS & 1;
}

/* Whether the upcall byte is set, and the selector's value; both are cleared. */
static inline void check_upcall(int upcall, word selector, const char *name)
{
    volatile struct vcpu_info *vcpu = &shared->vcpu[0];
    int got = vcpu->pending;
    word got_selector = vcpu->pending_sel;
    vcpu->pending = 0;
    vcpu->pending_sel = 0;
    check(got == upcall && got_selector == selector, name, "upcall %d, selector %lx instead of %d, %lx", got,
          got_selector, upcall, selector);
}

static inline void forget_upcall(void)
{
    shared->vcpu[0].pending = 0;
    shared->vcpu[0].pending_sel = 0;
}

/* The console's and XenStore's back ends do not disturb the test any more. */
static inline void hush(void)
{
    mask_port(start_info->console_evtchn);
    mask_port(start_info->store_evtchn);
    mask_events();
    forget_upcall();
}
