/* Pages, page tables, and the comparison that a refusal has to stand. */
#include "kit.h"
#include "parts.h"

#define PROBE TEST_AREA(0) /* where watched pages are tried; the kit's own */
#define MOST_PAGES (1 << 15)

static word next_page = 1, last_spare;

/* -- pages */

void pages_start(void)
{
    last_spare = start_info->nr_pages;
}

void *page(void)
{
    if (next_page == pfn_of(VIRT_BASE + 0x100000)) /* the kernel begins; behind the boot stack there is more */
        next_page = pfn_of(*(word *)boot_stack_top);
    word address = VIRT_BASE + next_page * PAGE;
    if (next_page >= start_info->nr_pages || !(entry(address, 1) & P))
        broken("no page is left");
    next_page++;
    return memset((void *)address, 0, PAGE);
}

word spare_pfn(void)
{
    if (entry(VIRT_BASE + (last_spare - 1) * PAGE, 1) & P)
        broken("no spare page is left");
    return --last_spare;
}

word mfn_of(const void *page)
{
    return mfn_of_pfn(pfn_of(page));
}

void set_mfn(word pfn, word mfn)
{
    ((word *)start_info->mfn_list)[pfn] = mfn;
}

word freed_frame(void)
{
    static word freed;
    if (!freed || own_frame(freed)) { /* an allocation may have handed it out again */
        word pfn = spare_pfn(), mfn = mfn_of_pfn(pfn);
        struct memory_reservation list = {.extent_start = &mfn, .nr_extents = 1, .domid = DOMID_SELF};
        if (memory_op(XENMEM_decrease_reservation, &list) != 1)
            broken("a frame cannot be given back");
        set_mfn(pfn, ~0ul);
        freed = mfn;
    }
    return freed;
}

static sword remap(const void *page, u64 flags)
{
    return map((word)page & -PAGE, flags ? frame_address(mfn_of(page)) | flags : 0);
}

sword read_only(const void *page)
{
    return remap(page, DATA_RO);
}

sword writable(const void *page)
{
    return remap(page, DATA);
}

sword unmap(const void *page)
{
    return remap(page, 0);
}

void *table(void)
{
    void *made = page();
    MUST(read_only(made));
    return made;
}

/* -- page tables */

int own_frame(word mfn)
{
    return mfn < max_mfn && M2P[mfn] < start_info->nr_pages && mfn_of_pfn(M2P[mfn]) == mfn;
}

word root_mfn(void)
{
    return read_cr3() / PAGE;
}

u64 *table_at(word mfn)
{
    return (u64 *)(VIRT_BASE + M2P[mfn] * PAGE);
}

static u64 *place_of(word address, int level, u64 *machine)
{
    word mfn = root_mfn();
    for (int at = LEVELS;; at--) {
        u64 *place = table_at(mfn) + entry_index(address, at);
        if (at == level) {
            *machine = frame_address(mfn) + 8 * entry_index(address, at);
            return place;
        }
        if (!(*place & P))
            return 0;
        mfn = (*place & ~ENTRY_FLAGS) / PAGE;
    }
}

u64 entry_address(word address, int level)
{
    u64 machine = 0;
    place_of(address, level, &machine);
    return machine;
}

u64 entry(word address, int level)
{
    u64 machine, *place = place_of(address, level, &machine);
    return place ? *(volatile u64 *)place : 0;
}

void make_path(word address)
{
    for (int level = LEVELS; level > 1; level--)
        if (!(entry(address, level) & P))
            MUST(update(entry_address(address, level), address_of(table()) | TABLE));
}

/* -- what a refusal leaves as it was */

struct state {
    u64 tables, numbers, content;
    sword size, types[16];
};
static struct state before;
static word pages_then, spares_then; /* what was handed out when a comparison began: the M2P of those pages counts */
static const void *watched[16];
static unsigned watching;

static u64 mix(u64 hash, u64 value)
{
    return (hash ^ value) * 0x9e3779b97f4a7c15 + (hash >> 29);
}

static u64 hash_tables(word mfn, int level, u64 hash, u8 *visited)
{
    word pfn = M2P[mfn];
    const volatile u64 *at = table_at(mfn);
    if (pfn / 8 >= MOST_PAGES / 8 || visited[pfn / 8] >> pfn % 8 & 1)
        return hash;
    visited[pfn / 8] |= 1 << pfn % 8;
    for (int i = 0; i < ENTRIES; i++) {
        if (XENS_PART(level, i))
            continue;
        u64 value = at[i] & ~(u64)(A | D); /* the CPU's to set */
        if (!value)
            continue;
        hash = mix(mix(hash, value), i);
        word next = (value & ~ENTRY_FLAGS) / PAGE;
        if (level > 1 && value & P && own_frame(next))
            hash = hash_tables(next, level - 1, hash, visited);
    }
    return hash;
}

