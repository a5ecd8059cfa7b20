/* msr: rdmsr and wrmsr of the kernel (pv/emul-priv-op.c, read_msr and write_msr; msr.c, guest_rdmsr).

   What Xen does not know is a #GP; but for a guest without a handler for that, which reads 0. */
#include "kit.h"

/* What EFER says: a 32-bit guest does not see long mode. */
#define EFER_NOW (BITS == 64 ? 0xd01 : 0x801)

static int read(u32 number, u64 *value)
{
    u32 low = 0x5a5a5a5a, high = 0x5a5a5a5a;
    int taken = TRY("rdmsr", : "+a"(low), "+d"(high) : "c"(number));
    *value = (u64)high << 32 | low;
    return !taken;
}

static int write(u32 number, u64 value)
{
    return !TRY("wrmsr", : : "c"(number), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

static void check_read(const char *name, u32 number, u64 wanted)
{
    u64 value = 0;
    int done_ = read(number, &value);
    check(done_ && value == wanted, name, "%s, %llx instead of %llx", done_ ? "read" : "refused", value, wanted);
}

static void check_refused(const char *name, int allowed)
{
    check(!allowed && fault.vector == GP && fault.code == 0 && fault.frame.rip == fault.at, name, "trap %u, code %lx",
          allowed ? 99 : fault.vector, fault.code);
}

enum { APIC_BASE = 0x1b, PAT_ = 0x277, EFER = 0xc0000080, STAR = 0xc0000081, LSTAR, CSTAR, SFMASK, FS_BASE = 0xc0000100,
       GS_BASE, SHADOW_GS, TSC_AUX, HYPERCALL_PAGE = 0x40000000, K8_HWCR = 0xc0010015, SYSENTER_CS = 0x174 };

VARIATION(reads, "what can be read")
{
    check_read("EFER", EFER, EFER_NOW);
    check_read("PAT", PAT_, 0x0000050100070406);
    check_read("APIC_BASE", APIC_BASE, 0xfee00900);
    check_read("K8_HWCR", K8_HWCR, 0);
    check_read("the hypercall page", HYPERCALL_PAGE, 0);
    check_read("a performance counter", 0xc0010004, 0);
#if BITS == 64 /* a 32-bit guest has none of them: pae/hidden */
    MUST(hypercall(SET_SEGMENT_BASE, 0, 0x1111000));
    MUST(hypercall(SET_SEGMENT_BASE, 1, 0x2222000));
    MUST(hypercall(SET_SEGMENT_BASE, 2, 0x3333000));
    check_read("FS_BASE", FS_BASE, 0x1111000);
    check_read("GS_BASE", GS_BASE, 0x3333000);
    check_read("SHADOW_GS_BASE", SHADOW_GS, 0x2222000);
#endif
    u64 first = 0, second = 0;
    check(read(0x10, &first) && read(0x10, &second) && second > first, "TSC", "%llx, then %llx", first, second);
}

VARIATION(refused, "what is a #GP")
{
    static const struct { const char *name; u32 number; } some[] = {
        {"STAR", STAR}, {"LSTAR", LSTAR}, {"CSTAR", CSTAR}, {"SFMASK", SFMASK}, {"SYSENTER_CS", SYSENTER_CS},
        {"nonsense", 0x12345678}, {"the last one", 0xffffffff}, {"an x2APIC register", 0x802},
        {"Xen's second", 0x40000001}, {"MTRRcap", 0xfe}, {"VM_CR", 0xc0010114}, {"DEBUGCTL", 0x1d9},
    };
    u64 value;
    for (unsigned i = 0; i < sizeof some / sizeof *some; i++)
        check_refused(some[i].name, read(some[i].number, &value));
    static const struct { const char *name; u32 number; u64 value; } writes[] = {
        {"LSTAR written", LSTAR, VIRT_BASE}, {"SFMASK written", SFMASK, 0}, {"PAT written", PAT_, 0x0007040600070406},
        {"APIC_BASE written", APIC_BASE, 0xfee00800}, {"nonsense written", 0x12345678, 0},
        {"EFER changed", EFER, 0x501}, {"FS_BASE at no address", FS_BASE, 1ull << 63},
        {"GS_BASE at no address", GS_BASE, 1ull << 63}, {"SHADOW_GS_BASE at no address", SHADOW_GS, 1ull << 63},
        {"TSC_AUX of 64 bits", TSC_AUX, 1ull << 32}, {"a hypercall page of another index", HYPERCALL_PAGE, 1},
        {"a hypercall page nowhere", HYPERCALL_PAGE, 0xfffffffff000}, {"Xen's second written", 0x40000001, 0},
    };
    for (unsigned i = 0; i < sizeof writes / sizeof *writes; i++)
        check_refused(writes[i].name, write(writes[i].number, writes[i].value));
}

VARIATION(writes, "what can be written")
{
    check(write(EFER, EFER_NOW), "EFER as it is", "trap %u", fault.vector);
#if BITS == 64
    word at = (word)page(), value = 0;
    *(word *)at = 0xabcd;
    check(write(FS_BASE, at), "FS_BASE", "trap %u", fault.vector);
    asm volatile("mov %%fs:0, %0" : "=r"(value));
    check_equal(value, 0xabcd, "which counts");
    check(write(GS_BASE, at), "GS_BASE", "trap %u", fault.vector);
    value = 0;
    asm volatile("mov %%gs:0, %0" : "=r"(value));
    check_equal(value, 0xabcd, "which counts as well");
    check(write(SHADOW_GS, 0x4444000), "SHADOW_GS_BASE", "trap %u", fault.vector);
    check_read("read back", SHADOW_GS, 0x4444000);
#endif
    check(write(TSC_AUX, 0x77), "TSC_AUX", "trap %u", fault.vector);
    u32 aux = 0;
    asm volatile("rdtscp" : "=c"(aux) : : "eax", "edx");
    check_equal(aux, 0x77, "rdtscp reads it");
    check(write(K8_HWCR, 0x1000000), "K8_HWCR", "trap %u", fault.vector);
    check_read("is dropped", K8_HWCR, 0);
}

VARIATION(hypercall_page, "the hypercall page, where the guest wants it")
{
    u8 *here = page();
    check(write(HYPERCALL_PAGE, address_of(here)), "written", "trap %u", fault.vector);
    sword version = 0;
#if BITS == 64
    asm volatile("call *%1" : "=a"(version) : "r"(here + 32 * XEN_VERSION), "D"(0), "S"(0) : "rcx", "r11", "memory");
#else
    asm volatile("call *%1" : "=a"(version) : "r"(here + 32 * XEN_VERSION), "b"(0), "c"(0) : "memory");
#endif
    check_equal(version, 4 << 16 | 17, "its xen_version");
    check_equal(here[0], BITS == 64 ? 0x51 : 0xb8, "its first byte");
    check_equal(here[32 * IRET], BITS == 64 ? 0x51 : 0x50, "iret's, which keeps what it needs");
    memset(here, 0, PAGE);
    check_untyped(here, "the page is free again");
    u64 *l1 = table();
    MUST(mmuext(PIN_L1_TABLE, mfn_of(l1), 0));
    check_refused("over a page table", write(HYPERCALL_PAGE, address_of(l1)));
    check_equal(l1[0], 0, "which is as it was");
    check_refused("over nobody's frame", write(HYPERCALL_PAGE, frame_address(freed_frame())));
}

#if BITS == 64
VARIATION(registers, "the registers: 32 bits of each, and the rest becomes 0")
{
    word a = ~0ul, c = 0xffffffff00000000 | EFER, d = ~0ul;
    asm volatile("rdmsr" : "+a"(a), "+c"(c), "+d"(d));
    check_equal(a, 0xd01, "rax");
    check_equal(d, 0, "rdx");
    check_equal(c, (sword)(0xffffffff00000000 | EFER), "rcx is left");
}
#endif

VARIATION(no_handler, "without a handler for #GP, an unknown one reads 0")
{
    word a = 1, d = 1;
    MUST(hypercall(SET_TRAP_TABLE, 0));
    asm volatile("rdmsr" : "+a"(a), "+d"(d) : "c"(0x12345678));
    take_all_traps();
    check_equal(a, 0, "rax");
    check_equal(d, 0, "rdx");
}

CRASHING_VARIATION(no_handler_write, "Unhandled: vec 13, #GP[0000]", "but writing it is the end")
{
    MUST(hypercall(SET_TRAP_TABLE, 0));
    asm volatile("wrmsr" : : "c"(0x12345678), "a"(0), "d"(0));
}
