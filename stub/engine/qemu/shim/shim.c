/* The ring-0 shim: it rings when something left the guest, waits, and does what it is told. It holds no policy and
 * keeps nothing that the engine could not ask for.
 *
 * Time. QEMU counts instructions, and rdtsc reads that count. What the guest retires between `enter` and `leave` is
 * their difference less SHIM_COUNT, so that neither the shim's own instructions nor the time spent waiting count.
 *
 * The alarm. The local APIC's timer runs on the same count. It is armed only where it would fire too late: the waiting
 * lets it fire early at times, and then it is armed again for what is left. At the alarm it fires between the same
 * two instructions however often that was.
 *
 * Where nobody counts instructions (KVM) the TSC's ticks are made nanoseconds, and those are what is counted. */
#include <stdint.h>
#include "../../engine.h"
#include "../code.h"
#include "../mailbox.h"
#include "msr.h"

#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define MSR_CSTAR 0xc0000083
#define MSR_FMASK 0xc0000084
#define MSR_FS_BASE 0xc0000100
#define MSR_GS_BASE 0xc0000101
enum { TF = 0x100, RF = 0x10000, FMASK = 0x257fd5 }; /* of RFLAGS; the last is all of them, cleared by syscall */
enum { DR6_STEP = 1 << 14, DR6_NONE = 0xffff0ff0, DR7_NONE = 0x400, CR4_TSD = 4, LONG_CODE = 1 << 21 };
enum { APIC_EOI = 0xb0, APIC_SVR = 0xf0, APIC_TIMER = 0x320, APIC_COUNT = 0x380, APIC_LEFT = 0x390 };
enum { APIC_DIVIDE = 0x3e0 };
enum { APIC_MASKED = 1 << 16, MEASURED = 2000000 /* ns */ };
enum { TIMER_EXTRA = 7 }; /* instructions of the shim behind the one that arms the timer, less one */
enum { SLACK = 100 };     /* more than those on the way there */
enum { LONGEST = 0x40000000 };
enum { MOST_LOADS = 32 }; /* of SS in a row that are looked past */
#define COLD __attribute__((cold, noinline)) /* not in the page of what each exit runs */

typedef struct __attribute__((packed)) { uint16_t limit; uint64_t base; } Table;

extern volatile uint64_t words[];
extern volatile uint32_t apic[];
extern uint64_t own_gdt[8];
extern uint64_t idt[512];
extern char stubs[], more_stubs[], syscall_entry[], syscall32_entry[], stack_end[], last_stack_end[];
extern char extended[], touched[];

uint32_t arm;            /* what to arm the timer with on the way into the guest; 0: leave it */
volatile uint32_t armed; /* the timer runs */
volatile uint64_t nested; /* instructions of traps that came in the shim's first */
static uint64_t fires_at, turn;
static uint64_t cr0, cr3, cr4, stepped_tf;
static uint64_t selectors[4], bases[2];
static uint64_t tss[16];

static uint64_t ticks(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return low | (uint64_t)high << 32;
}

/* A difference of two looks at the TSC, in what the clock counts. */
static uint64_t scaled(uint64_t difference)
{
    const uint64_t scale = words[MAIL_SCALE];
    return scale ? (uint64_t)((unsigned __int128)difference * scale >> 32) : difference;
}

/* How long a tick of the TSC is; the APIC's timer ticks in nanoseconds. */
COLD static void measure(void)
{
    apic[APIC_TIMER / 4] = APIC_MASKED;
    apic[APIC_COUNT / 4] = 2 * MEASURED;
    uint32_t from = apic[APIC_LEFT / 4], to;
    const uint64_t begin = ticks();
    while (from - (to = apic[APIC_LEFT / 4]) < MEASURED)
        ;
    words[MAIL_SCALE] = ((uint64_t)(from - to) << 32) / (ticks() - begin);
}

static void load_gdt(void) { __asm__ volatile("lgdt %0" : : "m"(*(const char *)((uintptr_t)&words[MAIL_GDT] + 6))); }

