/* Faults that the handler mends: the instruction runs again and sees the mended world. */
#include "check.h"

#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGES 300

static uint8_t *area;
static volatile int faults;

static void unlock(int signal, siginfo_t *info, void *context)
{
    uint8_t *page = (uint8_t *)((uintptr_t)info->si_addr & -PAGE);
    (void)signal, (void)context;
    CHECK(page >= area && page < area + PAGES * PAGE, "si_addr %p is outside of the area", info->si_addr);
    TRY(mprotect(page, PAGE, PROT_READ | PROT_WRITE));
    faults++;
}

static void skip(int signal, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    (void)signal, (void)info;
    registers[REG_RIP] += 2;
    registers[REG_RAX] = ++faults;
}

void faults_resume(void)
{
    area = mmap(NULL, PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(area != MAP_FAILED, "no memory");
    catch_signal(SIGSEGV, unlock, 0);
    for (int i = 0; i < PAGES; i++) {
        volatile uint32_t *word = (uint32_t *)(area + i * PAGE + 4 * (i % 1000));
        *word += i;
        CHECK(*word == (uint32_t)i, "page %d holds %u", i, *word);
    }
    CHECK(faults == PAGES, "%d faults for %d pages", faults, PAGES);
    TRY(mprotect(area, PAGES * PAGE, PROT_NONE));
    /* One instruction that faults again and again on its way through all pages. */
    memset(area, 0x77, PAGES * PAGE);
    CHECK(faults == 2 * PAGES, "%d faults for %d pages, twice", faults, PAGES);
    for (size_t i = 0; i < PAGES * PAGE; i++)
        CHECK(area[i] == 0x77, "byte %zu was not written", i);
    faults = 0;
    catch_signal(SIGFPE, skip, 0);
    for (int i = 1; i <= 200; i++) {
        int answer = 1;
        asm volatile("div %%ecx" : "+a"(answer) : "c"(0), "d"(0) : "memory"); /* two bytes: skip() steps over them */
        CHECK(answer == i, "division %d left %d", i, answer);
    }
}
