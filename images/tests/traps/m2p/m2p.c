/* m2p: Xen's table of machine frames in the guest's address space, and the area around it.

   It is read-only, at the place that xen_version tells; what is not the guest's RAM reads as invalid, and what lies
   beyond it is not there. */
#include "kit.h"

enum { VERSION_platform_parameters = 5 };

static struct fault_seen { int taken; word code; } try_load(word at)
{
    int taken = TRY("movb (%0), %%al", : : "r"(at) : "rax");
    return (struct fault_seen){taken && fault.vector == PF && fault.cr2 == at, fault.code};
}

VARIATION(place, "where it is")
{
    word start = 0;
    MUST(hypercall(XEN_VERSION, VERSION_platform_parameters, &start));
    check_equal(start, (word)M2P, "as xen_version tells");
    struct { word start, end, max; } mapping = {0, 0, 0};
    MUST(memory_op(XENMEM_machphys_mapping, &mapping));
    check_equal(mapping.start, (word)M2P, "as machphys_mapping tells");
    check(mapping.end > mapping.start, "its end", "%lx", mapping.end);
}

VARIATION(content, "what is in it")
{
    unsigned wrong = 0;
    for (word pfn = 0; pfn < start_info->nr_pages; pfn++)
        wrong += M2P[mfn_of_pfn(pfn)] != pfn;
    check_equal(wrong, 0, "pages of ours that it has otherwise");
    word free = freed_frame();
    check(M2P[free] >= start_info->nr_pages, "a frame given back", "%lx", M2P[free]);
    struct mmu_update request = {address_of(start_info) | MACHPHYS_UPDATE, 0x777};
    word mfn = mfn_of(start_info), pfn = pfn_of(start_info);
    MUST(mmu_update(&request, 1, DOMID_SELF));
    check_equal(M2P[mfn], 0x777, "one that was changed");
    request.val = pfn;
    MUST(mmu_update(&request, 1, DOMID_SELF));
}

VARIATION(locked, "it cannot be written to")
{
    word before = M2P[0];
    TRAPS("a store", PF, 3, TRY("mov %%" AX ", (%0)", : : "r"(M2P) : "memory"));
    check_equal(fault.cr2, (word)M2P, "CR2");
    check_equal(M2P[0], before, "nothing changed");
}

#if BITS == 64
VARIATION(around, "what is beyond it")
{
    word end = (word)(M2P + max_mfn);
    end = (end + (1ul << 21) - 1) & -(1ul << 21);
    check(try_load(end + (1ul << 30)).taken, "behind its end", "trap %u, CR2 %lx", fault.vector, fault.cr2);
    static const struct { const char *name; word at; } some[] = {
        {"the second slot", HOLE + (1ul << 39)}, {"the third", HOLE + (2ul << 39)}, {"the fifth", HOLE + (4ul << 39)},
        {"the last", HOLE_END - PAGE}, {"the last byte", HOLE_END - 1},
    };
    for (unsigned i = 0; i < sizeof some / sizeof *some; i++)
        check(try_load(some[i].at).taken, some[i].name, "trap %u, code %lx, CR2 %lx", fault.taken ? fault.vector : 99,
              fault.code, fault.cr2);
    TRAPS("below it there is no address", GP, 0, TRY("movb (%0), %%al", : : "r"(HOLE - 1) : "rax"));
}

USER __attribute__((naked)) static void user_load(void)
{
    asm("mov (%rdi), %rax\nsyscall");
}

VARIATION(user_table, "user code does not see Xen's other mappings")
{
    user(user_load, HOLE + (2ul << 39));
    check_equal(fault.vector, PF, "#PF");
    check_equal(fault.code & 4, 4, "of user code");
    check_equal(fault.cr2, HOLE + (2ul << 39), "CR2");
}
#else
VARIATION(around, "what is beyond it")
{
    word end = (word)(M2P + max_mfn);
    end = (end + (1ul << 21) - 1) & -(1ul << 21);
    check(try_load(end).taken, "behind its end", "trap %u, CR2 %lx", fault.vector, fault.cr2);
    check(try_load(HOLE_END - 1).taken, "the last byte of all", "trap %u, CR2 %lx", fault.vector, fault.cr2);
}

USER __attribute__((naked)) static void user_load(void)
{
    asm("mov (%edi), %eax\nint $0x80");
}

VARIATION(user_table, "user code does not see it")
{
    user(user_load, HOLE);
    check_equal(fault.vector, PF, "#PF");
    check_equal(fault.code & 4, 4, "of user code");
    check_equal(fault.cr2, HOLE, "CR2");
}
#endif
