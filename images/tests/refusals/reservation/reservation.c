/* memory_op: pages given back, asked for and exchanged. The calls that take a list say how far they got and never
   why they stopped; the others have their errors (xen/common/memory.c, arch/x86/mm.c). */
#include "kit.h"

static word nobody;
static void *mapped, *typed;

static void set_up(void)
{
    nobody = freed_frame();
    mapped = page();
    typed = table();
    MUST(mmuext(PIN_L1_TABLE, mfn_of(typed), 0));
    watch(mapped);
    watch(typed);
}

static sword reservation(word command, const word *list, word count, u32 order, u16 domain)
{
    struct memory_reservation argument = {.extent_start = list, .nr_extents = count, .extent_order = order,
                                          .domid = domain};
    return memory_op(command, &argument);
}

VARIATION(lists, "where a list of extents ends the work")
{
    set_up();
    static const struct {
        word command;
        const char *names[10];
    } calls[] = {
        {XENMEM_increase_reservation,
         {"increase in too large blocks", "increase by nothing", "increase for nobody",
          "increase for the invalid domain", "increase of another domain", "increase with a list of Xen's",
          "increase with too many extents", "increase with no argument", "increase with an argument of Xen's",
          "increase goes on from the count of before"}},
        {XENMEM_decrease_reservation,
         {"decrease in too large blocks", "decrease by nothing", "decrease for nobody",
          "decrease for the invalid domain", "decrease of another domain", "decrease with a list of Xen's",
          "decrease with too many extents", "decrease with no argument", "decrease with an argument of Xen's",
          "decrease goes on from the count of before"}},
        {XENMEM_populate_physmap,
         {"populate in too large blocks", "populate nothing", "populate for nobody", "populate for the invalid domain",
          "populate another domain", "populate with a list of Xen's", "populate with too many extents",
          "populate with no argument", "populate with an argument of Xen's",
          "populate goes on from the count of before"}},
    };
    word list[1] = {mfn_of_pfn(spare_pfn())};
    for (unsigned i = 0; i < 3; i++) {
        word command = calls[i].command;
        const char *const *name = calls[i].names;
        NO_CHANGE(name[0], 0, reservation(command, list, 1, 10, DOMID_SELF));
        NO_CHANGE(name[1], 0, reservation(command, list, 0, 0, DOMID_SELF));
        NO_CHANGE(name[2], 0, reservation(command, list, 1, 0, NO_DOMAIN));
        NO_CHANGE(name[3], 0, reservation(command, list, 1, 0, DOMID_INVALID));
        NO_CHANGE(name[4], 0, reservation(command, list, 1, 0, 0));
        NO_CHANGE(name[5], 0, reservation(command, (word *)HOLE, 1, 0, DOMID_SELF));
        NO_CHANGE(name[6], 0, reservation(command, list, 1ul << (BITS - 4), 0, DOMID_SELF));
        NO_CHANGE(name[7], 0, memory_op(command, 0));
        NO_CHANGE(name[8], 0, memory_op(command, (void *)XENS));
        /* The upper bits of a command count extents that were done before; that many are the answer to nonsense. */
        check_equal(memory_op(command | 5 << 6, 0), 5, name[9]);
    }
}

VARIATION(decrease, "which frames can be given back")
{
    set_up();
    word list[3] = {NO_RAM};
    NO_CHANGE("no RAM", 0, reservation(XENMEM_decrease_reservation, list, 1, 0, DOMID_SELF));
    list[0] = nobody;
    NO_CHANGE("nobody's frame", 0, reservation(XENMEM_decrease_reservation, list, 1, 0, DOMID_SELF));
    list[0] = ~0ul;
    NO_CHANGE("a number that is no frame's", 0, reservation(XENMEM_decrease_reservation, list, 1, 0, DOMID_SELF));
    NO_CHANGE("a list that is not mapped", 0,
              reservation(XENMEM_decrease_reservation, (void *)TEST_AREA(9), 1, 0, DOMID_SELF));
    word first = spare_pfn(), second = spare_pfn();
    u16 self = DOMID_SELF;
    sword size = memory_op(XENMEM_current_reservation, &self);
    list[0] = mfn_of_pfn(first), list[1] = nobody, list[2] = mfn_of_pfn(second);
    check_equal(reservation(XENMEM_decrease_reservation, list, 3, 0, DOMID_SELF), 1, "the second of three is bad");
    check_equal(memory_op(XENMEM_current_reservation, &self), size - 1, "one page is gone");
    check_equal(reservation(XENMEM_decrease_reservation, list, 1, 0, DOMID_SELF), 0, "and cannot be given back twice");
    set_mfn(first, ~0ul);
    u64 *held = page();
    *held = 5;
    list[0] = mfn_of(held);
    size = memory_op(XENMEM_current_reservation, &self);
    check_equal(reservation(XENMEM_decrease_reservation, list, 1, 0, DOMID_SELF), 1, "a page that is mapped");
    check_equal(*(volatile u64 *)held, 5, "it stays until it is unmapped");
    check_equal(memory_op(XENMEM_current_reservation, &self), size, "and belongs to the domain until then");
    MUST(map((word)held, 0));
    check_equal(memory_op(XENMEM_current_reservation, &self), size - 1, "it is gone when it is unmapped");
    check_equal(reservation(XENMEM_decrease_reservation, list, 1, 0, DOMID_SELF), 0, "then it is nobody's");
}

