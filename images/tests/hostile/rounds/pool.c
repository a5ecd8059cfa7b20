/* The frames and tables that the guest owns, and what it draws from them: frames, entries, addresses, pointers. */
#include "hostile.h"

enum { MOST_TABLES = 24, MOST_FRAMES = 1 << 16, FIRST_AREA = 1 };
struct table {
    u64 *at;
    word mfn, address; /* the first address that it maps */
    int level;
};

u8 *pool, *arena, *arena_end, *scratch, *code_page, *info_page;
word pool_mfn[POOL], root_home, root_clone, info_mfn, window, *window_page;
struct target target;

static u64 state;
static struct table tables[MOST_TABLES]; /* the kernel's own, of the start of day */
static unsigned tables_count;
static word spares[SPARES], grant_frame, lost_frame;
static u8 is_vital[MOST_FRAMES / 8], *store_ring;
static u8 *grants;
struct mapping mappings[MAPPINGS];

/* -- chance (xorshift64*) */

void seed_chance(u64 seed)
{
    state = (seed + 1) * 0x9e3779b97f4a7c15;
}

u64 any(void)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1d;
}

u64 stray(void)
{
    u64 value = any();
    if (below(2))
        value >>= below(64);
    return BITS == 32 && (value >> 30 & 3) == 3 ? value ^ 1 << 30 : value;
}

word below(word limit)
{
    return (any() >> 32) * limit >> 32;
}

/* -- at the start */

int habit(word page)
{
    const int level = page < 14 ? 1 : page < 20 ? 2 : page < 23 ? 3 : page < 25 ? 4 : 0;
    return level < LEVELS ? level : LEVELS * (level > 0);
}

int habit_page(int level)
{
    static const u8 first[] = {25, 0, 14, 20, 23}, count[] = {POOL - 25, 14, 6, BITS == 64 ? 3 : 5, 2};
    return first[level] + below(count[level]);
}

static u8 *pages(unsigned count)
{
    u8 *first = page();
    for (unsigned i = 1; i < count; i++)
        if ((u8 *)page() != first + i * PAGE)
            broken("the pages are not in a row");
    return first;
}

static void note_tables(word mfn, int level, word address)
{
    u64 *at = table_at(mfn);
    if (tables_count == MOST_TABLES)
        broken("more tables than expected");
    tables[tables_count++] = (struct table){at, mfn, address, level};
    for (int i = 0; i < ENTRIES; i++) {
        word next = (at[i] & ~ENTRY_FLAGS) / PAGE, from = address + ((word)i << LEVEL_SHIFT(level));
        if (!(at[i] & P) || (level == LEVELS && i != entry_index(VIRT_BASE, LEVELS)) || !own_frame(next))
            continue;
        if (level > 1)
            note_tables(next, level - 1, level == LEVELS ? from | SIGN : from);
        else
            is_vital[next / 8] |= 1 << next % 8;
    }
}

static int vital(word mfn)
{
    return mfn < MOST_FRAMES && is_vital[mfn / 8] >> mfn % 8 & 1;
}

void write_grant(word number, u16 flags, u16 domid, word frame)
{
    struct { u16 dom, pad; u32 version; } get = {DOMID_SELF, 0, 1};
    hypercall(GRANT_TABLE_OP, 10, &get, 1);
    u8 *entry = grants + number * (get.version == 2 ? 16 : 8);
    *(u32 *)(entry + 4) = get.version == 2 ? any() : frame;
    if (get.version == 2)
        *(u64 *)(entry + 8) = frame;
    *(u16 *)(entry + 2) = domid;
    *(u16 *)entry = flags; /* 1 permit_access, 2 accept_transfer; 4 read-only */
}

/* An area as large as lists can be long, all of it one page. */
static void make_window(void)
{
    u64 *tables[LEVELS];
    window_page = page();
    u64 below = address_of(window_page) | DATA;
    for (int level = 1; level < LEVELS; level++) {
        tables[level] = page();
        for (int i = 0; i < ENTRIES; i++)
            tables[level][i] = below;
        MUST(read_only(tables[level]));
        below = address_of(tables[level]) | TABLE;
    }
    window = ROOT_AREA(0);
    MUST(update(entry_address(window, LEVELS), below));
}

