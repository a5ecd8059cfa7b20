/* Hypercalls: all that Xen has, with the structures that they take, most fields as they should be. */
#include "hostile.h"

/* A call: the letters of `words` are its arguments, those of `fields` the structure that one of them points to. A field
   is a width in bytes and a letter:

   f frame         e entry, for the target before it   m machine address of one   a address with an L1 entry
   p pointer       H where a grant may be mapped       l pointer to frames        P pointer to ports
   n count         o order                             O offset in a page         z mostly 0
   d domain (D: most often our own)  t port                              v vCPU                     q VIRQ
   g grant         J h where one is mapped, and its handle                     w flags of a mapping       G frame or grant
   r a frame that cannot be written                Q a callback that cannot be taken back
   6 DR7           5 address to watch              9 old command
   u time          s seconds                           k small number             x any
   c A B the command and arguments of an mmuext_op     8 descriptor               . padding
   y the kit's handler, with its Y (callback type) or i (vector)

   Of `words`: C the command, S the structure, L a list of some, N how many it has. What could be read from a structure
   that is not where it seems to be, or from a wrong field, may be what the guest lives on: such calls are PLACED or
   EXACT. */
enum { PLACED = 1, EXACT = 2 };
struct shape {
    u8 number, command, weight, rigid;
    const char *words, *fields;
};

