/* mmap, mprotect, munmap, mremap and fork, at random but repeatable, compared with a model after each. */
#include "check.h"

#include <setjmp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 192
#define STEPS 1500

/* What a page should be: its protection (-1: not mapped) and the number that fills it. */
static struct page {
    int protection;
    uint64_t fill;
} model[PAGES];
static uint8_t *area;
static sigjmp_buf back;
static volatile uintptr_t fault_at;

static void faulted(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    fault_at = (uintptr_t)info->si_addr;
    siglongjmp(back, 1);
}

static uint64_t *word(int page, int index)
{
    return (uint64_t *)(area + page * PAGE) + index;
}

static int can_read(int page)
{
    volatile uint64_t *at = word(page, 511);
    if (sigsetjmp(back, 1))
        return 0;
    (void)*at;
    return 1;
}

static int can_write(int page)
{
    volatile uint64_t *at = word(page, 511);
    if (sigsetjmp(back, 1))
        return 0;
    *at = *at;
    return 1;
}

static void verify(int page, int step)
{
    int protection = model[page].protection;
    int readable = protection > 0, writable = protection > 0 && (protection & PROT_WRITE);
    uintptr_t address = (uintptr_t)word(page, 511);
    CHECK(can_read(page) == readable, "step %d: page %d with protection %d is %sreadable", step, page, protection,
          readable ? "not " : "");
    CHECK(readable || fault_at == address, "step %d: si_addr %#lx, not %#lx", step, fault_at, address);
    CHECK(can_write(page) == writable, "step %d: page %d with protection %d is %swritable", step, page, protection,
          writable ? "not " : "");
    CHECK(writable || fault_at == address, "step %d: si_addr %#lx, not %#lx", step, fault_at, address);
    for (int i = 0; readable && i < 512; i += 73) {
        uint64_t expected = model[page].fill ? model[page].fill + i : 0;
        CHECK(*word(page, i) == expected, "step %d: page %d, word %d is %#lx", step, page, i, *word(page, i));
    }
}

static void map(int first, int count, int protection)
{
    void *at = area + first * PAGE;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    CHECK(mmap(at, count * PAGE, protection, flags, -1, 0) == at, "mmap of %d pages failed", count);
    for (int i = first; i < first + count; i++)
        model[i] = (struct page){protection, 0};
}

static void unmap(int first, int count)
{
    TRY(munmap(area + first * PAGE, count * PAGE));
    for (int i = first; i < first + count; i++)
        model[i] = (struct page){-1, 0};
}

/* mprotect() stops with ENOMEM at a hole, so only what is mapped is asked for. */
static void protect(int first, int count, int protection)
{
    for (int i = first; i < first + count; i++)
        if (model[i].protection >= 0) {
            TRY(mprotect(area + i * PAGE, PAGE, protection));
            model[i].protection = protection;
        }
}

static void fill(int first, int count, uint64_t value)
{
    for (int page = first; page < first + count; page++)
        if (model[page].protection > 0 && (model[page].protection & PROT_WRITE)) {
            for (int i = 0; i < 512; i++)
                *word(page, i) = value + i;
            model[page].fill = value;
        }
}

static void discard(int first, int count)
{
    for (int i = first; i < first + count; i++)
        if (model[i].protection >= 0) {
            TRY(madvise(area + i * PAGE, PAGE, MADV_DONTNEED));
            model[i].fill = 0;
        }
}

/* Moves one page over another: contents and protection go along, a hole stays. */
static void move(int from, int to)
{
    void *target = area + to * PAGE;
    if (from == to || model[from].protection < 0)
        return;
    CHECK(mremap(area + from * PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target) == target, "mremap failed");
    model[to] = model[from];
    model[from] = (struct page){-1, 0};
}

/* The child checks the whole, spoils what it can and ends; the parent's next checks see whether that leaked. */
static void branch(int step)
{
    pid_t child = TRY(fork());
    if (child == 0) {
        for (int i = 0; i < PAGES; i++)
            verify(i, step);
        fill(0, PAGES, 0xbad);
        for (int i = 0; i < PAGES; i++)
            verify(i, step);
        _exit(0);
    }
    expect_exit(child, 0);
}

static void step(struct random *random, int number)
{
    static const int protections[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE};
    int first = random_below(random, PAGES);
    int count = 1 + random_below(random, PAGES - first < 16 ? PAGES - first : 16);
    int protection = protections[random_below(random, 4)];
    switch (random_below(random, 8)) {
    case 0: map(first, count, protection); break;
    case 1: unmap(first, count); break;
    case 2: protect(first, count, protection); break;
    case 3: discard(first, count > 4 ? 4 : count); break;
    case 4: move(first, random_below(random, PAGES)); break;
    default: fill(first, count, random_next(random) | 1); break;
    }
    if (number % 250 == 249)
        branch(number);
    for (int i = 0; i < 4; i++)
        verify(random_below(random, PAGES), number);
}

void churn(void)
{
    struct random random = {.seed = 0x5eed};
    area = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(area != MAP_FAILED, "no memory");
    catch_signal(SIGSEGV, faulted, 0);
    map(0, PAGES, PROT_READ | PROT_WRITE);
    for (int i = 0; i < STEPS; i++)
        step(&random, i);
    for (int i = 0; i < PAGES; i++)
        verify(i, STEPS);
}

/* ---- copy on write ---- */

#define COW_PAGES 256

static void check_pages(const uint64_t *words, const uint64_t *values, const char *who)
{
    for (int i = 0; i < COW_PAGES; i++)
        CHECK(words[i * 512] == values[i] && words[i * 512 + 511] == ~values[i], "%s: page %d holds %#lx, not %#lx",
              who, i, words[i * 512], values[i]);
}

static void set_page(uint64_t *words, uint64_t *values, int page, uint64_t value)
{
    words[page * 512] = values[page] = value;
    words[page * 512 + 511] = ~value;
}

/* Each generation writes every third page and forks the next one; on the way back each must find its own. */
static void generation(uint64_t *words, uint64_t *values, int level)
{
    if (level == 5)
        return;
    pid_t child = TRY(fork());
    if (child == 0) {
        check_pages(words, values, "a child right after fork");
        for (int i = level % 3; i < COW_PAGES; i += 3)
            set_page(words, values, i, random_at(level + 1, i));
        generation(words, values, level + 1);
        check_pages(words, values, "a child at its end");
        _exit(0);
    }
    for (int i = 1; i < COW_PAGES; i += 4)
        set_page(words, values, i, random_at(100 + level, i));
    expect_exit(child, 0);
    check_pages(words, values, "a parent after its child's end");
}

void cow(void)
{
    static uint64_t values[COW_PAGES];
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    uint64_t *words = mmap(NULL, COW_PAGES * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
    volatile uint64_t *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(words != MAP_FAILED && shared != MAP_FAILED, "no memory");
    for (int i = 0; i < COW_PAGES; i++)
        set_page(words, values, i, random_at(0, i));
    for (int round = 0; round < 5; round++)
        generation(words, values, 0);
    for (int i = 0; i < 20; i++) {
        pid_t child = vfork();
        if (child == 0) {
            *shared += i;
            _exit(3);
        }
        expect_exit(child, 3);
    }
    CHECK(*shared == 190, "a shared page holds %lu after vfork()s, not 190", *shared);
}
