/* What the tests look at. The command line names the sections to run; without names all of the tour are. */
#include "guest.h"

/* -- instructions that leave the guest */

static u64 source[8] = {1, 2, 3, 4, 5, 6, 7, 8};
u64 target[8];
u64 tsc_before, tsc_after;

#define NOWHERE 0x20000000ul /* no table leads there */
#define LATE 0x10000000ul
#define TWICE (LATE + PAGE)
#define HOLE (LATE + 2 * PAGE)

static void spots(void)
{
    tell("syscall", do_syscall() >> 16);
    tell("int80", do_int80(21));
    tell("iret", do_iret());
    tell("load", do_load((void *)HOLE));
    map(HOLE, 0);
    tell("skipped load", do_skipped_load((void *)NOWHERE));
    tell("faults", faults);
    tell("fault address", fault_address);
    tell("cpuid", do_cpuid(0x40000000));
    tsc_before = do_rdtsc();
    tsc_after = do_rdtsc();
    tell("tsc", tsc_after - tsc_before);
    do_movs(target, source, sizeof source);
    tell("movs", target[7]);
    do_stos(target, 24, 0x5a);
    tell("stos", target[2]);
    tell("flags TF", do_flags() >> 8 & 1);
}

static void ports(void)
{
    static const u32 iopl = 3;
    tell("iopl", hypercall(PHYSDEV_OP, 6, (u64)&iopl, 0, 0));
    do_out(0x3f8, 0x41);
    tell("in", do_in(0x3f8));
}

/* -- functions */

u64 total;

APART u64 counted(u64 n)
{
    total += n * 3;
    return total;
}

static void loop(void)
{
    for (u64 n = 0; n < 10000; n++)
        counted(n);
    tell("total", total);
}

struct point {
    int x, y;
};

APART int inner(const struct point *point, int scale)
{
    volatile int product = point->x * point->y;
    volatile int scaled = product * scale;
    return scaled;
}

APART int middle(int x, int scale)
{
    volatile struct point point = {x, 7};
    int result = inner((const struct point *)&point, scale);
    return result + 1;
}

APART int outer(int x)
{
    int result = middle(x + 1, 10);
    return result + 1;
}

APART u64 factorial(u64 n)
{
    if (n <= 1)
        return 1;
    return n * factorial(n - 1);
}

static void chain(void)
{
    tell("outer", outer(2));
    tell("factorial", factorial(6));
}

APART int add(int a, int b)
{
    return a + b;
}

static void calls(void)
{
    tell("add", add(2, 3));
    tell("add", add(20, 30));
}

static void registers(void)
{
    double xmm = 0;
    static union { long double value; u64 words[2]; } st;
    u64 rbx = do_registers(0x1234, &xmm, &st.value);
    tell("rbx", rbx);
    union { double value; u64 word; } seen = {xmm};
    tell("xmm3", seen.word);
    tell("st0", st.words[0]);
}

static void many(void)
{
    ((void (*)(void))(sled + 9990))();
    say("sled\n");
}

/* -- data to watch */

u8 byte = 1;
u16 word = 2;
u32 four = 3;
u64 eight = 4;
struct {
    u8 before[8], bytes[4096], behind[8];
} wide __attribute__((aligned(PAGE)));
u64 sink;

APART void put_byte(u8 value) { byte = value; }
APART void put_word(u16 value) { word = value; }
APART void put_four(u32 value) { four = value; }
APART void put_eight(u64 value) { eight = value; }
APART void put_wide(u64 offset, u8 value) { wide.bytes[offset] = value; }
APART void put_across(u64 value) { *(volatile u64 *)(wide.bytes - 4) = value; }
APART void get_byte(void) { sink += *(volatile u8 *)&byte; }
APART void get_eight(void) { sink += *(volatile u64 *)&eight; }
APART void get_wide(u64 offset) { sink += *(volatile u8 *)(wide.bytes + offset); }

static void data(void)
{
    get_byte();
    put_byte(0x11);
    put_word(0x2222);
    put_four(0x33333333);
    put_eight(0x4444444444444444);
    get_eight();
    put_wide(0, 5);
    put_wide(1000, 6);
    put_wide(4095, 7);
    get_wide(4095);
    wide.before[7] = 8;
    wide.behind[0] = 9;
    put_across(0x0807060504030201);
    do_stos(wide.bytes + 2000, 16, 1);
    tell("sink", sink);
}

/* -- addresses */

static u64 tables[3][512] __attribute__((aligned(PAGE)));
static u64 second_root[512] __attribute__((aligned(PAGE)));
static u64 aliased[512] __attribute__((aligned(PAGE)));

static void make_tables(void)
{
    if (tables[0][0])
        return;
    tables[0][LATE >> 30 & 511] = mfn_of(tables[1]) * PAGE | PTE;
    tables[1][LATE >> 21 & 511] = mfn_of(tables[2]) * PAGE | PTE;
    for (int i = 0; i < 3; i++)
        map((u64)tables[i], mfn_of(tables[i]) * PAGE | PTE_READ_ONLY);
    struct { u64 where, entry; } update = {mfn_of((void *)start_info->pt_base) * PAGE, mfn_of(tables[0]) * PAGE | PTE};
    hypercall(MMU_UPDATE, (u64)&update, 1, 0, DOMID_SELF);
}

static void late(void)
{
    map(LATE, mfn_of(paged_code_page) * PAGE | PTE_READ_ONLY);
    tell("late", ((long (*)(long))LATE)(37));
    map(LATE, 0);
}

