/* Hypercalls: all that Xen has, with the structures that they take, most fields as they should be (shapes.h). */
#include "hostile.h"
#include "shapes.h"

/* -- where structures lie: one after the other, or to the arena's last byte, behind which nothing is mapped */

enum { MOST_BYTES = 512 };
static word filled;  /* bytes of the arena that this round has used */
static int crowded;  /* several calls use it: its end is for the list of them */

static word place(const u8 *bytes, word size, int at_the_end)
{
    u8 *at = arena + filled;
    if (at_the_end || filled + size > (ARENA_PAGES - 1) * PAGE)
        at = arena_end - size;
    else
        filled += (size + 15) & -8ul;
    memcpy(at, bytes, size);
    return (word)at;
}

static word place_cut_off(const u8 *bytes, word size)
{
    return place(bytes, 1 + below(size - 1), 1);
}

static word place_somehow(const u8 *bytes, word size, int rigid)
{
    if (one_in(20))
        return unreadable();
    if (one_in(16) && size > 1 && !crowded)
        return place_cut_off(bytes, size);
    word at = place(bytes, size, one_in(16) && !crowded);
    return !rigid && one_in(24) ? at - (BITS == 64 ? 1 + below(7) : 4 + 4 * below(2)) : at;
}

/* -- fields */

static word some_list(int ports)
{
    word list[8];
    u32 *numbers = (u32 *)list;
    if (one_in(10))
        return ports ? unreadable() : pointer();
    for (unsigned i = 0; i < 2 * BITS / 8; i++)
        numbers[i] = below(16);
    for (unsigned i = 0; i < 8 && !ports; i++)
        list[i] = below(4) ? any_frame() : below(start_info->nr_pages);
    return place((const u8 *)list, sizeof list, one_in(8) && !crowded);
}

static word count(void)
{
    static const word odd[] = {0, 3, 9, 64, 1 << 16, 1ul << 31, 0xffffffff, (word)(1ull << 32), ~0ul};
    return below(4) ? 1 + below(3) : PICK(odd);
}

static word domain(void)
{
    static const u16 odd[] = {OWN_DOMAIN, DOMID_IO,  DOMID_XEN, DOMID_COW, DOMID_INVALID,
                              DOMID_IDLE, NO_DOMAIN, 0,         0xffff};
    return below(6) ? DOMID_SELF : PICK(odd);
}

static u64 cycles(void)
{
    u32 low, high;
    asm volatile("rdtsc" : "=a"(low), "=d"(high));
    return (u64)high << 32 | low;
}

static u64 time(void)
{
    const u64 now = cycles(), times[] = {now + below(1000000), 1000000 + below(100000000), 1, any(), now + (1ull << 52),
                                         1ull << 63};
    return PICK(times);
}

u64 some_descriptor(void)
{
    const u64 kinds[] = {
        0, 0x00affb000000ffff, 0x00cff3000000ffff, 0x00cffb000000ffff, 0x0000e90000000000 | below(1 << 16),
        0x0000ec0000000000 | (u64)FLAT_KERNEL_CS << 16 | below(1 << 16), 0x00cf9b000000ffff, any(), any() & ~(1ull << 47),
    };
    return PICK(kinds);
}

static u32 extended;

static u64 extended_command(void)
{
    static const u8 often[] = {
        PIN_L1_TABLE, PIN_L2_TABLE, PIN_L3_TABLE, PIN_L4_TABLE, PIN_L1_TABLE, PIN_L2_TABLE, PIN_L3_TABLE, PIN_L4_TABLE,
        UNPIN_TABLE, UNPIN_TABLE, UNPIN_TABLE, UNPIN_TABLE, CLEAR_PAGE, COPY_PAGE, SET_LDT, INVLPG_LOCAL,
        NEW_USER_BASEPTR,
    };
    extended = below(5) ? PICK(often) : below(24) ? below(22) : any();
    return extended;
}

static u64 extended_argument(void)
{
    word page = below(25);
    switch (extended) {
    case PIN_L1_TABLE ... PIN_L4_TABLE:
        return below(4)   ? pool_mfn[habit_page(extended + 1)]
               : below(2) ? pool_mfn[habit_page(below(extended + 2))] /* of a lower level */
                          : refused_root();
    case UNPIN_TABLE:
        return below(8) ? pool_mfn[page] : NO_RAM + below(64);
    case NEW_BASEPTR:
        return refused_root();
    case NEW_USER_BASEPTR:
        return below(3) ? pool_mfn[habit_page(4)] : below(2) ? 0 : any_frame();
    case SET_LDT:
        return below(8) ? pool_address() & -PAGE : pointer();
    case CLEAR_PAGE:
    case COPY_PAGE:
        return any_frame();
    default:
        return below(2) ? pointer() : any_frame();
    }
}

