/*
 * The hot inner part of the Unicorn engine: count, stop, record, resume. It holds no policy.
 *
 * Law of the file: libunicorn's emulation loop is entered once and never left while the guest lives. It runs on a
 * stack of its own; at every exit a hook switches to the caller's stack (leave) and the next run() switches back
 * into that hook, which applies what the caller changed in the register file and returns to the guest. Nothing is
 * restarted, so an exit costs two stack switches, and no program counter can go stale.
 *
 * Counting. Each translated block owns a slot that holds its instruction count. libunicorn bakes the block hook's
 * user_data into the code that it generates, so the hook object's user_data is pointed at a fresh slot after every
 * translation (its place in the object is found at start-up, never assumed). A block cut short by an exception counts what lies before the faulting instruction; the caller is
 * asked once for that number (LEARN) and it is kept by slot and address.
 *
 * Deadlines stop at the first taken control transfer at or after the deadline: a place that depends on the
 * instructions alone and not on how they were cut into blocks.
 *
 * Shortcuts. libunicorn calls a few of its own functions through its symbol table, and this file defines functions of
 * the same names that come first (ELF symbol interposition). They leave out a call in every block that only asks
 * whether to stop (the block hook knows), read page tables from guest memory directly, and keep stores to data that may be
 * executed, but never is, off a slow path. Where a build binds its
 * symbols otherwise they are never called and all is as before, only slower.
 *
 * Ending a block from the middle. After a hook inside a block (in, out, cpuid, rdtsc) libunicorn runs on to the
 * block's end whatever the hook did. Where the caller moved the program counter there, the block is drained: with an
 * empty page table loaded any access faults, and at the next hook the wanted state is put in place whole.
 */
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <dlfcn.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unicorn/unicorn.h>

/* The register file shared with Python: 64-bit words, in this order. */
enum {
    RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15,
    RIP, RFLAGS, CS, SS, DS, ES, FS, GS, FS_BASE, GS_BASE, CR0, CR2, CR3, CR4,
    N_REGISTERS,
    /* what the exit says */
    EXIT_VECTOR = N_REGISTERS, EXIT_ERROR_CODE, EXIT_SOFTWARE, EXIT_PORT, EXIT_SIZE, EXIT_VALUE,
    /* clock: RETIRED at the exit; TIME_SKEW is added to it to give rdtsc; DEADLINE in retired instructions */
    RETIRED, TIME_SKEW, DEADLINE,
    /* the caller sets FLUSH to have the TLB dropped on resume; LEARN_* describe a question to the caller */
    FLUSH, LEARN_SLOT, LEARN_START, LEARN_END, LEARN_SIZE,
    TSC_AUX, CODE_SWITCH, RDTSCS, FLUSHES,
    WATCH_ADDRESS, WATCH_SIZE, WATCH_WRITE, /* the last watched access; size 0: none */
    N_WORDS
};

enum { EXIT_SYSCALL, EXIT_EXCEPTION, EXIT_INVALID, EXIT_IN, EXIT_OUT, EXIT_CPUID, EXIT_DEADLINE, EXIT_LEARN,
       EXIT_SYSENTER, EXIT_STOP_POINT, EXIT_DEAD };
enum { TF = 0x100 }; /* RFLAGS */
enum { AT_SYSCALL, AT_LOOP, AT_BLOCK, AT_MIDDLE };

static const int register_ids[N_REGISTERS] = {
    UC_X86_REG_RAX, UC_X86_REG_RCX, UC_X86_REG_RDX, UC_X86_REG_RBX, UC_X86_REG_RSP, UC_X86_REG_RBP, UC_X86_REG_RSI,
    UC_X86_REG_RDI, UC_X86_REG_R8, UC_X86_REG_R9, UC_X86_REG_R10, UC_X86_REG_R11, UC_X86_REG_R12, UC_X86_REG_R13,
    UC_X86_REG_R14, UC_X86_REG_R15, UC_X86_REG_RIP, UC_X86_REG_RFLAGS, UC_X86_REG_CS, UC_X86_REG_SS, UC_X86_REG_DS,
    UC_X86_REG_ES, UC_X86_REG_FS, UC_X86_REG_GS, UC_X86_REG_FS_BASE, UC_X86_REG_GS_BASE, UC_X86_REG_CR0,
    UC_X86_REG_CR2, UC_X86_REG_CR3, UC_X86_REG_CR4,
};

#define LIBRARY_FUNCTIONS(F) \
    F(uc_open) F(uc_close) F(uc_ctl) F(uc_version) F(uc_strerror) F(uc_mem_map_ptr) F(uc_mem_map) F(uc_mem_write) \
    F(uc_mem_unmap) F(uc_hook_add) F(uc_hook_del) F(uc_emu_start) F(uc_emu_stop) F(uc_reg_read) F(uc_reg_write) \
    F(uc_reg_read_batch) F(uc_context_alloc) F(uc_context_save) F(uc_context_restore) F(uc_context_size) \
    F(uc_context_reg_write) F(uc_context_free)

