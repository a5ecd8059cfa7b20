/* What left the guest, from what the shim says and from the bytes of the code that it was at. */
#include "core.h"

enum { FLAT_SS = 0xe02b, FLAT_CS32 = 0xe023 };
enum { UD = 6, NM = 7, GP = 13 };

int decode_exit(const Core *c, Code *d)
{
    return decode(d, (const uint8_t *)&c->word[MAIL_CODE], (int)c->word[MAIL_CODE_SIZE]);
}

int has_jumped_in(const Core *c)
{
    const uint64_t went = c->word[RIP] - c->word[MAIL_ENTERED];
    return has_jumped((const uint8_t *)&c->word[MAIL_CODE], (int)c->word[MAIL_CODE_SIZE], is_wide(c->word[CS]), went);
}

int debug_exit(Core *c, int guests)
{
    c->word[EXIT_VECTOR] = DB;
    c->word[EXIT_SOFTWARE] = 0;
    c->word[EXIT_ERROR_CODE] = (uint64_t)guests;
    return EXIT_EXCEPTION;
}

static void note_watch(Core *c, int slot)
{
    /* address, size, write */
    volatile uint64_t *kept = &c->word[c->slots[slot].second ? WATCH2_ADDRESS : WATCH_ADDRESS];
    kept[0] = c->slots[slot].address;
    kept[1] = c->slots[slot].size;
    kept[2] = (uint64_t)c->slots[slot].write;
}

/* Which watched accesses the instruction made, as the debug registers tell: QEMU tells of one of those that watch the
 * same bytes. */
static int note_watches(Core *c, uint64_t hits)
{
    int seen = 0;
    for (int i = 0; i < 4; i++) {
        if (!(hits >> i & 1) || c->slots[i].execute || !c->slots[i].size)
            continue;
        const uint64_t first = c->slots[i].address, behind = first + c->slots[i].size;
        for (int j = 0; j < 4; j++)
            if (!c->slots[j].execute && c->slots[j].address < behind &&
                c->slots[j].address + c->slots[j].size > first && (c->slots[i].write || !c->slots[j].write))
                note_watch(c, j);
        note_watch(c, i);
        seen = 1;
    }
    return seen;
}

int is_stop(const Core *c, uint64_t rip)
{
    const size_t at = stops_below(&c->stops, rip);
    return at < c->stops.n && c->stops.addresses[at] == rip;
}

int stop_exit(Core *c)
{
    c->stopped_at = c->word[RIP];
    c->stopped_when = c->word[RETIRED];
    return EXIT_STOP_POINT;
}

/* The guest steps: a processor leaves a repeated string instruction when the count gets to 0, where QEMU, as it counts
 * instructions, goes round once more to find it there. */
static void end_string(Core *c)
{
    volatile uint64_t *w = c->word;
    const uint8_t *code = (const uint8_t *)&w[MAIL_CODE];
    w[RIP] += (uint64_t)length_if_ran_out(code, (int)w[MAIL_CODE_SIZE], is_wide(w[CS]), w[RFLAGS], w[RCX]);
}

/* #DB: before an instruction with a stop point, or behind one that was stepped or touched watched memory. */
static int debug_trap(Core *c, int steps)
{
    const uint64_t dr6 = c->word[MAIL_DR6];
    for (int i = 0; i < 4; i++)
        if (dr6 >> i & 1 && c->slots[i].execute && c->slots[i].address == c->word[RIP] && !(dr6 & SINGLE_STEP))
            return stop_exit(c);
    const int watched = note_watches(c, dr6);
    const int guests = (c->guest_steps || !c->stepping) && dr6 & SINGLE_STEP; /* it may have set TF meanwhile */
    if (!watched && !guests && !steps)
        return EXIT_DONE; /* it was looked at for stop points only */
    if (guests && c->guest_steps && c->word[RIP] == c->word[MAIL_ENTERED])
        end_string(c);
    return debug_exit(c, guests);
}

/* Whether QEMU finds an instruction to be privileged when it translates it: then it has counted it. */
static int is_privileged(const Code *d)
{
    static const uint8_t second[] = {0x06, 0x08, 0x09, 0x20, 0x21, 0x22, 0x23, 0x30, 0x32, 0x35};
    if (d->opcode == 0xf4 || d->opcode == 0xfa || d->opcode == 0xfb)
        return 1;
    if (d->opcode != 0x0f)
        return 0;
    for (size_t i = 0; i < sizeof second; i++)
        if (d->second == second[i])
            return 1;
    const int modrm = d->at + 2 < d->size ? d->code[d->at + 2] : 0, digit = modrm >> 3 & 7;
    return (d->second == 0 && (digit == 2 || digit == 3)) ||
           (d->second == 1 && modrm != 0xf9 && modrm != 0xd0 && digit != 4 &&
            (modrm < 0xc0 || modrm == 0xd1 || digit >= 6));
}

