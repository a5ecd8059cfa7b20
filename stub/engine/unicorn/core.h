/* The Unicorn engine's C part: what its files share. The law stands in _core.c. */
#ifndef PVSTUB_UNICORN_CORE_H
#define PVSTUB_UNICORN_CORE_H

#define _GNU_SOURCE
#include "stub/engine/object.h"
#include <dlfcn.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unicorn/unicorn.h>

#define EXPORT __attribute__((visibility("default"))) /* comes before libunicorn's function of that name */

enum { TF = 0x100 }; /* RFLAGS */
/* Places of segments in a saved context; of bits in what the CPU keeps of its mode, and in a descriptor's upper half. */
enum { CODE_SEGMENT = 1, STACK_SEGMENT = 2, DATA_SEGMENT = 3 };
enum { HIDDEN_CPL = 3, HIDDEN_CS32 = 1 << 4, HIDDEN_SS32 = 1 << 5, HIDDEN_BASES = 1 << 6, HIDDEN_CS64 = 1 << 15 };
enum { DESCRIPTOR_B = 1 << 22, DESCRIPTOR_G = 1 << 23 };
enum { AT_SYSCALL, AT_LOOP, AT_BLOCK, AT_MIDDLE };

extern const int register_ids[N_REGISTERS];

#define LIBRARY_FUNCTIONS(F) \
    F(uc_open) F(uc_close) F(uc_ctl) F(uc_version) F(uc_strerror) F(uc_mem_map_ptr) F(uc_mem_map) F(uc_mem_write) \
    F(uc_mem_unmap) F(uc_hook_add) F(uc_hook_del) F(uc_emu_start) F(uc_emu_stop) F(uc_reg_read) F(uc_reg_write) \
    F(uc_reg_read_batch) F(uc_context_alloc) F(uc_context_save) F(uc_context_restore) F(uc_context_size) \
    F(uc_context_reg_write) F(uc_context_free)

extern struct library {
    void *handle;
#define DECLARE(name) __typeof__(&name) name;
    LIBRARY_FUNCTIONS(DECLARE)
#undef DECLARE
} lib;

typedef struct {
    uint64_t pc;
    uint32_t size;
    uint32_t icount; /* 0: not known yet */
} Slot;
#define LAST_DEADLINE (1ULL << 62)

typedef struct {
    uint64_t slot, pc;
    uint32_t count;
    uint32_t used;
} Learnt;

/* What is touched on every block: `left` instructions are left to `deadline` once `current` has run to its end. */
typedef struct {
    int64_t left;
    uint64_t deadline;
    const Slot *current; /* NULL: between blocks */
} Hot;

/* A page in the TLB: its leaf entry, 0 once it was dropped; what all levels grant; whether stores go by unseen. */
typedef struct {
    uint64_t page, leaf, rights, dirty;
} Translation;
#define N_TRANSLATIONS 1024
#define N_PLACES 2048
#define NOT_ALL (N_TRANSLATIONS + 1) /* of what is in the TLB was noted */

#define SLOTS_PER_CHUNK 4096
#define STACK_SIZE (1 << 20)
#define NOWHERE 0x8000000000000000ULL /* never canonical: libunicorn compares `until` with the PC */

/* The guest did not run on `behind` what ran last, but `to`; NOWHERE: it came from the hypervisor. */
typedef struct {
    uint64_t behind, to;
} Branch;

/* Memory that is watched: from first to last, in bytes of virtual or machine memory. */
typedef struct {
    uint64_t first, last;
    int access, machine, second;
} Watched;
enum { ACCESS_READ = 1, ACCESS_WRITE = 2 };

typedef struct {
    PyObject_HEAD
    uint64_t word[N_WORDS];
    uint64_t seen[N_REGISTERS];
    uc_engine *uc;
    uc_context *context, *target;
    size_t context_size;
    int alive, started, draining, step_not_taken, exit_kind, where;
    uint64_t drain_cr3, drain_end; /* the latter: behind the block that drains */
    uint64_t syscall_length;       /* of the syscall that the guest is at */
    /* stop points, watched memory, single steps (stops.c) */
    Stops stops;
    uint64_t *stop_bounds; /* the two words inside libunicorn's hook object that say where it stops */
    uint64_t stopped_at, stopped_when; /* the stop point that was reported last, and RETIRED then */
    int begin_anew; /* from a stop point the CPU goes on in a block that begins there, its flags written: libunicorn
                       computes them before a code hook, and forgets that it did if the instruction faults */
    int flush_code;                    /* drop all translated code as soon as that can be done */
    Watched *watched;
    size_t n_watched;
    uint64_t filling;    /* the machine address of the page that goes into the TLB */
    int traps, guest_steps, flags_loaded; /* TF is set by us; the guest's own is too; the instruction loaded it */
    uint64_t left_before; /* RCX when an instruction began that we step */
    uint64_t steps_to;   /* the page that a stepped block runs into; 0: none */
    int again;           /* an instruction that touched watched memory is run again, alone */
    Branch *branches;    /* a ring of them */
    uint64_t n_branches, branches_taken;
    uint64_t sequel;     /* between blocks: where the guest runs on without a jump; NOWHERE: nowhere */
    uint64_t start_from, empty_root;
    /* slots */
    Slot **chunks;
    size_t n_chunks, n_slots;
    void **block_data; /* the word inside libunicorn's hook object that holds the block hook's user_data */
    Slot *next_slot, *generated, odd;
    Learnt *learnt;
    size_t learnt_mask, learnt_used;
    /* places in a saved CPU context, found by calibrate() */
    size_t at_error_code, at_is_software, at_old_exception, at_code_base, context_data;
    struct { size_t at; uint32_t in[3]; } modes[8]; /* 64-bit, 32-bit and 16-bit code */
    int n_modes;
    size_t at_hidden_flags; /* what the CPU keeps of its mode beside the segments */
    uint64_t last_interrupt;
    /* the two stacks */
    jmp_buf caller, engine;
    ucontext_t boot;
    void *stack;
    Hot kept; /* of a core that is not the running one */
    uc_err error;
    Py_buffer ram;
    PyObject *answer;  /* called for EXIT_LEARN */
    PyObject *reflex_owner;
    const Reflex *reflex;
    void *region;      /* libunicorn's name for guest memory */
    uint8_t *executed; /* by frame: whether code was ever fetched from it */
    /* the TLB's content since all of it was last dropped, and by hash of the page, from 1 on, where it is */
    uint64_t root; /* CR3 */
    int loading_root;
    unsigned n_translations;
    Translation translations[N_TRANSLATIONS];
    uint16_t places[N_PLACES];
} Core;