#define RESERVATION "8l8n4o4z2d6."
static const struct shape shapes[] = {
    {MMU_UPDATE, 0, 160, PLACED, "LNpE", "8m8e"},
    {UPDATE_VA_MAPPING, 0, 100, 0, "aeF", ""},
    {UPDATE_VA_MAPPING_OTHERDOMAIN, 0, 10, 0, "aeFd", ""},
    {MMUEXT_OP, 0, 120, 0, "LNpE", "4c4.8A8B"},
    {SET_TRAP_TABLE, 0, 4, EXACT, "L", "1i1k2j4.8y"},
    {SET_GDT, 0, 16, 0, "lT", ""},
    {STACK_SWITCH, 0, 4, 0, "xx", ""},
    {FPU_TASKSWITCH, 0, 4, 0, "k", ""},
    {PLATFORM_OP, 0, 2, 0, "S", "4V4V8x8x8x8x8x8x8x"},
    {SET_DEBUGREG, 0, 8, 0, "r5", ""},
    {SET_DEBUGREG, 0, 4, 0, "76", ""},
    {GET_DEBUGREG, 0, 4, 0, "r", ""},
    {UPDATE_DESCRIPTOR, 0, 16, 0, "m8", ""},
    {XEN_VERSION, 0, 16, 0, "kp", ""},
    {XEN_VERSION, 6, 4, 0, "CS", "4z4."},
    {CONSOLE_IO, 0, 4, 0, "knp", ""},
    {VM_ASSIST, 0, 6, 0, "kK", ""},
    {SET_TIMER_OP, 0, 4, 0, "u", ""},
    {SET_SEGMENT_BASE, 0, 10, 0, "kp", ""},
    {PHYSDEV_OP_COMPAT, 0, 4, 0, "S", "4k4.8x8x"},
    {EVENT_CHANNEL_OP_COMPAT, 0, 4, 0, "S", "4k4t4t4t4.4."},
    {CALLBACK_OP, 0, 4, EXACT, "CS", "2Y2k4.8y"},
    {CALLBACK_OP, 1, 2, EXACT, "CS", "2Q2."},
    {NMI_OP, 2, 1, 0, "C", ""},
    {MULTICALL, 0, 60, 0, "", ""},
    {SCHED_OP_COMPAT, 0, 2, 0, "9x", ""},
    {SCHED_OP, SCHED_yield, 2, 0, "C", ""},
    {SCHED_OP, SCHED_poll, 6, EXACT, "CS", "8P4n4.8U"},
    {SCHED_OP, SCHED_remote_shutdown, 2, 0, "CS", "2d2.4k"},
    {SCHED_OP, SCHED_watchdog, 2, EXACT, "CS", "4k4s"},
    {SCHED_OP, SCHED_pin_override, 2, 0, "CS", "4x"},

    {MEMORY_OP, XENMEM_increase_reservation, 10, 0, "CS", RESERVATION},
    {MEMORY_OP, XENMEM_decrease_reservation, 10, 0, "CS", RESERVATION},
    {MEMORY_OP, XENMEM_populate_physmap, 16, 0, "CS", RESERVATION},
    {MEMORY_OP, XENMEM_exchange, 20, 0, "CS", RESERVATION RESERVATION "8z"},
    {MEMORY_OP, XENMEM_maximum_ram_page, 1, 0, "Cx", ""},
    {MEMORY_OP, XENMEM_current_reservation, 3, 0, "CS", "2d"},
    {MEMORY_OP, XENMEM_maximum_reservation, 3, 0, "CS", "2d"},
    {MEMORY_OP, XENMEM_machphys_mfn_list, 4, 0, "CS", "4n4.8p4n4."},
    {MEMORY_OP, XENMEM_add_to_physmap, 3, 0, "CS", "2d2k4k8x8f"},
    {MEMORY_OP, XENMEM_memory_map, 4, 0, "CS", "4n4.8p"},
    {MEMORY_OP, XENMEM_machine_memory_map, 2, 0, "CS", "4n4.8p"},
    {MEMORY_OP, XENMEM_machphys_mapping, 3, 0, "Cp", ""},
    {MEMORY_OP, XENMEM_set_memory_map, 4, 0, "CS", "2d6.4k4.8p"},
    {MEMORY_OP, 14, 3, 0, "CS", "2d"},
    {MEMORY_OP, XENMEM_remove_from_physmap, 3, 0, "CS", "2d6.8x"},
    {MEMORY_OP, XENMEM_set_pod_target, 1, 0, "CS", "8x8x8x8x2d6."},
    {MEMORY_OP, XENMEM_get_pod_target, 1, 0, "CS", "8x8x8x8x2d6."},
    {MEMORY_OP, XENMEM_access_op, 1, 0, "CS", "1k1k2d4n8x"},
    {MEMORY_OP, XENMEM_sharing_op, 1, 0, "CS", "1k1.2d4.8x8x8x8x"},
    {MEMORY_OP, XENMEM_paging_op, 1, 0, "CS", "1k1.2d4.8x8x8x"},
    {MEMORY_OP, XENMEM_add_to_physmap_batch, 3, 0, "CS", "2d2k2n2.8l8l8p"},
    {MEMORY_OP, XENMEM_claim_pages, 2, 0, "CS", RESERVATION},
    {MEMORY_OP, XENMEM_get_vnumainfo, 2, 0, "CS", "2d2z4n4n4n8p8p8p"},
    {MEMORY_OP, XENMEM_acquire_resource, 2, 0, "CS", "2d2k4x4n4z8x8p"},

    {GRANT_TABLE_OP, 0, 16, 0, "CLN", "8H4w4g2D2.4.8."},
    {GRANT_TABLE_OP, 1, 24, 0, "CLN", "8J8z4h2.2."},
    {GRANT_TABLE_OP, 2, 3, 0, "C1I", "2d2.4k2.2.4.8p"},
    {GRANT_TABLE_OP, 3, 1, 0, "C1I", "2d2."},
    {GRANT_TABLE_OP, 4, 6, PLACED, "CLN", "8f2D2.4g2.6."},
    {GRANT_TABLE_OP, 5, 20, PLACED, "CLN", "8G2D2O4.8G2D2O4.2O2k2.2."},
    {GRANT_TABLE_OP, 6, 2, 0, "C1I", "2d2.4.4.2.2."},
    {GRANT_TABLE_OP, 7, 8, 0, "CLN", "8J8H4h2.2."},
    {GRANT_TABLE_OP, 8, 3, 0, "C1I", "4k"},
    {GRANT_TABLE_OP, 9, 3, 0, "C1I", "4k2d2.8p"},
    {GRANT_TABLE_OP, 10, 2, 0, "C1I", "2d2.4."},
    {GRANT_TABLE_OP, 11, 6, 0, "CLN", "4g4g2.2."},
    {GRANT_TABLE_OP, 12, 4, 0, "CLN", "8m2O2O4k"},

    {EVENT_CHANNEL_OP, EVTCHN_bind_interdomain, 6, 0, "CS", "2d2.4t4."},
    {EVENT_CHANNEL_OP, EVTCHN_bind_virq, 4, 0, "CS", "4q4v4."},
    {EVENT_CHANNEL_OP, EVTCHN_bind_pirq, 2, 0, "CS", "4k4k4."},
    {EVENT_CHANNEL_OP, EVTCHN_close, 6, 0, "CS", "4t"},
    {EVENT_CHANNEL_OP, EVTCHN_send, 10, 0, "CS", "4t"},
    {EVENT_CHANNEL_OP, EVTCHN_status, 6, 0, "CS", "2d2.4t4.4.8."},
    {EVENT_CHANNEL_OP, EVTCHN_alloc_unbound, 6, 0, "CS", "2d2D4."},
    {EVENT_CHANNEL_OP, EVTCHN_bind_ipi, 4, 0, "CS", "4v4."},
    {EVENT_CHANNEL_OP, EVTCHN_bind_vcpu, 4, 0, "CS", "4t4v"},
    {EVENT_CHANNEL_OP, EVTCHN_unmask, 6, 0, "CS", "4t"},
    {EVENT_CHANNEL_OP, EVTCHN_reset, 1, 0, "CS", "2d"},
    {EVENT_CHANNEL_OP, EVTCHN_init_control, 2, PLACED, "CS", "8f4O4v8."},
    {EVENT_CHANNEL_OP, EVTCHN_expand_array, 3, PLACED, "CS", "8f"},
    {EVENT_CHANNEL_OP, EVTCHN_set_priority, 3, 0, "CS", "4t4k"},

    {VCPU_OP, 0, 1, 0, "CvS", "8x8x8x8x8x8x"},
    {VCPU_OP, 1, 1, 0, "Cvp", ""},
    {VCPU_OP, 3, 2, 0, "Cvp", ""},
    {VCPU_OP, 4, 4, 0, "Cvp", ""},
    {VCPU_OP, 5, 4, 0, "CvS", "8p"},
    {VCPU_OP, 6, 2, EXACT, "CvS", "8u"},
    {VCPU_OP, 7, 1, 0, "Cvp", ""},
    {VCPU_OP, 8, 4, 0, "CvS", "8u4k4."},
    {VCPU_OP, 9, 1, 0, "Cvp", ""},
    {VCPU_OP, 10, 2, EXACT, "CvS", "8r4O4."},
    {VCPU_OP, 11, 1, 0, "Cvz", ""},
    {VCPU_OP, 12, 1, 0, "Cvp", ""},
    {VCPU_OP, 13, 4, 0, "CvS", "8p"},
    {VCPU_OP, 14, 1, 0, "Cvp", ""},

    {PHYSDEV_OP, 6, 4, 0, "CS", "4k"},
    {PHYSDEV_OP, 7, 3, 0, "CS", "8p4n4."},
    {PHYSDEV_OP, 13, 2, 0, "CS", "2d2.4k4k4k4k4k4k4.8x"},
    {PHYSDEV_OP, 28, 2, 0, "CS", "8f"},
    {PHYSDEV_OP, 24, 2, 0, "CS", "4k4."},
    {PHYSDEV_OP, 0, 10, 0, "oS", "4x4x4x4x4x4x"},
    {HVM_OP, 0, 4, 0, "kS", "2d2.4k8x"},
    {SYSCTL, 0, 2, 0, "S", "4V4V8x8x8x"},
    {DOMCTL, 0, 2, 0, "S", "4V4V2d6.8x8x8x"},
    {XSM_OP, 0, 1, 0, "xxx", ""},
    {XENOPROF_OP, 0, 1, 0, "xx", ""},
    {KEXEC_OP, 0, 1, 0, "xx", ""},
    {TMEM_OP, 0, 1, 0, "xx", ""},
    {ARGO_OP, 0, 1, 0, "xxxxx", ""},
    {XENPMU_OP, 0, 1, 0, "xx", ""},
    {DM_OP, 0, 1, 0, "xxx", ""},
    {HYPFS_OP, 0, 1, 0, "xxxxx", ""},
    {MCA, 0, 1, 0, "p", ""},
    {11, 0, 1, 0, "xxxxx", ""},
    {63, 0, 1, 0, "xxxxx", ""},
    {200, 0, 1, 0, "xxxxx", ""},
};

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
    return !rigid && one_in(24) ? at - 1 - below(7) : at;
}