/* The instructions of a virtual machine's monitor, which the guest's CPU does not have (shim/monitor.c). */
static int is_monitors(const Code *d)
{
    return d->opcode == 0x0f && d->second == 0x01 && d->at + 2 < d->size && (d->code[d->at + 2] & 0xf8) == 0xd8;
}

static int general_protection(Core *c)
{
    volatile uint64_t *w = c->word;
    Code d = {.wide = is_wide(w[CS])};
    if (!decode_exit(c, &d))
        return EXIT_EXCEPTION;
    if (is_monitors(&d) && !w[EXIT_ERROR_CODE]) {
        w[RETIRED] -= d.code[d.at + 2] == 0xd9 ? MONITOR_COUNT : 1; /* vmmcall */
        return EXIT_INVALID;
    }
    const int privileged = is_privileged(&d) && !w[EXIT_ERROR_CODE], rdpmc = d.opcode == 0x0f && d.second == 0x33;
    w[RETIRED] -= (uint64_t)privileged;
    if (d.prefixes.locked && (privileged || rdpmc))
        return EXIT_INVALID;
    if (d.opcode == 0x0f && d.second == 0x34)
        return EXIT_SYSENTER;
    if ((w[EXIT_ERROR_CODE] & 7) == 2 && d.opcode == 0xcd && d.second >= 0) { /* int n through a gate that is closed */
        w[EXIT_VECTOR] = (uint64_t)d.second;
        w[EXIT_ERROR_CODE] = 0;
        w[EXIT_SOFTWARE] = 1;
        w[RIP] += (uint64_t)d.at + 2;
        return EXIT_EXCEPTION;
    }
    if (w[EXIT_ERROR_CODE])
        return EXIT_EXCEPTION;
    if (d.opcode == 0x0f && d.second == 0xa2)
        return cpuid_exit(c, &d);
    const int kind = port_exit(c, &d);
    if (kind >= 0)
        return kind;
    const int rdtscp = d.opcode == 0x0f && d.second == 0x01 && d.at + 2 < d.size && d.code[d.at + 2] == 0xf9;
    if (rdtscp)
        w[RETIRED] -= w[MAIL_RDTSCP_COUNTED];
    if ((d.opcode == 0x0f && d.second == 0x31) || rdtscp) {
        const uint64_t now = w[RETIRED] + w[TIME_SKEW];
        w[RAX] = now & 0xffffffff;
        w[RDX] = now >> 32;
        if (rdtscp)
            w[RCX] = w[TSC_AUX];
        w[RIP] += (uint64_t)d.at + (rdtscp ? 3 : 2);
        w[RETIRED]++;
        w[RDTSCS]++;
        return EXIT_DONE;
    }
    return EXIT_EXCEPTION;
}

/* Whether QEMU finds an instruction to be undefined when it translates it, as is_privileged() has it: all but rdfsbase
 * and the like without lock, where CR4 decides. */
static int is_undefined(Core *c)
{
    Code d = {.wide = is_wide(c->word[CS])};
    if (!decode_exit(c, &d) || !d.prefixes.repeated || d.prefixes.locked || d.opcode != 0x0f ||
        d.second != 0xae || d.at + 2 >= d.size)
        return 1;
    return d.code[d.at + 2] < 0xc0 || d.code[d.at + 2] >= 0xe0;
}

/* What left the guest, as the contract has it; EXIT_DONE: nothing that anybody need know. */
int classify(Core *c, int steps)
{
    volatile uint64_t *w = c->word;
    const uint64_t vector = w[MAIL_VECTOR];
    w[EXIT_SOFTWARE] = 0;
    w[RFLAGS] &= ~(uint64_t)RF;
    if (c->stepping && !c->guest_steps) {
        if (vector != DB || (w[MAIL_STEPPED] != POPF && w[MAIL_STEPPED] != IRET)) /* those load the guest's own */
            w[RFLAGS] &= ~(uint64_t)TF;
        if (vector == VECTOR_SYSCALL || vector == VECTOR_SYSCALL32)
            w[R11] &= ~(uint64_t)TF;
    }
    if (vector == VECTOR_SYSCALL || vector == VECTOR_SYSCALL32) {
        w[CS] = vector == VECTOR_SYSCALL ? FLAT_CS : FLAT_CS32;
        w[SS] = FLAT_SS;
        return EXIT_SYSCALL;
    }
    if (vector == VECTOR_TIMER)
        return EXIT_DONE;
    if (vector >= VECTOR_BROKEN) {
        w[EXIT_VALUE] = vector;
        return EXIT_DEAD;
    }
    w[EXIT_VECTOR] = vector & 0xff;
    if (vector >= VECTOR_ENTRY)
        return EXIT_EXCEPTION;
    if (vector == DB)
        return debug_trap(c, steps);
    if (vector == 3 || vector == 4 || vector >= 32)
        w[EXIT_SOFTWARE] = 1;
    if (vector == GP)
        return general_protection(c);
    if (vector == NM || (vector == UD && is_undefined(c))) /* counted, as a privileged one */
        w[RETIRED]--;
    return vector == UD ? EXIT_INVALID : EXIT_EXCEPTION;
}
