/* 200 processes are forked, execute this program anew and answer over pipes: what they answer is checked, to a byte. */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHILDREN 200
#define LONGEST 20000

static void scramble(uint8_t *data, size_t size, uint64_t seed)
{
    for (size_t i = 0; i < size; i++)
        data[i] ^= (uint8_t)random_at(seed, i);
}

/* --echo SEED SIZE: what the child does: reads SIZE bytes, answers them scrambled, ends with a status of SEED's. */
int echo_main(char **arguments)
{
    uint64_t seed = strtoull(arguments[0], NULL, 16);
    size_t size = strtoul(arguments[1], NULL, 10);
    static uint8_t data[LONGEST];
    CHECK(size <= LONGEST, "argument %s arrived damaged", arguments[1]);
    CHECK(arguments[2] == NULL, "execve() passed an argument too many");
    CHECK(getenv("MARK") && !strcmp(getenv("MARK"), arguments[0]), "execve() passed the wrong environment");
    read_all(STDIN_FILENO, data, size);
    scramble(data, size, seed);
    write_all(STDOUT_FILENO, data, size);
    return seed & 0x7f;
}

static void be_child(const int in[2], const int out[2], uint64_t seed, size_t size)
{
    char seed_text[20], size_text[20], mark[30];
    snprintf(seed_text, sizeof seed_text, "%lx", seed);
    snprintf(size_text, sizeof size_text, "%zu", size);
    snprintf(mark, sizeof mark, "MARK=%s", seed_text);
    TRY(dup2(in[0], STDIN_FILENO));
    TRY(dup2(out[1], STDOUT_FILENO));
    for (int i = 0; i < 2; i++) {
        close(in[i]);
        close(out[i]);
    }
    execve(self_path, (char *[]){"echo", "--echo", seed_text, size_text, NULL}, (char *[]){mark, NULL});
    _exit(127);
}

static void one(int number)
{
    static uint8_t sent[LONGEST], received[LONGEST];
    uint64_t seed = random_at(1, number);
    size_t size = number % 10 == 0 ? LONGEST : 1 + seed % 700;
    int in[2], out[2];
    TRY(pipe(in));
    TRY(pipe(out));
    pid_t child = TRY(fork());
    if (child == 0)
        be_child(in, out, seed, size);
    close(in[0]);
    close(out[1]);
    for (size_t i = 0; i < size; i++)
        sent[i] = (uint8_t)(random_at(seed, i) >> 8);
    write_all(in[1], sent, size);
    close(in[1]);
    read_all(out[0], received, size);
    CHECK(read(out[0], sent, 1) == 0, "child %d wrote more than it read", number);
    close(out[0]);
    expect_exit(child, seed & 0x7f);
    scramble(received, size, seed);
    for (size_t i = 0; i < size; i++)
        CHECK(received[i] == (uint8_t)(random_at(seed, i) >> 8), "child %d: byte %zu of %zu is wrong", number, i, size);
}

void forks(void)
{
    for (int i = 0; i < CHILDREN; i++)
        one(i);
}
