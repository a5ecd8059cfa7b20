/* Calibration.
 * Where a saved context keeps the error code, the software-interrupt mark and the pending exception is a matter of
 * the build. Known faults are provoked on a scratch page table and the words that changed as they must are taken. */
#include "core.h"


static void note_interrupt(uc_engine *uc, uint32_t number, void *data)
{
    Core *c = data;
    c->last_interrupt = number;
    lib.uc_context_save(uc, c->context); /* leaving the loop disturbs the state, so it is taken here */
    lib.uc_emu_stop(uc);
}

static int provoke(Core *c, uc_context *clean, const char *code, size_t size, int32_t *words, size_t n)
{
    const uint64_t at = 0x8000;
    char padded[32];
    memset(padded, 0x90, sizeof padded);
    memcpy(padded, code, size);
    lib.uc_context_restore(c->uc, clean);
    lib.uc_mem_write(c->uc, at, padded, sizeof padded);
    lib.uc_ctl(c->uc, UC_CTL_WRITE(UC_CTL_TB_REMOVE_CACHE, 2), at, at + sizeof padded);
    c->last_interrupt = ~0ULL;
    lib.uc_emu_start(c->uc, at, NOWHERE, 0, 0);
    memcpy(words, c->context, n * sizeof *words);
    return (int)c->last_interrupt;
}

enum { CODE64 = 0x23, CODE32 = 0x2b, CODE16 = 0x33, BASED = 0x3b, BASE = 0x4abc }; /* selectors; the last one's base */

/* The context of code in another segment, reached by iretq. */
static int provoke_in(Core *c, uc_context *clean, uint64_t selector, uint64_t rip, int32_t *words, size_t n)
{
    static const char far_return[] = "\x48\xbc\x00\x90\x00\x00\x00\x00\x00\x00\x48\xcf\x90\x90\x90\x90\xcd\x80";
    const uint64_t frame[] = {rip, selector, 0x202, 0x7000, 0x1b};
    lib.uc_mem_write(c->uc, 0x9000, frame, sizeof frame);
    return provoke(c, clean, far_return, sizeof far_return - 1, words, n) == 0x80;
}

/* Whether a word of the three kinds of code is what the CPU keeps of its mode: ring 3, and the code's width. */
static int is_mode(const uint32_t *in)
{
    return (in[0] & in[1] & in[2] & HIDDEN_CPL) == HIDDEN_CPL && in[0] & HIDDEN_CS64 && in[1] & HIDDEN_CS32 &&
           !(in[2] & HIDDEN_CS32) && !((in[1] | in[2]) & HIDDEN_CS64);
}

/* Whether segments lie where load_segments() writes them: the code segment's selector before its base, and the stack
 * segment's a segment further on. */
static int find_segments(Core *c, const int32_t *context)
{
    const size_t selector = c->at_code_base / 4 - 2;
    int found = 0;
    for (int i = 0; i < c->n_modes; i++)
        if (is_mode(c->modes[i].in))
            c->at_hidden_flags = c->modes[i].at, found++;
    return found == 1 && context[selector] == CODE32 && context[selector + 6] == 0x1b;
}

/* The words in which contexts of 64-bit, 32-bit and 16-bit code differ, the selectors themselves apart; and the code
 * segment's base. */
static int find_modes(Core *c, uc_context *clean, size_t n)
{
    static const char plain[] = "\x48\xbc\x00\x70\x00\x00\x00\x00\x00\x00\x90\x90\x90\x90\x90\x90\xcd\x80";
    int32_t *w[4];
    for (int i = 0; i < 4; i++)
        w[i] = malloc(n * 4);
    int good = provoke(c, clean, plain, sizeof plain - 1, w[0], n) == 0x80 &&
               provoke_in(c, clean, CODE32, 0x8010, w[1], n) && provoke_in(c, clean, CODE16, 0x8010, w[2], n) &&
               provoke_in(c, clean, BASED, 0x8010 - BASE, w[3], n);
    int bases = 0;
    c->n_modes = 0;
    for (size_t k = 0; good && k < n; k++) {
        if (w[3][k] == BASE && w[0][k] == 0 && w[1][k] == 0)
            c->at_code_base = k * 4, bases++;
        if ((w[0][k] == w[1][k] && w[1][k] == w[2][k]) || (w[0][k] == CODE64 && w[1][k] == CODE32))
            continue;
        if (c->n_modes == 8)
            good = 0;
        else
            c->modes[c->n_modes++] =
                (__typeof__(c->modes[0])){k * 4, {(uint32_t)w[0][k], (uint32_t)w[1][k], (uint32_t)w[2][k]}};
    }
    good = good && c->n_modes >= 2 && bases == 1 && find_segments(c, w[1]);
    for (int i = 0; i < 4; i++)
        free(w[i]);
    return good;
}

