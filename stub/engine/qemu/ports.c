/*
 * in and out. The CPU may do none, so each comes as #GP; it is reported as what it is, and done here when the caller
 * has seen it. The string forms go on, time round by time round, as they would in the CPU, which is asked again only
 * where something else may come of it: an `ins` that could not store faults before the port is read, and at the end the
 * count is found to be 0 once more.
 */
#include "core.h"

enum { PTE_P = 1, PTE_RW = 2, PTE_US = 4, PTE_A = 0x20, PTE_D = 0x40, PTE_PS = 0x80 };
enum { AS_WRITE = 2, AS_USER = 4 }; /* of #PF's error code; 1: present */
enum { DF = 0x400, GP = 13, PF = 14 };
#define FRAME_BITS 0x000ffffffffff000ULL
#define NOWHERE ~0ULL

static uint64_t low_bytes(uint64_t value, int size)
{
    return size == 8 ? value : value & ((1ULL << 8 * size) - 1);
}

/* The machine address of a byte as the CPU finds it, with the rights in `how` (AS_…; -1: whatever they are); NOWHERE
 * if there is none: then the fault is in the words. */
static uint64_t walk(Core *c, uint64_t vaddr, int how)
{
    volatile uint64_t *w = c->word, *ram = c->ram.buf;
    uint64_t table = w[CR3] & FRAME_BITS, rights = PTE_RW | PTE_US;
    const uint64_t wanted = how < 0 ? 0 : (how & AS_WRITE ? PTE_RW : 0) | (how & AS_USER ? PTE_US : 0);
    int shift = 39, present = 0;
    w[EXIT_VECTOR] = GP;
    w[EXIT_ERROR_CODE] = 0;
    if (vaddr + (1ULL << 47) >= 1ULL << 48)
        return NOWHERE;
    for (; table < (uint64_t)c->ram.len; shift -= 9) {
        volatile uint64_t *entry = &ram[(table >> 3) + (vaddr >> shift & 511)];
        present = (*entry & PTE_P) != 0;
        rights &= *entry;
        if (!present || (rights & wanted) != wanted)
            break;
        const int last = shift == 12 || *entry & PTE_PS;
        *entry |= PTE_A | (last && how >= 0 && how & AS_WRITE ? PTE_D : 0);
        table = *entry & FRAME_BITS;
        if (last) {
            const uint64_t mask = (1ULL << shift) - 1, at = (table & ~mask) | (vaddr & mask);
            if (at < (uint64_t)c->ram.len)
                return at;
            break;
        }
    }
    w[EXIT_VECTOR] = PF;
    w[EXIT_ERROR_CODE] = (uint64_t)(present | (how < 0 ? 0 : how));
    w[CR2] = vaddr;
    return NOWHERE;
}

/* Whether all bytes of a piece of memory can be had, and where they are. */
static int find_bytes(Core *c, uint64_t vaddr, int size, int write, uint64_t *places)
{
    const int how = (write ? AS_WRITE : 0) | ((c->word[CS] & 3) == 3 ? AS_USER : 0);
    for (int i = 0; i < size; i++)
        if ((places[i] = walk(c, c->port.wide ? vaddr + (uint64_t)i : (uint32_t)(vaddr + (uint64_t)i), how)) == NOWHERE)
            return 0;
    return 1;
}

/* Where a segment begins: of FS and GS the CPU says it, of the others the descriptor, and in 64-bit code they all begin
 * at 0. */
static uint64_t segment_base(Core *c, int segment)
{
    static const int selectors[] = {ES, CS, SS, DS};
    if (segment >= 4)
        return c->word[segment == 4 ? FS_BASE : GS_BASE];
    if (c->port.wide)
        return 0;
    const uint64_t selector = c->word[selectors[segment]], ldt = c->word[MAIL_LDT];
    uint64_t table, at, descriptor = 0;
    memcpy(&table, (const char *)&c->word[MAIL_GDT] + 8, sizeof table);
    if (selector & 4)
        table = (ldt >> 16 & 0xffffff) | (ldt >> 32 & 0xff000000) | c->word[MAIL_LDT + 1] << 32;
    for (int i = 0; i < 8; i++) {
        if ((at = walk(c, table + (selector & 0xfff8) + (uint64_t)i, -1)) == NOWHERE)
            return 0;
        descriptor |= (uint64_t)((const uint8_t *)c->ram.buf)[at] << 8 * i;
    }
    return (descriptor >> 16 & 0xffffff) | (descriptor >> 32 & 0xff000000);
}

/* A register of the string forms moves on by as many of its bits as the code has addresses. */
static void add(volatile uint64_t *word, int address_size, int what)
{
    const uint64_t sum = low_bytes(*word + (uint64_t)(int64_t)what, address_size);
    *word = address_size == 2 ? (*word & ~0xffffULL) | sum : sum;
}

/* One time round is done: behind the instruction if it is the last. */
static void move_on(Core *c)
{
    volatile uint64_t *w = c->word;
    const Port *p = &c->port;
    if (p->string)
        add(&w[p->kind == EXIT_IN ? RDI : RSI], p->address_size, w[RFLAGS] & DF ? -p->size : p->size);
    if (p->repeated)
        add(&w[RCX], p->address_size, -1);
    if (!p->repeated || (c->guest_steps && !low_bytes(w[RCX], p->address_size)))
        w[RIP] = p->rip + (uint64_t)p->length;
    w[RETIRED]++;
}

