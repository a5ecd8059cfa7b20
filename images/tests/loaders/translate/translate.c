/* translate: a 32-bit loader's page tables, made into a 64-bit kernel's.

   The bare-metal start of a 64-bit Solaris has it so: the loader runs in 32 bits and makes two levels of tables, 10, 10
   and 12 bits of an address; before the kernel is entered they are translated into four levels, each mapping twice, at
   its own address and reflected into the top 4 GiB, 0x1000 to 0xffffffff00001000. Page 0 is not mapped, the first 16 MiB
   from 0x1000 on are, each at its own physical address.

   What Xen has otherwise than the bare machine: physical addresses are pseudo-physical, the frames in entries machine
   frames; a large page is refused, so there are only small ones; and no table may be mapped writable, the new ones
   neither, so both tables map those read-only. Xen's own slots of the root, 256 to 271, are not in the way: the top
   4 GiB are slot 511. The test's own code lies there, too, 2 GiB up, and is carried along. */
#include "kit.h"

#define SPAN (16ul << 20)
#define TOP 0xffffffff00000000ul
#define PAGES (SPAN / PAGE)
#define MAPPED (P | RW | A | D)

/* Two levels of 32-bit entries. */
#define DIRECTORY_SHIFT 22
#define PER_TABLE 1024u
static u32 *directory;

static u32 *slot_of(u32 address)
{
    u32 *tables = (u32 *)table_at(directory[address >> DIRECTORY_SHIFT] / PAGE);
    return &tables[address / PAGE % PER_TABLE];
}

static int is_table(word pfn)
{
    return (entry(VIRT_BASE + pfn * PAGE, 1) & (P | RW)) == P;
}

/* As a loader has it: the identity, but for page 0. */
static void load(void)
{
    directory = page();
    for (word at = 0; at < SPAN; at += PER_TABLE * PAGE)
        directory[at >> DIRECTORY_SHIFT] = (u32)(address_of(page()) | MAPPED);
    for (word pfn = 1; pfn < PAGES; pfn++)
        *slot_of(pfn * PAGE) = (u32)(frame_address(mfn_of_pfn(pfn)) | (is_table(pfn) ? MAPPED & ~RW : MAPPED));
}

/* Four levels. Tables are taken while they are ordinary pages, and filled before Xen looks at them. */
static u64 *root, *made[64];
static unsigned tables;

static u64 *new_table(void)
{
    return made[tables++] = page();
}

static u64 *look_up(word address)
{
    u64 *at = root;
    for (int level = LEVELS; level > 1; level--) {
        u64 *found = &at[entry_index(address, level)];
        if (!(*found & P))
            *found = address_of(new_table()) | MAPPED;
        at = table_at((*found & ~ENTRY_FLAGS) / PAGE);
    }
    return &at[entry_index(address, 1)];
}

static void translate(void)
{
    root = new_table();
    for (word at = 0; at < SPAN; at += PAGE) {
        const u32 mapped = *slot_of(at);
        if (mapped & P)
            *look_up(at) = *look_up(TOP + at) = mapped;
    }
    for (unsigned i = 0; i < tables; i++) { /* in all places in which they are mapped */
        const word at = pfn_of(made[i]) * PAGE;
        if (at < SPAN) {
            *slot_of(at) &= ~RW;
            *look_up(at) &= ~RW;
            *look_up(TOP + at) &= ~RW;
        }
    }
    for (unsigned i = 0; i < tables; i++)
        MUST(read_only(made[i]));
}

/* The test's own half of the top 4 GiB, by the tables that it was started with. */
static void carry_along(void)
{
    u64 *third = table_at((root[entry_index(TOP, 4)] & ~ENTRY_FLAGS) / PAGE);
    writable(third);
    for (int slot = entry_index(VIRT_BASE, 3); slot < ENTRIES; slot++)
        third[slot] = entry(VIRT_BASE + ((word)(slot - entry_index(VIRT_BASE, 3)) << LEVEL_SHIFT(3)), 3);
    MUST(read_only(third));
}

VARIATION(mirror, "two levels become four, mirrored into the top 4 GiB; page 0 is in neither")
{
    u32 *spot = page();
    const word low = pfn_of(spot) * PAGE;
    load();
    translate();
    say("translated: two levels at 0x%llx, four at 0x%llx\n", address_of(directory), address_of(root));
    hypercall(SCHED_OP, SCHED_yield); /* here the harness looks at the tables */
    carry_along();
    const struct mmuext_op entered[] = {
        {.cmd = PIN_L4_TABLE, .arg1 = mfn_of(root)},
        {.cmd = NEW_BASEPTR, .arg1 = mfn_of(root)},
    };
    check_equal(mmuext_op(entered, 2, DOMID_SELF), 0, "Xen takes the new root and runs on it");
    check_equal(root_mfn(), mfn_of(root), "CR3");
    say("entered: four at 0x%llx\n", address_of(root));
    hypercall(SCHED_OP, SCHED_yield);
    *spot = 0x12345678;
    check_equal(*(volatile u32 *)low, 0x12345678, "the low address shows the page");
    check_equal(*(volatile u32 *)(TOP + low), 0x12345678, "so does its twin");
    *(volatile u32 *)(TOP + low) = 1;
    check_equal(*spot, 1, "the twin can be written to");
    check(TRY("mov (%0), %%eax", : : "r"(0ul) : "rax") && fault.vector == PF, "page 0 faults", "trap %u", fault.vector);
    check(TRY("mov (%0), %%eax", : : "r"(TOP) : "rax") && fault.vector == PF, "so does its twin there", "trap %u",
          fault.vector);
    const word table = pfn_of(root) * PAGE;
    check(TRY("mov %%eax, (%0)", : : "r"(TOP + table)) && fault.vector == PF && fault.code == (P | RW),
          "a table's twin is read-only", "trap %u, code %lx", fault.vector, fault.code);
}

VARIATION(large, "what the bare machine has and Xen refuses: a large page, and a table that can be written to")
{
    load();
    translate();
    u64 *second = table_at((*table_at((root[0] & ~ENTRY_FLAGS) / PAGE) & ~ENTRY_FLAGS) / PAGE);
    const u64 small = second[1];
    MUST(writable(second));
    second[1] = frame_address(mfn_of_pfn(512)) | MAPPED | PSE;
    MUST(read_only(second));
    REFUSED("a page of 2 MiB", EINVAL, mmuext(PIN_L4_TABLE, mfn_of(root), 0));
    MUST(writable(second));
    second[1] = small;
    MUST(read_only(second));
    u64 *first = table_at((second[0] & ~ENTRY_FLAGS) / PAGE);
    const word at = entry_index(pfn_of(second) * PAGE, 1);
    MUST(writable(first));
    first[at] |= RW;
    MUST(read_only(first));
    check(pfn_of(second) < 512, "the table lies in the first 2 MiB", "pfn %lu", pfn_of(second));
    REFUSED("a table mapped writable", EBUSY, mmuext(PIN_L4_TABLE, mfn_of(root), 0));
}
