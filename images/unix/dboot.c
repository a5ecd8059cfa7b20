/* The start-up code ("dboot"): the only part that runs where it is linked when the domain begins. It reads the command
 * line, makes page tables of its own, switches to them, maps the kernel where that is linked, and jumps to it. */
#include "common.c"

#define VIRT_BASE 0x40000000ul
#define SCRATCH (512ul << 10) /* that much is free behind the boot stack, Xen's builder promises */

static struct handover handover;
static const word *mfn_list;      /* PFN to MFN, ours */
static const M2P_ENTRY *m2p;      /* MFN to PFN, Xen's */
static word next_free, free_end;  /* pages for tables, by address */
static word root;                 /* the address of our root table */
static int prom_debug, kbm_debug;

#define PFN_OF(address) (((word)(address) - VIRT_BASE) / PAGE)
#define ADDRESS_OF(pfn) (VIRT_BASE + (pfn) * PAGE)
static u64 machine_address(word address)
{
    return (u64)mfn_list[PFN_OF(address)] * PAGE + address % PAGE;
}

static void panic(const char *what, word number)
{
    print("dboot panic: %s: 0x%x\n", what, number);
    end(3 /* SHUTDOWN_crash */);
}

/* -- the command line: key=value words become xpv- properties, the first other word is the boot-file, -B has more */

static void add_property(const char *prefix, const char *name, unsigned n, const char *value, unsigned v)
{
    if (boot->n_properties == MOST_PROPERTIES)
        return;
    struct property *p = &boot->properties[boot->n_properties++];
    unsigned at = 0;
    for (; *prefix; prefix++)
        p->name[at++] = *prefix;
    for (unsigned i = 0; i < n && at < sizeof p->name - 1; i++)
        p->name[at++] = name[i];
    for (unsigned i = 0; i < v && i < sizeof p->value - 1; i++)
        p->value[i] = value[i];
}

static unsigned until(const char *text, const char *ends)
{
    unsigned n = 0;
    for (; text[n]; n++)
        for (const char *end = ends; *end; end++)
            if (text[n] == *end)
                return n;
    return n;
}

static void add_option(const char *prefix, const char *text, unsigned size)
{
    unsigned equals = until(text, "= ,");
    if (equals < size && text[equals] == '=')
        add_property(prefix, text, equals, text + equals + 1, size - equals - 1);
}

static void read_command_line(const char *text)
{
    int seen_file = 0, options = 0;
    while (*text) {
        const unsigned size = until(text, " ");
        if (options) {
            for (unsigned at = 0; at < size;) {
                const unsigned part = until(text + at, ", ");
                add_option("", text + at, part);
                at += part + 1;
            }
            options = 0;
        } else if (size == 2 && text[0] == '-' && text[1] == 'B') {
            options = 1;
        } else if (size && !seen_file && until(text, "= ") < size) {
            add_option("xpv-", text, size);
        } else if (size && !seen_file) {
            add_property("", "boot-file", 9, text, size);
            seen_file = 1;
        }
        text += size + (text[size] == ' ');
    }
}

/* -- tables, while they are ordinary pages */

static word new_page(void)
{
    if (next_free == free_end)
        panic("no page is left for tables, from", free_end);
    const word at = next_free;
    next_free += PAGE;
    for (u64 *p = (u64 *)at; p < (u64 *)(at + PAGE); p++)
        *p = 0;
    boot->tables++;
    return at;
}

static u64 *entry_of(word table, word address, int level)
{
    return (u64 *)table + (address >> LEVEL_SHIFT(level) & (ENTRIES - 1));
}

static word table_behind(u64 entry)
{
    return ADDRESS_OF((word)m2p[(entry & FRAME) / PAGE]);
}

/* The window on low memory that Xen's builder made, once more: VIRT_BASE is PFN 0. */
static void make_window(word pages)
{
    root = new_page();
    for (int slot = 0; slot < ROOT_SLOTS; slot++)
        ((u64 *)root)[slot] = machine_address(new_page()) | PRESENT;
    for (word pfn = 0; pfn < pages; pfn++) {
        const word address = ADDRESS_OF(pfn);
        word table = root;
        for (int level = LEVELS; level > 1; level--) {
            u64 *entry = entry_of(table, address, level);
            if (!*entry)
                *entry = machine_address(new_page()) | PRESENT | WRITABLE | USER | ACCESSED | DIRTY;
            table = table_behind(*entry);
        }
        *entry_of(table, address, 1) = machine_address(address) | PRESENT | WRITABLE | ACCESSED;
    }
}

static u64 *place_of(word address)
{
    word table = root;
    for (int level = LEVELS; level > 1; level--)
        table = table_behind(*entry_of(table, address, level));
    return entry_of(table, address, 1);
}

static void read_only(word page)
{
    if (update_va_mapping(page, machine_address(page) | PRESENT | ACCESSED))
        panic("a table cannot be made read-only", page);
}

