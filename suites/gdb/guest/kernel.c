/* What makes it a guest: console, page tables, traps, the timer. */
#include "guest.h"

const struct start_info *start_info;
struct shared_info *shared;
u64 int3s, int3_rip, steps, step_rip, debug_hits, debug_writes, faults, fault_address, int80s, ticks;

static u8 shared_page[PAGE] __attribute__((aligned(PAGE)));
static struct console *console;
static u32 timer_port;
static u64 period;

struct gate {
    u8 vector, flags;
    u16 cs;
    u64 address;
};

/* -- console */

static void send(char byte)
{
    while (console->out_producer - *(volatile u32 *)&console->out_consumer >= sizeof console->out) {
        hypercall(EVENT_CHANNEL_OP, EVTCHN_send, (u64)&start_info->console_evtchn, 0, 0);
        hypercall(SCHED_OP, SCHED_yield, 0, 0, 0);
    }
    console->out[console->out_producer % sizeof console->out] = byte;
    asm volatile("" : : : "memory");
    console->out_producer++;
}

void say(const char *text)
{
    for (; *text; text++) {
        if (*text == '\n')
            send('\r');
        send(*text);
    }
    hypercall(EVENT_CHANNEL_OP, EVTCHN_send, (u64)&start_info->console_evtchn, 0, 0);
}

void tell(const char *name, u64 value)
{
    char digits[24], *at = digits + sizeof digits;
    *--at = 0;
    *--at = '\n';
    do
        *--at = '0' + value % 10;
    while (value /= 10);
    say(name);
    say(" ");
    say(at);
}

/* -- memory */

u64 mfn_of(const void *page)
{
    return ((const u64 *)start_info->mfn_list)[((u64)page - VIRT_BASE) / PAGE];
}

long map(u64 address, u64 entry)
{
    return hypercall(UPDATE_VA_MAPPING, address, entry, INVLPG, 0);
}

/* -- events */

static u64 now(void)
{
    const struct vcpu_info *vcpu = &shared->vcpu[0];
    u32 low, high;
    asm volatile("rdtsc" : "=a"(low), "=d"(high));
    u64 passed = ((u64)high << 32 | low) - vcpu->tsc;
    passed = vcpu->shift < 0 ? passed >> -vcpu->shift : passed << vcpu->shift;
    return vcpu->system_time + (u64)((unsigned __int128)passed * vcpu->multiplier >> 32);
}

static void start_timer(u64 nanoseconds)
{
    struct { u32 virq, vcpu, port; } bind = {0, 0, 0};
    hypercall(EVENT_CHANNEL_OP, EVTCHN_bind_virq, (u64)&bind, 0, 0);
    timer_port = bind.port;
    period = nanoseconds;
    hypercall(EVENT_CHANNEL_OP, EVTCHN_unmask, (u64)&timer_port, 0, 0);
    hypercall(SET_TIMER_OP, now() + period, 0, 0, 0);
}

APART void on_event(struct frame *frame)
{
    (void)frame;
    struct vcpu_info *vcpu = &shared->vcpu[0];
    vcpu->pending = 0;
    u64 selector = __atomic_exchange_n(&vcpu->selector, 0, __ATOMIC_SEQ_CST);
    for (int word = 0; word < 64; word++)
        if (selector >> word & 1)
            shared->pending[word] = 0;
    ticks++;
    if (period)
        hypercall(SET_TIMER_OP, now() + period, 0, 0, 0);
}

/* -- traps */

static u8 hole_page[PAGE] __attribute__((aligned(PAGE))) = {0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11};

APART void on_trap(struct frame *frame)
{
    u64 cause;
    switch (frame->vector) {
    case 1:
        cause = hypercall(GET_DEBUGREG, 6, 0, 0, 0);
        hypercall(SET_DEBUGREG, 6, 0, 0, 0);
        debug_hits += cause & 1;
        debug_writes += cause >> 1 & 1;
        if (cause >> 14 & 1) {
            steps++;
            step_rip = frame->rip;
        }
        return;
    case 3:
        int3s++;
        int3_rip = frame->rip;
        return;
    case 14:
        faults++;
        fault_address = shared->vcpu[0].cr2;
        if (frame->rip == (u64)at_skipped_load) {
            frame->rip = (u64)behind_skipped_load;
            return;
        }
        if (map(fault_address & -PAGE, mfn_of(hole_page) * PAGE | PTE) == 0)
            return;
        break;
    case 128:
        int80s++;
        frame->rax *= 2;
        return;
    }
    tell("unexpected trap", frame->vector);
    power_off();
}

APART void on_failsafe(struct frame *frame)
{
    on_trap(frame);
}

static void take_traps(void)
{
    static const struct gate gates[] = {
        {1, 4, 0xe033, (u64)trap_1},
        {3, 4 | 3, 0xe033, (u64)trap_3},
        {13, 4, 0xe033, (u64)trap_13},
        {14, 4, 0xe033, (u64)trap_14},
        {128, 4 | 3, 0xe033, (u64)trap_128},
        {0, 0, 0, 0},
    };
    static const struct { u16 type, flags; u32 pad; u64 address; } callbacks[] = {
        {0, 0, 0, (u64)event_callback},
        {1, 0, 0, (u64)failsafe_callback},
        {2, 0, 0, (u64)syscall_callback},
    };
    hypercall(SET_TRAP_TABLE, (u64)gates, 0, 0, 0);
    for (int i = 0; i < 3; i++)
        hypercall(CALLBACK_OP, 0, (u64)&callbacks[i], 0, 0);
}

void power_off(void)
{
    static const u32 reason = 0;
    for (;;)
        hypercall(SCHED_OP, SCHED_shutdown, (u64)&reason, 0, 0);
}

void start(const struct start_info *info)
{
    start_info = info;
    shared = (struct shared_info *)shared_page;
    map((u64)shared_page, info->shared_info | PTE);
    console = (struct console *)(VIRT_BASE + M2P[info->console_mfn] * PAGE);
    take_traps();
    start_timer(5000);
    shared->vcpu[0].mask = 0;
    say("guest: ");
    say(info->cmd_line);
    say("\n");
    run_sections(info->cmd_line);
    say("bye\n");
    power_off();
}
