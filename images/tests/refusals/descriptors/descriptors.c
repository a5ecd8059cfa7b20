/* Descriptor tables. A frame of the GDT is one that nothing else can write to, and its descriptors let nobody into
   ring 0 (pv/descriptor-tables.c, and check_descriptor()). */
#include "kit.h"

#define AREA TEST_AREA(5)
/* Descriptors by their parts: type with the S bit, DPL and P; the rest is that of a flat segment. */
#define CODE (BITS == 64 ? 0x00affa000000ffffull : 0x00cffa000000ffffull)
#define DATA_32 0x00cff2000000ffffull

static u64 *gdt, *second, *plain;

static word nobody; /* a frame without an owner */

static void set_up(void)
{
    nobody = freed_frame();
    gdt = table(), second = table();
    plain = page();
    watch(gdt);
    watch(second);
    watch(plain);
}

static sword set_gdt(const word *frames, word entries)
{
    return hypercall(SET_GDT, frames, entries);
}

static sword update_descriptor(u64 address, u64 descriptor)
{
    return hypercall(UPDATE_DESCRIPTOR, VALUE(address), VALUE(descriptor));
}

VARIATION(gdt, "which frames can be the GDT")
{
    set_up();
    word frames[16] = {mfn_of(gdt), mfn_of(second)};
    void *l1 = table();
    MUST(mmuext(PIN_L1_TABLE, mfn_of(l1), 0));
    make_path(AREA);
    REFUSED("too many entries", EINVAL, set_gdt(frames, 7169));
    REFUSED("far too many entries", EINVAL, set_gdt(frames, 1 << 20));
    REFUSED("a list that is not mapped", EFAULT, set_gdt((void *)AREA, 8));
    REFUSED("no list", EFAULT, set_gdt(0, 8));
    REFUSED("a list in Xen's area", EFAULT, set_gdt((void *)XENS, 8));
    REFUSED("too many entries, and no list", EINVAL, set_gdt(0, 7169));
    static const char *const names[] = {
        "no RAM", "nobody's frame", "a page mapped writable", "an L1 table", "the root",
    };
    word bad[] = {NO_RAM, nobody, mfn_of(plain), mfn_of(l1), root_mfn()};
    for (unsigned i = 0; i < 5; i++) {
        frames[1] = bad[i];
        REFUSED(names[i], EINVAL, set_gdt(frames + 1, 512));
    }
    REFUSED("the second of two frames", EINVAL, set_gdt(frames, 513));
    check_untyped(gdt, "the first is no part of a GDT then");
    MUST(read_only(gdt));
    frames[1] = mfn_of(second);
    ALLOWED("two frames", set_gdt(frames, 1024));
    REFUSED("the first one mapped writable", EBUSY, map((word)gdt, address_of(gdt) | DATA));
    REFUSED("the second one as an L1 table", EINVAL, mmuext(PIN_L1_TABLE, mfn_of(second), 0));
    frames[0] = NO_RAM;
    REFUSED("another GDT that is refused", EINVAL, set_gdt(frames, 512));
    REFUSED("the first is still in use then", EBUSY, map((word)gdt, address_of(gdt) | DATA));
    ALLOWED("no GDT", set_gdt(0, 0));
    ALLOWED("the first one mapped writable after it", writable(gdt));
    check_single_reference(gdt, "no reference to it is left");
}

/* What no GDT may have: present system descriptors other than call gates. */
static const struct {
    u8 kind;
    const char *in_gdt, *updated;
} bad_kinds[] = {
    {0x81, "a 16-bit TSS", "a 16-bit TSS written"}, {0x82, "an LDT", "an LDT written"},
    {0x83, "a busy 16-bit TSS", "a busy 16-bit TSS written"}, {0x85, "a task gate", "a task gate written"},
    {0x86, "a 16-bit interrupt gate", "a 16-bit interrupt gate written"}, {0x89, "a TSS", "a TSS written"},
    {0x8b, "a busy TSS", "a busy TSS written"}, {0xee, "an interrupt gate", "an interrupt gate written"},
    {0xef, "a trap gate", "a trap gate written"},
};