COLD static void with_own_gdt(int selector, int is_ldt)
{
    const Table own = {63, (uintptr_t)own_gdt};
    __asm__ volatile("lgdt %0" : : "m"(own));
    if (is_ldt)
        __asm__ volatile("lldt %w0" : : "r"(selector));
    else
        __asm__ volatile("ltr %w0" : : "r"(selector));
    load_gdt();
}

/* What the CPU has. Later, as a virtual machine's (monitor.c), it is not asked any more. */
COLD static void ask_cpuid(void)
{
    for (uint32_t *leaf = (uint32_t *)extended; *leaf; leaf += 4)
        __asm__ volatile("cpuid" : "+a"(leaf[0]), "=b"(leaf[1]), "+c"(leaf[2]), "=d"(leaf[3]));
}

/* Once, at the very start. */
COLD void start(void)
{
    for (int i = 0; i < 256; i++) {
        const uint64_t to = (uintptr_t)(i < NEAR_GATES ? stubs + 16 * i : more_stubs + 16 * (i - NEAR_GATES));
        const int open = i == 3 || i == 4 || (i >= 32 && i != VECTOR_TIMER);
        const int stack = i == 8 || i == 18 || i == 2;
        idt[2 * i] = (to & 0xffff) | (uint64_t)XEN_CODE << 16 | (uint64_t)stack << 32 |
                     (open ? 0xee00ULL : 0x8e00ULL) << 32 | (to & 0xffff0000) << 32;
        idt[2 * i + 1] = to >> 32;
    }
    const uint64_t top = (uintptr_t)stack_end, last = (uintptr_t)last_stack_end, at = (uintptr_t)tss;
    *(uint32_t *)((char *)tss + 4) = (uint32_t)top;
    *(uint32_t *)((char *)tss + 8) = (uint32_t)(top >> 32);
    *(uint32_t *)((char *)tss + 36) = (uint32_t)last;
    *(uint32_t *)((char *)tss + 40) = (uint32_t)(last >> 32);
    *(uint32_t *)((char *)tss + 100) = 104 << 16; /* no I/O bitmap */
    own_gdt[SHIM_TSS / 8] = 103 | (at & 0xffffff) << 16 | 0x89ULL << 40 | (at >> 24 & 0xff) << 56;
    own_gdt[SHIM_TSS / 8 + 1] = at >> 32;
    const Table interrupts = {4095, (uintptr_t)idt};
    __asm__ volatile("lidt %0" : : "m"(interrupts));
    with_own_gdt(SHIM_TSS, 0);
    __asm__ volatile("lldt %w0" : : "r"(0));
    write_msr(MSR_STAR, (uint64_t)XEN_CODE << 32);
    write_msr(MSR_LSTAR, (uintptr_t)syscall_entry);
    write_msr(MSR_CSTAR, (uintptr_t)syscall32_entry);
    write_msr(MSR_FMASK, FMASK);
    write_msr(MSR_EFER, 0xd01);
    __asm__ volatile("fninit");
    apic[APIC_SVR / 4] = 0x1ff;
    apic[APIC_DIVIDE / 4] = 0xb; /* by 1 */
    if (words[MAIL_SCALE])
        measure();
    apic[APIC_TIMER / 4] = VECTOR_TIMER;
    cr0 = 0x80010033;
    cr4 = 0; /* as nobody has set TSD yet */
    ask_cpuid();
    words[MAIL_VECTOR] = VECTOR_READY;
}

static void write_port(uint16_t port) { __asm__ volatile("outb %b0, %w1" : : "a"(0), "d"(port) : "memory"); }

static void barrier(void) /* QEMU takes a lock for a port; of one CPU it leaves barriers out */
{
    uint8_t value;
    __asm__ volatile("inb %w1, %0" : "=a"(value) : "d"(PORT_GATE) : "memory");
}

/* Each side says for which turn it sleeps before it looks for the last time. A write to the gate too many does no harm:
 * the next sleep ends early, and begins again. */