static struct {
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

typedef struct {
    uint64_t slot, pc;
    uint32_t count;
    uint32_t used;
} Learnt;

/* What the block hook touches on every block: `count` instructions retired once `current` has run to its end. */
typedef struct {
    uint64_t count, deadline;
    const Slot *current; /* NULL: between blocks */
} Hot;

#define SLOTS_PER_CHUNK 4096
#define STACK_SIZE (1 << 20)
#define NOWHERE 0x8000000000000000ULL /* never canonical: libunicorn compares `until` with the PC */

typedef struct {
    PyObject_HEAD
    uint64_t word[N_WORDS];
    uint64_t seen[N_REGISTERS];
    uc_engine *uc;
    uc_context *context, *target;
    size_t context_size;
    int alive, started, draining, step_not_taken, watching, stepping, guest_steps, exit_kind, where;
    uint64_t drain_cr3, watch_mask, watch_value;
    uint64_t start_from, empty_root;
    /* slots */
    Slot **chunks;
    size_t n_chunks, n_slots;
    void **block_data; /* the word inside libunicorn's hook object that holds the block hook's user_data */
    Slot *next_slot, odd;
    Learnt *learnt;
    size_t learnt_mask, learnt_used;
    /* places in a saved CPU context, found by calibrate() */
    size_t at_error_code, at_is_software, at_old_exception, context_data;
    struct { size_t at; uint32_t wide, narrow; } modes[8];
    int n_modes;
    uint64_t last_interrupt;
    /* the two stacks */
    jmp_buf caller, engine;
    ucontext_t boot;
    void *stack;
    Hot kept; /* of a core that is not the running one */
    uc_err error;
    Py_buffer ram;
    PyObject *answer;  /* called for EXIT_LEARN */
    void *region;      /* libunicorn's name for guest memory */
    uint8_t *executed; /* by frame: whether code was ever fetched from it */
} Core;

static PyObject *engine_error;
static Core *running; /* run() holds the GIL until the next exit, so there is one */
static Hot hot;       /* the running one's */

/* ------------------------------------------------------------------ slots and learnt counts */

static Slot *slot_at(Core *c, uint64_t index) { return &c->chunks[index / SLOTS_PER_CHUNK][index % SLOTS_PER_CHUNK]; }

static void fresh_slot(Core *c)
{
    if (c->n_slots == c->n_chunks * SLOTS_PER_CHUNK) {
        c->chunks = realloc(c->chunks, (c->n_chunks + 1) * sizeof *c->chunks);
        c->chunks[c->n_chunks++] = calloc(SLOTS_PER_CHUNK, sizeof(Slot));
    }
    c->next_slot = slot_at(c, c->n_slots++);
    *c->block_data = c->next_slot;
}

static uint64_t slot_index(Core *c, const Slot *slot)
{
    for (size_t i = c->n_chunks; i-- > 0;)
        if (slot >= c->chunks[i] && slot < c->chunks[i] + SLOTS_PER_CHUNK)
            return i * SLOTS_PER_CHUNK + (uint64_t)(slot - c->chunks[i]);
    return 0;
}

static Learnt *learnt_find(Core *c, uint64_t slot, uint64_t pc)
{
    uint64_t h = (slot ^ pc) * 0x9E3779B97F4A7C15ULL;
    for (size_t i = h >> 20;; i++) {
        Learnt *l = &c->learnt[i & c->learnt_mask];
        if (!l->used || (l->slot == slot && l->pc == pc))
            return l;
    }
}

static void learnt_add(Core *c, uint64_t slot, uint64_t pc, uint32_t count)
{
    if (c->learnt_used * 2 > c->learnt_mask) {
        Learnt *old = c->learnt;
        size_t n = c->learnt_mask + 1;
        c->learnt_mask = n * 2 - 1;
        c->learnt = calloc(n * 2, sizeof(Learnt));
        for (size_t i = 0; i < n; i++)
            if (old[i].used)
                *learnt_find(c, old[i].slot, old[i].pc) = old[i];
        free(old);
    }
    Learnt *l = learnt_find(c, slot, pc);
    c->learnt_used += !l->used;
    *l = (Learnt){slot, pc, count, 1};
}

/* ------------------------------------------------------------------ shortcuts (see the law) */

static int inside; /* the engine's stack is running, for the core `running` */

static struct {
    void (*call)(void *, void *, void *, int, void **);
    uint64_t (*load)(void *, void *, uint64_t, uint32_t, uint32_t *);
    void (*store)(void *, void *, uint64_t, uint32_t, uint32_t, uint32_t *);
    void *(*region)(void *, uint64_t);
    bool (*fill)(void *, uint64_t, int, int, int, bool, uintptr_t);
    void (*set_page)(void *, uint64_t, uint64_t, uint32_t, int, int, uint64_t);
    void (*leave_block)(void *, uint32_t);
} own; /* libunicorn's own functions of these names */

#define EXPORT __attribute__((visibility("default")))

/* Generates a call in translated code. */
EXPORT void tcg_gen_callN_x86_64(void *context, void *function, void *result, int count, void **arguments)
{
    if (inside && function == (void *)own.leave_block)
        return;
    own.call(context, function, result, count, arguments);
}

/* Reads 64 bits of machine memory (the page walk's loads). */
EXPORT uint64_t address_space_ldq_x86_64(void *uc, void *space, uint64_t address, uint32_t attributes, uint32_t *result)
{
    if (inside && address + 8 <= (uint64_t)running->ram.len) {
        uint64_t value;
        memcpy(&value, (const char *)running->ram.buf + address, sizeof value);
        if (result)
            *result = 0;
        return value;
    }
    return own.load(uc, space, address, attributes, result);
}

/* Writes 32 bits of machine memory (the page walk sets accessed and dirty bits with it). */
EXPORT void address_space_stl_notdirty_x86_64(void *uc, void *space, uint64_t address, uint32_t value,
                                              uint32_t attributes, uint32_t *result)
{
    if (inside && address + 4 <= (uint64_t)running->ram.len) {
        memcpy((char *)running->ram.buf + address, &value, sizeof value);
        if (result)
            *result = 0;
        return;
    }
    own.store(uc, space, address, value, attributes, result);
}

/* The memory region that an address lies in: guest memory is one. */
EXPORT void *find_memory_mapping_x86_64(void *uc, uint64_t address)
{
    if (inside && address < (uint64_t)running->ram.len) {
        if (!running->region)
            running->region = own.region(uc, address);
        return running->region;
    }
    return own.region(uc, address);
}

/* A store to a page that may be executed takes libunicorn ten times as long, for fear that it changes code. Of the
 * pages that are writable and executable few are ever executed, so such a page gets into the TLB as executable only
 * once an instruction was fetched from it. */
enum { PROT_W = 2, PROT_X = 4, ACCESS_FETCH = 2 };
static int fill_access;

EXPORT bool x86_cpu_tlb_fill_x86_64(void *cpu, uint64_t address, int size, int access, int mmu_index, bool probe, uintptr_t from)
{
    fill_access = access;
    return own.fill(cpu, address, size, access, mmu_index, probe, from);
}

EXPORT void tlb_set_page_with_attrs_x86_64(void *cpu, uint64_t address, uint64_t machine_address, uint32_t attributes,
                                           int protection, int mmu_index, uint64_t size)
{
    if (inside && machine_address < (uint64_t)running->ram.len) {
        uint8_t *executed = &running->executed[machine_address >> 12];
        if (fill_access == ACCESS_FETCH)
            *executed = 1;
        else if (!*executed && (protection & PROT_W))
            protection &= ~PROT_X;
    }
    own.set_page(cpu, address, machine_address, attributes, protection, mmu_index, size);
}

/* Our own functions are put before libunicorn's by making this library a global one before that is loaded. */
static void come_first(void)
{
    Dl_info info;
    if (dladdr((void *)come_first, &info))
        dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL);
}

static void find_own_functions(void *handle)
{
    own.call = (__typeof__(own.call))dlsym(handle, "tcg_gen_callN_x86_64");
    own.load = (__typeof__(own.load))dlsym(handle, "address_space_ldq_x86_64");
    own.store = (__typeof__(own.store))dlsym(handle, "address_space_stl_notdirty_x86_64");
    own.region = (__typeof__(own.region))dlsym(handle, "find_memory_mapping_x86_64");
    own.fill = (__typeof__(own.fill))dlsym(handle, "x86_cpu_tlb_fill_x86_64");
    own.set_page = (__typeof__(own.set_page))dlsym(handle, "tlb_set_page_with_attrs_x86_64");
    own.leave_block = (__typeof__(own.leave_block))dlsym(handle, "helper_check_exit_request_x86_64");
}

