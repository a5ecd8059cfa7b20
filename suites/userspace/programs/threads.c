/* Threads: two that hand a word to and fro by futex, locks that count right, thread-local variables that stay put. */
#include "check.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ROUNDS 1500
#define THREADS 8

static uint32_t turn;
static uint64_t table[2 * ROUNDS];

static void futex_wait(uint32_t *word, uint32_t while_it_is)
{
    while (__atomic_load_n(word, __ATOMIC_ACQUIRE) == while_it_is)
        if (syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, while_it_is, NULL, NULL, 0) == -1)
            CHECK(errno == EAGAIN || errno == EINTR, "futex wait: errno %d", errno);
}

static void *player(void *which)
{
    uint32_t mine = (uintptr_t)which;
    for (int i = 0; i < ROUNDS; i++) {
        futex_wait(&turn, !mine);
        table[2 * i + mine] = random_at(mine, i);
        if (i || mine)
            CHECK(table[2 * i + mine - 1] == random_at(!mine, i - !mine), "round %d: the other's word is wrong", i);
        __atomic_store_n(&turn, !mine, __ATOMIC_RELEASE);
        TRY(syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0));
    }
    return which;
}

static pthread_t start(void *(*run)(void *), uintptr_t argument)
{
    pthread_t thread;
    int error = pthread_create(&thread, NULL, run, (void *)argument);
    CHECK(!error, "pthread_create: error %d", error);
    return thread;
}

static void join(pthread_t thread, uintptr_t answer)
{
    void *found;
    int error = pthread_join(thread, &found);
    CHECK(!error, "pthread_join: error %d", error);
    CHECK((uintptr_t)found == answer, "a thread returned %p, not %#lx", found, answer);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static long counted, arrived;
static long atomic_count;

static void *counter(void *argument)
{
    for (int i = 0; i < 300; i++) {
        pthread_mutex_lock(&mutex);
        long before = counted;
        if (i % 16 == 0)
            sched_yield();
        counted = before + 1;
        pthread_mutex_unlock(&mutex);
        __atomic_add_fetch(&atomic_count, 1, __ATOMIC_RELAXED);
    }
    pthread_mutex_lock(&mutex);
    arrived++;
    pthread_cond_broadcast(&changed);
    while (arrived < THREADS)
        pthread_cond_wait(&changed, &mutex);
    pthread_mutex_unlock(&mutex);
    return argument;
}

void threads(void)
{
    pthread_t pair[] = {start(player, 0), start(player, 1)}, many[THREADS];
    join(pair[0], 0);
    join(pair[1], 1);
    for (uintptr_t i = 0; i < THREADS; i++)
        many[i] = start(counter, i);
    for (uintptr_t i = 0; i < THREADS; i++)
        join(many[i], i);
    CHECK(counted == 300 * THREADS, "a lock let %ld of %d increments get lost", 300 * THREADS - counted, 300 * THREADS);
    CHECK(atomic_count == counted, "%ld atomic increments, not %ld", atomic_count, counted);
}

static __thread uint64_t local_number = 0x1d;
static __thread uint64_t local_zero;
static __thread int local_errno;

static void *keeper(void *argument)
{
    uintptr_t me = (uintptr_t)argument;
    CHECK(local_number == 0x1d && local_zero == 0, "a new thread starts with %#lx and %#lx", local_number, local_zero);
    for (int i = 0; i < 150; i++) {
        local_number = random_at(me, i);
        local_zero = ~local_number;
        local_errno = (int)me;
        errno = (int)(100 + me);
        sched_yield();
        CHECK(local_number == random_at(me, i) && local_zero == ~local_number && local_errno == (int)me,
              "thread %lu has another's variable", me);
        CHECK(errno == (int)(100 + me), "thread %lu has the errno %d", me, errno);
    }
    return argument;
}

void tls(void)
{
    pthread_t many[THREADS];
    for (int round = 0; round < 3; round++) {
        for (uintptr_t i = 0; i < THREADS; i++)
            many[i] = start(keeper, i);
        for (uintptr_t i = 0; i < THREADS; i++)
            join(many[i], i);
    }
    CHECK(local_number == 0x1d, "the first thread's variable changed");
}
