/* Descriptor tables of the guest's own: #include "descriptors.h" beside kit.h. */
#pragma once
#include "kit.h"

/* One descriptor of a page that is a GDT, an LDT or nothing yet. */
static inline void set_descriptor(const u64 *at, u64 value)
{
    MUST(hypercall(UPDATE_DESCRIPTOR, VALUE(address_of(at)), VALUE(value)));
}

/* The whole of such a page is the GDT from now on. */
static inline void use_gdt(const u64 *gdt)
{
    word frames[1] = {mfn_of(gdt)};
    MUST(hypercall(SET_GDT, frames, PAGE / sizeof *gdt));
}

/* A GDT in use that has these descriptors; the first, which is null, is not looked at. */
static inline void own_gdt_of(const u64 *descriptors, unsigned count)
{
    u64 *gdt = table();
    for (unsigned i = 1; i < count; i++)
        set_descriptor(gdt + i, descriptors[i]);
    use_gdt(gdt);
}