/* ------------------------------------------------------------------ leaving and resuming */

static void load_registers(Core *c)
{
    static void *pointers[N_REGISTERS];
    for (int i = 0; i < N_REGISTERS; i++)
        pointers[i] = &c->seen[i];
    for (int i = CS; i <= GS; i++)
        c->seen[i] = 0; /* selectors are 16 bits wide */
    lib.uc_reg_read_batch(c->uc, (int *)register_ids, pointers, N_REGISTERS);
    if (c->stepping && !c->guest_steps)
        c->seen[RFLAGS] &= ~(uint64_t)TF;
    memcpy(c->word, c->seen, sizeof c->seen);
}

static void switch_to_caller(Core *c)
{
    inside = 0;
    if (_setjmp(c->engine) == 0)
        _longjmp(c->caller, 1);
    inside = 1;
}

static uint64_t start_of_block(void) { return hot.current ? hot.count - hot.current->icount : hot.count; }

/* The running block is over, wherever it was left. */
static void between_blocks(uint64_t retired)
{
    hot.count = retired;
    hot.current = NULL;
}

/* How many instructions of the running block lie before `pc`; asks the caller the first time. */
static uint32_t retired_before(Core *c, uint64_t pc)
{
    if (!hot.current || pc == hot.current->pc)
        return 0;
    if (pc - hot.current->pc >= hot.current->size)
        return hot.current->icount; /* the fault came while fetching the next block: this one retired whole */
    uint64_t index = slot_index(c, hot.current);
    Learnt *l = learnt_find(c, index, pc);
    if (!l->used) {
        c->word[LEARN_SLOT] = index;
        c->word[LEARN_START] = hot.current->pc;
        c->word[LEARN_END] = pc;
        c->word[LEARN_SIZE] = 0;
        c->exit_kind = EXIT_LEARN;
        switch_to_caller(c);
        l = learnt_find(c, index, pc);
    }
    return l->used ? l->count : 0;
}

static void write_register(Core *c, int index)
{
    if (lib.uc_reg_write(c->uc, register_ids[index], &c->word[index]) != UC_ERR_OK) {
        uint64_t zero = 0;
        lib.uc_reg_write(c->uc, register_ids[index], &zero);
    }
}

static void set_program_counter_whole(Core *c, uint64_t rip);

/* For a place inside the syscall instruction's helper, which adds the length and then looks at TF at once: that #DB
 * is libunicorn's alone, and is passed over. */
static void set_program_counter_in_syscall(Core *c, uint64_t rip)
{
    uint64_t flags;
    lib.uc_reg_read(c->uc, UC_X86_REG_RFLAGS, &flags);
    c->step_not_taken = (flags & TF) != 0;
    set_program_counter_whole(c, rip - 2);
}

static void set_program_counter_whole(Core *c, uint64_t rip)
{
    lib.uc_context_save(c->uc, c->context);
    lib.uc_context_reg_write(c->context, UC_X86_REG_RIP, &rip);
    lib.uc_context_restore(c->uc, c->context);
}

/* Leaves a block that has not begun for another program counter. */
static void leave_block(Core *c, uint64_t rip)
{
    lib.uc_reg_write(c->uc, UC_X86_REG_RIP, &rip);
    if (own.leave_block)
        own.leave_block(c->uc, 0); /* does not return */
}

/* Changes between 64-bit and 32-bit code: the words in which a saved context differs between the two, found at
 * start-up, take the wanted mode's bits. (Writing CS as a register only changes the selector.) */
static void switch_code_width(Core *c, int to_32)
{
    lib.uc_context_save(c->uc, c->context);
    for (int i = 0; i < c->n_modes; i++) {
        uint32_t *word = (uint32_t *)((char *)c->context + c->modes[i].at);
        uint32_t mask = c->modes[i].wide ^ c->modes[i].narrow;
        *word = (*word & ~mask) | ((to_32 ? c->modes[i].narrow : c->modes[i].wide) & mask);
    }
    lib.uc_context_restore(c->uc, c->context);
}

/* Puts the caller's changes into the CPU. Order: plain registers, selectors before the bases that they would reset,
 * control registers, and RIP last in the way that the place allows. */
static void apply(Core *c)
{
    int moved = c->word[RIP] != c->seen[RIP] || (c->where == AT_BLOCK && c->word[CR3] != c->seen[CR3]);
    if (c->stepping) { /* the CPU steps whatever the guest's own flag is */
        c->guest_steps = (c->word[RFLAGS] & TF) != 0;
        c->word[RFLAGS] |= TF;
        c->seen[RFLAGS] = ~c->word[RFLAGS];
    }
    if (c->word[CODE_SWITCH]) {
        switch_code_width(c, c->word[CODE_SWITCH] == 2);
        c->word[CODE_SWITCH] = 0;
    }
    if (moved || memcmp(c->word, c->seen, sizeof c->seen) != 0) {
        if (c->where == AT_MIDDLE && (moved || c->word[CR3] != c->seen[CR3])) {
            /* wanted state whole into `target`, then drain the block */
            for (int i = 0; i < N_REGISTERS; i++)
                if (i != RIP && i != CR3 && c->word[i] != c->seen[i])
                    write_register(c, i);
            lib.uc_context_save(c->uc, c->target);
            lib.uc_context_reg_write(c->target, UC_X86_REG_RIP, &c->word[RIP]);
            lib.uc_context_reg_write(c->target, UC_X86_REG_CR2, &c->word[CR2]);
            c->draining = 1;
            hot.deadline = 0; /* so that the next block is a special one */
            c->drain_cr3 = c->word[CR3];
            between_blocks(c->word[RETIRED]);
            c->word[FLUSH] = 0;
            lib.uc_reg_write(c->uc, UC_X86_REG_CR3, &c->empty_root);
            return;
        }
        for (int i = 0; i < N_REGISTERS; i++) {
            if (i == RIP)
                continue;
            if (c->word[i] != c->seen[i] || ((i == FS_BASE || i == GS_BASE) && c->word[i - 2] != c->seen[i - 2])) {
                write_register(c, i);
                c->word[FLUSHES] += i == CR3;
                if (i == CR3)
                    c->word[FLUSH] = 0;
            }
        }
        if (moved) {
            if (c->where == AT_SYSCALL)
                set_program_counter_in_syscall(c, c->word[RIP]);
            else if (c->where == AT_LOOP)
                set_program_counter_whole(c, c->word[RIP]);
        }
    }
    if (c->word[FLUSH]) {
        lib.uc_ctl(c->uc, UC_CTL_WRITE(UC_CTL_TLB_FLUSH, 0));
        c->word[FLUSH] = 0;
        c->word[FLUSHES]++;
    }
    if (moved && c->where == AT_BLOCK) {
        between_blocks(c->word[RETIRED]);
        leave_block(c, c->word[RIP]);
    }
}

