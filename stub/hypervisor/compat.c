/* A 32-bit guest's entries as reflexes (entry.h): a page fault that only the guest can handle, user code's int $0x80,
 * the kernel's iret. compat.py says what is done, and does it wherever something is unusual: a segment that Python has
 * not found good (`pairs`) or that has a base, a frame that is not mapped. Nothing was done then. */
#include "entry.h"

enum { INT80 = 0x80, HYPERCALL_VECTOR = 0x82, PAGE_FAULT = 14 };
enum { CLEARED_ON_ENTRY = VM | RF | NT | TF, ALWAYS_SET = 2 | IF, FROM_IRET = 0x247fd7 & ~IOPL };
#define M32 0xffffffffULL

static const Pair *find_pair(const Entry *e, uint64_t cs, uint64_t ss)
{
    for (int i = 0; i < e->n_pairs; i++)
        if (e->pairs[i].cs == cs && e->pairs[i].ss == ss)
            return &e->pairs[i];
    return NULL;
}

static void load(uint64_t *w, const Pair *pair)
{
    w[CS] = pair->cs;
    w[SS] = pair->ss;
    w[CS_DESCRIPTOR] = pair->cs_descriptor;
    w[SS_DESCRIPTOR] = pair->ss_descriptor;
    w[CODE_SWITCH] = CODE_SWITCH_LOAD;
}

/* Guest memory at a 32-bit address, to be read or written: its two parts where it lies in two pages. */
static int copy(Entry *e, uint64_t at, uint8_t *data, size_t size, int how)
{
    uint64_t first, second = 0;
    const size_t room = 4096 - (at & 4095), head = size < room ? size : room;
    if (walk_translate(e->memory, e->memory->root, at, how, &first) ||
        (head < size && walk_translate(e->memory, e->memory->root, at + head, how, &second)))
        return 0;
    uint8_t *ram = walk_ram(e->memory);
    if (how == WALK_WRITE) {
        memcpy(ram + first, data, head);
        memcpy(ram + second, data + head, size - head);
    } else {
        memcpy(data, ram + first, head);
        memcpy(data + head, ram + second, size - head);
    }
    return 1;
}

/* compat_create_bounce_frame, to a gate of the trap table. */
static int enter(Entry *e, const CompatGate *gate, const uint64_t *code, uint64_t pushed)
{
    uint64_t *w = registers(e);
    const int user = (w[CS] & 2) != 0;
    const Pair *pair = find_pair(e, gate->cs, user ? e->kernel_ss : w[SS]);
    const uint64_t flags = w[RFLAGS] & ~(uint64_t)(IF | IOPL);
    const uint8_t mask = *events_masked(e);
    uint32_t frame[6], *f = frame;
    if (!pair || e->architectural_iopl || (w[RFLAGS] & VM))
        return 0;
    if (code)
        *f++ = (uint32_t)*code;
    *f++ = (uint32_t)w[RIP];
    *f++ = (uint32_t)w[CS] | (uint32_t)mask << 16;
    *f++ = (uint32_t)(flags | pushed | (mask ? 0 : IF) | (e->resumed_when == w[RETIRED] ? RF : 0));
    if (user) {
        *f++ = (uint32_t)w[RSP];
        *f++ = (uint32_t)w[SS];
    }
    const size_t size = (size_t)(f - frame) * 4;
    const uint64_t top = (user ? e->kernel_sp : w[RSP]) & M32, bottom = top - size;
    if (top < size || !copy(e, bottom, (uint8_t *)frame, size, WALK_WRITE))
        return 0;
    e->came_rip = w[RIP];
    e->came_rsp = w[RSP];
    if (gate->masks_events)
        *events_masked(e) |= 1;
    w[RIP] = gate->address;
    w[RSP] = bottom;
    w[RFLAGS] = (flags & ~(uint64_t)CLEARED_ON_ENTRY) | ALWAYS_SET;
    load(w, pair);
    return 1;
}

