/* An instruction, as far as the engine and its shim look at its bytes. */
#ifndef PVSTUB_QEMU_CODE_H
#define PVSTUB_QEMU_CODE_H

#include "../prefixes.h"

enum { PUSHF = 0x9c, POPF = 0x9d, IRET = 0xcf }; /* opcodes */
enum { FLAT_CS = 0xe033 };

static inline int is_wide(uint64_t cs) { return cs == FLAT_CS; }

typedef struct {
    const uint8_t *code;
    int size, wide; /* wide: 64-bit code */
    Prefixes prefixes;
    int at, opcode, second; /* at: of the opcode */
} Code;

/* Past the prefixes to the opcode; 0 if there is none. */
static inline int decode(Code *d, const uint8_t *code, int size)
{
    d->code = code;
    d->size = size;
    d->prefixes = read_prefixes(code, size, d->wide);
    d->at = d->prefixes.end;
    if (d->at == d->size)
        return 0;
    d->opcode = d->code[d->at];
    d->second = d->at + 1 < d->size ? d->code[d->at + 1] : -1;
    return 1;
}

static inline int modrm_length(const uint8_t *code)
{
    const int mod = code[0] >> 6, rm = code[0] & 7;
    const int base = mod != 3 && rm == 4 ? code[1] & 7 : rm;
    return 1 + (mod != 3 && rm == 4) + (mod == 1 ? 1 : mod == 2 || (mod == 0 && base == 5) ? 4 : 0);
}

/* How long a load of SS is, behind which a CPU takes no trap; 0 for what is none. */
static inline int stack_load_length(const Code *d)
{
    if (d->opcode == 0x17 && !d->wide)
        return d->at + 1;
    const int is_load = d->opcode == 0x8e && d->second >= 0 && (d->second >> 3 & 7) == 2;
    return is_load ? d->at + 1 + modrm_length(d->code + d->at + 1) : 0;
}

/* How long a near or far jump, call or return is; 0 for what is none. */
static inline int jump_length(const Code *d)
{
    const int op = d->opcode, behind = d->at + 1, near = d->prefixes.operand16 ? 2 : 4, digit = d->second >> 3 & 7;
    if ((op & 0xf0) == 0x70 || (op & 0xfc) == 0xe0 || op == 0xeb)
        return behind + 1;
    if (op == 0xe8 || op == 0xe9)
        return behind + near;
    if (op == 0x0f && (d->second & 0xf0) == 0x80)
        return behind + 1 + near;
    if (op == 0xc3 || op == 0xcb || op == 0xcf)
        return behind;
    if (op == 0xc2 || op == 0xca)
        return behind + 2;
    if (op == 0x9a || op == 0xea)
        return behind + near + 2;
    return op == 0xff && digit >= 2 && digit <= 5 ? behind + modrm_length(d->code + behind) : 0;
}

/* Whether the instruction that those bytes are was a jump that was taken: `went`, from its first byte to where the CPU
 * is now. */
static inline int has_jumped(const uint8_t *code, int size, int wide, uint64_t went)
{
    enum { LONGEST_CODE = 15 };
    Code d = {.wide = wide};
    const uint64_t length = decode(&d, code, size) ? (uint64_t)jump_length(&d) : 0;
    return length ? went != length : went == 0 || went > LONGEST_CODE; /* 0: one iteration of a repeated instruction */
}

#endif