static word own_handler(word with)
{
    const word callbacks[] = {
        (word)event_callback, (word)failsafe_callback, (word)syscall_callback, 0, gate_address(NMI),
        (word)sysenter_callback, 0, (word)syscall32_callback,
    };
    return BITS == 64 && one_in(16) ? NO_ADDRESS + below(1 << 20) : with < 8 ? callbacks[with] : gate_address(with - 8);
}

static word mapping_place(u32 flags)
{
    word page = habit_page(1);
    if (flags & 16) /* GNTMAP_contains_pte */
        return frame_address(pool_mfn[page]) + 8 * below(ENTRIES);
    return below(8) ? pool_address() & -PAGE : below(2) ? HOLE + 8 * below(max_mfn) : NO_ADDRESS;
}

static int is_among(char letter, const char *letters)
{
    while (*letters && *letters != letter)
        letters++;
    return *letters;
}

/* Fields that go together: what one is tells what the next should be. */
static int related_field(char kind, u64 *value)
{
    static const u32 selectors[] = {FLAT_KERNEL_CS, FLAT_KERNEL_CS & ~3, FLAT_KERNEL_CS & ~2};
    static const u64 mapping_flags[] = {2, 2, 2, 6, 10, 14, 1, 5, 3, 18, 18, 22, 0, 0x10002, 0xffffffff};
    static u64 handler, flags, mapped;
    switch (kind) {
    case 'm': return *value = entry_target() | (below(4) ? 0 : below(2) ? below(4) : below(8)), 1;
    case 'a': return *value = address_target(), 1;
    case 'e': return *value = entry_value(), 1;
    case 'c': return *value = extended_command(), 1;
    case 'A': return *value = extended_argument(), 1;
    case 'B': return *value = extended == SET_LDT ? below(1100) : any_frame(), 1;
    case 'w': return *value = flags = PICK(mapping_flags), 1;
    case 'H': return *value = mapping_place(flags), 1;
    case 'J':
        mapped = below(MAPPINGS);
        return *value = one_in(8) ? mapping_place(flags) : mappings[mapped].address, 1;
    case 'h': return *value = below(8) ? mappings[mapped].handle : below(2) ? below(24) : any(), 1;
    case 'Y': return *value = handler = below(8), 1;
    case 'i':
        handler = 8 + below(256);
        return *value = handler - 8, 1;
    case 'j': return *value = PICK(selectors), 1;
    case 'y': return *value = own_handler(handler), 1;
    default: return 0;
    }
}

static u64 field(char kind)
{
    u64 value;
    if (related_field(kind, &value))
        return value;
    switch (kind) {
    case 'f': return any_frame();
    case 'p': return one_in(24) ? table_pointer() : pointer();
    case 'b': return pool_address();
    case 'l': return some_list(0);
    case 'P': return some_list(1);
    case 'n': return count();
    case 'o': return below(5) ? 0 : below(12);
    case 'O': return below(6) ? below(512) * 8 : any();
    case 'z': return below(12) ? 0 : any();
    case 'd': return domain();
    case 'D': return below(8) ? OWN_DOMAIN : domain();
    case 'E': return below(24) ? domain() : any();
    case 't': return below(12) ? below(14) : any();
    case 'v': return below(12) ? 0 : any();
    case 'q': return below(26);
    case 'Q': return below(4);
    case 'g': return below(16) ? 8 + below(POOL) : below(2) ? below(8) : any();
    case 'G': return below(2) ? 8 + below(POOL) : any_frame();
    case 'F': return below(4) ? below(4) : (pointer() & -4ul) | below(4);
    case 'K': return below(8) ? below(6) : 32;
    case 'T': return below(4) ? 512 * (1 + below(4)) : below(2) ? below(7200) : any();
    case 'u': return time();
    case 'U': return cycles() + 1 + below(1000000);
    case 's': return 1 << 28;
    case 'k': return below(12) ? below(12) : any();
    case 'r': return below(2) ? root_home : refused_root();
    case 'V': return below(32);
    case 'I': return below(12) ? 1 : count();
    case '7': return 7;
    case '9': return below(2) ? 0 : 3 + below(12);
    case '6': return below(3) ? 0x400 | 1 << 2 * below(4) | below(16) << (16 + 4 * below(4)) : any();
    case '5': return below(2) ? pool_address() : (word)code_page + below(16);
    case '8': return some_descriptor();
    case '.': return below(8) ? 0 : any();
    default: return stray();
    }
}

static word width_of(char letter)
{
    return letter == 'w' ? sizeof(word) : letter == '_' ? 4 * (BITS == 64) : (word)(letter - '0');
}

