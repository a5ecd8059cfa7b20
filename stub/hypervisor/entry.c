/* The entries themselves (entry.h). */
#include "entry.h"

enum { ALWAYS_SET = 2 | IF }; /* what masks events is in vcpu_info */
enum { CLEARED_ON_ENTRY = AC | VM | RF | NT | TF };
/* What iret may give back: CF PF AF ZF SF TF IF DF OF NT, and RF AC VIF VIP ID; not IOPL. */
enum { FROM_IRET = 0x247fd7 & ~IOPL };

/* toggle_guest_mode: the other root table and GS base; 0 where there is no user table. */
int switch_mode(Entry *e)
{
    uint64_t *w = registers(e);
    const uint64_t root = (e->kernel_mode ? e->user_root : e->kernel_root) << 12;
    if (!root)
        return 0;
    const uint64_t gs_base = w[GS_BASE];
    e->kernel_mode = !e->kernel_mode;
    w[GS_BASE] = e->gs_base_other;
    e->gs_base_other = gs_base;
    w[FLUSH] = 1; /* said besides CR3, which may be back where it was before the CPU sees it */
    w[CR3] = e->memory->root = root;
    return 1;
}

/* Copies `n` words to a stack whose top is 16-byte aligned; nothing is written unless all of it can be. */
static int push(Entry *e, uint64_t root, uint64_t bottom, const uint64_t *words, size_t n)
{
    uint64_t first, second = 0;
    const size_t size = 8 * n, room = 4096 - (bottom & 4095), head = size < room ? size : room;
    e->fault_at = bottom;
    if (walk_translate(e->memory, root, bottom, WALK_WRITE, &first))
        return 0;
    e->fault_at = bottom + head;
    if (head < size && walk_translate(e->memory, root, bottom + head, WALK_WRITE, &second))
        return 0;
    memcpy(walk_ram(e->memory) + first, words, head);
    memcpy(walk_ram(e->memory) + second, (const uint8_t *)words + head, size - head);
    return 1;
}

/* create_bounce_frame: rcx, r11, `extra` (an error code, or the data selectors of a failsafe callback), rip, cs,
 * rflags, rsp, ss go on the kernel's stack, and its handler runs. All of it is done or nothing. The upper half of cs
 * is the event mask and the three unused bytes behind it. */
int bounce(Entry *e, uint64_t address, int masks_events, const uint64_t *extra, size_t n_extra, Flags change)
{
    uint64_t *w = registers(e), frame[16], *f = frame;
    const int from_kernel = e->kernel_mode;
    const uint64_t flags = w[RFLAGS] & ~(uint64_t)(IF | IOPL);
    uint32_t mask;
    memcpy(&mask, events_masked(e), sizeof mask);
    *f++ = w[RCX];
    *f++ = w[R11];
    for (size_t i = 0; i < n_extra; i++)
        *f++ = extra[i];
    *f++ = w[RIP];
    *f++ = (from_kernel ? w[CS] & 0xfffc : w[CS] | 3) | (uint64_t)mask << 32;
    *f++ = flags | change.pushed | (mask & 0xff ? 0 : IF) | (e->architectural_iopl ? (uint64_t)e->iopl << 12 : 0) |
           (e->resumed_when == w[RETIRED] ? RF : 0);
    *f++ = w[RSP];
    *f++ = w[SS];
    const size_t n = (size_t)(f - frame);
    const uint64_t bottom = ((from_kernel ? w[RSP] : e->kernel_sp) & ~15ULL) - 8 * n;
    if (!push(e, from_kernel ? e->memory->root : e->kernel_root << 12, bottom, frame, n))
        return STACK_FAULT;
    e->came_rip = w[RIP];
    e->came_rsp = w[RSP];
    if (!from_kernel)
        switch_mode(e);
    if (masks_events)
        *events_masked(e) |= 1;
    w[RIP] = address;
    w[RFLAGS] = (flags & ~(change.cleared | CLEARED_ON_ENTRY)) | ALWAYS_SET;
    w[CS] = FLAT_KERNEL_CS;
    w[SS] = FLAT_KERNEL_SS;
    w[RSP] = bottom;
    return DONE;
}

