/* Exceptions raised one by one, by the kernel and by user code: #include "exceptions.h" beside kit.h. */
#pragma once
#include "kit.h"

struct exception {
    const char *name, *by_user;
    unsigned vector, code, length; /* of the instruction, for a trap */
};

/* Code in .user that raises exception number n of a list when it is called with n, and where the instruction is. */
extern char raise[];
extern const word at_table[];

static inline void raise_in_kernel(word which)
{
    ((void (*)(word))(word)raise)(which);
}

static inline void check_exceptions(const struct exception *exceptions, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const struct exception *wanted = &exceptions[i];
        hypercall(FPU_TASKSWITCH, wanted->vector == NM);
        int taken = caught(raise_in_kernel, i);
        check(taken && fault.vector == wanted->vector && !fault.from_user && fault.code == wanted->code &&
                  fault.frame.rip == at_table[i] + wanted->length,
              wanted->name, "trap %u, code %lx, rip %lx", taken ? fault.vector : 99, fault.code, fault.frame.rip);
        hypercall(FPU_TASKSWITCH, wanted->vector == NM);
        user(raise, i);
        word code = wanted->vector == PF ? 4 : wanted->code;
        check(fault.vector == wanted->vector && fault.from_user && fault.code == code &&
                  fault.frame.rip == user_address(at_table[i]) + wanted->length,
              wanted->by_user, "trap %u, code %lx, rip %lx", fault.vector, fault.code, fault.frame.rip);
    }
}
