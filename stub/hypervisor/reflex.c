/* Exits that need no decision, done at once (entry.h; engine.h says what a reflex may do): a page fault that only the
 * guest can handle, the kernel's iret, a system call of user code, a read of a port where nothing is, a cpuid. Whatever
 * is unusual about one of these is left to Python, which does it all over: nothing was done then but a note of CR2. */
#include "entry.h"

enum { RTC_INDEX = 0x70 };

static int page_fault_reflex(Entry *e)
{
    uint64_t *w = registers(e), address = w[CR2], code = w[EXIT_ERROR_CODE];
    const uint64_t kind = code & (PFEC_W | PFEC_P | PFEC_RSVD | PFEC_I);
    if (w[EXIT_VECTOR] != 14 || w[EXIT_SOFTWARE] || !e->page_fault.address || !is_runnable(e, w[CS], 0) ||
        (address >= HYPERVISOR_START && address < HYPERVISOR_END) ||
        (e->kernel_mode && e->writable_pagetables && kind == (PFEC_W | PFEC_P)) || e->traps_there >= TRAPS_IN_A_ROW)
        return 0;
    code = (code & ~(uint64_t)PFEC_U) | (e->kernel_mode ? 0 : PFEC_U);
    const Trap t = {e->page_fault.address, e->page_fault.masks_events, 1, &code, &address};
    return trap(e, 14, &t) == DONE;
}

static int iret_reflex(Entry *e)
{
    uint64_t *w = registers(e);
    const uint64_t rip = w[RIP] - 2, args[5] = {w[RDI], w[RSI], w[RDX], w[R10], w[R8]};
    IretFrame frame;
    if (e->nmi_masked || e->architectural_iopl || !read_frame(e, &frame) || !is_canonical(frame.rip) ||
        ((frame.cs & 3) == 3 && !e->user_root) || !is_runnable(e, w[CS], 0) ||
        !is_runnable(e, (frame.cs | 3) & 0xffff, (frame.ss | 3) & 0xffff))
        return 0;
    iret(e, &frame);
    const uint64_t words[6] = {args[0], args[1], args[2], args[3], args[4], w[RAX]};
    const Part payload = {&frame, sizeof frame};
    recorder_append(e->log, KIND_HYPERCALL, HYPERCALL_IRET, now(w), rip, words, 6, payload, (Part){0});
    return 1;
}

/* User code's syscall instruction. Where it was in 64-bit mode, Xen finds itself entered from the flat segments. */
static int syscall_reflex(Entry *e)
{
    uint64_t *w = registers(e);
    if (!e->syscall.address || !is_runnable(e, w[CS], 0))
        return 0;
    w[CS] = FLAT_KERNEL_CS;
    w[SS] = FLAT_KERNEL_SS;
    return bounce(e, e->syscall.address, e->syscall.masks_events, NULL, 0, (Flags){.cleared = DF}) == DONE;
}

static int port_reflex(Entry *e)
{
    uint64_t *w = registers(e);
    const unsigned needed = !e->kernel_mode ? 3 : e->architectural_iopl ? 0 : 1;
    if (e->iopl < needed || e->watches_ports || (w[EXIT_PORT] == 0xcf8 && w[EXIT_SIZE] == 4) ||
        (w[EXIT_PORT] <= RTC_INDEX && w[EXIT_PORT] + w[EXIT_SIZE] > RTC_INDEX))
        return 0;
    w[EXIT_VALUE] = (1ULL << 8 * w[EXIT_SIZE]) - 1; /* no device there: all ones */
    const uint64_t words[3] = {w[EXIT_PORT], w[EXIT_SIZE], w[EXIT_VALUE]};
    recorder_append(e->log, KIND_PORT_IO, 0, now(w), w[RIP], words, 3, (Part){0}, (Part){0});
    return 1;
}

static int cpuid_reflex(Entry *e)
{
    uint64_t *w = registers(e);
    const uint32_t leaf = (uint32_t)w[RAX], subleaf = (uint32_t)w[RCX];
    const Leaf *found = e->leaves, *end = found + e->n_leaves;
    while (found < end && (found->leaf != leaf || (!found->all && found->subleaf != subleaf)))
        found++;
    if (found == end || spins_enough(e, w))
        return 0;
    count_spin(e, w);
    w[RAX] = found->a;
    w[RBX] = found->b;
    w[RCX] = found->c;
    w[RDX] = found->d;
    const uint64_t words[3] = {leaf | (uint64_t)subleaf << 32, found->a | (uint64_t)found->b << 32,
                               found->c | (uint64_t)found->d << 32};
    recorder_cpuid(e->log, 0, now(w), w[RIP], words);
    return 1;
}

int act(void *state, uint64_t *w, int kind)
{
    Entry *e = state;
    int done = 0;
    if (!recorder_has_room(e->log))
        return REFLEX_NOT_MINE;
    if (e->compat)
        e->kernel_mode = (w[CS] & 3) == 1 && !(w[RFLAGS] & VM);
    if (kind == EXIT_IN)
        done = port_reflex(e);
    else if (kind == EXIT_CPUID)
        done = cpuid_reflex(e);
    else if (e->compat)
        done = kind == EXIT_EXCEPTION && compat_exception(e);
    else if (kind == EXIT_EXCEPTION)
        done = page_fault_reflex(e);
    else if (kind == EXIT_SYSCALL && e->kernel_mode)
        done = w[RAX] == HYPERCALL_IRET && iret_reflex(e);
    else if (kind == EXIT_SYSCALL)
        done = syscall_reflex(e);
    if (!done)
        return REFLEX_NOT_MINE;
    const uint8_t *info = walk_ram(e->memory) + e->info_at;
    return info[0] && !info[VCPU_INFO_MASK] ? REFLEX_LOOK : REFLEX_DONE;
}