/* An exception, or a software interrupt, with its record. */
static int take(Entry *e, int vector, const CompatGate *gate, const uint64_t *code, uint64_t pushed, uint64_t cr2)
{
    uint64_t *w = registers(e);
    const uint64_t user = !e->kernel_mode;
    const uint64_t there = w[RETIRED] == e->trapped_at ? e->traps_there : 0;
    if (!gate->address || there >= TRAPS_IN_A_ROW || !enter(e, gate, code, pushed))
        return 0;
    e->trapped_at = w[RETIRED];
    e->traps_there = there + 1;
    if (code) {
        const uint32_t seen = (uint32_t)cr2;
        e->cr2 = cr2;
        memcpy(walk_ram(e->memory) + e->info_at + COMPAT_VCPU_INFO_CR2, &seen, sizeof seen);
    }
    const uint64_t words[5] = {code ? *code : ~0ULL, cr2, e->came_rsp, gate->address, user};
    recorder_append(e->log, KIND_EXCEPTION, vector, now(w), e->came_rip, words, 5, (Part){0}, (Part){0});
    return 1;
}

/* What iret does with a data segment for ring 3: 0 if that is not known here. */
static int drop(uint64_t *selector)
{
    if (*selector == FLAT_RING1_DS)
        *selector = 0;
    return !(*selector & ~3ULL) || (*selector & 3) == 3;
}

/* compat_iret. */
static int iret32(Entry *e)
{
    uint64_t *w = registers(e), data[4] = {w[DS], w[ES], w[FS], w[GS]};
    const uint64_t at = w[RSP] & M32, rip = w[RIP] - 2;
    const uint64_t words[5] = {w[RBX] & M32, w[RCX] & M32, w[RDX] & M32, w[RSI] & M32, w[RDI] & M32};
    uint32_t frame[6]; /* eax, eip, cs, eflags, esp, ss */
    if (e->nmi_masked || e->architectural_iopl || at > M32 - sizeof frame ||
        !copy(e, at, (uint8_t *)frame, 16, WALK_READ) || (frame[3] & VM) || !(frame[2] & 3))
        return 0;
    const int outwards = (frame[2] & 3) != 1;
    if (outwards && !copy(e, at, (uint8_t *)frame, sizeof frame, WALK_READ))
        return 0;
    const Pair *pair = find_pair(e, frame[2] & 0xffff, outwards ? frame[5] & 0xffff : w[SS]);
    if (!pair)
        return 0;
    for (int i = 0; outwards && i < 4; i++)
        if (!drop(&data[i]))
            return 0;
    memcpy(&w[DS], data, sizeof data);
    if (frame[3] & RF)
        e->resumed_when = w[RETIRED];
    w[RAX] = frame[0];
    w[RIP] = frame[1];
    w[RFLAGS] = (frame[3] & FROM_IRET) | ALWAYS_SET;
    w[RSP] = outwards ? frame[4] : (at + 16) & M32;
    *events_masked(e) = frame[3] & IF ? 0 : 1;
    load(w, pair);
    const uint64_t record[6] = {words[0], words[1], words[2], words[3], words[4], w[RAX]};
    const Part payload = {frame, outwards ? sizeof frame : 16};
    recorder_append(e->log, KIND_HYPERCALL, HYPERCALL_IRET, now(w), rip, record, 6, payload, (Part){0});
    return 1;
}

int compat_exception(Entry *e)
{
    uint64_t *w = registers(e);
    const uint64_t kind = w[EXIT_ERROR_CODE] & (PFEC_W | PFEC_P | PFEC_RSVD | PFEC_I);
    if (w[EXIT_SOFTWARE] && w[EXIT_VECTOR] == HYPERCALL_VECTOR)
        return e->kernel_mode && (uint32_t)w[RAX] == HYPERCALL_IRET && iret32(e);
    if (w[EXIT_SOFTWARE])
        return w[EXIT_VECTOR] == INT80 && take(e, INT80, &e->int80, NULL, 0, 0);
    if (w[EXIT_VECTOR] != PAGE_FAULT || w[CR2] > M32 ||
        (e->kernel_mode && e->writable_pagetables && kind == (PFEC_W | PFEC_P)))
        return 0;
    const uint64_t code = (w[EXIT_ERROR_CODE] & ~(uint64_t)PFEC_U) | (e->kernel_mode ? 0 : PFEC_U);
    return take(e, PAGE_FAULT, &e->compat_page_fault, &code, RF, w[CR2]);
}