/* -- fields */

static word some_list(int ports)
{
    u64 list[8];
    if (one_in(10))
        return ports ? unreadable() : pointer();
    for (unsigned i = 0; i < 8; i++)
        list[i] = ports ? below(16) << 32 | below(16) : below(4) ? any_frame() : below(start_info->nr_pages);
    return place((const u8 *)list, sizeof list, one_in(8) && !crowded);
}

static word count(void)
{
    static const word odd[] = {0, 3, 9, 64, 1 << 16, 1ul << 31, 0xffffffff, 1ul << 32, ~0ul};
    return below(4) ? 1 + below(3) : PICK(odd);
}

static word domain(void)
{
    static const u16 odd[] = {OWN_DOMAIN, DOMID_IO, DOMID_XEN, DOMID_COW, DOMID_INVALID, DOMID_IDLE, NO_DOMAIN, 0, 0xffff};
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
    const u64 times[] = {cycles() + below(1000000), 1000000 + below(100000000), 1, any(), cycles() + (1ul << 52), 1ul << 63};
    return PICK(times);
}

u64 some_descriptor(void)
{
    const u64 kinds[] = {
        0, 0x00affb000000ffff, 0x00cff3000000ffff, 0x00cffb000000ffff, 0x0000e90000000000 | below(1 << 16),
        0x0000ec00e0330000 | below(1 << 16), 0x00cf9b000000ffff, any(), any() & ~(1ul << 47),
    };
    return PICK(kinds);
}

