/* Repeated string instructions, in which the two CPUs differ where one of them ends. */
#ifndef PVSTUB_ENGINE_STRINGS_H
#define PVSTUB_ENGINE_STRINGS_H

#include <stdint.h>

/* Whether the instruction that `code` begins with is a repeated string instruction which, behind one more time round, is
 * over: the count (`rcx`) got to 0, and it was not a comparison that ended it. Its length then, else 0. `wide`: 64-bit
 * code. */
static inline int length_if_ran_out(const uint8_t *code, int size, int wide, uint64_t flags, uint64_t rcx)
{
    enum { ZF = 0x40 };
    int repeated = 0, narrow = 0, at = 0;
    for (; at < size; at++) {
        const unsigned byte = code[at];
        if (byte == 0xf2 || byte == 0xf3)
            repeated = (int)byte;
        else if (byte == 0x67)
            narrow = 1;
        else if (byte != 0x66 && !(wide && (byte & 0xf0) == 0x40) && (byte & 0xe7) != 0x26 && (byte & 0xfe) != 0x64)
            break;
    }
    if (at == size || !repeated)
        return 0;
    const int opcode = code[at], compares = (opcode & 0xfe) == 0xa6 || (opcode & 0xfe) == 0xae;
    if (!compares && (opcode & 0xfc) != 0x6c && (opcode & 0xfe) != 0xa4 && (opcode & 0xfe) != 0xaa && (opcode & 0xfe) != 0xac)
        return 0;
    if (compares && ((flags & ZF) != 0) != (repeated == 0xf3))
        return 0;
    const uint64_t count = !narrow ? (wide ? rcx : (uint32_t)rcx) : wide ? (uint32_t)rcx : (uint16_t)rcx;
    return count ? 0 : at + 1;
}

#endif