static void make_grants(void)
{
    word frame;
    struct { u16 domid, pad; u32 frames; short status; word list; } setup = {DOMID_SELF, 0, 1, 0, (word)&frame};
    MUST(hypercall(GRANT_TABLE_OP, 2, &setup, 1));
    grants = page();
    MUST(map((word)grants, frame_address(frame) | DATA));
    grant_frame = frame;
}

/* Another root with the kernel. What is in the last entry of one of PAE must be in no other. */
static void clone_root(void)
{
    u64 *clone = page(), kernel = entry(VIRT_BASE, LEVELS);
    if (BITS == 32) {
        u64 *copy = page(), *from = table_at((kernel & ~ENTRY_FLAGS) / PAGE);
        for (int i = 0; i < entry_index(HOLE, LEVELS - 1); i++)
            copy[i] = from[i];
        MUST(read_only(copy));
        kernel = address_of(copy) | TABLE;
    }
    clone[entry_index(VIRT_BASE, LEVELS)] = kernel;
    root_clone = mfn_of(clone);
    MUST(read_only(clone));
    MUST(mmuext(PIN_ROOT, root_clone, 0));
}

void make_pool(void)
{
    make_user();
    scratch = pages(3);
    info_page = page();
    code_page = page();
    info_mfn = mfn_of(info_page);
    pages(1);
    pool = pages(POOL);
    arena = pages(ARENA_PAGES + 2) + PAGE;
    arena_end = arena + ARENA_PAGES * PAGE;
    root_home = root_mfn();
    make_window();
    clone_root();
    for (unsigned i = 0; i < POOL; i++)
        pool_mfn[i] = mfn_of(pool + i * PAGE);
    for (unsigned i = 0; i < SPARES; i++)
        spares[i] = mfn_of_pfn(spare_pfn());
    lost_frame = freed_frame();
    store_ring = (u8 *)table_at(start_info->store_mfn);
    note_tables(root_home, LEVELS, 0);
    make_grants();
    MUST(update(entry_address(USER_PIECE, 1), address_of(code_page) | USER_CODE_FLAGS));
    static const int holes[] = {-1, POOL, POOL + ARENA_PAGES + 1};
    for (unsigned i = 0; i < sizeof holes / sizeof *holes; i++)
        MUST(unmap(pool + holes[i] * (sword)PAGE));
    for (unsigned i = 0; i < POOL; i++)
        is_vital[pool_mfn[i] / 8] &= ~(1 << pool_mfn[i] % 8);
}

/* -- now and then */

static void new_frame(unsigned i)
{
    word pfn = pfn_of(pool) + i;
    struct memory_reservation wanted = {.extent_start = &pfn, .nr_extents = 1, .domid = DOMID_SELF};
    if (memory_op(XENMEM_populate_physmap, &wanted) == 1)
        pool_mfn[i] = pfn;
}

static void unmap_grants(void)
{
    for (unsigned i = 0; i < MAPPINGS; i++) {
        struct { u64 address, bus; u32 handle, status; } unmap = {mappings[i].address, 0, mappings[i].handle, 0};
        hypercall(GRANT_TABLE_OP, 1, &unmap, 1);
    }
    u32 version = 1 + below(2);
    hypercall(GRANT_TABLE_OP, 8, &version, 1);
}