static void ring_and_wait(void)
{
    words[MAIL_DONE] = ++turn;
    if (words[MAIL_ENGINE_SLEEPS] == turn)
        write_port(PORT_BELL);
    for (uint64_t looks = words[MAIL_PATIENCE]; looks && words[MAIL_TURN] != turn; looks--)
        ;
    while (words[MAIL_TURN] != turn) {
        words[MAIL_SHIM_SLEEPS] = turn;
        barrier();
        if (words[MAIL_TURN] != turn)
            write_port(PORT_GATE);
    }
}

/* One that cannot be loaded becomes null, as an iret makes it. */
__attribute__((noinline)) static void load_segments(void)
{
#define LOAD(name, i) \
    if (words[DS + i] != selectors[i]) { \
        uint64_t selector = words[DS + i]; \
        __asm__ volatile(".globl load_" #name ", null_" #name "\nload_" #name ": mov %%eax, %%" #name "\n\tjmp 1f\n" \
                         "null_" #name ": xor %%eax, %%eax\n\tmov %%eax, %%" #name "\n1:" : "+a"(selector)); \
        selectors[i] = words[DS + i] = selector; \
        if (i >= 2) \
            bases[i - 2] = ~words[FS_BASE + i - 2]; \
    }
    LOAD(ds, 0)
    LOAD(es, 1)
    LOAD(fs, 2)
    LOAD(gs, 3)
    for (int i = 0; i < 2; i++)
        if (words[FS_BASE + i] != bases[i])
            write_msr(MSR_FS_BASE + i, words[FS_BASE + i]);
}

static void save_segments(void)
{
#define SAVE(name, i) \
    do { \
        uint64_t value; \
        __asm__ volatile("mov %%" #name ", %0" : "=r"(value)); \
        words[DS + i] = selectors[i] = value & 0xffff; \
    } while (0)
    SAVE(ds, 0);
    SAVE(es, 1);
    SAVE(fs, 2);
    SAVE(gs, 3);
    for (int i = 0; i < 2; i++)
        words[FS_BASE + i] = bases[i] = read_msr(MSR_FS_BASE + i);
}

static uint64_t segment_base(uint64_t selector)
{
    const uint64_t table = selector & 4 ? 0 : *(const uint64_t *)((uintptr_t)&words[MAIL_GDT] + 8);
    if (!table)
        return 0;
    const uint64_t d = *(const uint64_t *)(table + (selector & ~7ULL));
    return d >> 32 & LONG_CODE ? 0 : (d >> 16 & 0xffffff) | (d >> 32 & 0xff000000);
}

/* The bytes of code there, as far as they can be read. */
COLD static void fetch_code(uint64_t rip)
{
    const char *from = (const char *)(rip + segment_base(words[CS]));
    volatile char *to = (volatile char *)&words[MAIL_CODE];
    uint64_t left = 15;
    __asm__ volatile(".globl copy_code, copy_end\ncopy_code: rep movsb\ncopy_end:"
                     : "+S"(from), "+D"(to), "+c"(left) : : "memory");
    words[MAIL_CODE_SIZE] = 15 - left;
}

/* Steps are not the guest's to see. What is about to run is noted, behind loads of SS, as those are stepped with the
 * next instruction; a pushf that was stepped has TF taken out of what it pushed. */
COLD static void before_step(void)
{
    Code d = {.wide = is_wide(words[CS])};
    int found = 0, length;
    for (int loads = 0; loads < MOST_LOADS; loads++) {
        fetch_code(words[MAIL_ENTERED]);
        found = decode(&d, (const uint8_t *)&words[MAIL_CODE], (int)words[MAIL_CODE_SIZE]);
        if (!found || !(length = stack_load_length(&d)))
            break;
        words[MAIL_ENTERED] += (uint64_t)length;
    }
    words[MAIL_STEPPED] = found ? (uint64_t)d.opcode : 0;
    stepped_tf = words[RFLAGS] & TF;
}

/* 32-bit code may have it anywhere: where the place is not found nothing is done. */
COLD static void clear_pushed_tf(void)
{
    uint64_t at = words[RSP] + 1;
    if (!is_wide(words[CS]) && !(words[RSP] >> 32))
        at = (uint32_t)(at + segment_base(words[SS]));
    __asm__ volatile(".globl clear_tf, clear_end\nclear_tf: andb $0xfe, (%0)\nclear_end:" : : "r"(at) : "memory", "cc");
}

COLD static void behind_step(void)
{
    if (words[MAIL_FLAGS] & TF && words[MAIL_STEPPED] == PUSHF && !stepped_tf)
        clear_pushed_tf();
}

/* On the way to a taken jump: whether that is still to come, and nothing else is to be told. What RFLAGS has of the
 * steps is taken out. */
COLD static int steps_on(void)
{
    uint64_t dr6;
    __asm__ volatile("mov %%dr6, %0" : "=r"(dr6));
    const uint64_t went = words[RIP] - words[MAIL_ENTERED], own = words[MAIL_STEPPED];
    const uint64_t flags = words[RFLAGS] & ~(uint64_t)(own == POPF || own == IRET ? RF : RF | TF);
    if (!(dr6 & DR6_STEP) || dr6 & 15 || flags & TF ||
        has_jumped((const uint8_t *)&words[MAIL_CODE], (int)words[MAIL_CODE_SIZE], is_wide(words[CS]), went))
        return 0;
    __asm__ volatile("mov %0, %%dr6" : : "r"((uint64_t)DR6_NONE));
    words[MAIL_TO_JUMP]--;
    words[MAIL_FLAGS] &= ~(uint64_t)RF;
    words[MAIL_ENTERED] = words[RIP];
    words[RFLAGS] = flags;
    arm = 0;
    before_step();
    return 1;
}

COLD static void load_debug(void)
{
    __asm__ volatile("mov %0, %%dr7" : : "r"((uint64_t)DR7_NONE));
    __asm__ volatile("mov %0, %%dr0" : : "r"(words[MAIL_DR]));
    __asm__ volatile("mov %0, %%dr1" : : "r"(words[MAIL_DR + 1]));
    __asm__ volatile("mov %0, %%dr2" : : "r"(words[MAIL_DR + 2]));
    __asm__ volatile("mov %0, %%dr3" : : "r"(words[MAIL_DR + 3]));
    __asm__ volatile("mov %0, %%dr7" : : "r"(words[MAIL_DR7]));
}

static void write_xcr0(uint64_t value)
{
    __asm__ volatile("xsetbv" : : "c"(0), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

COLD static void with_extended(int save)
{
    const uint32_t states = (uint32_t)words[MAIL_STATES];
    uint32_t low = 0, high;
    __asm__ volatile("clts");
    if (states) { /* the guest's XCR0 may have fewer */
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        write_xcr0(states);
    }
    if (states && save)
        __asm__ volatile("xsave64 %0" : "+m"(*(char (*)[4096])extended) : "a"(states), "d"(0));
    else if (states)
        __asm__ volatile("xrstor64 %0" : : "m"(*(char (*)[4096])extended), "a"(states), "d"(0));
    else if (save)
        __asm__ volatile("fxsave64 %0" : "=m"(*(char (*)[512])extended));
    else
        __asm__ volatile("fxrstor64 %0" : : "m"(*(char (*)[512])extended));
    if (states)
        write_xcr0(low);
    __asm__ volatile("mov %0, %%cr0" : : "r"(cr0));
}

static void load_cr4(void)
{
    if (words[CR4] == cr4)
        return;
    cr4 = words[CR4];
    __asm__ volatile("mov %0, %%cr4" : : "r"(cr4 | CR4_TSD) : "memory");
}

COLD static void load_xcr0(void)
{
    load_cr4();
    write_xcr0(words[MAIL_XCR0]);
}

/* QEMU drops the code that it translated from a page when that is written to. */
COLD static void touch(void)
{
    const char *from = touched;
    char *to = touched;
    uint64_t count = 512;
    __asm__ volatile("invlpg %0" : : "m"(*touched));
    __asm__ volatile("rep movsq" : "+S"(from), "+D"(to), "+c"(count) : : "memory");
}

COLD static void set_ldt(void)
{
    own_gdt[SHIM_LDT / 8] = words[MAIL_LDT];
    own_gdt[SHIM_LDT / 8 + 1] = words[MAIL_LDT + 1];
    if (words[MAIL_LDT])
        with_own_gdt(SHIM_LDT, 1);
    else
        __asm__ volatile("lldt %w0" : : "r"(0));
}

static void answer(void)
{
    for (;;) {
        ring_and_wait();
        switch (words[MAIL_COMMAND]) {
        case COMMAND_SAVE:
        case COMMAND_RESTORE:
            with_extended(words[MAIL_COMMAND] == COMMAND_SAVE);
            break;
        case COMMAND_LDT:
            set_ldt();
            break;
        case COMMAND_TOUCH:
            touch();
            break;
        case COMMAND_DEBUG:
            load_debug();
            break;
        case COMMAND_XCR0:
            load_xcr0();
            break;
        default:
            return;
        }
    }
}

/* What the caller changed goes into the CPU; the general registers go on the way into the guest. */
static void apply(void)
{
    load_cr4();
    if (words[CR0] != cr0) {
        cr0 = words[CR0];
        __asm__ volatile("mov %0, %%cr0" : : "r"(cr0) : "memory");
    }
    if (words[CR3] != cr3 || words[FLUSH]) {
        cr3 = words[CR3];
        __asm__ volatile("mov %0, %%cr3" : : "r"(cr3) : "memory");
        words[FLUSH] = 0;
        words[FLUSHES]++;
    }
    load_segments();
    if (words[MAIL_FLAGS] & TF)
        before_step();
}

/* Has the timer fire at the alarm, or before it. */
static void set_alarm(void)
{
    const uint64_t left = words[MAIL_ALARM] - words[RETIRED];
    arm = 0;
    if (armed && fires_at + SLACK <= scaled(ticks()) + left)
        return;
    arm = (left < LONGEST ? (uint32_t)left : LONGEST) + TIMER_EXTRA;
    armed = 1;
    fires_at = scaled(ticks()) + arm;
}

COLD void wait_first(void)
{
    answer();
    load_gdt();
    apply();
    set_alarm();
}

/* Something left the guest; back when it is to go on. */
void came(uint64_t vector, uint64_t code)
{
    if (words[MAIL_SCALE])
        words[RETIRED] += vector < VECTOR_ENTRY ? scaled(words[MAIL_TSC_IN] - words[MAIL_TSC_OUT]) : 0;
    else if (vector < VECTOR_ENTRY)
        words[RETIRED] += words[MAIL_TSC_IN] - words[MAIL_TSC_OUT] -
                          (vector >= VECTOR_SYSCALL ? SYSCALL_COUNT : SHIM_COUNT) - nested;
    nested = 0;
    if (vector == VECTOR_TIMER) {
        apic[APIC_EOI / 4] = 0;
        armed = 0;
        if (words[RETIRED] < words[MAIL_ALARM]) {
            set_alarm();
            return;
        }
    }
    if (vector == 1) {
        behind_step();
        if (words[MAIL_TO_JUMP] && steps_on())
            return;
    }
    save_segments();
    words[MAIL_VECTOR] = vector;
    words[EXIT_ERROR_CODE] = code;
    if ((vector & 0x1ff) == 14)
        __asm__ volatile("mov %%cr2, %0" : "=r"(words[CR2]));
    if (vector == 1) {
        __asm__ volatile("mov %%dr6, %0" : "=r"(words[MAIL_DR6]));
        __asm__ volatile("mov %0, %%dr6" : : "r"((uint64_t)DR6_NONE));
        if (words[MAIL_DR6] & 15)
            load_debug(); /* or QEMU tells of the hit at the next step again */
    }
    if (vector == 13 || vector == 6 || (vector == 1 && !(words[MAIL_FLAGS] & TF))) /* before_step() did, of that */
        fetch_code(words[RIP]);
    answer();
    apply();
    set_alarm();
}
