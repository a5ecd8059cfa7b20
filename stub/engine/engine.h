/* The engine contract (base.py) for C: the register file, the kinds of exit, and reflexes. */
#ifndef PVSTUB_ENGINE_H
#define PVSTUB_ENGINE_H

#include <stdint.h>

/* The register file shared with Python: 64-bit words, in this order. */
enum {
    RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15,
    RIP, RFLAGS, CS, SS, DS, ES, FS, GS, FS_BASE, GS_BASE, CR0, CR2, CR3, CR4,
    N_REGISTERS,
    /* what the exit says */
    EXIT_VECTOR = N_REGISTERS, EXIT_ERROR_CODE, EXIT_SOFTWARE, EXIT_PORT, EXIT_SIZE, EXIT_VALUE,
    /* clock: RETIRED at the exit; TIME_SKEW is added to it to give rdtsc; DEADLINE in retired instructions */
    RETIRED, TIME_SKEW, DEADLINE,
    /* FLUSH: have the TLB agree with the page tables on resume; LEARN_*: a question to the caller */
    FLUSH, LEARN_SLOT, LEARN_START, LEARN_END, LEARN_SIZE,
    /* CODE_SWITCH: the code segment that CS leads to from now on is another: 1 64-bit, 2 32-bit, 3 16-bit code, and its
     * base in the upper half; 4: CS and SS are loaded from the descriptors below; 0: it is not */
    TSC_AUX, CODE_SWITCH, RDTSCS, FLUSHES,
    WATCH_ADDRESS, WATCH_SIZE, WATCH_WRITE, /* the watched access of an instruction; size 0: none */
    WATCH2_ADDRESS, WATCH2_SIZE, WATCH2_WRITE, /* the same for ranges of the second group */
    STEP, /* not 0: #DB after one instruction */
    PATIENCE, /* CLOCK_MONOTONIC, in ns, after which run() comes back before it runs anything; 0: never */
    CS_DESCRIPTOR, SS_DESCRIPTOR,
    N_WORDS
};
enum { CODE_SWITCH_LOAD = 4 };

enum { EXIT_SYSCALL, EXIT_EXCEPTION, EXIT_INVALID, EXIT_IN, EXIT_OUT, EXIT_CPUID, EXIT_DEADLINE, EXIT_LEARN,
       EXIT_SYSENTER, EXIT_STOP_POINT, EXIT_DEAD, EXIT_DONE, EXIT_WAITED };

/* Finishes exits on the spot, on the engine's own small stack: it may not call into Python. Given the register file
 * and the kind of an exit it answers: the exit is the caller's, is done, or is done and the caller is to look. */
enum { REFLEX_NOT_MINE, REFLEX_DONE, REFLEX_LOOK };
typedef struct {
    int (*act)(void *state, uint64_t *word, int kind);
    void *state;
} Reflex;
#define REFLEX_NAME "stub.engine.reflex" /* of the capsule that holds one */

#endif
