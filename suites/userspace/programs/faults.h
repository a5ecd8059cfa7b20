#ifndef FAULTS_H
#define FAULTS_H

#include "check.h"

/* Trap numbers (Intel SDM vol. 3, table 6-1) and page-fault error bits (section 4.7). */
enum { DE = 0, DB = 1, BP = 3, OF = 4, UD = 6, GP = 13, PF = 14, MF = 16, AC = 17, XM = 19 };
enum { PRESENT = 1, WRITE = 2, USER = 4, FETCH = 16 };

/* `address` of a fault whose si_addr is the place of the instruction. */
#define AT_RIP ((uintptr_t)-1)

/* A function of assembly that may fault: arguments in rdi and rsi. */
typedef void code_t(uintptr_t, uintptr_t);

struct fault {
    const char *name;
    code_t *code;
    uintptr_t first, second;
    const char *rip; /* where; NULL: at `first`, for jumps */
    int signal, si_code;
    uintptr_t address;
    unsigned long trap, error;
};

/* What the last signal brought. */
extern struct caught {
    int signal, code;
    uintptr_t address, rip;
    unsigned long trap, error, rcx, rsi, rdi;
} caught;

void catch_faults(void);
void provoke(code_t *code, uintptr_t first, uintptr_t second);
void expect_fault(const struct fault *fault);

/*
 * FAULTING(name, before, instruction): a function `name` whose `instruction`, at label name_at, faults;
 * name_after is the next one. Should it not fault, the function returns.
 */
#define FAULTING(name, before, instruction)                                                             \
    code_t name;                                                                                        \
    extern const char name##_at[], name##_after[];                                                      \
    asm(".text\n" #name ":\n " before "\n" #name "_at: " instruction "\n" #name "_after: ret\n")

#endif
