#include "blake2b.h"

#include <stdio.h>
#include <string.h>

#define ROUNDS 12

/* RFC 7693, sections 2.6 (initial values) and 2.7 (message schedule). */
static const uint64_t initial[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};
static const uint8_t schedule[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

static inline uint64_t rotate(uint64_t value, int count)
{
    return value >> count | value << (64 - count);
}

static inline void mix(uint64_t *v, int a, int b, int c, int d, uint64_t x, uint64_t y)
{
    v[a] += v[b] + x, v[d] = rotate(v[d] ^ v[a], 32);
    v[c] += v[d], v[b] = rotate(v[b] ^ v[c], 24);
    v[a] += v[b] + y, v[d] = rotate(v[d] ^ v[a], 16);
    v[c] += v[d], v[b] = rotate(v[b] ^ v[c], 63);
}

static void compress(struct blake2b *hash, int last)
{
    uint64_t v[16], m[16];
    memcpy(m, hash->block, sizeof m);
    memcpy(v, hash->state, sizeof hash->state);
    memcpy(v + 8, initial, sizeof initial);
    v[12] ^= hash->size;
    v[14] ^= last ? ~0UL : 0;
#pragma GCC unroll 12
    for (int round = 0; round < ROUNDS; round++) {
        const uint8_t *s = schedule[round % 10];
        for (int i = 0; i < 4; i++)
            mix(v, i, 4 + i, 8 + i, 12 + i, m[s[2 * i]], m[s[2 * i + 1]]);
        for (int i = 0; i < 4; i++)
            mix(v, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, m[s[8 + 2 * i]], m[s[9 + 2 * i]]);
    }
    for (int i = 0; i < 8; i++)
        hash->state[i] ^= v[i] ^ v[8 + i];
}

void blake2b_start(struct blake2b *hash)
{
    memcpy(hash->state, initial, sizeof initial);
    hash->state[0] ^= 0x01010040; /* parameters: no key, 64 bytes of result */
    hash->size = hash->used = 0;
}

void blake2b_add(struct blake2b *hash, const uint8_t *data, size_t size)
{
    while (size) {
        if (hash->used == sizeof hash->block) { /* the last block waits for blake2b_finish() */
            hash->used = 0;
            compress(hash, 0);
        }
        size_t room = sizeof hash->block - hash->used, count = room < size ? room : size;
        memcpy(hash->block + hash->used, data, count);
        hash->used += count, hash->size += count, data += count, size -= count;
    }
}

void blake2b_finish(struct blake2b *hash, char text[BLAKE2B_TEXT])
{
    memset(hash->block + hash->used, 0, sizeof hash->block - hash->used);
    compress(hash, 1);
    for (int i = 0; i < 64; i++)
        snprintf(text + 2 * i, 3, "%02x", ((uint8_t *)hash->state)[i]);
}