static word structure(const struct shape *shape, u8 *at)
{
    word size = 0;
    int wrong = shape->rigid != EXACT && one_in(5) ? (int)below(6) : -1;
    for (const char *letter = shape->fields; *letter; letter += 2) {
        u64 value = field(letter[1]);
        if (!wrong-- && !is_among(letter[1], "eAcmHJfGr"))
            value = stray();
        memcpy(at + size, &value, width_of(letter[0]));
        size += width_of(letter[0]);
    }
    return size;
}

/* A list, and in *number how many to say that it has. When that is too many, it ends where nothing is mapped. */
static word list(const struct shape *shape, word *number)
{
    u8 bytes[MOST_BYTES];
    word size = 0, has = 1 + below(4);
    for (word i = 0; i < has; i++)
        size += structure(shape, bytes + size);
    if (shape->number == SET_TRAP_TABLE) {
        memset(bytes + size, 0, sizeof(struct trap_info));
        size += sizeof(struct trap_info);
    }
    *number = crowded || below(6) ? has : count();
    word at = *number <= has ? place_somehow(bytes, size, shape->rigid) : place(bytes, size, 1);
    return shape->number == SET_TRAP_TABLE && !at ? HOLE_END - 8 : at; /* null clears all */
}

/* -- calls */

static const struct shape *some_shape(void)
{
    static word total;
    if (!total)
        for (unsigned i = 0; i < sizeof shapes / sizeof *shapes; i++)
            total += shapes[i].weight;
    word chance = below(total);
    const struct shape *shape = shapes;
    while (chance >= shape->weight)
        chance -= shape++->weight;
    return shape;
}

static void make_multicall(struct call *call)
{
    struct multicall_entry entries[6];
    word has = 1 + below(6), number = below(8) ? has : count();
    crowded = 1;
    for (word i = 0; i < has; i++) {
        struct call one;
        make_call(&one, 1);
        entries[i] = (struct multicall_entry){.op = one.number, .result = any()};
        memcpy(entries[i].args, one.arguments, sizeof one.arguments);
    }
    crowded = 0;
    word size = has * sizeof *entries, at = place((const u8 *)entries, size, number > has || one_in(8));
    call->arguments[0] = one_in(32) ? unreadable() : one_in(16) ? place_cut_off((const u8 *)entries, size) : at;
    call->arguments[1] = number;
}

void make_call(struct call *call, int nested)
{
    const struct shape *shape = some_shape();
    word number = 0, size;
    u8 bytes[MOST_BYTES];
    u64 wide;
    while (nested && (shape->number == SET_TRAP_TABLE || (shape->number == MULTICALL && below(16))))
        shape = some_shape();
    call->number = shape->number < 64 ? shape->number : (word)any() | 64;
    for (unsigned i = 0; i < 5; i++)
        call->arguments[i] = stray();
    if (shape->number == MULTICALL && !nested)
        make_multicall(call);
    word *argument = call->arguments;
    for (const char *letter = shape->words; *letter; letter++, argument++) {
        switch (*letter) {
        case 'C':
            *argument = shape->command;
            if (shape->number == MEMORY_OP && one_in(16))
                *argument |= below(8) << 6;
            break;
        case 'L':
            *argument = list(shape, &number);
            break;
        case 'N':
            *argument = number;
            break;
        case 'S':
        case '1':
            size = structure(shape, bytes);
            *argument = place_somehow(bytes, size, shape->rigid);
            break;
        case 'o':
            *argument = below(33);
            break;
        case 'r':
            *argument = below(8);
            break;
        default:
            wide = field(*letter);
            *argument = wide;
            if (BITS == 32 && is_among(*letter, "em8u")) /* 64 bits whatever a word is */
                *++argument = wide >> 32;
        }
    }
}

static void note_mappings(const u8 *list, word count)
{
    struct request {
        u64 address;
        u32 flags, ref;
        u16 domain;
        short status;
        u32 handle;
        u64 bus;
    };
    for (word i = 0; i < count && i < 4; i++) {
        const struct request *request = (const struct request *)list + i;
        if (request->status == 0)
            mappings[below(MAPPINGS)] = (struct mapping){(word)request->address, request->handle};
    }
}

void round_of_calls(word round)
{
    struct call call;
    filled = 0;
    make_call(&call, 0);
    totals.calls += call.number == MULTICALL && call.arguments[1] < 8 ? call.arguments[1] + 1 : 1;
    sword result = hypercall(call.number, call.arguments[0], call.arguments[1], call.arguments[2], call.arguments[3],
                             call.arguments[4]);
    totals.refused += result < 0;
    if (call.number == GRANT_TABLE_OP && call.arguments[0] == 0 && result == 0)
        note_mappings((const u8 *)call.arguments[1], call.arguments[2]);
    (void)round;
}