static void twice(void)
{
    map(TWICE, mfn_of(paged_code_page) * PAGE | PTE_READ_ONLY);
    for (int i = 0; i < 3; i++)
        tell("twice", paged_code(1) + ((long (*)(long))TWICE)(2));
    map(TWICE, mfn_of(aliased) * PAGE | PTE);
    ((volatile u64 *)TWICE)[3] = 77;
    tell("alias", aliased[3]);
    map(TWICE, 0);
}

u64 visits;

APART void visit(u64 root)
{
    visits += root;
}

static void use_root(const void *page)
{
    struct { u32 cmd, pad; u64 mfn, arg2; } op = {MMUEXT_NEW_BASEPTR, 0, mfn_of(page), 0};
    hypercall(MMUEXT_OP, (u64)&op, 1, 0, DOMID_SELF);
}

static void spaces(void)
{
    const u64 *root = (const u64 *)start_info->pt_base;
    for (int i = 0; i < 512; i++)
        if (i < 256 || i > 271)
            second_root[i] = root[i];
    map((u64)second_root, mfn_of(second_root) * PAGE | PTE_READ_ONLY);
    for (int i = 0; i < 3; i++) {
        use_root(root);
        visit(1);
        use_root(second_root);
        visit(100);
    }
    use_root(root);
    tell("visits", visits);
}

static void user(void)
{
    struct { u32 cmd, pad; u64 mfn, arg2; } op = {
        MMUEXT_NEW_USER_BASEPTR, 0, mfn_of((void *)start_info->pt_base), 0};
    static u8 stack[PAGE] __attribute__((aligned(16)));
    hypercall(STACK_SWITCH, 0xe02b, (u64)(stack + PAGE), 0, 0);
    hypercall(MMUEXT_OP, (u64)&op, 1, 0, DOMID_SELF);
    tell("user", do_user(40));
}

static void refused(void)
{
    tell("refused", -map((u64)aliased, mfn_of((void *)start_info->pt_base) * PAGE | PTE));
}

static void batch(void)
{
    struct { u64 op, result, args[6]; } entries[2] = {{XEN_VERSION, 0, {0}}, {SCHED_OP, 0, {SCHED_yield}}};
    tell("multicall", hypercall(MULTICALL, (u64)entries, 2, 0, 0));
    tell("not there", -hypercall(XEN_VERSION, 9999, 0, 0, 0));
}

/* -- traps of its own */

u32 debugged;

APART void debugged_code(void) { asm volatile("nop"); }
APART void put_debugged(u32 value) { debugged = value; }

static void traps(void)
{
    for (int i = 0; i < 3; i++)
        do_int3();
    tell("int3", int3s);
    do_single_steps();
    tell("steps", steps);
    hypercall(SET_DEBUGREG, 0, (u64)debugged_code, 0, 0);
    hypercall(SET_DEBUGREG, 1, (u64)&debugged, 0, 0);
    hypercall(SET_DEBUGREG, 7, 3 | 3 << 2 | 0xd << 20, 0, 0);
    for (int i = 0; i < 5; i++)
        debugged_code();
    for (int i = 0; i < 4; i++)
        put_debugged(i);
    hypercall(SET_DEBUGREG, 7, 0, 0, 0);
    tell("debug hits", debug_hits);
    tell("debug writes", debug_writes);
}

/* -- time */

static void wait(void)
{
    volatile u64 turns = 0;
    u64 end = ticks + 5;
    while (*(volatile u64 *)&ticks < end)
        turns++;
    tell("turns", turns);
    hypercall(SCHED_OP, SCHED_block, 0, 0, 0);
    tell("ticks", ticks);
}

volatile u64 spun;

static void spin(void)
{
    shared->vcpu[0].mask = 1;
    say("spinning\n");
    for (;;)
        spun++;
}

static void crash(void)
{
    volatile u64 reason = 42;
    say("crashing\n");
    asm volatile("crash_here: .globl crash_here; ud2" : : "b"(reason));
}

static void reboot(void)
{
    static const u32 reason = 1;
    hypercall(SCHED_OP, SCHED_shutdown, (u64)&reason, 0, 0);
}

static const struct section {
    const char *name;
    void (*run)(void);
    int of_tour;
} all[] = {
    {"spots", spots, 1}, {"ports", ports, 1}, {"loop", loop, 1}, {"chain", chain, 1}, {"calls", calls, 1},
    {"registers", registers, 1}, {"many", many, 1}, {"data", data, 1}, {"late", late, 1}, {"twice", twice, 1},
    {"spaces", spaces, 1}, {"user", user, 1}, {"refused", refused, 1}, {"batch", batch, 1}, {"traps", traps, 1},
    {"wait", wait, 1}, {"spin", spin, 0}, {"crash", crash, 0}, {"reboot", reboot, 0},
};

static int named(const char *names, const char *name)
{
    while (*names) {
        const char *at = name;
        while (*at && *names == *at)
            at++, names++;
        if (!*at && (!*names || *names == ' '))
            return 1;
        while (*names && *names != ' ')
            names++;
        while (*names == ' ')
            names++;
    }
    return 0;
}

void run_sections(const char *names)
{
    make_tables();
    for (const struct section *section = all; section < all + sizeof all / sizeof *all; section++)
        if (*names ? named(names, section->name) : section->of_tour)
            section->run();
}
