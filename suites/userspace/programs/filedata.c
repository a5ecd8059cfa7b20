/* 64 MiB of numbers in a file in tmpfs, read back two ways and hashed: the test compares the hash with its own. */
#include "blake2b.h"
#include "check.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define SIZE (64UL << 20)
#define CHUNK (64UL << 10)
#define SEED 0x64

static int is_tmpfs(const char *folder)
{
    struct statfs found;
    return statfs(folder, &found) == 0 && found.f_type == TMPFS_MAGIC && access(folder, W_OK) == 0;
}

/* A tmpfs that is there, or else one of our own. */
static const char *tmpfs_folder(void)
{
    static const char *const candidates[] = {"/tmp", "/dev/shm", "/run"};
    for (size_t i = 0; i < sizeof candidates / sizeof *candidates; i++)
        if (is_tmpfs(candidates[i]))
            return candidates[i];
    if (mkdir("/tmp", 0777) == -1)
        TRY(access("/tmp", F_OK));
    TRY(mount("tmpfs", "/tmp", "tmpfs", 0, "size=80m"));
    return "/tmp";
}

static void write_file(int fd)
{
    static uint64_t chunk[CHUNK / 8];
    for (size_t at = 0; at < SIZE; at += CHUNK) {
        for (size_t i = 0; i < CHUNK / 8; i++)
            chunk[i] = random_at(SEED, at / 8 + i);
        write_all(fd, chunk, CHUNK);
    }
}

static void hash_file(int fd, char text[BLAKE2B_TEXT])
{
    static uint8_t chunk[CHUNK];
    struct blake2b hash;
    blake2b_start(&hash);
    TRY(lseek(fd, 0, SEEK_SET));
    for (size_t at = 0; at < SIZE; at += CHUNK) {
        read_all(fd, chunk, CHUNK);
        blake2b_add(&hash, chunk, CHUNK);
    }
    CHECK(read(fd, chunk, 1) == 0, "the file is longer than what was written");
    blake2b_finish(&hash, text);
}

static void check_mapping(int fd)
{
    const uint64_t *words = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(words != MAP_FAILED, "no mapping of the file");
    for (size_t i = 0; i < SIZE / 8; i += 509)
        CHECK(words[i] == random_at(SEED, i), "the mapping holds %#lx at byte %zu", words[i], 8 * i);
    TRY(munmap((void *)words, SIZE));
}

void filedata(void)
{
    char path[64], text[BLAKE2B_TEXT];
    struct blake2b hash;
    blake2b_start(&hash);
    blake2b_add(&hash, (const uint8_t *)"abc", 3);
    blake2b_finish(&hash, text);
    CHECK(!strncmp(text, "ba80a53f981c4d0d", 16), "BLAKE2b of abc is %s", text); /* RFC 7693, appendix A */
    snprintf(path, sizeof path, "%s/filedata.XXXXXX", tmpfs_folder());
    int fd = TRY(mkstemp(path));
    TRY(unlink(path));
    write_file(fd);
    hash_file(fd, text);
    check_mapping(fd);
    note("blake2b=%s size=%lu seed=%d", text, SIZE, SEED);
}
