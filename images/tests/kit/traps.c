/* Traps, events, user code, time. */
#include "kit.h"
#include "parts.h"

volatile struct fault fault;
int (*on_trap)(struct frame *frame);
word events, port_events[64];
u64 *user_root;

/* Set by TRY, in assembly. */
word try_resume, try_at;
static int catching, dying;

void kit_trap(struct frame *frame);

static int has_code(unsigned vector)
{
    return vector == DF || (vector >= TS && vector <= PF) || vector == AC || vector == 21;
}

static void note(const struct frame *frame, u8 entry_mask)
{
    fault.taken = 1;
    fault.vector = frame->vector;
    fault.code = frame->code;
    fault.cr2 = shared->vcpu[0].cr2;
    fault.at = try_at;
    fault.cs = frame->cs;
    fault.saved_mask = saved_mask_of(frame);
    fault.entry_mask = entry_mask;
    fault.from_user = (frame->cs & 3) == 3;
    fault.entry_rsp = entry_stack_of(frame, has_code(frame->vector), frame->vector == FROM_FAILSAFE);
    for (int i = 0; i < 4; i++)
        fault.selectors[i] = failsafe_selectors[i];
    *(struct frame *)&fault.frame = *frame;
}

static void take_events(void)
{
    struct vcpu_info *vcpu = &shared->vcpu[0];
    events++;
    vcpu->pending = 0;
    word selector = __atomic_exchange_n(&vcpu->pending_sel, 0, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < 8 * sizeof(word); i++) {
        if (!(selector >> i & 1))
            continue;
        word ports = __atomic_fetch_and(&shared->pending[i], shared->mask[i], __ATOMIC_SEQ_CST) & ~shared->mask[i];
        for (unsigned j = 0; i == 0 && j < sizeof port_events / sizeof *port_events; j++)
            port_events[j] += ports >> j & 1;
    }
}

static void unexpected(const struct frame *frame)
{
    static const char *const kinds[] = {
        "event", "system call", "sysenter", "system call (32-bit)", "failsafe callback",
    };
    if (dying++)
        power_off();
    if (frame->vector >= FROM_EVENT)
        broken("unexpected %s, rip %p", kinds[frame->vector - FROM_EVENT], (void *)frame->rip);
    broken("unexpected trap %lu, rip %p, code %lx, CR2 %p", frame->vector, (void *)frame->rip, frame->code,
           (void *)shared->vcpu[0].cr2);
}

void kit_trap(struct frame *frame)
{
    u8 entry_mask = shared->vcpu[0].mask;
    if (on_trap && on_trap(frame))
        return;
    if (frame->vector == FROM_EVENT) {
        take_events();
        return;
    }
    int from_user = (frame->cs & 3) == 3;
    if (!(from_user ? catching : try_resume || catching))
        unexpected(frame);
    note(frame, entry_mask);
    if (try_resume && !from_user) {
        frame->rip = try_resume;
        try_resume = 0;
        return;
    }
    shared->vcpu[0].mask = fault.saved_mask;
    leave_caught();
}

int caught(void (*function)(word), word argument)
{
    fault.taken = 0;
    catching++;
    int result = call_and_catch(function, argument);
    catching--;
    return result;
}

void check_trap(const char *name, int taken, unsigned vector, word code, unsigned length)
{
    word rip = fault.at + length;
    if (!taken)
        check(0, name, "no trap");
    else
        check(fault.vector == vector && fault.code == code && fault.frame.rip == rip, name,
              "trap %u, code %lx, rip %lx instead of %u, %lx, %lx", fault.vector, fault.code, fault.frame.rip, vector,
              code, rip);
}

/* -- the trap table and the callbacks */

word gate_address(unsigned vector)
{
    return (word)trap_entries + 64 * vector;
}