static u32 extended;

static u64 extended_command(void)
{
    static const u8 often[] = {0, 1, 2, 3, 4, 4, 4, 4, 0, 1, 2, 3, CLEAR_PAGE, COPY_PAGE, SET_LDT, INVLPG_LOCAL, NEW_USER_BASEPTR};
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
    const word callbacks[] = {(word)event_callback, (word)failsafe_callback, (word)syscall_callback, 0, gate_address(NMI),
                                     (word)sysenter_callback, 0, (word)syscall32_callback};
    return one_in(16) ? NON_CANONICAL + below(1 << 20) : with < 8 ? callbacks[with] : gate_address(with - 8);
}

static word mapping_place(u32 flags)
{
    word page = habit_page(1);
    if (flags & 16) /* GNTMAP_contains_pte */
        return frame_address(pool_mfn[page]) + 8 * below(ENTRIES);
    return below(8) ? pool_address() & -PAGE : below(2) ? HOLE + 8 * below(max_mfn) : NON_CANONICAL;
}

static int is_among(char letter, const char *letters)
{
    while (*letters && *letters != letter)
        letters++;
    return *letters;
}

static u64 field(char kind)
{
    static u64 handler, flags, mapped;
    static const u32 selectors[] = {FLAT_KERNEL_CS, FLAT_KERNEL_CS & ~3, FLAT_KERNEL_CS & ~2};
    static const u64 mapping_flags[] = {2, 2, 2, 6, 10, 14, 1, 5, 3, 18, 18, 22, 0, 0x10002, 0xffffffff};
    switch (kind) {
    case 'f': return any_frame();
    case 'm': return entry_target() | (below(4) ? 0 : below(2) ? below(4) : below(8));
    case 'a': return address_target();
    case 'e': return entry_value();
    case 'p': return pointer();
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
    case 'J': return mapped = below(MAPPINGS), one_in(8) ? mapping_place(flags) : mappings[mapped].address;
    case 'h': return below(8) ? mappings[mapped].handle : below(2) ? below(24) : any();
    case 'w': return flags = PICK(mapping_flags);
    case 'H': return mapping_place(flags);
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
    case 'c': return extended_command();
    case 'A': return extended_argument();
    case 'B': return extended == SET_LDT ? below(1100) : any_frame();
    case 'Y': return handler = below(8);
    case 'i': return handler = 8 + below(256), handler - 8;
    case 'j': return PICK(selectors);
    case 'y': return own_handler(handler);
    case 'I': return below(12) ? 1 : count();
    case '7': return 7;
    case '9': return below(2) ? 0 : 3 + below(12);
    case '6': return below(3) ? 0x400 | 1 << 2 * below(4) | below(16) << (16 + 4 * below(4)) : any();
    case '5': return below(2) ? pool_address() : (word)code_page + below(16);
    case '8': return some_descriptor();
    case '.': return below(8) ? 0 : any();
    default: return below(2) ? any() : any() >> below(64);
    }
}