static sword exchange(struct memory_exchange *argument)
{
    return memory_op(XENMEM_exchange, argument);
}

static struct memory_exchange one_for_one(const word *in, const word *out, word count)
{
    return (struct memory_exchange){
        .in = {.extent_start = in, .nr_extents = count, .domid = DOMID_SELF},
        .out = {.extent_start = out, .nr_extents = count, .domid = DOMID_SELF},
    };
}

VARIATION(exchange, "which pages can be exchanged, and for what")
{
    set_up();
    word pfn = spare_pfn(), in[2] = {mfn_of_pfn(pfn)}, out[2] = {pfn};
    struct memory_exchange good = one_for_one(in, out, 1), bad;
    REFUSED("no argument", EFAULT, memory_op(XENMEM_exchange, 0));
    REFUSED("an argument of Xen's", EFAULT, memory_op(XENMEM_exchange, (void *)XENS));
    REFUSED("extents done before", EINVAL, memory_op(XENMEM_exchange | 1 << 6, &good));
    bad = good, bad.in.extent_order = bad.out.extent_order = 10;
    REFUSED("too large blocks", EPERM, exchange(&bad));
    bad = good, bad.out.nr_extents = 2;
    REFUSED("more for less", EINVAL, exchange(&bad));
    bad = good, bad.in.extent_order = 0xffffffe0;
    REFUSED("an order that the CPU shifts by 0", EPERM, exchange(&bad));
    bad = good, bad.in.nr_extents = bad.out.nr_extents = 1ul << (BITS - 4), bad.in.extent_order = bad.out.extent_order = 9;
    REFUSED("more than a word counts", EINVAL, exchange(&bad));
#if BITS == 32 /* whose lists Xen makes longer ones of, in a room of two pages */
    bad = good, bad.in.nr_extents = 1024, bad.out.extent_order = 10;
    REFUSED("too many for one", E2BIG, exchange(&bad));
    bad.nr_exchanged = 1;
    REFUSED("part of one done", EINVAL, exchange(&bad));
    bad = good, bad.in.extent_start = (word *)(HOLE - 4), bad.in.nr_extents = bad.out.nr_extents = 2;
    REFUSED("a list that reaches into Xen's part", EFAULT, exchange(&bad));
#endif
    bad = good, bad.out.domid = 0;
    REFUSED("of one domain for another", EINVAL, exchange(&bad));
    bad = good, bad.nr_exchanged = 2;
    REFUSED("more done than asked for", EINVAL, exchange(&bad));
    bad = good, bad.in.domid = bad.out.domid = NO_DOMAIN;
    REFUSED("a domain that is not there", ESRCH, exchange(&bad));
    bad = good, bad.in.domid = bad.out.domid = 0;
    REFUSED("another domain", EPERM, exchange(&bad));
    bad = good, bad.in.extent_start = (word *)HOLE;
    REFUSED("a list of Xen's", EFAULT, exchange(&bad));
    bad = good, bad.out.extent_start = (word *)HOLE;
    REFUSED("a list for the new ones that is Xen's", EFAULT, exchange(&bad));
    bad = good, bad.in.extent_start = (word *)TEST_AREA(9);
    REFUSED("a list that is not mapped", EFAULT, exchange(&bad));
    static const char *const names[] = {
        "no RAM", "nobody's frame", "a page that is mapped", "a pinned table", "the root",
        "a number that is no frame's",
    };
    word frames[] = {NO_RAM, nobody, mfn_of(mapped), mfn_of(typed), root_mfn(), ~0ul};
    int none_done = 1;
    for (unsigned i = 0; i < 6; i++) {
        word given[1] = {frames[i]};
        bad = one_for_one(given, out, 1);
        REFUSED(names[i], EINVAL, exchange(&bad));
        none_done = none_done && bad.nr_exchanged == 0;
    }
    check(none_done, "none of these is counted", "one is");
    in[1] = mfn_of(mapped), out[1] = pfn_of(mapped);
    bad = one_for_one(in, out, 2);
    check_equal(exchange(&bad), -EINVAL, "the second of two is mapped");
#if BITS == 64
    check_equal(bad.nr_exchanged, 1, "the first is done");
    check_equal(M2P[out[0]], pfn, "the M2P has the new one");
#else /* Xen writes nothing to a 32-bit guest of a part that fails */
    check_equal(bad.nr_exchanged, 0, "the first is done, though nothing says so");
    check_equal(out[0], pfn, "nor where it is");
    check(M2P[mfn_of_pfn(pfn)] != pfn, "the old one is gone", "it is not");
#endif
    check_equal(out[1], pfn_of(mapped), "the second entry is as it was");
}