int calibrate(Core *c)
{
    enum { P4 = 0x1000, P3 = 0x2000, P2 = 0x3000, GDT = 0x4000, CODE = 0x5000, STACK = 0x6000 };
    const uint64_t p4 = P3 | 7, p3 = P2 | 7, p2 = 0x87, efer_lma = 0xD01;
    const uint64_t gdt[] = {0, 0x00af9b000000ffffULL, 0x00cf93000000ffffULL, 0x00cff3000000ffffULL,
                            0x00affb000000ffffULL, 0x00cffb000000ffffULL, 0x008ffb000000ffffULL,
                            0x00cffb000000ffffULL | (uint64_t)BASE << 16};
    const uint64_t frame[] = {0x8000, 0x23, 0x202, 0x7000, 0x1b};
    const uc_x86_mmr gdtr = {0, GDT, sizeof gdt - 1, 0};
    const uc_x86_msr efer = {0xC0000080, efer_lma};
    const uint64_t cr3 = P4, cr4 = 0x620, cr0 = 0x80010011, sp = STACK;
    uc_hook interrupt, *hook = &interrupt;
    if (lib.uc_mem_map(c->uc, 0, 0x200000, UC_PROT_ALL) != UC_ERR_OK)
        return 0;
    lib.uc_mem_write(c->uc, P4, &p4, 8);
    lib.uc_mem_write(c->uc, P3, &p3, 8);
    lib.uc_mem_write(c->uc, P2, &p2, 8);
    lib.uc_mem_write(c->uc, GDT, gdt, sizeof gdt);
    lib.uc_mem_write(c->uc, CODE, "\x48\xcf", 2);
    lib.uc_mem_write(c->uc, STACK, frame, sizeof frame);
    lib.uc_reg_write(c->uc, UC_X86_REG_GDTR, &gdtr);
    lib.uc_reg_write(c->uc, UC_X86_REG_CR3, &cr3);
    lib.uc_reg_write(c->uc, UC_X86_REG_CR4, &cr4);
    lib.uc_reg_write(c->uc, UC_X86_REG_MSR, &efer);
    lib.uc_reg_write(c->uc, UC_X86_REG_CR0, &cr0);
    lib.uc_reg_write(c->uc, UC_X86_REG_RSP, &sp);
    lib.uc_hook_add(c->uc, hook, UC_HOOK_INTR, note_interrupt, c, (uint64_t)1, (uint64_t)0);
    uc_context *initial, *clean;
    lib.uc_context_alloc(c->uc, &initial);
    lib.uc_context_alloc(c->uc, &clean);
    lib.uc_context_save(c->uc, initial);
    lib.uc_emu_start(c->uc, CODE, 0x8000, 0, 1); /* iretq to ring 3 */
    lib.uc_context_save(c->uc, clean);

    const size_t n = c->context_size / 4;
    int32_t *w[5];
    for (int i = 0; i < 5; i++)
        w[i] = malloc(n * 4);
    static const struct {
        const char *code;
        size_t size;
        int vector;
        int32_t error;
        int software;
        int32_t pending;
    } faults[5] = {
        {"\x89\x04\x25\x00\x00\x00\x40", 7, 14, 6, 0, 14},           /* mov [0x40000000], eax: #PF, write, user */
        {"\x8b\x04\x25\x00\x00\x00\x40", 7, 14, 4, 0, 14},           /* mov eax, [0x40000000]: #PF, user */
        {"\xb8\x40\x00\x00\x00\x8e\xd8", 7, 13, 0x40, 0, 13},        /* mov ds, 0x40 (past the GDT): #GP(0x40) */
        {"\xcd\x80", 2, 0x80, 0, 1, -1},                             /* int 0x80 */
        {"\xfa", 1, 13, 0, 0, 13},                                   /* cli: #GP(0) */
    };
    int good = 1;
    for (int i = 0; i < 5; i++)
        good &= provoke(c, clean, faults[i].code, faults[i].size, w[i], n) == faults[i].vector;
    size_t found[3] = {0, 0, 0}, hits[3] = {0, 0, 0};
    for (size_t k = 0; good && k < n; k++) {
        int error = 1, software = 1, pending = 1;
        for (int i = 0; i < 5; i++) {
            error &= i == 3 || w[i][k] == faults[i].error;
            software &= (w[i][k] != 0) == faults[i].software && (w[i][k] == 0 || w[i][k] == 1);
            pending &= i == 3 || w[i][k] == faults[i].pending;
        }
        if (error) found[0] = k * 4, hits[0]++;
        /* the mark lies directly behind the error code in every build seen */
        if (software && hits[0] && k * 4 == found[0] + 4) found[1] = k * 4, hits[1]++;
        if (pending && w[3][k] == -1) found[2] = k * 4, hits[2]++;
    }
    for (int i = 0; i < 5; i++)
        free(w[i]);
    good = good && find_modes(c, clean, found[0] / 4); /* what lies behind the error code is no part of the mode */
    c->at_error_code = found[0], c->at_is_software = found[1], c->at_old_exception = found[2];
    lib.uc_context_restore(c->uc, initial);
    lib.uc_context_free(initial);
    lib.uc_context_free(clean);
    lib.uc_hook_del(c->uc, interrupt);
    lib.uc_mem_unmap(c->uc, 0, 0x200000);
    return good && hits[0] == 1 && hits[1] == 1 && hits[2] == 1;
}