/* The memory that a string form is about: an `outs` reads it now. */
static int string_exit(Core *c, const Code *d)
{
    static const int data_segment = 3;
    volatile uint64_t *w = c->word;
    Port *p = &c->port;
    const int out = p->kind == EXIT_OUT;
    if (p->repeated && !low_bytes(w[RCX], p->address_size)) {
        w[RIP] += (uint64_t)p->length;
        w[RETIRED]++;
        p->kind = -1;
        return EXIT_DONE;
    }
    const int segment = !out ? 0 : d->prefixes.segment >= 0 ? d->prefixes.segment : data_segment;
    const uint64_t at = segment_base(c, segment) + low_bytes(w[out ? RSI : RDI], p->address_size);
    if (!find_bytes(c, p->wide ? at : (uint32_t)at, p->size, !out, p->places)) {
        p->kind = -1;
        return EXIT_EXCEPTION;
    }
    w[EXIT_VALUE] = 0;
    for (int i = 0; out && i < p->size; i++)
        w[EXIT_VALUE] |= (uint64_t)((const uint8_t *)c->ram.buf)[p->places[i]] << 8 * i;
    return p->kind;
}

/* cpuid comes as #GP, too (shim/monitor.c). */
int cpuid_exit(Core *c, const Code *d)
{
    c->port = (Port){.rip = c->word[RIP], .length = d->at + 2, .kind = EXIT_CPUID};
    c->word[RETIRED] -= MONITOR_COUNT;
    return EXIT_CPUID;
}

/* #GP of an in or out, which the CPU checks and finds not allowed; -1: it is none. */
int port_exit(Core *c, const Code *d)
{
    volatile uint64_t *w = c->word;
    const int by_dx = d->opcode >= 0xec && d->opcode <= 0xef, direct = d->opcode >= 0xe4 && d->opcode <= 0xe7;
    const int string = d->opcode >= 0x6c && d->opcode <= 0x6f;
    if (!by_dx && !string && !(direct && d->second >= 0))
        return -1;
    c->port = (Port){
        .rip = w[RIP],
        .length = d->at + (direct ? 2 : 1),
        .size = !(d->opcode & 1) ? 1 : d->prefixes.operand16 ? 2 : 4,
        .kind = d->opcode & 2 ? EXIT_OUT : EXIT_IN,
        .string = string,
        .repeated = string && d->prefixes.repeated,
        .wide = d->wide,
        .address_size = d->wide ? (d->prefixes.narrow ? 4 : 8) : d->prefixes.narrow ? 2 : 4,
    };
    w[EXIT_PORT] = direct ? (uint64_t)d->second : w[RDX] & 0xffff;
    w[EXIT_SIZE] = (uint64_t)c->port.size;
    if (string)
        return string_exit(c, d);
    w[EXIT_VALUE] = c->port.kind == EXIT_OUT ? low_bytes(w[RAX], c->port.size) : 0;
    return c->port.kind;
}

/* The next time round of a repeated string form, without the CPU: it would find the same bytes where it is, and come
 * here again. -1: it has to be asked. */
int next_round(Core *c)
{
    const volatile uint64_t *w = c->word;
    Code d = {.wide = c->port.wide};
    if (!c->port.repeated || w[RIP] != c->port.rip || w[CR3] != c->left_root || w[FLUSH] || c->stops.n)
        return -1;
    if (!decode_exit(c, &d))
        return -1;
    for (int i = 0; i < 4; i++)
        if (c->slots[i].size)
            return -1;
    const uint64_t base = segment_base(c, 1);
    for (int i = 0; i < c->port.length; i++) {
        const uint64_t at = walk(c, base + w[RIP] + (uint64_t)i, -1);
        if (at == NOWHERE || ((const uint8_t *)c->ram.buf)[at] != d.code[i])
            return -1;
    }
    return port_exit(c, &d);
}

/* Bytes of an `ins` are in a page, which may hold code: QEMU hears of it when the guest goes on, or of another page. */
static int stored_to(Core *c, uint64_t maddr)
{
    const uint64_t page = maddr & ~0xfffULL;
    if (c->stored && c->stored_page == page)
        return 1;
    const int alive = tell_of_stores(c);
    c->stored = 1;
    c->stored_page = page;
    return alive;
}

int tell_of_stores(Core *c)
{
    const int had = c->stored;
    c->stored = 0;
    return !had || touch(c, c->stored_page);
}

/* The in or out that was reported is done, if RIP was left alone; -1 if the process is no more. */
int complete_port(Core *c)
{
    volatile uint64_t *w = c->word;
    Port *p = &c->port;
    const int kind = p->kind;
    if (kind >= 0 && w[RIP] == p->rip) {
        const uint64_t value = low_bytes(w[EXIT_VALUE], p->size);
        if (kind == EXIT_IN && !p->string)
            w[RAX] = p->size == 4 ? value : w[RAX] - low_bytes(w[RAX], p->size) + value;
        for (int i = 0; kind == EXIT_IN && p->string && i < p->size; i++) {
            ((uint8_t *)c->ram.buf)[p->places[i]] = (uint8_t)(value >> 8 * i);
            if (!stored_to(c, p->places[i]))
                return -1;
        }
        move_on(c);
        p->kind = -1;
        return 1;
    }
    p->kind = -1;
    return 0;
}
