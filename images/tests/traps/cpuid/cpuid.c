/* cpuid: one answer, whichever way it is asked, and nothing in it that the guest cannot use (arch/x86/cpuid.c,
   pv/emul-inv-op.c). */
#include "cpuid.h"
#include "kit.h"

enum { OSXSAVE = 1 << 27 };

VARIATION(both_ways, "natively and by the prefix")
{
    static const u32 leaves[] = {0, 1, 2, 4, 7, 0xd, 0x80000000, 0x80000001, 0x80000008, 0x40000000, 0x40000001,
                                 0x40000002, 0x40000003, 0x40000005, 0x12345678, 0xffffffff};
    unsigned different = 0;
    for (unsigned i = 0; i < sizeof leaves / sizeof *leaves; i++) {
        struct leaf native = ask(leaves[i], 0), forced = ask_xen(leaves[i], 0);
        if (leaves[i] == 1)
            native.c &= ~OSXSAVE, forced.c &= ~OSXSAVE; /* see xsave/ */
        different += memcmp(&native, &forced, sizeof native) != 0;
    }
    check_equal(different, 0, "leaves that differ");
}

VARIATION(xen, "Xen's leaves")
{
    struct leaf base = ask(0x40000000, 0);
    check(base.b == 0x566e6558 && base.c == 0x65584d4d && base.d == 0x4d4d566e, "the signature", "%x %x %x", base.b,
              base.c, base.d);
    check(base.a >= 0x40000002, "the last leaf", "%x", base.a);
    check_equal(ask(0x40000001, 0).a, 4 << 16 | 17, "the version");
    check_equal(ask(0x40000001, 0).a, hypercall(XEN_VERSION, 0), "which xen_version has, too");
    struct leaf pages = ask(0x40000002, 0);
    check_equal(pages.a, 1, "hypercall pages");
    check_equal(pages.b, 0x40000000, "the MSR for it");
    check_equal(pages.c & 1, 1, "MMU_PT_UPDATE_PRESERVE_AD is there");
    check_equal(ask(0x40000100, 0).b == base.b, 0, "once only");
}

VARIATION(hidden, "what a PV guest cannot have")
{
    struct leaf one = ask(1, 0), seven = ask(7, 0), extended = ask(0x80000001, 0);
    static const struct { const char *name; u8 bit; } c[] = {
        {"MONITOR", 3}, {"VMX", 5}, {"PCID", 17}, {"x2APIC", 21}, {"TSC deadline", 24}, {"OSXSAVE", 27}, {"RDRAND", 30},
    }, d[] = {
        {"VME", 1}, {"PSE", 3}, {"SEP", 11}, {"MTRR", 12}, {"PGE", 13}, {"PSE36", 17}, {"ACPI", 22}, {"HTT", 28},
    }, b[] = {
        {"SMEP", 7}, {"INVPCID", 10}, {"RTM", 11}, {"RDSEED", 18}, {"SMAP", 20},
    };
    if (!(one.c >> 26 & 1)) {
        check_equal(one.c >> 28 & 1, 0, "AVX without XSAVE");
        check_equal(ask(0xd, 0).a, 0, "XCR0 without XSAVE");
    }
    for (unsigned i = 0; i < sizeof c / sizeof *c; i++)
        check_equal(one.c >> c[i].bit & 1, 0, c[i].name);
    for (unsigned i = 0; i < sizeof d / sizeof *d; i++)
        check_equal(one.d >> d[i].bit & 1, 0, d[i].name);
    for (unsigned i = 0; i < sizeof b / sizeof *b; i++)
        check_equal(seven.b >> b[i].bit & 1, 0, b[i].name);
    check_equal(extended.c >> 2 & 1, 0, "SVM");
    check_equal(extended.d >> 26 & 1, 0, "pages of 1 GiB");
    check_equal(one.c >> 31, 1, "a hypervisor is there");
    check_equal(extended.d >> 11 & 1, 1, "SYSCALL");
    check_equal(extended.d >> 20 & 1, 1, "NX");
    check_equal(extended.d >> 29 & 1, BITS == 64, "LM");
}

#if BITS == 64
VARIATION(registers, "the upper halves of the registers become 0")
{
    word a = 0xffffffff00000000, b = ~0ul, c = 0xffffffff00000000, d = ~0ul;
    asm volatile("cpuid" : "+a"(a), "+b"(b), "+c"(c), "+d"(d));
    check((a | b | c | d) >> 32 == 0, "natively", "%lx %lx %lx %lx", a, b, c, d);
    a = 0xffffffff00000000, b = ~0ul, c = 0xffffffff00000000, d = ~0ul;
    asm volatile(".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e\ncpuid" : "+a"(a), "+b"(b), "+c"(c), "+d"(d));
    check((a | b | c | d) >> 32 == 0, "by the prefix", "%lx %lx %lx %lx", a, b, c, d);
}
#endif
