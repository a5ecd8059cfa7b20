/*
 * What every program of this folder shares.
 *
 * A program is a function that returns when all was as Linux and the architecture promise, and ends its process
 * through fail() at the first thing that was not. main.c runs each in a process of its own and prints its verdict.
 */
#ifndef CHECK_H
#define CHECK_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PAGE 4096UL

/* End this process with status 1 and the reason, unless `condition` holds. Usable in a signal handler. */
#define CHECK(condition, ...)                          \
    do {                                               \
        if (!(condition))                              \
            fail(__FILE__, __LINE__, __VA_ARGS__);     \
    } while (0)

/* The same for system calls that set errno: `-1` fails, with errno's text. The call's value otherwise. */
#define TRY(call)                                                       \
    ({                                                                  \
        long value_ = (long)(call);                                     \
        if (value_ == -1)                                               \
            fail_errno(__FILE__, __LINE__, #call);                      \
        value_;                                                         \
    })

_Noreturn void fail(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
_Noreturn void fail_errno(const char *file, int line, const char *call);

/* A line that is printed with the program's verdict: a measurement, a hash, why a part was left out. */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Wait for `child` and check that it ended by itself with `status`. */
void expect_exit(pid_t child, int status);

/* sigaction() for a handler with three arguments, with `flags` besides SA_SIGINFO. */
typedef void (*handler_t)(int, siginfo_t *, void *);
void catch_signal(int signal, handler_t handler, int flags);

/* read() and write() of exactly `size` bytes. */
void read_all(int fd, void *buffer, size_t size);
void write_all(int fd, const void *buffer, size_t size);

/* Seconds and nanoseconds of a clock as one number of nanoseconds. */
int64_t clock_ns(clockid_t clock);

/* splitmix64: number `index` of the sequence that `seed` starts. Any place can be computed without those before. */
uint64_t random_at(uint64_t seed, uint64_t index);

/* A generator on top of it: the next number, and the next one below `limit`. */
struct random {
    uint64_t seed, index;
};
uint64_t random_next(struct random *random);
uint64_t random_below(struct random *random, uint64_t limit);

/* A path that runs this program again: what a test gives to execve(). */
extern const char *self_path;
extern char **environ;

#endif
