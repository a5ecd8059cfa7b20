/* Clocks never run backwards, whichever way they are read, and sleeps last as long as they were asked to. */
#include "check.h"

#include <elf.h>
#include <poll.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define READINGS 1500
#define MS 1000000LL

static const struct named_clock {
    const char *name;
    clockid_t id;
} all[] = {
    {"REALTIME", CLOCK_REALTIME},
    {"MONOTONIC", CLOCK_MONOTONIC},
    {"MONOTONIC_RAW", CLOCK_MONOTONIC_RAW},
    {"BOOTTIME", CLOCK_BOOTTIME},
    {"TAI", CLOCK_TAI},
    {"REALTIME_COARSE", CLOCK_REALTIME_COARSE},
    {"MONOTONIC_COARSE", CLOCK_MONOTONIC_COARSE},
    {"PROCESS_CPUTIME_ID", CLOCK_PROCESS_CPUTIME_ID},
    {"THREAD_CPUTIME_ID", CLOCK_THREAD_CPUTIME_ID},
};
#define CLOCKS (sizeof all / sizeof *all)

/* The kernel's own answer, without the vDSO. */
static int64_t asked(clockid_t clock)
{
    struct timespec now;
    TRY(syscall(SYS_clock_gettime, clock, &now));
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void monotonic(const struct named_clock *clock)
{
    int64_t before = clock_ns(clock->id), first = before;
    for (int i = 0; i < READINGS; i++) {
        int64_t now = i % 2 ? asked(clock->id) : clock_ns(clock->id);
        CHECK(now >= before, "CLOCK_%s went back by %ld ns at reading %d", clock->name, before - now, i);
        before = now;
    }
    CHECK(before - first < 20000 * MS, "CLOCK_%s took %ld ns for %d readings", clock->name, before - first, READINGS);
}

static uint64_t tsc(void)
{
    uint32_t low, high;
    asm volatile("lfence; rdtsc" : "=a"(low), "=d"(high));
    return low | (uint64_t)high << 32;
}

static void tsc_runs_on(void)
{
    uint64_t before = tsc(), first = before;
    for (int i = 0; i < 20000; i++) {
        uint64_t now = tsc();
        CHECK(now >= before, "rdtsc went back by %lu at reading %d", before - now, i);
        before = now;
    }
    CHECK(before > first, "rdtsc stands still");
}

static void time_of_day(void)
{
    struct timeval day;
    int64_t before = clock_ns(CLOCK_REALTIME);
    TRY(gettimeofday(&day, NULL));
    int64_t found = day.tv_sec * 1000000000LL + day.tv_usec * 1000LL, after = clock_ns(CLOCK_REALTIME);
    CHECK(found >= before - 1000 && found <= after, "gettimeofday() is %ld ns off CLOCK_REALTIME", found - before);
    CHECK(labs((long)(time(NULL) - clock_ns(CLOCK_REALTIME) / 1000000000)) <= 1, "time() is off CLOCK_REALTIME");
}

static void vdso_is_there(void)
{
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)getauxval(AT_SYSINFO_EHDR);
    CHECK(header, "no AT_SYSINFO_EHDR: the kernel maps no vDSO");
    CHECK(!memcmp(header->e_ident, ELFMAG, SELFMAG), "the vDSO is no ELF file");
    CHECK(header->e_machine == EM_X86_64, "the vDSO is for machine %d", header->e_machine);
}

/* The kernel emulates the old entry at a fixed kernel address, by a page fault on fetching from it. */
static void vsyscall_page(void)
{
    char line[256];
    int there = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps))
        there |= strstr(line, "[vsyscall]") != NULL;
    if (maps)
        fclose(maps);
    if (!there)
        return;
    time_t (*old_time)(time_t *) = (time_t (*)(time_t *))0xffffffffff600400;
    time_t before = time(NULL), found = old_time(NULL);
    CHECK(found - before >= 0 && found - before < 2, "the vsyscall page says %ld, not %ld", (long)found, (long)before);
}

void clocks(void)
{
    vdso_is_there();
    vsyscall_page();
    tsc_runs_on();
    time_of_day();
    for (size_t i = 0; i < CLOCKS; i++)
        monotonic(&all[i]);
}

/* ---- sleeps ---- */

static void sleep_ns(int64_t ns)
{
    struct timespec wanted = {ns / 1000000000, ns % 1000000000};
    TRY(nanosleep(&wanted, NULL));
}

static void poll_ns(int64_t ns)
{
    TRY(poll(NULL, 0, ns / MS));
}

static void until_ns(int64_t ns)
{
    int64_t end = clock_ns(CLOCK_MONOTONIC) + ns;
    struct timespec wanted = {end / 1000000000, end % 1000000000};
    CHECK(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wanted, NULL) == 0, "clock_nanosleep() failed");
}

static void select_ns(int64_t ns)
{
    struct timeval wanted = {ns / 1000000000, ns % 1000000000 / 1000};
    TRY(select(0, NULL, NULL, NULL, &wanted));
}

/* Not a nanosecond too short; at most `late` too long. All wall clocks agree on what it was, the TSC moved too. */
static void slept(void (*how)(int64_t), const char *name, int64_t ns, int64_t late)
{
    int64_t before[5];
    uint64_t ticks = tsc();
    for (int i = 0; i < 5; i++)
        before[i] = clock_ns(all[i].id);
    how(ns);
    for (int i = 0; i < 5; i++) {
        int64_t took = clock_ns(all[i].id) - before[i];
        int64_t slack = all[i].id == CLOCK_MONOTONIC_RAW || all[i].id == CLOCK_REALTIME ? ns / 1000 : 0;
        CHECK(took >= ns - slack, "%s of %ld ns took %ld ns by CLOCK_%s", name, ns, took, all[i].name);
        CHECK(took <= ns + slack + late, "%s of %ld ns took %ld ns by CLOCK_%s", name, ns, took, all[i].name);
    }
    CHECK(tsc() - ticks > (uint64_t)ns / 10, "the TSC moved by %lu in %ld ns", tsc() - ticks, ns);
}

void sleeps(void)
{
    static const int64_t lengths[] = {1 * MS, 3 * MS, 10 * MS, 100 * MS, 1500 * MS};
    int64_t cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        slept(sleep_ns, "nanosleep", lengths[i], 100 * MS);
        slept(poll_ns, "poll", lengths[i], 100 * MS);
        slept(until_ns, "clock_nanosleep", lengths[i], 100 * MS);
        slept(select_ns, "select", lengths[i], 100 * MS);
    }
    cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    CHECK(cpu < 1000 * MS, "sleeping cost %ld ns of CPU time", cpu);
}