void tidy(void)
{
    static struct mmu_update clear[AREAS];
    static const u8 writable_pagetables = 2;
    for (unsigned i = 0; i < AREAS; i++)
        clear[i].ptr = frame_address(root_home) + 8 * entry_index(ROOT_AREA(FIRST_AREA + i), LEVELS);
    mmu_update(clear, AREAS, DOMID_SELF);
    hypercall(VM_ASSIST, 0, writable_pagetables);
    hypercall(SET_DEBUGREG, 7, 0);
    mmuext(NEW_BASEPTR, root_home, 0);
    unmap_grants();
    hypercall(SET_GDT, 0, 0);
    mmuext(SET_LDT, 0, 0);
    for (unsigned i = 0; i < POOL; i++)
        mmuext(UNPIN_TABLE, pool_mfn[i], 0);
    for (unsigned i = 0; i < POOL; i++) {
        word at = (word)pool + i * PAGE;
        if (map(at, frame_address(pool_mfn[i]) | DATA)) {
            new_frame(i);
            map(at, frame_address(pool_mfn[i]) | DATA);
        }
        write_grant(8 + i, i % 8 == 7 ? 2 : 1 | (i % 4 == 3) << 2, OWN_DOMAIN, pool_mfn[i]);
        if (habit(i)) {
            mmuext(CLEAR_PAGE, pool_mfn[i], 0);
            map(at, frame_address(pool_mfn[i]) | DATA_RO);
            if (below(2))
                mmuext(PIN_L1_TABLE + habit(i) - 1, pool_mfn[i], 0);
        }
    }
}

/* -- frames */

static word odd_frame(void)
{
    const word odd[] = {
        0, max_mfn, max_mfn - 1, NO_RAM, (word)INVALID_FRAME, ~0ul, 1ul << 31, (word)(1ull << 40), lost_frame, grant_frame,
        start_info->store_mfn, start_info->shared_info / PAGE, below(max_mfn), below(max_mfn), (word)any() & (word)0xffffffffff,
    };
    word mfn = PICK(odd);
    return vital(mfn) ? NO_RAM : mfn;
}

word any_frame(void)
{
    word chance = below(16);
    return chance < 10 ? pool_mfn[below(POOL)]
           : chance < 12 ? spares[below(SPARES)]
           : chance < 13 ? tables[below(tables_count)].mfn
                         : odd_frame();
}

word refused_root(void)
{
    const word roots[] = {root_home, root_clone, tables[1].mfn, tables[2].mfn, NO_RAM, NO_RAM + below(64), ~0ul};
    return roots[below(sizeof roots / sizeof *roots)];
}

/* -- entries */

static u64 refused_entry(int level)
{
    const struct table *table = &tables[below(tables_count)];
    static const u64 flags[] = {PSE, PCD, PWT, G};
    switch (below(3)) {
    case 0:
        return frame_address(level == 1 ? table->mfn : mfn_of(scratch)) | (level == 1 ? DATA : TABLE);
    case 1:
        return frame_address(NO_RAM + below(1 << 20)) | (level == 1 ? DATA : TABLE);
    default:
        return frame_address(pool_mfn[below(POOL)]) | (level == 1 ? DATA | PCD : TABLE | PICK(flags));
    }
}

static word frame_for(int level)
{
    word chance = below(16);
    if (chance < 11)
        return pool_mfn[habit_page(level - 1)];
    if (chance < 13)
        return pool_mfn[below(POOL)];
    if (chance < 14)
        return level == 1 ? spares[below(SPARES)] : level == 2 ? root_home : tables[tables_count - 1].mfn;
    return level == 1 && chance < 15 ? mfn_of(scratch) : odd_frame();
}

u64 entry_value(void)
{
    static const u64 leaf[] = {DATA, DATA, DATA, DATA_RO, DATA_RO, P | RW | US, P | US, P | RW, P, DATA | NX, DATA | G};
    static const u64 upper[] = {TABLE, TABLE, TABLE, TABLE, TABLE_RO, TABLE_RO, P | RW, P | US, TABLE | NX};
    if (target.vital)
        return refused_entry(target.level);
    if (one_in(10))
        return 0;
    word mfn = frame_for(target.level);
    u64 flags = target.level == 1 ? PICK(leaf) : PICK(upper);
    if (one_in(12))
        flags = any() & 0xfff;
    if (one_in(24))
        flags |= any() & ENTRY_FLAGS;
    if (vital(mfn)) /* to be seen, not to be written */
        flags = P | US;
    return frame_address(mfn & (word)0xffffffffff) | flags;
}

