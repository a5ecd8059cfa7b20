/* Timers of every kind: as many expirations as were asked for, when they were asked for. */
#include "check.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MS 1000000LL
#define LATE (100 * MS)

static volatile sig_atomic_t ticks;

static void tick(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info, (void)context;
    ticks++;
}

static void expect_took(int64_t began, int64_t wanted, const char *what)
{
    int64_t took = clock_ns(CLOCK_MONOTONIC) - began;
    CHECK(took >= wanted && took <= wanted + LATE, "%s took %ld ns, not %ld", what, took, wanted);
}

static void periodic_signal(void)
{
    struct itimerval every = {{0, 10000}, {0, 10000}}, never = {{0, 0}, {0, 0}};
    sigset_t block, old;
    sigemptyset(&block);
    sigaddset(&block, SIGALRM);
    TRY(sigprocmask(SIG_BLOCK, &block, &old));
    catch_signal(SIGALRM, tick, 0);
    int64_t began = clock_ns(CLOCK_MONOTONIC);
    TRY(setitimer(ITIMER_REAL, &every, NULL));
    for (ticks = 0; ticks < 30;)
        sigsuspend(&old);
    TRY(setitimer(ITIMER_REAL, &never, NULL));
    expect_took(began, 300 * MS, "30 ticks of setitimer at 10 ms");
    TRY(sigprocmask(SIG_SETMASK, &old, NULL));
}

static void timer_files(void)
{
    struct itimerspec every = {{0, 5 * MS}, {0, 5 * MS}};
    uint64_t count = 0, total = 0;
    int fd = TRY(timerfd_create(CLOCK_MONOTONIC, 0));
    int64_t began = clock_ns(CLOCK_MONOTONIC);
    TRY(timerfd_settime(fd, 0, &every, NULL));
    while (total < 20) {
        read_all(fd, &count, sizeof count);
        total += count;
    }
    expect_took(began, 100 * MS, "20 expirations of timerfd at 5 ms");
    usleep(52000);
    read_all(fd, &count, sizeof count);
    CHECK(count >= 9 && count <= 30, "%lu expirations of timerfd in 52 ms at 5 ms", count);
    close(fd);
    struct pollfd waiting = {.fd = TRY(timerfd_create(CLOCK_REALTIME, 0)), .events = POLLIN};
    int64_t due = clock_ns(CLOCK_REALTIME) + 40 * MS;
    struct itimerspec at = {{0, 0}, {due / 1000000000, due % 1000000000}};
    TRY(timerfd_settime(waiting.fd, TFD_TIMER_ABSTIME, &at, NULL));
    CHECK(poll(&waiting, 1, 5000) == 1, "a timerfd at an absolute time did not expire");
    CHECK(clock_ns(CLOCK_REALTIME) >= due, "a timerfd expired %ld ns early", due - clock_ns(CLOCK_REALTIME));
    close(waiting.fd);
}

static void posix_timer(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec every = {{0, 4 * MS}, {0, 4 * MS}};
    timer_t timer;
    sigset_t wanted;
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGUSR1);
    TRY(sigprocmask(SIG_BLOCK, &wanted, NULL));
    TRY(timer_create(CLOCK_MONOTONIC, &event, &timer));
    int64_t began = clock_ns(CLOCK_MONOTONIC);
    TRY(timer_settime(timer, 0, &every, NULL));
    for (int total = 0; total < 25;) {
        siginfo_t info;
        CHECK(sigwaitinfo(&wanted, &info) == SIGUSR1, "sigwaitinfo() failed");
        CHECK(info.si_code == SI_TIMER, "a timer's signal has si_code %d", info.si_code);
        total += 1 + info.si_overrun;
    }
    expect_took(began, 100 * MS, "25 ticks of timer_create at 4 ms");
    TRY(timer_delete(timer));
}

static void cpu_timer(int which, int signal, const char *name)
{
    struct itimerval once = {{0, 0}, {0, 60000}};
    catch_signal(signal, tick, 0);
    ticks = 0;
    int64_t began = clock_ns(CLOCK_PROCESS_CPUTIME_ID), limit = clock_ns(CLOCK_MONOTONIC) + 10000 * MS;
    TRY(setitimer(which, &once, NULL));
    while (!ticks)
        for (volatile int i = 0; i < 20000; i++)
            if (!i)
                CHECK(clock_ns(CLOCK_MONOTONIC) < limit, "%s did not expire in 10 s", name);
    int64_t used = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - began;
    CHECK(used >= 50 * MS && used < 500 * MS, "%s of 60 ms expired after %ld ns of CPU time", name, used);
}

static void waits_with_timeout(void)
{
    uint32_t word = 1;
    struct timespec limit = {0, 20 * MS};
    int64_t began = clock_ns(CLOCK_MONOTONIC);
    CHECK(syscall(SYS_futex, &word, FUTEX_WAIT, 1, &limit, NULL, 0) == -1 && errno == ETIMEDOUT, "futex: errno %d",
          errno);
    expect_took(began, 20 * MS, "a futex wait of 20 ms");
    sigset_t none;
    sigemptyset(&none);
    sigaddset(&none, SIGUSR2);
    TRY(sigprocmask(SIG_BLOCK, &none, NULL));
    began = clock_ns(CLOCK_MONOTONIC);
    CHECK(sigtimedwait(&none, NULL, &limit) == -1 && errno == EAGAIN, "sigtimedwait: errno %d", errno);
    expect_took(began, 20 * MS, "a sigtimedwait of 20 ms");
}

void timers(void)
{
    periodic_signal();
    timer_files();
    posix_timer();
    cpu_timer(ITIMER_VIRTUAL, SIGVTALRM, "ITIMER_VIRTUAL");
    cpu_timer(ITIMER_PROF, SIGPROF, "ITIMER_PROF");
    waits_with_timeout();
}