extern PyObject *engine_error;
extern Core *running; /* run() holds the GIL until the next exit, so there is one */
extern Hot hot;       /* the running one's */
extern int inside;    /* the engine's stack is running, for the core `running` */

/* Instructions retired once the running block has run to its end. */
static inline uint64_t counted(void) { return hot.deadline - (uint64_t)hot.left; }

extern struct own_functions {
    void (*call)(void *, void *, void *, int, void **);
    uint64_t (*load)(void *, void *, uint64_t, uint32_t, uint32_t *);
    void (*store)(void *, void *, uint64_t, uint32_t, uint32_t, uint32_t *);
    void *(*region)(void *, uint64_t);
    bool (*fill)(void *, uint64_t, int, int, int, bool, uintptr_t);
    void (*set_page)(void *, uint64_t, uint64_t, uint32_t, int, int, uint64_t);
    void (*flush)(void *);
    void (*drop_page)(void *, uint64_t);
    void (*set_dirty)(void *, uint64_t);
    void (*reset_dirty)(void *, uint64_t, uint64_t);
    uint64_t (*random)(void *);
    uint64_t (*read_flags)(void *);
    void (*write_flags)(void *, uint64_t, uint32_t);
    void (*interrupt_return)(void *, int, int);
    void (*translate)(void *, void *, int);
    bool (*restore_state)(void *, uintptr_t, bool);
    void (*raise)(void *, int, uintptr_t);
    void (*leave_block)(void *, uint32_t);
    void (*leave_loop)(void *);
    void (*op1)(void *, int, uintptr_t);
    void (*op2)(void *, int, uintptr_t, uintptr_t);
    void (*op3)(void *, int, uintptr_t, uintptr_t, uintptr_t);
    void *(*temporary)(void *, int, bool);
    void (*free_temporary)(void *, void *);
    uintptr_t (*constant64)(void *, int64_t);
    uintptr_t (*constant32)(void *, int32_t);
    void (*branch)(void *, int, uintptr_t, uintptr_t, void *);
    void *(*label)(void *);
    void *(*emit)(void *, int);
    int (*generate)(void *, void *);
    void (*vector_add)(void *, unsigned, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t);
} own; /* libunicorn's own functions of these names */

/* count.c */
void set_deadline(uint64_t deadline);
Slot *slot_at(Core *c, uint64_t index);
void fresh_slot(Core *c);
uint64_t slot_index(Core *c, const Slot *slot);
void learnt_add(Core *c, uint64_t slot, uint64_t pc, uint32_t count);
uint64_t start_of_block(void);
void between_blocks(uint64_t retired);
void pause_blocks(uint64_t retired, uint64_t sequel);
uint64_t end_of_block(void);
void forget_blocks(Core *c);
uint32_t retired_before(Core *c, uint64_t pc);
void settle(Core *c, uint64_t pc, int done, int block_ends);
void on_block(uc_engine *uc, uint64_t pc, uint32_t size, void *data);
void on_edge(uc_engine *uc, uc_tb *block, uc_tb *previous, void *data);

/* switch.c */
int out_of_patience(const Core *c);
void load_registers(Core *c);
void switch_to_caller(Core *c);
void switch_to_engine(Core *c);
void leave(Core *c, int kind, int where);
int drained(Core *c, int where);
void leave_block(Core *c, uint64_t rip);

/* hooks.c */
int add_hooks(Core *c);
void on_stop_point(uc_engine *uc, uint64_t pc, uint32_t size, void *data);

/* tlb.c */
void note_translation(Core *c, void *cpu, uint64_t page);
void load_root(Core *c, uint64_t root);

uint64_t machine_address(const Core *c, uint64_t address);
void forget_translations(Core *c);

/* stops.c */
void note_stop_generated(void);
void drop_code(Core *c);
void step_hidden(Core *c);
int one_more_iteration(const Core *c, uint64_t pc, uint32_t size);
PyObject *core_stop_at(Core *c, PyObject *addresses);
PyObject *core_watch(Core *c, PyObject *ranges);

/* branches.c */
int deadline_reached(const Core *c);
void note_branch(Core *c, uint64_t to);
PyObject *core_keep_branches(Core *c, PyObject *how_many);
PyObject *core_branches(Core *c, PyObject *none);

/* shortcuts.c */
void come_first(void);
void find_own_functions(void *handle);
/* inline.c */
extern int inline_allowed;
int count_inline(void *context, void **arguments);
void check_layout(const uc_tb *block);
void find_translator(void *handle);

/* calibrate.c */
int calibrate(Core *c);

/* _core.c */
PyObject *fail(const char *what, uc_err error);

#endif
