/* physdev_op, as far as it is a domU's: interrupt numbers, the EOI page, and the old form (xen/arch/x86/physdev.c). */
#include "kit.h"

enum { IRQ_STATUS = 5, SET_IOPL, SET_IOBITMAP, APIC_READ, EOI = 12, MAP_PIRQ, EOI_PAGE_1 = 17, GET_FREE_PIRQ = 23,
       EOI_PAGE_2 = 28 };
enum { MSI = 0, GSI };

static sword physdev(word command, void *argument)
{
    return hypercall(PHYSDEV_OP, command, argument);
}

VARIATION(numbers, "numbers for interrupts can be had, though nothing can be mapped to them")
{
    struct { int type; u32 number; } wanted = {GSI, 0};
    u32 irq = 16;
    check_equal(physdev(EOI, &irq), -EINVAL, "an EOI before there is one");
    check_equal(physdev(GET_FREE_PIRQ, &wanted), 0, "a number for a GSI");
    check_equal(wanted.number, 16, "the first that is no ISA interrupt's");
    check_equal(physdev(EOI, &irq), 0, "its EOI");
    check_equal(physdev(GET_FREE_PIRQ, &wanted), 0, "another");
    check_equal(wanted.number, 17, "the next");
    wanted.type = MSI;
    check_equal(physdev(GET_FREE_PIRQ, &wanted), 0, "a number for an MSI");
    check_equal(wanted.number, 55, "the last");
    int had = 0;
    while (had < 100 && !physdev(GET_FREE_PIRQ, &wanted))
        had++;
    check_equal(had, 31, "31 more of them");
    check_equal(physdev(GET_FREE_PIRQ, &wanted), -ENOSPC, "then no more");
    u32 status[2] = {3, 99};
    check_equal(physdev(IRQ_STATUS, status), 0, "the status of one");
    check_equal(status[1], 1, "it needs an EOI");
    status[0] = 56;
    check_equal(physdev(IRQ_STATUS, status), -EINVAL, "the status of one that cannot be");
}

VARIATION(eoi_page, "there is one page for EOIs, and Xen holds it")
{
    void *first = page(), *second = page();
    word mfn = root_mfn();
    check_equal(physdev(EOI_PAGE_2, &mfn), -EINVAL, "a page table");
    mfn = mfn_of(first);
    check_equal(physdev(EOI_PAGE_2, &mfn), 0, "a page");
    mfn = mfn_of(second);
    check_equal(physdev(EOI_PAGE_2, &mfn), -EBUSY, "another page");
    check_equal(physdev(EOI_PAGE_1, &mfn), -EBUSY, "in the old way");
    MUST(read_only(first));
    check_equal(mmuext(PIN_L1_TABLE, mfn_of(first), 0), -EINVAL, "the first is no page table any more");
    check_single_reference(second, "nothing holds the second");
}

struct old {
    u32 command;
    union {
        u32 level;
        struct { word bitmap; u32 ports; } bitmap;
        struct { u32 irq, flags; } status;
    } __attribute__((aligned(sizeof(word))));
};

VARIATION(old_form, "the old form has the six oldest commands")
{
    struct old old = {SET_IOPL, {.level = 4}};
    check_equal(hypercall(PHYSDEV_OP_COMPAT, &old), -EINVAL, "a level that is none");
    old.level = 1;
    check_equal(hypercall(PHYSDEV_OP_COMPAT, &old), 0, "a level");
    check_equal(TRY("in $0x80, %%al", : : : "rax"), 0, "by which ports can be read");
    old.level = 0;
    MUST(hypercall(PHYSDEV_OP_COMPAT, &old));
    check(TRY("in $0x80, %%al", : : : "rax") && fault.vector == GP, "or not", "%u", fault.vector);
    old = (struct old){IRQ_STATUS, {.status = {3, 0}}};
    check_equal(hypercall(PHYSDEV_OP_COMPAT, &old), 0, "an interrupt's status");
    check_equal(old.status.flags, 1, "it is in its place");
    old.command = APIC_READ;
    check_equal(hypercall(PHYSDEV_OP_COMPAT, &old), -EPERM, "the APIC");
    old.command = EOI;
    check_equal(hypercall(PHYSDEV_OP_COMPAT, &old), -ENOSYS, "what came later");
    check_equal(hypercall(PHYSDEV_OP_COMPAT, 0), -EFAULT, "nothing");
}

VARIATION(ports, "single ports can be allowed by a bitmap")
{
    static u8 bitmap[8192];
    memset(bitmap, 0xff, sizeof bitmap);
    bitmap[0x80 / 8] &= ~1;
    struct { word bitmap; u32 ports; } request = {(word)bitmap, 65536};
    check_equal(physdev(SET_IOBITMAP, &request), 0, "a bitmap");
    check_equal(TRY("in $0x80, %%al", : : : "rax"), 0, "one port can be read");
    check(TRY("in $0x81, %%al", : : : "rax") && fault.vector == GP, "the next cannot", "%u", fault.vector);
    request.ports = 0x80;
    check_equal(physdev(SET_IOBITMAP, &request), 0, "fewer ports");
    check(TRY("in $0x80, %%al", : : : "rax") && fault.vector == GP, "those behind cannot be read", "%u", fault.vector);
    request.bitmap = HOLE;
    check_equal(physdev(SET_IOBITMAP, &request), -EINVAL, "a bitmap of Xen's");
    request = (typeof(request)){(word)bitmap, 65537};
    check_equal(physdev(SET_IOBITMAP, &request), -EINVAL, "a port too many");
}

VARIATION(old_events, "event channels' old form: one structure for the command and its argument")
{
    struct { u32 command; u16 dom, remote; u32 port; u8 rest[16]; } op = {EVTCHN_alloc_unbound, DOMID_SELF, 0, 99, {0}};
    check_equal(hypercall(EVENT_CHANNEL_OP_COMPAT, &op), 0, "a port");
    check(op.port >= 3 && op.port != 99, "its number is in its place", "%u", op.port);
    struct { u32 command, port; u8 rest[20]; } close = {EVTCHN_close, op.port, {0}};
    check_equal(hypercall(EVENT_CHANNEL_OP_COMPAT, &close), 0, "closed");
    check_equal(hypercall(EVENT_CHANNEL_OP_COMPAT, &close), -EINVAL, "closed again");
    close.command = EVTCHN_reset;
    check_equal(hypercall(EVENT_CHANNEL_OP_COMPAT, &close), -ENOSYS, "what came later");
    check_equal(hypercall(EVENT_CHANNEL_OP_COMPAT, 0), -EFAULT, "nothing");
    u8 *last = page();
    MUST(unmap(page()));
    check_equal(hypercall(EVENT_CHANNEL_OP_COMPAT, last + PAGE - 8), -EFAULT, "half a structure");
}
