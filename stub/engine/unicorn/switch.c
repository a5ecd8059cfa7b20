/* Leaving the guest and going back: the two stacks, the register file, the ways to put a program counter in place. */
#include "core.h"

/* The register file as the CPU has it. CR0, CR3 and CR4 no guest can change; CR2 is read where it matters. */
void load_registers(Core *c)
{
    void *pointers[CR0];
    for (int i = 0; i < CR0; i++)
        pointers[i] = &c->seen[i];
    for (int i = CS; i <= GS; i++)
        c->seen[i] = 0; /* selectors are 16 bits wide */
    lib.uc_reg_read_batch(c->uc, (int *)register_ids, pointers, CR0);
    if (c->traps && !c->guest_steps)
        c->seen[RFLAGS] &= ~(uint64_t)TF;
    memcpy(c->word, c->seen, sizeof c->seen);
}

void switch_to_caller(Core *c)
{
    inside = 0;
    if (_setjmp(c->engine) == 0)
        _longjmp(c->caller, 1);
    inside = 1;
}

static void write_register(Core *c, int index)
{
    if (lib.uc_reg_write(c->uc, register_ids[index], &c->word[index]) != UC_ERR_OK) {
        uint64_t zero = 0;
        lib.uc_reg_write(c->uc, register_ids[index], &zero);
    }
}

static void set_program_counter_whole(Core *c, uint64_t rip)
{
    lib.uc_context_save(c->uc, c->context);
    lib.uc_context_reg_write(c->context, UC_X86_REG_RIP, &rip);
    lib.uc_context_restore(c->uc, c->context);
}

/* For a place inside the syscall instruction's helper, which adds the length (and then looks at TF at once). */
static void set_program_counter_in_syscall(Core *c, uint64_t rip)
{
    set_program_counter_whole(c, rip - c->syscall_length);
}

/* Leaves a block that has not begun for another program counter. */
void leave_block(Core *c, uint64_t rip)
{
    lib.uc_reg_write(c->uc, UC_X86_REG_RIP, &rip);
    if (own.leave_block)
        own.leave_block(c->uc, 0); /* does not return */
}

/* Changes between 64-bit, 32-bit and 16-bit code: the words in which a saved context differs between them, found at
 * start-up, take the wanted mode's bits, and the code segment gets its base. (Writing CS as a register only changes the
 * selector.) */
static void switch_code_width(Core *c, uint64_t wanted)
{
    const unsigned mode = (wanted & 3) - 1;
    const uint64_t base = wanted >> 32;
    lib.uc_context_save(c->uc, c->context);
    for (int i = 0; i < c->n_modes; i++) {
        const uint32_t *in = c->modes[i].in, mask = (in[0] ^ in[1]) | (in[0] ^ in[2]);
        uint32_t *word = (uint32_t *)((char *)c->context + c->modes[i].at);
        *word = (*word & ~mask) | (in[mode] & mask);
    }
    memcpy((char *)c->context + c->at_code_base, &base, sizeof base);
    lib.uc_context_restore(c->uc, c->context);
}

/* How a saved context keeps a segment: es, cs, ss, ds, fs, gs lie in this order. */
typedef struct {
    uint32_t selector, unused;
    uint64_t base;
    uint32_t limit, flags; /* flags: the descriptor's upper half */
} Segment;

static Segment *segment(Core *c, int index)
{
    return (Segment *)((char *)c->context + c->at_code_base - offsetof(Segment, base)) + (index - CODE_SEGMENT);
}

static void load_segment(Segment *s, uint64_t selector, uint64_t descriptor)
{
    const uint32_t low = (uint32_t)descriptor, high = (uint32_t)(descriptor >> 32);
    const uint32_t limit = (low & 0xffff) | (high & 0xf0000);
    *s = (Segment){(uint32_t)selector & 0xffff, 0, low >> 16 | (high & 0xff) << 16 | (high & 0xff000000),
                   high & DESCRIPTOR_G ? limit << 12 | 0xfff : limit, high};
}

/* Code and stack segment of a guest whose rings differ, with all that the CPU derives from them when it loads them. */
static void load_segments(Core *c)
{
    lib.uc_context_save(c->uc, c->context);
    load_segment(segment(c, CODE_SEGMENT), c->word[CS], c->word[CS_DESCRIPTOR]);
    load_segment(segment(c, STACK_SEGMENT), c->word[SS], c->word[SS_DESCRIPTOR]);
    const int wide = (segment(c, CODE_SEGMENT)->flags & DESCRIPTOR_B) != 0;
    const uint64_t bases = segment(c, STACK_SEGMENT)->base | segment(c, DATA_SEGMENT)->base | segment(c, 0)->base;
    uint32_t *hidden = (uint32_t *)((char *)c->context + c->at_hidden_flags);
    *hidden = (*hidden & ~(uint32_t)(HIDDEN_CPL | HIDDEN_CS32 | HIDDEN_SS32 | HIDDEN_BASES | HIDDEN_CS64)) |
              (c->word[CS] & HIDDEN_CPL) | (wide ? HIDDEN_CS32 : 0) |
              (segment(c, STACK_SEGMENT)->flags & DESCRIPTOR_B ? HIDDEN_SS32 : 0) | (bases || !wide ? HIDDEN_BASES : 0);
    lib.uc_context_restore(c->uc, c->context);
}

/* Puts the caller's changes into the CPU. Order: plain registers, selectors before the bases that they would reset,
 * control registers, and RIP last in the way that the place allows. */