VARIATION(questions, "what may be asked, and of whom")
{
    set_up();
    u16 self = DOMID_SELF, gone = NO_DOMAIN, other = 0;
    static const struct {
        word command;
        const char *names[5];
    } calls[] = {
        {XENMEM_current_reservation,
         {"current size of a domain that is not there", "of another domain", "without an argument", "with one of Xen's",
          "with extents done before"}},
        {XENMEM_maximum_reservation,
         {"largest size of a domain that is not there", "the same of another domain", "the same without an argument",
          "the same with one of Xen's", "the same with extents done before"}},
    };
    for (unsigned i = 0; i < 2; i++) {
        word command = calls[i].command;
        REFUSED(calls[i].names[0], ESRCH, memory_op(command, &gone));
        REFUSED(calls[i].names[1], EPERM, memory_op(command, &other));
        REFUSED(calls[i].names[2], EFAULT, memory_op(command, 0));
        REFUSED(calls[i].names[3], EFAULT, memory_op(command, (void *)XENS));
        REFUSED(calls[i].names[4], EINVAL, memory_op(command | 1 << 6, &self));
    }
    REFUSED("the highest frame, with extents done before", EINVAL, memory_op(XENMEM_maximum_ram_page | 1 << 6, 0));
    struct { u32 entries; void *buffer; } host = {0, 0};
    REFUSED("the machine's memory map", EPERM, memory_op(XENMEM_machine_memory_map, &host));
    REFUSED("where the M2P is, nowhere", EFAULT, memory_op(XENMEM_machphys_mapping, 0));
    REFUSED("the M2P's frames, nowhere", EFAULT, memory_op(XENMEM_machphys_mfn_list, 0));
    REFUSED("the memory map, nowhere", EFAULT, memory_op(XENMEM_memory_map, 0));
    REFUSED("an operation that is no more", ENOSYS, memory_op(8, 0));
    REFUSED("an operation that is not yet", ENOSYS, memory_op(63, 0));
}

VARIATION(translated, "what only guests with Xen's own P2M may do, or toolstacks")
{
    set_up();
    struct { u16 domid, size; u32 space; word idx, gpfn; } physmap = {DOMID_SELF, 0, 0, 0, 1};
    struct { u16 domid; word gpfn; } remove = {DOMID_SELF, 1};
    REFUSED("add_to_physmap", EACCES, memory_op(XENMEM_add_to_physmap, &physmap));
    REFUSED("remove_from_physmap", EACCES, memory_op(XENMEM_remove_from_physmap, &remove));
    physmap.space = 4;
    REFUSED("add_to_physmap of foreign pages", ENOSYS, memory_op(XENMEM_add_to_physmap, &physmap));
    physmap.space = 0, physmap.domid = NO_DOMAIN;
    REFUSED("add_to_physmap of a domain that is not there", ESRCH, memory_op(XENMEM_add_to_physmap, &physmap));
    remove.domid = NO_DOMAIN;
    REFUSED("remove_from_physmap of such a one", ESRCH, memory_op(XENMEM_remove_from_physmap, &remove));
    REFUSED("add_to_physmap without an argument", EFAULT, memory_op(XENMEM_add_to_physmap, 0));
    REFUSED("remove_from_physmap without an argument", EFAULT, memory_op(XENMEM_remove_from_physmap, 0));
    word list[1] = {0};
#if BITS == 64
    REFUSED("a claim with a list", EINVAL, reservation(XENMEM_claim_pages, list, 1, 0, DOMID_SELF));
    REFUSED("a claim for DOMID_SELF, which is no number", EINVAL, reservation(XENMEM_claim_pages, 0, 1, 0, DOMID_SELF));
    REFUSED("a claim in blocks", EINVAL, reservation(XENMEM_claim_pages, 0, 1, 1, DOMID_SELF));
    REFUSED("a claim without an argument", EFAULT, memory_op(XENMEM_claim_pages, 0));
#else
    REFUSED("a claim", ENOSYS, reservation(XENMEM_claim_pages, list, 1, 0, DOMID_SELF));
#endif
    struct { u16 domid, pad; u32 vnodes, vcpus, ranges; word pointers[3]; } topology = {DOMID_SELF, 0, 1, 1, 1, {0}};
    REFUSED("virtual NUMA", EOPNOTSUPP, memory_op(XENMEM_get_vnumainfo, &topology));
    topology.pad = 1;
    REFUSED("virtual NUMA, with padding that is not 0", EINVAL, memory_op(XENMEM_get_vnumainfo, &topology));
    topology.pad = 0, topology.domid = NO_DOMAIN;
    REFUSED("virtual NUMA of a domain that is not there", ESRCH, memory_op(XENMEM_get_vnumainfo, &topology));
}