void set_gate(unsigned vector, unsigned flags, word address)
{
    struct trap_info gates[2] = {{vector, flags, FLAT_KERNEL_CS, address ? address : gate_address(vector)}, {0}};
    MUST(hypercall(SET_TRAP_TABLE, gates));
}

void take_all_traps(void)
{
    static struct trap_info gates[257];
    for (unsigned i = 0; i < 256; i++)
        gates[i] = (struct trap_info){i, i == BP || i == OF || i == 0x80 ? 3 : 0, FLAT_KERNEL_CS, gate_address(i)};
    MUST(hypercall(SET_TRAP_TABLE, gates));
}

sword set_callback(unsigned type, unsigned flags, word address)
{
    struct callback_register callback = CALLBACK(type, flags, address);
    return hypercall(CALLBACK_OP, 0, &callback);
}

void traps_start(void)
{
    take_all_traps();
    MUST(set_callback(CALLBACKTYPE_event, 0, (word)event_callback));
    MUST(set_callback(CALLBACKTYPE_failsafe, 0, (word)failsafe_callback));
#if BITS == 64
    MUST(set_callback(CALLBACKTYPE_syscall, 0, (word)syscall_callback));
#endif
}

/* -- user code */

struct excursion {
    word rip, argument, cs, rflags;
};

static void go(word argument)
{
    const struct excursion *to = (const struct excursion *)argument;
    user_iret(to->rip, to->argument, to->cs, to->rflags);
}

/* A page of the user's window: in the kernel's tables too, at the same address. */
static void map_user(word address, const void *page, u64 flags)
{
    MUST(update(entry_address(address, 1), address_of(page) | flags));
}

void make_user(void)
{
    if (user_root)
        return;
    make_path(USER_CODE);
    for (word at = (word)user_section; at < (word)user_section_end; at += PAGE)
        map_user(user_address(at), (const void *)at, USER_CODE_FLAGS);
    map_user(USER_DATA, page(), USER_DATA_FLAGS);
    map_user(USER_STACK_TOP - PAGE, page(), USER_DATA_FLAGS);
    MUST(hypercall(STACK_SWITCH, FLAT_KERNEL_SS, entry_stack_top));
    user_root = make_user_root();
}

word user_as(const void *code, word argument, word cs, word rflags)
{
    struct excursion to = {user_address(code), argument, cs, rflags};
    make_user();
    if (!caught(go, (word)&to))
        broken("user code came back in an unknown way");
    return fault.frame.rdi;
}

word user(const void *code, word argument)
{
    return user_as(code, argument, FLAT_USER_CS, 0x202);
}

/* -- events and time */

void mask_events(void)
{
    shared->vcpu[0].mask = 1;
    asm volatile("" : : : "memory");
}

void unmask_events(void)
{
    asm volatile("" : : : "memory");
    shared->vcpu[0].mask = 0;
    asm volatile("" : : : "memory");
    if (shared->vcpu[0].pending)
        hypercall(XEN_VERSION, 0); /* any hypercall delivers */
}

u64 now(void)
{
    const volatile struct vcpu_info *vcpu = &shared->vcpu[0];
    u32 low, high;
    asm volatile("rdtsc" : "=a"(low), "=d"(high));
    u64 passed = ((u64)high << 32 | low) - vcpu->tsc;
    passed = vcpu->shift < 0 ? passed >> -vcpu->shift : passed << vcpu->shift;
    return vcpu->system_time + (passed >> 32) * vcpu->multiplier + ((passed & 0xffffffff) * vcpu->multiplier >> 32);
}

u32 bind_virq(u32 virq)
{
    struct { u32 virq, vcpu, port; } bind = {virq, 0, 0};
    MUST(event_channel_op(EVTCHN_bind_virq, &bind));
    MUST(event_channel_op(EVTCHN_unmask, &bind.port));
    return bind.port;
}

void set_timer(u64 deadline)
{
    MUST(hypercall(SET_TIMER_OP, VALUE(deadline)));
}