static word structure(const struct shape *shape, u8 *at)
{
    word size = 0;
    int wrong = shape->rigid != EXACT && one_in(5) ? (int)below(6) : -1;
    for (const char *letter = shape->fields; *letter; letter += 2) {
        u64 value = field(letter[1]);
        if (!wrong-- && !is_among(letter[1], "eAcmHJfGr"))
            value = any() >> below(64);
        memcpy(at + size, &value, letter[0] - '0');
        size += letter[0] - '0';
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
        memset(bytes + size, 0, 16);
        size += 16;
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
    while (nested && (shape->number == SET_TRAP_TABLE || (shape->number == MULTICALL && below(16))))
        shape = some_shape();
    call->number = shape->number < 64 ? shape->number : any() | 64;
    for (unsigned i = 0; i < 5; i++)
        call->arguments[i] = any() >> below(64);
    if (shape->number == MULTICALL && !nested)
        make_multicall(call);
    for (unsigned i = 0; shape->words[i]; i++) {
        word *argument = &call->arguments[i];
        switch (shape->words[i]) {
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
            *argument = field(shape->words[i]);
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
            mappings[below(MAPPINGS)] = (struct mapping){request->address, request->handle};
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

/* Lists that are longer than Xen does in one go, in the window: it does them in parts. */
void round_of_long_lists(word round)
{
    static const struct {
        word number, command, words[8];
    } lists[] = {
        {MMU_UPDATE, 0, {0, 0}},
        {MMUEXT_OP, 0, {TLB_FLUSH_LOCAL, TLB_FLUSH_LOCAL, TLB_FLUSH_LOCAL, TLB_FLUSH_LOCAL, TLB_FLUSH_LOCAL, TLB_FLUSH_LOCAL,
                        TLB_FLUSH_LOCAL, TLB_FLUSH_LOCAL}},
        {MULTICALL, 0, {XEN_VERSION, 0, 0, 0, 0, 0, 0, 0}},
        {GRANT_TABLE_OP, 1, {0}},
        {GRANT_TABLE_OP, 5, {0}},
        {GRANT_TABLE_OP, 12, {0}},
    };
    word which = below(sizeof lists / sizeof *lists), count = 1000 + below(9000), number = lists[which].number;
    memcpy(window_page, lists[which].words, 64);
    if (number == MMU_UPDATE) {
        word mfn = pool_mfn[below(POOL)];
        for (unsigned i = 0; i < 8; i += 2) {
            window_page[i] = frame_address(mfn) | MACHPHYS_UPDATE;
            window_page[i + 1] = any();
        }
    }
    for (unsigned i = 8; i < PAGE / 8; i++)
        window_page[i] = window_page[i - 8];
    struct multicall_entry inside = {.op = number, .args = {window, count, 0, DOMID_SELF}};
    if (number == GRANT_TABLE_OP)
        inside.args[0] = lists[which].command, inside.args[1] = window, inside.args[2] = count;
    totals.calls++;
    if (number != MULTICALL && below(2))
        hypercall(MULTICALL, &inside, 1);
    else
        hypercall(number, inside.args[0], inside.args[1], inside.args[2], inside.args[3]);
    (void)round;
}