static word slot(void)
{
    return below(4) ? below(6) : below(ENTRIES);
}

static int is_vital_slot(const struct table *table, word slot)
{
    word address = table->address + (slot << LEVEL_SHIFT(table->level));
    if (table->level == LEVELS)
        return slot == (word)entry_index(VIRT_BASE, LEVELS) || slot == (word)entry_index(window, LEVELS) ||
               (BITS == 32 && slot == (word)entry_index(USER_CODE, LEVELS)); /* in the kernel's root, and no other */
    if (table->level > 1)
        return (table->at[slot] & P) != 0;
    if (address >= (word)pool - PAGE && address <= (word)arena_end) /* the holes too */
        return address < (word)pool || address >= (word)pool + POOL * PAGE;
    return (table->at[slot] & P) != 0;
}

/* An entry of the kernel's own tables, or of one of its areas. */
static const struct table *own_entry(word *slot)
{
    const struct table *table = &tables[below(3) ? 0 : below(tables_count)];
    if (table == tables && below(4))
        *slot = entry_index(ROOT_AREA(FIRST_AREA + below(AREAS)), LEVELS);
    else
        *slot = below(ENTRIES);
    target = (struct target){table->level, is_vital_slot(table, *slot)};
    return table;
}

u64 entry_target(void)
{
    word chance = below(16), at = slot();
    if (chance < 11) {
        word page = below(25) ? below(25) : below(POOL);
        target = (struct target){habit(page) ? habit(page) : 1, 0};
        return frame_address(pool_mfn[page]) + 8 * at;
    }
    if (chance < 14) {
        const struct table *table = own_entry(&at);
        return frame_address(table->mfn) + 8 * at;
    }
    target = (struct target){1 + below(LEVELS), 0};
    word mfn = odd_frame();
    return frame_address(mfn == start_info->shared_info / PAGE ? NO_RAM : mfn) + 8 * at;
}

u64 *table_target(void)
{
    word at = slot();
    if (below(3)) {
        word page = habit_page(1 + below(LEVELS));
        target = (struct target){habit(page), 0};
        return (u64 *)(pool + page * PAGE) + at;
    }
    const struct table *table = own_entry(&at);
    return table->at + at;
}

/* -- addresses */

static word area_address(void)
{
    word address = ROOT_AREA(FIRST_AREA + below(AREAS));
    for (int level = LEVELS - 1; level; level--)
        address += slot() << LEVEL_SHIFT(level);
    return address;
}

word pool_address(void)
{
    word offset = below(2) ? below(PAGE) & -8ul : below(4) ? below(PAGE) : PAGE - 1 - below(16);
    return (below(3) ? (word)pool + below(POOL) * PAGE : area_address()) + offset;
}

word address_target(void)
{
    target = (struct target){1, 0};
    if (below(8))
        return pool_address();
    target.vital = 1;
    return below(2) ? (word)&target & -PAGE : (word)address_target & -PAGE;
}

word unreadable(void)
{
    const word bad[] = {0, 1, NO_ADDRESS, NO_ADDRESS - 8, ~0ul, -8ul, -4096ul, HOLE_END - 16, HOLE_END - 8,
                        BEHIND_M2P, 0x12345678, (word)pool - 4, (word)arena_end, NO_ADDRESS + below(1 << 20)};
    return PICK(bad);
}

word table_pointer(void)
{
    return (word)tables[below(tables_count)].at + below(PAGE);
}

word pointer(void)
{
    const word bad[] = {HOLE, HOLE + 8 * below(max_mfn), USER_CODE, (word)store_ring + below(PAGE), stray(),
                        stray() & 0xffffffff, unreadable(), unreadable(), unreadable()};
    word chance = below(16);
    return chance < 6    ? (word)scratch + (below(PAGE) & -8ul)
           : chance < 7  ? (word)pool - PAGE - below(64) /* up to the hole */
           : chance < 12 ? pool_address()
                         : PICK(bad);
}
