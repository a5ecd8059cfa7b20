/* Segment bases and local descriptors: each process has its own, and gets them back after every switch. */
#include "check.h"

#include <asm/ldt.h>
#include <asm/prctl.h>
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define YIELDS 300
#define FSGSBASE_HWCAP2 2 /* HWCAP2_FSGSBASE, asm/hwcap2.h */

static uint64_t gs_word(void)
{
    uint64_t value;
    asm volatile("mov %%gs:0, %0" : "=r"(value));
    return value;
}

static void set_gs(const void *base)
{
    TRY(syscall(SYS_arch_prctl, ARCH_SET_GS, base));
}

/* %fs is the C library's: no C may run while it points elsewhere. Returns what %fs:0 held after a sched_yield(). */
uint64_t with_fs_base(const void *base, unsigned long old);
asm(".text\n"
    "with_fs_base:\n"
    "   push %rbx; push %r12\n"
    "   mov %rsi, %r12\n"
    "   mov %rdi, %rsi; mov $0x1002, %edi; mov $158, %eax; syscall\n" /* arch_prctl(ARCH_SET_FS, base) */
    "   mov $24, %eax; syscall\n"                                     /* sched_yield() */
    "   mov %fs:0, %rbx\n"
    "   mov %r12, %rsi; mov $0x1002, %edi; mov $158, %eax; syscall\n"
    "   mov %rbx, %rax\n"
    "   pop %r12; pop %rbx; ret\n");

static void check_bases(uint64_t me)
{
    static uint64_t words[2];
    unsigned long old_fs, gs;
    TRY(syscall(SYS_arch_prctl, ARCH_GET_FS, &old_fs));
    for (int i = 0; i < YIELDS; i++) {
        uint64_t *mine = &words[i % 2];
        *mine = random_at(me, i);
        set_gs(mine);
        sched_yield();
        CHECK(gs_word() == *mine, "yield %d: %%gs:0 holds %#lx, not %#lx", i, gs_word(), *mine);
        TRY(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
        CHECK(gs == (uintptr_t)mine, "yield %d: ARCH_GET_GS says %#lx", i, gs);
        uint64_t found = with_fs_base(mine, old_fs);
        CHECK(found == *mine, "yield %d: %%fs:0 held %#lx, not %#lx", i, found, *mine);
    }
}

static void check_fsgsbase(void)
{
    static uint64_t words[2] = {0x6e6, 0xf5f};
    uint64_t read_back;
    for (int i = 0; i < YIELDS; i++) {
        asm volatile("wrgsbase %0" : : "r"(&words[i % 2]));
        sched_yield();
        asm volatile("rdgsbase %0" : "=r"(read_back));
        CHECK(read_back == (uintptr_t)&words[i % 2], "rdgsbase gives %#lx after a switch", read_back);
        CHECK(gs_word() == words[i % 2], "%%gs:0 holds %#lx after wrgsbase", gs_word());
    }
}

static void both(void (*check)(uint64_t))
{
    pid_t child = TRY(fork());
    if (child == 0) {
        check(0xc41d);
        _exit(0);
    }
    check(0xfa7e);
    expect_exit(child, 0);
}

void segment_bases(void)
{
    both(check_bases);
    set_gs((void *)0x1000);
    CHECK(syscall(SYS_arch_prctl, ARCH_SET_GS, 0xffff800000000000) == -1 && errno == EPERM,
          "a kernel address is taken for a segment base");
    if (getauxval(AT_HWCAP2) & FSGSBASE_HWCAP2)
        check_fsgsbase();
    else
        note("no FSGSBASE here: not tried");
}

/* ---- local descriptors ---- */

static uint64_t *low_memory; /* a descriptor's base has 32 bits */

static void describe(int entry, const void *base)
{
    struct user_desc what = {
        .entry_number = entry, .base_addr = (uintptr_t)base, .limit = 0xfff, .seg_32bit = 1, .useable = 1,
    };
    TRY(syscall(SYS_modify_ldt, 0x11, &what, sizeof what));
}

static void load_gs(unsigned selector)
{
    asm volatile("mov %0, %%gs" : : "r"(selector));
}

#define LOCAL(entry) ((entry) << 3 | 7)

static void check_ldt(uint64_t me)
{
    uint64_t *mine = low_memory + (me & 1) * 64;
    for (int i = 0; i < 100; i++) {
        int entry = i % 5;
        mine[entry] = random_at(me, i);
        describe(entry, &mine[entry]);
        load_gs(LOCAL(entry));
        sched_yield();
        CHECK(gs_word() == mine[entry], "%#x: %%gs:0 holds %#lx, not %#lx, after a switch", LOCAL(entry), gs_word(),
              mine[entry]);
        load_gs(0);
    }
}

static void check_table(void)
{
    uint64_t table[8] = {0};
    describe(6, low_memory);
    long size = TRY(syscall(SYS_modify_ldt, 0, table, sizeof table));
    uint64_t base = (table[6] >> 16 & 0xffffff) | (table[6] >> 32 & 0xff000000);
    CHECK(size == sizeof table, "modify_ldt() read %ld bytes", size);
    CHECK(base == (uintptr_t)low_memory, "descriptor 6 has the base %#lx, not %p", base, (void *)low_memory);
    CHECK((table[6] & 0xffff) == 0xfff, "descriptor 6 has the limit %#lx", table[6] & 0xffff);
}

void ldt(void)
{
    low_memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    CHECK(low_memory != MAP_FAILED, "no memory below 2 GiB");
    if (syscall(SYS_modify_ldt, 0, NULL, 0) == -1 && errno == ENOSYS) {
        note("the kernel has no modify_ldt(): not tried");
        return;
    }
    check_table();
    both(check_ldt);
}
