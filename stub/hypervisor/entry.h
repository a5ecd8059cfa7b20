/* Into the guest's kernel and out of it: bounce frames, the iret hypercall, the switch between a 64-bit guest's two
 * modes; what Xen has in assembly (x86_64/entry.S, create_bounce_frame; pv/iret.c; pv/domain.c, toggle_guest_mode).
 *
 * Python decides and keeps the tables: it registers handlers and selectors, and calls bounce(), trap() and iret()
 * (entry.c, by way of _entry.c). What those tables answer entirely is done at once, as a reflex of the engine's
 * (reflex.c). The numbers are Xen's and the x86 manual's; suites/unit/test_native.py compares them with stub/abi. */
#ifndef PVSTUB_ENTRY_H
#define PVSTUB_ENTRY_H

#include "stub/engine/engine.h"
#include "stub/memory/walk.h"
#include "stub/trace/recorder.h"

enum { /* outcomes */
    DONE,
    NO_HANDLER,
    STACK_FAULT,   /* at fault_at */
    TOO_MANY,      /* traps without an instruction between */
    FRAME_FAULT,   /* at fault_at, while the iret frame was read */
    NO_USER_TABLE,
    LOOK,          /* done, but whether the CPU can go there is not known here: CS, SS, a RIP that is not canonical */
};

enum { TF = 0x100, IF = 0x200, DF = 0x400, IOPL = 0x3000, NT = 0x4000, RF = 0x10000, VM = 0x20000, AC = 0x40000 };
enum { FLAT_KERNEL_CS = 0xe033, FLAT_KERNEL_SS = 0xe02b }; /* what a syscall instruction leaves, too */
enum { VGCF_IN_SYSCALL = 0x100, HYPERCALL_IRET = 23 };
enum { VCPU_INFO_MASK = 1, VCPU_INFO_CR2 = 16, COMPAT_VCPU_INFO_CR2 = 8 }; /* byte offsets in vcpu_info */
enum { FLAT_RING1_DS = 0xe021 };
enum { PFEC_P = 1, PFEC_W = 2, PFEC_U = 4, PFEC_RSVD = 8, PFEC_I = 16 };
enum { TRAPS_IN_A_ROW = 10000, MOST_RUNNABLE = 8, MOST_LEAVES = 64 };
enum { SPINS = 100, SPIN_LENGTH = 1000 }; /* so many turns, of fewer instructions than that, are a wait */

typedef struct { /* subleaf: this one, or all of them */
    uint32_t leaf, subleaf, all, a, b, c, d;
} Leaf;

typedef struct { /* a 32-bit guest's code and stack segment, found good by Python, neither with a base */
    uint16_t cs, ss;
    uint64_t cs_descriptor, ss_descriptor;
} Pair;
typedef struct { /* an entry of its trap table; address 0: none that is known here */
    uint32_t address;
    uint16_t cs;
    int masks_events;
} CompatGate;

typedef struct {
    PyObject_HEAD
    Py_buffer words;
    Walk *memory;
    Recorder *log;
    char compat; /* a 32-bit guest */
    unsigned short kernel_ss;
    Pair pairs[MOST_RUNNABLE];
    int n_pairs;
    CompatGate int80, compat_page_fault;
    char kernel_mode, nmi_masked, writable_pagetables, architectural_iopl, watches_ports;
    unsigned char iopl;
    unsigned long long kernel_root, user_root; /* MFNs; 0 for none */
    unsigned long long kernel_sp, gs_base_other, info_at, cr2;
    unsigned long long fault_at, came_rip, came_rsp;
    unsigned long long trapped_at, traps_there;
    unsigned long long resumed_when; /* RETIRED at the last iret with RF, which holds for one instruction */
    struct { uint64_t address; int masks_events; } page_fault, syscall;
    struct { uint16_t cs, ss; } runnable[MOST_RUNNABLE]; /* 64-bit code and its stack, found good by Python */
    int n_runnable, n_leaves;
    Leaf leaves[MOST_LEAVES]; /* what CPUID shows; leaves that are not here are Python's */
    uint64_t spin_rip, spin_when; /* the last cpuid: where, RETIRED; and how often it was there before */
    int spins;
    uint64_t call[9]; /* the hypercall at hand: time, rip, nr, five arguments, result */
    Reflex reflex;
} Entry;

typedef struct {
    uint64_t rax, r11, rcx, flags, rip, cs, rflags, rsp, ss;
} IretFrame;

typedef struct { uint64_t pushed, cleared; } Flags; /* set in the frame; cleared for the handler */
typedef struct {
    uint64_t address;
    int masks_events, is_fault;
    const uint64_t *code, *cr2; /* NULL where the vector has none */
} Trap;

static inline uint64_t *registers(Entry *e) { return e->words.buf; }
static inline uint8_t *events_masked(Entry *e) { return walk_ram(e->memory) + e->info_at + VCPU_INFO_MASK; }
static inline uint64_t now(const uint64_t *w) { return w[RETIRED] + w[TIME_SKEW]; }
static inline int is_canonical(uint64_t address)
{
    return (uint64_t)((int64_t)(address << 16) >> 16) == address;
}

/* entry.c */
int switch_mode(Entry *e);
int bounce(Entry *e, uint64_t address, int masks_events, const uint64_t *extra, size_t n_extra, Flags flags);
int trap(Entry *e, int vector, const Trap *t);
int read_frame(Entry *e, IretFrame *frame);
int iret(Entry *e, const IretFrame *frame);
int is_runnable(const Entry *e, uint64_t cs, uint64_t ss);

/* Code that executes the same cpuid again and again, and little else, reads the time and waits for it to pass. Whether
 * the cpuid at hand makes SPINS of them: then it is Python's, which lets time pass. */
static inline int spins_enough(const Entry *e, const uint64_t *w)
{
    return e->spins == SPINS - 1 && w[RIP] == e->spin_rip && w[RETIRED] - e->spin_when < SPIN_LENGTH;
}
static inline void count_spin(Entry *e, const uint64_t *w)
{
    const int again = w[RIP] == e->spin_rip && w[RETIRED] - e->spin_when < SPIN_LENGTH;
    e->spins = again && e->spins < SPINS ? e->spins + 1 : 0;
    e->spin_rip = w[RIP];
    e->spin_when = w[RETIRED];
}

/* compat.c */
int compat_exception(Entry *e);

/* reflex.c */
int act(void *state, uint64_t *w, int kind);

#endif