static void leave(Core *c, int kind, int where)
{
    c->exit_kind = kind;
    c->where = where;
    switch_to_caller(c);
    apply(c);
}

/* While a block drains its hooks are not exits. Returns 1 when the caller's hook must do nothing. */
static int drained(Core *c, int where)
{
    if (!c->draining)
        return 0;
    if (where == AT_MIDDLE)
        return 1; /* still inside the block that is being drained */
    c->draining = 0;
    hot.deadline = c->word[DEADLINE];
    lib.uc_context_restore(c->uc, c->target);
    lib.uc_reg_write(c->uc, UC_X86_REG_CR3, &c->drain_cr3);
    if (where == AT_BLOCK)
        leave_block(c, c->word[RIP]);
    else if (where == AT_SYSCALL)
        set_program_counter_in_syscall(c, c->word[RIP]);
    return 1;
}

/* ------------------------------------------------------------------ hooks */

/* Everything but the common case: a deadline, a block that drains, a block whose count is not known. */
static __attribute__((noinline)) void on_special_block(uint64_t pc, uint32_t size, Slot *slot)
{
    Core *c = running;
    if (drained(c, AT_BLOCK))
        return;
    if (slot == c->next_slot) { /* translated without an edge: claim the slot */
        *slot = (Slot){pc, size, 0};
        fresh_slot(c);
    }
    int taken = !hot.current || pc != hot.current->pc + hot.current->size;
    if (hot.count >= hot.deadline && taken) {
        load_registers(c);
        c->word[RIP] = c->seen[RIP] = pc;
        c->word[RETIRED] = hot.count;
        leave(c, EXIT_DEADLINE, AT_BLOCK);
        if (c->word[RIP] != pc || c->word[CR3] != c->seen[CR3])
            return; /* this block will not run */
    }
    if (slot->pc != pc || !slot->icount) {
        c->word[LEARN_SLOT] = slot_index(c, slot);
        c->word[LEARN_START] = pc;
        c->word[LEARN_END] = 0;
        c->word[LEARN_SIZE] = size;
        c->word[EXIT_VALUE] = 0;
        c->exit_kind = EXIT_LEARN;
        switch_to_caller(c); /* the answer comes back in EXIT_VALUE */
        if (slot->pc != pc)
            slot = &c->odd; /* two blocks were given one slot */
        *slot = (Slot){pc, size, (uint32_t)c->word[EXIT_VALUE]};
    }
    hot.count += slot->icount;
    hot.current = slot;
}

static void on_block(uc_engine *uc, uint64_t pc, uint32_t size, void *data)
{
    (void)uc;
    Slot *slot = data;
    uint64_t count = hot.count;
    uint32_t icount = slot->icount;
    if (__builtin_expect(slot->pc != pc || !icount || count >= hot.deadline, 0)) {
        on_special_block(pc, size, slot);
        return;
    }
    hot.count = count + icount;
    hot.current = slot;
}

static void on_edge(uc_engine *uc, uc_tb *block, uc_tb *previous, void *data)
{
    (void)uc, (void)previous;
    Core *c = data;
    *c->next_slot = (Slot){block->pc, block->size, block->icount};
    fresh_slot(c);
}

/* Settles the clock at an exit whose instruction begins at `pc`; `done` of it (0 or 1) has retired. */
static void settle(Core *c, uint64_t pc, int done, int block_ends)
{
    uint32_t before = retired_before(c, pc);
    c->word[RETIRED] = start_of_block() + before + (uint64_t)done;
    if (block_ends)
        between_blocks(c->word[RETIRED]);
}

static void on_syscall(uc_engine *uc, void *data)
{
    (void)uc;
    Core *c = data;
    if (drained(c, AT_SYSCALL))
        return;
    load_registers(c);
    c->word[RETIRED] = hot.count; /* a syscall ends its block */
    hot.current = NULL;
    c->seen[RIP] += 2;
    c->word[RIP] = c->seen[RIP];
    c->word[RCX] = c->seen[RIP];
    c->word[R11] = c->seen[RFLAGS];
    leave(c, EXIT_SYSCALL, AT_SYSCALL);
}

static void on_sysenter(uc_engine *uc, void *data)
{
    (void)uc;
    Core *c = data;
    if (drained(c, AT_MIDDLE))
        return;
    load_registers(c);
    settle(c, c->word[RIP], 1, 0);
    leave(c, EXIT_SYSENTER, AT_MIDDLE);
}

static int32_t context_word(Core *c, size_t offset)
{
    int32_t value;
    memcpy(&value, (const char *)c->context + offset, sizeof value);
    return value;
}

static void on_interrupt(uc_engine *uc, uint32_t number, void *data)
{
    (void)uc;
    Core *c = data;
    if (drained(c, AT_LOOP))
        return;
    if (number == 1 && c->step_not_taken) {
        c->step_not_taken = 0;
        return;
    }
    c->step_not_taken = 0;
    if (number == 1 && c->stepping && !c->guest_steps && !c->word[WATCH_SIZE]) {
        hot.current = NULL;
        return; /* nothing watched was touched */
    }
    lib.uc_context_save(c->uc, c->context);
    c->word[EXIT_VECTOR] = number;
    c->word[EXIT_ERROR_CODE] = (uint32_t)context_word(c, c->at_error_code);
    c->word[EXIT_SOFTWARE] = context_word(c, c->at_is_software) != 0;
    if (context_word(c, c->at_old_exception) != -1) { /* or the next fault would be reported as a double fault */
        int32_t none = -1;
        memcpy((char *)c->context + c->at_old_exception, &none, sizeof none);
        lib.uc_context_restore(c->uc, c->context);
    }
    load_registers(c);
    if (c->word[EXIT_SOFTWARE] || number == 1) {
        /* int n and a single step report the next instruction: the one before it has retired and ended its block */
        c->word[RETIRED] = hot.count;
        hot.current = NULL;
    } else {
        settle(c, c->word[RIP], 0, 1);
    }
    leave(c, EXIT_EXCEPTION, AT_LOOP);
}

static bool on_invalid(uc_engine *uc, void *data)
{
    (void)uc;
    Core *c = data;
    if (drained(c, AT_LOOP))
        return true;
    load_registers(c);
    settle(c, c->word[RIP], 0, 1);
    leave(c, EXIT_INVALID, AT_LOOP);
    return true;
}