/* No table may be mapped writable, in the old tables or in the new. */
static void close_window(word first_table)
{
    const struct start_info *si = boot->start_info;
    const word old = si->pt_base, old_end = old + si->nr_pt_frames * PAGE;
    for (word page = VIRT_BASE; page < free_end; page += PAGE) {
        if ((page < old || page >= old_end) && (page < first_table || page >= next_free))
            continue;
        *place_of(page) &= ~(u64)WRITABLE;
    }
    for (word page = first_table; page < next_free; page += PAGE)
        read_only(page);
}

static void mmuext(u32 command, word mfn)
{
    struct mmuext_op op = {command, mfn, 0};
    if (hypercall(HC_mmuext_op, (word)&op, 1, 0, DOMID_SELF))
        panic("mmuext_op is refused", command);
}

/* -- mappings, on our own tables: what fails for want of a table is made one, and tried again */

static void add_table(word address)
{
    word table = root;
    int level = LEVELS;
    for (; level > 1; level--) {
        const u64 entry = *entry_of(table, address, level);
        if (!(entry & PRESENT))
            break;
        table = table_behind(entry);
    }
    if (level == 1)
        panic("a mapping is refused though its table is there", address);
    const word page = new_page();
    read_only(page);
    struct mmu_update update = {
        machine_address((word)entry_of(table, address, level)),
        machine_address(page) | PRESENT | WRITABLE | USER | ACCESSED | DIRTY,
    };
    if (hypercall(HC_mmu_update, (word)&update, 1, 0, DOMID_SELF))
        panic("a table is refused", address);
    if (kbm_debug)
        print("kbm: table of level %d for 0x%x at 0x%x\n", (word)(level - 1), address, page);
}

static void map(word address, u64 entry)
{
    long rc;
    while ((rc = update_va_mapping(address, entry)) == -EINVAL) {
        boot->probes_failed++;
        add_table(address);
    }
    if (rc)
        panic("a mapping is refused", address);
}

static void map_range(const char *what, word start, word end, word pa, u64 rights)
{
    if (kbm_debug)
        print("kbm: map %s 0x%x-0x%x pfn 0x%x %s%s\n", what, start, end, PFN_OF(pa), rights & WRITABLE ? "rw" : "r-",
              rights & NOT_EXECUTABLE ? "-" : "x");
    for (word at = start; at < end; at += PAGE)
        map(at, machine_address(pa + at - start) | rights | PRESENT | ACCESSED);
}

/* -- the way */

static void find_memory(void)
{
    word parameters = 0;
    hypercall(HC_xen_version, XENVER_platform_parameters, (word)&parameters, 0, 0);
    m2p = (const M2P_ENTRY *)parameters;
    next_free = boot->start_info->pt_base + boot->start_info->nr_pt_frames * PAGE + PAGE; /* behind the boot stack */
    free_end = next_free + SCRATCH;
    if (prom_debug) {
        print("dboot: %d pages, mfn list at 0x%x, M2P at 0x%x\n", boot->start_info->nr_pages, (word)mfn_list, (word)m2p);
        print("dboot: scratch 0x%x-0x%x\n", next_free, free_end);
    }
}

static void switch_tables(void)
{
    const word old = mfn_list[PFN_OF(boot->start_info->pt_base)], first = next_free;
    make_window(PFN_OF(free_end));
    close_window(first);
    if (prom_debug)
        print("dboot: window 0x%x-0x%x pfn 0x0 rwx, but old tables 0x%x-0x%x and new from 0x%x\n", VIRT_BASE, free_end,
              boot->start_info->pt_base, boot->start_info->pt_base + boot->start_info->nr_pt_frames * PAGE, first);
    mmuext(PIN_TOP_TABLE, machine_address(root) / PAGE);
    mmuext(NEW_BASEPTR, machine_address(root) / PAGE);
    mmuext(UNPIN_TABLE, old);
    if (prom_debug)
        print("dboot: root table 0x%x, pfn 0x%x\n", (word)machine_address(root), PFN_OF(root));
}

void dboot_main(struct start_info *si)
{
    boot = &handover;
    boot->start_info = si;
    mfn_list = (const word *)si->mfn_list;
    boot->ring = 0;
    for (word pfn = 0; !boot->ring; pfn++)
        if (mfn_list[pfn] == si->console_mfn)
            boot->ring = (struct console_ring *)ADDRESS_OF(pfn);
    read_command_line(si->cmd_line);
    prom_debug = same(property("prom_debug"), "true");
    kbm_debug = same(property("kbm_debug"), "true");
    find_memory();
    switch_tables();
    map_range("text", (word)text_start, (word)text_end, (word)text_pa, 0);
    map_range("data", (word)data_start, (word)data_end, (word)data_pa, WRITABLE | NOT_EXECUTABLE);
    if (kbm_debug)
        print("kbm: map shared 0x%x foreign 0x%x rw-\n", SHARED_INFO_VA, si->shared_info);
    map(SHARED_INFO_VA, si->shared_info | FOREIGN | WRITABLE | PRESENT | ACCESSED | NOT_EXECUTABLE);
    if (prom_debug)
        print("dboot: %d probes found no table; to the kernel at 0x%x\n", (word)boot->probes_failed, (word)kernel_main);
    boot->aliases = place_of((word)data_pa);
    extern void *const kernel_stack_top;
    enter_kernel(boot, kernel_stack_top, kernel_main);
}