VARIATION(kinds, "which descriptors")
{
    set_up();
    word frames[1] = {mfn_of(gdt)};
    for (unsigned i = 0; i < sizeof bad_kinds / sizeof *bad_kinds; i++) {
        u64 descriptor = (u64)bad_kinds[i].kind << 40 | 0xff;
        MUST(update(address_of(gdt + 300), descriptor));
        REFUSED(bad_kinds[i].in_gdt, EINVAL, set_gdt(frames, 8));
        REFUSED(bad_kinds[i].updated, EINVAL, update_descriptor(address_of(plain + 5), descriptor));
    }
    MUST(update(address_of(gdt + 300), 0x0000090000000067ull));
    ALLOWED("a TSS that is not present", set_gdt(frames, 8));
    ALLOWED("a code segment written to it", update_descriptor(address_of(gdt + 1), CODE));
    ALLOWED("a data segment of ring 0", update_descriptor(address_of(gdt + 2), DATA_32 & ~(3ull << 45)));
    check_equal(gdt[2] >> 45 & 3, FLAT_KERNEL_CS & 3, "is one of the kernel's ring");
#if BITS == 32
    REFUSED("64-bit code", EINVAL, update_descriptor(address_of(gdt + 1), 0x00affa000000ffffull));
    ALLOWED("data up to the end of an older M2P", update_descriptor(address_of(gdt + 1), 0x00cff200000067ffull));
    check_equal(gdt[1] & 0xffff, 0xffff, "reaches to the end of all addresses");
#endif
    ALLOWED("nothing", update_descriptor(address_of(gdt + 1), 0));
    REFUSED("a TSS written to it", EINVAL, update_descriptor(address_of(gdt + 1), 0x0000890000000067ull));
    MUST(set_gdt(0, 0));
}

/* Entry 1 of the LDT into FS; the fault of its page is reported where the guest has put the table. */
#define LOAD_FROM_LDT TRY("mov %0, %%fs", : : "r"(1 << 3 | 4 | 3))

VARIATION(ldt, "the LDT's pages come in when they are used, if they can be")
{
    set_up();
    make_path(AREA);
    u64 *l1 = table();
    MUST(mmuext(PIN_L1_TABLE, mfn_of(l1), 0));
    MUST(mmuext(SET_LDT, AREA, 512));
    REFUSED_BY_TRAP("not mapped", PF, 0, AREA + 8, LOAD_FROM_LDT);
    static const char *const names[] = {"a page mapped writable too", "an L1 table", "the root"};
    word bad[] = {mfn_of(plain), mfn_of(l1), root_mfn()};
    for (unsigned i = 0; i < 3; i++) {
        MUST(map(AREA, frame_address(bad[i]) | DATA_RO));
        REFUSED_BY_TRAP(names[i], PF, 0, AREA + 8, LOAD_FROM_LDT);
    }
    MUST(map(AREA, address_of(gdt) | DATA_RO));
    MUST(update(address_of(gdt + 9), 0x0000890000000067ull));
    REFUSED_BY_TRAP("one with a TSS in it", PF, 0, AREA + 8, LOAD_FROM_LDT);
    MUST(update(address_of(gdt + 9), 0));
    MUST(update(address_of(gdt + 1), DATA_32));
    check(!LOAD_FROM_LDT, "a good one", "trap %u, code %lx, CR2 %p", fault.vector, fault.code, (void *)fault.cr2);
    REFUSED("mapped writable while it is in", EBUSY, map((word)gdt, address_of(gdt) | DATA));
    ALLOWED("no LDT", mmuext(SET_LDT, 0, 0));
    ALLOWED("mapped writable when it is out", writable(gdt));
    asm volatile("mov %0, %%fs" : : "r"(0));
}

VARIATION(places, "where a descriptor may be written")
{
    set_up();
    u64 *l1 = table();
    MUST(mmuext(PIN_L1_TABLE, mfn_of(l1), 0));
    watch(l1);
    REFUSED("no RAM", EINVAL, update_descriptor(frame_address(NO_RAM), DATA_32));
    REFUSED("nobody's frame", EINVAL, update_descriptor(frame_address(nobody), DATA_32));
    REFUSED("an L1 table", EINVAL, update_descriptor(address_of(l1), DATA_32));
    REFUSED("nothing, to an L1 table", EINVAL, update_descriptor(address_of(l1), 0));
    REFUSED("the root", EINVAL, update_descriptor(frame_address(root_mfn()), DATA_32));
    REFUSED("not aligned", EINVAL, update_descriptor(address_of(plain) + 4, DATA_32));
    ALLOWED("a page that is no table", update_descriptor(address_of(plain + 6), DATA_32));
    check(plain[6] == DATA_32, "it is there", "%llx", plain[6]);
    check_single_reference(plain, "no reference is left");
}