static uint32_t on_in(uc_engine *uc, uint32_t port, int size, void *data)
{
    (void)uc;
    Core *c = data;
    if (drained(c, AT_MIDDLE))
        return 0;
    load_registers(c);
    settle(c, c->word[RIP], 0, 0);
    c->word[EXIT_PORT] = port;
    c->word[EXIT_SIZE] = (uint64_t)size;
    c->word[EXIT_VALUE] = 0;
    leave(c, EXIT_IN, AT_MIDDLE);
    return (uint32_t)c->word[EXIT_VALUE];
}

static void on_out(uc_engine *uc, uint32_t port, int size, uint32_t value, void *data)
{
    (void)uc;
    Core *c = data;
    if (drained(c, AT_MIDDLE))
        return;
    load_registers(c);
    settle(c, c->word[RIP], 0, 0);
    c->word[EXIT_PORT] = port;
    c->word[EXIT_SIZE] = (uint64_t)size;
    c->word[EXIT_VALUE] = value;
    leave(c, EXIT_OUT, AT_MIDDLE);
}

static int on_cpuid(uc_engine *uc, void *data)
{
    (void)uc;
    Core *c = data;
    if (drained(c, AT_MIDDLE))
        return 1;
    load_registers(c);
    settle(c, c->word[RIP], 0, 0);
    leave(c, EXIT_CPUID, AT_MIDDLE);
    return 1;
}

static int on_rdtsc(uc_engine *uc, void *data)
{
    Core *c = data;
    if (c->draining)
        return 1;
    uint64_t rip, tsc;
    lib.uc_reg_read(uc, UC_X86_REG_RIP, &rip);
    tsc = start_of_block() + retired_before(c, rip) + c->word[TIME_SKEW];
    uint64_t low = tsc & 0xffffffff, high = tsc >> 32;
    lib.uc_reg_write(uc, UC_X86_REG_RAX, &low);
    lib.uc_reg_write(uc, UC_X86_REG_RDX, &high);
    c->word[RDTSCS]++;
    return 1;
}

static int on_rdtscp(uc_engine *uc, void *data)
{
    Core *c = data;
    int done = on_rdtsc(uc, data);
    if (!c->draining)
        lib.uc_reg_write(uc, UC_X86_REG_RCX, &c->word[TSC_AUX]);
    return done;
}

static void on_stop_point(uc_engine *uc, uint64_t pc, uint32_t size, void *data)
{
    (void)uc, (void)size;
    Core *c = data;
    if (c->draining)
        return;
    load_registers(c);
    c->word[RIP] = c->seen[RIP] = pc;
    settle(c, pc, 0, 0);
    leave(c, EXIT_STOP_POINT, AT_BLOCK); /* as at a block's start, the instruction has not begun */
}

/* An access to watched machine memory, before it is made: noted here, told when its instruction is done. */
static void on_watch(uc_engine *uc, uc_mem_type type, uint64_t address, int size, int64_t value, void *data)
{
    (void)uc, (void)value;
    Core *c = data;
    uint64_t last = address + (uint64_t)size - 1;
    if (c->draining || !inside || ((address & c->watch_mask) != c->watch_value && (last & c->watch_mask) != c->watch_value))
        return;
    c->word[WATCH_ADDRESS] = address;
    c->word[WATCH_SIZE] = (uint64_t)size;
    c->word[WATCH_WRITE] = type == UC_MEM_WRITE;
}

/* ------------------------------------------------------------------ calibration
 * Where a saved context keeps the error code, the software-interrupt mark and the pending exception is a matter of
 * the build. Known faults are provoked on a scratch page table and the words that changed as they must are taken. */

static void note_interrupt(uc_engine *uc, uint32_t number, void *data)
{
    Core *c = data;
    c->last_interrupt = number;
    lib.uc_context_save(uc, c->context); /* leaving the loop disturbs the state, so it is taken here */
    lib.uc_emu_stop(uc);
}

static int provoke(Core *c, uc_context *clean, const char *code, size_t size, int32_t *words, size_t n)
{
    const uint64_t at = 0x8000;
    char padded[32];
    memset(padded, 0x90, sizeof padded);
    memcpy(padded, code, size);
    lib.uc_context_restore(c->uc, clean);
    lib.uc_mem_write(c->uc, at, padded, sizeof padded);
    lib.uc_ctl(c->uc, UC_CTL_WRITE(UC_CTL_TB_REMOVE_CACHE, 2), at, at + sizeof padded);
    c->last_interrupt = ~0ULL;
    lib.uc_emu_start(c->uc, at, NOWHERE, 0, 0);
    memcpy(words, c->context, n * sizeof *words);
    return (int)c->last_interrupt;
}

/* The words in which contexts of 64-bit and 32-bit code differ; the selectors 0x23 and 0x2b themselves apart. */
static int find_modes(Core *c, uc_context *clean, size_t n)
{
    static const char far_return[] = "\x48\xbc\x00\x90\x00\x00\x00\x00\x00\x00\x48\xcf\x90\x90\x90\x90\xcd\x80";
    static const char plain[] = "\x48\xbc\x00\x70\x00\x00\x00\x00\x00\x00\x90\x90\x90\x90\x90\x90\xcd\x80";
    const uint64_t frame[] = {0x8010, 0x2b, 0x202, 0x7000, 0x1b};
    int32_t *wide = malloc(n * 4), *narrow = malloc(n * 4);
    lib.uc_mem_write(c->uc, 0x9000, frame, sizeof frame);
    int good = provoke(c, clean, plain, sizeof plain - 1, wide, n) == 0x80 &&
               provoke(c, clean, far_return, sizeof far_return - 1, narrow, n) == 0x80;
    c->n_modes = 0;
    for (size_t k = 0; good && k < n; k++) {
        if (wide[k] == narrow[k] || (wide[k] == 0x23 && narrow[k] == 0x2b))
            continue;
        if (c->n_modes == 8)
            good = 0;
        else
            c->modes[c->n_modes++] = (__typeof__(c->modes[0])){k * 4, (uint32_t)wide[k], (uint32_t)narrow[k]};
    }
    free(wide);
    free(narrow);
    return good && c->n_modes >= 2;
}

