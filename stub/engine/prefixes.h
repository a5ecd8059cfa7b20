/* An instruction's prefixes, and the repeated string instructions, at whose end the engines' CPUs differ. */
#ifndef PVSTUB_ENGINE_PREFIXES_H
#define PVSTUB_ENGINE_PREFIXES_H

#include <stdint.h>

typedef struct {
    int end;                 /* where the opcode is; the size if there is none */
    int operand16, narrow;   /* 66, unless REX.W is there, too; 67 */
    int locked;              /* f0 */
    int repeated;            /* f2 or f3; 0: neither */
    int segment;             /* the one that is named, in the encoding's order; -1: none */
} Prefixes;

/* `wide`: 64-bit code, where a REX prefix is one, and the old segments are not named. */
static inline Prefixes read_prefixes(const uint8_t *code, int size, int wide)
{
    Prefixes p = {.segment = -1};
    int rex_w = 0;
    for (; p.end < size; p.end++) {
        const int byte = code[p.end];
        if (byte == 0x66)
            p.operand16 = 1;
        else if (byte == 0x67)
            p.narrow = 1;
        else if (byte == 0xf2 || byte == 0xf3)
            p.repeated = byte;
        else if ((byte & 0xe7) == 0x26)
            p.segment = wide ? p.segment : byte >> 3 & 3;
        else if ((byte & 0xfe) == 0x64)
            p.segment = 4 | (byte & 1);
        else if (byte == 0xf0)
            p.locked = 1;
        else if (!(wide && (byte & 0xf0) == 0x40))
            break;
        rex_w = wide && (byte & 0xf8) == 0x48; /* one that other prefixes follow is none */
    }
    p.operand16 &= !rex_w;
    return p;
}

/* Whether the instruction that `code` begins with is a repeated string instruction which, behind one more time round,
 * is over: the count (`rcx`) got to 0, and it was not a comparison that ended it. Its length then, else 0. */
static inline int length_if_ran_out(const uint8_t *code, int size, int wide, uint64_t flags, uint64_t rcx)
{
    enum { ZF = 0x40 };
    const Prefixes p = read_prefixes(code, size, wide);
    if (p.end == size || !p.repeated)
        return 0;
    const int opcode = code[p.end], family = opcode & 0xfe;
    const int compares = family == 0xa6 || family == 0xae;
    if (!compares && (opcode & 0xfc) != 0x6c && family != 0xa4 && family != 0xaa && family != 0xac)
        return 0;
    if (compares && ((flags & ZF) != 0) != (p.repeated == 0xf3))
        return 0;
    const uint64_t count = !p.narrow ? (wide ? rcx : (uint32_t)rcx) : wide ? (uint32_t)rcx : (uint16_t)rcx;
    return count ? 0 : p.end + 1;
}

#endif
