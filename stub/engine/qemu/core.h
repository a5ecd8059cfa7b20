/* The QEMU engine's C part: what its files share. The law stands in _core.c. */
#ifndef PVSTUB_QEMU_CORE_H
#define PVSTUB_QEMU_CORE_H

#define _GNU_SOURCE
#include "stub/engine/object.h"
#include "stub/engine/qemu/code.h"
#include "stub/engine/qemu/mailbox.h"
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

enum { TF = 0x100, RF = 0x10000 }; /* RFLAGS */
enum { DB = 1 };               /* vector */
enum { SINGLE_STEP = 1 << 14 }; /* DR6 */

/* An in, out or cpuid that was reported: where it is, how long, what it does. */
typedef struct {
    uint64_t rip;
    int length, size, kind; /* kind: EXIT_IN, …; -1: there is none */
    int string, repeated, wide, address_size;
    uint64_t places[4]; /* of a string form's bytes, in the machine's memory */
} Port;

typedef struct {
    PyObject_HEAD
    Py_buffer ram;
    volatile uint64_t *word;
    pid_t pid;
    int dead, busy, exits_to_load;
    int hangs; /* QEMU did not answer for so long that it was ended */
    int trapped; /* the shim did, in a command other than COMMAND_RUN: MAIL_VECTOR has it */
    double others; /* processes that are to run, on the average */
    int load;      /* the file /proc/loadavg */
    int before; /* instructions that count before the guest's first */
    int bell, gate; /* pipes that the shim writes to */
    PyObject *reflex_owner;
    const Reflex *reflex;
    uint64_t entries; /* the machine address of the window's page-table entries */
    Port port;
    int stored; /* an `ins` stored to stored_page, and QEMU has not heard of it */
    uint64_t stored_page;
    uint64_t left_at, left_root; /* RIP and CR3 as the last exit had them; where they are others now the guest jumps */
    int jumps;                   /* it does in any case */
    int stepping, guest_steps; /* TF was set by us; the guest's own was set, too */
    struct { int execute, write, second; uint64_t address, size; } slots[4]; /* of the debug registers */
    Stops stops; /* more stop points than debug registers: looked for instruction by instruction */
    uint64_t stopped_at, stopped_when; /* the stop point that was reported last, and RETIRED then */
} Core;

/* mail.c */
int command(Core *c, int what); /* COMMAND_…; 0 if the process is no more, or of no more use */
int wait_for_ring(Core *c);
int out_of_patience(const Core *c);

/* exits.c */
int classify(Core *c, int steps); /* what left the guest, as the contract has it; EXIT_DONE: nothing to be told */
int debug_exit(Core *c, int guests);
int stop_exit(Core *c);
int has_jumped_in(const Core *c); /* whether the instruction that was stepped was a jump that was taken */
int is_stop(const Core *c, uint64_t rip);
int decode_exit(const Core *c, Code *d); /* the instruction that the shim fetched, to its opcode; 0 if there is none */

/* ports.c */
int port_exit(Core *c, const Code *d);
int cpuid_exit(Core *c, const Code *d);
int complete_port(Core *c);
int next_round(Core *c);
int tell_of_stores(Core *c); /* before the guest goes on; 0 if the process is no more */

/* _core.c */
int touch(Core *c, uint64_t maddr); /* what was written to this page is code, perhaps; 0 if the process is no more */

/* spawn.c */
PyObject *spawn(PyObject *self, PyObject *args);

#endif