static int calibrate(Core *c)
{
    enum { P4 = 0x1000, P3 = 0x2000, P2 = 0x3000, GDT = 0x4000, CODE = 0x5000, STACK = 0x6000 };
    const uint64_t p4 = P3 | 7, p3 = P2 | 7, p2 = 0x87, efer_lma = 0xD01;
    const uint64_t gdt[] = {0, 0x00af9b000000ffffULL, 0x00cf93000000ffffULL, 0x00cff3000000ffffULL, 0x00affb000000ffffULL,
                            0x00cffb000000ffffULL};
    const uint64_t frame[] = {0x8000, 0x23, 0x202, 0x7000, 0x1b};
    const uc_x86_mmr gdtr = {0, GDT, sizeof gdt - 1, 0};
    const uc_x86_msr efer = {0xC0000080, efer_lma};
    const uint64_t cr3 = P4, cr4 = 0x620, cr0 = 0x80010011, sp = STACK;
    uc_hook interrupt, *hook = &interrupt;
    if (lib.uc_mem_map(c->uc, 0, 0x200000, UC_PROT_ALL) != UC_ERR_OK)
        return 0;
    lib.uc_mem_write(c->uc, P4, &p4, 8);
    lib.uc_mem_write(c->uc, P3, &p3, 8);
    lib.uc_mem_write(c->uc, P2, &p2, 8);
    lib.uc_mem_write(c->uc, GDT, gdt, sizeof gdt);
    lib.uc_mem_write(c->uc, CODE, "\x48\xcf", 2);
    lib.uc_mem_write(c->uc, STACK, frame, sizeof frame);
    lib.uc_reg_write(c->uc, UC_X86_REG_GDTR, &gdtr);
    lib.uc_reg_write(c->uc, UC_X86_REG_CR3, &cr3);
    lib.uc_reg_write(c->uc, UC_X86_REG_CR4, &cr4);
    lib.uc_reg_write(c->uc, UC_X86_REG_MSR, &efer);
    lib.uc_reg_write(c->uc, UC_X86_REG_CR0, &cr0);
    lib.uc_reg_write(c->uc, UC_X86_REG_RSP, &sp);
    lib.uc_hook_add(c->uc, hook, UC_HOOK_INTR, note_interrupt, c, (uint64_t)1, (uint64_t)0);
    uc_context *initial, *clean;
    lib.uc_context_alloc(c->uc, &initial);
    lib.uc_context_alloc(c->uc, &clean);
    lib.uc_context_save(c->uc, initial);
    lib.uc_emu_start(c->uc, CODE, 0x8000, 0, 1); /* iretq to ring 3 */
    lib.uc_context_save(c->uc, clean);

    const size_t n = c->context_size / 4;
    int32_t *w[5];
    for (int i = 0; i < 5; i++)
        w[i] = malloc(n * 4);
    static const struct { const char *code; size_t size; int vector; int32_t error; int software; int32_t pending; } faults[5] = {
        {"\x89\x04\x25\x00\x00\x00\x40", 7, 14, 6, 0, 14},           /* mov [0x40000000], eax: #PF, write, user */
        {"\x8b\x04\x25\x00\x00\x00\x40", 7, 14, 4, 0, 14},           /* mov eax, [0x40000000]: #PF, user */
        {"\xb8\x40\x00\x00\x00\x8e\xd8", 7, 13, 0x40, 0, 13},        /* mov ds, 0x40 (past the GDT): #GP(0x40) */
        {"\xcd\x80", 2, 0x80, 0, 1, -1},                             /* int 0x80 */
        {"\xfa", 1, 13, 0, 0, 13},                                   /* cli: #GP(0) */
    };
    int good = 1;
    for (int i = 0; i < 5; i++)
        good &= provoke(c, clean, faults[i].code, faults[i].size, w[i], n) == faults[i].vector;
    size_t found[3] = {0, 0, 0}, hits[3] = {0, 0, 0};
    for (size_t k = 0; good && k < n; k++) {
        int error = 1, software = 1, pending = 1;
        for (int i = 0; i < 5; i++) {
            error &= i == 3 || w[i][k] == faults[i].error;
            software &= (w[i][k] != 0) == faults[i].software && (w[i][k] == 0 || w[i][k] == 1);
            pending &= i == 3 || w[i][k] == faults[i].pending;
        }
        if (error) found[0] = k * 4, hits[0]++;
        /* the mark lies directly behind the error code in every build seen */
        if (software && hits[0] && k * 4 == found[0] + 4) found[1] = k * 4, hits[1]++;
        if (pending && w[3][k] == -1) found[2] = k * 4, hits[2]++;
    }
    for (int i = 0; i < 5; i++)
        free(w[i]);
    good = good && find_modes(c, clean, found[0] / 4); /* what lies behind the error code is no part of the mode */
    c->at_error_code = found[0], c->at_is_software = found[1], c->at_old_exception = found[2];
    lib.uc_context_restore(c->uc, initial);
    lib.uc_context_free(initial);
    lib.uc_context_free(clean);
    lib.uc_hook_del(c->uc, interrupt);
    lib.uc_mem_unmap(c->uc, 0, 0x200000);
    return good && hits[0] == 1 && hits[1] == 1 && hits[2] == 1;
}

/* ------------------------------------------------------------------ the object */

static PyObject *fail(Core *c, const char *what, uc_err error)
{
    (void)c;
    PyErr_Format(engine_error, "unicorn engine: %s: %s", what, lib.uc_strerror ? lib.uc_strerror(error) : "?");
    return NULL;
}

static int add_hook(Core *c, int type, void *callback, void *data, int instruction, uc_hook *out)
{
    uc_hook hook;
    uc_err e = instruction
        ? lib.uc_hook_add(c->uc, &hook, type, callback, data, (uint64_t)1, (uint64_t)0, instruction)
        : lib.uc_hook_add(c->uc, &hook, type, callback, data, (uint64_t)1, (uint64_t)0);
    if (out)
        *out = hook;
    if (e != UC_ERR_OK)
        fail(c, "cannot add a hook", e);
    return e == UC_ERR_OK;
}

/* The block hook's user_data, found behind its callback in the hook object. */
static int find_block_data(Core *c, uc_hook hook, void *callback, void *data)
{
    void **words = (void **)hook;
    for (int i = 0; i < 12; i++)
        if (words[i] == callback && words[i + 1] == data) {
            c->block_data = &words[i + 1];
            return 1;
        }
    PyErr_SetString(engine_error, "unicorn engine: this build of libunicorn keeps hooks in an unknown form; use 2.1.4");
    return 0;
}

static int load_library(const char *path)
{
    if (lib.handle)
        return 1;
    come_first();
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        PyErr_Format(engine_error, "unicorn engine: cannot load %s: %s", path, dlerror());
        return 0;
    }
