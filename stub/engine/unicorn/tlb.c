/* Dropping from the TLB what is wrong, and nothing else (the law: _core.c).
 *
 * libunicorn answers a new CR3 and an asked-for flush by dropping every translation, and the guest then pays for
 * hundreds of page walks. What a flush promises is only that afterwards the TLB agrees with the page tables. So each
 * translation that goes into the TLB is noted here with the leaf entry that it rests on; at a flush each is walked
 * again, and only the pages that no longer come out the same are dropped. Where many do, all are. */
#include "core.h"

/* As in stub/memory/walk.h, which is not the engine's to know. */
enum { PRESENT = 1, RIGHTS = PRESENT | 2 | 4 /* P, RW, US: what every level must grant */, MANY_WRONG = 24 };
#define ADDRESS_BITS 0x000ffffffffff000ULL
#define NO_EXECUTE (1ULL << 63)

/* The lowest table on the way to a region of 2 MiB, and what the levels above it grant. `table` 0: there is none. */
typedef struct {
    uint64_t region, table, all, any;
} Way;

static void find_way(const Core *c, uint64_t root, uint64_t page, Way *way)
{
    const uint64_t *words = c->ram.buf;
    uint64_t table = root & ADDRESS_BITS;
    *way = (Way){page >> 21, 0, RIGHTS, 0};
    for (int shift = 39; shift > 12; shift -= 9) {
        uint64_t at = table + (page >> shift & 511) * 8;
        if (at >= (uint64_t)c->ram.len || !(words[at >> 3] & PRESENT))
            return;
        way->all &= words[at >> 3];
        way->any |= words[at >> 3];
        table = words[at >> 3] & ADDRESS_BITS;
    }
    if (table < (uint64_t)c->ram.len)
        way->table = table;
}

/* The leaf entry that translates `page` and the rights that it comes with; 0 where there is none. */
static uint64_t leaf_of(const Core *c, const Way *way, uint64_t page, uint64_t *rights)
{
    const uint64_t *words = c->ram.buf;
    uint64_t leaf = way->table ? words[(way->table >> 3) + (page >> 12 & 511)] : 0;
    *rights = (way->all & leaf & RIGHTS) | ((way->any | leaf) & NO_EXECUTE);
    return leaf & PRESENT ? leaf : 0;
}

/* Where the index names the translation of `page`, or would. */
static uint16_t *place_of(Core *c, uint64_t page)
{
    size_t i = (page >> 12) * 0x9E3779B97F4A7C15ULL >> 53; /* 11 bits: N_PLACES */
    while (c->places[i] && c->translations[c->places[i] - 1].page != page)
        i = (i + 1) % N_PLACES;
    return &c->places[i];
}

/* What is noted may no longer be there. */
void forget_translations(Core *c)
{
    memset(c->places, 0, sizeof c->places);
    c->n_translations = 0;
}

static void drop_all(Core *c, void *cpu)
{
    forget_translations(c);
    own.flush(cpu);
}

/* A page goes into the TLB. */
void note_translation(Core *c, void *cpu, uint64_t page)
{
    page &= ~0xfffULL;
    if (c->n_translations == NOT_ALL)
        return;
    if (c->n_translations == N_TRANSLATIONS)
        drop_all(c, cpu);
    uint16_t *place = place_of(c, page);
    if (!*place)
        *place = (uint16_t)++c->n_translations;
    Translation *t = &c->translations[*place - 1];
    Way way;
    find_way(c, c->root, page, &way);
    *t = (Translation){.page = page};
    t->leaf = leaf_of(c, &way, page, &t->rights);
    if (!t->leaf) /* it rests on something else */
        c->n_translations = NOT_ALL;
}

/* Drops the pages that `root` translates otherwise; 0 where all have to go. */
static int drop_wrong(Core *c, void *cpu, uint64_t root)
{
    Way ways[16];
    int wrong = 0;
    if (c->n_translations == NOT_ALL || !own.drop_page)
        return 0;
    for (int i = 0; i < 16; i++)
        ways[i].region = ~0ULL;
    for (unsigned i = 0; i < c->n_translations; i++) {
        Translation *t = &c->translations[i];
        Way *way = &ways[(t->page >> 21 ^ t->page >> 30) & 15];
        uint64_t rights;
        if (!t->leaf)
            continue;
        if (way->region != t->page >> 21)
            find_way(c, root, t->page, way);
        if (leaf_of(c, way, t->page, &rights) == t->leaf && rights == t->rights)
            continue;
        if (++wrong > MANY_WRONG)
            return 0;
        t->leaf = 0;
        own.drop_page(cpu, t->page);
    }
    return 1;
}

/* The machine address behind a virtual one under the tables in use; NOWHERE without one. */
uint64_t machine_address(const Core *c, uint64_t address)
{
    Way way;
    uint64_t rights;
    find_way(c, c->root, address, &way);
    const uint64_t leaf = leaf_of(c, &way, address, &rights);
    return leaf ? (leaf & ADDRESS_BITS) | (address & 0xfff) : NOWHERE;
}

EXPORT void tlb_flush_x86_64(void *cpu)
{
    Core *c = running;
    if (inside && c->loading_root && drop_wrong(c, cpu, c->root))
        return;
    if (inside)
        drop_all(c, cpu);
    else
        own.flush(cpu);
}

/* A new CR3, or a flush: the TLB agrees with the tables under `root` afterwards. */
void load_root(Core *c, uint64_t root)
{
    c->root = root;
    c->loading_root = 1;
    lib.uc_reg_write(c->uc, UC_X86_REG_CR3, &root);
    c->loading_root = 0;
}

/* What is noted of a page; NULL where it is not in the TLB. */
static Translation *noted(Core *c, uint64_t page)
{
    uint16_t at = *place_of(c, page);
    return at ? &c->translations[at - 1] : NULL;
}

/* The first store to a page goes a slow way, on which translated code is dropped; then the page counts as dirty. After
 * each translation libunicorn looks through its whole TLB for the code's page, to have stores looked at again. */
EXPORT void tlb_set_dirty_x86_64(void *cpu, uint64_t address)
{
    Translation *t = inside ? noted(running, address & ~0xfffULL) : NULL;
    if (t)
        t->dirty = 1;
    own.set_dirty(cpu, address);
}

EXPORT void tlb_reset_dirty_by_vaddr_x86_64(void *cpu, uint64_t start, uint64_t length)
{
    int wanted = !inside || running->n_translations == NOT_ALL;
    for (uint64_t i = 0; !wanted && i <= ((start & 0xfff) + length - 1) >> 12; i++) { /* not by end: it may wrap */
        Translation *t = noted(running, (start & ~0xfffULL) + (i << 12));
        wanted = t && t->dirty;
        if (t)
            t->dirty = 0;
    }
    if (wanted)
        own.reset_dirty(cpu, start, length);
}