static void apply(Core *c)
{
    int moved = c->word[RIP] != c->seen[RIP] || (c->where == AT_BLOCK && c->word[CR3] != c->seen[CR3]);
    uint64_t sequel = moved ? NOWHERE : c->word[RIP];
    const int traps = c->word[STEP] || c->again;
    if (traps) { /* the CPU steps whatever the guest's own flag is */
        c->guest_steps = (c->word[RFLAGS] & TF) != 0;
        c->word[RFLAGS] |= TF;
        c->left_before = c->word[RCX];
    }
    if (traps || c->traps || c->begin_anew)
        c->seen[RFLAGS] = ~c->word[RFLAGS];
    if (c->where == AT_BLOCK && (traps != c->traps || c->flush_code || c->begin_anew))
        moved = 1; /* to other translated code of the same place */
    c->begin_anew = 0;
    c->traps = traps;
    c->flags_loaded = 0;
    if (c->flush_code && c->where != AT_MIDDLE)
        drop_code(c);
    if (c->word[CODE_SWITCH]) {
        if (c->word[CODE_SWITCH] == CODE_SWITCH_LOAD)
            load_segments(c);
        else
            switch_code_width(c, c->word[CODE_SWITCH]);
        c->word[CODE_SWITCH] = 0;
    }
    if (moved || memcmp(c->word, c->seen, sizeof c->seen) != 0) {
        if (c->where == AT_MIDDLE && (moved || c->word[CR3] != c->seen[CR3])) {
            /* wanted state whole into `target`, then drain the block */
            for (int i = 0; i < N_REGISTERS; i++)
                if (i != RIP && i != CR3 && c->word[i] != c->seen[i]) {
                    write_register(c, i);
                    c->seen[i] = c->word[i];
                }
            lib.uc_context_save(c->uc, c->target);
            lib.uc_context_reg_write(c->target, UC_X86_REG_RIP, &c->word[RIP]);
            lib.uc_context_reg_write(c->target, UC_X86_REG_CR2, &c->word[CR2]);
            c->draining = 1;
            set_deadline(0); /* so that the next block is a special one */
            c->drain_cr3 = c->seen[CR3] = c->word[CR3];
            c->drain_end = end_of_block();
            between_blocks(c->word[RETIRED]);
            c->word[FLUSH] = 0;
            load_root(c, c->empty_root);
            return;
        }
        for (int i = 0; i < N_REGISTERS; i++) {
            if (i == RIP)
                continue;
            if (c->word[i] != c->seen[i] || ((i == FS_BASE || i == GS_BASE) && c->word[i - 2] != c->seen[i - 2])) {
                if (i == CR3) {
                    load_root(c, c->word[CR3]);
                    c->word[FLUSHES]++;
                    c->word[FLUSH] = 0;
                } else {
                    write_register(c, i);
                }
                if (i >= CR0) /* load_registers() keeps these */
                    c->seen[i] = c->word[i];
            }
        }
        if (moved) {
            if (c->where == AT_SYSCALL)
                set_program_counter_in_syscall(c, c->word[RIP]);
            else if (c->where == AT_LOOP)
                set_program_counter_whole(c, c->word[RIP]);
        }
    }
    if (c->where == AT_SYSCALL)
        c->step_not_taken = (c->word[RFLAGS] & TF) != 0; /* that #DB is libunicorn's alone: it comes a little early */
    if (c->word[FLUSH]) {
        load_root(c, c->word[CR3]);
        c->word[FLUSH] = 0;
        c->word[FLUSHES]++;
    }
    if (c->flush_code)
        set_deadline(0); /* so that the next block is a special one */
    if (moved && c->where == AT_BLOCK) {
        pause_blocks(c->word[RETIRED], sequel);
        leave_block(c, c->word[RIP]);
    }
}

/* Whether the caller wants to have the guest back. The clock is the cheap one, right to some milliseconds. */
int out_of_patience(const Core *c)
{
    struct timespec t;
    if (!c->word[PATIENCE])
        return 0;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec > c->word[PATIENCE];
}

void leave(Core *c, int kind, int where)
{
    c->where = where;
    if (kind != EXIT_EXCEPTION || c->word[EXIT_VECTOR] != 1)
        c->word[WATCH_SIZE] = c->word[WATCH2_SIZE] = 0; /* the instruction that touched watched memory did not come to its end */
    if (where != AT_MIDDLE)
        c->again = 0;
    int done = c->reflex ? c->reflex->act(c->reflex->state, c->word, kind) : REFLEX_NOT_MINE;
    if (done == REFLEX_DONE && (c->word[STEP] || out_of_patience(c)))
        done = REFLEX_LOOK;
    if (done != REFLEX_DONE) {
        c->exit_kind = done == REFLEX_LOOK ? EXIT_DONE : kind;
        switch_to_caller(c);
    }
    apply(c);
}

/* While a block drains its hooks are not exits. Returns 1 when the caller's hook must do nothing. */
int drained(Core *c, int where)
{
    if (!c->draining)
        return 0;
    if (where == AT_MIDDLE)
        return 1; /* still inside the block that is being drained */
    c->draining = 0;
    set_deadline(c->word[DEADLINE]);
    lib.uc_context_restore(c->uc, c->target);
    load_root(c, c->drain_cr3);
    if (c->flush_code)
        drop_code(c);
    if (where == AT_BLOCK)
        leave_block(c, c->word[RIP]);
    else if (where == AT_SYSCALL) {
        set_program_counter_in_syscall(c, c->word[RIP]);
        c->step_not_taken = (c->word[RFLAGS] & TF) != 0;
    }
    return 1;
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
    c->word[RETIRED] = counted();
    _longjmp(c->caller, 1);
}

void switch_to_engine(Core *c)
{
    if (running != c) {
        if (running)
            running->kept = hot;
        hot = c->kept;
        running = c;
    }
    if (!c->draining) /* at 0 for code that is to be dropped, which can be done between blocks only */
        set_deadline(c->flush_code && c->where == AT_MIDDLE ? 0 : c->word[DEADLINE]);
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