#define RESOLVE(name) \
    if (!(lib.name = (__typeof__(&name))dlsym(handle, #name))) { \
        PyErr_Format(engine_error, "unicorn engine: %s has no %s", path, #name); \
        return 0; \
    }
    LIBRARY_FUNCTIONS(RESOLVE)
#undef RESOLVE
    find_own_functions(handle);
    lib.handle = handle;
    return 1;
}

static int core_setup(Core *c, unsigned long long ram_base)
{
    uc_err e = lib.uc_open(UC_ARCH_X86, UC_MODE_64, &c->uc);
    if (e != UC_ERR_OK)
        return fail(c, "cannot open", e), 0;
    lib.uc_ctl(c->uc, UC_CTL_WRITE(UC_CTL_CPU_MODEL, 1), UC_CPU_X86_EPYC);
    lib.uc_ctl(c->uc, UC_CTL_WRITE(UC_CTL_TCG_BUFFER_SIZE, 1), (uint32_t)(96 << 20));
    lib.uc_ctl(c->uc, UC_CTL_WRITE(UC_CTL_TLB_TYPE, 1), UC_TLB_CPU);
    lib.uc_context_alloc(c->uc, &c->context);
    lib.uc_context_alloc(c->uc, &c->target);
    c->context_size = lib.uc_context_size(c->uc);
    if (!calibrate(c)) {
        PyErr_SetString(engine_error, "unicorn engine: cannot find the exception state of this build of libunicorn; use 2.1.4");
        return 0;
    }
    e = lib.uc_mem_map_ptr(c->uc, ram_base, (size_t)c->ram.len, UC_PROT_ALL, c->ram.buf);
    if (e != UC_ERR_OK)
        return fail(c, "cannot map guest memory", e), 0;
    c->executed = calloc((size_t)c->ram.len >> 12, 1);
    uc_hook block;
    static char cookie;
    if (!add_hook(c, UC_HOOK_BLOCK, (void *)on_block, &cookie, 0, &block) || !find_block_data(c, block, (void *)on_block, &cookie))
        return 0;
    fresh_slot(c);
    return add_hook(c, UC_HOOK_EDGE_GENERATED, (void *)on_edge, c, 0, NULL) &&
           add_hook(c, UC_HOOK_INTR, (void *)on_interrupt, c, 0, NULL) &&
           add_hook(c, UC_HOOK_INSN_INVALID, (void *)on_invalid, c, 0, NULL) &&
           add_hook(c, UC_HOOK_INSN, (void *)on_syscall, c, UC_X86_INS_SYSCALL, NULL) &&
           add_hook(c, UC_HOOK_INSN, (void *)on_sysenter, c, UC_X86_INS_SYSENTER, NULL) &&
           add_hook(c, UC_HOOK_INSN, (void *)on_in, c, UC_X86_INS_IN, NULL) &&
           add_hook(c, UC_HOOK_INSN, (void *)on_out, c, UC_X86_INS_OUT, NULL) &&
           add_hook(c, UC_HOOK_INSN, (void *)on_cpuid, c, UC_X86_INS_CPUID, NULL) &&
           add_hook(c, UC_HOOK_INSN, (void *)on_rdtsc, c, UC_X86_INS_RDTSC, NULL) &&
           add_hook(c, UC_HOOK_INSN, (void *)on_rdtscp, c, UC_X86_INS_RDTSCP, NULL);
}

static PyObject *core_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"library", "ram", "answer", NULL};
    const char *library;
    PyObject *ram, *answer;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "sOO", names, &library, &ram, &answer) || !load_library(library))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Core *c = (Core *)allocate(type, 0);
    if (!c)
        return NULL;
    c->learnt_mask = 1023;
    c->learnt = calloc(1024, sizeof(Learnt));
    c->word[DEADLINE] = ~0ULL;
    Py_INCREF(answer);
    c->answer = answer;
    if (PyObject_GetBuffer(ram, &c->ram, PyBUF_WRITABLE) < 0 || !core_setup(c, 0)) {
        Py_DECREF(c);
        return NULL;
    }
    return (PyObject *)c;
}

/* Everything but the register file. */
static void release(Core *c)
{
    if (running == c)
        running = NULL;
    c->alive = 0;
    if (c->uc) {
        if (c->context)
            lib.uc_context_free(c->context);
        if (c->target)
            lib.uc_context_free(c->target);
        lib.uc_close(c->uc);
        c->uc = NULL;
    }
    for (size_t i = 0; i < c->n_chunks; i++)
        free(c->chunks[i]);
    free(c->chunks);
    free(c->learnt);
    free(c->executed);
    c->chunks = NULL, c->learnt = NULL, c->executed = NULL;
    c->n_chunks = c->n_slots = 0;
    if (c->stack)
        munmap(c->stack, STACK_SIZE);
    c->stack = NULL;
    if (c->ram.obj)
        PyBuffer_Release(&c->ram);
    Py_CLEAR(c->answer);
}

static PyObject *core_close(Core *c, PyObject *unused)
{
    (void)unused;
    release(c);
    Py_RETURN_NONE;
}

static void core_dealloc(Core *c)
{
    PyTypeObject *type = Py_TYPE((PyObject *)c);
    release(c);
    freefunc free_object = (freefunc)PyType_GetSlot(type, Py_tp_free);
    free_object(c);
    Py_DECREF(type);
}

static Core *entering;

static void engine_main(void)
{
    Core *c = entering;
    inside = 1;
    c->error = lib.uc_emu_start(c->uc, c->start_from, NOWHERE, 0, 0);
    inside = 0;
    c->alive = 0;
    c->exit_kind = EXIT_DEAD;
    load_registers(c);
    c->word[EXIT_VALUE] = c->error;
    c->word[RETIRED] = hot.count;
    _longjmp(c->caller, 1);
}

/* start(trampoline, stack, gdt, limit, drain_cr3): begin at ring 0 in a page that holds iretq; the first exit comes
 * from the guest itself. The register file must hold CR0, CR3, CR4. */
static PyObject *core_start(Core *c, PyObject *args)
{
    unsigned long long trampoline, stack, gdt, limit, drain;
    if (!PyArg_ParseTuple(args, "KKKKK", &trampoline, &stack, &gdt, &limit, &drain))
        return NULL;
    const uc_x86_mmr gdtr = {0, gdt, (uint32_t)limit, 0};
    const uc_x86_msr efer = {0xC0000080, 0xD01};
    lib.uc_reg_write(c->uc, UC_X86_REG_GDTR, &gdtr);
    lib.uc_reg_write(c->uc, UC_X86_REG_CR3, &c->word[CR3]);
    lib.uc_reg_write(c->uc, UC_X86_REG_CR4, &c->word[CR4]);
    lib.uc_reg_write(c->uc, UC_X86_REG_MSR, &efer);
    lib.uc_reg_write(c->uc, UC_X86_REG_CR0, &c->word[CR0]);
    for (int i = RAX; i <= R15; i++)
        lib.uc_reg_write(c->uc, register_ids[i], &c->word[i]);
    lib.uc_reg_write(c->uc, UC_X86_REG_RSP, &stack);
    c->stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (c->stack == MAP_FAILED)
        return c->stack = NULL, PyErr_NoMemory();
    c->started = c->alive = 1;
    c->start_from = trampoline;
    c->empty_root = drain;
    Py_RETURN_NONE;
}