/* An exception for the guest's handler, with its record (pv_inject_event). The CPU sets RF in the frame of a fault, and
 * in no other (x86 manual, vol. 3, 17.3.1.1). There must be room in the log. */
int trap(Entry *e, int vector, const Trap *t)
{
    uint64_t *w = registers(e);
    const uint64_t user = !e->kernel_mode;
    if (t->cr2) {
        e->cr2 = *t->cr2;
        memcpy(walk_ram(e->memory) + e->info_at + VCPU_INFO_CR2, t->cr2, sizeof *t->cr2);
    }
    if (!t->address)
        return NO_HANDLER;
    if (w[RETIRED] != e->trapped_at) {
        e->trapped_at = w[RETIRED];
        e->traps_there = 0;
    }
    if (++e->traps_there > TRAPS_IN_A_ROW) /* time stands still there, and no limit would end it */
        return TOO_MANY;
    const Flags flags = {.pushed = t->is_fault ? RF : 0};
    const int outcome = bounce(e, t->address, t->masks_events, t->code, t->code ? 1 : 0, flags);
    if (outcome == DONE) {
        const uint64_t words[5] = {t->code ? *t->code : ~0ULL, t->cr2 ? *t->cr2 : 0, e->came_rsp, t->address, user};
        recorder_append(e->log, KIND_EXCEPTION, vector, now(w), e->came_rip, words, 5, (Part){0}, (Part){0});
    }
    return outcome;
}

int read_frame(Entry *e, IretFrame *frame)
{
    const uint64_t at = registers(e)[RSP];
    uint8_t *to = (uint8_t *)frame;
    for (size_t done = 0; done < sizeof *frame;) {
        uint64_t maddr;
        size_t piece = 4096 - ((at + done) & 4095);
        if (piece > sizeof *frame - done)
            piece = sizeof *frame - done;
        e->fault_at = at + done;
        if (walk_translate(e->memory, e->memory->root, at + done, WALK_READ, &maddr))
            return 0;
        memcpy(to + done, walk_ram(e->memory) + maddr, piece);
        done += piece;
    }
    return 1;
}

/* Whether code runs in 64-bit mode with this CS, and with this SS unless it is 0, as far as is known here. */
int is_runnable(const Entry *e, uint64_t cs, uint64_t ss)
{
    if (cs == FLAT_KERNEL_CS && (!ss || ss == FLAT_KERNEL_SS))
        return 1;
    for (int i = 0; i < e->n_runnable; i++)
        if (e->runnable[i].cs == cs && (!ss || e->runnable[i].ss == ss))
            return 1;
    return 0;
}

/* do_iret: to the kernel, or to user code. */
int iret(Entry *e, const IretFrame *frame)
{
    uint64_t *w = registers(e);
    if (((frame->cs & 3) == 3) == (e->kernel_mode != 0) && !switch_mode(e))
        return NO_USER_TABLE;
    const uint64_t old_cs = w[CS];
    *events_masked(e) = frame->rflags & IF ? 0 : 1;
    const int in_syscall = (frame->flags & VGCF_IN_SYSCALL) != 0;
    w[RAX] = frame->rax;
    w[RCX] = in_syscall ? frame->rip : frame->rcx;
    w[R11] = in_syscall ? frame->rflags : frame->r11;
    if (e->architectural_iopl)
        e->iopl = frame->rflags >> 12 & 3;
    w[RIP] = frame->rip;
    w[RFLAGS] = (frame->rflags & FROM_IRET) | ALWAYS_SET;
    w[CS] = (frame->cs | 3) & 0xffff;
    w[SS] = (frame->ss | 3) & 0xffff;
    w[RSP] = frame->rsp;
    e->nmi_masked = 0;
    if (frame->rflags & RF)
        e->resumed_when = w[RETIRED];
    return is_canonical(w[RIP]) && is_runnable(e, old_cs, 0) && is_runnable(e, w[CS], w[SS]) ? DONE : LOOK;
}

