/* physdev_op: a domain has an I/O privilege level and a bitmap of ports; devices are the hardware domain's
   (xen/arch/x86/physdev.c). */
#include "kit.h"

enum {
    unmask_notify = 4, irq_status_query = 5, set_iopl = 6, set_iobitmap = 7, apic_read = 8, apic_write = 9,
    alloc_irq_vector = 10, eoi = 12, map_pirq = 13, unmap_pirq = 14, manage_pci_add = 15, manage_pci_remove = 16,
    pirq_eoi_gmfn_v1 = 17, setup_gsi = 21, pci_mmcfg_reserved = 24, pci_device_add = 25, pci_device_remove = 26,
    pirq_eoi_gmfn_v2 = 28, dbgp_op = 29, prepare_msix = 30, release_msix = 31,
};

static sword physdev_op(word command, const void *argument)
{
    return hypercall(PHYSDEV_OP, command, argument);
}

VARIATION(iopl, "the I/O privilege level and the ports")
{
    u32 level = 4;
    struct { word bitmap; u32 ports; } ports = {0, 65537};
    watch(page());
    REFUSED("level 4", EINVAL, physdev_op(set_iopl, &level));
    level = ~0u;
    REFUSED("the last level", EINVAL, physdev_op(set_iopl, &level));
    check(TRY("inb $0x80, %%al", : : : "rax") && fault.vector == GP, "a port is out of reach before and after",
          "trap %u", fault.vector);
    level = 3;
    ALLOWED("level 3", physdev_op(set_iopl, &level));
    check(!TRY("inb $0x80, %%al", : : : "rax"), "a port is in reach", "trap %u", fault.vector);
    level = 0;
    ALLOWED("level 0", physdev_op(set_iopl, &level));
    REFUSED("too many ports", EINVAL, physdev_op(set_iobitmap, &ports));
    ports.ports = ~0u;
    REFUSED("the most ports", EINVAL, physdev_op(set_iobitmap, &ports));
    ports.ports = 65536, ports.bitmap = HOLE;
    REFUSED("a bitmap in Xen's area", EINVAL, physdev_op(set_iobitmap, &ports));
    ports.ports = 0, ports.bitmap = 0;
    ALLOWED("no bitmap", physdev_op(set_iobitmap, &ports));
}

VARIATION(interrupts, "interrupts that the domain does not have")
{
    u32 none[2] = {1 << 20, 0}, gsi[2] = {1, 0};
    struct { word gmfn; } area = {NO_RAM};
    void *typed = table();
    MUST(mmuext(PIN_L1_TABLE, mfn_of(typed), 0));
    watch(typed);
    REFUSED("the end of one past all", EINVAL, physdev_op(eoi, none));
    REFUSED("the end of one that is not bound", EINVAL, physdev_op(eoi, gsi));
    REFUSED("the status of one past all", EINVAL, physdev_op(irq_status_query, none));
    REFUSED("the page of ends in no RAM", EINVAL, physdev_op(pirq_eoi_gmfn_v2, &area));
    area.gmfn = mfn_of(typed);
    REFUSED("the page of ends in a page table", EINVAL, physdev_op(pirq_eoi_gmfn_v2, &area));
    REFUSED("the same by the old number", EINVAL, physdev_op(pirq_eoi_gmfn_v1, &area));
    area.gmfn = mfn_of(page());
    ALLOWED("the page of ends", physdev_op(pirq_eoi_gmfn_v2, &area));
    REFUSED("another one", EBUSY, physdev_op(pirq_eoi_gmfn_v2, &area));
    struct { u16 domid; u32 type, index, pirq, bus, devfn, entry; u64 table; } map = {DOMID_SELF, 1, 1, 1, 0, 0, 0, 0};
    REFUSED("an interrupt of the machine", EPERM, physdev_op(map_pirq, &map));
    map.domid = NO_DOMAIN;
    REFUSED("one for a domain that is not there", ESRCH, physdev_op(map_pirq, &map));
}

VARIATION(devices, "devices are not its own")
{
    u64 zeros[16] = {0};
    watch(page());
    REFUSED("apic_read", EPERM, physdev_op(apic_read, zeros));
    REFUSED("apic_write", EPERM, physdev_op(apic_write, zeros));
    REFUSED("alloc_irq_vector", EPERM, physdev_op(alloc_irq_vector, zeros));
    REFUSED("setup_gsi", EPERM, physdev_op(setup_gsi, zeros));
    REFUSED("pci_mmcfg_reserved", EPERM, physdev_op(pci_mmcfg_reserved, zeros));
    REFUSED("manage_pci_add", EPERM, physdev_op(manage_pci_add, zeros));
    REFUSED("manage_pci_remove", EPERM, physdev_op(manage_pci_remove, zeros));
    REFUSED("pci_device_add", EPERM, physdev_op(pci_device_add, zeros));
    REFUSED("pci_device_remove", EPERM, physdev_op(pci_device_remove, zeros));
    REFUSED("prepare_msix", EPERM, physdev_op(prepare_msix, zeros));
    REFUSED("release_msix", EPERM, physdev_op(release_msix, zeros));
    REFUSED("dbgp_op", EPERM, physdev_op(dbgp_op, zeros));
    REFUSED("command 99", ENOSYS, physdev_op(99, zeros));
    REFUSED("the last command", ENOSYS, physdev_op(~0u, zeros));
}

VARIATION(pointers, "arguments that cannot be read")
{
    static const struct {
        word command;
        const char *names[2];
    } calls[] = {
        {irq_status_query, {"irq_status_query without", "irq_status_query of Xen's"}},
        {set_iopl, {"set_iopl without", "set_iopl of Xen's"}},
        {set_iobitmap, {"set_iobitmap without", "set_iobitmap of Xen's"}},
        {apic_read, {"apic_read without", "apic_read of Xen's"}},
        {apic_write, {"apic_write without", "apic_write of Xen's"}},
        {alloc_irq_vector, {"alloc_irq_vector without", "alloc_irq_vector of Xen's"}},
        {eoi, {"eoi without", "eoi of Xen's"}},
        {map_pirq, {"map_pirq without", "map_pirq of Xen's"}},
        {unmap_pirq, {"unmap_pirq without", "unmap_pirq of Xen's"}},
        {manage_pci_add, {"manage_pci_add without", "manage_pci_add of Xen's"}},
        {pirq_eoi_gmfn_v2, {"pirq_eoi_gmfn without", "pirq_eoi_gmfn of Xen's"}},
        {setup_gsi, {"setup_gsi without", "setup_gsi of Xen's"}},
        {prepare_msix, {"prepare_msix without", "prepare_msix of Xen's"}},
    };
    watch(page());
    for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++) {
        REFUSED(calls[i].names[0], EFAULT, physdev_op(calls[i].command, 0));
        REFUSED(calls[i].names[1], EFAULT, physdev_op(calls[i].command, (void *)XENS));
    }
    REFUSED("the old form without", EFAULT, hypercall(PHYSDEV_OP_COMPAT, 0));
}
