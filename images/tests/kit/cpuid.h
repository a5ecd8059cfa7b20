/* CPUID, natively and by Xen's prefix (pv/emul-inv-op.c): #include "cpuid.h" beside kit.h. */
#pragma once
#include "kit.h"

struct leaf {
    u32 a, b, c, d;
};

static inline struct leaf ask(u32 leaf, u32 subleaf)
{
    struct leaf got;
    asm volatile("cpuid" : "=a"(got.a), "=b"(got.b), "=c"(got.c), "=d"(got.d) : "0"(leaf), "2"(subleaf));
    return got;
}

static inline struct leaf ask_xen(u32 leaf, u32 subleaf)
{
    struct leaf got;
    asm volatile(".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e\ncpuid"
                 : "=a"(got.a), "=b"(got.b), "=c"(got.c), "=d"(got.d) : "0"(leaf), "2"(subleaf));
    return got;
}
