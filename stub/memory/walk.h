/* The walk through a guest's four-level page tables, with Xen's rights: no user-bit check; a write needs RW at every
 * level (x86 manual, vol. 3, 4.5; PV-ABI: the hypervisor's part of the address space is not the guest's to name). */
#ifndef PVSTUB_WALK_H
#define PVSTUB_WALK_H

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define HYPERVISOR_START 0xffff800000000000ULL
#define HYPERVISOR_END 0xffff880000000000ULL
#define LOW_END 0x0000800000000000ULL
#define FRAME_BITS 0x000ffffffffff000ULL
enum { PTE_P = 1, PTE_RW = 2, PTE_A = 0x20, PTE_D = 0x40 };
enum { WALK_READ = 0, WALK_WRITE = 1, WALK_ANYWHERE = 2 };
enum { WALK_FOUND, WALK_ABSENT, WALK_REFUSED };

typedef struct {
    PyObject_HEAD
    Py_buffer ram;
    unsigned long long root;  /* machine address of the L4 in use */
    unsigned long long limit; /* where a 32-bit guest's addresses end; 0: a 64-bit guest */
    PyObject *fault;         /* raised with (vaddr, write, present) */
} Walk;

static inline uint8_t *walk_ram(const Walk *w) { return w->ram.buf; }

/* The machine address of a byte; a write marks its page accessed and dirty. */
static inline int walk_translate(const Walk *w, uint64_t root, uint64_t vaddr, int how, uint64_t *maddr)
{
    uint64_t *words = w->ram.buf, table = root, rights = PTE_RW, at = 0;
    if (vaddr >= LOW_END && vaddr < HYPERVISOR_END && !(how == WALK_ANYWHERE && vaddr >= HYPERVISOR_START))
        return WALK_ABSENT;
    if (w->limit && vaddr >= w->limit && how != WALK_ANYWHERE)
        return WALK_ABSENT;
    for (int shift = 39; shift >= 12; shift -= 9) {
        at = (table >> 3) + (vaddr >> shift & 511);
        if (!(words[at] & PTE_P))
            return WALK_ABSENT;
        rights &= words[at];
        table = words[at] & FRAME_BITS;
        if (table >= (uint64_t)w->ram.len)
            return WALK_REFUSED;
    }
    if (how == WALK_WRITE) {
        if (!rights)
            return WALK_REFUSED;
        words[at] |= PTE_A | PTE_D;
    }
    *maddr = table | (vaddr & 0xfff);
    return WALK_FOUND;
}

#endif
