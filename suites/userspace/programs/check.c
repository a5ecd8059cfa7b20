#include "check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* One write() a line, so that lines of several processes do not mix. `mark` tells main.c reasons from notes. */
static void say(char mark, const char *format, va_list arguments)
{
    char line[400];
    line[0] = mark;
    int size = 1 + vsnprintf(line + 1, sizeof line - 2, format, arguments);
    if (size > (int)sizeof line - 2)
        size = sizeof line - 2;
    line[size++] = '\n';
    if (write(STDOUT_FILENO, line, size) != size)
        _exit(99);
}

void note(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say('#', format, arguments);
    va_end(arguments);
}

static void reason(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say('!', format, arguments);
    va_end(arguments);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

void fail(const char *file, int line, const char *format, ...)
{
    char text[300];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    reason("%s (%s:%d)", text, base_name(file), line);
    _exit(1);
}

void fail_errno(const char *file, int line, const char *call)
{
    fail(file, line, "%s: %s", call, strerror(errno));
}

void expect_exit(pid_t child, int status)
{
    int how;
    TRY(waitpid(child, &how, 0));
    CHECK(!WIFSIGNALED(how), "a child was killed by signal %d (%s)", WTERMSIG(how), strsignal(WTERMSIG(how)));
    CHECK(WIFEXITED(how), "a child ended with the odd status %#x", how);
    CHECK(WEXITSTATUS(how) == status, "a child ended with status %d, not %d", WEXITSTATUS(how), status);
}

void catch_signal(int signal, handler_t handler, int flags)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    TRY(sigaction(signal, &action, NULL));
}

void read_all(int fd, void *buffer, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t count = TRY(read(fd, (char *)buffer + done, size - done));
        CHECK(count > 0, "end of file after %zu of %zu bytes", done, size);
        done += count;
    }
}

void write_all(int fd, const void *buffer, size_t size)
{
    for (size_t done = 0; done < size;)
        done += TRY(write(fd, (const char *)buffer + done, size - done));
}

int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    TRY(clock_gettime(clock, &now));
    CHECK(now.tv_nsec >= 0 && now.tv_nsec < 1000000000, "clock %d: tv_nsec is %ld", clock, now.tv_nsec);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

uint64_t random_at(uint64_t seed, uint64_t index)
{
    uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

uint64_t random_next(struct random *random)
{
    return random_at(random->seed, random->index++);
}

uint64_t random_below(struct random *random, uint64_t limit)
{
    return random_next(random) % limit;
}