static void switch_to_engine(Core *c)
{
    if (running != c) {
        if (running)
            running->kept = hot;
        hot = c->kept;
        running = c;
    }
    if (!c->draining)
        hot.deadline = c->word[DEADLINE];
    if (_setjmp(c->caller) == 0) {
        if (c->started == 1) {
            c->started = 2;
            entering = c;
            getcontext(&c->boot);
            c->boot.uc_stack.ss_sp = c->stack;
            c->boot.uc_stack.ss_size = STACK_SIZE;
            c->boot.uc_link = NULL;
            makecontext(&c->boot, engine_main, 0);
            setcontext(&c->boot);
        }
        _longjmp(c->engine, 1);
    }
}

/* run(): to the next exit; what the engine asks on the way is answered by the callable that it was made with. */
static PyObject *core_run(Core *c, PyObject *unused)
{
    (void)unused;
    do {
        if (!c->alive) {
            PyErr_SetString(engine_error, "unicorn engine: run() before start() or after the end");
            return NULL;
        }
        switch_to_engine(c);
        if (c->exit_kind != EXIT_LEARN)
            return PyLong_FromLong(c->exit_kind);
        PyObject *nothing = PyObject_CallNoArgs(c->answer);
        if (!nothing)
            return NULL;
        Py_DECREF(nothing);
    } while (1);
}

/* stop_at(address): leave before each instruction there. The translations made so far are dropped. */
static PyObject *core_stop_at(Core *c, PyObject *args)
{
    unsigned long long address;
    uc_hook hook;
    if (!PyArg_ParseTuple(args, "K", &address))
        return NULL;
    uc_err e = lib.uc_hook_add(c->uc, &hook, UC_HOOK_CODE, (void *)on_stop_point, c, (uint64_t)address, (uint64_t)address);
    if (e != UC_ERR_OK)
        return fail(c, "cannot add a stop point", e);
    lib.uc_ctl(c->uc, UC_CTL_WRITE(UC_CTL_TB_FLUSH, 0));
    Py_RETURN_NONE;
}

/* watch(mask, value): #DB after each instruction that touched machine addresses that have `value` in the bits of
 * `mask`; all ones for both: none. The CPU steps meanwhile, and memory stays slower for good. */
static PyObject *core_watch(Core *c, PyObject *args)
{
    unsigned long long mask, value;
    if (!PyArg_ParseTuple(args, "KK", &mask, &value))
        return NULL;
    c->watch_mask = mask;
    c->watch_value = value;
    c->stepping = mask != ~0ULL;
    if (!c->watching) {
        uc_hook hook;
        uc_err e = lib.uc_hook_add(c->uc, &hook, UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE, (void *)on_watch, c, (uint64_t)1,
                                   (uint64_t)0);
        if (e != UC_ERR_OK)
            return fail(c, "cannot add a watchpoint", e);
        lib.uc_ctl(c->uc, UC_CTL_WRITE(UC_CTL_TB_FLUSH, 0));
        lib.uc_ctl(c->uc, UC_CTL_WRITE(UC_CTL_TLB_FLUSH, 0));
        c->watching = 1;
    }
    Py_RETURN_NONE;
}

/* load_ldt(base, limit): the LDT register. */
static PyObject *core_load_ldt(Core *c, PyObject *args)
{
    unsigned long long base, limit;
    if (!PyArg_ParseTuple(args, "KK", &base, &limit))
        return NULL;
    const uc_x86_mmr ldtr = {limit ? 8 : 0, base, (uint32_t)limit, 0x8200};
    lib.uc_reg_write(c->uc, UC_X86_REG_LDTR, &ldtr);
    Py_RETURN_NONE;
}

static PyObject *core_learn(Core *c, PyObject *args)
{
    unsigned long long slot, pc;
    unsigned int count;
    if (!PyArg_ParseTuple(args, "KKI", &slot, &pc, &count))
        return NULL;
    learnt_add(c, slot, pc, count);
    Py_RETURN_NONE;
}

static int core_getbuffer(Core *c, Py_buffer *view, int flags)
{
    static Py_ssize_t shape[1] = {N_WORDS}, strides[1] = {8};
    (void)flags;
    view->buf = c->word;
    view->obj = (PyObject *)c;
    Py_INCREF((PyObject *)c);
    view->len = sizeof c->word;
    view->readonly = 0;
    view->itemsize = 8;
    view->format = "Q";
    view->ndim = 1;
    view->shape = shape;
    view->strides = strides;
    view->suboffsets = NULL;
    view->internal = NULL;
    return 0;
}

static PyMethodDef core_methods[] = {
    {"start", (PyCFunction)core_start, METH_VARARGS, "start(trampoline, stack, gdt, limit, empty_root)"},
    {"run", (PyCFunction)core_run, METH_NOARGS, "run() -> exit kind"},
    {"stop_at", (PyCFunction)core_stop_at, METH_VARARGS, "stop_at(address)"},
    {"watch", (PyCFunction)core_watch, METH_VARARGS, "watch(first, last)"},
    {"load_ldt", (PyCFunction)core_load_ldt, METH_VARARGS, "load_ldt(base, limit)"},
    {"close", (PyCFunction)core_close, METH_NOARGS, "close(): release all but the register file"},
    {"learn", (PyCFunction)core_learn, METH_VARARGS, "learn(slot, pc, count)"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot core_slots[] = {
    {Py_tp_new, core_new},
    {Py_tp_dealloc, core_dealloc},
    {Py_tp_methods, core_methods},
    {Py_bf_getbuffer, core_getbuffer},
    {0, NULL},
};

static PyType_Spec core_spec = {"stub.engine.unicorn._core.Core", sizeof(Core), 0, Py_TPFLAGS_DEFAULT, core_slots};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_core", "The hot inner part of the Unicorn engine.", -1, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__core(void)
{
    PyObject *m = PyModule_Create(&module);
    PyObject *type = PyType_FromSpec(&core_spec);
    engine_error = PyErr_NewException("stub.engine.unicorn._core.CoreError", NULL, NULL);
    if (!m || !type || !engine_error || PyModule_AddObjectRef(m, "Core", type) < 0 ||
        PyModule_AddObjectRef(m, "CoreError", engine_error) < 0 || PyModule_AddIntConstant(m, "N_WORDS", N_WORDS) < 0)
        return NULL;
    return m;
}