static void take_state(struct state *state)
{
    static u8 visited[MOST_PAGES / 8];
    memset(visited, 0, sizeof visited);
    state->tables = hash_tables(root_mfn(), LEVELS, 1, visited);
    state->numbers = state->content = 1;
    for (word pfn = 0; pfn < start_info->nr_pages; pfn = pfn + 1 == pages_then ? spares_then : pfn + 1)
        if (mfn_of_pfn(pfn) < max_mfn)
            state->numbers = mix(state->numbers, M2P[mfn_of_pfn(pfn)]);
    for (unsigned i = 0; i < watching; i++) {
        for (int j = 0; j < ENTRIES; j++)
            state->content = mix(state->content, ((const volatile u64 *)watched[i])[j]);
        state->types[i] = map(PROBE, address_of(watched[i]) | DATA);
        if (!state->types[i])
            MUST(map(PROBE, 0));
    }
    u16 self = DOMID_SELF;
    state->size = memory_op(XENMEM_current_reservation, &self);
}

void watch(const void *page)
{
    if (watching == sizeof watched / sizeof *watched)
        broken("too many pages are watched");
    make_path(PROBE);
    watched[watching++] = page;
}

void audit_before(void)
{
    pages_then = next_page;
    spares_then = last_spare;
    take_state(&before);
    done = UNTOUCHED;
}

/* What is not as it was; 0: nothing. */
static const char *changed(void)
{
    static struct state after;
    take_state(&after);
    for (unsigned i = 0; i < watching; i++)
        if (after.types[i] != before.types[i])
            return "a watched page's type";
    return after.tables != before.tables     ? "a page table"
           : after.size != before.size       ? "the reservation's size"
           : after.numbers != before.numbers ? "the M2P"
           : after.content != before.content ? "a watched page"
                                             : 0;
}

void audit_after(const char *name, sword wanted, sword got, int counted, u32 count)
{
    u32 reached = done;
    const char *what = changed();
    int right_count = counted ? reached == count : reached == UNTOUCHED || reached == 0;
    if (got != wanted)
        check(0, name, "%ld instead of %ld%s%s", got, wanted, what ? ", and this changed: " : "", what ? what : "");
    else if (what)
        check(0, name, "%ld as it should be, but %s changed", got, what);
    else
        check(right_count, name, "%ld as it should be, but a count of %u instead of %u", got, reached, count);
}

void audit_after_trap(const char *name, int taken, unsigned vector, word code, word cr2)
{
    const char *what = changed();
    if (!taken)
        check(0, name, "no trap%s%s", what ? ", and this changed: " : "", what ? what : "");
    else if (fault.vector != vector || fault.code != code || (vector == PF && fault.cr2 != cr2))
        check(0, name, "trap %u, code %lx, CR2 %p instead of %u, %lx, %p", fault.vector, fault.code,
              (void *)fault.cr2, vector, code, (void *)cr2);
    else if (fault.frame.rip != fault.at)
        check(0, name, "the trap is at %p, the instruction at %p", (void *)fault.frame.rip, (void *)fault.at);
    else
        check(!what, name, "the trap is as it should be, but %s changed", what);
}

void check_untyped(void *page, const char *name)
{
    MUST(read_only(page));
    sword result = mmuext(PIN_L1_TABLE, mfn_of(page), 0);
    check_equal(result, 0, name);
    if (!result)
        MUST(mmuext(UNPIN_TABLE, mfn_of(page), 0));
    MUST(writable(page));
}

void check_single_reference(void *page, const char *name)
{
    word pfn = pfn_of(page), mfn = mfn_of(page), got = pfn;
    struct memory_exchange exchange = {
        .in = {.extent_start = &mfn, .nr_extents = 1, .domid = DOMID_SELF},
        .out = {.extent_start = &got, .nr_extents = 1, .domid = DOMID_SELF},
    };
    MUST(unmap(page));
    sword result = memory_op(XENMEM_exchange, &exchange);
    if (!result)
        set_mfn(pfn, got);
    check_equal(result, 0, name);
    MUST(writable(page));
}
