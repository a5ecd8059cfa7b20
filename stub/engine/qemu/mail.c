/*
 * Waiting. Each side runs while the other waits. Each first looks again and again, as most stretches are short; then it
 * sleeps until a byte comes, or goes, through a pipe. Where other work leaves less than two processors nobody looks.
 */
#include "core.h"
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LOOKS = 100, LOOK_TIME = 300000 /* ns */, SHIM_LOOKS = 10000, LOAD_EXITS = 200 };
static const double LOAD_LENGTH = 16, LOAD_NOISE = 0.5; /* looks; processes that run for moments */
enum { LONGEST_SLEEP = 64, HANGS = 60000 /* ms */ };
#define SECOND 1000000000ULL

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

int out_of_patience(const Core *c)
{
    return c->word[PATIENCE] && now_ns() > c->word[PATIENCE];
}

/* Whether the shim has rung; nothing else is looked at. */
static inline int rung(const Core *c) { return c->word[MAIL_DONE] != c->word[MAIL_TURN]; }

/* Every now and then, when both the shim and the engine are to run: whether others leave less than two processors for
 * them, as an average of the last looks. */
static void look_at_load(Core *c)
{
    char text[64];
    int running;
    c->exits_to_load = LOAD_EXITS;
    const ssize_t n = pread(c->load, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = 0;
    if (sscanf(text, "%*s %*s %*s %d", &running) != 1)
        return;
    c->others += (running - 2 - c->others) / LOAD_LENGTH;
    c->busy = c->others + 2 > (double)sysconf(_SC_NPROCESSORS_ONLN) + LOAD_NOISE;
}

/* Looks for a ring for a while; whether it came. */
static int look_for_ring(Core *c)
{
    if (--c->exits_to_load < 0)
        look_at_load(c);
    if (c->busy)
        return rung(c);
    const uint64_t end = now_ns() + LOOK_TIME;
    do {
        for (int i = 0; i < LOOKS; i++) {
            if (rung(c))
                return 1;
            __builtin_ia32_pause();
        }
    } while (now_ns() < end);
    return 0;
}

/* Sleeps until a byte comes through the bell, or for a while; 0 if the process is no more. The shim has no memory
 * barrier between its ring and its look at whether somebody sleeps, so that once in a long while no byte comes. */
static int sleep_for_ring(Core *c, int *ms, int *in_vain)
{
    char bytes[256];
    struct pollfd bell = {.fd = c->bell, .events = POLLIN};
    const int n = poll(&bell, 1, *ms);
    if (n > 0 && read(c->bell, bytes, sizeof bytes) <= 0)
        return rung(c);
    if (n == 0) {
        *in_vain += *ms;
        *ms = *ms < LONGEST_SLEEP ? 2 * *ms : *ms;
        if (waitpid(c->pid, NULL, WNOHANG) != 0)
            c->pid = 0; /* from now on another's */
        c->hangs = *in_vain > HANGS;
        if (!c->pid || c->hangs)
            return rung(c);
    }
    return 1;
}

/* Until the shim rings; 0 if it never will. A byte may belong to a ring that was seen before it came. */
int wait_for_ring(Core *c)
{
    int ms = 1, in_vain = 0;
    if (look_for_ring(c))
        return 1;
    __atomic_store_n(&c->word[MAIL_ENGINE_SLEEPS], c->word[MAIL_TURN] + 1, __ATOMIC_SEQ_CST);
    while (!rung(c))
        if (!sleep_for_ring(c, &ms, &in_vain))
            return 0;
    return 1;
}

/* Answers the shim and waits for its next ring; 0 if none comes, or the shim trapped in what it was to do. */
int command(Core *c, int what)
{
    char byte;
    const uint64_t vector = c->word[MAIL_VECTOR];
    if (c->dead)
        return 0;
    c->word[MAIL_VECTOR] = VECTOR_NONE;
    const uint64_t turn = c->word[MAIL_DONE];
    c->word[MAIL_COMMAND] = (uint64_t)what;
    c->word[MAIL_PATIENCE] = c->busy ? 0 : SHIM_LOOKS;
    __atomic_store_n(&c->word[MAIL_TURN], turn, __ATOMIC_SEQ_CST);
    if (c->word[MAIL_SHIM_SLEEPS] == turn)
        while (read(c->gate, &byte, 1) < 0 && errno == EINTR) /* it does not wait: where nothing is the gate is open */
            ;
    if (!wait_for_ring(c))
        return 0;
    if (what == COMMAND_RUN)
        return 1;
    c->trapped = c->word[MAIL_VECTOR] != VECTOR_NONE;
    if (!c->trapped)
        c->word[MAIL_VECTOR] = vector;
    return !c->trapped;
}
