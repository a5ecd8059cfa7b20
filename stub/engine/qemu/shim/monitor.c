/* The way to cpuid. In ring 1 or 3 the CPU runs that by itself and tells nobody, unless it is a virtual machine's
 * (AMD64 manual, volume 2, chapter 15): so that all, this shim too, runs as one, whose monitor gets nothing but cpuid
 * (and vmmcall, which QEMU would miscount). That is some instructions in entry.S, which make a #GP of it, as a
 * privileged instruction has. The registers are shared as they are; so are the page tables, interrupts and
 * exceptions. */
#include <stdint.h>
#include "../mailbox.h"
#include "msr.h"

enum { SVM = 1 << 2 };                                  /* CPUID 0x80000001, ECX */
enum { SVME = 1 << 12, HOST_SAVE = 0xc0010117 }; /* of EFER; an MSR */
enum { INTERCEPTS = 0x0c, CPUID = 1 << 18, INTERCEPTS_2 = 0x10, VMRUN = 1, VMMCALL = 2, ASID = 0x58 };
enum { ES = 0x400, CS = 0x410, SS = 0x420, DS = 0x430, GDTR = 0x460, IDTR = 0x480, EFER_AT = 0x4d0, CR4 = 0x548 };
enum { CR3 = 0x550, CR0 = 0x558, DR7 = 0x560, DR6 = 0x568, RFLAGS = 0x570, RIP = 0x578, RSP = 0x5d8 };
enum { CODE_ATTRIBUTES = 0xa9b, DATA_ATTRIBUTES = 0xc93 }; /* of descriptors, without the bits of the limit */

extern char control[];

static void put(unsigned at, uint64_t value) { *(volatile uint64_t *)(control + at) = value; }

static void put_segment(unsigned at, uint16_t selector, uint16_t attributes)
{
    put(at, selector | (uint64_t)attributes << 16 | 0xffffffffULL << 32);
}

static void put_table(unsigned at, const uint16_t *table) /* limit, base: as sgdt stores them */
{
    put(at, (uint64_t)table[0] << 32);
    put(at + 8, *(const uint64_t *)(table + 1));
}

/* The control block of a machine that goes on at `rip` with that stack, as what runs now: its machine address, or 0
 * where the CPU has no virtual machines. */
__attribute__((cold)) uint64_t make_machine(uint64_t rip, uint64_t rsp)
{
    uint32_t leaf = 0x80000001, b, c = 0, d;
    uint16_t gdt[5], idt[5];
    uint64_t cr0, cr3, cr4;
    __asm__ volatile("cpuid" : "+a"(leaf), "=b"(b), "+c"(c), "=d"(d));
    if (!(c & SVM))
        return 0;
    __asm__ volatile("sgdt %0\n\tsidt %1" : "=m"(gdt), "=m"(idt));
    __asm__ volatile("mov %%cr0, %0\n\tmov %%cr3, %1\n\tmov %%cr4, %2" : "=r"(cr0), "=r"(cr3), "=r"(cr4));
    const uint64_t window = cr3 - 4096 * PAGE_ROOT;
    write_msr(MSR_EFER, read_msr(MSR_EFER) | SVME);
    write_msr(HOST_SAVE, window + 4096 * PAGE_HOST);
    *(volatile uint32_t *)(control + INTERCEPTS) = CPUID;
    *(volatile uint32_t *)(control + INTERCEPTS_2) = VMRUN | VMMCALL;
    put(ASID, 1);
    put_segment(CS, XEN_CODE, CODE_ATTRIBUTES);
    put_segment(SS, 0, DATA_ATTRIBUTES);
    put_segment(DS, 0, DATA_ATTRIBUTES);
    put_segment(ES, 0, DATA_ATTRIBUTES);
    put_table(GDTR, gdt);
    put_table(IDTR, idt);
    put(EFER_AT, read_msr(MSR_EFER));
    put(CR0, cr0);
    put(CR3, cr3);
    put(CR4, cr4);
    put(DR7, 0x400);
    put(DR6, 0xffff0ff0);
    put(RFLAGS, 2);
    put(RIP, rip);
    put(RSP, rsp);
    return window + 4096 * PAGE_CONTROL;
}
